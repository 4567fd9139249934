"""Digests as they were when a file was first fetched, so that a later one cannot be another unnoticed.

A catalogue writes down only digests that somebody has seen. For all other files the hub's own digest is
written down here at the first fetch, and compared ever after, also when the model was removed in between.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from localai.errors import IntegrityError
from models import files, locks
from models.origins import Count, Sha256

FILE: Final = "pins.json"
_MAX_BYTES: Final = 4 << 20


class Pin(msgspec.Struct, frozen=True):
    """What a file was when it was first fetched."""

    sha256: Sha256
    size: Count
    revision: str = ""
    """The commit that it came from."""
    seen: str = ""
    """When, in UTC, as ISO 8601."""


class Pins:
    """The pins of the store at `root`; the file is made when the first is written."""

    def __init__(self, root: Path) -> None:
        self._path = root / FILE
        self._lock = root / "lock"

    def all(self) -> dict[str, Pin]:
        """By key. IntegrityError if the file is damaged: then nothing may pass for a first fetch."""
        try:
            if self._path.lstat().st_size > _MAX_BYTES:
                raise ValueError("it is too large")
            return msgspec.json.decode(self._path.read_bytes(), type=dict[str, Pin])
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError) as error:
            raise IntegrityError(
                f"The digests of earlier fetches, {self._path}, cannot be read: {error}",
                "Mend the file, or delete it if you want all files to count as fetched for the first time.",
            ) from error

    def get(self, key: str) -> Pin | None:
        """What the file called `key` was when it was first fetched, if it was."""
        return self.all().get(key)

    def put(self, pins: dict[str, Pin], *, replace: bool = False) -> None:
        """Write down first fetches; what is there stays as it is unless it is to be replaced."""
        with locks.held(self._lock):
            known = self.all()
            new = {**known, **pins} if replace else {**pins, **known}
            if new != known:
                data = msgspec.json.format(msgspec.json.encode(new), indent=2)
                files.write_atomic(self._path, data, self._path.parent)


def key_of(place: str, path: str) -> str:
    """The key of the file `path` at `place`, such as "hub:owner/name" or "hub:owner/name@<commit>"."""
    return f"{place}/{path}"
