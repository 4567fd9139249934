"""One safetensors file as untrusted input: a checked header, and where its tensors lie.

The format: a little-endian u64 with the length of a JSON object, that object, and the tensors' bytes. The
object maps each name to dtype, shape and the [begin, end) of its bytes, counted from the end of the object.
The tensors must tile the data exactly. https://github.com/huggingface/safetensors#format
"""

from __future__ import annotations

import math
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from localai.errors import CheckpointError
from quantize import strict_json
from quantize.strict_json import FETCH_AGAIN

MAX_HEADER = 100_000_000
"""Bytes; the limit of the safetensors library."""

FLOATS: dict[str, np.dtype[Any]] = {"BF16": np.dtype("<u2"), "F16": np.dtype("<f2"), "F32": np.dtype("<f4")}
"""The dtypes that are converted, and what a view of each holds; BF16 comes as its bits."""

_ITEM_BYTES = {
    **dict.fromkeys(("BOOL", "U8", "I8", "F8_E4M3", "F8_E5M2", "F8_E8M0"), 1),
    **dict.fromkeys(("U16", "I16", "F16", "BF16"), 2),
    **dict.fromkeys(("U32", "I32", "F32"), 4),
    **dict.fromkeys(("U64", "I64", "F64", "C64"), 8),
}


@dataclass(frozen=True, slots=True)
class StoredTensor:
    """Where a tensor lies: `shape` as in the checkpoint (rows first), `offset` from the start of the file."""

    name: str
    file: Path
    dtype: str
    shape: tuple[int, ...]
    offset: int
    nbytes: int


def read_header(path: Path) -> dict[str, StoredTensor]:
    """The tensors of the file at `path` by name; CheckpointError if anything about it is malformed."""
    try:
        with path.open("rb") as file:
            size = path.stat().st_size
            start = file.read(64)
            strict_json.refuse_lfs_pointer(start, path)
            length = _header_length(start, size, path)
            file.seek(8)
            text = file.read(length)
    except OSError as error:
        raise strict_json.unreadable(path, error) from error
    entries = strict_json.parse_object(text, path, "the header")
    entries.pop("__metadata__", None)
    tensors = {name: _tensor(name, entry, path, 8 + length) for name, entry in entries.items()}
    _check_tiling(tensors, path, 8 + length, size)
    return tensors


def _header_length(start: bytes, size: int, path: Path) -> int:
    if len(start) < 8:
        raise CheckpointError(f"{path} is not a safetensors file: it has only {size} bytes", FETCH_AGAIN)
    (length,) = struct.unpack("<Q", start[:8])
    if length > MAX_HEADER:
        raise CheckpointError(
            f"{path} is not a safetensors file: its header would take {length} bytes", FETCH_AGAIN
        )
    if 8 + length > size:
        raise CheckpointError(
            f"{path} is truncated: its header takes {length} bytes, the file has {size}", FETCH_AGAIN
        )
    return int(length)


def _tensor(name: str, entry: object, path: Path, data: int) -> StoredTensor:
    match entry:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [int(begin), int(end)]}:
            pass
        case _:
            raise CheckpointError(
                f"the header of {path} does not describe the tensor {name!r} properly", FETCH_AGAIN
            )
    if dtype not in _ITEM_BYTES:
        raise CheckpointError(f"the tensor {name!r} in {path} has the unknown type {dtype!r}", _FLOATS_ONLY)
    if not all(type(n) is int and 0 <= n < 2**48 for n in shape) or len(shape) > 8:
        raise CheckpointError(f"the tensor {name!r} in {path} has the impossible shape {shape}", FETCH_AGAIN)
    if type(begin) is not int or type(end) is not int or not 0 <= begin <= end:
        raise CheckpointError(
            f"the tensor {name!r} in {path} has the impossible offsets {[begin, end]}", FETCH_AGAIN
        )
    nbytes = math.prod(shape) * _ITEM_BYTES[dtype]
    if nbytes != end - begin:
        raise CheckpointError(
            f"the tensor {name!r} in {path} has {end - begin} bytes, "
            f"but {dtype} of shape {shape} takes {nbytes}",
            FETCH_AGAIN,
        )
    return StoredTensor(name, path, dtype, tuple(shape), data + begin, nbytes)


def _check_tiling(tensors: dict[str, StoredTensor], path: Path, data: int, size: int) -> None:
    end = data
    for tensor in sorted(tensors.values(), key=lambda t: (t.offset, t.nbytes)):
        if tensor.offset != end:
            how = "overlaps the tensor before it" if tensor.offset < end else "leaves a gap before it"
            raise CheckpointError(f"the tensor {tensor.name!r} in {path} {how}", FETCH_AGAIN)
        end += tensor.nbytes
    if end > size:
        raise CheckpointError(f"{path} is truncated: {end - size} of {end} bytes are missing", FETCH_AGAIN)
    if end < size:
        raise CheckpointError(f"{path} has {size - end} bytes after its last tensor", FETCH_AGAIN)


_FLOATS_ONLY = "Use a checkpoint in BF16, F16 or F32"
