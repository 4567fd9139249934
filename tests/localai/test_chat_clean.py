"""`clean` removes what commands a terminal, and nothing else."""

from __future__ import annotations

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.chat.clean import clean

ANY_TEXT = st.text(st.characters(codec=None))


@pytest.mark.parametrize(
    ("dirty", "expected"),
    [
        ("plain text\n\twith layout", "plain text\n\twith layout"),
        ("\x1b[31mred\x1b[0m", "[31mred[0m"),
        ("\x1b]0;title\x07rest", "]0;title" + "rest"),
        ("\x1b]52;c;ZXZpbA==\x1b\\", "]52;c;ZXZpbA==\\"),
        ("\x9b31m\x90q", "31mq"),
        ("one\r\ntwo\rthree", "one\ntwothree"),
        ("back\x08space\x7f", "backspace"),
        ("user\u202eexe.txt\u202c", "userexe.txt"),
        ("\u2066isolate\u2069", "isolate"),
        ("half \ud83d a pair", "half  a pair"),
        ("naïve 日本語 👩‍💻 עברית", "naïve 日本語 👩‍💻 עברית"),
        ("", ""),
    ],
)
def test_table(dirty: str, expected: str) -> None:
    assert clean(dirty) == expected


@given(ANY_TEXT)
def test_nothing_that_commands_a_terminal_is_left(text: str) -> None:
    left = clean(text)
    assert not [c for c in left if unicodedata.category(c) in {"Cc", "Cs"} and c not in "\n\t"]
    assert clean(left) == left
    left.encode("utf-8")


@given(ANY_TEXT, ANY_TEXT)
def test_pieces_may_be_cleaned_one_by_one(a: str, b: str) -> None:
    assert clean(a + b) == clean(a) + clean(b)
