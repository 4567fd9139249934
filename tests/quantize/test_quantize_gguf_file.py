"""The header that we write, read back by gguf's reader and our own, and compared with gguf's writer."""

from __future__ import annotations

import math
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from hypothesis import given, settings
from hypothesis import strategies as st

from models.ggml_types import TENSOR_TYPES
from models.gguf import read_header
from quantize.gguf_file import Entry, Layout, collected, encoded, padded, u32

BOUNDS = {
    GGUFValueType.UINT8: (0, 2**8 - 1),
    GGUFValueType.INT8: (-(2**7), 2**7 - 1),
    GGUFValueType.UINT16: (0, 2**16 - 1),
    GGUFValueType.INT16: (-(2**15), 2**15 - 1),
    GGUFValueType.UINT32: (0, 2**32 - 1),
    GGUFValueType.INT32: (-(2**31), 2**31 - 1),
    GGUFValueType.UINT64: (0, 2**64 - 1),
    GGUFValueType.INT64: (-(2**63), 2**63 - 1),
}
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=30)
VALUES: dict[GGUFValueType, st.SearchStrategy[Any]] = {
    **{kind: st.integers(*bounds) for kind, bounds in BOUNDS.items()},
    GGUFValueType.FLOAT32: st.floats(width=32, allow_nan=False),
    GGUFValueType.FLOAT64: st.floats(allow_nan=False),
    GGUFValueType.BOOL: st.booleans(),
    GGUFValueType.STRING: TEXT,
}
PAIRS = st.one_of(
    *(st.tuples(st.just(kind), st.none(), values) for kind, values in VALUES.items()),
    *(
        st.tuples(st.just(GGUFValueType.ARRAY), st.just(kind), st.lists(values, min_size=1, max_size=70))
        for kind, values in VALUES.items()
    ),
)
KEYS = st.text("abcdefghijklmnopqrstuvwxyz0123456789._", min_size=1, max_size=40).filter(
    lambda key: not key.startswith("general.")
)
ENTRIES = st.lists(
    st.tuples(
        st.text("abcdefghijklmnopqrstuvwxyz0123456789._", min_size=1, max_size=63),
        st.lists(st.integers(1, 5), min_size=0, max_size=3),
        st.sampled_from(sorted(set(TENSOR_TYPES) & set(GGMLQuantizationType))),
        st.integers(1, 3),
    ),
    min_size=1,
    max_size=8,
    unique_by=lambda entry: entry[0],
)


@settings(max_examples=60, deadline=None)
@given(st.dictionaries(KEYS, PAIRS, max_size=12), ENTRIES)
def test_a_header_comes_back(
    pairs: dict[str, tuple[GGUFValueType, GGUFValueType | None, Any]],
    tensors: list[tuple[str, list[int], int, int]],
) -> None:
    entries = []
    for name, rows, number, blocks in tensors:
        block = TENSOR_TYPES[number]
        shape = (*rows, blocks * block.elements)
        entries.append(Entry(name, shape, number, math.prod(rows) * blocks * block.size))
    metadata = {key: encoded(value, kind, item) for key, (kind, item, value) in pairs.items()}
    layout = Layout(metadata, entries)
    data = layout.header()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "x.gguf")
        path.write_bytes(data.ljust(layout.nbytes, b"\0"))
        header = read_header(path)
        fields = {key: field.contents() for key, field in GGUFReader(path).fields.items()}
    assert (header.data_offset, header.file_size) == (len(data), layout.nbytes)
    for entry, tensor in zip(entries, header.tensors, strict=True):
        assert (tensor.name, tensor.type, tensor.size) == (entry.name, entry.type, entry.nbytes)
        assert tensor.shape == tuple(reversed(entry.shape))
        assert header.data_offset + tensor.offset == layout.offsets[entry.name]
        assert layout.offsets[entry.name] % 32 == 0
    assert {key: value for key, value in fields.items() if not key.startswith("GGUF.")} == {
        key: value for key, (_, _, value) in pairs.items()
    }


def test_what_is_collected_is_what_gguf_would_write(tmp_path: Path) -> None:
    """The whole header of a file with tensors, byte for byte."""
    writer = GGUFWriter(tmp_path / "x.gguf", "llama")
    writer.add_name("ä model")
    writer.add_uint8("u8", 1)
    writer.add_int8("i8", -1)
    writer.add_uint16("u16", 2)
    writer.add_int16("i16", -2)
    writer.add_uint32("u32", 3)
    writer.add_int32("i32", -3)
    writer.add_uint64("u64", 4)
    writer.add_int64("i64", -4)
    writer.add_float32("f32", 0.1)
    writer.add_float64("f64", 0.1)
    writer.add_bool("bool", True)
    writer.add_token_list(["a", b"b\xff", "ä", ""])
    writer.add_token_types([1, 2, 3, 4])
    writer.add_token_scores([0.5, -1.0, 0.0, 1e30])
    writer.add_array("bools", [True, False])
    writer.add_array("nothing", [])
    writer.add_token_merges(["a b"])
    tensors = {"a": np.ones((3, 5), "<f4"), "b": np.ones(7, "<f4"), "c": np.ones((2, 3, 4), "<f2")}
    for name, array in tensors.items():
        writer.add_tensor(name, array)
    found = collected(writer)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    entries = [Entry(n, a.shape, 0 if a.itemsize == 4 else 1, a.nbytes) for n, a in tensors.items()]
    layout = Layout(found, entries)
    written = (tmp_path / "x.gguf").read_bytes()
    assert written.startswith(layout.header())
    assert len(written) == layout.nbytes


def test_padding() -> None:
    assert [padded(count) for count in (0, 1, 31, 32, 33)] == [0, 32, 32, 32, 64]
    assert u32(7) == b"\4\0\0\0\7\0\0\0"
