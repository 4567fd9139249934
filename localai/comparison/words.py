"""How figures are said: sizes, speeds, shares and differences in plain words, the same in all places."""

from __future__ import annotations

import math
import re
import shlex
from typing import Final, NamedTuple

from localai.chat.clean import clean, clean_line
from localai.comparison import front
from localai.comparison.front import CLEAR, loss_of
from localai.comparison.result import Comparison, Row
from localai.comparison.selection import PLAIN
from models.figures import Loss

HARDLY: Final = 0.02
"""Nats of mean KL divergence below which a loss is hardly noticeable.

By Pinsker's inequality, two models that are so close draw the same token in at least 9 of 10 places, if what
is random in it is the same: sqrt(0.02 / 2) = 1 / 10.
"""
SAME_WORD: Final = 0.9
"""And so often must both find the same token the most likely: 9 of 10 again."""
AT_TIMES: Final = 0.1
"""Nats up to which it is noticeable at times: one token in five or so is drawn otherwise."""
MUCH: Final = 0.5
"""Nats above which a model is damaged: every second token may be drawn otherwise."""
_NAME: Final = 40


def name(text: str) -> str:
    """A type's name as one can show it: names of recipes are others' words."""
    line = clean_line(text)
    return line if len(line) <= _NAME else f"{line[: _NAME - 1]}…"


def original(reference: str) -> str:
    """What is compared with, for people who do not know that BF16 is what nothing was taken from."""
    return f"the original ({reference})" if reference in PLAIN else name(reference)


def size(count: float) -> str:
    """Bytes: "98.4 MB"."""
    for unit in ("bytes", "kB", "MB"):
        if count < 999.95:
            return f"{count:.0f} {unit}" if unit == "bytes" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} GB"


def rough(count: int) -> str:
    """Bytes, three digits of them: "460 MB", "33.3 MB", "0.76 GB"."""
    return (
        f"{count / 1e9:.3g} GB" if count >= 7e8 else f"{count / 1e6:.3g} MB" if count >= 1e5 else size(count)
    )


def pace(rate: float) -> str:
    """Tokens per second: "144", "9.4"."""
    return f"{rate:,.0f}" if rate >= 9.95 else f"{rate:.1f}" if rate >= 0.95 else f"{rate:.2g}"


def context(tokens: int) -> str:
    """Tokens of context: "16k"."""
    return f"{tokens // 1024}k" if tokens % 1024 == 0 and tokens else f"{tokens:,}"


def weights(number: int) -> str:
    """A number of weights: "135 million"."""
    for limit, unit in ((1e9, " billion"), (1e6, " million"), (1e3, " thousand")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)


def places(share: float) -> str:
    """A share as one counts it: "93 of 100", "998 of 1,000"."""
    if share >= 0.9995:
        return "all but a few of 1,000" if share < 1 else "each"
    return f"{share * 1000:.0f} of 1,000" if share >= 0.985 else f"{share * 100:.0f} of 100"


def with_error(value: float, error: float) -> str:
    """Two digits of the error, and as many of the value: "0.0702 ± 0.0036"."""
    if not error > 0 or not math.isfinite(error):
        return f"{value:.4g}"
    digits = max(0, 1 - math.floor(math.log10(error)))
    return f"{value:,.{digits}f} ± {error:,.{digits}f}"


def surprise(perplexity: float) -> str:
    """A perplexity: "16.94", "2,418,070"."""
    return f"{perplexity:.4g}" if perplexity < 1000 else f"{perplexity:,.0f}"


def is_hardly_noticeable(loss: Loss) -> bool:
    """Whether nobody would notice that it is not the original."""
    return loss.kl <= HARDLY and loss.top1 >= SAME_WORD


def grade(loss: Loss) -> str:
    """How much a loss matters: "hardly noticeable", "noticeable at times", "clearly noticeable", "severe"."""
    if is_hardly_noticeable(loss):
        return "hardly noticeable"
    if loss.kl <= AT_TIMES:
        return "noticeable at times"
    return "clearly noticeable" if loss.kl <= MUCH else "severe"


class Difference(NamedTuple):
    """One respect in which a type is clearly other than another."""

    better: bool
    verb: str
    words: str


def differences(one: Row, other: Row, *, absolute: bool = False) -> list[Difference]:
    """What `one` clearly is, compared with `other`. `absolute`: sizes in bytes, not in percent."""
    steps = front.ahead(one, other)
    found = []
    if abs(steps.size) > CLEAR:
        apart = abs(one.size - other.size)
        much = rough(apart) if absolute else _percent(apart / max(other.size, 1))
        found.append(Difference(steps.size > 0, "is", f"{much} {'smaller' if steps.size > 0 else 'larger'}"))
    if abs(steps.speed) > CLEAR and one.speed and other.speed:
        ratio = one.speed.generate.median / max(other.speed.generate.median, 1e-9)
        found.append(Difference(ratio > 1, "is", _faster(ratio)))
    if abs(steps.loss) > CLEAR:
        found.append(Difference(steps.loss > 0, "has", _loss(loss_of(one).kl, loss_of(other).kl)))
    return found


def _percent(share: float) -> str:
    return f"{max(share, 0.01):.0%}"


def _faster(ratio: float) -> str:
    if ratio >= 1.95:
        return "twice as fast" if ratio < 2.05 else f"{ratio:.1f} times as fast"
    return f"{_percent(abs(ratio - 1))} {'faster' if ratio > 1 else 'slower'}"


def _loss(mine: float, theirs: float) -> str:
    ratio = mine / theirs if theirs > 0 else math.inf
    if 0.45 <= ratio <= 0.55:
        return "half the loss"
    if ratio < 1:
        return "no loss" if mine == 0 else f"{_percent(1 - ratio)} less loss"
    if ratio > 1000:
        return "a loss, where the other has none" if theirs == 0 else "far more loss"
    if ratio >= 1.95:
        much = f"{ratio:.2g}" if ratio < 9.5 else f"{ratio:.0f}"
        return "twice the loss" if ratio < 2.05 else f"{much} times the loss"
    return f"{_percent(ratio - 1)} more loss"


def sentence(found: list[Difference]) -> str:
    """Verbs and words in a row: "is 14% smaller and 28% faster, and has half the loss"."""
    said = {verb: " and ".join(one.words for one in found if one.verb == verb) for verb in ("is", "has")}
    return ", and ".join(f"{verb} {words}" for verb, words in said.items() if words)


def command(comparison: Comparison, file_type: str) -> str:
    """The command line that makes the type of that name, for a POSIX shell."""
    words = ["localai", "quantize", comparison.source, "--type", file_type]
    words += ["--imatrix", comparison.imatrix] if comparison.imatrix else []
    # Blanks stay as they are: in a path, two are not one.
    return shlex.join(re.sub(r"[\n\t]", " ", clean(word)) for word in [*words, *comparison.options])
