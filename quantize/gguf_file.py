"""The header of a GGUF file, as bytes: metadata, then what each tensor is and where it lies.

Metadata values are kept encoded, type first, because those of a GGUF that is quantized again are copied as
they stand. Format: https://github.com/ggml-org/ggml/blob/master/docs/gguf.md
"""

from __future__ import annotations

import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain
from typing import Any

from gguf import GGUF_DEFAULT_ALIGNMENT, GGUFValueType, GGUFWriter

Metadata = dict[str, bytes]
"""Encoded values by key, in order."""

_VERSION = 3
_START = struct.Struct("<4sIQQ")
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
    """A file with `metadata` and the tensors of `entries`, in this order."""

    metadata: Mapping[str, bytes]
    entries: Sequence[Entry]

    @cached_property
    def offsets(self) -> dict[str, int]:
        """Where each tensor begins, from the start of the file."""
        found, at = {}, self._header_bytes
        for entry in self.entries:
            found[entry.name] = at
            at += padded(entry.nbytes)
        return found

    @cached_property
    def nbytes(self) -> int:
        """How long the file is."""
        return self._header_bytes + sum(padded(entry.nbytes) for entry in self.entries)

    @cached_property
    def _header_bytes(self) -> int:
        pairs = sum(8 + len(key.encode()) + len(value) for key, value in self.metadata.items())
        tensors = sum(24 + len(entry.name.encode()) + 8 * len(entry.shape) for entry in self.entries)
        return padded(_START.size + pairs + tensors)

    def header(self) -> bytes:
        """The bytes before the first tensor."""
        parts = [_START.pack(b"GGUF", _VERSION, len(self.entries), len(self.metadata))]
        for key, value in self.metadata.items():
            parts += [_payload(key, GGUFValueType.STRING), value]
        for entry in self.entries:
            ne = tuple(reversed(entry.shape))
            at = self.offsets[entry.name] - self._header_bytes
            parts.append(_payload(entry.name, GGUFValueType.STRING))
            parts.append(struct.pack(f"<I{len(ne)}QIQ", len(ne), *ne, entry.type, at))
        return b"".join(parts).ljust(self._header_bytes, b"\0")


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
        return struct.pack("<IQ", item_kind, len(value)) + _items(value, item_kind)
    return struct.pack(_FORMATS[kind], value)


def _items(values: Sequence[Any], kind: GGUFValueType) -> bytes:
    """Many values of one kind, quickly: a vocabulary has 150,000."""
    if kind in _FORMATS:
        return struct.pack(f"<{len(values)}{_FORMATS[kind][1]}", *values)
    if kind != GGUFValueType.STRING:
        return b"".join(_payload(value, kind) for value in values)
    texts = [value.encode() if isinstance(value, str) else bytes(value) for value in values]
    lengths = map(struct.Struct("<Q").pack, map(len, texts))
    return b"".join(chain.from_iterable(zip(lengths, texts, strict=True)))


def padded(nbytes: int) -> int:
    """`nbytes` rounded up to where the next tensor may begin."""
    return -(-nbytes // GGUF_DEFAULT_ALIGNMENT) * GGUF_DEFAULT_ALIGNMENT
