"""The chat on a real pseudo-terminal, with the real engine and the real tiny model."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable, Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

from tui.ending import GRACE_S

COMMAND = [sys.executable, "-P", "-m", "localai"]
CONTROL = re.compile(rb"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)")


class Terminal:
    """A program on a terminal of 100 x 30; everything it ever wrote, without control sequences."""

    def __init__(self, *words: str) -> None:
        self._open = True
        self.master, slave = pty.openpty()
        ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, 100, 0, 0))
        environment = {**os.environ, "TERM": "xterm-256color", "COLORTERM": "truecolor"}
        self.process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=environment,
            start_new_session=True,
        )
        os.close(slave)
        self._raw = b""

    def wait_for(self, text: str, seconds: float = 60) -> None:
        """Read until `text` was written."""
        end = time.monotonic() + seconds
        while text not in self.text:
            assert time.monotonic() < end, f"no {text!r} in:\n{self.text[-3000:]}"
            self._read(0.1)

    def type(self, keys: str) -> None:
        """Press keys; from here on only what is written afterwards counts."""
        self._raw = b""
        os.write(self.master, keys.encode())

    def wait_for_end(self, seconds: float = 30) -> int:
        """The exit code; the screen is read meanwhile, so that nobody waits for us."""
        end = time.monotonic() + seconds
        while self.process.poll() is None:
            assert time.monotonic() < end, "the program did not end"
            self._read(0.1)
        return self.process.returncode

    @property
    def text(self) -> str:
        return CONTROL.sub(b"", self._raw).decode("utf-8", "replace")

    def _read(self, seconds: float) -> None:
        ready, _, _ = select.select([self.master], [], [], seconds)
        if ready:
            with contextlib.suppress(OSError):
                self._raw += os.read(self.master, 65536)

    def hang_up(self) -> None:
        """Close the window, as it were."""
        if self._open:
            self._open = False
            os.close(self.master)

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_chat_quit_and_find_the_conversation_again(nano: Path, terminals: list[Terminal]) -> None:
    terminals.append(chat := Terminal("chat", "--plain-history", str(nano), "--temperature", "0"))
    chat.wait_for("ready")
    chat.type("What is 47 + 85?\r")
    chat.wait_for("132")
    chat.wait_for("Thought for")
    chat.type("\x11")
    assert chat.wait_for_end() == 0

    terminals.append(again := Terminal("chat", "--plain-history", str(nano)))
    again.wait_for("ready")
    again.type("\x02")
    again.wait_for("What is 47 + 85?")
    again.type("\x11")
    assert again.wait_for_end() == 0


def test_what_was_typed_before_there_was_a_screen_is_forgotten(nano: Path, terminals: list[Terminal]) -> None:
    terminals.append(chat := Terminal("chat", "--plain-history", str(nano), "--temperature", "0"))
    os.write(chat.master, b"too early\nfor\nthis\n")
    chat.wait_for("ready")
    chat.type("\x1bOP")
    chat.wait_for("bring an earlier prompt back")
    chat.type("\x1b")  # behind the help, everything is drawn anew
    chat.wait_for("Ask anything", seconds=15)  # what the composer shows while it is empty
    chat.type("\x11")
    assert chat.wait_for_end() == 0


def test_ask_dims_the_thinking_on_a_terminal(nano: Path, terminals: list[Terminal]) -> None:
    terminals.append(ask := Terminal("ask", str(nano), "What is 47 + 85?", "--temperature", "0"))
    ask.wait_for("**132**")
    assert ask.wait_for_end() == 0
    raw = ask._raw.decode()
    assert raw.index("\x1b[2m") < raw.index("7 + 5 + 0 = 12") < raw.index("\x1b[0m") < raw.index("**132**")


@pytest.mark.parametrize(("number", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129)])
def test_a_signal_ends_the_chat_and_gives_the_terminal_back(
    nano: Path, terminals: list[Terminal], number: signal.Signals, code: int
) -> None:
    terminals.append(chat := Terminal("chat", "--plain-history", str(nano)))
    before = termios.tcgetattr(chat.master)
    chat.wait_for("ready")
    assert termios.tcgetattr(chat.master) != before
    assert b"\x1b[?1049h" in chat._raw
    chat.process.send_signal(number)
    assert chat.wait_for_end() == code
    assert termios.tcgetattr(chat.master) == before
    assert b"\x1b[?1049l" in chat._raw
    assert "Traceback" not in chat.text


@pytest.mark.parametrize("question", ["", "Why is the sky blue?\r"])
def test_the_chat_ends_soon_after_its_terminal(nano: Path, terminals: list[Terminal], question: str) -> None:
    terminals.append(chat := Terminal("chat", "--plain-history", str(nano)))
    chat.wait_for("ready")
    if question:
        chat.type(question)
        chat.wait_for("Why is")
    chat.hang_up()
    chat.process.send_signal(signal.SIGHUP)
    assert chat.process.wait(GRACE_S - 3) == 129


def test_the_chat_ends_when_its_terminal_is_gone_and_nobody_says_so(
    nano: Path, terminals: list[Terminal]
) -> None:
    terminals.append(chat := Terminal("chat", str(nano), "--plain-history"))
    chat.wait_for("ready")
    chat.hang_up()  # it is not the controlling terminal: there is no signal
    assert chat.process.wait(GRACE_S) == 129


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


def other_architecture(path: Path, header: bytes) -> None:
    path.write_bytes(header.replace(b"qwen2", b"mamba"))


def truncated(path: Path, whole: bytes) -> None:
    path.write_bytes(whole[:-1000])


@pytest.mark.parametrize(("spoil", "reason"), [(other_architecture, "mamba"), (truncated, "truncated")])
def test_a_model_that_cannot_run_is_said_before_the_screen_opens(
    nano: Path,
    terminals: list[Terminal],
    tmp_path: Path,
    spoil: Callable[[Path, bytes], None],
    reason: str,
) -> None:
    spoil(tmp_path / "spoiled.gguf", nano.read_bytes())
    terminals.append(chat := Terminal("chat", str(tmp_path / "spoiled.gguf")))
    chat.wait_for(reason)
    assert chat.wait_for_end() == 1
    assert b"\x1b[?1049h" not in chat._raw


def test_too_much_context_is_said_before_the_screen_opens(nano: Path, terminals: list[Terminal]) -> None:
    terminals.append(chat := Terminal("chat", "--plain-history", str(nano), "--context", "999999"))
    chat.wait_for("--context 999,999 is more than the 2,048 tokens")
    assert chat.wait_for_end() == 2
    assert b"\x1b[?1049h" not in chat._raw


def test_text_typed_right_behind_enter_stays(nano: Path, terminals: list[Terminal]) -> None:
    terminals.append(chat := Terminal("chat", "--plain-history", str(nano), "--temperature", "0"))
    chat.wait_for("ready")
    chat.type("What is 47 + 85?\rab\ncdefgh")
    chat.wait_for("│ ab")
    chat.wait_for("│ cdefgh")
    chat.type("\x11")
    assert chat.wait_for_end() == 0
