"""The `general.*` keys: name, origin, licence and size of a model, and how it wants to be sampled."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import fields
from typing import Any

import yaml  # type: ignore[import-untyped]
from gguf import GGUFWriter, Metadata, size_label

from models.supported import SAMPLING, within
from quantize.checkpoint import Checkpoint
from quantize.source import Tensor

_SAMPLING = {
    "top_k": ("top_k", SAMPLING["top_k"]),
    "top_p": ("top_p", SAMPLING["top_p"]),
    "min_p": ("min_p", SAMPLING["min_p"]),
    "temperature": ("temp", SAMPLING["temp"]),
    "repetition_penalty": ("penalty_repeat", (0.0, 10.0)),
}
"""Keys of generation_config.json, the writer's names for them, and what they may be, in the order of
llama.cpp's converter."""


def add_general(writer: GGUFWriter, checkpoint: Checkpoint, planned: Iterable[Tensor], name: str) -> None:
    """Write what is known of the model. `name` "": from the model card, config.json or the folder's name."""
    weights = sum(math.prod(tensor.shape) for tensor in planned)
    writer.add_type("model")
    _add_sampling(writer, checkpoint.generation)
    metadata = _from_card(checkpoint, weights)
    metadata.name = name or metadata.name or checkpoint.folder.absolute().name
    metadata.size_label = metadata.size_label or size_label(weights, 0, 0, 0)
    metadata.set_gguf_meta_model(writer)


def _from_card(checkpoint: Checkpoint, weights: int) -> Metadata:
    """What gguf's heuristics find in README.md, config.json and the folder's name.

    A card in a form that they do not expect is no reason to fail: then nothing is known.
    """
    try:
        metadata = Metadata.load(None, checkpoint.folder.absolute(), None, weights)
    except (yaml.YAMLError, ArithmeticError, AttributeError, LookupError, OSError, TypeError, ValueError):
        return Metadata()
    for field in fields(metadata):
        value = getattr(metadata, field.name)
        setattr(metadata, field.name, None if field.name.startswith("sampling_") else _as_text(value))
    return metadata


def _as_text(value: Any) -> Any:
    """A card's value with its numbers and dates as text, which is all that these keys hold."""
    match value:
        case None | str():
            return value
        case list():
            return [_as_text(one) for one in value]
        case dict():
            return {key: _as_text(one) for key, one in value.items()}
        case _:
            return str(value)


def _add_sampling(writer: GGUFWriter, generation: dict[str, Any]) -> None:
    """What cannot be is left out: it only recommends, and the file would not be taken with it."""
    for key, (name, bounds) in _SAMPLING.items():
        value = generation.get(key)
        if isinstance(value, int | float) and not isinstance(value, bool) and within(value, bounds):
            getattr(writer, f"add_sampling_{name}")(int(value) if key == "top_k" else float(value))
