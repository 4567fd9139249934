"""The sets of questions: each answer is found again here, and each model gets the set that suits it."""

from __future__ import annotations

import datetime
import itertools
import math
import re
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from localai.evaluation.tasks.scoring import is_right
from localai.evaluation.tasks.sets import QUESTIONS, REASONING, SUMS, estimate, fitting, named
from models import templates
from models.gguf import read_header
from models.header import Header, TokenFacts


def only(values: Iterable[Any]) -> Any:
    """What is the same in all of them."""
    (value,) = set(values)
    return value


def repeated(value: int, times: int, step: Any) -> int:
    for number in range(1, times + 1):
        value = step(value, number)
    return value


def islanders() -> Any:
    """Who tells the truth, if Ada, Bo and Cy say what they say."""
    for a, b, c in itertools.product([False, True], repeat=3):
        if a == (not b) and b == (a == c) and c == a:
            yield tuple(name for name, honest in zip(("ada", "bo", "cy"), (a, b, c), strict=True) if honest)


def queues() -> Any:
    for order in itertools.permutations(("anna", "ben", "carla", "dan")):
        behind = order.index("ben") == order.index("carla") + 1
        if behind and order.index("anna") in (1, 2) and order[0] != "dan":
            yield order[-1]


def tilings(cells: frozenset[tuple[int, int]]) -> int:
    if not cells:
        return 1
    x, y = min(cells)
    others = [(x + 1, y), (x, y + 1)]
    return sum(tilings(cells - {(x, y), other}) for other in others if other in cells)


def paths(x: int, y: int) -> int:
    if (x, y) == (3, 2) or x > 6 or y > 4:
        return 0
    return 1 if (x, y) == (6, 4) else paths(x + 1, y) + paths(x, y + 1)


def count(values: Iterable[object]) -> int:
    return sum(map(bool, values))


def digit_sum(number: int) -> int:
    return sum(map(int, str(number)))


SOLVED: dict[str, object] = {
    "rolls": 14 * 12 - 103 - 38,
    "crayons": 3 * 24 + 17 - 24 - 9,
    "train": (13 * 60 + 12) - (9 * 60 + 47),
    "ages": only(2 * sister + 4 for sister in range(41) if sister + 2 * sister + 4 == 40),
    "shirt": int(48 * 0.75 * 1.5),
    "path": 20 * 13 - 18 * 11,
    "notebooks": 8 * (31 - 2 * 3) // 5,
    "tank": 360 // (12 - 4),
    "tripling": repeated(2, 5, lambda x, _: 3 * x - 1),
    "queue": only(queues()),
    "divisors": count(720 % d == 0 for d in range(1, 721)),
    "power": (3**200 + 5) % 13,
    "coffee": only(x for x in range(1, 500) if 30 * 12 + 18 * x == 16 * (30 + x)),
    "letters": len(set(itertools.permutations("LEVEL"))),
    "even": only(3 * n for n in range(4, 100, 2) if (n - 2) * n * (n + 2) == 1680),
    "drive": only(d for d in range(1, 500) if d * 40 + d * 60 == 5 * 60 * 40),
    "multiples": count((n % 4 == 0) != (n % 6 == 0) for n in range(1, 501)),
    "weekday": only(
        datetime.date(year, 7, 1).strftime("%A").lower()
        for year in range(1950, 2050)
        if datetime.date(year, 3, 1).weekday() == 2
    ),
    "island": only(only(islanders())),
    "remainders": min(n for n in range(1, 1000) if (n % 5, n % 7, n % 9) == (3, 4, 5)),
    "circle": count(x * x + y * y == 325 for x in range(-20, 21) for y in range(-20, 21)),
    "increasing": count(list(str(n)) == sorted(set(str(n))) for n in range(1000, 10_000)),
    "dice": count(sum(thrown) == 11 for thrown in itertools.product(range(1, 7), repeat=3)),
    "recursion": repeated(3, 9, lambda f, n: 2 * f + n),
    "zeros": len(re.findall("0*$", str(math.factorial(250)))[0]),
    "roots": round(sum(((7 + sign * 29**0.5) / 2) ** 3 for sign in (1, -1))),
    "committee": count(2 <= sum(p < 6 for p in four) <= 3 for four in itertools.combinations(range(11), 4)),
    "grid": paths(0, 0),
    "sevens": count((n * n + n + 1) % 7 == 0 for n in range(1, 101)),
    "digits": digit_sum(10**30 - 2024),
    "subsets": count(not chosen & (chosen >> 1) for chosen in range(2**12)),
    "tower": sum(n**n for n in range(1, 21)) % 10,
    "triples": count(360 % (a * b) == 0 for a in range(1, 361) for b in range(1, 361)),
    "places": count(
        row[1] == 1 and all(row[k - 1] != k for k in range(1, 8))
        for row in itertools.permutations(range(1, 8))
    ),
    "dominoes": tilings(frozenset(itertools.product(range(8), range(3)))),
    "squares": count((n * n - n) % 24 == 0 for n in range(1, 1001)),
    "words": count("AAA" not in "".join(word) for word in itertools.product("AB", repeat=10)),
    "digit-sum": count(digit_sum(n) == 12 for n in range(1, 10_000)),
    "triangle": count(20 * x + 30 * y < 600 for x in range(1, 30) for y in range(1, 20)),
    "modulo": pow(2, 2026, 125),
}


def test_each_problem_has_the_answer_that_it_has() -> None:
    assert {question.id: question.answer for question in named(REASONING).questions} == {
        name: str(answer) for name, answer in SOLVED.items()
    }


def test_each_sum_is_right_and_the_set_is_the_same_everywhere() -> None:
    tasks = named(SUMS)
    for question in tasks.questions:
        assert sum(map(int, re.findall(r"\d+", question.ask))) == int(question.answer)
    assert len({question.id for question in tasks.questions}) == len(tasks.questions) == 100
    assert [tasks.questions[n].ask for n in (0, 99)] == ["What is 943 + 312?", "Please compute 6396 + 84."]


@pytest.mark.parametrize("name", [SUMS, REASONING, QUESTIONS])
def test_sets_are_sound(name: str) -> None:
    tasks = named(name)
    assert tasks.name == name
    assert len({question.id for question in tasks.questions}) == len(tasks.questions) >= 40
    for question in tasks.questions:
        assert is_right(question, question.answer) is True
        if question.choices and not question.answer.isdecimal():
            assert question.answer in question.choices
    longest = max(len(question.ask) + len(tasks.wish) for question in tasks.questions)
    assert longest < 512  # characters: each token has at least one
    assert (tasks.limits.think_budget or 0) < (tasks.limits.max_tokens or 0) < tasks.context


def test_a_short_question_does_not_say_its_answer() -> None:
    for question in named(QUESTIONS).questions:
        assert is_right(question, question.ask) is not True, question.ask


def test_the_beginning_of_a_set_is_a_mixture() -> None:
    assert [question.id for question in named(REASONING).questions[:4]] == [
        *("rolls", "divisors", "circle", "subsets"),
    ]
    numbers = [question.answer.isdecimal() for question in named(QUESTIONS).questions]
    assert numbers[:4] == [True, False, True, False]


def test_the_digest_is_of_all_that_answers_depend_on() -> None:
    tasks = named(SUMS)
    changed = msgspec.structs.replace(tasks, questions=tasks.questions[:-1])
    assert tasks.sha256 == named(SUMS).sha256 != changed.sha256
    assert msgspec.structs.replace(tasks, wish="Be brief.").sha256 != tasks.sha256


def test_the_set_of_the_tiny_model(nano: Path) -> None:
    assert fitting(read_header(nano)) is named(SUMS)


def header(template: str = "", *, r1: bool = False) -> Header:
    metadata = {"tokenizer.chat_template": template} if template else {}
    facts = TokenFacts(r1_markers=r1)
    return Header(
        version=3,
        metadata=metadata,  # type: ignore[arg-type]
        tensors=[],
        alignment=32,
        data_offset=0,
        file_size=0,
        token_facts=facts,
    )


def test_which_set_suits_a_model() -> None:
    assert fitting(header(r1=True)) is named(REASONING)
    assert fitting(header()) is None
    plain, thinking = "{{ messages }}", "{{ messages }}</think>"
    assert fitting(header(plain)) is None  # nobody has read it
    templates.accept(plain)
    templates.accept(thinking)
    assert fitting(header(plain)) is named(QUESTIONS)
    assert fitting(header(thinking)) is named(REASONING)


def test_how_long_it_takes() -> None:
    tasks = named(REASONING)
    assert estimate(tasks, 10.0) == 40 * tasks.typical / 10
    assert estimate(tasks, 10.0, 5) == 5 * tasks.typical / 10
    assert estimate(tasks, 10.0, 500) == estimate(tasks, 10.0)
    assert estimate(tasks, 0.0) > 0
