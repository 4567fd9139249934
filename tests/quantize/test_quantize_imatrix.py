"""The reader of importance matrices: real files, golden bytes of both forms, round trips, hostile files."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFValueType, GGUFWriter
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localai.errors import QuantizeError, UsageError
from quantize import imatrix
from quantize.imatrix import ImportanceMatrix, read_imatrix

REAL = Path(__file__).parents[1] / "data" / "imatrix"


# Both forms, written without the code under test


class Writer(GGUFWriter):
    """As llama-imatrix writes: no architecture."""

    def add_architecture(self) -> None:
        pass


KEYS = {"imatrix.datasets": ["a.txt"], "imatrix.chunk_count": 7, "imatrix.chunk_size": 512}
TYPES = {int: GGUFValueType.UINT32, str: GGUFValueType.STRING, float: GGUFValueType.FLOAT32}


def write_gguf(path: Path, tensors: dict[str, object], keys: dict[str, object] | None = None) -> Path:
    """A GGUF file; `tensors` by their whole names, float32 unless they are arrays of another type."""
    writer = Writer(path, "")
    for key, value in ({"general.type": "imatrix"} | KEYS if keys is None else keys).items():
        if isinstance(value, list):
            writer.add_array(key, value)
        else:
            writer.add_key_value(key, value, TYPES[type(value)])
    for name, value in tensors.items():
        array = value if isinstance(value, np.ndarray) else np.array(value, np.float32)
        writer.add_tensor(name, array)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def pair(name: str, sums: object, counts: object) -> dict[str, object]:
    return {f"{name}.in_sum2": sums, f"{name}.counts": counts}


def entry(name: bytes, calls: int, values: list[float]) -> bytes:
    start = struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, len(values))
    return start + struct.pack(f"<{len(values)}f", *values)


def legacy(*entries: bytes, end: bytes = b"", count: int | None = None) -> bytes:
    return struct.pack("<i", len(entries) if count is None else count) + b"".join(entries) + end


def ending(chunks: int, dataset: bytes, length: int | None = None) -> bytes:
    return struct.pack("<ii", chunks, len(dataset) if length is None else length) + dataset


def read_bytes(folder: Path, data: bytes) -> ImportanceMatrix:
    path = folder / "imatrix"
    path.write_bytes(data)
    return read_imatrix(path)


def bits(values: np.ndarray) -> list[int]:
    assert values.dtype == np.float32
    return values.view(np.uint32).tolist()


# Real files


# SHA-256 of the name, NUL and values of each tensor in order of names, from llama.cpp's own loader and
# llama-quantize's arithmetic, compiled and run on the same two files.
REFERENCE = {
    "r1-nano.gguf": "4f5a008912d40e03c6352dae658f73baa84c98ab172a5c57b362037a4155a89c",
    "r1-nano.dat": "4ca405f4ec759657d88d9041fc15eebb049baf2443c494ca1a0520d031034c32",
}


@pytest.mark.parametrize("name", REFERENCE)
def test_real_files_give_the_values_of_llama_cpp_to_the_bit(name: str) -> None:
    found = read_imatrix(REAL / name)
    assert (found.path, found.datasets, found.chunks) == (REAL / name, ("sums.txt",), 11)
    digest = hashlib.sha256()
    for tensor in sorted(found.weights):
        digest.update(tensor.encode() + b"\0" + found.weights[tensor].tobytes())
    assert digest.hexdigest() == REFERENCE[name]


def test_real_files_hold_one_value_per_column() -> None:
    found = read_imatrix(REAL / "r1-nano.gguf")
    columns = {"attn_q": 256, "attn_k": 256, "attn_v": 256, "attn_output": 256}
    columns |= {"ffn_gate": 256, "ffn_up": 256, "ffn_down": 768}
    expected = {f"blk.{i}.{name}.weight": (n,) for i in range(5) for name, n in columns.items()}
    assert {name: values.shape for name, values in found.weights.items()} == expected


def test_both_forms_agree_but_for_the_last_bit() -> None:
    new, old = (read_imatrix(REAL / name).weights for name in REFERENCE)
    assert new.keys() == old.keys()
    apart = [abs(a - b) for name in new for a, b in zip(bits(new[name]), bits(old[name]), strict=True)]
    assert max(apart) == 1
    assert sum(apart) == 1683


# Golden bytes


OLD_GOLDEN = (
    b"\x02\x00\x00\x00"
    b"\x01\x00\x00\x00a\x03\x00\x00\x00\x02\x00\x00\x00\x00\x00\x80\x3f\x00\x00\xc0\x40"
    b"\x03\x00\x00\x00b.c\x00\x00\x00\x00\x01\x00\x00\x00\x00\x00\x00\x3f"
    b"\x09\x00\x00\x00\x06\x00\x00\x00wiki\xc3\xa9"
)


def test_older_form_golden_bytes(tmp_path: Path) -> None:
    found = read_bytes(tmp_path, OLD_GOLDEN)
    assert (found.path, found.datasets, found.chunks) == (tmp_path / "imatrix", ("wikié",), 9)
    assert list(found.weights) == ["a", "b.c"]
    # 1/3 and 6/3; no calls: the value as it is.
    assert bits(found.weights["a"]) == [0x3EAAAAAB, 0x40000000]
    assert bits(found.weights["b.c"]) == [0x3F000000]


@pytest.mark.parametrize(
    ("end", "chunks", "datasets"),
    [
        (b"", 0, ()),
        (struct.pack("<i", 5), 5, ()),
        (ending(5, b""), 5, ()),
        (ending(5, b"x" * 300), 5, ("x" * 300,)),
        (ending(0, b"\xff\xe3\x80\x80.txt"), 0, ("\ufffd\u3000.txt",)),
    ],
)
def test_older_form_may_end_early(tmp_path: Path, end: bytes, chunks: int, datasets: tuple[str, ...]) -> None:
    found = read_bytes(tmp_path, legacy(entry(b"a", 1, [2]), end=end))
    assert (found.chunks, found.datasets) == (chunks, datasets)


def test_gguf_form_divides_each_expert_by_its_count(tmp_path: Path) -> None:
    tensors = pair("blk.0.ffn_up_exps.weight", [[1, 2], [5, 7], [3, 10]], [[3], [0], [7]])
    tensors |= pair("output.weight", [6, 1], [2])
    found = read_imatrix(write_gguf(tmp_path / "i.gguf", tensors))
    assert (found.datasets, found.chunks) == (("a.txt",), 7)
    experts = found.weights["blk.0.ffn_up_exps.weight"]
    # 1/3, 2/3; not reached: ones; 3/7, 10/7.
    assert bits(experts) == [0x3EAAAAAB, 0x3F2AAAAB, 0x3F800000, 0x3F800000, 0x3EDB6DB7, 0x3FB6DB6E]
    assert found.weights["output.weight"].tolist() == [3, 0.5]


def test_counts_are_rounded_as_by_lround(tmp_path: Path) -> None:
    below_half = float(np.nextafter(np.float32(0.5), np.float32(0)))
    counts = [0.25, below_half, 0.5, 1.5, 2.5, 2.25, 16777217.0, 2.0**62]
    found = read_imatrix(write_gguf(tmp_path / "i.gguf", pair("a", [[12.0]] * 8, [[n] for n in counts])))
    expected = [1, 1, 12, 6, 4, 6, np.float32(12) / np.float32(2**24), 12 / 2**62]
    assert found.weights["a"].tolist() == expected


def test_several_datasets_and_foreign_tensors(tmp_path: Path) -> None:
    names = [f"part {i}.txt" for i in range(64)]
    tensors = pair("a", [1], [1]) | {"a.in_sum": [9], ".counts": [1], "b.weight": np.zeros(4, np.float16)}
    found = read_imatrix(write_gguf(tmp_path / "i.gguf", tensors, KEYS | {"imatrix.datasets": names}))
    assert found.datasets == tuple(names)
    assert list(found.weights) == ["a"]


def test_values_are_read_only_and_flat(tmp_path: Path) -> None:
    new = read_imatrix(write_gguf(tmp_path / "i.gguf", pair("a", [[1, 2], [3, 4]], [[1], [1]])))
    for values in (new.weights["a"], read_bytes(tmp_path, OLD_GOLDEN).weights["a"]):
        assert values.flags.c_contiguous
        assert values.ndim == 1
        with pytest.raises(ValueError, match="read-only"):
            values[0] = 1


# Round trips


names = st.text(st.characters(codec="ascii", min_codepoint=33, max_codepoint=126), min_size=1, max_size=50)
finite = st.floats(0, allow_infinity=False, allow_nan=False, width=32)
ROUND_TRIP = settings(
    suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=60
)


@given(
    st.dictionaries(names, st.tuples(st.integers(0, 2**31 - 1), st.lists(finite, min_size=1)), min_size=1),
    st.integers(0, 2**31 - 1),
)
@ROUND_TRIP
def test_older_form_round_trip(tmp_path: Path, entries: dict, chunks: int) -> None:
    parts = [entry(name.encode(), calls, values) for name, (calls, values) in entries.items()]
    found = read_bytes(tmp_path, legacy(*parts, end=ending(chunks, b"x")))
    assert found.chunks == chunks
    assert found.weights.keys() == entries.keys()
    for name, (calls, values) in entries.items():
        expected = [np.float32(value) / np.float32(calls or 1) for value in values]
        assert bits(found.weights[name]) == bits(np.array(expected, np.float32))


experts = st.tuples(st.integers(1, 4), st.integers(1, 5), st.integers(0, 2**32 - 1))


@given(st.dictionaries(names, experts, min_size=1, max_size=5))
@ROUND_TRIP
def test_gguf_form_round_trip(tmp_path: Path, entries: dict) -> None:
    tensors, expected = {}, {}
    for name, (rows, columns, seed) in entries.items():
        random = np.random.default_rng(seed)
        sums = random.random((rows, columns), np.float32) * np.float32(1e6)
        counts = random.integers(0, 1000, (rows, 1)) * random.integers(0, 2, (rows, 1))
        tensors |= pair(name, sums, counts.astype(np.float32))
        expected[name] = [
            sums[j, i] / np.float32(counts[j, 0]) if counts[j, 0] else np.float32(1)
            for j in range(rows)
            for i in range(columns)
        ]
    found = read_imatrix(write_gguf(tmp_path / "i.gguf", tensors))
    assert found.weights.keys() == expected.keys()
    for name, values in expected.items():
        assert bits(found.weights[name]) == bits(np.array(values, np.float32))


# Hostile files


A = entry(b"a", 1, [2.0])
BIG = 2**31 - 1
HOSTILE = {
    "empty": (b"", "is empty"),
    "three bytes": (b"\1\0\0", "truncated"),
    "a text": (b"It was a dark and stormy night", "is not an importance matrix"),
    "a pickle": (b"PK\3\4" + b"\0" * 60, "is not an importance matrix"),
    "a git-lfs pointer": (b"version https://git-lfs.github.com/spec/v1\noid sha256:00\n", "git-lfs pointer"),
    "no entries": (legacy(end=ending(1, b"x")), "is not an importance matrix"),
    "a negative number of entries": (legacy(A, count=-1), "is not an importance matrix"),
    "2^31 entries": (legacy(A, count=BIG), "is not an importance matrix"),
    "more entries than fit": (legacy(A, count=65_536), "takes 1114112 bytes"),
    "one entry more than there is": (legacy(A, count=2), "truncated"),
    "a name of 2^31 bytes": (legacy(struct.pack("<i", BIG) + b"x" * 99), "2147483647 bytes"),
    "a name of negative length": (legacy(struct.pack("<i", -1) + b"x" * 99), "-1 bytes"),
    "no name": (legacy(entry(b"", 1, [1, 2])), "0 bytes"),
    "a long name": (legacy(entry(b"x" * 64, 1, [1])), "64 bytes"),
    "a name with a NUL": (legacy(entry(b"a\0b", 1, [1])), "cannot be printed"),
    "a name with an escape": (legacy(entry(b"\x1b[2J", 1, [1])), "cannot be printed"),
    "a name that is not UTF-8": (legacy(entry(b"\xff", 1, [1])), "not UTF-8"),
    "the same name twice": (legacy(A, A), "twice"),
    "2^31 values": (legacy(b"\1\0\0\0a" + struct.pack("<ii", 1, BIG) + b"\0" * 99), "8589934588 bytes"),
    "no values": (legacy(entry(b"a", 1, []), end=b"\0" * 9), "0 values"),
    "a negative number of values": (legacy(b"\1\0\0\0a" + struct.pack("<iif", 1, -1, 1)), "-1 values"),
    "negative calls": (legacy(entry(b"a", -1, [1])), "-1 calls"),
    "an infinite value": (legacy(entry(b"a", 1, [1, float("inf")])), "infinite"),
    "not a number": (legacy(entry(b"a", 1, [1, float("nan")])), "not numbers"),
    "a signalling NaN": (legacy(A[:-4] + b"\1\0\xa0\x7f"), "not numbers"),
    "a negative value": (legacy(entry(b"a", 1, [1, -1])), "negative"),
    "negative chunks": (legacy(A, end=ending(-1, b"x")), "-1 chunks"),
    "a dataset of negative length": (legacy(A, end=ending(1, b"x", -1)), "-1 bytes"),
    "a dataset of 2^31 bytes": (legacy(A, end=ending(1, b"x", BIG)), "2147483647 bytes"),
    "a truncated dataset": (legacy(A, end=ending(1, b"x", 2)), "truncated"),
    "a dataset with an escape": (legacy(A, end=ending(1, b"\x1b[2J")), "control characters"),
    "bytes after the end": (legacy(A, end=ending(1, b"x") + b"y"), "1 bytes come after"),
    "a GGUF of nothing": (b"GGUF", "not a valid GGUF file"),
    "a GGUF of 2^60 tensors": (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "not a valid GGUF file"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_files_are_refused(tmp_path: Path, case: str) -> None:
    data, message = HOSTILE[case]
    with pytest.raises(QuantizeError) as caught:
        read_bytes(tmp_path, data)
    assert message in caught.value.message
    assert str(tmp_path) in caught.value.message
    assert "\x1b" not in caught.value.message
    assert caught.value.hint


ONE = pair("a", [1, 2], [1])
HOSTILE_GGUF = {
    "no tensors": ({}, {}, "0 entries"),
    "sums without counts": ({"a.in_sum2": [1]}, {}, "both its sums and its counts"),
    "counts without sums": (ONE | {"b.counts": [1]}, {}, "both its sums and its counts"),
    "sums in F16": (pair("a", np.ones(2, np.float16), [1]), {}, "types F16 and F32"),
    "counts in I32": (pair("a", [1], np.ones(1, np.int32)), {}, "types F32 and I32"),
    "sums for half a count": (pair("a", [1, 2, 3], [[1], [1]]), {}, "3 sums for 2 counts"),
    "more counts than sums": (pair("a", [1], [[1], [1]]), {}, "1 sums for 2 counts"),
    "an infinite sum": (pair("a", [np.inf], [1]), {}, "infinite"),
    "a sum that is not a number": (pair("a", [np.nan], [1]), {}, "not numbers"),
    "a negative sum": (pair("a", [-1], [1]), {}, "negative"),
    "an infinite count": (pair("a", [1], [np.inf]), {}, "the counts of 'a'"),
    "a count that is not a number": (pair("a", [1], [np.nan]), {}, "the counts of 'a'"),
    "a negative count": (pair("a", [1], [-1]), {}, "the counts of 'a'"),
    "an enormous count": (pair("a", [1], [2.0**63]), {}, "impossible counts"),
    "a name with an escape": (pair("\x1b[2J", [1], [1]), {}, "cannot be printed"),
    "chunks that are text": (ONE, {"imatrix.chunk_count": "7"}, "not a possible number"),
    "too many chunks": (ONE, {"imatrix.chunk_count": 2**31}, "not a possible number"),
    "a fractional chunk size": (ONE, {"imatrix.chunk_size": 0.5}, "not a possible number"),
    "a dataset alone": (ONE, {"imatrix.datasets": "a.txt"}, "not a list"),
    "datasets that are numbers": (ONE, {"imatrix.datasets": [1, 2]}, "not text"),
    "65 datasets": (ONE, {"imatrix.datasets": ["x"] * 65}, "up to 64"),
    "a dataset with an escape": (ONE, {"imatrix.datasets": ["a", "\x1b[2J"]}, "control characters"),
    "a dataset of 64 KiB": (ONE, {"imatrix.datasets": ["x" * 65_536]}, "too long"),
}


@pytest.mark.parametrize("case", HOSTILE_GGUF)
def test_hostile_gguf_files_are_refused(tmp_path: Path, case: str) -> None:
    tensors, keys, message = HOSTILE_GGUF[case]
    path = write_gguf(tmp_path / "i.gguf", tensors, {"general.type": "imatrix"} | KEYS | keys)
    with pytest.raises(QuantizeError) as caught:
        read_imatrix(path)
    assert message in caught.value.message
    assert str(path) in caught.value.message
    assert "\x1b" not in caught.value.message
    assert caught.value.hint


@pytest.mark.parametrize("missing", KEYS)
def test_missing_metadata_is_refused(tmp_path: Path, missing: str) -> None:
    keys = {key: value for key, value in KEYS.items() if key != missing}
    path = write_gguf(tmp_path / "i.gguf", ONE, keys)
    with pytest.raises(QuantizeError, match=f"metadata lacks {missing}"):
        read_imatrix(path)


def test_the_same_gguf_name_twice_is_refused(tmp_path: Path) -> None:
    data = write_gguf(tmp_path / "i.gguf", ONE | pair("b", [1, 2], [1])).read_bytes()
    with pytest.raises(QuantizeError, match="is there twice"):
        read_bytes(tmp_path, data.replace(b"b.in_sum2", b"a.in_sum2"))


def test_no_prefix_of_the_older_form_is_read_as_something_else(tmp_path: Path) -> None:
    # What llama.cpp takes, too: all entries, with nothing or with only the chunks after them.
    whole = {len(OLD_GOLDEN) - 14, len(OLD_GOLDEN) - 10}
    for length in range(len(OLD_GOLDEN)):
        if length in whole:
            assert len(read_bytes(tmp_path, OLD_GOLDEN[:length]).weights) == 2
        else:
            with pytest.raises(QuantizeError):
                read_bytes(tmp_path, OLD_GOLDEN[:length])


def test_no_prefix_of_the_gguf_form_is_read(tmp_path: Path) -> None:
    data = write_gguf(tmp_path / "i.gguf", pair("a", [[1, 2], [3, 4]], [[1], [1]])).read_bytes()
    read_bytes(tmp_path, data)
    for length in range(len(data)):
        with pytest.raises(QuantizeError):
            read_bytes(tmp_path, data[:length])


@given(
    st.booleans(), st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.binary(min_size=1, max_size=8)))
)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None, max_examples=300)
def test_damaged_files_raise_nothing_else(tmp_path: Path, old: bool, damage: list) -> None:
    new = tmp_path / "new.gguf"
    if not new.exists():
        write_gguf(new, pair("a", [[1, 2], [3, 4]], [[1], [1]]))
    data = bytearray(OLD_GOLDEN if old else new.read_bytes())
    for where, what in damage:
        at = int(where * len(data))
        data[at : at + len(what)] = what
    try:
        found = read_bytes(tmp_path, bytes(data))
    except (QuantizeError, UsageError):
        return
    assert all(np.isfinite(v).all() and (v >= 0).all() for v in found.weights.values())


# Not such a file at all


def test_a_model_is_not_an_importance_matrix(tmp_path: Path) -> None:
    model = write_gguf(tmp_path / "x.gguf", {"b.weight": [1]}, {"general.architecture": "qwen2"})
    with pytest.raises(UsageError, match="is a model, not an importance matrix") as caught:
        read_imatrix(model)
    assert "localai imatrix MODEL" in caught.value.hint
    with pytest.raises(UsageError, match="is a GGUF file of another kind"):
        read_imatrix(write_gguf(tmp_path / "x.gguf", {"b.weight": [1]}, {"general.type": "adapter"}))


def test_what_is_no_file_is_refused(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(OLD_GOLDEN)
    with pytest.raises(UsageError, match="there is no file"):
        read_imatrix(tmp_path / "absent")
    with pytest.raises(UsageError, match="there is no file"):
        read_imatrix(tmp_path / "file" / "absent")
    for name, message in (("", "is a folder"), ("pipe", "is a named pipe"), ("a\0b", "is not a file")):
        with pytest.raises(UsageError, match=message):
            read_imatrix(tmp_path / name)
    with pytest.raises(QuantizeError, match="cannot read"):
        read_imatrix(tmp_path / ("x" * 300))


def test_a_link_to_a_file_is_followed(tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(REAL / "r1-nano.dat")
    assert read_imatrix(tmp_path / "link").chunks == 11


def test_enormous_files_are_refused_unread(tmp_path: Path) -> None:
    # Sparse: it takes no space.
    for data in (OLD_GOLDEN, (REAL / "r1-nano.gguf").read_bytes()):
        path = tmp_path / "imatrix"
        path.write_bytes(data)
        os.truncate(path, imatrix.MAX_BYTES + 1)
        with pytest.raises(QuantizeError, match="larger than 4 GiB"):
            read_imatrix(path)


@pytest.mark.parametrize("claimed", [len(OLD_GOLDEN), len(OLD_GOLDEN) - 14])
def test_a_file_that_shrinks_meanwhile(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, claimed: int) -> None:
    stat = os.stat_result([0, 0, 0, 0, 0, 0, claimed, 0, 0, 0])
    monkeypatch.setattr(imatrix.os, "fstat", lambda _: stat)
    with pytest.raises(QuantizeError, match="became shorter"):
        read_bytes(tmp_path, OLD_GOLDEN[: claimed - 1])
