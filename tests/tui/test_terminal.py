"""The chat on a real pseudo-terminal, with the real engine and the real tiny model."""

from __future__ import annotations

import contextlib
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from fcntl import ioctl
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-P", "-m", "localai.cli.main"]
CONTROL = re.compile(rb"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)")


class Terminal:
    """A program on a terminal of 100 x 30; everything it ever wrote, without control sequences."""

    def __init__(self, *words: str) -> None:
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

    def close(self) -> None:
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        os.close(self.master)


@pytest.fixture
def terminals() -> Iterator[list[Terminal]]:
    opened: list[Terminal] = []
    yield opened
    for terminal in opened:
        terminal.close()


def test_chat_quit_and_find_the_conversation_again(nano: Path, terminals: list[Terminal]) -> None:
    terminals.append(chat := Terminal("chat", str(nano), "--temperature", "0"))
    chat.wait_for("ready")
    chat.type("What is 47 + 85?\r")
    chat.wait_for("132")
    chat.wait_for("Thought for")
    chat.type("\x11")
    assert chat.wait_for_end() == 0

    terminals.append(again := Terminal("chat", str(nano)))
    again.wait_for("ready")
    again.type("\x02")
    again.wait_for("What is 47 + 85?")
    again.type("\x11")
    assert again.wait_for_end() == 0


def test_ask_dims_the_thinking_on_a_terminal(nano: Path, terminals: list[Terminal]) -> None:
    terminals.append(ask := Terminal("ask", str(nano), "What is 47 + 85?", "--temperature", "0"))
    ask.wait_for("**132**")
    assert ask.wait_for_end() == 0
    raw = ask._raw.decode()
    assert raw.index("\x1b[2m") < raw.index("7 + 5 + 0 = 12") < raw.index("\x1b[0m") < raw.index("**132**")
