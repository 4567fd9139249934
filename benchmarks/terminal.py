"""A program on a pseudo-terminal: keys go in, and what a user sees comes out. For benchmarks and tests."""

from __future__ import annotations

import fcntl
import os
import pty
import re
import select
import struct
import subprocess
import termios
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Final, Self

import psutil
import pyte

CONTROL: Final = re.compile(
    rb"\x1b\[[0-9;?<>=]*[a-zA-Z]|\x1b[()][A-Z0-9]|\x1b[=>]|\x1b\][^\x07\x1b]*(\x07|\x1b\\)"
)
_PRIVATE: Final = re.compile(rb"\x1b\[[<>=?][0-9;]*[a-zA-Z]")
"""What pyte would write onto the screen: sequences that only switch modes of a terminal."""
_BEGUN: Final = re.compile(rb"\x1b(\[[<>=?0-9;]*)?\Z")
"""A sequence whose end was not read yet."""
_COLORS: Final = {"TERM": "xterm-256color", "COLORTERM": "truecolor"}
_OURS: Final = ("COLUMNS", "LINES", "NO_COLOR", "TMUX")
"""What the terminal that runs us says of itself."""


class Terminal:
    """A program on a terminal of its own, `size` columns and rows. To be closed, best by `with`."""

    def __init__(
        self,
        command: Sequence[str],
        size: tuple[int, int] = (100, 30),
        environment: Mapping[str, str] | None = None,
        *,
        controlling: bool = True,
    ) -> None:
        """`environment`: what differs from ours. Not `controlling`: nobody tells it that all ended."""
        self.raw = b""
        """All that it has written."""
        self.size = size
        self.master, slave = pty.openpty()
        self._set_size()
        inherited = {name: value for name, value in os.environ.items() if name not in _OURS}
        self.process = subprocess.Popen(
            command,
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env=inherited | _COLORS | dict(environment or {}),
            start_new_session=True,
            preexec_fn=_take_terminal if controlling else None,
        )
        os.close(slave)
        self._open = True
        self._typed_at = 0
        self._screen = pyte.Screen(*size)
        self._stream = pyte.ByteStream(self._screen)
        self._drawn = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # ---------------------------------------------------------------------------------------- what goes in

    def type(self, keys: str) -> float:
        """Press keys; `text` and `wait_for` then begin anew. The time when it was done."""
        self._typed_at = len(self.raw)
        data = keys.encode()
        while data:
            # A program that is busy writing may not read: who never read its output would wait for ever.
            readable, writable, _ = select.select([self.master], [self.master], [])
            if readable:
                self.read(0)
            if writable:
                data = data[os.write(self.master, data[:1024]) :]
        return time.perf_counter()

    def paste(self, text: str) -> None:
        """As a terminal does it that was told to bracket pastes."""
        self.type(f"\x1b[200~{text}\x1b[201~")

    def resize(self, columns: int, rows: int) -> None:
        """The user draws the window larger or smaller; the system tells the program."""
        self._draw()
        self.size = columns, rows
        self._screen.resize(rows, columns)
        self._set_size()

    def hang_up(self) -> None:
        """The window is closed."""
        if self._open:
            self._open = False
            os.close(self.master)

    def close(self) -> None:
        """Kill the program if it still runs."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.hang_up()

    # --------------------------------------------------------------------------------------- what comes out

    @property
    def text(self) -> str:
        """What was written since the last keys, without control sequences."""
        return CONTROL.sub(b"", self.raw[self._typed_at :]).decode("utf-8", "replace")

    @property
    def screen(self) -> list[str]:
        """The lines that a user sees now."""
        self._draw()
        return list(self._screen.display)

    @property
    def shown(self) -> str:
        """`screen` as one text, its wrapped lines joined by single spaces."""
        return " ".join(" ".join(self.screen).split())

    def memory(self) -> int:
        """Bytes of the program's first process alone."""
        return int(psutil.Process(self.process.pid).memory_info().rss)

    def read(self, seconds: float) -> bool:
        """Take what the program writes, waiting at most so long for some; whether there was any."""
        if not select.select([self.master], [], [], seconds)[0]:
            return False
        try:
            self.raw += os.read(self.master, 1 << 16)
        except OSError:  # the program has closed its end
            time.sleep(min(seconds, 0.05))
            return False
        return True

    def until(
        self, condition: Callable[[], object], what: str = "what was waited for", seconds: float = 60
    ) -> float:
        """Read until the condition holds; the time. Raises TimeoutError with the screen in it."""
        end = time.perf_counter() + seconds
        while not condition():
            if time.perf_counter() > end or self.process.poll() is not None:
                self._read_all()
                if condition():
                    break
                raise TimeoutError(f"the program did not show {what}; the screen:\n" + "\n".join(self.screen))
            self.read(0.1)
        return time.perf_counter()

    def wait_for(self, text: str, seconds: float = 60) -> float:
        """Read until `text` was written since the last keys; the time."""
        return self.until(lambda: text in self.text, repr(text), seconds)

    def wait_for_raw(self, pattern: str, since: int = 0) -> float:
        """Read until that was written behind byte `since`, control sequences included; the time."""
        wanted = re.compile(pattern.encode())
        return self.until(lambda: wanted.search(self.raw, since), repr(pattern))

    def sees(self, *texts: str, seconds: float = 60) -> float:
        """Read until all of it stands on the screen, wherever; the time."""
        return self.until(lambda: all(text in self.shown for text in texts), repr(texts), seconds)

    def misses(self, text: str, seconds: float = 60) -> float:
        """Read until that is nowhere on the screen; the time."""
        return self.until(lambda: text not in self.shown, f"no {text!r}", seconds)

    def wait_for_end(self, seconds: float = 30) -> int:
        """The exit code; the screen is read meanwhile, so that the program waits for nobody."""
        end = time.perf_counter() + seconds
        while self.process.poll() is None:
            if time.perf_counter() > end:
                raise TimeoutError("the program did not end; the screen:\n" + "\n".join(self.screen))
            self.read(0.1)
        self._read_all()
        return self.process.returncode

    # ------------------------------------------------------------------------------------------------ within

    def _read_all(self) -> None:
        while self.read(0):
            pass

    def _draw(self) -> None:
        """Bring the screen up to what was read."""
        fresh = self.raw[self._drawn :]
        if begun := _BEGUN.search(fresh):
            fresh = fresh[: begun.start()]
        self._drawn += len(fresh)
        self._stream.feed(_PRIVATE.sub(b"", fresh))

    def _set_size(self) -> None:
        columns, rows = self.size
        fcntl.ioctl(self.master, termios.TIOCSWINSZ, struct.pack("HHHH", rows, columns, 0, 0))


def _take_terminal() -> None:
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
