"""Whether a model fits this machine, and why, in words."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from models import fit
from models.header import Header
from tui.format import count, size

Verdict = Literal["fits", "tight", "too large", ""]
"""tight: it runs if other programs give memory back. "": not known before the file is here."""

_LARGEST_WEIGHT: Final = 4
"""Bytes of a number in any type of file."""


class Fit(msgspec.Struct, frozen=True):
    """What comes of it."""

    verdict: Verdict
    why: str
    """One sentence."""
    tokens_per_s: float = 0.0
    """How fast it may be; 0: not known."""


def fit_of(header: Header, free: int, total: int) -> Fit:
    """For a model with `header`, when `free` of `total` bytes of memory can be had without swapping."""
    weights = header.tensor_bytes
    trained = header.context_trained or fit.LEAST
    least = min(fit.LEAST, trained)
    context = fit.largest_context(header, max(0, free - weights))
    room = f"the {size(free)} of memory that is free"
    if context >= trained:
        return Fit("fits", f"Fits, with all {count(trained)} tokens of its context in {room}.")
    if context >= least:
        return Fit("fits", f"Fits, with up to {count(context)} tokens of context in {room}.")
    needed = fit.memory_needed(fit.Shape.of(header), weights, least)
    return _lacking(needed, free, total)


def fit_of_unseen(file_size: int, parameters: int, free: int, total: int) -> Fit:
    """For a model that is not here yet: `file_size` in bytes and number of `parameters`, 0: not known."""
    most = file_size or parameters * _LARGEST_WEIGHT
    if most and most <= free // 2:
        return Fit("fits", "Fits: it is small for this machine.")
    if not file_size:
        return Fit("", "Whether it fits is known once it is here.")
    if file_size <= free:
        return Fit("fits", "Fits; for how much context is known once it is here.")
    return _lacking(file_size, free, total)


def _lacking(needed: int, free: int, total: int) -> Fit:
    if needed <= total:
        return Fit(
            "tight",
            f"Needs {size(needed)} of memory and {size(free)} is free: close other programs, or it is slow.",
        )
    return Fit(
        "too large",
        f"Needs {size(needed)} of memory and this machine has {size(total)}: it would be very slow.",
    )
