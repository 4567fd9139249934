"""The terminal as Textual drives it, with one difference: it may go away without stopping the program."""

from __future__ import annotations

import sys
from contextlib import suppress
from io import TextIOWrapper
from typing import TYPE_CHECKING, Any, TextIO, cast

if TYPE_CHECKING:
    from textual.driver import Driver

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


if sys.platform != "win32":
    import termios

    from textual.drivers.linux_driver import LinuxDriver

    class LastingDriver(LinuxDriver):
        """Writes to a terminal that may be gone."""

        def __init__(self, *args: Any, **options: Any) -> None:
            super().__init__(*args, **options)
            self._file = cast(TextIOWrapper, Lasting(cast(TextIO, self._file)))

        def start_application_mode(self) -> None:
            """As Textual's. What was typed before there was a screen is dropped: half of it would stay."""
            with suppress(termios.error):
                termios.tcflush(self.fileno, termios.TCIFLUSH)
            super().start_application_mode()  # type: ignore[no-untyped-call]

    DRIVER = LastingDriver
