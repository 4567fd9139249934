"""Whether a well-formed GGUF file is a model that this program runs.

The bounds are those on which llama.cpp aborts (`block_count` of 0 and of 100000, an epsilon below 0, heads of
several sizes, a token that is there twice) or answers garbage (an epsilon or a rotation that is no number),
and those that its own tables have; they are checked before native code sees the file. The converter holds
config.json to the same ones.

Architectures beside R1's run only where the user allows it: of them, less is known and less is checked.
"""

from __future__ import annotations

import math
import re
import shlex
import struct
from collections.abc import Collection
from pathlib import Path
from typing import Final, TypeAlias

from localai import policy
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
    "rope.scaling.original_context_length": (1, 1 << 27),
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
_TOKENIZERS: Final = ("gpt2", "llama")
"""Byte pairs and SentencePiece; R1's models have the former."""
_NO_TOKENIZERS: Final = ("none", "no_vocab", "test")
_NOT_WEIGHTS: Final = frozenset({"Q8_1", "Q8_K", "I8", "I16", "I32", "I64", "F64"})
"""Tensor types that matrices can't be multiplied by."""
_THREE = struct.Struct("<3f")
_PART = re.compile(r"(?s)(.*)-(\d{5})-of-(\d{5})\.gguf")


def check_supported(header: Header, path: Path, allow: Collection[str] = ()) -> None:
    """Raise UnsupportedModel unless the file at `path`, with this header, is a model that can be run.

    `allow` names architectures beside `ARCHITECTURES` that the user lets run.
    """
    if header.split_count > 1:
        _check_parts(header, path)
    _check_kind(header, path, allow)
    known = header.architecture in ARCHITECTURES
    for key, bounds in _BOUNDS.items():
        _check_bounds(header, path, key, bounds, required=known or key != "attention.head_count")
    for key, bounds in _OPTIONAL_BOUNDS.items():
        _check_bounds(header, path, key, bounds, required=False)
    _check_floats(header, path)
    _check_experts(header, path)
    _check_vocabulary(header, path)
    if not header.tensors and header.split_count == 1:
        raise _impossible(path, "it has no tensors")
    if known:
        _check_family(header, path)


def check_may_allow(allow: Collection[str]) -> None:
    """PolicyError if `allow` has an architecture beside `ARCHITECTURES`, and the organization forbids that.

    For the app: a worker may not read the policy.
    """
    for name in allow:
        if name not in ARCHITECTURES:
            what = f"models of the architecture {printable(name)!r} cannot be run"
            policy.current().check("forbid.unknown_architectures", what)


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
    name = header.architecture
    if not name:
        raise UnsupportedModel(f"{path} has no architecture", f"Those that run: {', '.join(ARCHITECTURES)}.")
    if name not in ARCHITECTURES and name not in allow:
        raise UnsupportedModel(
            f"{path} has the architecture {name!r}",
            f"Those of R1's models run: {', '.join(ARCHITECTURES)}. If you trust the file, allow this one: "
            f"--allow-architecture {shlex.quote(name)}",
        )


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


def _check_experts(header: Header, path: Path) -> None:
    """As llama.cpp asserts it."""
    experts, used = header.own("expert_count"), max(_each(header, "expert_used_count"), default=0)
    groups, groups_used = header.own("expert_group_count"), header.own("expert_group_used_count")
    if used > experts or bool(experts) != bool(used) or groups < 0 or (groups and groups >= experts):
        raise _impossible(path, f"{used} of {experts} experts in {groups} groups are used")
    if groups > 1 and (experts % groups or not 0 < groups_used < groups):
        raise _impossible(path, f"{groups_used} of {groups} groups of {experts} experts are used")


def _check_vocabulary(header: Header, path: Path) -> None:
    kind = header.metadata.get("tokenizer.ggml.model")
    if not header.vocabulary:
        raise _impossible(path, "it has no vocabulary")
    if header.token_facts.twice:
        raise _impossible(path, f"its token {header.token_facts.twice!r} is there twice")
    known = header.architecture in ARCHITECTURES
    if isinstance(kind, str) and (kind in _NO_TOKENIZERS or (known and kind not in _TOKENIZERS)):
        raise _impossible(
            path, f"its tokenizer is {printable(kind)!r}; {' or '.join(_TOKENIZERS)} is possible"
        )
    if kind == "llama" and not header.token_facts.all_bytes:
        raise _impossible(path, "its vocabulary has no token for some bytes")


def _check_family(header: Header, path: Path) -> None:
    """What all models of `ARCHITECTURES` have in common, and llama.cpp asserts while it computes."""
    _check_heads(header, path)
    if header.metadata.get(f"{header.architecture}.attention.causal", True) is not True:
        raise _impossible(path, "it reads backwards, which models that write do not")
    for key in ("nextn_predict_layers", "pooling_type"):
        if header.metadata.get(f"{header.architecture}.{key}", 0) != 0:
            raise _impossible(path, f"it has {key}")
    for tensor in header.tensors:
        single = len(tensor.shape) == 1
        if (single and tensor.type_name != "F32") or tensor.type_name in _NOT_WEIGHTS:
            raise _impossible(path, f"its tensor {printable(tensor.name)!r} is {tensor.type_name}")


def _check_heads(header: Header, path: Path) -> None:
    """Heads are of one, even size, and share the KV heads of their layer."""
    all_heads, all_kept = _each(header, "attention.head_count"), _each(header, "attention.head_count_kv")
    width, layers = header.embedding_length, header.block_count
    for counts in (all_heads, all_kept):
        if len(counts) not in (0, 1, layers):
            raise _impossible(path, f"it has {layers} layers, but heads for {len(counts)}")
    for number in range(layers):
        heads = all_heads[number % len(all_heads)]
        kept = all_kept[number % len(all_kept)] if all_kept else heads
        if heads % kept:
            raise _impossible(path, f"{heads} heads cannot share {kept} KV heads")
    if header.own("attention.key_length") == 0 and width % all_heads[0]:
        raise _impossible(path, f"{width} numbers do not divide over {all_heads[0]} heads")
    size = header.own("attention.key_length", width // all_heads[0])
    sizes = {
        size,
        header.own("attention.value_length", width // all_heads[0]),
        header.own("rope.dimension_count", size),
    }
    if len(sizes) > 1 or size % 2:
        raise _impossible(path, f"its heads have the sizes {', '.join(map(str, sorted(sizes)))}")


def _each(header: Header, key: str) -> tuple[int, ...]:
    """The numbers at `key`, one for all layers or one for each; empty if there are none."""
    value = header.metadata.get(f"{header.architecture}.{key}", ())
    items = value if isinstance(value, tuple) else (value,)
    return tuple(item for item in items if isinstance(item, int) and not isinstance(item, bool))


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
