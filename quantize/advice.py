"""Which type to take: what fits this machine, what fits a limit, and which is recommended and why."""

from __future__ import annotations

from collections.abc import Iterator

import msgspec

from localai.errors import UsageError
from models.files import megabytes
from quantize.file_types import TERNARY
from quantize.protocol import Candidate, Forecast

_QUICK = 2_000_000_000
"""Bytes. Each token reads the whole file: up to here it is quick everywhere, and more bits cost no
patience."""
_USUAL = "Q4_K_M"
_BETTER = ("Q8_0", "Q6_K", "Q5_K_M")
_CONTEXT = 16_384
"""Tokens that memory is reckoned with: R1's thinking rarely needs more."""


class Advice(msgspec.Struct, frozen=True):
    """A type, and why, in a sentence."""

    file_type: str
    reason: str


def context_of(candidate: Candidate) -> int:
    """The context that `candidate` is judged with: 16k tokens, or what it was trained for if that is less."""
    return max(context for context in candidate.memory if context <= _CONTEXT or len(candidate.memory) == 1)


def recommend(forecast: Forecast, memory: int) -> Advice:
    """The type for a machine on which a model may take `memory` bytes."""
    suited = list(sensible(forecast))
    fitting = [one for one in suited if one.memory[context_of(one)] <= memory]
    by_name = {one.file_type: one for one in fitting}
    for name in _BETTER:
        if name in by_name and by_name[name].size <= _QUICK:
            return Advice(name, f"at {megabytes(by_name[name].size)} it is quick, and loses almost nothing")
    if _USUAL in by_name:
        return Advice(_USUAL, "the usual balance of quality, size and speed, and it fits")
    if fitting:
        return Advice(fitting[0].file_type, f"the best that fits into {megabytes(memory)} of memory")
    least = min(suited or forecast.candidates, key=lambda one: one.size)
    context = context_of(least)
    return Advice(
        least.file_type,
        f"the smallest, but with {context:,} tokens it needs {megabytes(least.memory[context])} "
        f"and {megabytes(memory)} can be had here",
    )


def choose(forecast: Forecast, max_size: int | None, max_memory: int | None) -> Advice:
    """The best type whose file takes at most `max_size` bytes and that runs in `max_memory` bytes.

    UsageError, with what the smallest needs, if there is none.
    """
    suited = list(sensible(forecast))
    for one in suited:
        fits_disk = max_size is None or one.size <= max_size
        if fits_disk and (max_memory is None or one.memory[context_of(one)] <= max_memory):
            return Advice(one.file_type, "the best type within the limits")
    least = min(suited or forecast.candidates, key=lambda one: one.size)
    context = context_of(least)
    raise UsageError(
        f"no type fits: {least.file_type} takes {megabytes(least.size)} of disk, and "
        f"{megabytes(least.memory[context])} of memory with {context:,} tokens",
        "Raise the limit, have smaller types with --imatrix auto, or take a smaller model",
    )


def sensible(forecast: Forecast) -> Iterator[Candidate]:
    """The types that make sense for this model, best first.

    No more precision than the source has, none that needs an importance matrix that is not there, and
    no ternary one, which only suits models trained for it.
    """
    source = next((one for one in forecast.candidates if one.file_type == forecast.source_type), None)
    for one in forecast.candidates:
        too_fine = one.file_type in ("F32", "F16", "BF16") and one.file_type != forecast.source_type
        too_large = source is not None and one.size > source.size
        if not (too_fine or too_large or one.needs_imatrix or one.file_type in TERNARY):
            yield one
