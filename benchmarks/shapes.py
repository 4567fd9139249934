"""Model files of real shapes without real weights, made in a second: their memory is that of real ones.

Types and sizes are those that llama.cpp gives a model of the shape. Behind the header is a hole in the file,
which reads as zeros: it takes no disk, and as much memory as weights once it is loaded.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from math import prod
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, GGUFWriter

from localai.chat.prompt import ASSISTANT, USER
from localai.engine import quants
from models import catalog
from models.catalog import Shape
from models.ggml_types import FILE_TYPES, TENSOR_TYPES

_F32, _F16 = 0, 1
_MARKED = 4
"""llama.cpp's type of tokens that are found in a text before it is cut into others."""


def write(path: Path, name: str, file_type: str, *, layers: int = 0) -> Path:
    """A file at `path` of the shape of the catalogue's model `name`, all its `layers` by default."""
    shape = catalog.find(name).shape
    assert shape is not None
    tensors = _tensors(shape, layers or shape.layers)
    number = next(number for number, known in FILE_TYPES.items() if known == file_type)
    types = _types(shape, tensors, number)
    return _write(path, shape, tensors, types, number, vocabulary=True)


def _tensors(shape: Shape, layers: int) -> dict[str, tuple[int, ...]]:
    """The shape of each tensor, rows first."""
    width, inner, head = shape.embedding_length, shape.feed_forward_length, shape.head_size
    queries, keys = shape.heads * head, shape.kv_heads * head
    ends: dict[str, tuple[int, ...]] = {"token_embd": (shape.vocabulary, width), "output_norm": (width,)}
    if not shape.tied:
        ends["output"] = (shape.vocabulary, width)
    each: dict[str, tuple[int, ...]] = {
        **{"attn_norm": (width,), "ffn_norm": (width,), "ffn_down": (width, inner)},
        **{"ffn_gate": (inner, width), "ffn_up": (inner, width), "attn_output": (width, queries)},
        **{"attn_q": (queries, width), "attn_k": (keys, width), "attn_v": (keys, width)},
    }
    if shape.architecture == "qwen3":
        each |= {"attn_q_norm": (head,), "attn_k_norm": (head,)}
    found = {f"{part}.weight": sizes for part, sizes in ends.items()}
    for layer in range(layers):
        found |= {f"blk.{layer}.{part}.weight": sizes for part, sizes in each.items()}
        if shape.architecture == "qwen2":
            biases = {"attn_q": queries, "attn_k": keys, "attn_v": keys}
            found |= {f"blk.{layer}.{part}.bias": (size,) for part, size in biases.items()}
    return found


def _types(shape: Shape, tensors: Mapping[str, tuple[int, ...]], number: int) -> dict[str, int]:
    """The type of each tensor in a file of the type `number`, as llama.cpp decides."""
    kinds = {name: _F32 if len(sizes) == 1 else _F16 for name, sizes in tensors.items()}
    with tempfile.TemporaryDirectory(prefix="localai-") as folder:
        bare = _write(Path(folder, "bare.gguf"), shape, tensors, kinds, number)
        return quants.plan_types(bare, quants.Recipe(number), {}).types


def _write(
    path: Path,
    shape: Shape,
    tensors: Mapping[str, tuple[int, ...]],
    types: Mapping[str, int],
    number: int,
    *,
    vocabulary: bool = False,
) -> Path:
    """The header, and a hole behind it as long as the data would be."""
    writer = GGUFWriter(path, shape.architecture)
    _add_numbers(writer, shape, sum(name.endswith("attn_q.weight") for name in tensors))
    writer.add_file_type(number)
    if vocabulary:
        _add_vocabulary(writer, shape.vocabulary)
    data = 0
    for name, kind in types.items():
        block = TENSOR_TYPES[kind]
        size = prod(tensors[name]) // block.elements * block.size
        writer.add_tensor_info(name, tensors[name], np.dtype(np.float32), size, GGMLQuantizationType(kind))
        data += GGUFWriter.ggml_pad(size, writer.data_alignment)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_ti_data_to_file()
    writer.close()
    with path.open("r+b") as file:
        header = GGUFWriter.ggml_pad(file.seek(0, 2), writer.data_alignment)
        file.truncate(header + data)
    return path


def _add_numbers(writer: GGUFWriter, shape: Shape, layers: int) -> None:
    writer.add_block_count(layers)
    writer.add_context_length(131_072)
    writer.add_embedding_length(shape.embedding_length)
    writer.add_feed_forward_length(shape.feed_forward_length)
    writer.add_head_count(shape.heads)
    writer.add_head_count_kv(shape.kv_heads)
    writer.add_key_length(shape.head_size)
    writer.add_value_length(shape.head_size)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)


def _add_vocabulary(writer: GGUFWriter, size: int) -> None:
    """As many tokens and merges as R1's, of about the same length; R1's markers are among them."""
    markers = [USER, ASSISTANT, "<think>", "</think>", "<｜end▁of▁sentence｜>", "<｜begin▁of▁sentence｜>"]
    alphabet = _byte_letters()
    plain = [f"t{number:06}" for number in range(size - len(markers) - len(alphabet))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("deepseek-r1-qwen")
    writer.add_token_list([*alphabet, *plain, *markers])
    writer.add_token_types([1] * (size - len(markers)) + [_MARKED] * len(markers))
    writer.add_token_merges([f"{token[:3]} {token[3:]}" for token in plain])
    writer.add_bos_token_id(size - 1)
    writer.add_eos_token_id(size - 2)


def _byte_letters() -> list[str]:
    """The letters that byte-level vocabularies write the 256 bytes with."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = (chr(256 + place) for place in range(256 - len(printable)))
    return [chr(byte) if byte in printable else next(others) for byte in range(256)]
