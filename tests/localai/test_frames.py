"""Frames: round trips, and what happens to bytes that are none."""

from __future__ import annotations

import contextlib
import io

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai import frames
from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.settings import Limits, Sampling


@given(st.lists(st.binary(max_size=200), max_size=5))
def test_round_trip(bodies: list[bytes]) -> None:
    stream = io.BytesIO(b"".join(frames.pack(body) for body in bodies))
    assert [frames.read(stream) for _ in bodies] == bodies
    assert frames.read(stream) is None


def test_golden_bytes() -> None:
    assert frames.pack(b"abc") == b"\x03\x00\x00\x00abc"


@given(st.binary(min_size=1, max_size=50), st.data())
def test_a_stream_that_ends_inside_a_frame_is_an_end(body: bytes, data: st.DataObject) -> None:
    packed = frames.pack(body)
    cut = data.draw(st.integers(0, len(packed) - 1))
    assert frames.read(io.BytesIO(packed[:cut])) is None


def test_too_long_a_frame_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ValueError, match="over the limit"):
        frames.read(io.BytesIO(b"\xff\xff\xff\xff"))
    with pytest.raises(ValueError, match="over the limit"):
        frames.pack(bytes(frames.MAX_FRAME + 1))


def test_requests_and_events_round_trip() -> None:
    request = protocol.Generate(
        7, [ChatMessage("user", "Grüße 🙂")], Sampling(temperature=0.6, seed=1), Limits(max_tokens=100)
    )
    assert protocol.decode_request(protocol.encode(request)[frames.HEAD_BYTES :]) == request
    event = protocol.Failed("NoSpace", "full", "Make room", 7)
    assert protocol.decode_event(protocol.encode(event)[frames.HEAD_BYTES :]) == event


@given(st.binary(max_size=100))
def test_any_bytes_are_a_message_or_refused(body: bytes) -> None:
    with contextlib.suppress(msgspec.DecodeError, ValueError):
        assert isinstance(protocol.decode_event(body), protocol.Event)


def test_unknown_fields_and_tags_are_refused() -> None:
    for value in ({"type": "Pickle"}, {"type": "Cancel", "id": 1, "more": 1}, {"type": "Cancel", "id": "1"}):
        with pytest.raises(msgspec.ValidationError):
            protocol.decode_request(msgspec.msgpack.encode(value))
