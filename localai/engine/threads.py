"""How many threads compute while other programs want the cores too: a policy that knows nothing of llama.cpp.

llama.cpp's threads wait for each other by spinning, hundreds of times a token. One that has to share its core
makes all others wait, and two that have landed on one core wait through whole slices of the scheduler: a busy
loop on one of two cores can cost 99 % of the speed, where one thread alone would lose nothing.

What shows competition is processor time that the threads should have had during a computation and had not.
Divided by the time of the computation it is called the loss: the cores that were missing, on average. It
depends neither on the model nor on the length of the context. What decides is speed alone: the time for a
unit of work as measured with one count of threads and with another.

- When enough loss beyond the normal has gathered, the governor descends: it tries fewer threads, count by
  count, and keeps the fastest.
- Below the most threads it climbs from time to time: it tries more, and keeps them if they are faster. The
  more an attempt has cost and the more have failed, the later comes the next. One comes when the loss ends.
- Pieces of a prompt cost other than the tokens of a reply; the speeds of the two are not compared.

All times are in seconds.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Literal

from localai.engine.pace import LONG_S, NORMAL_LOSS, TICK_S, Alarm, Speed

NO_LOSS = 0.05
"""Cores that are missing at most where certainly nothing competes."""
READING = 16.0
"""Work from which a computation is a piece of a prompt."""
SUSPENDED_S, SUSPENDED_SHARE = 0.1, 0.05
"""A process that had less than this share of one core for so long was stopped, or waited for the disk."""
TRIAL_S, TRIAL_UNITS = 0.02, 3
"""Another count of threads is tried for so long and so many computations."""
FASTER = 0.96
"""It is taken if it needs at most so much of the time."""
CLIMB_S, CLIMB_MOST_S = 0.06, 12.0
"""How soon more threads are tried; the wait doubles with each failure."""
CLIMB_COST = 25.0
"""The wait is also at least so many times what the last attempt cost."""
STARVED_S = 3.0
"""It is so much longer while even the present threads lack cores."""
STEADY_S = 1.5
"""If more threads did well for so long, the wait for the next attempt is a short one again."""
IDLE_S = 1.0
"""In a pause of so long, other programs may have come or gone."""
LATE_LOSS = 0.4
"""Cores that must be missing for a token to be given up, or for more threads to be no success."""
LATE_S, LATE_FACTOR = 0.05, 3.0
"""A token is not given up before so long, nor before so many times what others took."""
WATCH_S, UNWATCHED_S = 0.025, 0.5
"""How often one looks whether a computation is late where trouble is near, and where none is looked for."""
LATE_LONG_S = 0.15
"""The same for a piece of a prompt, and where nothing is known yet."""
LATE_CLIMB_S, LATE_CLIMB_SHARE = 0.025, 0.25
"""The same for one with more threads than usual; the share is of its usual time."""


class ThreadGovernor:
    """Chooses the threads for the computations between `begin` and `end`; calls `set_threads` to change them.

    `most` is what suits a calm machine. One thread computes and calls everything but `overdue`, which is for
    a second one. `cpu` is the processor time of the process. While `fixed`, there are always `most` threads.
    """

    def __init__(
        self,
        most: int,
        set_threads: Callable[[int], None],
        *,
        fixed: bool = False,
        clock: Callable[[], float] = time.perf_counter,
        cpu: Callable[[], float] = time.process_time,
    ) -> None:
        self.most = self.threads = self._home = most
        """`threads` compute at present; `_home` when nothing is tried."""
        self._set_threads, self._clock, self._cpu = set_threads, clock, cpu
        self._fixed = fixed
        self._running = self._late = False
        self._began = self._cpu_began = self._wall = 0.0
        self._work = 1.0
        self._ended = self._now = clock()
        self._watched = (0.0, 0.0)
        """When `overdue` was called last, and the processor time then."""
        self._reading = False
        self._speed = Speed()
        self._proven = False
        """Whether anything was computed without loss; before, weights may be on their way from the disk."""
        self._alarm = Alarm(most)
        self._climbed_at = self._descent_began = 0.0
        self._trying: Literal["", "more", "fewer"] = ""
        self._best = most
        """The fastest count of those tried."""
        self._best_speed: Speed | None = None
        """None: not known, or so slow that it was given up."""
        self._climb_at, self._climb_wait = 0.0, CLIMB_S
        """When to climb next, and how much later after another failure."""
        self._starved = False

    @property
    def fixed(self) -> bool:
        """Whether the number of threads is `most`, come what may. To be set between computations."""
        return self._fixed

    @fixed.setter
    def fixed(self, fixed: bool) -> None:
        if fixed is not self._fixed:
            self._fixed, self._running = fixed, False
            self._settle(self._home, Speed())
            if fixed:
                self._use(self.most)

    # -------------------------------------------------------------------------------------- a computation

    def begin(self, work: float = 1.0) -> None:
        """A computation begins. `work`: what it should cost, in tokens that are evaluated one by one."""
        if self._fixed:
            return
        self._late = False
        self._began = self._now = now = self._clock()
        pause, self._ended = now - self._ended, now
        if (work >= READING) is not self._reading or pause > IDLE_S:
            self._change(work >= READING, pause)
        self._work = work
        if pause * self.threads > 0.05 * self._wall:  # else what was used since the last is none to speak of
            self._cpu_began = self._cpu()
        self._running = True

    def end(self) -> None:
        """The computation has succeeded."""
        if not self._running:
            return
        self._running = False
        self._ended = self._now = now = self._clock()
        cpu = self._cpu()
        used, self._cpu_began = cpu - self._cpu_began, cpu
        self._wall = wall = max(now - self._began, 1e-9)
        lost = self.threads * wall - used
        if wall > SUSPENDED_S and used < SUSPENDED_SHARE * wall:
            self._alarm.reset()
            return
        self._speed.add(wall, self._work, lost)
        if self._trying:
            self._judge()
            return
        alarm = self._alarm
        if alarm.excess or lost > alarm.tolerated * wall:
            if alarm.add(wall, self._work, lost) and self.threads > 1:
                self._descend()
                return
        else:
            self._proven = True
        if now > alarm.quiet_until:
            alarm.listen()
        if self.threads < self.most:
            self._look_up()

    def rescued(self) -> None:
        """The computation was aborted. If because it was overdue, there are fewer threads from now on."""
        if not self._running:
            return
        self._running = False
        self._now = self._clock()
        if not self._late:
            return
        if self._trying == "more":
            self._climb_failed(self._now - self._began)
        elif self._trying == "fewer":
            self._try(self._fewer(0.0))
        else:
            self._descend(gave_up=True)

    def overdue(self) -> bool:
        """Whether the running computation should be aborted, to be done again with fewer threads.

        For a second thread, to be called every `watch_s`.
        """
        if not self._running or self.threads == 1:
            return False
        began = self._began
        last, last_cpu = max(self._watched, (began, self._cpu_began))
        self._watched = now, cpu = self._clock(), self._cpu()
        if now - last > SUSPENDED_S and cpu - last_cpu < SUSPENDED_SHARE * (now - last):
            self._began = began + now - last  # nothing ran in between: the process was stopped
            return False
        elapsed = now - began
        if elapsed < self._patience():
            return False
        missing = self.threads * elapsed - (cpu - self._cpu_began) - TICK_S * (self.threads - 1)
        self._late = self._running and self._began == began and missing > self._hopeless() * elapsed
        return self._late

    @property
    def watch_s(self) -> float:
        """How long nobody needs to ask whether it is `overdue`: who wakes takes a core from a thread."""
        if self._fixed:
            return UNWATCHED_S
        if self.threads < self.most or self._trying or not self._running:
            return WATCH_S
        rest = self._patience() - (self._clock() - self._began)
        return min(rest, LATE_S) + WATCH_S / 2 if rest > 0 else WATCH_S

    def _hopeless(self) -> float:
        """The loss from which fewer are better. Prompts need threads more: tokens wait for memory too."""
        return 0.3 + 0.8 / self.threads if self._reading else LATE_LOSS

    def _patience(self) -> float:
        """Before this time the running computation is not overdue."""
        speed, best = self._speed, self._best_speed  # the other thread may replace them
        if self._trying == "more":
            return max(LATE_CLIMB_S, LATE_CLIMB_SHARE * best.pace * self._work if best else 0.0)
        if not self._proven:
            return math.inf
        if self._reading or not speed.units:
            return LATE_LONG_S
        return max(LATE_S, LATE_FACTOR * speed.pace * self._work)

    def _change(self, reading: bool, pause: float) -> None:
        """The kind of work changes, or a pause was long: what was measured does not hold for what comes."""
        if self._trying:  # not finished: time will tell
            self._settle(min(self._home, self.threads), Speed())
            self._climb_at = self._now + CLIMB_S
        self._reading, self._speed = reading, Speed()
        self._alarm.change(self._hopeless() if reading else NORMAL_LOSS)
        if pause > IDLE_S and self._home < self.most:
            self._climb(self.most, None)

    # ------------------------------------------------------------------------------ other counts of threads

    def _use(self, count: int) -> None:
        if count != self.threads:
            self.threads = count
            self._set_threads(count)

    def _settle(self, count: int, speed: Speed) -> None:
        """Stop trying; use `count`, of which `speed` is known."""
        self._trying, self._home, self._speed = "", count, speed
        self._starved = False
        self._alarm.reset()
        self._use(count)

    def _try(self, count: int) -> None:
        self._speed = Speed()
        self._use(count)

    def _judge(self) -> None:
        """Compare what is tried with the best, as soon as the result is clear enough."""
        speed, best, more = self._speed, self._best_speed, self._trying == "more"
        if best is not None:
            behind = speed.wall - speed.work * best.pace
            better = speed.pace < FASTER * best.pace
        else:
            behind = speed.lost if more else 0.0
            better = not more or speed.loss < self._hopeless()
        enough = speed.wall >= TRIAL_S and (self._reading or speed.units >= TRIAL_UNITS)
        if not (enough or speed.wall > LONG_S or behind > TRIAL_S):
            return
        if not more:
            self._compared(better)
        elif better:
            self._climbed()
        else:
            self._climb_failed(max(behind, 0.0))

    def _descend(self, *, gave_up: bool = False) -> None:
        """Begin to try fewer threads."""
        speed = self._alarm.since if self._alarm.since.units else self._speed
        self._trying, self._descent_began = "fewer", self._now
        self._best, self._best_speed = self._home, None if gave_up else speed
        self._try(self._fewer(0.0 if gave_up else speed.loss))

    def _fewer(self, loss: float) -> int:
        """The next lower count: one less than the most, then about halves, or what cores there were."""
        next_lower = self.most - 1 if self.threads == self.most else (self.threads + 1) // 2
        return max(1, min(next_lower, round(self.threads - loss)))

    def _compared(self, better: bool) -> None:
        """A count of the descent is measured."""
        if better:
            self._best, self._best_speed = self.threads, self._speed
        if self.threads > 1 and self._speed.loss > NORMAL_LOSS:
            self._try(self._fewer(self._speed.loss))
        else:  # they have what they need: fewer cannot be faster
            self._descended()

    def _descended(self) -> None:
        speed = self._best_speed or Speed()
        if self._best == self._home:
            self._alarm.tolerate(speed.loss, self._now, self._now - self._descent_began)
        elif self._now - self._climbed_at > STEADY_S:
            self._climb_wait = CLIMB_S
        self._climb_at = self._now + self._climb_wait
        self._settle(self._best, speed)

    def _look_up(self) -> None:
        """Try more threads, if it is time."""
        speed, ended = self._speed, False
        starving = speed.loss > NORMAL_LOSS
        if starving:
            self._starved = True
        elif self._starved and speed.loss < NO_LOSS:
            self._starved, ended = False, True
        known = speed.wall >= TRIAL_S and (self._reading or speed.units >= TRIAL_UNITS)
        if known and (ended or self._now > self._climb_at + (STARVED_S if starving else 0.0)):
            self._climb(self.most if ended else (self._home + self.most + 1) // 2, speed)

    def _climb(self, count: int, speed: Speed | None) -> None:
        self._trying, self._best_speed = "more", speed
        self._try(count)

    def _climbed(self) -> None:
        self._climbed_at = self._now
        self._climb_at = self._now + CLIMB_S
        self._settle(self.threads, self._speed)

    def _climb_failed(self, cost: float) -> None:
        self._climb_wait = min(2 * self._climb_wait, CLIMB_MOST_S)
        self._climb_at = self._now + max(self._climb_wait, CLIMB_COST * cost)
        self._settle(self._home, self._best_speed or Speed())
