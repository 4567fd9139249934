"""Which bytes of a partial file can be trusted, also after the process or the machine died.

A journal is a text file of lines that each carry their own checksum; reading stops at the first that is not
whole. What was written is noted when the system has it: that survives the death of the process. What was
flushed to the disk is noted again, and the note flushed, too: that alone is trusted after the machine was
started anew.
"""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final, TypeAlias

import msgspec
import psutil

from models.fetch.intervals import Intervals
from models.files import sync_folder

PLAIN: Final = (
    getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
    | getattr(os, "O_NONBLOCK", 0)
)
"""How files are opened: no links are followed, no pipe is waited for, and no system changes the bytes."""
_VERSION: Final = 1
_LONGEST_LINE: Final = 1024 * 1024


class Identity(msgspec.Struct, frozen=True, kw_only=True, tag_field="is", tag="file"):
    """Which file it is, wherever it comes from."""

    version: int = _VERSION
    size: int = 0
    sha256: str = ""
    git_sha1: str = ""
    etag: str = ""

    def fits(self, other: Identity) -> bool:
        """Whether what came for `self` may be used for `other`."""
        if self.version != other.version or (self.size and other.size and self.size != other.size):
            return False
        if self.sha256 or self.git_sha1:
            return (self.sha256, self.git_sha1) == (other.sha256, other.git_sha1)
        return not (other.sha256 or other.git_sha1) and self.etag == other.etag


class _Boot(msgspec.Struct, frozen=True, tag_field="is", tag="boot"):
    id: str


class _Size(msgspec.Struct, frozen=True, tag_field="is", tag="size"):
    bytes: int


class _Name(msgspec.Struct, frozen=True, tag_field="is", tag="name"):
    server: str
    name: str


class _Written(msgspec.Struct, frozen=True, tag_field="is", tag="written"):
    start: int
    end: int


class _Durable(msgspec.Struct, frozen=True, tag_field="is", tag="durable"):
    pieces: list[tuple[int, int]]


_Record: TypeAlias = Identity | _Boot | _Size | _Name | _Written | _Durable
_encoder = msgspec.json.Encoder()
_decoder = msgspec.json.Decoder(_Record)


class Known(msgspec.Struct, kw_only=True):
    """What a journal says."""

    identity: Identity | None = None
    size: int = 0
    """Bytes of the file, as its server told; 0: not known."""
    names: dict[str, str] = {}
    """What each server called it."""
    trusted: Intervals = msgspec.field(default_factory=Intervals)
    durable: Intervals = msgspec.field(default_factory=Intervals)

    def fits(self, identity: Identity) -> bool:
        """Whether it is about the file `identity`."""
        if self.identity is None or not self.identity.fits(identity):
            return False
        return not (self.size and identity.size) or self.size == identity.size

    def trust_no_more_than(self, size: int) -> None:
        """The file may have been made shorter, or be gone: it has that many bytes."""
        self.trusted, self.durable = self.trusted.within(size), self.durable.within(size)


def boot_id() -> str:
    """What tells this start of the machine from every other."""
    with suppress(OSError):
        return Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
    return repr(psutil.boot_time())


def read(path: Path, boot: str) -> Known:
    """What the journal at `path` says to be trusted while `boot` lasts; nothing if there is none."""
    known, current, written = Known(), "", Intervals()
    for record in _records(path):
        match record:
            case Identity() if known.identity is None:
                known.identity, known.size = record, record.size
            case _Boot():
                current, written = record.id, Intervals(known.durable)
            case _Size():
                known.size = record.bytes
            case _Name():
                known.names[record.server] = record.name
            case _Written() if 0 <= record.start < record.end:
                written.add(record.start, record.end)
            case _Durable() if all(0 <= start < end for start, end in record.pieces):
                known.durable = Intervals(record.pieces)
            case _:
                break
    known.trusted = Intervals([*known.durable, *(written if current == boot else ())])
    return known


def _records(path: Path) -> Iterator[_Record]:
    """The records up to the first that is not whole."""
    try:
        descriptor = os.open(path, os.O_RDONLY | PLAIN)
    except OSError:
        return
    with os.fdopen(descriptor, "rb") as file, suppress(OSError):
        while record := _parse(file.readline(_LONGEST_LINE)):
            yield record


def _parse(line: bytes) -> _Record | None:
    check, _, body = line.removesuffix(b"\n").partition(b" ")
    if not line.endswith(b"\n") or check != b"%08x" % zlib.crc32(body):
        return None
    try:
        return _decoder.decode(body)
    except msgspec.DecodeError:
        return None


def _line(record: _Record) -> bytes:
    body = _encoder.encode(record)
    return b"%08x %b\n" % (zlib.crc32(body), body)


class Journal:
    """The journal of a transfer that runs: safe for several threads. OSError where the disk fails."""

    def __init__(self, path: Path, identity: Identity, known: Known, boot: str) -> None:
        """Begin anew at `path` with what is `known` already, and take the old journal's place at once."""
        self._lock = threading.Lock()
        records: list[_Record] = [identity, _Boot(boot)]
        records += [_Size(known.size)] if known.size != identity.size else []
        records += [_Name(server, name) for server, name in known.names.items()]
        records += [_Durable(list(known.durable))] if known.durable else []
        records += [_Written(start, end) for start, end in known.trusted]
        staged = path.with_name(f"{path.name}.new")
        staged.unlink(missing_ok=True)
        with os.fdopen(os.open(staged, os.O_WRONLY | os.O_CREAT | os.O_EXCL | PLAIN, 0o600), "wb") as file:
            file.write(b"".join(map(_line, records)))
            file.flush()
            os.fsync(file.fileno())
        staged.replace(path)
        sync_folder(path.parent)
        self._descriptor = os.open(path, os.O_WRONLY | os.O_APPEND | PLAIN)

    def written(self, start: int, end: int) -> None:
        """The system has these bytes."""
        self._write(_Written(start, end))

    def durable(self, pieces: Intervals) -> None:
        """The disk has these bytes, and no others for certain: to be called after the file was flushed."""
        self._write(_Durable(list(pieces)))
        with self._lock:
            descriptor = -1 if self._descriptor < 0 else os.dup(self._descriptor)
        if descriptor >= 0:
            try:
                flush(descriptor)
            finally:
                os.close(descriptor)

    def size(self, size: int) -> None:
        """The server told the size."""
        self._write(_Size(size))

    def name(self, server: str, name: str) -> None:
        """What that server calls the file."""
        self._write(_Name(server, name))

    def close(self) -> None:
        """Write no more."""
        with self._lock:
            if self._descriptor >= 0:
                os.close(self._descriptor)
            self._descriptor = -1

    def _write(self, record: _Record) -> None:
        data = _line(record)
        with self._lock:
            while data and self._descriptor >= 0:
                data = data[os.write(self._descriptor, data) :]


def flush(descriptor: int) -> None:
    """Flush a file's bytes, and what is needed to find them, to the disk."""
    fdatasync = getattr(os, "fdatasync", os.fsync)  # macOS has none.
    fdatasync(descriptor)
