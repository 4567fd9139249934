"""Whether a well-formed GGUF file is a model that this program runs.

The bounds are those on which llama.cpp was seen to abort (`block_count` of 0 and of 100000) and those that
its own tables have; they are checked before native code sees the file.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Final

from localai.errors import UnsupportedModel
from models.header import Header

ARCHITECTURES: Final = ("llama", "qwen2", "qwen3")
"""R1's distilled models are Qwen2, Llama and Qwen3; small models of these families run as well."""

_BOUNDS: Final = {
    "block_count": (1, 512),
    "embedding_length": (1, 1 << 17),
    "context_length": (1, 1 << 27),
    "attention.head_count": (1, 1024),
}
_OPTIONAL_BOUNDS: Final = {
    "feed_forward_length": (1, 1 << 21),
    "attention.head_count_kv": (1, 1024),
    "attention.key_length": (1, 1 << 16),
    "attention.value_length": (1, 1 << 16),
    "rope.dimension_count": (1, 1 << 16),
    "expert_count": (0, 512),
    "expert_used_count": (0, 512),
    "vocab_size": (1, 1 << 24),
}
_PART = re.compile(r"(?s)(.*)-(\d{5})-of-(\d{5})\.gguf")


def check_supported(header: Header, path: Path) -> None:
    """Raise UnsupportedModel unless the file at `path`, with this header, is a model that can be run."""
    if header.split_count > 1:
        _check_parts(header, path)
    _check_kind(header, path)
    for key, bounds in _BOUNDS.items():
        _check_bounds(header, path, key, bounds, required=True)
    for key, bounds in _OPTIONAL_BOUNDS.items():
        _check_bounds(header, path, key, bounds, required=False)
    _check_heads(header, path)
    if not header.vocabulary:
        raise _impossible(path, "it has no vocabulary")
    if not header.tensors and header.split_count == 1:
        raise _impossible(path, "it has no tensors")


def _check_kind(header: Header, path: Path) -> None:
    kind = header.text("general.type")
    if kind not in ("", "model"):
        raise UnsupportedModel(f"{path} is not a model but of kind {kind!r}", "Give the model itself.")
    if header.architecture not in ARCHITECTURES:
        found = f"the architecture {header.architecture!r}" if header.architecture else "no architecture"
        raise UnsupportedModel(f"{path} has {found}", f"Those that run: {', '.join(ARCHITECTURES)}.")


def _check_bounds(header: Header, path: Path, key: str, bounds: tuple[int, int], *, required: bool) -> None:
    """A number, or one for each layer, must lie between `bounds`, both included."""
    value = header.metadata.get(f"{header.architecture}.{key}")
    if value is None and not required:
        return
    items = value if isinstance(value, tuple) and value else (value,)
    low, high = bounds
    for item in items:
        if not isinstance(item, int) or isinstance(item, bool) or not low <= item <= high:
            shown = item if isinstance(item, int | float) else "missing or not a number"
            raise _impossible(path, f"{key} is {shown}; {low} to {high} is possible")


def _check_heads(header: Header, path: Path) -> None:
    heads, kept = header.head_count, header.head_count_kv
    if header.own("attention.key_length") == 0 and header.embedding_length % heads:
        raise _impossible(path, f"{header.embedding_length} numbers do not divide over {heads} heads")
    if heads % kept:
        raise _impossible(path, f"{heads} heads cannot share {kept} KV heads")


def _check_parts(header: Header, path: Path) -> None:
    """llama.cpp opens the first part and finds the others beside it by their names."""
    match = _PART.fullmatch(path.name)
    if match is None or int(match[3]) != header.split_count:
        raise UnsupportedModel(
            f"{path} is part of a model in {header.split_count} files, but is not named as such",
            f"Name the parts NAME-00001-of-{header.split_count:05}.gguf and so on.",
        )
    parts = [
        path.with_name(f"{match[1]}-{number:05}-of-{match[3]}.gguf")
        for number in range(1, header.split_count + 1)
    ]
    for part in parts:
        if not part.is_file():
            raise UnsupportedModel(f"{part} is missing: the model is in {len(parts)} files", "Fetch it.")
    if header.integer("split.no") != 0 or int(match[2]) != 1:
        raise UnsupportedModel(f"{path} is not the first part of its model", f"Open {parts[0]}")


def _impossible(path: Path, what: str) -> UnsupportedModel:
    return UnsupportedModel(
        f"{path} does not describe a model that can run: {what}", "Fetch or make the file again."
    )
