"""The safetensors reader: golden bytes, round trips, hostile files."""

from __future__ import annotations

import struct
from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localai.errors import CheckpointError
from quantize.safetensors import read_header
from tests.quantize.making import BITS, raw_file, rows_of, safetensors

GOLDEN = (
    b"\x8a\x00\x00\x00\x00\x00\x00\x00"
    b'{"__metadata__":{"format":"pt"},"b":{"dtype":"F32","shape":[],"data_offsets":[4,8]},'
    b'"a":{"dtype":"BF16","shape":[2],"data_offsets":[0,4]}}'
    b"\x80\x3f\x00\xc0"
    b"\x00\x00\x00\x3f"
)


def test_golden_bytes(tmp_path: Path) -> None:
    path = tmp_path / "golden.safetensors"
    path.write_bytes(GOLDEN)
    tensors = read_header(path)
    assert set(tensors) == {"a", "b"}
    a, b = tensors["a"], tensors["b"]
    assert (a.dtype, a.shape, a.offset, a.nbytes) == ("BF16", (2,), 8 + 0x8A, 4)
    assert (b.dtype, b.shape, b.offset, b.nbytes) == ("F32", (), 8 + 0x8A + 4, 4)
    assert rows_of(a, 0, 2).tolist() == [0x3F80, 0xC000]
    assert rows_of(a, 1, 2).tolist() == [0xC000]


arrays = st.tuples(
    st.sampled_from(["BF16", "F16", "F32"]),
    st.lists(st.integers(1, 5), min_size=1, max_size=3),
    st.integers(0, 2**32 - 1),
)


@given(st.dictionaries(st.text(min_size=1).filter(lambda name: name != "__metadata__"), arrays, max_size=6))
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60)
def test_what_is_written_is_read_back(tmp_path: Path, description: dict) -> None:
    tensors = {}
    for name, (dtype, shape, seed) in description.items():
        raw = np.random.default_rng(seed).bytes(int(np.prod(shape)) * np.dtype(BITS[dtype]).itemsize)
        tensors[name] = (dtype, np.frombuffer(raw, BITS[dtype]).reshape(shape))
    path = tmp_path / "file.safetensors"
    path.write_bytes(safetensors(tensors))
    found = read_header(path)
    assert found.keys() == tensors.keys()
    for name, (dtype, array) in tensors.items():
        assert (found[name].dtype, found[name].shape) == (dtype, array.shape)
        assert rows_of(found[name], 0, len(array)).tobytes() == array.tobytes()
        assert rows_of(found[name], len(array) - 1, len(array)).tobytes() == array[-1:].tobytes()


def entry(dtype: object = "F32", shape: object = (2,), offsets: object = (0, 8)) -> dict:
    return {"dtype": dtype, "shape": shape, "data_offsets": offsets}


EIGHT = b"\0" * 8
HOSTILE = {
    "empty": (b"", "not a safetensors file"),
    "seven bytes": (b"\0" * 7, "not a safetensors file"),
    "no header": (raw_file(b""), "not valid JSON"),
    "huge length": (struct.pack("<Q", 2**62) + b"{}", "not a safetensors file"),
    "length over the file": (raw_file({}, length=50), "is truncated"),
    "not JSON": (raw_file(b"{'a'}"), "not valid JSON"),
    "not UTF-8": (raw_file(b'{"\xff": 1}'), "not UTF-8"),
    "a list": (raw_file([]), "does not hold a JSON object"),
    "nested too deeply": (raw_file(b'{"a":' * 100_000), "nested too deeply"),
    "an endless number": (raw_file(b'{"a":' + b"9" * 5000 + b"}"), "not valid JSON"),
    "the same name twice": (raw_file(b'{"a": 1, "a": 2}'), "twice"),
    "an entry that is a number": (raw_file({"a": 1}), "does not describe"),
    "no dtype": (raw_file({"a": {"shape": [2], "data_offsets": [0, 8]}}, EIGHT), "does not describe"),
    "three offsets": (raw_file({"a": entry(offsets=[0, 4, 8])}, EIGHT), "does not describe"),
    "an unknown dtype": (raw_file({"a": entry(dtype="Q4")}, EIGHT), "unknown type 'Q4'"),
    "a dtype that is a number": (raw_file({"a": entry(dtype=4)}, EIGHT), "does not describe"),
    "a negative dimension": (raw_file({"a": entry(shape=[-2])}, EIGHT), "impossible shape"),
    "a dimension of true": (raw_file({"a": entry(shape=[True, 2])}, EIGHT), "impossible shape"),
    "a fractional dimension": (raw_file({"a": entry(shape=[2.0])}, EIGHT), "impossible shape"),
    "an enormous dimension": (raw_file({"a": entry(shape=[2**60, 2**60])}, EIGHT), "impossible shape"),
    "a negative offset": (raw_file({"a": entry(offsets=[-8, 0])}, EIGHT), "impossible offsets"),
    "reversed offsets": (raw_file({"a": entry(offsets=[8, 0])}, EIGHT), "impossible offsets"),
    "offsets of booleans": (raw_file({"a": entry(offsets=[False, True])}, EIGHT), "impossible offsets"),
    "too few bytes for the shape": (raw_file({"a": entry(shape=[3])}, EIGHT), "takes 12"),
    "a truncated file": (raw_file({"a": entry()}, EIGHT[:5]), "3 of"),
    "bytes after the end": (raw_file({"a": entry()}, EIGHT + b"x"), "1 bytes after"),
    "a gap": (raw_file({"a": entry(offsets=[4, 12])}, EIGHT + EIGHT), "leaves a gap"),
    "an overlap": (
        raw_file({"a": entry(), "b": entry(offsets=[4, 12])}, EIGHT + EIGHT),
        "overlaps",
    ),
    "the same bytes twice": (raw_file({"a": entry(), "b": entry()}, EIGHT), "overlaps"),
    "a git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE[case]
    path = tmp_path / "model.safetensors"
    path.write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        read_header(path)
    assert message in str(caught.value)
    assert str(path) in str(caught.value)
    assert caught.value.hint
