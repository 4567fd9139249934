"""Checkpoints made on the spot: the safetensors format written independently of the code under test."""

from __future__ import annotations

import json
import math
import shutil
import struct
from pathlib import Path

import numpy as np

import models
from quantize.safetensors import StoredTensor

NANO = Path(models.__file__).parent / "builtin" / "r1-nano"
BITS = {"BF16": "<u2", "F16": "<f2", "F32": "<f4", "F8_E4M3": "u1", "I64": "<i8"}


def safetensors(tensors: dict[str, tuple[str, np.ndarray]], metadata: dict[str, str] | None = None) -> bytes:
    """The bytes of a safetensors file; BF16 arrays are given as their bits (uint16)."""
    header: dict[str, object] = {"__metadata__": metadata} if metadata else {}
    data = b""
    for name, (dtype, array) in tensors.items():
        raw = np.ascontiguousarray(array, BITS[dtype]).tobytes()
        header[name] = {
            "dtype": dtype,
            "shape": list(array.shape),
            "data_offsets": [len(data), len(data) + len(raw)],
        }
        data += raw
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    return struct.pack("<Q", len(text)) + text + data


def names_in(folder: Path) -> list[str]:
    """The names of everything in `folder`, hidden files, too."""
    return sorted(entry.name for entry in folder.iterdir())


def raw_file(header: object, data: bytes = b"", length: int | None = None) -> bytes:
    """A file with a header of one's own making; `header` is JSON text or what becomes it."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if length is None else length) + text + data


def to_bf16(values: np.ndarray) -> np.ndarray:
    """The bits of `values` cut to BF16."""
    return (values.astype("<f4").view("<u4") >> 16).astype("<u2")


def from_bf16(bits: np.ndarray) -> np.ndarray:
    return (bits.astype("<u4") << 16).view("<f4")


def save_sharded(folder: Path, tensors: dict[str, tuple[str, np.ndarray]], shards: int) -> None:
    """Write `tensors` as shards with an index."""
    names = list(tensors)
    weight_map = {}
    for i in range(shards):
        file = f"model-{i + 1:05d}-of-{shards:05d}.safetensors"
        part = {name: tensors[name] for name in names[i::shards]}
        (folder / file).write_bytes(safetensors(part, {"format": "pt"}))
        weight_map |= dict.fromkeys(part, file)
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))


def copy_tokenizer(folder: Path, source: Path = NANO) -> None:
    for name in ("tokenizer.json", "tokenizer_config.json", "generation_config.json"):
        if (source / name).is_file():
            shutil.copyfile(source / name, folder / name)


def make_checkpoint(
    folder: Path, shards: int = 1, dtype: str = "BF16", seed: int = 0, **changes
) -> dict[str, np.ndarray]:
    """Write a random model with r1-nano's tokenizer; `changes` go into config.json.

    Returns the values of its tensors, F32, by their names in the checkpoint.
    """
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "hidden_size": 64,
        "intermediate_size": 96,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
        "num_hidden_layers": 2,
        "vocab_size": 512,
        "max_position_embeddings": 1024,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10000.0,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "bos_token_id": 1,
        "eos_token_id": 450,
        "torch_dtype": "bfloat16",
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    copy_tokenizer(folder)
    random = np.random.default_rng(seed)
    values = {
        name: (random.standard_normal(shape) / 8).astype("<f4") for name, shape in shapes(config).items()
    }
    stored = {
        name: (dtype, to_bf16(array) if dtype == "BF16" else array.astype(BITS[dtype]))
        for name, array in values.items()
    }
    if shards == 1:
        (folder / "model.safetensors").write_bytes(safetensors(stored, {"format": "pt"}))
    else:
        save_sharded(folder, stored, shards)
    return {
        name: from_bf16(array) if dtype == "BF16" else array.astype("<f4")
        for name, (_, array) in stored.items()
    }


def shapes(config: dict) -> dict[str, tuple[int, ...]]:
    """Name and shape of each tensor that transformers would save for `config`."""
    wide, middle, vocab = config["hidden_size"], config["intermediate_size"], config["vocab_size"]
    size = config.get("head_dim") or wide // config["num_attention_heads"]
    queries, keys = config["num_attention_heads"] * size, config["num_key_value_heads"] * size
    found: dict[str, tuple[int, ...]] = {"model.embed_tokens.weight": (vocab, wide)}
    for i in range(config["num_hidden_layers"]):
        layer = f"model.layers.{i}"
        for name, shape in {
            "input_layernorm": (wide,),
            "self_attn.q_proj": (queries, wide),
            "self_attn.k_proj": (keys, wide),
            "self_attn.v_proj": (keys, wide),
            "self_attn.o_proj": (wide, queries),
            "post_attention_layernorm": (wide,),
            "mlp.gate_proj": (middle, wide),
            "mlp.up_proj": (middle, wide),
            "mlp.down_proj": (wide, middle),
        }.items():
            found[f"{layer}.{name}.weight"] = shape
        (family,) = config["architectures"]
        for name, rows in {"q_proj": queries, "k_proj": keys, "v_proj": keys}.items():
            if family == "Qwen2ForCausalLM" or config.get("attention_bias"):
                found[f"{layer}.self_attn.{name}.bias"] = (rows,)
        if config.get("attention_bias"):
            found[f"{layer}.self_attn.o_proj.bias"] = (wide,)
        if config.get("mlp_bias"):
            for name, rows in {"gate_proj": middle, "up_proj": middle, "down_proj": wide}.items():
                found[f"{layer}.mlp.{name}.bias"] = (rows,)
        if family == "Qwen3ForCausalLM":
            for name in ("q_norm", "k_norm"):
                found[f"{layer}.self_attn.{name}.weight"] = (size,)
    found["model.norm.weight"] = (wide,)
    if not config["tie_word_embeddings"]:
        found["lm_head.weight"] = (vocab, wide)
    return found


def rows_of(tensor: StoredTensor, start: int, stop: int) -> np.ndarray:
    """The rows `start` to `stop` of a tensor in a file (elements, where it has one dimension)."""
    item = np.dtype(BITS[tensor.dtype])
    row = math.prod(tensor.shape[1:]) * item.itemsize
    data = tensor.file.read_bytes()[tensor.offset + start * row : tensor.offset + stop * row]
    return np.frombuffer(data, item).reshape(stop - start, *tensor.shape[1:])
