"""The terminal as Textual drives it, which may go away without stopping the program, and pastes fast."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import Iterable
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO, cast

from textual._xterm_parser import BRACKETED_PASTE_END, BRACKETED_PASTE_START, XTermParser
from textual.events import Paste

if TYPE_CHECKING:
    from types import FrameType

    from textual.driver import Driver
    from textual.message import Message

DRIVER: type[Driver] | None = None
"""None: Textual's own choice."""


class Lasting:
    """A file whose reader may be gone.

    Textual's writing thread dies of a failed write, and then everyone who writes waits for it: the program
    could not end any more.
    """

    def __init__(self, file: TextIO) -> None:
        self._file = file

    def write(self, text: str) -> None:
        """Write, if there still is somewhere to write to."""
        with suppress(OSError):
            self._file.write(text)

    def flush(self) -> None:
        """As `write`."""
        with suppress(OSError):
            self._file.flush()

    def fileno(self) -> int:
        """The file's own number."""
        return self._file.fileno()


class PastingParser(XTermParser):
    """Takes what is pasted in pieces: Textual takes 2 s for each MB, a character at a time."""

    _pieces: list[str] | None = None
    """What has come of a paste that has not ended."""

    def feed(self, data: str) -> Iterable[Message]:
        """The events that `data` makes."""
        if self._pieces is None or not data:  # nothing: the end of all
            # A beginning that is cut in two by the reading is left to Textual.
            before, began, data = data.partition(BRACKETED_PASTE_START)
            if before or not began:
                yield from super().feed(before)
            if not began:
                return
            self._pieces = []
        # Only the last piece can hold the first part of the end.
        last = self._pieces.pop() if self._pieces else ""
        text, ended, after = (last + data).partition(BRACKETED_PASTE_END)
        self._pieces.append(text)
        if ended:
            pasted, self._pieces = "".join(self._pieces), None
            yield Paste(pasted.replace("\x00", ""))
            if after:
                yield from self.feed(after)
        elif len(text) >= len(BRACKETED_PASTE_END):
            keep = len(BRACKETED_PASTE_END) - 1
            self._pieces[-1:] = [text[:-keep], text[-keep:]]


if sys.platform != "win32":
    import termios

    from textual.drivers import linux_driver
    from textual.drivers.linux_driver import LinuxDriver

    class LastingDriver(LinuxDriver):
        """Writes to a terminal that may be gone."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._file = cast(TextIOWrapper, Lasting(cast(TextIO, self._file)))

        def run_input_thread(self) -> None:
            """As Textual's, with a parser that takes pastes as they come."""
            vars(linux_driver)["XTermParser"] = PastingParser
            super().run_input_thread()

        def start_application_mode(self) -> None:
            """As Textual's. What was typed before there was a screen is dropped: half of it would stay."""
            with suppress(termios.error):
                termios.tcflush(self.fileno, termios.TCIFLUSH)
            super().start_application_mode()  # type: ignore[no-untyped-call]
            told = signal.getsignal(signal.SIGWINCH)
            if callable(told):
                loop = asyncio.get_running_loop()

                def tell(number: int, _: FrameType | None) -> None:
                    """Textual reads the size within the handler, which a second signal may interrupt: it
                    would tell the old size last, and the screen would keep it."""
                    loop.call_soon_threadsafe(told, number, None)

                signal.signal(signal.SIGWINCH, tell)

    DRIVER = LastingDriver
