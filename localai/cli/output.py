"""What the commands print: answers and JSON to standard output, everything else to standard error."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

from localai.characters import escaped
from localai.chat.clean import clean, clean_line
from localai.errors import LocalAIError, WorkerDied, WorkerHung

if TYPE_CHECKING:
    from localai.cli.progress_bar import Bar

__all__ = [
    "DIM",
    "RESET",
    "Progress",
    "aside",
    "clean",
    "count",
    "dims",
    "error",
    "is_terminal",
    "note",
    "one_line",
    "print_json",
    "print_table",
    "progress",
    "require_stdout",
    "size",
]

DIM, RESET = "\x1b[2m", "\x1b[0m"
_LONGEST = 1200
QUIET_S = 2.0
"""Where nobody watches a line being rewritten, only what takes longer than this is worth lines in a log."""


@contextmanager
def again() -> Iterator[None]:
    """Where the engine dies or hangs, the error says to run the same again; its own words are for a chat."""
    try:
        yield
    except (WorkerDied, WorkerHung) as error:
        raise type(error)(error.message, "Run the same command again") from error


def error(message: str, hint: str = "") -> None:
    """One line that says what happened and what to do."""
    first = message.partition(" ")[0].rstrip(",:")
    if first[1:].islower() and first.isalpha():
        message = message[0].lower() + message[1:]
    end = "" if hint.endswith("?") else "."
    _line(f"localai: error: {message.rstrip('.')}" + (f". {hint.rstrip('.')}{end}" if hint else ""))


def note(message: str) -> None:
    """One line that the user should know."""
    _line(f"localai: {message}")


def _line(text: str) -> None:
    with suppress(OSError):
        sys.stdout.flush()
    aside(one_line(text) + "\n")


def one_line(text: str) -> str:
    """`text` without control characters and line breaks, and cut if somebody else's words made it endless."""
    line = clean_line(text)
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST // 2]} ... {line[-_LONGEST // 2 :]}"


def aside(text: str) -> None:
    """Write to standard error. That it cannot be written must not cost the answer."""
    with suppress(OSError):
        sys.stderr.write(text)
        sys.stderr.flush()


def require_stdout() -> None:
    """Raises LocalAIError if the program was started with its standard output closed.

    For commands that compute for long what nobody would get to see.
    """
    if sys.__stdout__ is None:
        raise LocalAIError("standard output is closed", "To see nothing but errors, add: > /dev/null")


def is_terminal() -> bool:
    """Whether standard error shows colours and rewrites lines."""
    return sys.stderr.isatty() and os.environ.get("TERM") != "dumb"


def dims() -> bool:
    """Whether thinking is dimmed."""
    return is_terminal() and not os.environ.get("NO_COLOR")


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(escaped(text) + "\n")


def print_table(headers: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell; the last may run on."""
    rows = [[one_line(cell) for cell in row] for row in rows]
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    for row in [headers, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def table_width(headers: list[str], rows: list[list[str]]) -> int:
    """Columns of a terminal that such a table takes."""
    widths = (max(len(one_line(row[i])) for row in [headers, *rows]) for i in range(len(headers)))
    return sum(width + 2 for width in widths) - 2


def size(count: int) -> str:
    """Bytes as people read them, in decimal units: "98.4 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


def rate(number: float) -> str:
    """Tokens a second, as exact as they are known."""
    return f"{number:.0f}" if number >= 9.5 else f"{number:.1f}"


def duration(seconds: float) -> str:
    """As people say it: "40 s", "12 min", "3 h 05 min"."""
    if seconds < 100:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02} min"


class Progress:
    """A bar on standard error on a terminal; elsewhere a line for every tenth of what is slow.

    Called as (step, done, total), the last two in bytes or in `unit`, and what it is at; a total of 0 means
    unknown.

    With LOCALAI_PROGRESS=json in the environment, for programs: each call is a line of JSON (docs/json.md).
    If nobody reads them any more, nobody waits for the result: OSError, which ends the work.
    """

    def __init__(self) -> None:
        self._for_programs = os.environ.get("LOCALAI_PROGRESS") == "json"
        self._terminal = is_terminal() and not self._for_programs
        self._bar: Bar | None = None
        self._step = ""
        self._tenth = -1
        self._started = self._at = 0.0
        self._base = 0

    def __call__(self, step: str, done: int, total: int, detail: str = "", unit: str = "bytes") -> None:
        now = time.monotonic()
        if step != self._step:
            self._step, self._tenth, self._started, self._at, self._base = step, -1, now, 0.0, done
        if self._for_programs:
            self._tell(now, done, total, unit)
        elif self._terminal:
            self._draw(now, done, total, detail, unit)
        elif int(done / total * 10 if total else 0) > self._tenth and now - self._started >= QUIET_S:
            self._tenth = int(done / total * 10 if total else 0)
            self._log(one_line(step), done, total, unit)

    def _log(self, step: str, done: int, total: int, unit: str) -> None:
        whole = size(total) if unit == "bytes" else f"{total:,} {unit}"
        aside((f"{step}: {done / total:.0%} of {whole}" if total else step) + "\n")

    def _tell(self, now: float, done: int, total: int, unit: str) -> None:
        if now - self._at < 0.1 and done != total:
            return
        self._at = now
        import json

        passed = now - self._started
        rate = (done - self._base) / passed if passed > 0.5 else 0.0
        event = {"step": self._step, "done": done, "total": total, f"{unit}_per_s": round(rate)}
        sys.stderr.write(json.dumps(event) + "\n")
        sys.stderr.flush()

    def _draw(self, now: float, done: int, total: int, detail: str, unit: str) -> None:
        if now - self._at < 0.1 and done != total:
            return
        self._at = now
        if self._bar is None:
            from localai.cli.progress_bar import Bar

            self._bar = Bar().__enter__()
        self._bar.show(clean_line(self._step), done, total, clean_line(detail), unit)

    def end(self) -> None:
        """Take it off the screen."""
        if self._bar is not None:
            self._bar.__exit__(None, None, None)
            self._bar = None


@contextmanager
def progress() -> Iterator[Progress]:
    """Progress that is off the screen at the end, whatever the end is."""
    shown = Progress()
    try:
        yield shown
    finally:
        shown.end()


def count(number: int) -> str:
    """A number of parameters as people read it: "1.5B"."""
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if number >= limit:
            return f"{number / limit:.3g}{unit}"
    return str(number)
