"""Frames that arrive in pieces, and streams that take only a part of what is written."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai import frames


@given(st.lists(st.binary(max_size=50), max_size=5), st.data())
def test_frames_come_out_however_they_are_cut(bodies: list[bytes], data: st.DataObject) -> None:
    stream = b"".join(frames.pack(body) for body in bodies)
    assembler = frames.Assembler()
    taken: list[bytes] = []
    while stream:
        cut = data.draw(st.integers(1, len(stream)))
        assembler.feed(stream[:cut], lambda body: taken.append(bytes(body)))
        stream = stream[cut:]
    assert taken == bodies
    assert not assembler.partial


def test_the_beginning_of_a_frame_is_kept() -> None:
    assembler = frames.Assembler()
    assembler.feed(frames.pack(b"abc")[:5], lambda body: pytest.fail("not complete"))
    assert assembler.partial


def test_too_long_a_frame_is_refused_at_its_head() -> None:
    with pytest.raises(frames.FrameTooLong):
        frames.Assembler().feed(b"\xff\xff\xff\xff", lambda body: None)


class Reluctant(io.RawIOBase):
    """Takes at most three bytes at a time."""

    def __init__(self) -> None:
        self.written = b""

    def writable(self) -> bool:
        return True

    def write(self, data: object) -> int:
        taken = bytes(data)[:3]  # type: ignore[call-overload]
        self.written += taken
        return len(taken)


@given(st.binary(max_size=20))
def test_all_is_written(data: bytes) -> None:
    stream = Reluctant()
    frames.write_all(stream, data)  # type: ignore[arg-type]
    assert stream.written == data
