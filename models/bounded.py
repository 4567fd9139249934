"""A cursor over the header of an untrusted file.

Every count and length is compared with the bytes that are left *before* anything is allocated or looped
over. Reading is by windows and never by memory map: a file that shrinks while it is read is then an error,
not a SIGBUS.
"""

from __future__ import annotations

import struct
from pathlib import Path
from typing import BinaryIO, Final

from localai.errors import ModelFileError
from models.header import printable

MAX_HEADER: Final = 128 * 1024 * 1024
"""Longest header in bytes that is read at all; a vocabulary of 150,000 tokens takes 6 MB."""

MAX_STRINGS: Final = 1 << 20
"""Strings in all arrays of a header. A vocabulary of 262,144 tokens with all its merges has 777,000."""

_WINDOW: Final = 256 * 1024
_U64 = struct.Struct("<Q")


class Cursor:
    """Reads forward through the first `MAX_HEADER` bytes of `file`, which is `size` bytes long.

    `what` names what is read, for errors: also a text of the file itself.
    """

    def __init__(self, file: BinaryIO, size: int, path: Path) -> None:
        self.size = size
        self.path = path
        self._file = file
        self._window = b""
        self._base = 0
        self._at = 0
        self._strings = 0

    @property
    def position(self) -> int:
        """Bytes from the start of the file."""
        return self._base + self._at

    @property
    def remaining(self) -> int:
        """Bytes from here to the end of the file."""
        return self.size - self.position

    def malformed(self, what: str) -> ModelFileError:
        """The error for this file; `what` says what is wrong with it."""
        return ModelFileError(
            f"{self.path} is not a valid GGUF file: {what}", "Fetch or make the file again."
        )

    def expect(self, count: int, what: str) -> None:
        """Refuse the file unless `count` more bytes can be there; `what` names what takes them."""
        if count > self.remaining:
            raise self.malformed(f"{printable(what)} takes {count} bytes, but only {self.remaining} are left")
        if self.position + count > MAX_HEADER:
            raise self.malformed(f"{printable(what)} ends beyond the first {MAX_HEADER >> 20} MiB")

    def peek(self, count: int) -> bytes:
        """The next `count` bytes, or as many as there are, without going past them."""
        count = min(count, self.remaining)
        self._load(count, "the start")
        return self._window[self._at : self._at + count]

    def take(self, count: int, what: str) -> bytes:
        """The next `count` bytes."""
        self._load(count, what)
        start = self._at
        self._at += count
        return self._window[start : self._at]

    def unpack(self, layout: struct.Struct, what: str) -> tuple[int | float | bool, ...]:
        """The next values, laid out as `layout` says."""
        return layout.unpack(self.take(layout.size, what))

    def u64(self, what: str) -> int:
        """An unsigned number of 8 bytes."""
        return int.from_bytes(self.take(8, what), "little")

    def u32(self, what: str) -> int:
        """An unsigned number of 4 bytes."""
        return int.from_bytes(self.take(4, what), "little")

    def string(self, what: str, limit: int) -> bytes:
        """A string with its length before it; refused when longer than `limit` bytes."""
        length = self.u64(what)
        self.expect(length, what)
        if length > limit:
            raise self.malformed(f"{printable(what)} is {length} bytes long; the limit is {limit}")
        return self.take(length, what)

    def skip(self, count: int, what: str) -> None:
        """Go `count` bytes forward without reading them."""
        self.expect(count, what)
        self._at += count

    def skip_strings(self, count: int, what: str) -> None:
        """Go past `count` strings. The inner loop is all that makes a large vocabulary quick to pass."""
        self._count_strings(count, what)
        unpack_from = _U64.unpack_from
        while count:
            self._load(8, what)
            window, at, last = self._window, self._at, len(self._window) - 8
            while count and at <= last:
                at += 8 + unpack_from(window, at)[0]
                count -= 1
            self.skip(at - self._at, what)

    def strings(self, count: int, most: int, what: str) -> list[bytes]:
        """The next `count` strings, of up to `most` bytes together."""
        self._count_strings(count, what)
        self.expect(8 * count, what)
        unpack_from, start = _U64.unpack_from, self.position
        found: list[bytes] = []
        while len(found) < count:
            found.append(self.string(what, most))
            window, at, last = self._window, self._at, len(self._window) - 8
            while len(found) < count and at <= last:
                end = at + 8 + unpack_from(window, at)[0]
                if end > last + 8:
                    break
                found.append(window[at + 8 : end])
                at = end
            self._at = at
            if self.position - start > 8 * count + most:
                raise self.malformed(f"{printable(what)} has more than {most:,} bytes of text")
        return found

    def _count_strings(self, count: int, what: str) -> None:
        self.expect(8 * count, what)
        self._strings += count
        if self._strings > MAX_STRINGS:
            raise self.malformed(
                f"{printable(what)} has too many strings: over {MAX_STRINGS:,} with those before"
            )

    def _load(self, count: int, what: str) -> None:
        """Have at least `count` bytes in the window from the current position on."""
        if self._at + count <= len(self._window):
            return
        self.expect(count, what)
        self._base, self._at = self.position, 0
        self._file.seek(self._base)
        self._window = self._file.read(min(max(count, _WINDOW), self.remaining))
        if len(self._window) < count:
            raise self.malformed("it became shorter while it was read")
