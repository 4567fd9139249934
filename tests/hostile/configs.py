"""Hostile config.json, generation_config.json and importance matrices."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any

from tests.hostile.case import Case, Make, Scene
from tests.hostile.checkpoints import QUANTIZE, edited, folder, odd, replaced

FILE = "config.json"
WITH = "quantize {files}/checkpoint --type Q4_0 --name made --imatrix {input}"


def config(**fields: Any) -> Make:
    return edited(FILE, lambda value: value.update(fields))


def matrix(data: bytes) -> Make:
    """An importance matrix, beside a checkpoint that is as it should be."""

    def make(scene: Scene) -> Path:
        folder(scene)
        return scene.write("imatrix.dat", data)

    return make


def legacy(count: int, name: bytes, calls: int, values: list[float], claimed: int | None = None) -> Make:
    """A matrix of the old form with one entry."""
    length = len(values) if claimed is None else claimed
    entry = struct.pack("<i", len(name)) + name + struct.pack("<ii", calls, length)
    return matrix(struct.pack("<i", count) + entry + struct.pack(f"<{len(values)}f", *values))


NAME = b"blk.0.ffn_up.weight"
CASES = [
    Case("missing", replaced(FILE, None), QUANTIZE, "no config.json", names="checkpoint"),
    Case("not JSON", replaced(FILE, "{'a'}"), QUANTIZE, "not valid JSON", names=FILE),
    Case("100,000 deep", replaced(FILE, '{"a":' * 100_000), QUANTIZE, "nested", names=FILE),
    Case("a pipe", odd(FILE, "pipe"), QUANTIZE, "pipe", names=FILE),
    Case(
        "the architectures a number",
        config(architectures=7),
        QUANTIZE,
        "does not name the architecture",
        names="",
    ),
    Case(
        "code of its own",
        config(auto_map={"AutoModel": "evil.Model"}, architectures=["Evil"]),
        QUANTIZE,
        "Evil",
        names="",
    ),
    Case("layers of 10^9", config(num_hidden_layers=10**9), QUANTIZE, "num_hidden_layers", names=""),
    Case("layers of -1", config(num_hidden_layers=-1), QUANTIZE, "num_hidden_layers", names=""),
    Case("layers a text", config(num_hidden_layers="5"), QUANTIZE, "num_hidden_layers", names=""),
    Case("heads of 0", config(num_attention_heads=0), QUANTIZE, "num_attention_heads", names=""),
    Case("3 KV heads", config(num_key_value_heads=3), QUANTIZE, "heads that cannot be", names=""),
    Case("2^63 wide", config(hidden_size=1 << 63), QUANTIZE, "hidden_size", names=""),
    Case("a vocabulary of 2^40", config(vocab_size=1 << 40), QUANTIZE, "vocab_size", names=""),
    Case("a vocabulary of 0", config(vocab_size=0), QUANTIZE, "vocab_size", names=""),
    Case("an epsilon of NaN", config(rms_norm_eps=float("nan")), QUANTIZE, "nan for rms_norm_eps", names=""),
    Case(
        "a rope base of infinity",
        config(rope_parameters={"rope_theta": float("inf")}),
        QUANTIZE,
        "inf for rope_theta",
        names="",
    ),
    Case("rope parameters a list", config(rope_parameters=[1]), QUANTIZE, "not an object", names=""),
    Case(
        "an unknown rope",
        config(rope_parameters={"rope_type": "\x1b[2Jevil", "factor": 2}),
        QUANTIZE,
        "rope scaling",
        names="",
    ),
    Case(
        "a context of -5", config(max_position_embeddings=-5), QUANTIZE, "max_position_embeddings", names=""
    ),
    Case("a name that is a path", config(_name_or_path="../../../../etc/passwd"), QUANTIZE, "made", code=0),
    Case(
        "generation nested deep",
        replaced("generation_config.json", "[" * 99_999),
        QUANTIZE,
        "nested",
        names="generation",
    ),
    Case(
        "a temperature of 1e308",
        replaced("generation_config.json", '{"temperature": 1e308}'),
        QUANTIZE,
        "loads and generates",
        code=0,
    ),
    Case("a matrix of nothing", matrix(b""), WITH, "importance matrix|truncated|empty"),
    Case("a matrix of 2^31 entries", legacy(2**31 - 1, NAME, 1, [1.0]), WITH, "truncated|importance matrix"),
    Case("a matrix of -1 entries", legacy(-1, NAME, 1, [1.0]), WITH, "importance matrix"),
    Case("a matrix of 2^31 values", legacy(1, NAME, 1, [1.0], 2**31 - 1), WITH, "truncated|importance"),
    Case("a matrix of NaN", legacy(1, NAME, 1, [float("nan")] * 256), WITH, "not numbers"),
    Case("a matrix of minus one", legacy(1, NAME, 1, [-1.0] * 256), WITH, "negative"),
    Case(
        "a matrix of other columns", legacy(1, NAME, 1, [1.0] * 3), WITH, "3 values for blk.0.ffn_up.weight"
    ),
    Case("a matrix of no calls", legacy(1, NAME, 0, [1.0] * 256), WITH, "loads and generates", code=0),
    Case("a matrix for escapes", legacy(1, b"\x1b[2J\xff", 1, [1.0] * 256), WITH, "not UTF-8"),
    Case("a matrix that is a model", matrix(b"GGUF" + struct.pack("<IQQ", 3, 0, 1 << 60)), WITH, "too many"),
    Case(
        "a matrix that is /dev/zero",
        lambda s: (folder(s), Path("/dev/zero"))[1],
        "quantize {files}/checkpoint --imatrix {input} --name made",
        "is a device",
        code=2,
        names="",
    ),
]
