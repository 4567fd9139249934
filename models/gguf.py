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
from models.bounded import Cursor
from models.ggml_types import TENSOR_TYPES
from models.header import ArrayInfo, Header, Scalar, TensorInfo, Value, printable
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

_MAX_KEY = 65_535
_MAX_STRING = 16 * 1024 * 1024
_MAX_NAME = 63
_MAX_ALIGNMENT = 1 << 20
_MAX_ELEMENTS = (1 << 63) - 1
_DECODED = 64
_LEAST_PAIR = 13
_LEAST_TENSOR = 32


def read_header(path: Path) -> Header:
    """The header of the GGUF file at `path`.

    Raises ModelNotFound when there is no such file, ModelFileError when it is not a GGUF file, malformed,
    truncated or unreadable. Reads at most 128 MiB, and 0.1 s worth for a vocabulary of 150,000 tokens.
    """
    with _opened(path) as cursor:
        version = _version(cursor)
        tensor_count = cursor.u64("the number of tensors")
        pair_count = cursor.u64("the number of metadata entries")
        cursor.expect(pair_count * _LEAST_PAIR + tensor_count * _LEAST_TENSOR, "the header")
        metadata = _metadata(cursor, pair_count)
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


def _metadata(cursor: Cursor, count: int) -> dict[str, Value]:
    metadata: dict[str, Value] = {}
    for _ in range(count):
        key = _text(cursor, "the name of a metadata entry", _MAX_KEY)
        if not key or key in metadata:
            raise cursor.malformed(f"the metadata entry {printable(key)!r} is empty or there twice")
        metadata[key] = _value(cursor, printable(key))
    return metadata


def _value(cursor: Cursor, key: str) -> Value:
    kind = cursor.u32(key)
    if kind == _ARRAY:
        return _array(cursor, key)
    if kind == _STRING:
        return cursor.string(key, _MAX_STRING).decode("utf-8", "replace")
    return _scalars(cursor, kind, 1, key)[0]


def _array(cursor: Cursor, key: str) -> Value:
    """Arrays of more than `_DECODED` items are passed over. Arrays of arrays are not part of the format."""
    kind, count = cursor.u32(key), cursor.u64(key)
    if kind == _STRING:
        if count > _DECODED:
            cursor.skip_strings(count, key)
            return ArrayInfo("string", count)
        cursor.expect(8 * count, key)
        return tuple(cursor.string(key, _MAX_STRING).decode("utf-8", "replace") for _ in range(count))
    if count <= _DECODED:
        return _scalars(cursor, kind, count, key)
    name, layout = _scalar(cursor, kind, key)
    cursor.skip(layout.size * count, key)
    return ArrayInfo(name, count)


def _scalars(cursor: Cursor, kind: int, count: int, key: str) -> tuple[Scalar, ...]:
    _, layout = _scalar(cursor, kind, key)
    data = cursor.take(layout.size * count, key)
    return tuple(item for (item,) in layout.iter_unpack(data))


def _scalar(cursor: Cursor, kind: int, key: str) -> tuple[str, struct.Struct]:
    if kind not in _SCALARS:
        raise cursor.malformed(f"the metadata entry {key!r} has the unknown type {kind}")
    return _SCALARS[kind]


def _text(cursor: Cursor, what: str, limit: int) -> str:
    """A string that must be UTF-8, because other things refer to it."""
    try:
        return cursor.string(what, limit).decode("utf-8")
    except UnicodeDecodeError:
        raise cursor.malformed(f"{what} is not UTF-8") from None


def _alignment(cursor: Cursor, metadata: dict[str, Value]) -> int:
    value = metadata.get("general.alignment", 32)
    known = isinstance(value, int) and not isinstance(value, bool) and 0 < value <= _MAX_ALIGNMENT
    if not known or not isinstance(value, int) or value & (value - 1):
        raise cursor.malformed("its alignment is not a power of two up to 1 MiB")
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
    shown = printable(name)
    dimensions = cursor.u32(shown)
    if not name or not 1 <= dimensions <= 4:
        raise cursor.malformed(f"the tensor {shown!r} has {dimensions} dimensions; 1 to 4 are possible")
    shape = tuple(cursor.u64(shown) for _ in range(dimensions))
    kind, offset = cursor.u32(shown), cursor.u64(shown)
    if kind not in TENSOR_TYPES:
        raise cursor.malformed(f"the tensor {shown!r} has the unknown type {kind}")
    block = TENSOR_TYPES[kind]
    elements = 1
    for length in shape:
        elements *= length
    # Python's integers do not wrap: the product is exact, and only its size must be bounded.
    if not 1 <= elements <= _MAX_ELEMENTS or shape[0] % block.elements:
        raise cursor.malformed(f"the tensor {shown!r} of type {block.name} has the impossible shape {shape}")
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
