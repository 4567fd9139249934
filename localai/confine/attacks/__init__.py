"""What a process would try that a hostile model has taken over: the proof that the sandbox holds.

The worker that is confined tries all of it upon itself; an unconfined process that tries the same is the
control, without which a denial proves nothing. Attacks touch only targets made for them (`targets.prepare`),
undo what they can, and take less than a second together. What kills whoever tries it is not among them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Final

import msgspec

from localai.confine.attacks import changes, kernel, looks, network, others, programs, resources, variants
from localai.confine.attacks.early import TRIES, EarlyThread
from localai.confine.attacks.kinds import Attack, Outcome, tried
from localai.confine.attacks.targets import Targets, changed, prepare, state

__all__ = [
    "ATTACKS",
    "Attack",
    "EarlyThread",
    "Outcome",
    "Targets",
    "changed",
    "compared",
    "prepare",
    "run",
    "state",
]

ATTACKS: Final[Mapping[str, Attack]] = {
    **network.ATTACKS,
    **changes.ATTACKS,
    **looks.ATTACKS,
    **programs.ATTACKS,
    **others.ATTACKS,
    **resources.ATTACKS,
    **kernel.ATTACKS,
    **variants.ATTACKS,
}
"""By a name for people, of a few words."""


def run(targets: Targets, *, early: EarlyThread | None = None) -> tuple[Outcome, ...]:
    """Try all attacks on `targets`, some also in the thread `early`. Raises nothing."""
    older = () if early is None else [early.tried(name, ATTACKS[name], targets) for name in TRIES]
    return (*older, *(tried(name, attack, targets) for name, attack in ATTACKS.items()))


def compared(control: Iterable[Outcome], confined: Iterable[Outcome]) -> tuple[Outcome, ...]:
    """`confined`, where what fails for the unconfined `control` as well is not available."""
    possible = {outcome.name for outcome in control if not outcome.denied}
    return tuple(
        msgspec.structs.replace(outcome, available=outcome.available and outcome.name in possible)
        for outcome in confined
    )
