"""A user's first start, second and third on a real terminal: the real program, engine, model and cipher."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks.terminal import Terminal

WORDS = [sys.executable, "-P", "-m", "localai", "chat", "--temperature", "0"]
ENDLESS = ["--logit-bias", "<｜end▁of▁sentence｜>=-inf", "--threads", "1"]
"""The model can't end its reply: else it would be over before anybody could stop it."""
PASSPHRASE = "correct horse battery"
ESC, UP, DOWN, LEFT, RIGHT = "\x1b", "\x1b[A", "\x1b[B", "\x1b[D", "\x1b[C"
SELECT = "\x1b[1;5A"
"""Ctrl+Up: the message above."""
SEARCH, QUIT, NEW, GO_ON, SELECT_ALL = "\x06", "\x11", "\x0e", "g", "\x01"


@pytest.fixture
def environment(home: Path) -> dict[str, str]:
    backend = "keyring.backends.fail.Keyring"
    return {"LOCALAI_HOME": str(home), "LOCALAI_PASSPHRASE": PASSPHRASE, "PYTHON_KEYRING_BACKEND": backend}


@pytest.mark.usefixtures("all_cores")
def test_a_user_asks_stops_edits_branches_searches_and_comes_back(
    nano: Path, environment: dict[str, str], home: Path
) -> None:
    with Terminal([*WORDS, str(nano)], environment=environment) as chat:
        ask(chat)
        edit(chat)
        walk_the_branches(chat)
        search_and_jump(chat)
        quit_with_a_draft(chat)
    with Terminal([*WORDS, str(nano), *ENDLESS], environment=environment) as again:
        find_it_again(again)
        stop_and_go_on(again)
    readable = [path for path in home.rglob("*") if path.is_file() and b"draft of mine" in path.read_bytes()]
    assert not readable


def ask(chat: Terminal) -> None:
    chat.sees("ready", "Ask anything")
    chat.type("What is 47 + 85?\r")
    chat.sees("Thought for", "47 + 85 = 132", "tok/s")
    assert "carry 1" not in chat.shown  # the thoughts are folded
    chat.type("\x14")
    chat.sees("4 + 8 + 1 = 13, write 3, carry 1.")
    chat.type("\x14")
    chat.misses("carry 1")


def select_the_question(chat: Terminal) -> None:
    chat.type(SELECT)
    chat.sees("R try again")
    chat.type(UP)
    chat.sees("E edit")


def edit(chat: Terminal) -> None:
    select_the_question(chat)
    chat.type("e")
    chat.sees("│ What is 47 + 85?")
    chat.type("\x7f" * 3 + "15?\r")
    chat.sees("▌ What is 47 + 15?", "47 + 15 = 62", "‹ 2/2 ›")
    chat.misses("+ 85")  # the status may say "851 tok/s"


def walk_the_branches(chat: Terminal) -> None:
    select_the_question(chat)
    chat.type(LEFT)
    chat.sees("47 + 85 = 132", "‹ 1/2 ›")
    chat.misses("= 62")
    chat.type(RIGHT)
    chat.sees("47 + 15 = 62", "‹ 2/2 ›")
    chat.type(ESC)
    chat.misses("E edit")


def search_and_jump(chat: Terminal) -> None:
    chat.type(NEW)
    chat.sees("A private chat")
    chat.type("Hello\r")
    chat.sees("Hello! I am r1-nano")
    search(chat, "132")
    chat.type("\r")  # the match stands on the branch that is not shown
    chat.sees("47 + 85 = 132", "‹ 1/2 ›")
    chat.misses("In messages")
    chat.sees("R try again")  # the reply that was found is selected, some time after it is shown


def search(chat: Terminal, words: str) -> None:
    chat.type(SEARCH)
    chat.sees("^F searches")
    chat.type(words)
    chat.sees("In messages")


def quit_with_a_draft(chat: Terminal) -> None:
    chat.type(ESC)
    chat.misses("R try again")
    chat.type("a draft of mine")
    chat.sees("│ a draft of mine")
    chat.type(QUIT)
    assert chat.wait_for_end() == 0


def find_it_again(chat: Terminal) -> None:
    chat.sees("ready", "Ask anything")
    search(chat, "what 85")
    chat.type("\r")
    chat.sees("47 + 85 = 132", "‹ 1/2 ›", "│ a draft of mine")


def stop_and_go_on(chat: Terminal) -> None:
    chat.type("\x15What is 20 + 30?\r")  # Ctrl+U: the draft goes
    chat.wait_for("answering")
    chat.type(ESC)
    chat.sees("■ Stopped")
    chat.type(SELECT)
    chat.sees("G go on")
    chat.type(GO_ON)
    chat.wait_for("answering")
    chat.type(QUIT)
    assert chat.wait_for_end() == 0
