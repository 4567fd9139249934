"""Loops are noticed, and text that only looks alike is left in peace."""

from __future__ import annotations

import itertools
import random
import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai.engine.loops import Loop, LoopDetector

_numbers: dict[str, int] = {}


def tokens(text: str) -> list[int]:
    """Numbers for pieces such as a tokenizer makes: words with their space, digits, runs of white space."""
    pieces = re.findall(r" ?[A-Za-z]+|\d| *\n+| +(?= )|[-=]{1,8}| ?[^\sA-Za-z\d]| ", text)
    assert "".join(pieces) == text
    return [_numbers.setdefault(piece, len(_numbers)) for piece in pieces]


def watch(sequence: list[int]) -> tuple[int, Loop] | None:
    """After how many tokens a loop was reported, and the loop."""
    detector = LoopDetector()
    reports = [(i + 1, loop) for i, token in enumerate(sequence) if (loop := detector.add(token)) is not None]
    assert len(reports) <= 1
    return reports[0] if reports else None


def found(sequence: list[int]) -> tuple[int, Loop]:
    report = watch(sequence)
    assert report is not None, "no loop was noticed"
    return report


PROSE = (
    "First I should read the question again, since it is easy to miss a condition. The train leaves at nine "
    "and the second one an hour later, so when they meet both have covered some of the way; name the rest d"
)
DOUBT = (
    " Wait, maybe I have misread this. Let me check the speed of the second train once more, it was given."
)


# ------------------------------------------------------------------------------------------------- loops


def test_a_sentence_that_comes_again_and_again() -> None:
    passage = tokens(DOUBT)
    sequence = tokens(PROSE) + passage * 40
    after, loop = found(sequence)
    assert after <= len(tokens(PROSE)) + max(128 + 4 * len(passage), 8 * len(passage))
    assert sequence[loop.start : loop.start + loop.length] == passage, "cut where a reader would cut it"
    assert 3 <= loop.times <= (after - len(tokens(PROSE))) // len(passage)


def test_a_long_passage_is_noticed_in_its_fourth_pass() -> None:
    passage = tokens(
        " ".join(f"{PROSE} In case {word} that holds." for word in ("one", "two", "three", "four"))
    )
    after, loop = found(passage * 6)
    assert 3 * len(passage) < after <= 4 * len(passage)
    assert (loop.length, loop.times) == (len(passage), 3)


@pytest.mark.parametrize("unit", ["no", " Wait, no.", "0, ", "\n\n", "-" * 8])
def test_few_different_tokens_need_a_longer_run(unit: str) -> None:
    sequence = tokens(PROSE) + tokens(unit) * 600
    after, loop = found(sequence)
    assert 512 <= after - len(tokens(PROSE)) < 550
    assert loop.length == len(tokens(unit))
    assert loop.times >= 512 // loop.length


def test_a_slip_now_and_then_does_not_hide_a_loop() -> None:
    passage = list(range(150))
    sequence = passage * 20
    sequence[90::400] = [10**6 + i for i in range(len(sequence[90::400]))]
    assert found(sequence)[1].length == len(passage)


@pytest.mark.parametrize("turn", range(0, 64, 4))
def test_a_passage_that_repeats_within_itself(turn: int) -> None:
    passage = [*range(20)] * 3 + [50, 51, 52, 53]
    passage = passage[turn:] + passage[:turn]
    after, loop = found(passage * 12)
    assert after <= 6 * len(passage)
    assert loop.length == len(passage)


def test_the_same_sentences_in_changing_order() -> None:
    chance = random.Random(1)
    sentences = [tokens(f" {s.strip()}.") for s in (PROSE + DOUBT).split(".") if s.strip()]
    sequence = [token for _ in range(400) for token in chance.choice(sentences)]
    after, loop = found(sequence)
    assert (loop.start, loop.length) == (after - 64, 64)


def test_the_loop_is_reported_once() -> None:
    detector = LoopDetector()
    reports = [detector.add(token) for token in tokens(DOUBT) * 200]
    assert sum(report is not None for report in reports) == 1


@settings(deadline=None)
@given(
    st.lists(st.integers(0, 200_000), max_size=300),
    st.lists(st.integers(0, 200_000), min_size=12, max_size=60, unique=True),
)
def test_what_is_reported_is_there(before: list[int], passage: list[int]) -> None:
    sequence = before + passage * 30
    after, loop = found(sequence)
    assert loop.length == len(passage)
    end = loop.start + loop.length
    assert end <= after
    last = sequence[loop.start : end]
    assert sequence[end - loop.times * loop.length : end] == last * loop.times


# ------------------------------------------------------------------------------------------ false alarms


def table_of_similar_rows() -> str:
    names = ("Ada", "Grace", "Alan", "Edsger", "Barbara")
    rows = (f"| {i} | {names[i % 5]} | {(i * 37) % 90 + 10}.50 | yes | in stock |" for i in range(200))
    return "| no | name | price | paid | state |\n|----|------|-------|------|-------|\n" + "\n".join(rows)


def similar_code() -> str:
    fields = ("name", "size", "kind", "owner", "path", "mode", "group", "time", "link", "hash")
    chain = "".join(f'    elif field == "{f}":\n        self.{f} = config.{f}\n' for f in fields * 3)
    checks = "".join(f"    assert add({i}, {i + 1}) == {2 * i + 1}\n" for i in range(60))
    return f"def read(self, field, config):\n{chain}\n\ndef test_add():\n{checks}"


def records() -> str:
    return ",\n".join(
        f'  {{"id": {i}, "name": "Item {i}", "price": {i}.99, "active": true}}' for i in range(80)
    )


def addition_digit_by_digit() -> str:
    chance = random.Random(2)
    carry, lines = 0, []
    for _ in range(300):
        p, q = chance.randrange(10), chance.randrange(10)
        s = p + q + carry
        lines.append(f"{p} + {q} + {carry} = {s}, write {s % 10}, carry {s // 10}.")
        carry = s // 10
    return "\n".join(lines)


def ruled_tables() -> str:
    rule = "+" + "+".join(["-" * 24] * 8) + "+\n"
    return "".join(f"{rule}| row {i} |{' ' * 90}| {i * i} |\n" for i in range(40))


def rule_of_single_dashes() -> str:
    return f"{PROSE}\n" + "- " * 100 + f"\n{PROSE}"


def blank_form() -> str:
    return "| | | | | | | |\n" * 20


def truth_table() -> str:
    rows = itertools.product("TF", repeat=7)
    return "\n".join(f"| {' | '.join(row)} | {'T' if row.count('T') > 3 else 'F'} |" for row in rows)


def towers_of_hanoi(disks: int = 7, a: str = "A", b: str = "B", c: str = "C") -> str:
    if disks == 0:
        return ""
    move = f"Move disk {disks} from peg {a} to peg {c}.\n"
    return towers_of_hanoi(disks - 1, a, c, b) + move + towers_of_hanoi(disks - 1, b, a, c)


def bottles() -> str:
    return "\n".join(
        f"{i} bottles of beer on the wall, {i} bottles of beer.\n"
        f"Take one down and pass it around, {i - 1} bottles of beer on the wall.\n"
        for i in range(99, 0, -1)
    )


def song_with_a_chorus() -> str:
    chance = random.Random(3)
    words = PROSE.replace(".", "").replace(",", "").split()
    verses = (" ".join(chance.choices(words, k=60)) for _ in range(8))
    return "\n\n".join(f"{verse}\n\n{PROSE}\n{PROSE}" for verse in verses)


def said_twice_at_the_end() -> str:
    """A long passage that has come four times and a half, but not three times in a row."""
    passage = "".join(f" {a}{b}" for a in "abcdefghij" for b in "klmnopqrstuvwxyz")
    return f"{passage} and {passage} or {passage * 2}{passage[:300]}"


def code_shown_again_with_changes() -> str:
    chance = random.Random(4)
    lines = [line for line in similar_code().splitlines() if line][:40]
    shown = []
    for _ in range(8):
        for _ in range(6):
            lines[chance.randrange(40)] += f"  # {chance.choice(PROSE.split())} {chance.randrange(100)}"
        shown.append("Here is the next version:\n" + "\n".join(lines))
    return "\n\n".join(shown)


FALSE_ALARMS = {
    "table of similar rows": table_of_similar_rows(),
    "numbers, one a line": "\n".join(map(str, range(1, 1500))),
    "numbers in a row": ", ".join(map(str, range(1, 1500))),
    "multiplication table": "\n".join(f"{i} x {j} = {i * j}" for i in range(1, 21) for j in range(1, 21)),
    "similar code": similar_code(),
    "records": records(),
    "sum digit by digit": addition_digit_by_digit(),
    "ruled tables": ruled_tables(),
    "rule of single dashes": rule_of_single_dashes(),
    "rule of 3,000 dashes": "-" * 3000 + "\n" + PROSE,
    "blank form": blank_form(),
    "padding": PROSE + " " * 300 + "x",
    "matrix of zeros": "[" + ",\n".join("[" + ", ".join("0" * 12) + "]" for _ in range(12)) + "]",
    "identity matrix": "\n".join(", ".join("1" if i == j else "0" for j in range(30)) for i in range(30)),
    "truth table": truth_table(),
    "towers of Hanoi": towers_of_hanoi(),
    "bottles of beer": bottles(),
    "song with a chorus": song_with_a_chorus(),
    "said twice at the end": said_twice_at_the_end(),
    "code shown again with changes": code_shown_again_with_changes(),
}


@pytest.mark.parametrize("name", FALSE_ALARMS)
def test_no_alarm(name: str) -> None:
    assert watch(tokens(FALSE_ALARMS[name])) is None


def test_an_answer_may_quote_the_thinking() -> None:
    thinking, answer = LoopDetector(), LoopDetector()
    passage = tokens(PROSE + DOUBT)
    reports = [thinking.add(token) for token in passage * 3]
    reports += [answer.add(token) for token in passage * 3]
    assert not any(reports)


@settings(deadline=None)
@given(st.lists(st.integers(0, 200_000), max_size=1000))
def test_no_alarm_without_repetition(sequence: list[int]) -> None:
    assert watch(sequence) is None
