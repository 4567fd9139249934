"""What comes from a terminal: pastes in pieces, and keys around them."""

from __future__ import annotations

import random

import pytest
from textual.events import Key, Paste

from tui.driver import PastingParser

BEGIN, END = "\x1b[200~", "\x1b[201~"


def events(pieces: list[str]) -> list[str]:
    parser, found = PastingParser(), []
    for piece in pieces:
        for event in parser.feed(piece):
            if isinstance(event, Paste):
                found.append(f"paste {event.text}")
            elif isinstance(event, Key):
                found.append(event.key)
    return found


def test_keys_before_and_behind_a_paste():
    assert events([f"ab{BEGIN}x\ny{END}c\x1b[A"]) == ["a", "b", "paste x\ny", "c", "up"]
    assert events([f"{BEGIN}1{END}{BEGIN}2{END}"]) == ["paste 1", "paste 2"]
    assert events([f"{BEGIN}{END}d"]) == ["paste ", "d"]


@pytest.mark.parametrize("seed", range(20))
def test_a_paste_that_is_read_in_pieces(seed: int):
    chance = random.Random(seed)
    text = f"k{BEGIN}some [3 text with\nlines, 中文 and [201~ in it{END}l"
    cuts = sorted(chance.sample(range(1, len(text)), 6))
    pieces = [text[a:b] for a, b in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    assert events(pieces) == ["k", "paste some [3 text with\nlines, 中文 and [201~ in it", "l"]


def test_an_escape_within_a_paste_is_text():
    assert events([f"{BEGIN}a\x1b[3mb{END}"]) == ["paste a\x1b[3mb"]


def test_zero_bytes_are_dropped():
    assert events([f"{BEGIN}a\x00b{END}"]) == ["paste ab"]


def test_the_end_of_the_terminal_is_an_end():
    parser = PastingParser()
    assert list(parser.feed("")) == []
    assert parser.is_eof
