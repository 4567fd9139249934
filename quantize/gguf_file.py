"""The header of a GGUF file, as bytes: metadata, then what each tensor is and where it lies.

Metadata values are kept encoded, type first, because those of a GGUF that is quantized again are copied as
they stand. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from gguf import GGUF_DEFAULT_ALIGNMENT, GGUFValueType, GGUFWriter

Metadata = dict[str, bytes]
"""Encoded values by key, in order."""

_VERSION = 3
_FORMATS = {
    GGUFValueType.UINT8: "<B",
    GGUFValueType.INT8: "<b",
    GGUFValueType.UINT16: "<H",
    GGUFValueType.INT16: "<h",
    GGUFValueType.UINT32: "<I",
    GGUFValueType.INT32: "<i",
    GGUFValueType.FLOAT32: "<f",
    GGUFValueType.BOOL: "<?",
    GGUFValueType.UINT64: "<Q",
    GGUFValueType.INT64: "<q",
    GGUFValueType.FLOAT64: "<d",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """A tensor of the file to come: `shape` has rows first, `type` is ggml's number, `nbytes` its data."""

    name: str
    shape: tuple[int, ...]
    type: int
    nbytes: int


@dataclass(frozen=True)
class Layout:
    """Where everything lies in a file: its header, the offset of each tensor, and how long it is."""

    header: bytes
    offsets: dict[str, int]
    nbytes: int


def collected(writer: GGUFWriter) -> Metadata:
    """What was added to `writer`, in the order in which it was added."""
    return {key: encoded(item.value, item.type, item.sub_type) for key, item in writer.kv_data[0].items()}


def u32(number: int) -> bytes:
    """`number` as a value."""
    return encoded(number, GGUFValueType.UINT32)


def text(value: bytes) -> bytes:
    """The string `value`, which llama.cpp's tools may have cut in the middle of a character, as a value."""
    return struct.pack("<IQ", GGUFValueType.STRING, len(value)) + value


def encoded(value: Any, kind: GGUFValueType, item_kind: GGUFValueType | None = None) -> bytes:
    """`value` with its type before it."""
    return struct.pack("<I", kind) + _payload(value, kind, item_kind)


def _payload(value: Any, kind: GGUFValueType, item_kind: GGUFValueType | None = None) -> bytes:
    if kind == GGUFValueType.STRING:
        data = value.encode() if isinstance(value, str) else bytes(value)
        return struct.pack("<Q", len(data)) + data
    if kind == GGUFValueType.ARRAY:
        item_kind = item_kind or GGUFValueType.get_type(value[0])
        items = b"".join(_payload(item, item_kind) for item in value)
        return struct.pack("<IQ", item_kind, len(value)) + items
    return struct.pack(_FORMATS[kind], value)


def layout(metadata: Mapping[str, bytes], entries: Sequence[Entry]) -> Layout:
    """A file with `metadata` and the tensors of `entries` in this order."""
    parts = [b"GGUF", struct.pack("<IQQ", _VERSION, len(entries), len(metadata))]
    for key, value in metadata.items():
        parts.append(_payload(key, GGUFValueType.STRING) + value)
    relative, end = {}, 0
    for entry in entries:
        ne = tuple(reversed(entry.shape))
        parts.append(
            _payload(entry.name, GGUFValueType.STRING)
            + struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, entry.type, end)
        )
        relative[entry.name] = end
        end += padded(entry.nbytes)
    header = b"".join(parts)
    header += bytes(padded(len(header)) - len(header))
    offsets = {name: len(header) + offset for name, offset in relative.items()}
    return Layout(header, offsets, len(header) + end)


def padded(nbytes: int) -> int:
    """`nbytes` rounded up to where the next tensor may begin."""
    return -(-nbytes // GGUF_DEFAULT_ALIGNMENT) * GGUF_DEFAULT_ALIGNMENT
