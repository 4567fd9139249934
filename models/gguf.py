"""A bounded reader of GGUF headers, for files that nobody vouches for.

Reads versions 2 and 3, little-endian, and never the tensor data. What it refuses is what llama.cpp would
refuse or, worse, abort on; it does so at once, whatever counts the file declares. The `gguf` package is not
used: its reader hangs on a file of 64 bytes that declares 2^30 array elements.

Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import os
import stat
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from localai.errors import ModelFileError, ModelNotFound
from models import vocabulary
from models.bounded import Cursor
from models.ggml_types import TENSOR_TYPES
from models.header import ArrayInfo, Header, Scalar, TensorInfo, TokenFacts, Value, printable
from models.lookalikes import not_a_gguf
from models.supported import check_supported

__all__ = ["ArrayInfo", "Header", "TensorInfo", "check_supported", "read_header"]

_SCALARS: Final = {
    0: ("uint8", struct.Struct("<B")),
    1: ("int8", struct.Struct("<b")),
    2: ("uint16", struct.Struct("<H")),
    3: ("int16", struct.Struct("<h")),
    4: ("uint32", struct.Struct("<I")),
    5: ("int32", struct.Struct("<i")),
    6: ("float32", struct.Struct("<f")),
    7: ("bool", struct.Struct("<?")),
    10: ("uint64", struct.Struct("<Q")),
    11: ("int64", struct.Struct("<q")),
    12: ("float64", struct.Struct("<d")),
}
_STRING: Final = 8
_ARRAY: Final = 9

_MAX_PAIRS = 16_384
"""Models have about 30 metadata entries."""
_MAX_TENSORS = 16_384
"""The largest models have some thousands."""
_MAX_KEY = 65_535
_MAX_STRING = 1024 * 1024
"""Longer texts are passed over. A chat template has up to 20,000 bytes; some files hold a tokenizer.json."""
_MAX_TEXTS = 8 * 1024 * 1024
"""Bytes of all texts together that are decoded."""
_MAX_VALUES = 1 << 17
"""Items of all arrays together that are decoded."""
_MAX_NAME = 63
_MIN_ALIGNMENT = 32
"""What ggml computes with must lie so, and the data lies in memory as in the file."""
_MAX_ALIGNMENT = 1 << 20
_MAX_ELEMENTS = (1 << 63) - 1
_DECODED = 512
"""Longer arrays are passed over. Some have a number for each layer."""
_SHOWN_STRINGS = 64
_LEAST_PAIR = 13
_LEAST_TENSOR = 32


def read_header(path: Path) -> Header:
    """The header of the GGUF file at `path`.

    Raises ModelNotFound when there is no such file, ModelFileError when it is not a GGUF file, malformed,
    truncated or unreadable. Takes less than 1 s and 200 MB for whatever a file holds, and 0.1 s for a
    vocabulary of 150,000 tokens.
    """
    with _opened(path) as cursor:
        version = _version(cursor)
        tensor_count = cursor.u64("the number of tensors")
        pair_count = cursor.u64("the number of metadata entries")
        if pair_count > _MAX_PAIRS or tensor_count > _MAX_TENSORS:
            raise cursor.malformed(
                f"{pair_count:,} metadata entries and {tensor_count:,} tensors are too many"
            )
        cursor.expect(pair_count * _LEAST_PAIR + tensor_count * _LEAST_TENSOR, "the header")
        metadata, facts = _Metadata(cursor).read(pair_count)
        alignment = _alignment(cursor, metadata)
        tensors = _tensors(cursor, tensor_count, alignment)
        data_offset = _padded(cursor.position, alignment) if tensors else cursor.position
        _check_size(cursor, data_offset, tensors)
        return Header(
            version=version,
            metadata=metadata,
            tensors=tensors,
            alignment=alignment,
            data_offset=data_offset,
            file_size=cursor.size,
            token_facts=facts,
        )


@contextmanager
def _opened(path: Path) -> Iterator[Cursor]:
    """A cursor over the regular file at `path`; errors of the system become ours."""
    try:
        # Before opening: to open a named pipe would wait for a writer.
        if "\0" in str(path) or not stat.S_ISREG(path.stat().st_mode):
            raise ModelFileError(f"{printable(str(path))} is not a file", "Give the path of a .gguf file.")
        with path.open("rb", buffering=0) as file:
            yield Cursor(file, os.fstat(file.fileno()).st_size, path)
    except (FileNotFoundError, NotADirectoryError):
        raise ModelNotFound(f"There is no file {path}", "Check the path.") from None
    except OSError as error:
        what = f"{path} cannot be read: {error.strerror or error}"
        raise ModelFileError(what, "Check the path and its rights.") from error


def _version(cursor: Cursor) -> int:
    start = cursor.peek(16)
    if start[:4] != b"GGUF":
        raise not_a_gguf(cursor.path, start)
    cursor.skip(4, "the start")
    version = cursor.u32("the version")
    if version in (2, 3):
        return version
    if version & 0xFFFF == 0:
        raise ModelFileError(
            f"{cursor.path} is a big-endian GGUF file", "Only little-endian files run here: fetch one."
        )
    raise ModelFileError(
        f"{cursor.path} has GGUF version {version}; this program reads 2 and 3",
        "Fetch or make a current file.",
    )


class _Metadata:
    """Reads the entries, and decodes as much of them as memory should hold."""

    def __init__(self, cursor: Cursor) -> None:
        self._cursor = cursor
        self._texts, self._values = _MAX_TEXTS, _MAX_VALUES
        self._facts = TokenFacts()

    def read(self, count: int) -> tuple[dict[str, Value], TokenFacts]:
        """All entries, and what the vocabulary among them is."""
        metadata: dict[str, Value] = {}
        for _ in range(count):
            key = _text(self._cursor, "the name of a metadata entry", _MAX_KEY)
            if not key or key in metadata:
                raise self._cursor.malformed(f"the metadata entry {printable(key)!r} is empty or there twice")
            metadata[key] = self._value(key)
        return metadata, self._facts

    def _value(self, key: str) -> Value:
        kind = self._cursor.u32(key)
        if kind == _ARRAY:
            return self._array(key)
        if kind == _STRING:
            return self._string(key)
        return _scalars(self._cursor, kind, 1, key)[0]

    def _string(self, key: str) -> str | ArrayInfo:
        """A text; what is too long for one is an array of bytes that was passed over."""
        length = self._cursor.u64(key)
        if length > min(_MAX_STRING, self._texts):
            self._cursor.skip(length, key)
            return ArrayInfo("byte", length)
        self._texts -= length
        return self._cursor.take(length, key).decode("utf-8", "replace")

    def _array(self, key: str) -> Value:
        """Long arrays are passed over. Arrays of arrays are not part of the format."""
        cursor = self._cursor
        kind, count = cursor.u32(key), cursor.u64(key)
        if kind == _STRING:
            return self._strings(key, count)
        name, layout = _scalar(cursor, kind, key)
        if count <= min(_DECODED, self._values):
            self._values -= count
            return _scalars(cursor, kind, count, key)
        cursor.skip(layout.size * count, key)
        return ArrayInfo(name, count)

    def _strings(self, key: str, count: int) -> Value:
        if key == vocabulary.KEY:
            self._facts = vocabulary.read(self._cursor, count)
        elif count > min(_SHOWN_STRINGS, self._values):
            self._cursor.skip_strings(count, key)
        else:
            self._cursor.expect(8 * count, key)
            self._values -= count
            found = [self._string(key) for _ in range(count)]
            return tuple(text if isinstance(text, str) else "" for text in found)
        return ArrayInfo("string", count)


def _scalars(cursor: Cursor, kind: int, count: int, key: str) -> tuple[Scalar, ...]:
    _, layout = _scalar(cursor, kind, key)
    data = cursor.take(layout.size * count, key)
    return tuple(item for (item,) in layout.iter_unpack(data))


def _scalar(cursor: Cursor, kind: int, key: str) -> tuple[str, struct.Struct]:
    if kind not in _SCALARS:
        raise cursor.malformed(f"the metadata entry {printable(key)!r} has the unknown type {kind}")
    return _SCALARS[kind]


def _text(cursor: Cursor, what: str, limit: int) -> str:
    """A string that must be UTF-8, because other things refer to it."""
    try:
        return cursor.string(what, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise cursor.malformed(f"{what} is not UTF-8") from None


def _alignment(cursor: Cursor, metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    known = (
        isinstance(value, int) and not isinstance(value, bool) and _MIN_ALIGNMENT <= value <= _MAX_ALIGNMENT
    )
    if not known or not isinstance(value, int) or value & (value - 1):
        raise cursor.malformed("its alignment is not a power of two from 32 to 1 MiB")
    return value


def _tensors(cursor: Cursor, count: int, alignment: int) -> list[TensorInfo]:
    """Tensors must lie one after the other without gaps, as llama.cpp wants it: so none can overlap."""
    tensors: list[TensorInfo] = []
    seen: set[str] = set()
    end = 0
    for _ in range(count):
        tensor = _tensor(cursor)
        if tensor.name in seen:
            raise cursor.malformed(f"the tensor {tensor.name!r} is there twice")
        if tensor.offset != end:
            raise cursor.malformed(f"the tensor {tensor.name!r} starts at {tensor.offset} and not at {end}")
        seen.add(tensor.name)
        tensors.append(tensor)
        end = _padded(tensor.offset + tensor.size, alignment)
    return tensors


def _tensor(cursor: Cursor) -> TensorInfo:
    name = _text(cursor, "the name of a tensor", _MAX_NAME)
    dimensions = cursor.u32(name)
    if not name or not 1 <= dimensions <= 4:
        raise cursor.malformed(f"the tensor {printable(name)!r} has {dimensions} dimensions, not 1 to 4")
    shape = tuple(cursor.u64(name) for _ in range(dimensions))
    kind, offset = cursor.u32(name), cursor.u64(name)
    if kind not in TENSOR_TYPES:
        raise cursor.malformed(f"the tensor {printable(name)!r} has the unknown type {kind}")
    block = TENSOR_TYPES[kind]
    elements = 1
    for length in shape:
        elements *= length
    # Python's integers do not wrap: the product is exact, and only its size must be bounded.
    if not 1 <= elements <= _MAX_ELEMENTS or shape[0] % block.elements:
        raise cursor.malformed(
            f"the tensor {printable(name)!r} of type {block.name} has the impossible shape {shape}"
        )
    return TensorInfo(name, shape, kind, block.name, offset, elements // block.elements * block.size)


def _check_size(cursor: Cursor, data_offset: int, tensors: list[TensorInfo]) -> None:
    if not tensors:
        return
    end = data_offset + tensors[-1].offset + tensors[-1].size
    if end > cursor.size:
        raise ModelFileError(
            f"{cursor.path} is truncated: {end - cursor.size} bytes of {end} are missing",
            "Fetch or make the file again.",
        )


def _padded(size: int, alignment: int) -> int:
    return (size + alignment - 1) & ~(alignment - 1)
