"""GGUF files as what is quantized: the same as from the checkpoint, whole or in parts; hostile ones."""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader, GGUFValueType, GGUFWriter
from gguf.quants import dequantize, quantize

from localai.errors import LocalAIError, ModelFileError, UnsupportedModel
from tests.quantize.doing import convert, fields, tensors
from tests.quantize.making import NANO, make_checkpoint, names_in

WIDE = {"hidden_size": 256, "intermediate_size": 256, "num_hidden_layers": 1}


@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q8_0"])
@pytest.mark.parametrize("dtype", ["F32", "F16", "BF16"])
def test_it_becomes_the_same_as_the_checkpoint(tmp_path: Path, dtype: str, file_type: str) -> None:
    make_checkpoint(tmp_path / "m", dtype=dtype, **WIDE)
    convert(tmp_path / "m", tmp_path / "direct.gguf", file_type)
    convert(tmp_path / "m", tmp_path / "whole.gguf", dtype)
    convert(tmp_path / "whole.gguf", tmp_path / "again.gguf", file_type)
    assert tensors(tmp_path / "again.gguf") == tensors(tmp_path / "direct.gguf")
    assert fields(tmp_path / "again.gguf") == fields(tmp_path / "direct.gguf")


def test_metadata_is_kept_as_it_stands(tmp_path: Path) -> None:
    """Of every type, also what this program has never heard of."""
    convert(NANO, tmp_path / "bf16.gguf")
    reader = GGUFReader(tmp_path / "bf16.gguf")
    before = fields(write(tmp_path / "x.gguf", reader, tensors_of(reader), add_all_types))
    convert(tmp_path / "x.gguf", tmp_path / "q.gguf", "Q8_0")
    after = fields(tmp_path / "q.gguf")
    assert len(before) > 30
    assert before["x.texts"] == ["a", "", "ä"]
    assert before.pop("general.alignment") == 64
    before |= {"general.file_type": 7, "general.quantization_version": 2}
    assert after == before


def add_all_types(writer: GGUFWriter) -> None:
    """Metadata of every type that there is, and an alignment of one's own."""
    writer.data_alignment = 64
    writer.add_uint32("general.alignment", 64)
    writer.add_uint8("x.u8", 255)
    writer.add_int8("x.i8", -128)
    writer.add_uint16("x.u16", 65535)
    writer.add_int16("x.i16", -32768)
    writer.add_int32("x.i32", -(2**31))
    writer.add_uint64("x.u64", 2**64 - 1)
    writer.add_int64("x.i64", -(2**63))
    writer.add_float32("x.f32", 0.1)
    writer.add_float64("x.f64", 0.1)
    writer.add_bool("x.bool", True)
    writer.add_string("x.string", "line\nline")
    writer.add_array("x.texts", ["a", "", "ä"])
    writer.add_array("x.numbers", list(range(100)))


def write(
    path: Path,
    source: GGUFReader,
    tensors: Sequence[tuple[str, np.ndarray, GGMLQuantizationType]],
    add: Callable[[GGUFWriter], None] = lambda writer: None,
    metadata: bool = True,
) -> Path:
    """A file with `tensors`, with the metadata of `source` and what `add` adds, by gguf's own writer."""
    writer = GGUFWriter(path, "")
    writer.kv_data[0].clear()
    for key, field in source.fields.items() if metadata else ():
        if not key.startswith("GGUF."):
            items = field.types[-1] if len(field.types) > 1 else None
            writer.add_key_value(key, field.contents(), field.types[0], items)
    add(writer)
    for name, data, kind in tensors:
        writer.add_tensor(name, data, raw_dtype=kind if data.dtype == np.uint8 else None)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def tensors_of(source: GGUFReader) -> list[tuple[str, np.ndarray, GGMLQuantizationType]]:
    return [(tensor.name, tensor.data, tensor.tensor_type) for tensor in source.tensors]


# ------------------------------------------------------------------------------------------------- parts


def split(source: Path, folder: Path, count: int) -> list[Path]:
    """`source` in `count` parts, as llama-gguf-split makes them: metadata in the first, tensors in turn."""
    reader = GGUFReader(source)
    every = tensors_of(reader)
    size = -(-len(every) // count)

    def add(writer: GGUFWriter) -> None:
        writer.add_uint16("split.no", len(paths))
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", len(every))

    paths: list[Path] = []
    for number in range(count):
        path = folder / f"{source.stem}-{number + 1:05}-of-{count:05}.gguf"
        part = every[number * size : (number + 1) * size]
        paths.append(write(path, reader, part, add, metadata=not number))
    return paths


def test_parts_become_one_file(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", **WIDE)
    convert(tmp_path / "m", tmp_path / "m.gguf")
    convert(tmp_path / "m", tmp_path / "whole.gguf", "Q4_K_M")
    parts = split(tmp_path / "m.gguf", tmp_path, 3)
    report = convert(parts[0], tmp_path / "merged.gguf", "Q4_K_M")
    assert tensors(tmp_path / "merged.gguf") == tensors(tmp_path / "whole.gguf")
    assert fields(tmp_path / "merged.gguf") == fields(tmp_path / "whole.gguf")
    assert list(report.inputs) == [path.name for path in parts]
    assert report.source_bytes == sum(path.stat().st_size for path in parts)


def test_parts_that_do_not_belong_together(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", **WIDE)
    convert(tmp_path / "m", tmp_path / "m.gguf")
    one, two, three = split(tmp_path / "m.gguf", tmp_path, 3)
    before = names_in(tmp_path)
    with pytest.raises(UnsupportedModel, match="is not the first part"):
        convert(two, tmp_path / "x.gguf")
    kept = three.read_bytes()
    three.write_bytes(two.read_bytes())
    with pytest.raises(ModelFileError, match="is twice in the parts of"):
        convert(one, tmp_path / "x.gguf")
    three.write_bytes(kept[:-1000])
    with pytest.raises(ModelFileError, match="truncated"):
        convert(one, tmp_path / "x.gguf")
    write(three, GGUFReader(one), [], metadata=False)
    with pytest.raises(ModelFileError, match=r"is to have \d+ tensors, but \d+ are there"):
        convert(one, tmp_path / "x.gguf")
    three.unlink()
    with pytest.raises(UnsupportedModel, match=r"00003-of-00003\.gguf is missing") as caught:
        convert(one, tmp_path / "x.gguf")
    assert caught.value.hint
    assert names_in(tmp_path) == [name for name in before if name != three.name]


# --------------------------------------------------------------------------------------- quantized before


def test_what_is_quantized_is_quantized_again_only_if_asked(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", **WIDE)
    convert(tmp_path / "m", tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(UnsupportedModel, match="is quantized already") as caught:
        convert(tmp_path / "q8.gguf", tmp_path / "x.gguf", "Q4_0")
    assert "--allow-requantize" in caught.value.hint
    assert not (tmp_path / "x.gguf").exists()
    convert(tmp_path / "q8.gguf", tmp_path / "x.gguf", "Q4_0", allow_requantize=True)
    found = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "x.gguf").tensors}
    source = {tensor.name: tensor for tensor in GGUFReader(tmp_path / "q8.gguf").tensors}
    assert found["blk.0.ffn_up.weight"].tensor_type.name == "Q4_0"
    wide, narrow = (
        dequantize(one["blk.0.ffn_up.weight"].data, one["blk.0.ffn_up.weight"].tensor_type)
        for one in (source, found)
    )
    assert np.abs(narrow - wide).max() < np.abs(wide).max() / 7


def test_a_vector_of_blocks_is_refused(tmp_path: Path) -> None:
    """llama.cpp would abort on it."""
    make_checkpoint(tmp_path / "m", **WIDE)
    convert(tmp_path / "m", tmp_path / "f.gguf", "F32")
    norm = quantize(np.linspace(0.5, 1.5, 256, dtype="<f4"), GGMLQuantizationType.Q8_0)
    reader = GGUFReader(tmp_path / "f.gguf")
    others = [one for one in tensors_of(reader) if one[0] != "output_norm.weight"]
    write(tmp_path / "odd.gguf", reader, [*others, ("output_norm.weight", norm, GGMLQuantizationType.Q8_0)])
    with pytest.raises(UnsupportedModel, match=r"'output_norm.weight' is Q8_0"):
        convert(tmp_path / "odd.gguf", tmp_path / "x.gguf", "Q4_0", allow_requantize=True)


# ------------------------------------------------------------------------------------------ what is wrong


def test_hostile_files_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", num_hidden_layers=1)
    convert(tmp_path / "m", tmp_path / "good.gguf")
    data = (tmp_path / "good.gguf").read_bytes()
    path = tmp_path / "bad.gguf"
    for broken in (
        b"",
        b"GGUF",
        data[:1000],
        data[:-500],
        b"GGML" + data[4:],
        data[:8] + b"\xff" * 8 + data[16:],
    ):
        path.write_bytes(broken)
        with pytest.raises(ModelFileError):
            convert(path, tmp_path / "x.gguf", "Q8_0")
    with pytest.raises(LocalAIError, match="There is no file"):
        convert(tmp_path / "nowhere.gguf", tmp_path / "x.gguf", "Q8_0")
    assert not (tmp_path / "x.gguf").exists()


@pytest.mark.parametrize("name", ["output weight", "out\nput", "öutput.weight", "x\x1b[2J"])
def test_a_tensor_with_a_name_that_is_no_word(tmp_path: Path, name: str) -> None:
    """llama.cpp's plan is read from lines of text: no name may look like one."""
    make_checkpoint(tmp_path / "m", num_hidden_layers=1)
    convert(tmp_path / "m", tmp_path / "good.gguf")
    raw = name.encode()
    old = b"output_norm.weight"
    data = (tmp_path / "good.gguf").read_bytes()
    at = data.index(struct.pack("<Q", len(old)) + old)
    longer = raw + b"x" * (len(old) - len(raw))
    (tmp_path / "bad.gguf").write_bytes(data[: at + 8] + longer + data[at + 8 + len(old) :])
    with pytest.raises(UnsupportedModel, match="has a tensor with the name") as caught:
        convert(tmp_path / "bad.gguf", tmp_path / "x.gguf", "Q8_0")
    assert "\n" not in caught.value.message
    assert "\x1b" not in caught.value.message


def test_another_architecture_is_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", num_hidden_layers=1)
    convert(tmp_path / "m", tmp_path / "good.gguf")
    reader = GGUFReader(tmp_path / "good.gguf")
    add = lambda writer: writer.add_key_value("general.architecture", "gpt2", GGUFValueType.STRING)  # noqa: E731
    write(tmp_path / "x.gguf", reader, tensors_of(reader), add, metadata=False)
    with pytest.raises(UnsupportedModel, match="gpt2"):
        convert(tmp_path / "x.gguf", tmp_path / "y.gguf", "Q8_0")


def test_a_weight_in_a_gguf_that_is_no_number(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", dtype="F16", **WIDE)
    for kind in ("F16", "Q8_0"):
        path = tmp_path / f"{kind}.gguf"
        convert(tmp_path / "m", path, kind)
        (last,) = [t for t in GGUFReader(path).tensors if t.name == "blk.0.ffn_up.weight"]
        data = bytearray(path.read_bytes())
        data[last.data_offset : last.data_offset + 2] = np.array([np.nan], "<f2").tobytes()
        path.write_bytes(data)
        with pytest.raises(LocalAIError, match=r"'blk\.0\.ffn_up\.weight' in .* is not a finite number"):
            convert(path, tmp_path / "x.gguf", "Q4_0", allow_requantize=True)
    assert not (tmp_path / "x.gguf").exists()


def test_a_type_that_cannot_be_read(tmp_path: Path) -> None:
    """llama.cpp has types that the gguf package of its time has not."""
    make_checkpoint(tmp_path / "m", **WIDE)
    convert(tmp_path / "m", tmp_path / "x.gguf", "Q4_0", tensor_types=(("ffn_up", 42),))
    with pytest.raises(UnsupportedModel, match="has weights of type Q2_0, which are not read"):
        convert(tmp_path / "x.gguf", tmp_path / "y.gguf", "Q4_0", allow_requantize=True)


def test_a_mixture_of_experts_is_refused(tmp_path: Path) -> None:
    convert(NANO, tmp_path / "bf16.gguf")
    reader = GGUFReader(tmp_path / "bf16.gguf")

    def add_experts(writer: GGUFWriter) -> None:
        writer.add_tensor("blk.0.ffn_up_exps.weight", np.zeros((2, 4, 32), np.float32))

    write(tmp_path / "x.gguf", reader, tensors_of(reader), add_experts)
    with pytest.raises(UnsupportedModel, match="mixture of experts"):
        convert(tmp_path / "x.gguf", tmp_path / "q.gguf", "Q8_0")
