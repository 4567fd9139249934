"""Which answer is found in a reply, and whether it is the right one."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.evaluation.tasks.scoring import is_right
from localai.evaluation.tasks.sets import Question
from localai.evaluation.tasks.shares import paired, share
from tests.localai.task_records import record


def number(answer: int) -> Question:
    return Question("id", "?", str(answer))


CITY = Question("id", "?", "paris")
NAMES = Question("id", "?", "carla", choices=("anna", "ben", "carla"))


@pytest.mark.parametrize(
    "reply",
    [
        "52",
        "The answer is 52.",
        "47 + 5 = **52**",
        "It is 52!",
        "**52** apples (since 40 + 12 are 52, and not 53)",
        "**Answer: 52**, for 4 times 13",
        "52.0",
        "$52",
        "52%",
        "\\$52\\%",
        "That makes 52 km/h.",
        "\\boxed{52}",
        "So \\(x = 3\\), and \\[\\boxed{52 \\text{ km}}\\] with 17 left.",
        "\\boxed{\\text{52}}",
        "\\boxed{52^\\circ}",
        "\\boxed{\\frac{104}{2}}",
        "\\boxed{17}, no: \\boxed{52}",
        "\\boxed{52} fills the \\boxed{}",
        "fifty-two",
        "There are fifty two.",
        "\\boxed{\\text{fifty-two}}",
        "５２",
        "minutes: _52_",
    ],
)
def test_fifty_two(reply: str) -> None:
    assert is_right(number(52), reply) is True
    assert is_right(number(53), reply) is False


@pytest.mark.parametrize(
    "reply",
    [
        "-52",
        "\u221252",
        "52.5",
        "52,5",
        "1,052",
        "5²",
        "52^2",
        "x^{52}",
        "52/3",
        "3\\frac{52}{3}",
        "52 \\times 10^3",
    ],
)
def test_what_only_looks_like_fifty_two(reply: str) -> None:
    assert is_right(number(52), reply) is not True


@pytest.mark.parametrize(
    "written", ["1234567", "1,234,567", "1{,}234{,}567", "1\\,234\\,567", "1\u202f234\u202f567"]
)
def test_thousands(written: str) -> None:
    assert is_right(number(1234567), f"So it is {written}.") is True
    assert is_right(number(567), f"So it is {written}.") is False


@given(
    st.integers(0, 10**9),
    st.sampled_from(["{:,}", "{}", "**{}**", "\\boxed{{{:,}}}", "x = {}", "{}.00 euros"]),
)
def test_any_number_is_found_as_it_is_written(value: int, form: str) -> None:
    reply = f"First 3, then 4. {form.format(value)}."
    assert is_right(number(value), reply) is True
    assert is_right(number(value + 1), reply) is False


@pytest.mark.parametrize("reply", ["Paris", "It is **PARIS**.", "\\boxed{\\text{Paris}}", "Paris, of course"])
def test_a_word(reply: str) -> None:
    assert is_right(CITY, reply) is True


@pytest.mark.parametrize("reply", ["Rome", "the parish", "\\boxed{Rome}, and not Paris"])
def test_another_word(reply: str) -> None:
    assert is_right(CITY, reply) is False


def test_the_last_choice_counts() -> None:
    assert is_right(NAMES, "Not Anna, so it is Carla.") is True
    assert is_right(NAMES, "Not Carla, so it is Ben.") is False
    assert is_right(NAMES, "Anna is behind Ben. \\boxed{Carla}, says Anna") is True
    assert is_right(NAMES, "I do not know.") is None


def test_other_words_that_are_as_right() -> None:
    assert is_right(Question("id", "?", "puppy", also=("pup",)), "A pup.") is True


@pytest.mark.parametrize("reply", ["", "I cannot say.", "\\boxed{}", "\\boxed{never closed"])
def test_no_number_at_all(reply: str) -> None:
    assert is_right(number(7), reply) is None


@given(st.text(max_size=200))
def test_any_text_can_be_looked_at(reply: str) -> None:
    for question in (number(7), CITY, NAMES):
        assert is_right(question, reply) in (True, False, None)
        assert is_right(question, f"\\boxed{{{reply}") in (True, False, None)


def test_the_error_of_a_share_is_honest() -> None:
    assert share(20, 40).stderr == pytest.approx(0.078, abs=0.001)
    assert 0.01 < share(40, 40).stderr < 0.02
    assert share(0, 40).stderr == share(40, 40).stderr


def test_two_models_are_compared_question_by_question() -> None:
    mine = [record(n, right=n not in (1, 2, 3)) for n in range(10)]
    other = [record(n, right=n != 9) for n in range(9, -1, -1)]
    found = paired(mine, other)
    assert found is not None
    assert (found.both, found.only, found.only_reference, found.neither) == (6, 1, 3, 0)
    assert found.difference == pytest.approx(-0.2)
    assert found.difference_stderr == pytest.approx((5 - 4 / 10) ** 0.5 / 10)
    assert found.chance == pytest.approx(10 / 16)  # at most one head in four throws, on either side
    assert paired(mine, []) is None
    same = paired(mine, mine)
    assert same is not None
    assert (same.difference, same.chance) == (0, 1)
    assert same.difference_stderr > 0
