"""Length-framed bytes over a pipe: a little-endian u32, then that many bytes.

What is inside a frame is the business of the two processes that talk (`localai.engine.protocol`,
`quantize.protocol`); both validate it with msgspec.
"""

from __future__ import annotations

import struct
from typing import BinaryIO

MAX_FRAME = 64 * 1024 * 1024
"""Longest body in bytes that either side sends or accepts."""

_LENGTH = struct.Struct("<I")
HEAD_BYTES = _LENGTH.size


class FrameTooLong(ValueError):
    """A frame is, or says that it is, longer than `MAX_FRAME`."""


def pack(body: bytes) -> bytes:
    """`body` with its length before it; FrameTooLong if it is over the limit."""
    if len(body) > MAX_FRAME:
        raise FrameTooLong(f"a frame of {len(body)} bytes is over the limit of {MAX_FRAME}")
    return _LENGTH.pack(len(body)) + body


def body_length(head: bytes) -> int:
    """The number of body bytes that the 4-byte `head` announces; FrameTooLong if over the limit."""
    (length,) = _LENGTH.unpack(head)
    if length > MAX_FRAME:
        raise FrameTooLong(f"a frame of {length} bytes is over the limit of {MAX_FRAME}")
    return int(length)


def read(stream: BinaryIO) -> bytes | None:
    """The next body, or None when the stream ends, also in the middle of a frame."""
    head = stream.read(HEAD_BYTES)
    if len(head) < HEAD_BYTES:
        return None
    length = body_length(head)
    body = stream.read(length)
    return body if len(body) == length else None
