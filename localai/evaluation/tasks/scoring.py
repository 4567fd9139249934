"""Whether a reply is right: the answer in it is found, and compared with the one that is right.

It is looked for in the answer only, never in the thinking: in the last box (`\\boxed{}`), as reasoning models
write it; else a number is the last that stands alone in bold letters, else the last of all; and a word is the
last of those that can be chosen, or has to be there at all. Numbers are compared as numbers ("1,234.0" is
1234), words without their case and the signs around them.
"""

from __future__ import annotations

import re
import unicodedata
from fractions import Fraction
from typing import Final

from localai.evaluation.tasks.sets import Question

_BOX = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BOLD = re.compile(r"\*\*(.+?)\*\*|__(.+?)__")
_FRACTION = re.compile(r"\\[dt]?frac\s*\{([^{}]*)\}\s*\{([^{}]*)\}")
_WORDS_IN_MATHS = re.compile(r"\\(?:text|textbf|mathrm|mathbf|operatorname)\s*\{([^{}]*)\}")
_THOUSANDS = re.compile(r"(?<=\d)(?:\{,\}|\\[,;:! ]|[\u00a0\u2009\u202f'\u2019])(?=\d{3}(?!\d))")
_SPACING = re.compile(r"\\[,;:! ]|[\u00a0\u2009\u202f~]|\\(?=[$%#&])")
_DEGREES = re.compile(r"\^\s*\{?\s*\\circ\s*\}?")
_RAISED = re.compile("[\u2070\u00b9\u00b2\u00b3\u2074-\u207f]+")
_LOWERED = re.compile("[\u2080-\u208e]+")
_ONE_SIGN = re.compile("(?=[\u00bc-\u00be\u2150-\u215e])")
"""Before a fraction that is one sign."""
_NUMBER = re.compile(
    r"(?<![^\W_])(?<![\^.])(?<!\^\{)(?<!\w_)(?<!_\{)(?:(?<!\))-)?"
    r"(?:\d{1,3}(?:,\d{3})+(?!\d)|\d+)(?:\.\d+|,\d{1,2}(?![\d,]))?"
    r"(?P<more>\s*/\s*\d+|\s*\^|\s*\\(?:times|cdot)\s*10(?!\d))?"
)
_ALONE = re.compile(
    r"(?:\s*[^\W\d]+){0,3}\s*[:=]?[^\w-]*(?P<number>-?\d[\d,.]*)[^\w=+*/^-]*(?:[^\W\d]+\W*){0,3}"
)
"""A number, perhaps with what it is of before it, and with its unit."""

_SMALL: Final = (
    *("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten", "eleven"),
    *("twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen"),
)
_LARGE: Final = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_UNITS: Final = {word: number for number, word in enumerate(_SMALL)}
_TENS: Final = {word: 20 + 10 * number for number, word in enumerate(_LARGE)}


def is_right(question: Question, reply: str) -> bool | None:
    """Whether the answer in `reply` is the right one; None if there is no answer in it."""
    sought = _boxed(reply)
    if question.answer.isdecimal():
        number = _number(reply if sought is None else sought)
        return None if number is None else number == int(question.answer)
    return _named(question, _words(reply if sought is None else sought))


def _boxed(reply: str) -> str | None:
    """What is in the last box that is not empty; braces in it are in pairs. None without one."""
    for start in reversed([match.end() for match in _BOX.finditer(reply)]):
        depth = 1
        for place in range(start, len(reply)):
            depth += {"{": 1, "}": -1}.get(reply[place], 0)
            if not depth:
                if inside := reply[start:place].strip():
                    return inside
                break
    return None


def _plain(text: str) -> str:
    """`text` with its LaTeX and its typography as simple as numbers and words need it."""
    text = _THOUSANDS.sub(",", text)
    text = _DEGREES.sub("", _SPACING.sub(" ", text))
    text = _ONE_SIGN.sub(" ", _LOWERED.sub("_", _RAISED.sub("^", text)))
    text = unicodedata.normalize("NFKC", text).replace("\u2212", "-").replace("\u2044", "/")
    return _FRACTION.sub(r" \1/\2 ", _WORDS_IN_MATHS.sub(r" \1 ", text))


def _number(text: str) -> Fraction | None:
    """The number that `text` ends with, as it were; None without one that can be read."""
    text = _plain(text)
    alone = [bold for pair in _BOLD.findall(text) if _ALONE.fullmatch(bold := "".join(pair))]
    found = list(_NUMBER.finditer(alone[-1] if alone else text))
    if not found:
        return _spelled(text)
    return _value(found[-1])


def _value(found: re.Match[str]) -> Fraction | None:
    """None for a power, a factorial and what else is more than one number."""
    more = (found["more"] or "").strip()
    digits = found[0].removesuffix(found["more"] or "")
    digits = re.sub(r",(?=\d{3})", "", digits).replace(",", ".")
    if not more:
        return Fraction(digits)
    divisor = more.removeprefix("/").strip()
    return Fraction(digits) / int(divisor) if divisor.isdecimal() and int(divisor) else None


def _spelled(text: str) -> Fraction | None:
    """The last number in words, up to a hundred."""
    last: int | None = None
    words = _words(text)
    for place, word in enumerate(words):
        before = words[place - 1] if place else ""
        if word in _UNITS and before in _TENS and 0 < _UNITS[word] < 10:
            last = _TENS[before] + _UNITS[word]
        elif word in _UNITS or word in _TENS:
            last = _UNITS.get(word, _TENS.get(word))
        elif word == "hundred" and before in ("a", "one"):
            last = 100
    return None if last is None else Fraction(last)


def _words(text: str) -> list[str]:
    return re.findall(r"[^\W_]+", _plain(text).casefold())


def _named(question: Question, words: list[str]) -> bool | None:
    """Whether `words` name the answer, and no other of the choices behind it."""
    right = (question.answer, *question.also)
    places = {name: _last(words, _words(name)) for name in (*right, *question.choices)}
    if not words or (question.choices and max(places.values()) < 0):
        return None
    best = max(places[name] for name in right)
    return best >= 0 and best == max(places.values())


def _last(words: list[str], name: list[str]) -> int:
    """Where `name` ends for the last time in `words`; -1: nowhere."""
    width = len(name)
    ends = range(len(words), width - 1, -1)
    return next((end for end in ends if words[end - width : end] == name), -1)
