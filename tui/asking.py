"""What the screens ask our own command line: what a model would be in other types, what others hold."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from localai.errors import ModelError, QuantizeError
from tui import command
from tui.model_entry import ModelEntry


class Need(msgspec.Struct, frozen=True):
    """The memory that a model takes to run with so many tokens of context."""

    context: int
    bytes: int
    fits: bool
    """Whether a model may take so much here."""


class TypeForecast(msgspec.Struct, frozen=True):
    """A type that a model could have."""

    type: str
    size: int
    """Bytes of the file."""
    bits_per_weight: float
    sensible: bool
    """Whether it makes sense for this model."""
    memory: list[Need]


class Recommended(msgspec.Struct, frozen=True):
    """The type to take, and why."""

    type: str
    reason: str


class Forecast(msgspec.Struct, frozen=True):
    """What a model would be in each type. Of docs/json.md, what the screen needs."""

    source_type: str
    types: list[TypeForecast]
    """Best first."""
    recommended: Recommended


class Found(msgspec.Struct, frozen=True):
    """A model of another program's. Of docs/json.md, what the screen needs."""

    name: str
    program: str
    called: str
    kind: str
    type: str
    size: int
    paths: list[str]
    in_store: bool
    catalogue: str
    problem: str


class _Told(msgspec.Struct, frozen=True):
    forecast: Forecast


class _Discovered(msgspec.Struct, frozen=True):
    found: list[Found]


_forecasts = msgspec.json.Decoder(_Told)
_discovered = msgspec.json.Decoder(_Discovered)


async def forecast(source: str) -> Forecast:
    """What `source`, a model's name or a path, would be when quantized; QuantizeError if it cannot be."""
    output = await command.answer(["quantize", "--dry-run", "--json", "--", source], QuantizeError)
    try:
        return _forecasts.decode(output).forecast
    except ValueError as error:  # of msgspec, or not even text
        raise QuantizeError("The forecast cannot be read") from error


async def discover() -> Sequence[ModelEntry]:
    """What other programs on this machine hold and the store has not; ModelError if nobody can tell."""
    output = await command.answer(["models", "discover", "--json"], ModelError)
    try:
        found = _discovered.decode(output).found
    except ValueError as error:
        raise ModelError("What other programs hold cannot be read") from error
    return [entry_of(one) for one in found if not one.in_store]


def entry_of(found: Found) -> ModelEntry:
    """The line for what was found. Those of whom nothing is known are taken for models that reason."""
    is_checkpoint = found.kind == "checkpoint"
    return ModelEntry(
        name=found.name,
        title=found.called,
        file_type="" if is_checkpoint else found.type,
        size=found.size,
        place="found",
        base=found.catalogue,
        fault=f"It cannot be used: {found.problem}." if found.problem else "",
        program=found.program,
        path=found.paths[0] if is_checkpoint and found.paths else "",
    )
