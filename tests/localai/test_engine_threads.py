"""The thread governor on a simulated machine: threads that spin at barriers, and other programs."""

from __future__ import annotations

import random
from collections.abc import Iterable
from itertools import pairwise, repeat

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.engine.threads import LATE_S, WATCH_S, ThreadGovernor

SLICE_S = 0.004
"""How long the scheduler lets a thread run, and how late it books what the thread used."""
PHASE_S = 0.003
"""Seconds between two barriers at which threads really meet others that lack a core, in long computations."""
PROMPT = 512
BUSY = (1.0, 1.0)
Program = tuple[float, float]
"""Another program: it wants a core for so many seconds of so many."""


class Machine:
    """Cores, other programs, and a governor that drives a computation there.

    Each program has a session of its own, and sessions share the cores fairly, as on a Linux desktop: next to
    one busy loop on two cores, two threads share one. Calm, two threads are 1.6 times as fast as one.
    """

    def __init__(
        self, cores: int = 2, seed: int = 0, *, fixed: int | None = None, token_s: float = 0.0072
    ) -> None:
        self.cores, self.token_s = cores, token_s
        self.programs: list[Program] = []
        self.hiccups = 0.0
        """The share of computations in which one thread loses its core for a moment."""
        self.paged_until = 0.0
        """Before, most time is spent waiting for the disk."""
        self.stops: list[tuple[float, float]] = []
        """(when, how long) the process is stopped."""
        self.now = 1000.0
        self.aborted = self.clocks_read = 0
        self.changes: list[int] = []
        self.governor = ThreadGovernor(
            fixed or cores, self.changes.append, fixed=fixed is not None, clock=lambda: self.now, cpu=self.cpu
        )
        self._random = random.Random(seed)
        self.used = [0.0] * cores
        self._ticks = [self._random.uniform(0, SLICE_S) for _ in range(cores)]

    def cpu(self) -> float:
        """Exact for the thread that asks, coarse for those on other cores."""
        self.clocks_read += 1
        others = zip(self.used[1:], self._ticks[1:], strict=True)
        return self.used[0] + sum((used + tick) // SLICE_S * SLICE_S for used, tick in others)

    def rate(self, count: int, works: Iterable[int] = repeat(1)) -> float:
        """Work per second over so many computations."""
        started, done = self.now, 0
        for _, work in zip(range(count), works, strict=False):
            self.compute(work)
            done += work
        return done / (self.now - started)

    def compute(self, work: int = 1) -> None:
        """One computation, again if it is given up."""
        while True:
            self.governor.begin(float(work))
            if self._finishes(work):
                break
            self.aborted += 1
            self.governor.rescued()
        self.governor.end()
        self.now += 0.0001  # sampling
        self.used[0] += 0.0001

    def _finishes(self, work: int) -> bool:
        count = self.governor.threads
        seconds = self._seconds(work, count)
        stuck = self._random.random() < 0.07  # in most tokens the scheduler mends it soon
        phases = max(round(seconds / PHASE_S), 40 if stuck else 2)
        piece = seconds / phases
        hiccup = (
            (self.now, self._random.uniform(0.005, 0.06))
            if self._random.random() < self.hiccups
            else (0.0, 0.0)
        )
        watch = self.now + self._random.uniform(0, self.governor.watch_s)
        end_of_slice = self.now
        left, running = [piece] * count, list(range(count))
        while phases:
            if self.now >= end_of_slice:
                running, end_of_slice = self._with_core(count), self.now + SLICE_S
            on = [i for i in running if i or not hiccup[0] <= self.now < sum(hiccup)]
            steps = [end_of_slice - self.now, watch - self.now, *(left[i] for i in on if left[i] > 1e-9)]
            step = max(min(steps), 1e-6)
            for i in on:  # those that are done spin
                self.used[i] += step
                left[i] -= step
            self.now += step
            if max(left) <= 1e-9:
                phases -= 1
                left = [piece] * count
            if self.now >= watch:
                late, watch = self.governor.overdue(), self.now + self.governor.watch_s
                if late:
                    self.now += SLICE_S
                    return False
        return True

    def _seconds(self, work: int, count: int) -> float:
        if work == PROMPT:
            return 0.42 * work * self.token_s * (0.04 + 0.96 / count)
        return (0.5 + 0.5 * work) * self.token_s * (0.25 + 0.75 / count)

    def _with_core(self, count: int) -> list[int]:
        """The threads that run in a slice."""
        if self.stops and self.now >= self.stops[0][0]:
            self.now += self.stops.pop(0)[1]
        if self.now < self.paged_until:
            return [self._random.randrange(count)] if self._random.random() < 0.5 else []
        others = sum(self.now % period < busy for busy, period in self.programs)
        if count + others <= self.cores:
            return list(range(count))
        share = max(self.cores - others, self.cores / (others + 1))
        whole = int(share) + (self._random.random() < share % 1)
        return self._random.sample(range(count), min(whole, count))


SEEDS = range(4)


def rates(machines: list[Machine], programs: list[Program], count: int) -> float:
    """The mean rate of machines on which these programs start after a calm beginning."""
    total = 0.0
    for machine in machines:
        machine.rate(60)
        machine.programs = programs
        total += machine.rate(count)
    return total / len(machines)


def ratio_to(threads: int, programs: list[Program], count: int, cores: int = 2) -> float:
    """The governor's rate over that of so many threads, come what may."""
    governed = [Machine(cores, seed) for seed in SEEDS]
    others = [Machine(cores, seed, fixed=threads) for seed in SEEDS]
    return rates(governed, programs, count) / rates(others, programs, count)


# ------------------------------------------------------------------------------------------------ calm


@pytest.mark.parametrize("cores", [1, 2, 4, 8])
def test_nothing_is_tried_on_a_calm_machine(cores: int) -> None:
    for seed in SEEDS:
        machine = Machine(cores, seed)
        machine.rate(2000)
        assert machine.changes == []
        assert machine.aborted == 0


def test_a_token_on_a_calm_machine_costs_one_look_at_the_processor_time() -> None:
    # Of all that the governor does for a token, only that is a system call.
    machine = Machine()
    looks = 0
    for _ in range(1000):
        before = machine.clocks_read
        machine.governor.begin()
        machine.now += 0.0045
        machine.governor.end()
        looks += machine.clocks_read - before
        machine.now += 0.0001
    assert looks <= 1001


@pytest.mark.parametrize(("cores", "share"), [(2, 0.002), (2, 0.005), (8, 0.002), (8, 0.005)])
def test_hiccups_are_no_competition(cores: int, share: float) -> None:
    governed = default = 0.0
    for seed in SEEDS:
        one, other = Machine(cores, seed), Machine(cores, seed, fixed=cores)
        one.hiccups = other.hiccups = share
        governed += one.rate(3000)
        default += other.rate(3000)
    assert governed > 0.99 * default


def test_a_context_that_grows_is_no_competition() -> None:
    machine = Machine()
    for _ in range(40):
        machine.token_s *= 1.05
        machine.rate(50)
    assert machine.changes == []


def test_prompts_and_speculation_are_no_competition() -> None:
    machine = Machine()
    for _ in range(20):
        machine.rate(3, repeat(PROMPT))
        machine.rate(30, (1, 1, 5, 3, 1, 8) * 5)
    assert machine.changes == []
    assert machine.aborted == 0


# ---------------------------------------------------------------------------------------- competition


def test_a_busy_loop_on_each_core() -> None:
    assert ratio_to(2, [BUSY] * 2, 256) > 3
    assert ratio_to(1, [BUSY] * 2, 256) > 0.95
    assert ratio_to(1, [BUSY] * 2, 2000) > 0.97


def test_one_busy_loop() -> None:
    assert ratio_to(2, [BUSY], 256) > 3
    assert ratio_to(1, [BUSY], 256) > 0.9
    assert ratio_to(1, [BUSY], 2000) > 0.97


@pytest.mark.parametrize(
    "programs",
    [
        [(0.003, 0.010)],
        [(0.030, 0.100)],
        [(0.006, 0.010)],
        [(0.060, 0.100)],
        [(0.003, 0.010), (0.003, 0.010)],
        [(0.010, 0.100), (0.010, 0.100)],
        [(0.5, 1.0)],
    ],
)
def test_with_a_part_of_a_core_taken_it_is_not_slower_than_the_default(programs: list[Program]) -> None:
    assert ratio_to(2, programs, 2000) > 0.985


@pytest.mark.parametrize(("loops", "best"), [(1, 7), (2, 4), (4, 4), (8, 1)])
def test_with_many_cores_it_finds_about_the_best_count(loops: int, best: int) -> None:
    assert ratio_to(best, [BUSY] * loops, 500, cores=8) > 0.85


def test_speculation_next_to_a_busy_loop() -> None:
    machine = Machine()
    machine.rate(60, (1, 1, 5, 3, 1, 8) * 10)
    machine.programs = [BUSY]
    machine.rate(30, (1, 1, 5, 3, 1, 8) * 5)
    assert machine.governor.threads == 1


@pytest.mark.parametrize("loops", [1, 2])
def test_a_prompt_next_to_busy_loops(loops: int) -> None:
    governed, default = Machine(), Machine(fixed=2)
    for machine in (governed, default):
        machine.rate(60)
        machine.programs = [BUSY] * loops
    assert governed.rate(6, repeat(PROMPT)) > 1.5 * default.rate(6, repeat(PROMPT))


@pytest.mark.parametrize("program", [(0.003, 0.010), (0.030, 0.100), (0.006, 0.010), (0.060, 0.100)])
def test_a_prompt_with_a_part_of_a_core_taken(program: Program) -> None:
    governed, default = Machine(), Machine(fixed=2)
    for machine in (governed, default):
        machine.rate(60)
        machine.programs = [program]
    assert governed.rate(20, repeat(PROMPT)) > 0.98 * default.rate(20, repeat(PROMPT))


# --------------------------------------------------------------------------------------- and its end


@pytest.mark.parametrize(("loops", "within"), [(2, 0.8), (1, 3.0)])
def test_when_the_others_end_all_threads_come_back(loops: int, within: float) -> None:
    # With one loop nothing shows its end: one thread has a core in either case, so it must be tried out.
    for seed in SEEDS:
        machine = Machine(seed=seed)
        machine.programs = [BUSY] * loops
        machine.rate(300)
        assert machine.governor.threads == 1
        machine.programs = []
        ended = machine.now
        while machine.governor.threads == 1:
            machine.compute()
        assert machine.now - ended < within
        assert machine.rate(300) > 0.99 * Machine(fixed=2).rate(300)


def test_when_some_of_the_others_end_some_threads_come_back() -> None:
    machine, best = Machine(8), Machine(8, fixed=7)
    for one in (machine, best):
        one.programs = [BUSY] * 4
        one.rate(200)
        one.programs = [BUSY]
        one.rate(1500)
    assert machine.rate(1000) > 0.95 * best.rate(1000)


@pytest.mark.parametrize("work", [1, PROMPT])
def test_after_a_pause_all_threads_are_tried_first(work: int) -> None:
    machine = Machine()
    machine.programs = [BUSY]
    machine.rate(300)
    machine.programs = []
    machine.now += 10
    machine.compute(work)
    assert machine.changes[-1] == machine.governor.threads == 2
    assert machine.rate(100) > 0.99 * Machine(fixed=2).rate(100)


def test_after_a_pause_lasting_competition_costs_little() -> None:
    machine, alone = Machine(), Machine(fixed=1)
    for one in (machine, alone):
        one.programs = [BUSY]
        one.rate(300)
        one.now += 10
    assert machine.rate(256) > 0.9 * alone.rate(256)


def test_weights_that_come_from_the_disk_are_no_competition_for_long() -> None:
    for seed in SEEDS:
        machine = Machine(seed=seed)
        machine.paged_until = machine.now + 1.5
        while machine.now < machine.paged_until:
            machine.compute()
        assert machine.aborted == 0
        while machine.governor.threads == 1:
            machine.compute()
        assert machine.now < machine.paged_until + 0.5


@pytest.mark.parametrize("work", [1, PROMPT])
@pytest.mark.parametrize(("seconds", "changes"), [(0.3, 2), (60.0, 0)])
def test_a_process_that_was_stopped_goes_on_as_before(work: int, seconds: float, changes: int) -> None:
    for seed in SEEDS:
        machine = Machine(seed=seed)
        machine.rate(60)
        machine.stops = [(machine.now + 0.3, seconds)]
        machine.rate(2000 // work + 2, repeat(work))
        assert len(machine.changes) <= changes
        assert machine.governor.threads == 2


# ------------------------------------------------------------------------------------- the second thread


def running(machine: Machine, seconds: float, used: float) -> ThreadGovernor:
    """In the middle of a computation that took so long, and so much processor time of the first thread."""
    machine.governor.begin()
    machine.now += seconds
    machine.used[0] += used
    return machine.governor


def test_a_token_that_is_stuck_is_given_up_and_done_with_fewer_threads() -> None:
    machine = Machine()
    machine.rate(60)
    governor = running(machine, 0.055, 0.055)
    assert governor.overdue()
    governor.rescued()
    assert machine.changes == [1]
    assert not running(machine, 3.0, 1.0).overdue(), "there are no fewer threads than one"


def test_what_is_slow_with_most_of_the_cores_is_not_given_up() -> None:
    machine = Machine()
    machine.rate(60)
    machine.governor.begin()
    for _ in range(100):
        machine.now += WATCH_S
        machine.used = [used + 0.85 * WATCH_S for used in machine.used]
        assert not machine.governor.overdue()


def test_a_token_of_a_large_model_is_given_time() -> None:
    machine = Machine(token_s=0.4)
    machine.rate(5)
    assert not running(machine, 0.4, 0.4).overdue()
    assert running(machine, 1.0, 1.0).overdue()


def test_before_anything_went_well_nothing_is_given_up() -> None:
    assert not running(Machine(), 3.0, 3.0).overdue()


def test_a_calm_computation_is_looked_at_when_it_could_be_late_and_not_before() -> None:
    machine = Machine()
    machine.rate(60)
    machine.governor.begin()
    machine.now += 0.01
    assert machine.governor.watch_s == pytest.approx(LATE_S - 0.01 + WATCH_S / 2)
    assert not running(machine, LATE_S - 0.001, 0.01).overdue()


def test_where_the_threads_are_fixed_nobody_needs_to_look() -> None:
    machine = Machine()
    machine.rate(60)
    machine.governor.fixed = True
    machine.governor.begin()
    assert machine.governor.watch_s > 10 * WATCH_S


def test_while_there_are_fewer_threads_one_looks_often() -> None:
    machine = Machine()
    machine.rate(60)
    running(machine, 0.055, 0.055).overdue()
    machine.governor.rescued()
    assert machine.governor.watch_s == WATCH_S


def test_nothing_runs_nothing_is_overdue() -> None:
    machine = Machine()
    machine.rate(60)
    machine.now += 60
    assert not machine.governor.overdue()


def test_a_cancelled_computation_teaches_nothing() -> None:
    machine = Machine()
    machine.rate(60)
    for _ in range(20):
        running(machine, 0.04, 0.001).rescued()
    assert machine.changes == []
    machine.rate(60)
    assert machine.changes == []


# --------------------------------------------------------------------------------------------- always


def test_a_fixed_number_of_threads_is_kept() -> None:
    machine = Machine(fixed=2)
    machine.programs = [BUSY] * 2
    machine.rate(100)
    assert machine.changes == []
    assert not running(machine, 3.0, 1.0).overdue()


def test_fixed_for_one_reply_uses_all_threads_and_forgets_nothing() -> None:
    machine = Machine()
    machine.programs = [BUSY]
    machine.rate(300)
    assert machine.governor.threads == 1
    machine.governor.fixed = True
    assert machine.changes[-1] == machine.governor.threads == 2
    before = len(machine.changes)
    machine.rate(20)
    assert len(machine.changes) == before
    machine.governor.fixed = False
    assert machine.changes[-1] == machine.governor.threads == 1


@given(
    most=st.integers(1, 16),
    steps=st.lists(
        st.tuples(
            st.sampled_from(["end", "rescued", "watch and rescued", "dropped"]),
            st.sampled_from([0.0, 0.001, 0.01, 0.2, 30.0]),
            st.floats(0, 1.2),
            st.sampled_from([1.0, 1.0, 4.0, 512.0]),
            st.sampled_from([0.0, 0.0001, 5.0]),
        ),
        max_size=60,
    ),
)
def test_there_are_always_between_one_and_the_most_threads(
    most: int, steps: list[tuple[str, float, float, float, float]]
) -> None:
    now, used, changes = [0.0], [0.0], [most]
    governor = ThreadGovernor(most, changes.append, clock=lambda: now[0], cpu=lambda: used[0])
    for ending, seconds, share, work, pause in steps:
        governor.begin(work)
        now[0] += seconds
        used[0] += seconds * share * governor.threads
        if ending == "watch and rescued":
            governor.overdue()
        if ending == "end":
            governor.end()
        elif ending != "dropped":
            governor.rescued()
        now[0] += pause
        assert governor.threads == changes[-1]
    assert all(1 <= count <= most for count in changes)
    assert all(one != other for one, other in pairwise(changes))
