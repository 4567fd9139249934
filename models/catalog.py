"""Which models can be had by name: `catalog.toml` and a file of the user's, checked against this schema.

The user's own file is `models.toml` in the settings folder; LOCALAI_CATALOG names another, such as an
organization's. Its entries come first and replace those of the same name; `replace = true` at its top leaves
the built-in list out altogether.
"""

from __future__ import annotations

import functools
import os
import stat
import tomllib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Any, Final, Literal

import msgspec

from localai import paths
from localai.errors import ModelNotFound, UsageError
from models.figures import Figures
from models.ggml_types import FILE_TYPES
from models.header import printable
from models.names import canonical, is_name, nearest
from models.origins import About, Builtin, CheckpointSource, Count, ReadySource, Sampling

__all__ = ["Entry", "ReadyFile", "Shape", "builtin_checkpoint", "entries", "find", "nearest", "parse"]

ENVIRONMENT: Final = "LOCALAI_CATALOG"
FILE: Final = "models.toml"
_LARGEST: Final = 4 << 20
"""Bytes of a catalogue: ours, with nine models, has 45 KB."""

Positive = Annotated[int, msgspec.Meta(ge=1, le=1 << 24)]


class Shape(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers of a model that its size and its memory depend on, as its config.json has them."""

    architecture: Literal["llama", "qwen2", "qwen3"]
    layers: Positive
    heads: Positive
    kv_heads: Positive
    head_size: Positive
    embedding_length: Positive
    feed_forward_length: Positive
    vocabulary: Positive
    """Rows of the embedding, padding included."""
    tied: bool = False
    """Whether the output shares the embedding's matrix."""


class ReadyFile(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A GGUF file that can be had ready-made."""

    type: str
    """Such as "Q4_K_M"."""
    source: ReadySource

    def __post_init__(self) -> None:
        _require_type(self.type)


class Entry(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A model of the catalogue."""

    name: str
    title: str
    type: str
    """The quantization that one gets who names none, such as "Q4_K_M"."""
    types: tuple[str, ...] = ()
    """Those that are recommended, `type` among them, the best quality first."""
    reasoning: bool
    license: str
    """Of the weights, as their publisher states it."""
    base_license: str = ""
    """What the licence of the model that it was made from adds, in a sentence; "": nothing is known to."""
    parameters: Count
    context: Count
    """Tokens of context that it was trained for."""
    shape: Shape | None = None
    tokenizer: str = ""
    """llama.cpp's name for its pre-tokenizer, such as "deepseek-r1-qwen"; "": not certain."""
    weights: dict[str, Count] = {}
    """Bytes of all tensors by type, as llama.cpp quantizes this shape. Computed, and checked by a test.

    Files that were made with an importance matrix differ by 1 % in Q4_0 and IQ4_XS, and not at all in others.
    """
    file: tuple[ReadyFile, ...] = ()
    """Where it can be had ready-made; the first of a type is tried first."""
    measured: tuple[Figures, ...] = ()
    """What was measured of files of it, by whoever wrote the catalogue. Speeds count on one machine only."""
    checkpoint: CheckpointSource | None = None
    """What it can be made from here."""
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

    @property
    def is_builtin(self) -> bool:
        """Whether it is shipped with the program."""
        return isinstance(self.checkpoint, Builtin)

    @property
    def all_types(self) -> tuple[str, ...]:
        """The types that can be had: recommended ones, ready-made ones, and `type`."""
        ready = (one.type for one in self.file)
        return tuple(dict.fromkeys([*self.types, self.type, *ready]))

    def ready(self, file_type: str) -> tuple[ReadyFile, ...]:
        """The ready-made files of that type, in any case of its letters, the first choice first."""
        return tuple(one for one in self.file if one.type == file_type.upper())

    def __post_init__(self) -> None:
        if not is_name(self.name) or canonical(self.name) != self.name or self.name.count(":") > 1:
            raise ValueError(f"{self.name!r} is not a name in its canonical form, of one or two parts")
        for one in (self.type, *self.types, *self.weights):
            _require_type(one)
        if self.types and self.type not in self.types:
            raise ValueError(f"{self.name}: its type {self.type} is not among its types")
        for known in self.measured:
            _require_type(known.file_type)
            if known.speed is not None:
                raise ValueError(f"{self.name}: how fast it is depends on the machine, not on the catalogue")
        if self.checkpoint is None and not self.ready(self.type):
            raise ValueError(f"{self.name}: nothing says where its type {self.type} can be had")


class _Catalog(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    model: list[Entry] = []
    replace: bool = False
    """Whether the built-in models are left out."""

    def __post_init__(self) -> None:
        names = [entry.name for entry in self.model]
        if twice := next((name for name in names if names.count(name) > 1), ""):
            raise ValueError(f"{twice} is there twice")


class Wanted(msgspec.Struct, frozen=True):
    """What NAME[:TYPE] means."""

    entry: Entry
    type: str
    """The quantization that was asked for, or the entry's own."""
    name: str
    """What it is called in the store: as it was asked for."""


def _require_type(name: str) -> None:
    if name not in FILE_TYPES.values():
        raise ValueError(f"{name!r} is not a type of GGUF files")


def parse(text: str) -> list[Entry]:
    """The entries of a catalogue in TOML; tomllib.TOMLDecodeError or msgspec.ValidationError if wrong."""
    return _parse(text).model


def _parse(text: str) -> _Catalog:
    """Nothing may be left over: a misspelt digest must not mean that none is there."""
    raw = tomllib.loads(text)
    found = msgspec.convert(raw, _Catalog)
    if unknown := _left_over(raw, msgspec.to_builtins(found)):
        raise msgspec.ValidationError(f"Nobody knows the field `{unknown}`")
    return found


def _left_over(raw: Any, read: Any, place: str = "$") -> str:
    """Where the first field in `raw` is that `read` does not have; "" if there is none."""
    if isinstance(raw, dict) and isinstance(read, dict):
        pairs = ((key, value, f"{place}.{key}") for key, value in raw.items())
        found = (
            where if key not in read else _left_over(value, read[key], where) for key, value, where in pairs
        )
    elif isinstance(raw, list) and isinstance(read, list | tuple):
        found = (
            _left_over(one, two, f"{place}[{i}]") for i, (one, two) in enumerate(zip(raw, read, strict=True))
        )
    else:
        return ""
    return next(filter(None, found), "")


@functools.cache
def _builtin_entries() -> tuple[Entry, ...]:
    return tuple(parse(Path(__file__).with_name("catalog.toml").read_text("utf-8")))


def own_file() -> Path:
    """The catalogue of the user or organization. It need not be there, unless the environment names it."""
    named = os.environ.get(ENVIRONMENT)
    if not named:
        return paths.config_dir() / FILE
    path = Path(named)
    with suppress(RuntimeError):  # the home of a user that is not known
        path = path.expanduser()
    return path.absolute()


def _own() -> _Catalog:
    path = own_file()
    try:
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise ValueError("It is not a file")
        return _parsed(path, status.st_mtime_ns, status.st_size)
    except (FileNotFoundError, NotADirectoryError) as error:
        if not os.environ.get(ENVIRONMENT):
            return _Catalog()
        raise UsageError(
            f"There is no catalogue of models {path}",
            f"{ENVIRONMENT} names it: correct it, or unset it to use the built-in one",
        ) from error
    except (OSError, ValueError, RecursionError, msgspec.ValidationError) as error:
        reason = error.strerror if isinstance(error, OSError) else str(error)
        raise UsageError(
            f"The catalogue of models {path} cannot be used: {printable(str(reason), 400)}",
            "Mend it, or move it away; docs/models.md says what it may hold",
        ) from error


@functools.lru_cache(4)
def _parsed(path: Path, *_: int) -> _Catalog:
    with path.open("rb") as file:
        content = file.read(_LARGEST + 1)
    if len(content) > _LARGEST:
        raise ValueError(f"It is larger than {_LARGEST >> 20} MB")
    return _parse(content.decode("utf-8-sig"))


def entries() -> list[Entry]:
    """All models of the catalogue, the user's first. UsageError if the user's file cannot be used."""
    own = _own()
    names = {entry.name for entry in own.model}
    builtin = [] if own.replace else [entry for entry in _builtin_entries() if entry.name not in names]
    return [*own.model, *builtin]


def find(name: str) -> Entry:
    """The entry called `name`, in any case. ModelNotFound, with the nearest names, if there is none."""
    for entry in entries():
        if entry.name == name.lower():
            return entry
    names = [entry.name for entry in entries()]
    close = nearest(name, names)
    hint = f"Did you mean {' or '.join(close)}?" if close else f"There are: {', '.join(names) or 'none'}."
    raise ModelNotFound(f"No model called {printable(name)!r} is in the catalogue", hint)


def wanted(text: str) -> Wanted:
    """What `text`, NAME or NAME:TYPE, asks for. ModelNotFound, with what there is, if it cannot be had."""
    known = {entry.name: entry for entry in entries()}
    name = text.lower()
    if name in known:
        return Wanted(known[name], known[name].type, name)
    begin, _, last = name.rpartition(":")
    if begin not in known:
        return Wanted(entry := find(text), entry.type, entry.name)
    entry, file_type = known[begin], last.upper()
    can_be_made = entry.checkpoint is not None and file_type in FILE_TYPES.values()
    if file_type not in entry.all_types and not can_be_made:
        raise ModelNotFound(
            f"{begin} cannot be had as {printable(last)!r}", f"It can be had as: {', '.join(entry.all_types)}"
        )
    return Wanted(entry, file_type, name)


def builtin_checkpoint(name: str) -> Path:
    """The folder of the built-in checkpoint called `name`. ModelNotFound if there is none here."""
    sources = [entry.checkpoint for entry in _builtin_entries()]
    if not any(isinstance(source, Builtin) and source.checkpoint == name for source in sources):
        raise ModelNotFound(f"{printable(name)} is not shipped with the program", "See: localai models list")
    folder = Path(__file__).parent / "builtin" / name
    if not (folder / "config.json").is_file():
        raise ModelNotFound(f"The built-in checkpoint {folder} is missing", "Install the program again.")
    return folder
