"""The texts that come with the program (what is in them, and where they are from: ORIGIN.md beside them).

And those that users give: as llama.cpp's tools read them, without the line break at the end.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from localai.errors import UsageError

EVALUATION: Final = "evaluation.txt"
CALIBRATION: Final = "calibration.txt"
MOST_BYTES: Final = 32 << 20
"""Of a text: what takes days to evaluate even on a fast machine."""


class Text(NamedTuple):
    """A text and what it is called."""

    name: str
    content: str

    @property
    def sha256(self) -> str:
        """Of what is read of it."""
        return hashlib.sha256(self.content.encode()).hexdigest()


def built_in(name: str) -> Text:
    """One of the texts above."""
    return Text(f"built-in {name}", _content((Path(__file__).parent / name).read_bytes(), name))


def read(path: Path) -> Text:
    """The text in a file. UsageError if it cannot be read, is too long, or is no text."""
    try:
        if not path.is_file():
            raise UsageError(f"{path} is not a file", "Give a file with text in it")
        with path.open("rb") as file:
            data = file.read(MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}", "Give a file with text in it") from error
    if len(data) > MOST_BYTES:
        raise UsageError(f"{path} is larger than {MOST_BYTES >> 20} MB", "A part of it will do")
    return Text(path.name, _content(data, str(path)))


def _content(data: bytes, name: str) -> str:
    try:
        return data.decode().removesuffix("\n")
    except UnicodeDecodeError:
        raise UsageError(f"{name} is not UTF-8 text", "Convert it, or give another file") from None
