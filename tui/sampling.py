"""The sampling that a conversation or a preset has of its own: as stored, and as typed into fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final

import msgspec

from localai.engine.settings import Sampling
from localai.errors import UsageError

FIELDS: Final[dict[str, tuple[str, type[float] | type[int], float, float]]] = {
    "temperature": ("Temperature", float, 0, 5),
    "top_p": ("Top-p", float, 0, 1),
    "top_k": ("Top-k", int, 0, 100_000),
    "min_p": ("Min-p", float, 0, 1),
    "repeat_penalty": ("Repeat penalty", float, 0.1, 10),
    "seed": ("Seed", int, 0, 2**32 - 1),
}
"""What can be set, by its name in `Sampling`: the name for people, the type, the least and the most."""


def sampling_of(settings: Mapping[str, Any]) -> Sampling:
    """The stored settings; what is not understood, such as from a newer version, is left out."""
    known: dict[str, Any] = {}
    for name, value in settings.items():
        try:
            msgspec.convert({name: value}, Sampling)
        except msgspec.ValidationError:
            continue
        known[name] = value
    return msgspec.convert(known, Sampling)


def parse(texts: Mapping[str, str]) -> dict[str, Any]:
    """The settings that were typed, by their names; an empty text leaves one to the model.

    Raises `UsageError` for what is no number or out of range.
    """
    found: dict[str, Any] = {}
    for name, typed in texts.items():
        label, kind, least, most = FIELDS[name]
        text = typed.strip().replace(",", ".")
        if not text:
            continue
        try:
            value = kind(text)
        except ValueError:
            value = kind(-1)
        if not least <= value <= most:
            whole = "a whole number" if kind is int else "a number"
            raise UsageError(f"{label} is {whole} from {least:g} to {most:,g}")
        found[name] = value
    return found
