"""The choice of a type for each tensor: the best there is, and never too large."""

from __future__ import annotations

import itertools
import random
import time

import pytest
from hypothesis import given
from hypothesis import strategies as some

from quantize import knapsack
from quantize.knapsack import Option, TooSmall, choose

BITS = (2.31, 2.56, 2.62, 3.06, 3.44, 3.44, 4.25, 4.5, 4.5, 5.5, 6.56, 8.5)
"""Per weight, of twelve types."""

COSTS = some.one_of(some.integers(-5, 9).map(float), some.floats(-1, 10))
GROUPS = some.lists(
    some.lists(some.builds(Option, some.integers(0, 12), COSTS), min_size=1, max_size=4), max_size=6
)


def size(groups: list[list[Option]], chosen: list[int]) -> int:
    return sum(group[at].bytes for group, at in zip(groups, chosen, strict=True))


def cost(groups: list[list[Option]], chosen: list[int]) -> float:
    return sum(group[at].cost for group, at in zip(groups, chosen, strict=True))


def tensors(count: int, seed: int) -> list[list[Option]]:
    """Tensors of a few shapes, some of which are much more sensitive than others, in twelve types."""
    draw = random.Random(seed)
    groups = []
    for _ in range(count):
        weights, harm = draw.choice((1, 4, 24, 85)) * 589_824, 10 ** draw.uniform(-3, 0)
        groups.append(
            [Option(int(weights * bits / 8), harm * 4**-bits * draw.uniform(0.8, 1.2)) for bits in BITS]
        )
    return groups


@given(GROUPS, some.integers(0, 50))
def test_no_choice_is_better(groups: list[list[Option]], capacity: int) -> None:
    ways = [list(way) for way in itertools.product(*(range(len(group)) for group in groups))]
    fitting = [way for way in ways if size(groups, way) <= capacity]
    if not fitting:
        with pytest.raises(TooSmall) as caught:
            choose(groups, capacity)
        assert caught.value.least == min(size(groups, way) for way in ways)
        return
    chosen = choose(groups, capacity)
    assert size(groups, chosen) <= capacity
    assert cost(groups, chosen) == pytest.approx(min(cost(groups, way) for way in fitting), abs=1e-9)


def test_a_step_by_itself_is_not_the_best() -> None:
    """What saves most for each byte, the first of a, leaves no room for b, which saves more in sum."""
    a, b = [Option(0, 10.0), Option(6, 2.0)], [Option(0, 10.0), Option(10, 0.0)]
    assert choose([a, b], 10) == [0, 1]
    assert choose([a, b], 9) == [1, 0]
    assert choose([a, b], 16) == [1, 1]


def test_of_two_that_are_equally_good_the_smaller() -> None:
    assert choose([[Option(9, 1.0), Option(5, 1.0), Option(7, 2.0)]], 20) == [1]


def test_nothing_to_choose() -> None:
    assert choose([], 0) == []


@pytest.mark.parametrize(
    "group", [[], [Option(-1, 0.0)], [Option(1, float("nan"))], [Option(1, float("inf"))]]
)
def test_what_is_no_option(group: list[Option]) -> None:
    with pytest.raises(ValueError, match="no bytes or no cost"):
        choose([group], 10)


@pytest.mark.parametrize("bits", [2.5, 3.5, 4.85, 6.0])
def test_a_model_of_usual_size(bits: float) -> None:
    """No exchange between two tensors makes it better, and hardly a byte stays unused."""
    groups = tensors(30, seed=int(bits * 10))
    capacity = int(sum(group[0].bytes for group in groups) / BITS[0] * bits)
    chosen = choose(groups, capacity)
    best = cost(groups, chosen)
    assert 0.99 * capacity < size(groups, chosen) <= capacity
    for one, other in itertools.combinations(range(len(groups)), 2):
        for at, to in itertools.product(range(len(BITS)), repeat=2):
            changed = list(chosen)
            changed[one], changed[other] = at, to
            assert size(groups, changed) > capacity or cost(groups, changed) >= best - 1e-12


def test_two_thousand_tensors_take_seconds() -> None:
    groups = tensors(2500, seed=7)
    capacity = int(sum(group[0].bytes for group in groups) / BITS[0] * 4.5)
    before = time.process_time()
    chosen = choose(groups, capacity)
    assert time.process_time() - before < 5
    assert size(groups, chosen) <= capacity


def test_with_few_states_it_is_still_good(monkeypatch: pytest.MonkeyPatch) -> None:
    groups = tensors(60, seed=1)
    capacity = int(sum(group[0].bytes for group in groups) / BITS[0] * 3.5)
    best = cost(groups, choose(groups, capacity))
    for name in ("MOST_STATES", "_FEW"):
        monkeypatch.setattr(knapsack, name, 3)
    chosen = choose(groups, capacity)
    assert size(groups, chosen) <= capacity
    assert best <= cost(groups, chosen) < 1.01 * best
