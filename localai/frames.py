"""Length-framed bytes over a pipe: a little-endian u32, then that many bytes.

What is inside a frame is the business of the two processes that talk (`localai.engine.protocol`,
`quantize.protocol`); both validate it with msgspec.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
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


def write_all(stream: BinaryIO, data: bytes) -> None:
    """Write all of `data`: an unbuffered stream may take less at a time."""
    rest = memoryview(data)
    while rest:
        rest = rest[stream.write(rest) :]


class Assembler:
    """Puts frames together from a stream that arrives in pieces."""

    def __init__(self) -> None:
        self._received = bytearray()

    @property
    def partial(self) -> bool:
        """Whether the beginning of a frame has arrived, and its end has not."""
        return bool(self._received)

    def feed(self, data: bytes, take: Callable[[memoryview], object]) -> None:
        """Give the bodies that `data` completes to `take`, which must not keep them: they are not copies.

        FrameTooLong as soon as a head announces such a frame.
        """
        self._received += data
        begin = 0
        with memoryview(self._received) as received:
            while len(received) - begin >= HEAD_BYTES:
                end = begin + HEAD_BYTES + body_length(bytes(received[begin : begin + HEAD_BYTES]))
                if end > len(received):
                    break
                with received[begin + HEAD_BYTES : end] as body:
                    take(body)
                begin = end
        del self._received[:begin]
