"""Figures as people read them."""

from __future__ import annotations

import math
from typing import Final

from models.figures import Answers, Figures, Loss

_EXACT: Final = ("F32", "BF16", "F16")
"""Types that a model is published in: nothing of it is lost."""


def percent(share: float) -> str:
    """A share of 1, such as "84 %"; what is nearly all of it is never "100 %"."""
    if 0.995 <= share < 1:
        return f"{min(share, 0.999):.1%}".replace("%", " %")
    return f"{share:.0%}".replace("%", " %")


def original(loss: Loss) -> str:
    """What it was compared with: "the original", or "its Q8_0"."""
    return "the original" if loss.reference in _EXACT else f"its {loss.reference}"


def likeness(loss: Loss, *, short: bool = False) -> str:
    """How much it is like what it was made of, as a sentence; `short`: without the divergence."""
    places = f"Goes on as {original(loss)} does in {percent(loss.top1)} of places"
    return f"{places}." if short else f"{places} (KL {with_error(loss.kl, loss.kl_stderr)})."


def answers(found: Answers) -> str:
    """How many were right, as a sentence."""
    return f"{found.right:,} of {found.asked:,} answers right ({found.set})."


def tokens(per_second: float) -> str:
    """A rate, as exact as it matters."""
    return f"{per_second:.0f}" if per_second >= 9.5 else f"{per_second:.1f}"


def sentences(found: Figures, *, short: bool = False) -> str:
    """All that is known, measured here first. Not clean: files of others have words, too."""
    said = []
    if found.speed is not None:
        said.append(f"Measured here: {tokens(found.speed.generate.median)} tokens/s.")
    if found.loss is not None:
        said.append(likeness(found.loss, short=short))
    if found.answers is not None:
        said.append(answers(found.answers))
    return " ".join(said)


def advantage(name: str, one: Figures, other: Figures) -> str:
    """Why what is called `name`, which has the figures `one`, is better than `other`, which it dominates."""
    rates = [each.speed.generate.median if each.speed else 0.0 for each in (one, other)]
    words = ["smaller"] * (one.size < other.size) + ["faster"] * (rates[0] > rates[1])
    return f"{name} is {' and '.join(words)} here, and loses no more within the errors."


def with_error(value: float, error: float) -> str:
    """A figure with the digits that its error leaves: "0.070 +- 0.004"."""
    if error <= 0:
        return f"{value:.3f}"
    digits = min(max(-math.floor(math.log10(error)), 0), 6)
    return f"{value:.{digits}f} +- {error:.{digits}f}"
