"""Reading well-formed GGUF headers."""

from __future__ import annotations

import json
import lzma
import struct
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader, GGUFValueType, GGUFWriter

from localai.errors import ModelFileError, ModelNotFound, UnsupportedModel
from models.gguf import ArrayInfo, TensorInfo, check_supported, read_header
from models.header import TokenFacts, printable

R1 = Path(__file__).parents[1] / "data" / "r1-tokenizer"

MakeModel = Callable[..., Path]

GOLDEN = bytes.fromhex(
    "47475546 03000000 0100000000000000 0400000000000000"  # GGUF, version 3, 1 tensor, 4 entries
    "1400000000000000 67656e6572616c2e617263686974656374757265 08000000 0500000000000000 7177656e32"
    "1100000000000000 67656e6572616c2e66696c655f74797065 04000000 07000000"  # general.file_type: 7
    "0100000000000000 61 09000000 05000000 0200000000000000 ffffffff 02000000"  # a: int32 [-1, 2]
    "0100000000000000 62 07000000 01"  # b: true
    "0100000000000000 77 02000000 2000000000000000 0200000000000000 08000000 0000000000000000"  # w
)


def golden(tmp_path: Path, version: int = 3) -> Path:
    path = tmp_path / "golden.gguf"
    head = GOLDEN[:4] + struct.pack("<I", version) + GOLDEN[8:]
    path.write_bytes(head + bytes(-len(head) % 32) + bytes(68))
    return path


@pytest.mark.parametrize("version", [2, 3])
def test_golden_bytes(tmp_path: Path, version: int) -> None:
    header = read_header(golden(tmp_path, version))
    assert header.version == version
    assert header.metadata == {
        "general.architecture": "qwen2",
        "general.file_type": 7,
        "a": (-1, 2),
        "b": True,
    }
    assert header.tensors == [TensorInfo("w", (32, 2), 8, "Q8_0", 0, 68)]
    assert (header.alignment, header.data_offset) == (32, len(GOLDEN) + -len(GOLDEN) % 32)
    assert header.file_size == header.data_offset + 68
    assert (header.architecture, header.file_type, header.parameters) == ("qwen2", "Q8_0", 64)
    assert header.tensor_bytes == 68


def test_a_model_says_what_it_is(make_model: MakeModel) -> None:
    header = read_header(make_model(title="Tiny", architecture="qwen2"))
    assert (header.architecture, header.name, header.license) == ("qwen2", "Tiny", "apache-2.0")
    assert (header.file_type, header.parameters) == ("F32", 9 * 64)
    assert (header.context_trained, header.block_count, header.embedding_length) == (4096, 1, 64)
    assert (header.head_count, header.head_count_kv) == (4, 2)
    assert header.kv_bytes_per_token == 1 * 2 * 2 * 16 * 2
    assert header.chat_template == "{{ messages }}"
    assert header.metadata["tokenizer.ggml.tokens"] == ArrayInfo("string", 100)
    assert header.metadata["tokenizer.ggml.token_type"] == (1,) * 100
    assert not header.token_facts.twice
    assert not header.token_facts.r1_markers
    assert header.vocabulary == 100
    assert header.split_count == 1
    check_supported(header, Path("tiny.gguf"))


def test_the_gguf_packages_reader_finds_the_same_tensors(make_model: MakeModel) -> None:
    path = make_model()
    header, theirs = read_header(path), GGUFReader(path)
    assert [(tensor.name, list(tensor.shape), tensor.type, tensor.size) for tensor in header.tensors] == [
        (tensor.name, tensor.shape.tolist(), int(tensor.tensor_type), int(tensor.n_bytes))
        for tensor in theirs.tensors
    ]
    assert header.data_offset == theirs.data_offset
    offsets = [header.data_offset + tensor.offset for tensor in header.tensors]
    assert offsets == [int(tensor.data_offset) for tensor in theirs.tensors]


def test_every_kind_of_value(tmp_path: Path) -> None:
    path = tmp_path / "values.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_uint8("u8", 255)
    writer.add_int8("i8", -128)
    writer.add_uint16("u16", 65535)
    writer.add_int16("i16", -32768)
    writer.add_uint32("u32", 2**32 - 1)
    writer.add_int32("i32", -(2**31))
    writer.add_float32("f32", 0.5)
    writer.add_uint64("u64", 2**64 - 1)
    writer.add_int64("i64", -(2**63))
    writer.add_float64("f64", 0.1)
    writer.add_bool("no", False)
    writer.add_string("text", "e\u0301 \U0001f600")
    writer.add_array("languages", ["en", "de"])
    writer.add_array("short", list(range(512)))
    writer.add_array("long", list(range(513)))
    writer.add_array("few", [str(number) for number in range(64)])
    writer.add_array("many", [str(number) for number in range(65)])
    writer.add_string("long text", "x" * (1 << 20))
    writer.add_string("too long a text", "x" * ((1 << 20) + 1))
    writer.add_key_value("floats", [0.5] * 1000, GGUFValueType.ARRAY, GGUFValueType.FLOAT32)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    metadata = read_header(path).metadata
    assert metadata.pop("general.architecture") == "llama"
    assert metadata == {
        "u8": 255,
        "i8": -128,
        "u16": 65535,
        "i16": -32768,
        "u32": 2**32 - 1,
        "i32": -(2**31),
        "f32": 0.5,
        "u64": 2**64 - 1,
        "i64": -(2**63),
        "f64": 0.1,
        "no": False,
        "text": "e\u0301 \U0001f600",
        "languages": ("en", "de"),
        "short": tuple(range(512)),
        "long": ArrayInfo("int32", 513),
        "few": tuple(str(number) for number in range(64)),
        "many": ArrayInfo("string", 65),
        "long text": "x" * (1 << 20),
        "too long a text": ArrayInfo("byte", (1 << 20) + 1),
        "floats": ArrayInfo("float32", 1000),
    }


def test_a_file_type_that_is_not_stated_is_the_one_of_most_bytes(tmp_path: Path) -> None:
    path = tmp_path / "untyped.gguf"
    writer = GGUFWriter(path, "llama")
    writer.add_tensor("norm", np.ones(32, dtype=np.float32))
    writer.add_tensor("weights", np.ones((32, 32), dtype=np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    assert read_header(path).file_type == "F16"


def test_a_large_vocabulary_is_passed_over_quickly(tmp_path: Path) -> None:
    path = tmp_path / "large.gguf"
    tokens = b"".join(struct.pack("<Q", len(word)) + word for word in (b"t%d" % n for n in range(151_665)))
    key = b"tokenizer.ggml.tokens"
    array = struct.pack("<IIQ", 9, 8, 151_665) + tokens
    path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + array)
    header = read_header(path)
    assert header.vocabulary == 151_665
    assert header.token_facts == TokenFacts()


@pytest.mark.parametrize("size", [1000, 600_000, 3_000_000])
def test_tokens_that_lie_across_what_is_read_at_once(tmp_path: Path, size: int) -> None:
    path = tmp_path / "long.gguf"
    words = [b"%d" % number + bytes(size) for number in range(5)] + [b"a", b"b"]
    key = b"tokenizer.ggml.tokens"
    for more, twice in ((b"c", ""), (b"b", "b")):
        tokens = b"".join(struct.pack("<Q", len(word)) + word for word in [*words, more])
        array = struct.pack("<IIQ", 9, 8, len(words) + 1) + tokens
        path.write_bytes(b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, len(key)) + key + array)
        header = read_header(path)
        assert (header.vocabulary, header.token_facts.twice) == (8, twice)


def test_the_real_r1_vocabulary(tmp_path: Path) -> None:
    """Its header is read in about the time that Python takes for the same words as JSON."""
    source = lzma.decompress((R1 / "tokenizer.json.xz").read_bytes())
    start = time.process_time()
    tokenizer = json.loads(source)
    json_s = time.process_time() - start
    model, added = tokenizer["model"], [token["content"] for token in tokenizer["added_tokens"]]
    path = tmp_path / "r1.gguf"
    writer = GGUFWriter(path, "qwen2")
    tokens = [*sorted(model["vocab"], key=model["vocab"].__getitem__), *added]
    writer.add_token_list(tokens)
    writer.add_token_merges(
        [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    )
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.close()
    start = time.process_time()
    header = read_header(path)
    assert time.process_time() - start < 3 * json_s
    assert header.vocabulary == len(tokens)
    assert header.token_facts == TokenFacts(twice="", all_bytes=False, r1_markers=True)


@pytest.mark.parametrize(
    ("name", "content", "words"),
    [
        ("empty.gguf", b"", "is empty"),
        ("short.gguf", b"GG", "not a GGUF"),
        ("page.gguf", b"<!DOCTYPE html><html>", "not a GGUF"),
        ("model.gguf", b"PK\x03\x04" + bytes(60), "pickled checkpoint"),
        ("model.gguf", b"\x80\x02}q\x00(X" + bytes(60), "pickled checkpoint"),
        ("pytorch_model.bin", b"anything at all", "pickled checkpoint"),
        ("model.pt", b"anything at all", "pickled checkpoint"),
        ("model.safetensors", bytes(64), "localai quantize"),
        ("renamed.gguf", struct.pack("<Q", 40) + b'{"w":{}}' + bytes(60), "localai quantize"),
        ("old.gguf", b"tjgg" + bytes(60), "older than GGUF"),
        ("pointer.gguf", b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        ("v1.gguf", b"GGUF" + struct.pack("<I", 1) + bytes(60), "GGUF version 1"),
        ("v4.gguf", b"GGUF" + struct.pack("<I", 4) + bytes(60), "GGUF version 4"),
        ("big.gguf", b"GGUF" + struct.pack(">I", 3) + bytes(60), "big-endian"),
    ],
)
def test_what_is_not_a_gguf_is_named(tmp_path: Path, name: str, content: bytes, words: str) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ModelFileError, match=words) as caught:
        read_header(path)
    assert str(path) in caught.value.message
    assert caught.value.hint


def test_truncated_data_is_counted(make_model: MakeModel) -> None:
    path = make_model()
    header = read_header(path)
    last = header.tensors[-1]
    end = header.data_offset + last.offset + last.size
    path.write_bytes(path.read_bytes()[: end - 5])
    with pytest.raises(ModelFileError, match=f"truncated: 5 bytes of {end} are missing"):
        read_header(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match="There is no file"):
        read_header(tmp_path / "nothing.gguf")
    with pytest.raises(ModelNotFound, match="There is no file"):
        read_header(golden(tmp_path) / "below.gguf")
    with pytest.raises(ModelFileError, match="is not a file"):
        read_header(tmp_path)
    with pytest.raises(ModelFileError, match="is not a file"):
        read_header(Path("a\0b"))


def test_text_from_a_file_cannot_reach_the_terminal(make_model: MakeModel) -> None:
    header = read_header(make_model(title="\x1b[31mred\x07\n\u202e" + "x" * 500))
    assert header.name.isprintable()
    assert len(header.name) == 200
    assert printable("a\tb\n c") == "a b c"


def test_split_models_want_all_their_parts(make_model: MakeModel) -> None:
    first = make_model("m-00001-of-00002.gguf", split=(0, 2))
    with pytest.raises(UnsupportedModel, match=r"m-00002-of-00002\.gguf is missing"):
        check_supported(read_header(first), first)
    second = make_model("m-00002-of-00002.gguf", split=(1, 2))
    check_supported(read_header(first), first)
    with pytest.raises(UnsupportedModel, match="not the first part"):
        check_supported(read_header(second), second)
    other = make_model("renamed.gguf", split=(0, 2))
    with pytest.raises(UnsupportedModel, match="is not named as such"):
        check_supported(read_header(other), other)
