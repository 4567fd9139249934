"""Speed and loss of computations as measured, and the alarm when too much is lost: what `threads` judges by.

The loss is the processor time that the threads should have had and had not, divided by the time of the
computation: the cores that were missing, on average. All times are in seconds.
"""

from __future__ import annotations

import math

MEMORY_S = 0.2
"""How far back a measured speed reaches."""
NORMAL_LOSS = 0.2
"""Cores that background work takes now and then: nothing is done about them."""
TICK_S = 0.004
"""Linux books the time of threads on other cores so late, with 250 ticks a second."""
ALARM_S = 0.012
"""Processor time that must be missing for an alarm; a tick for each thread comes on top."""
HICCUP, LONG_S = 0.45, 0.1
"""The most of it that one computation may contribute, unless it took so long."""
QUIET_S, QUIET_MOST_S = 1.0, 30.0
"""Where nothing could be done, only a worse loss counts for so long; doubled each time."""
QUIET_COST = 10.0
"""It is also at least so many times as long as it took to find that out."""


class Speed:
    """What computations with one count of threads took; the latest count most."""

    __slots__ = ("lost", "units", "wall", "work")

    def __init__(self) -> None:
        self.wall = self.work = self.lost = 0.0
        self.units = 0

    def add(self, wall: float, work: float, lost: float) -> None:
        """Count a computation in: seconds, units of work, and seconds of processor time that were missing."""
        keep = MEMORY_S / (MEMORY_S + wall)
        self.wall = self.wall * keep + wall
        self.work = self.work * keep + work
        self.lost = self.lost * keep + lost
        self.units += 1

    @property
    def pace(self) -> float:
        """Seconds for a unit of work."""
        return self.wall / self.work

    @property
    def loss(self) -> float:
        """Cores that were missing."""
        return self.lost / self.wall


class Alarm:
    """Rings when more processor time is missing than is normal.

    A one-sided CUSUM test (Page, Biometrika 41, 1954).
    """

    def __init__(self, threads: int) -> None:
        self.tolerated = self._normal = NORMAL_LOSS
        self.quiet_until = math.inf
        """When what is tolerated is to become normal again."""
        self.excess = 0.0
        self.since = Speed()
        """The computations since the trouble began."""
        self._quiet = QUIET_S
        self._limit = ALARM_S + TICK_S * threads

    def add(self, wall: float, work: float, lost: float) -> bool:
        """Whether it rings after a computation. Need not be told of one without loss while `excess` is 0."""
        excess = lost - self.tolerated * wall
        if wall < LONG_S:
            excess = min(excess, HICCUP * self._limit)
        self.excess += excess
        if self.excess <= 0:
            self.reset()
            return False
        self.since.add(wall, work, lost)
        return self.excess > self._limit

    def reset(self) -> None:
        """Forget what has gathered."""
        self.excess, self.since = 0.0, Speed()

    def tolerate(self, loss: float, now: float, cost: float) -> None:
        """Nothing can be done about that much, as was found in `cost` seconds: be quiet for a while."""
        self.tolerated = max(self._normal, loss * 1.25 + 0.05)
        self.quiet_until = now + max(self._quiet, QUIET_COST * cost)
        self._quiet = min(2 * self._quiet, QUIET_MOST_S)

    def listen(self) -> None:
        """Be quiet no more."""
        self.tolerated, self.quiet_until = self._normal, math.inf

    def change(self, normal: float) -> None:
        """What comes is of another kind: from now on `normal` is the loss that is normal."""
        self._normal, self._quiet = normal, QUIET_S
        self.reset()
        self.listen()
