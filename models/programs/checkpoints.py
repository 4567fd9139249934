"""Whether a folder of another program's is a checkpoint that `localai quantize` can make a model of."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any, Final

import msgspec

from models.header import printable
from models.programs import reading
from models.programs.found import Found

CONVERTIBLE: Final = ("LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM")
"""As `quantize.architectures` has them, which a test compares: this layer cannot ask it."""

_INDEX: Final = "model.safetensors.index.json"
_MAX_INDEX: Final = 32 << 20


class _Config(msgspec.Struct):
    architectures: list[str] | None = None
    quantization: Any = None
    quantization_config: Any = None


class _Index(msgspec.Struct):
    weight_map: dict[str, str]


def checkpoint_in(folder: Path, names: Collection[str], program: str, called: str) -> Found | None:
    """The checkpoint in `folder`, whose files have those `names`; None if there is none."""
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    if "config.json" not in names or not weights:
        return None
    sizes = (reading.size_of(folder / name) for name in weights)
    return Found(
        program=program,
        called=printable(called),
        paths=(folder,),
        size=sum(size for size in sizes if size is not None),
        kind="checkpoint",
        problem=_problem(folder, names),
    )


def _problem(folder: Path, names: Collection[str]) -> str:
    config = reading.json_of(folder / "config.json", _Config)
    architecture = (config.architectures or [""])[0] if config else ""
    if config is None or not architecture:
        return "its config.json does not name an architecture"
    if architecture not in CONVERTIBLE:
        return f"models of the architecture {printable(architecture, 60)} cannot be converted"
    if config.quantization is not None or config.quantization_config is not None:
        return "it is quantized already, in a way that cannot be converted"
    if _INDEX in names:
        index = reading.json_of(folder / _INDEX, _Index, _MAX_INDEX)
        if index is None or not set(index.weight_map.values()) <= set(names):
            return "not all of its files are there"
    return "" if "tokenizer.json" in names else "it has no tokenizer.json"
