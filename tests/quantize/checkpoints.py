"""Random checkpoints by name, the same on every machine, and an importance matrix for each.

`RECIPES` maps a name to a function that writes the checkpoint into a folder. llama.cpp's converter takes the
model's name from the folder's, so a folder must be named after its recipe to give the recorded metadata.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUFWriter

from tests.quantize import making

Recipe = Callable[[Path], None]
IMATRIX = "imatrix.gguf"
"""The name under which an importance matrix is given: it stands in the metadata of what is made with it."""

BASE: dict[str, Any] = {
    "hidden_act": "silu",
    "hidden_size": 256,
    "intermediate_size": 256,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "num_hidden_layers": 2,
    "vocab_size": 512,
    "max_position_embeddings": 2048,
    "rms_norm_eps": 1e-6,
    "tie_word_embeddings": False,
    "bos_token_id": 453,
    "eos_token_id": 450,
}
FAMILIES = {"llama": "LlamaForCausalLM", "qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM"}
DTYPES = {"BF16": "bfloat16", "F16": "float16", "F32": "float32"}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
YARN = {
    "rope_type": "yarn",
    "factor": 4.0,
    "original_max_position_embeddings": 32768,
    "attn_factor": 0.8782488562869419,
}
DEEP = {
    "hidden_size": 32,
    "intermediate_size": 32,
    "num_key_value_heads": 1,
    "num_hidden_layers": 80,
    "rope_theta": 1e6,
}


def describe(family: str, dtype: str, **changes: Any) -> dict[str, Any]:
    """A config.json: `changes` to `BASE`."""
    names = {"architectures": [FAMILIES[family]], "model_type": family, "torch_dtype": DTYPES[dtype]}
    return {**BASE, **names, **changes}


CONFIGS: dict[str, dict[str, Any]] = {
    "qwen2-untied": describe("qwen2", "BF16", rope_theta=10000.0, sliding_window=4096),
    "qwen2-tied": describe(
        "qwen2",
        "F16",
        tie_word_embeddings=True,
        intermediate_size=512,
        use_sliding_window=True,
        sliding_window=128,
        max_window_layers=1,
    ),
    "qwen2-deep": describe("qwen2", "BF16", **DEEP),
    "qwen2-layers": describe(
        "qwen2", "BF16", hidden_size=64, intermediate_size=64, num_attention_heads=8, num_hidden_layers=9
    ),
    "qwen3-yarn": describe(
        "qwen3", "BF16", head_dim=128, rope_theta=1e6, rope_scaling=YARN, max_position_embeddings=131072
    ),
    "qwen3-layers": describe(
        "qwen3", "BF16", num_attention_heads=8, head_dim=8, num_hidden_layers=8, tie_word_embeddings=True
    ),
    "llama-scaled": describe(
        "llama", "BF16", rope_parameters={"rope_theta": 500000.0, **LLAMA3}, max_position_embeddings=131072
    ),
    "llama-tied": describe(
        "llama", "F32", tie_word_embeddings=True, num_key_value_heads=4, attention_bias=True, mlp_bias=True
    ),
    "llama-narrow": describe(
        "llama", "F32", hidden_size=160, intermediate_size=224, num_attention_heads=5, num_key_value_heads=1
    ),
    "llama-odd": describe("llama", "F32", hidden_size=96, intermediate_size=88, num_attention_heads=6),
    "llama-deep": describe("llama", "BF16", **DEEP),
    "llama-deep-equal": describe("llama", "BF16", **{**DEEP, "num_key_value_heads": 4}),
}
SHARDS = {"qwen2-untied": 3}


def write_checkpoint(name: str, folder: Path) -> None:
    """Write the checkpoint `name` into `folder`, which is made."""
    config = CONFIGS[name]
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config, indent=2))
    _write_tokenizer(folder)
    dtype = next(stored for stored, said in DTYPES.items() if said == config["torch_dtype"])
    tensors = {}
    for number, (tensor, shape) in enumerate(making.shapes(config).items()):
        values = _weights(tensor, shape, [_seed(name), number])
        bits = making.to_bf16(values) if dtype == "BF16" else values.astype(making.BITS[dtype])
        tensors[tensor] = (dtype, bits)
    if shards := SHARDS.get(name):
        making.save_sharded(folder, tensors, shards)
    else:
        (folder / "model.safetensors").write_bytes(making.safetensors(tensors, {"format": "pt"}))


def _write_tokenizer(folder: Path) -> None:
    """r1-nano's, and as R1's own, it says of the tokens that transformers would else make up."""
    making.copy_tokenizer(folder)
    path = folder / "tokenizer_config.json"
    said = json.loads(path.read_text(encoding="utf-8"))
    said |= {"pad_token": said["eos_token"], "unk_token": None}
    path.write_text(json.dumps(said, ensure_ascii=False), encoding="utf-8")


def write_imatrix(name: str, path: Path) -> None:
    """Write the importance matrix of the recipe `name`: as llama-imatrix would, for all but the embedding."""
    writer = GGUFWriter(path, "")
    writer.kv_data[0].clear()  # no architecture: an imatrix has none
    writer.add_type("imatrix")
    writer.add_array("imatrix.datasets", ["synthetic.txt"])
    writer.add_uint32("imatrix.chunk_count", 8)
    writer.add_uint32("imatrix.chunk_size", 512)
    for number, (tensor, columns) in enumerate(matrices(CONFIGS[name]).items()):
        random = _random([_seed(name), number, 1], 2 * columns).reshape(2, columns)
        mantissa, exponent = (random[0] % 4096 + 1) / 4096, random[1] % 8
        sums = (mantissa * 4096 / 2.0**exponent).astype("<f4")
        writer.add_tensor(f"{tensor}.in_sum2", sums.reshape(1, columns))
        writer.add_tensor(f"{tensor}.counts", np.full((1, 1), 4096, "<f4"))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def matrices(config: dict[str, Any]) -> dict[str, int]:
    """GGUF name and row length of each matrix but the token embedding."""
    wide, middle = config["hidden_size"], config["intermediate_size"]
    heads = config["num_attention_heads"]
    queries = heads * config.get("head_dim", wide // heads)
    found = {} if config["tie_word_embeddings"] else {"output.weight": wide}
    for i in range(config["num_hidden_layers"]):
        for name in ("attn_q", "attn_k", "attn_v", "ffn_gate", "ffn_up"):
            found[f"blk.{i}.{name}.weight"] = wide
        found[f"blk.{i}.attn_output.weight"] = queries
        found[f"blk.{i}.ffn_down.weight"] = middle
    return found


def _weights(name: str, shape: tuple[int, ...], seed: list[int]) -> np.ndarray:
    """About normal values; norms near 1, and a few rows of a matrix in which all values are the same.

    Each is a sum of integers scaled in double precision, so that no machine's libm has a say.
    """
    quarters = _random(seed, int(np.prod(shape))).view("<u2").reshape(*shape, 4)
    normal = (quarters.sum(axis=-1, dtype=np.int64) - 2 * 65535) / 37837.0
    if len(shape) == 1:
        return (normal / 8 + (1 if "norm" in name else 0)).astype("<f4")
    rows = np.arange(shape[0], dtype=np.int64)[:, None]
    values = normal * ((rows % 7 + 1) / 64.0)
    values[1], values[2] = 0.0, 0.03125
    return values.astype("<f4")


def _random(seed: list[int], count: int) -> np.ndarray:
    """`count` random 64-bit numbers; numpy guarantees this stream, other than that of its distributions."""
    return np.random.PCG64(seed).random_raw(count).astype("<u8")


def _seed(name: str) -> int:
    return int.from_bytes(name.encode(), "little") % 2**64


RECIPES: dict[str, Recipe] = {name: partial(write_checkpoint, name) for name in CONFIGS}
