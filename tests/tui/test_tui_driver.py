"""What comes from a terminal: pastes in pieces, and keys around them."""

from __future__ import annotations

import random
import sys

import pytest
from textual.events import Key, Paste

from benchmarks.terminal import Terminal
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


RESIZED = """
import time
from textual.app import App
from textual.widgets import Static
from tui.driver import LastingDriver

class Slow(LastingDriver):
    def _get_terminal_size(self):
        size = super()._get_terminal_size()
        time.sleep(0.3)  # a busy machine: the next signal comes before this one was told
        return size

class Sized(App):
    def compose(self):
        yield Static()

    def on_resize(self, event):
        self.query_one(Static).update(f"now {event.size.width} x {event.size.height}")

Sized(driver_class=Slow).run()
"""


def test_the_last_of_several_sizes_counts():
    """Also where the signals come while the size is being read."""
    with Terminal([sys.executable, "-c", RESIZED], size=(40, 10)) as program:
        program.sees("now 40 x 10")
        for columns, rows in ((50, 20), (60, 12), (44, 8)):
            program.resize(columns, rows)
            program.read(0.1)
        program.sees("now 44 x 8", seconds=20)
