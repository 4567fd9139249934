"""The chat on a real pseudo-terminal, with the real engine and the real tiny model."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import termios
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.terminal import Terminal
from tui import command, session
from tui.ending import GRACE_S

COMMAND = [sys.executable, "-P", "-m", "localai"]
QUIT = "\x11"
OPENS = b"\x1b[?1049h"
"""What opens a program's own screen, so that the lines before it come back behind it."""
CLOSES = b"\x1b[?1049l"

Start = Callable[..., Terminal]


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs `localai` with these words on a terminal."""
    with ExitStack() as opened:

        def begin(*words: str | Path, **changes: Any) -> Terminal:
            return opened.enter_context(Terminal([*COMMAND, *map(str, words)], **changes))

        yield begin


def leave(chat: Terminal) -> None:
    chat.type(QUIT)
    assert chat.wait_for_end() == 0
    assert "Traceback" not in chat.text


# ------------------------------------------------------------------------------------ before the screen opens


def other_architecture(path: Path, header: bytes) -> None:
    path.write_bytes(header.replace(b"qwen2", b"mamba"))


def truncated(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[:-1000])


@pytest.mark.parametrize(("spoil", "reason"), [(other_architecture, "mamba"), (truncated, "truncated")])
def test_a_model_that_cannot_run_is_said_before_the_screen_opens(
    nano: Path, start: Start, tmp_path: Path, spoil: Callable[[Path, bytes], None], reason: str
) -> None:
    spoil(tmp_path / "spoiled.gguf", nano.read_bytes())
    chat = start("chat", tmp_path / "spoiled.gguf")
    chat.wait_for(reason)
    assert chat.wait_for_end() == 1
    assert OPENS not in chat.raw


def test_too_much_context_is_said_before_the_screen_opens(nano: Path, start: Start) -> None:
    chat = start("chat", "--plain-history", nano, "--context", "999999")
    chat.wait_for("--context 999,999 is more than the 2,048 tokens")
    assert chat.wait_for_end() == 2
    assert OPENS not in chat.raw


# --------------------------------------------------------------------------------------------------- typing


def test_what_was_typed_before_there_was_a_screen_is_forgotten(nano: Path, start: Start) -> None:
    chat = start("chat", "--plain-history", nano)
    os.write(chat.master, b"too early\nfor\nthis\n")
    chat.sees("ready")
    chat.type("\x1bOP")
    chat.wait_for("bring an earlier prompt back")
    chat.type("\x1b")  # behind the help, everything is drawn anew
    chat.wait_for("Ask anything")  # what the composer shows while it is empty
    leave(chat)


def test_text_typed_right_behind_enter_stays(nano: Path, start: Start) -> None:
    chat = start("chat", "--plain-history", nano, "--temperature", "0")
    chat.sees("ready")
    chat.type("What is 47 + 85?\rab\ncdefgh")
    chat.sees("│ ab", "│ cdefgh")
    leave(chat)


def test_ask_dims_the_thinking_on_a_terminal(nano: Path, start: Start) -> None:
    ask = start("ask", nano, "What is 47 + 85?", "--temperature", "0")
    ask.wait_for("**132**")
    assert ask.wait_for_end() == 0
    raw = ask.raw.decode()
    assert raw.index("\x1b[2m") < raw.index("7 + 5 + 0 = 12") < raw.index("\x1b[0m") < raw.index("**132**")


# ------------------------------------------------------------------------------------------------------ ends


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_chat_and_gives_the_terminal_back(
    nano: Path, start: Start, number: signal.Signals, code: int
) -> None:
    chat = start("chat", "--plain-history", nano)
    before = termios.tcgetattr(chat.master)
    chat.sees("ready")
    assert termios.tcgetattr(chat.master) != before
    assert OPENS in chat.raw
    chat.process.send_signal(number)
    assert chat.wait_for_end() == code
    assert termios.tcgetattr(chat.master) == before
    assert CLOSES in chat.raw
    assert "Traceback" not in chat.text


@pytest.mark.parametrize("question", ["", "Why is the sky blue?\r"])
def test_the_chat_ends_soon_after_its_terminal(nano: Path, start: Start, question: str) -> None:
    chat = start("chat", "--plain-history", nano)
    chat.sees("ready")
    if question:
        chat.type(question)
        chat.wait_for("Why is")
    chat.hang_up()
    assert chat.process.wait(GRACE_S - 3) == 129


def test_the_chat_ends_when_its_terminal_is_gone_and_nobody_says_so(nano: Path, start: Start) -> None:
    chat = start("chat", nano, "--plain-history", controlling=False)
    chat.sees("ready")
    chat.hang_up()
    assert chat.process.wait(GRACE_S) == 129


def test_the_grace_is_longer_than_an_orderly_end_takes() -> None:
    closing = 4 * session.PATIENCE_S  # the reply twice, the state, the engine
    assert closing + command.PATIENCE_S < GRACE_S


def test_a_signal_ends_a_chat_whose_terminal_takes_no_output() -> None:
    program = """
import asyncio, queue
from tui import ending
ending.GRACE_S = 0.1
async def stuck():
    with ending.orderly(lambda code: None):
        print("ready", flush=True)
        queue.Queue().get()
asyncio.run(stuck())
"""
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdout.readline() == b"ready\n"
        process.send_signal(signal.SIGHUP)
        assert process.wait(30) == 129
