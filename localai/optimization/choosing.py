"""From what was measured to a type for every tensor: a knapsack of the loss that each type would cost.

The loss of a model is taken to be the sum of what its matrices cost alone, and that of a matrix to be in
proportion to the error of its weights: both hold as long as losses are small, because errors of rounding have
nothing to do with each other. How much of each is measured once for each group, as the KL divergence with one
type; by the errors of all types, this gives the cost of each.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Final, NamedTuple

from localai.errors import UsageError
from localai.optimization.groups import Group
from models.files import megabytes
from models.ggml_types import TENSOR_TYPES, WRITABLE
from quantize import knapsack
from quantize.protocol import Errors, Forecast

TYPES: Final = (
    *("Q8_0", "Q6_K", "Q5_K", "Q5_1", "Q5_0", "Q4_K", "Q4_1", "Q4_0", "IQ4_NL", "IQ4_XS"),
    *("Q3_K", "IQ3_S", "IQ3_XXS", "Q2_K", "IQ2_S", "IQ2_XS", "IQ2_XXS"),
)
"""What a matrix may become. Below that nothing is left of it, and ternary types are for other models."""
BELOW: Final = 2.0
"""Bits for each weight: types that have so many less than the average are not looked at."""

MEASURED_ERROR: Final = 0.006
"""The error with which a group is measured: that of 4 bits. With less, the loss drowns in the rounding of the
model's own type; with more, it is no longer in proportion."""
MEASURED_BITS: Final = 4.0
"""Types with so many bits or more are looked at for any size."""

LEAST_KL: Final = 1e-7
"""What a group costs at least, in nats: far below what can be told from rounding."""

_ALIGNMENT: Final = 32
"""Bytes: each tensor may end with so many that are nothing."""

Costs = Mapping[str, float]
"""By tensor: the KL divergence for each unit of its error, in nats."""


class Choice(NamedTuple):
    """What to take."""

    types: dict[str, str]
    """By tensor, the name of its type."""
    kl: float
    """What all of them are expected to cost."""
    nbytes: int
    """Of the tensors that have a choice, as they lie in the file."""


def looked_at(size: int, weights: int) -> list[int]:
    """ggml's numbers of the types that are of interest for `weights` in `size` bytes."""
    least = min(8 * size / max(1, weights) - BELOW, MEASURED_BITS)
    return [WRITABLE[name] for name in TYPES if bits(WRITABLE[name]) >= least]


def require_choice(known: Forecast, size: int) -> None:
    """UsageError for a `size` of which the forecast says already that it leaves nothing to choose.

    Rather small ones are found out later: this knows only how much the smallest type takes at least.
    """
    largest = next(one for one in known.candidates if one.file_type == TYPES[0])
    if largest.size <= size:
        raise UsageError(
            f"{TYPES[0]} takes {megabytes(largest.size)}, within --max-size: there is nothing to choose",
            f"Take --type {TYPES[0]}, or a smaller --max-size",
        )
    share = min(bits(WRITABLE[name]) for name in TYPES) / bits(WRITABLE[TYPES[0]])
    padding = _ALIGNMENT * known.tensors
    least = known.fixed_bytes + int(share * (largest.size - known.fixed_bytes)) - padding
    if size < least:
        raise _too_small(least - size)


def require_room(errors: Mapping[str, Errors], room: int) -> None:
    """UsageError if even the smallest types take more than `room` bytes."""
    least = sum(min(one.sizes.values()) for one in errors.values())
    if room < least:
        raise _too_small(least - room)


def _too_small(by: int) -> UsageError:
    return UsageError(
        f"--max-size is too small by {megabytes(by)}: no types make this model so small",
        "Raise it, or take a smaller model",
    )


def bits(number: int) -> float:
    """Bits for each weight of a type of ggml's."""
    block = TENSOR_TYPES[number]
    return 8 * block.size / block.elements


def probe(group: Group, errors: Mapping[str, Errors]) -> int:
    """The type with which a group is measured: that whose error is nearest to `MEASURED_ERROR`.

    It must be one that all its matrices can have; UsageError if there is none. Weights that were once in a
    type lose nothing by that type, and tell nothing with it.
    """
    common = set.intersection(*(set(errors[name].errors) for name in group.tensors))
    if not common:
        raise UsageError(
            f"--optimize cannot measure {group.name}: there is no type that all its matrices can have",
            "Take a usual type with --type",
        )
    mean = {number: _mean(number, group, errors) for number in common}
    lossy = [number for number in common if mean[number] > 0]
    return min(lossy or common, key=lambda number: (_distance(mean[number]), number))


def _mean(number: int, group: Group, errors: Mapping[str, Errors]) -> float:
    return sum(errors[name].errors[number] for name in group.tensors) / len(group.tensors)


def _distance(error: float) -> float:
    return abs(math.log(error / MEASURED_ERROR)) if error > 0 else math.inf


def costs(group: Group, errors: Mapping[str, Errors], number: int, kl: float) -> dict[str, float]:
    """What the matrices of a group cost, if all of them in the type `number` cost `kl`.

    Never nothing: what one text did not use may matter for another, and gets bits where there is room.
    """
    total = sum(errors[name].errors[number] for name in group.tensors)
    return dict.fromkeys(group.tensors, max(kl, LEAST_KL) / total if total else 0.0)


def choose(errors: Mapping[str, Errors], cost: Costs, room: int) -> Choice:
    """The types of least loss that take at most `room` bytes; UsageError if nothing is so small."""
    names = list(errors)
    options = [_options(errors[name], cost[name]) for name in names]
    try:
        chosen = knapsack.choose([[option for _, option in one] for one in options], room)
    except knapsack.TooSmall as error:
        raise _too_small(error.least - room) from error
    taken = [one[number] for one, number in zip(options, chosen, strict=True)]
    return Choice(
        types={name: TENSOR_TYPES[number].name for name, (number, _) in zip(names, taken, strict=True)},
        kl=sum(option.cost for _, option in taken),
        nbytes=sum(option.bytes for _, option in taken),
    )


def _options(errors: Errors, cost: float) -> Sequence[tuple[int, knapsack.Option]]:
    """Of one matrix; without those that are no smaller and lose no less than another."""
    found = [
        (number, knapsack.Option(errors.sizes[number], cost * error))
        for number, error in errors.errors.items()
    ]
    found.sort(key=lambda one: (one[1].bytes, one[1].cost))
    best: list[tuple[int, knapsack.Option]] = []
    for number, option in found:
        if not best or option.cost < best[-1][1].cost:
            best.append((number, option))
    return best
