"""Drafts come from the text, pay where it repeats, and never cost more than a little.

The machine is simulated: a table says what evaluations of so many tokens cost, and the model is a text that
it wants to write. What is asserted is simulated time.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai.engine.speculation import BatchCosts, DraftPolicy, NgramDrafter, Speculation

Table = dict[int, float]

SMALL_CPU: Table = {1: 1, 2: 1.45, 3: 2.2, 4: 2.15, 5: 2.7, 8: 3.65, 16: 6.4, 32: 12}
"""Measured with a small Q4_0 model on two cores."""
CHEAP: Table = {1: 1, 2: 1.02, 4: 1.05, 8: 1.1, 16: 1.3, 32: 1.6}
"""A machine that waits for its memory."""
LINEAR: Table = {1: 1, 2: 1.95, 32: 31}
DEAR: Table = {1: 1, 2: 2.5, 4: 4.5, 32: 36}
TABLES = {"small cpu": SMALL_CPU, "cheap": CHEAP, "linear": LINEAR, "dear": DEAR}

SINGLE = 0.005
"""Seconds of a plain evaluation."""


def price(table: Table, width: int) -> float:
    for (w, a), (x, b) in pairwise(sorted(table.items())):
        if w <= width <= x:
            return a + (b - a) * (width - w) / (x - w)
    raise AssertionError(f"a draft of {width - 1} tokens is too long")


class Machine:
    """Writes replies, and keeps the time that it takes with drafts and would take without."""

    def __init__(self, table: Table, noise: float = 0.0) -> None:
        self.table = table
        self.policy = DraftPolicy()
        self.drafts: list[int] = []
        """The lengths of the drafts of the last reply, one for each evaluation."""
        self._noise = noise
        self._chance = random.Random(1)

    def write(self, prompt: Sequence[int], reply: Sequence[int], slow_from: int = 10**9) -> float:
        """How many times as fast the reply came as without drafts. From `slow_from` on all takes 4 times."""
        speculation = Speculation(NgramDrafter(prompt), self.policy)
        spent = plain = 0.0
        written: list[int] = []
        self.drafts = []
        while len(written) < len(reply):
            rest = reply[len(written) :]
            draft = speculation.draft(len(rest) - 1)
            assert len(draft) < len(rest)
            right = next((i for i, (a, b) in enumerate(zip(draft, rest, strict=False)) if a != b), len(draft))
            single = SINGLE * (4 if len(written) >= slow_from else 1)
            hiccup = 2 * single if self._noise and self._chance.random() < 0.01 else 0
            seconds = single * price(self.table, len(draft) + 1) * self._chance.gauss(1, self._noise) + hiccup
            speculation.took(rest[: right + 1], seconds)
            spent += seconds
            plain += single * (right + 1) * (1.02 if self._noise else 1)
            written += rest[: right + 1]
            self.drafts.append(len(draft))
        assert speculation.drafted == sum(self.drafts)
        assert speculation.accepted == len(reply) - len(self.drafts)
        return plain / spent


# Texts are numbers of tokens; frequent ones are small, as in a real vocabulary.


def prose(count: int, seed: int) -> list[int]:
    chance = random.Random(seed)
    return [min(int(chance.paretovariate(0.4)), 30_000) for _ in range(count)]


def novel(count: int) -> list[int]:
    return list(range(10**6, 10**6 + count))


def edited(text: Sequence[int], every: int) -> list[int]:
    """A copy in which about one of so many tokens is replaced, left out or added to."""
    chance = random.Random(3)
    copy: list[int] = []
    for token in text:
        kind = chance.random() * every
        if kind < 0.75:
            copy += [] if kind < 0.25 else [chance.randrange(50_000, 60_000)]
        elif kind < 1:
            copy += [*(chance.randrange(50_000, 60_000) for _ in range(3)), token]
        else:
            copy.append(token)
    return copy


def deceptive(count: int, length: int) -> list[int]:
    """The same n-gram again and again, each time with another token behind it."""
    return [i % length or 10**5 + i for i in range(count)]


def broken_off(count: int, seed: int) -> list[int]:
    """Beginnings of the same passage, broken off at any place."""
    chance = random.Random(seed)
    text: list[int] = []
    while len(text) < count:
        text += [*range(1000, 1000 + chance.randrange(2, 40)), 10**5 + len(text)]
    return text[:count]


DOCUMENT = prose(1500, 1)
PAIRS = {
    # name: (prompt, reply)
    "copy": (DOCUMENT, novel(10) + DOCUMENT[100:1100]),
    "edited now and then": (DOCUMENT, edited(DOCUMENT, 40)),
    "edited a lot": (DOCUMENT, edited(DOCUMENT, 8)),
    "quotes between new text": (
        DOCUMENT,
        [t for i in range(0, 900, 60) for t in novel(40) + DOCUMENT[i : i + 40]],
    ),
    "other prose": (DOCUMENT, prose(1500, 9)),
    "nothing repeats": (DOCUMENT, novel(1000)),
    "few different tokens": ([t % 12 for t in prose(1000, 5)], [t % 12 for t in prose(1500, 6)]),
    "deceptive": (deceptive(300, 4), deceptive(1000, 4)),
    "deceptive, long": (deceptive(300, 40), deceptive(1000, 40)),
    "broken off": (broken_off(300, 1), broken_off(1000, 2)),
    "a copy, then deception": (DOCUMENT + broken_off(300, 1), DOCUMENT[:500] + broken_off(600, 2)),
    "period": ([], list(range(7)) * 100),
}


# -------------------------------------------------------------------------------------------------- speed


@pytest.mark.parametrize(
    ("table", "reply", "least"),
    [
        ("small cpu", novel(10) + DOCUMENT[300:500], 2.0),
        ("small cpu", novel(10) + DOCUMENT[100:1100], 2.3),
        ("small cpu", edited(DOCUMENT, 40), 1.8),
        ("small cpu", edited(DOCUMENT, 15), 1.5),
        ("small cpu", list(range(7)) * 100, 2.3),
        ("cheap", novel(10) + DOCUMENT[300:500], 6.0),
        ("cheap", edited(DOCUMENT, 8), 2.5),
    ],
)
def test_repeating_the_prompt_is_quick(table: str, reply: list[int], least: float) -> None:
    assert Machine(TABLES[table]).write(DOCUMENT, reply) >= least


@pytest.mark.parametrize("noise", [0.0, 0.08])
@pytest.mark.parametrize("table", TABLES)
@pytest.mark.parametrize("name", PAIRS)
def test_never_slower_than_plain(name: str, table: str, noise: float) -> None:
    prompt, reply = PAIRS[name]
    tolerance = 0.02 if noise else 0  # of the simulated plain time itself
    for count in (100, len(reply)):
        assert Machine(TABLES[table], noise).write(prompt, reply[:count]) >= 0.97 - tolerance


def deceive(machine: Machine, copied: int, count: int) -> list[float]:
    """How many times as fast as plain a reply is, from token to token, that is written by an enemy.

    First the enemy copies the prompt. Then every draft is wrong, and every guess that is not used is right.
    """
    drafter = NgramDrafter(DOCUMENT)
    speculation = Speculation(drafter, machine.policy)
    done, spent, speeds = 0, 0.0, []
    while done < count:
        draft = speculation.draft(64)
        guess = drafter.foretold or DOCUMENT[0]
        tokens = [*draft, guess] if done < copied else [guess + 10**6 if draft else guess]
        seconds = SINGLE * price(machine.table, len(draft) + 1)
        speculation.took(tokens, seconds)
        done, spent = done + len(tokens), spent + seconds
        speeds.append(done * SINGLE / spent)
    assert speculation.drafted > 0, "something was at stake"
    return speeds


@pytest.mark.parametrize("table", TABLES)
def test_not_even_where_every_draft_is_wrong_and_every_other_guess_right(table: str) -> None:
    machine = Machine(TABLES[table])
    assert min(deceive(machine, 0, 2000)[100:]) >= 0.97
    machine.write(DOCUMENT, DOCUMENT)  # whose gains count for nothing in the next reply
    assert min(deceive(machine, 0, 2000)[100:]) >= 0.97


def test_most_of_what_was_gained_is_kept() -> None:
    speeds = deceive(Machine(SMALL_CPU), 1000, 1500)
    kept = (1 - 1 / speeds[-1]) * 1500  # in the time of tokens
    assert kept > 500


@pytest.mark.parametrize("table", ["small cpu", "cheap"])
def test_a_machine_that_becomes_busy_does_not_end_it(table: str) -> None:
    reply = novel(50) + DOCUMENT[:600] + novel(50) + DOCUMENT[:600]
    assert Machine(TABLES[table]).write(DOCUMENT, reply, slow_from=400) >= 1.8


def test_drafts_grow_quickly_while_all_is_accepted() -> None:
    machine = Machine(SMALL_CPU)
    machine.write(DOCUMENT, novel(10) + DOCUMENT[:400])
    drafts = [draft for draft in machine.drafts if draft]
    assert max(drafts[:6]) >= 15
    assert max(drafts) == 31


def test_what_a_machine_is_like_is_remembered_from_reply_to_reply() -> None:
    machine = Machine(CHEAP)
    reply = novel(10) + DOCUMENT[:150]
    first = machine.write(DOCUMENT, reply)
    assert machine.write(DOCUMENT, reply) > first


# ------------------------------------------------------------------------------------------------- policy


def policy_with(table: Table) -> DraftPolicy:
    """A policy that knows the machine and has gained much so far."""
    policy = DraftPolicy()
    for _ in range(40):
        policy.measured(0, 0, SINGLE)
        for width in BatchCosts.WIDTHS:
            policy.length(100)
            policy.measured(width - 1, width - 1, SINGLE * price(table, width))
    policy.measured(0, 0, SINGLE)
    return policy


def test_nothing_is_drafted_before_the_plain_speed_is_known() -> None:
    policy = DraftPolicy()
    assert policy.length(100) == 0
    for _ in range(3):
        policy.measured(0, 0, SINGLE)
    assert policy.length(100) > 0
    assert policy.length(0) == 0


def test_an_evaluation_before_the_plain_speed_is_known_does_no_harm() -> None:
    policy = DraftPolicy()
    policy.measured(4, 2, 0.0)
    for _ in range(3):
        policy.measured(0, 0, 0.0)
    assert policy.length(100) == 0


def test_longer_matches_get_longer_drafts() -> None:
    policy = policy_with(SMALL_CPU)
    lengths = [policy.length(match) for match in (2, 8, 100)]
    assert lengths == sorted(lengths)
    assert lengths[0] < lengths[-1] == 31


def test_the_cost_of_drafting_counts() -> None:
    policy = policy_with(SMALL_CPU)
    assert policy.length(100, lambda count: 0.0) == policy.length(100) > 0
    assert policy.length(100, lambda count: count * SINGLE) == 0


def test_guesses_are_watched_for_nothing() -> None:
    policy = policy_with(SMALL_CPU)
    for match in range(2, 200):
        policy.watched(match, False)
    for _ in range(200):
        policy.watched(10, False)
    assert policy.length(10) == 0
    for _ in range(200):
        policy.watched(10, True)
    assert policy.length(10) > 0


def test_every_now_and_then_a_plain_token_comes_between_drafts() -> None:
    policy = policy_with(SMALL_CPU)
    lengths = []
    for _ in range(100):
        lengths.append(policy.length(100))
        policy.measured(lengths[-1], lengths[-1], SINGLE * price(SMALL_CPU, lengths[-1] + 1))
    assert 2 <= lengths.count(0) <= 5


def test_drafting_time_is_a_loss_like_any_other() -> None:
    policy = policy_with(SMALL_CPU)
    assert policy.length(100) > 0
    policy.measured(31, 31, SINGLE * 12, drafting=SINGLE * 100)
    assert policy.length(100) == 0


def test_a_drafter_that_cannot_tell_for_nothing_is_tried_again_later() -> None:
    policy = policy_with(SMALL_CPU)
    for _ in range(200):
        policy.watched(16, False)
    tokens = 0
    while not policy.length(16):
        policy.measured(0, 0, SINGLE)
        tokens += 1
        assert tokens < 5000
    assert tokens > 50


def test_what_one_reply_taught_is_forgotten_in_others() -> None:
    policy = policy_with(SMALL_CPU)
    for _ in range(200):
        policy.watched(100, False)
    replies = 0
    while not policy.length(100):
        policy.begin()
        policy.measured(0, 0, SINGLE)
        replies += 1
        assert replies < 20
    assert replies > 1


def test_costs_of_other_widths_are_foretold_from_one() -> None:
    costs = BatchCosts()
    for _ in range(5):
        costs.one(SINGLE)
    for _ in range(20):
        costs.several(4, 1.05 * SINGLE)
    assert costs.relative[1] == pytest.approx(1.05, abs=0.02)
    assert costs.relative == sorted(costs.relative)
    assert costs.relative[-1] < 2


def test_one_hiccup_leaves_no_trace_in_the_plain_speed() -> None:
    costs = BatchCosts()
    for seconds in [*[SINGLE] * 5, 100 * SINGLE, *[SINGLE] * 5]:
        costs.one(seconds)
        assert costs.single == pytest.approx(SINGLE)


def test_one_hiccup_does_not_end_drafting() -> None:
    policy = policy_with(SMALL_CPU)
    assert policy.length(100) == 31
    policy.measured(31, 31, 100 * SINGLE)
    assert policy.length(100) >= 15


def test_what_seemed_dear_is_tried_again_later() -> None:
    policy = policy_with(DEAR)
    policy.begin()
    policy.measured(0, 0, SINGLE)
    assert policy.length(100) == 0
    tokens = 0
    while not policy.length(100):
        policy.measured(0, 0, SINGLE)
        tokens += 1
        assert tokens < 5000
    assert tokens > 100, "but rarely"


# -------------------------------------------------------------------------------------------------- drafts

texts = st.lists(st.integers(0, 3), max_size=60)


def drafter_of(before: Sequence[int], reply: Sequence[int] = ()) -> NgramDrafter:
    """A drafter that is asked for its guess before each token, as when tokens come one by one."""
    drafter = NgramDrafter(before)
    for token in reply:
        _ = drafter.match
        drafter.append(token)
    return drafter


@settings(deadline=None)
@given(texts, texts, st.integers(1, 20), st.booleans())
def test_a_proposal_is_an_earlier_continuation(
    before: list[int], reply: list[int], most: int, ask: bool
) -> None:
    drafter = NgramDrafter(before)
    for token in reply:
        if ask:
            assert (drafter.foretold is None) == (drafter.match == 0)
        drafter.append(token)
    text = before + reply
    draft, match = drafter.propose(most), drafter.match
    if not match:
        assert draft == []
        return
    end = len(text)
    assert len(draft) == most
    assert draft[0] == drafter.foretold
    text += draft
    # What lies before the place equals what lies before the end, and what follows is what was proposed.
    assert any(
        text[at - match : at] == text[end - match : end] and text[at : at + most] == draft
        for at in range(match, end)
    )


@settings(deadline=None)
@given(st.lists(st.integers(0, 3), min_size=9, max_size=80), st.integers(1, 10))
def test_a_prompt_is_indexed_as_if_it_had_been_appended(text: list[int], most: int) -> None:
    for cut in (0, len(text) // 2):
        # The last 8 tokens are repeated, so that the longest n-gram decides in both.
        tail = [*text[-8:], 9, *text[-8:]]
        whole, parts = drafter_of([*text, *tail]), drafter_of(text[:cut], [*text[cut:], *tail])
        assert whole.propose(most) == parts.propose(most)


@settings(deadline=None)
@given(texts)
def test_any_pair_of_tokens_that_came_before_is_found(text: list[int]) -> None:
    came_before = any(pair == (text[-2], text[-1]) for pair in list(pairwise(text))[:-1])
    assert (drafter_of(text).match >= 2) == came_before


@pytest.mark.parametrize(
    ("text", "draft"),
    [
        ([], []),
        ([1], []),
        ([1, 2, 3, 4], []),
        ([1, 2, 7, 8, 5, 1, 2], [7, 8, 5]),
        ([1, 2, 7, 5, 1, 2, 8, 6, 9, 1, 2], [8, 6, 9]),  # the latest
        ([0, 1, 2, 7, 7, 7, 5, 1, 2, 8, 8, 8, 0, 1, 2], [7, 7, 7]),  # more in common
        ([1, 2, 3, 1, 2, 3], [1, 2, 3]),
    ],
)
def test_where_a_draft_is_taken_from(text: list[int], draft: list[int]) -> None:
    assert drafter_of(text).propose(3) == draft


def test_a_period_goes_on() -> None:
    assert drafter_of([5, 1, 2, 3, 1, 2, 3, 1, 2]).propose(7) == [3, 1, 2, 3, 1, 2, 3]
    assert drafter_of([4] * 10).propose(40) == [4] * 40


def test_the_place_that_proved_right_is_followed() -> None:
    passage = list(range(100, 120))
    # The second copy is the later one, and differs from the first only before and after the passage.
    text = [*range(12), *passage, 50, 51, 52, 60, 61, *passage, 70, 71, 72]
    assert drafter_of(text, passage[:9]).propose(14)[-3:] == [70, 71, 72]
    assert drafter_of(text, [*range(12), *passage[:9]]).propose(14)[-3:] == [50, 51, 52]


def test_the_length_of_a_match_is_told() -> None:
    text = [*range(50), 99]
    assert drafter_of(text, [3, 4]).match == 2
    assert drafter_of(text, range(10, 22)).match == 12
    assert drafter_of([*text, *range(10, 30)]).match == 20
    assert drafter_of([*text, 77]).match == 0


def test_behind_a_changed_token_the_copy_goes_on() -> None:
    text = [*range(100, 150)]
    copy = drafter_of(text, [7, *range(100, 120), 8])
    assert copy.match == 0
    copy.append(121)
    assert copy.match == 1
    assert copy.propose(3) == [122, 123, 124]


@settings(deadline=None)
@given(texts, st.lists(st.integers(0, 2**20), max_size=30))
def test_tokens_of_any_number_are_taken(before: list[int], reply: list[int]) -> None:
    drafter = drafter_of(before, reply)
    assert len(drafter.propose(5)) in (0, 5)


# A drafter that always guesses the same, and a model that writes what it likes: the text is the model's.
@settings(deadline=None)
@given(st.lists(st.integers(0, 2), min_size=1, max_size=200), st.integers(0, 2))
def test_the_text_is_the_models_whatever_is_drafted(text: list[int], guess: int) -> None:
    class Stubborn:
        match = 50
        foretold = None

        def __init__(self) -> None:
            self.seen: list[int] = []

        def append(self, token: int) -> None:
            self.seen.append(token)

        def propose(self, most: int) -> list[int]:
            return [guess] * most

        def cost(self, count: int) -> float:
            return count * SINGLE / 100

    drafter = Stubborn()
    speculation = Speculation(drafter, DraftPolicy())
    while (done := len(drafter.seen)) < len(text):
        draft = speculation.draft(len(text) - done - 1)
        right = next((i for i, token in enumerate(draft) if token != text[done + i]), len(draft))
        speculation.took(text[done : done + right + 1], SINGLE)
    assert drafter.seen == text
