"""Which characters command a terminal, reorder a line, or stand in a text without being seen.

`PROSE` is what no text may show: controls, what turns the direction of writing, and what Unicode calls
"default ignorable", in which a file can hide instructions for a model, or a name its difference from another.
Left are the joiners (U+200C and U+200D), the two signs that choose how an emoji looks, and Mongolian's
variants: people need them to write. In a name or any other text of one line they say nothing that is worth
two names that look the same, so `LINE` has them too.

Source: DerivedCoreProperties.txt of the Unicode Character Database (Default_Ignorable_Code_Point), UAX 9.
"""

from __future__ import annotations

from functools import cache
from typing import Final

MOST_MARKS: Final = 4
"""Combining marks on one letter of a name. Written languages take three; hundreds reach into other rows."""

_C0: Final = [code for code in range(0x20) if chr(code) not in "\n\t"]
_DEL_AND_C1: Final = range(0x7F, 0xA0)
# A lone surrogate is no character: no terminal shows it, no file and no database can hold it.
_SURROGATES: Final = range(0xD800, 0xE000)
_DIRECTION: Final = [0x061C, 0x200E, 0x200F, *range(0x202A, 0x202F), *range(0x2066, 0x206A)]
_INVISIBLE: Final = [
    *(0x00AD, 0x034F, 0x180E, 0x200B, 0xFEFF),  # soft hyphen, grapheme joiner, and spaces without a width
    *(0x115F, 0x1160, 0x3164, 0xFFA0),  # fillers of Hangul: letters, as a program sees them
    *(0x17B4, 0x17B5),  # vowels of Khmer that nobody writes
    *range(0x2060, 0x2066),
    *range(0x206A, 0x2070),
    *range(0xFE00, 0xFE0E),  # variants of signs; with them any byte can stand behind a letter
    *range(0xFFF0, 0xFFFC),
    *range(0x13430, 0x13440),  # how hieroglyphs stand: no terminal does it
    *range(0x1BCA0, 0x1BCA4),
    *range(0x1D173, 0x1D17B),
    *range(0xE0000, 0xE1000),  # tags, and more variants; the flags of England and Scotland become black
]
_LINE_ENDS: Final = {0x2028: "\n", 0x2029: "\n"}

PROSE: Final[dict[int, str | None]] = {
    **dict.fromkeys([*_C0, *_DEL_AND_C1, *_SURROGATES, *_DIRECTION, *_INVISIBLE]),
    **_LINE_ENDS,
}
"""For `str.translate`: what becomes of what no text may show."""

LINE: Final[dict[int, str | None]] = {
    **PROSE,
    **dict.fromkeys([0x200C, 0x200D, 0xFE0E, 0xFE0F, *range(0x180B, 0x1810)]),
    # Of Braille's signs the one without dots: in a drawing it keeps the place, in a name it is a space.
    0x2800: " ",
}
"""As `PROSE`, for texts of one line; line ends and all blanks are left for the caller to fold."""


def thinned(text: str, most: int = MOST_MARKS) -> str:
    """`text` without the combining marks that stand behind `most` others."""
    if text.isascii():
        return text
    from unicodedata import category

    kept: list[str] = []
    marks = 0
    for char in text:
        marks = marks + 1 if char > "\u02ff" and category(char)[0] == "M" else 0
        if marks <= most:
            kept.append(char)
    return "".join(kept)


def escaped(json: str) -> str:
    """A JSON document in which what `PROSE` has stands as escapes: nothing is lost, and nothing is obeyed.

    Always right, for outside of its strings JSON has none of these. Most have none at all, and to see that is
    quick.
    """
    return json if json.isascii() and "\x7f" not in json else json.translate(_escapes())


@cache
def _escapes() -> dict[int, str]:
    return {code: _escape(code) for code in PROSE}


def _escape(code: int) -> str:
    """As JSON writes it: beyond the first plane, as two halves."""
    if code < 0x10000:
        return f"\\u{code:04x}"
    high, low = divmod(code - 0x10000, 0x400)
    return f"\\u{0xD800 + high:04x}\\u{0xDC00 + low:04x}"
