"""What the commands print: answers and JSON to standard output, everything else to standard error."""

from __future__ import annotations

import sys
import time
from typing import Any

from localai.chat.clean import clean

DIM, RESET = "\x1b[2m", "\x1b[0m"


def error(message: str, hint: str = "") -> None:
    """One line that says what happened and what to do."""
    _line(f"localai: error: {message.rstrip('.')}" + (f". {hint.rstrip('.')}." if hint else ""))


def note(message: str) -> None:
    """One line that the user should know."""
    _line(f"localai: {message}")


def _line(text: str) -> None:
    sys.stdout.flush()
    print(" ".join(clean(text).split()), file=sys.stderr, flush=True)


def print_json(value: Any) -> None:
    """One JSON value on standard output."""
    import msgspec

    text = msgspec.json.format(msgspec.json.encode(value), indent=2).decode()
    sys.stdout.write(text + "\n")


def print_table(headers: list[str], rows: list[list[str]]) -> None:
    """Columns as wide as their widest cell; the last may run on."""
    widths = [max(len(row[i]) for row in [headers, *rows]) for i in range(len(headers))]
    for row in [headers, *rows]:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())


def size(count: int) -> str:
    """Bytes as people read them, in decimal units: "98.4 MB"."""
    value = float(count)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "B" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} TB"


class Progress:
    """A line on standard error that is rewritten on a terminal, and printed every 10% elsewhere."""

    def __init__(self, label: str) -> None:
        self._label = label
        self._terminal = sys.stderr.isatty()
        self._shown = -1.0
        self._started = self._at = time.monotonic()

    def show(self, fraction: float, detail: str = "") -> None:
        """The work is done to this share, 0 to 1."""
        now = time.monotonic()
        if self._terminal and (now - self._at >= 0.1 or fraction >= 1):
            self._at = now
            left = (now - self._started) * (1 - fraction) / fraction if fraction > 0.02 else 0
            estimate = f", {left:.0f} s left" if left >= 1 else ""
            sys.stderr.write(f"\r\x1b[K{self._label} {fraction:4.0%}{estimate}  {detail}"[:200])
            sys.stderr.flush()
        elif not self._terminal and (fraction - self._shown >= 0.1 or fraction >= 1 > self._shown):
            self._shown = fraction
            print(f"{self._label} {fraction:.0%}", file=sys.stderr, flush=True)

    def end(self) -> None:
        """Clear the line."""
        if self._terminal:
            sys.stderr.write("\r\x1b[K")
            sys.stderr.flush()
