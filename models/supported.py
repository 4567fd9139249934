"""Whether a well-formed GGUF file is a model that this program runs.

The bounds are those on which llama.cpp was seen to abort (`block_count` of 0 and of 100000, an epsilon below
0) or to answer garbage (an epsilon or a rotation that is no number), and those that its own tables have; they
are checked before native code sees the file. The converter holds config.json to the same ones.
"""

from __future__ import annotations

import math
import re
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final, TypeAlias

from localai.errors import UnsupportedModel
from models.header import Header, Value, printable

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
Range: TypeAlias = tuple[float, float]
"""The least and the greatest value that is possible, both included."""

EPSILON: Final[Range] = (1e-12, 0.1)
"""What keeps a norm from dividing by 0. Models have 1e-5 and 1e-6."""
ROPE_BASE: Final[Range] = (1.0, 1e15)
ROPE_FACTOR: Final[Range] = (1e-3, 1e6)
"""How much longer a context is made; also where its parts begin and end, as a number of rotations."""
ROPE_ATTENTION: Final[Range] = (1e-3, 1e3)
ROPE_EXTRAPOLATION: Final[Range] = (-1.0, 1e3)
"""Below 0 it is not set, says llama.cpp."""

_FLOATS: Final = {
    "attention.layer_norm_rms_epsilon": EPSILON,
    "rope.freq_base": ROPE_BASE,
    "rope.scaling.factor": ROPE_FACTOR,
    "rope.scale_linear": ROPE_FACTOR,
    "rope.scaling.attn_factor": ROPE_ATTENTION,
    "rope.scaling.yarn_ext_factor": ROPE_EXTRAPOLATION,
    "rope.scaling.yarn_attn_factor": ROPE_ATTENTION,
    "rope.scaling.yarn_beta_fast": ROPE_FACTOR,
    "rope.scaling.yarn_beta_slow": ROPE_FACTOR,
}
_ROPE_SCALINGS: Final = ("none", "linear", "yarn", "longrope")

SAMPLING: Final[dict[str, Range]] = {
    "temp": (0.0, 10.0),
    "top_p": (0.0, 1.0),
    "min_p": (0.0, 1.0),
    "top_k": (-1.0, 1 << 24),
}
"""What `general.sampling.*` may recommend. A top_k of -1 is off, as 0 is."""
_THREE = struct.Struct("<3f")
_PART = re.compile(r"(?s)(.*)-(\d{5})-of-(\d{5})\.gguf")


def check_supported(header: Header, path: Path, allow: Collection[str] = ()) -> None:
    """Raise UnsupportedModel unless the file at `path`, with this header, is a model that can be run.

    `allow`: architectures that the user wants to try beside those of R1's family.
    """
    if header.split_count > 1:
        _check_parts(header, path)
    _check_kind(header, path, allow)
    for key, bounds in _BOUNDS.items():
        _check_bounds(header, path, key, bounds, required=True)
    for key, bounds in _OPTIONAL_BOUNDS.items():
        _check_bounds(header, path, key, bounds, required=False)
    _check_floats(header, path)
    _check_heads(header, path)
    if not header.vocabulary:
        raise _impossible(path, "it has no vocabulary")
    if not header.tensors and header.split_count == 1:
        raise _impossible(path, "it has no tensors")


def within(value: float, bounds: Range) -> bool:
    """Whether `value` lies between `bounds` as llama.cpp sees it: in single precision. No NaN does."""
    try:
        low, single, high = _THREE.unpack(_THREE.pack(bounds[0], float(value), bounds[1]))
    except OverflowError:  # Too large for single precision, or a whole number too large for any.
        return False
    return bool(low <= single <= high)


def _check_kind(header: Header, path: Path, allow: Collection[str]) -> None:
    kind = header.text("general.type")
    if kind not in ("", "model"):
        raise UnsupportedModel(f"{path} is not a model but of kind {kind!r}", "Give the model itself.")
    if header.architecture not in (*ARCHITECTURES, *allow):
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


def _check_floats(header: Header, path: Path) -> None:
    """The numbers that need not be whole, of the model itself and of how it wants to be sampled."""
    own = f"{header.architecture}."
    for key, value in header.metadata.items():
        items = value if isinstance(value, tuple) else (value,)
        if key.startswith(own) and any(isinstance(one, float) and not math.isfinite(one) for one in items):
            raise _impossible(path, f"{printable(key)} is not a finite number")
    for key, bounds in _FLOATS.items():
        _check_float(path, key, header.metadata.get(own + key), bounds)
    for key, bounds in SAMPLING.items():
        name = f"general.sampling.{key}"
        _check_float(path, name, header.metadata.get(name), bounds)
    if header.metadata.get(f"{own}rope.scaling.type", "none") not in _ROPE_SCALINGS:
        raise _impossible(path, f"its rope scaling is not one of {', '.join(_ROPE_SCALINGS)}")


def _check_float(path: Path, key: str, value: Value | None, bounds: Range) -> None:
    if value is None:
        return
    number = value if isinstance(value, int | float) and not isinstance(value, bool) else None
    if number is None or not within(number, bounds):
        shown = "no number" if number is None else f"{number:g}"
        raise _impossible(path, f"{key} is {shown}; {bounds[0]:g} to {bounds[1]:g} is possible")


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
