"""Which types are worth a look: those that no other one makes pointless, as far as errors let one say so.

Contract: types are compared by the size of the file, the speed of writing and the loss (mean KL divergence);
by speed only where both have one. The loss of all comes from the same text and the speed from the same
minutes, so their errors go together: to take them as independent makes the error of a difference too large.
So "clearly" takes more than it had to, and what is only "within the error" is given little room: one error,
not two.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Final, Literal, NamedTuple

from localai.comparison.result import Comparison, Row
from models.figures import Loss

CLEAR: Final = 2.0
"""Standard errors of a difference, above which it is one."""
_WITHIN: Final = 1.0
"""Standard errors by which one may be worse and still count as not worse."""
_SIZE_UNIT: Final = 0.005
"""Sizes are exact: half a percent stands for the error, because nobody would choose by it."""
_SPEED_UNIT: Final = 0.01
"""The least relative error of a speed: a few measurements that happen to agree do not make it exact."""
LOSS_UNIT: Final = 0.0005
"""The least error of a loss, in nats: below that, no two files differ for anybody."""


class Ahead(NamedTuple):
    """How far one type is ahead of another, in standard errors of the difference; less than 0: behind."""

    size: float
    speed: float
    """NaN where not both have one."""
    loss: float


def loss_of(row: Row) -> Loss:
    """Its loss; ValueError for a type that has none, of which `measured` gives none."""
    if row.loss is None:
        raise ValueError(f"{row.file_type} has no loss")
    return row.loss


def measured(rows: Sequence[Row]) -> list[Row]:
    """Those with a loss, the largest first; in the same order, whatever that of `rows` is."""
    found = [row for row in rows if row.loss is not None]
    return sorted(found, key=lambda row: (-row.size, loss_of(row).kl, row.file_type, row.sha256))


def ahead(one: Row, other: Row) -> Ahead:
    """How far `one` is ahead of `other`."""
    mine, theirs = loss_of(one), loss_of(other)
    error = max(math.hypot(mine.kl_stderr, theirs.kl_stderr), LOSS_UNIT)
    return Ahead(
        size=(other.size - one.size) / max(_SIZE_UNIT * other.size, 1),
        speed=_faster(one, other),
        loss=(theirs.kl - mine.kl) / error,
    )


def _faster(one: Row, other: Row) -> float:
    if one.speed is None or other.speed is None:
        return math.nan
    mine, theirs = one.speed.generate, other.speed.generate
    least = _SPEED_UNIT * math.hypot(mine.median, theirs.median)
    error = max(math.hypot(mine.stderr, theirs.stderr), least, 1e-9)
    return (mine.median - theirs.median) / error


def dominates(one: Row, other: Row) -> bool:
    """Whether `one` is not worse than `other` in anything, and clearly better in something.

    Of two that differ within the errors only, each could be "not worse" than the other, and of three, each
    could dominate the next one in a circle. So it must be better all in all, too: by the product of the three
    ratios. Where one has a speed and the other has none, nothing is said.
    """
    if (one.speed is None) != (other.speed is None):
        return False
    steps = [step for step in ahead(one, other) if not math.isnan(step)]
    return min(steps) >= -_WITHIN and max(steps) > CLEAR and _all_in_all(one) > _all_in_all(other)


def _all_in_all(row: Row) -> float:
    speed = row.speed.generate.median if row.speed else 1.0
    loss = max(loss_of(row).kl, LOSS_UNIT)
    return math.log(max(speed, 1e-9)) - math.log(max(row.size, 1)) - math.log(loss)


def dominator(row: Row, rows: Sequence[Row]) -> Row | None:
    """A type that dominates `row`, itself on the front if one of those is; None: `row` is on the front."""
    better = [one for one in measured(rows) if dominates(one, row)]
    best = [one for one in better if not any(dominates(other, one) for other in better)]
    return max(best or better, key=_all_in_all, default=None)


def front(rows: Sequence[Row]) -> list[Row]:
    """Those that no other one dominates, the largest first. Never empty if any has a loss."""
    found = measured(rows)
    return [row for row in found if not any(dominates(other, row) for other in found)]


Standing = Literal["advised", "front", "dominated"]


def standings(comparison: Comparison) -> list[tuple[Row, Standing]]:
    """Each measured type, the largest first, and what is to be thought of it."""
    advised = comparison.advice.file_type if comparison.advice else ""
    kept = front(comparison.rows)

    def standing(row: Row) -> Standing:
        if row.file_type == advised:
            return "advised"
        return "front" if row in kept else "dominated"

    return [(row, standing(row)) for row in measured(comparison.rows)]
