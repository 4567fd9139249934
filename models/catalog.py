"""Which models can be had by name: `catalog.toml`, checked against the schema below when it is read."""

from __future__ import annotations

import functools
from pathlib import Path

import msgspec

from localai.errors import ModelNotFound
from models.header import printable
from models.names import canonical, is_name, nearest
from models.origins import About, Builtin, CatalogSource, Count, Sampling

__all__ = ["Entry", "builtin_checkpoint", "entries", "find", "nearest", "parse"]


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the catalogue."""

    name: str
    title: str
    type: str
    """The quantization that one gets, such as "Q4_K_M"."""
    reasoning: bool
    license: str
    parameters: Count
    context: Count
    """Tokens of context that it was trained for."""
    source: CatalogSource
    note: str = ""
    """One sentence that the user should know before choosing it."""
    sampling: Sampling = Sampling()
    examples: tuple[str, ...] = ()
    """Questions that show what it can do, for its first screen."""

    @property
    def about(self) -> About:
        """What the catalogue knows better than the file."""
        return About(
            title=self.title,
            license=self.license,
            reasoning=self.reasoning,
            note=self.note,
            sampling=self.sampling,
            examples=self.examples,
        )

    def __post_init__(self) -> None:
        if not is_name(self.name) or canonical(self.name) != self.name:
            raise ValueError(f"{self.name!r} is not a name in its canonical form")


class _Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: list[Entry]

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.model]
        if len(set(names)) < len(names):
            raise ValueError("a name is there twice")


def parse(text: str) -> list[Entry]:
    """The entries of a catalogue in TOML; tomllib.TOMLDecodeError or msgspec.ValidationError if wrong."""
    import tomllib

    return msgspec.convert(tomllib.loads(text), _Catalog).model


@functools.cache
def _builtin_entries() -> tuple[Entry, ...]:
    return tuple(parse(Path(__file__).with_name("catalog.toml").read_text("utf-8")))


def entries() -> list[Entry]:
    """All models of the catalogue, in its order."""
    return list(_builtin_entries())


def find(name: str) -> Entry:
    """The entry called `name`, in any case. ModelNotFound, with the nearest names, if there is none."""
    for entry in entries():
        if entry.name == name.lower():
            return entry
    names = [entry.name for entry in entries()]
    close = nearest(name, names)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(names)}."
    raise ModelNotFound(f"No model called {printable(name)!r} is in the catalogue", hint)


def builtin_checkpoint(name: str) -> Path:
    """The folder of the built-in checkpoint called `name`. ModelNotFound if there is none here."""
    sources = [entry.source for entry in entries()]
    if not any(isinstance(source, Builtin) and source.checkpoint == name for source in sources):
        raise ModelNotFound(f"{printable(name)} is not shipped with the program", "See: localai models list")
    folder = Path(__file__).parent / "builtin" / name
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"The built-in checkpoint {folder} is missing", "Install the program again.")
    return folder
