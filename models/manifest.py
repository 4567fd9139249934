"""What the store knows about a model: one JSON file for each name.

A model is one file, or several parts that llama.cpp opens together. The bytes are in the store, or, for a
file of another program that cannot be linked to, where that program keeps them.
"""

from __future__ import annotations

import datetime
import hashlib
import shlex
import stat
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal

import msgspec

from localai.errors import IntegrityError, LocalAIError, UsageError
from models.header import Header
from models.names import is_name, name_of
from models.origins import (
    About,
    Builtin,
    Checkpoint,
    Count,
    HubCheckpoint,
    HubFile,
    Origin,
    PackageIndex,
    ReadySource,
    Sampling,
    Sha256,
    UrlFile,
)
from models.parts import number_of

if TYPE_CHECKING:
    from models.catalog import Entry

_MAX_BYTES: Final = 1024 * 1024

Sharing = Literal["", "reflink", "hard link", "reference"]
"""How the bytes came without a copy; "": they are the store's alone."""


class Part(msgspec.Struct, frozen=True):
    """One file of a model in several."""

    sha256: Sha256
    size: Count


class Place(msgspec.Struct, frozen=True):
    """A file outside of the store, and what it was like when it was hashed."""

    path: str
    size: Count
    modified_ns: int


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the store. Fields that a later version adds are ignored when read here."""

    name: str
    sha256: Sha256
    """Of the file, as it was hashed when it was added; of a model in parts, that of their digests."""
    size: Count
    """Bytes of the file, or of all parts."""
    parts: tuple[Part, ...] = ()
    """The files of a model in several, in their order; none for a model in one."""
    sharing: Sharing = ""
    places: tuple[Place, ...] = ()
    """Where the files are that the store only refers to, in their order."""
    allowed_architecture: str = ""
    """The architecture outside of R1's family that the user allowed for it."""
    title: str
    architecture: str
    file_type: str
    parameters: Count
    context_trained: Count
    license: str
    reasoning: bool
    source: Origin
    added: str
    """When, in UTC, as ISO 8601."""
    pinned: bool = False
    """Whether the digest was known before the file came."""
    note: str = ""
    sampling: Sampling = Sampling()
    examples: tuple[str, ...] = ()
    """Questions that show what the model can do."""

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise ValueError("its name cannot be one")
        _check_places(self)


class Damaged(msgspec.Struct, frozen=True):
    """A manifest that cannot be used: where it is, and why."""

    path: Path
    reason: str


def _check_places(manifest: Manifest) -> None:
    if manifest.places and len(manifest.places) != max(1, len(manifest.parts)):
        raise ValueError(f"it has {len(manifest.places)} places for {max(1, len(manifest.parts))} files")
    for place in manifest.places:
        if "\0" in place.path or not Path(place.path).is_absolute():
            raise ValueError("it refers to a file by a path that is none")


def encode(manifest: Manifest) -> bytes:
    """As JSON for a file that people may read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read(refs: Path, path: Path) -> Manifest:
    """The manifest at `path` below `refs`. IntegrityError if it is damaged or belongs elsewhere."""
    try:
        manifest = decode(raw(path))
        if name_of(refs, path) != manifest.name:
            raise ValueError(f"it is the manifest of {manifest.name!r}")
    except (OSError, ValueError, RecursionError, UsageError, msgspec.MsgspecError) as error:
        raise IntegrityError(
            f"The manifest {path} is damaged: {error}", "Remove the model and fetch or add it again."
        ) from error
    return manifest


def decode(data: bytes) -> Manifest:
    """A manifest as it is stored, also by an earlier version; msgspec.MsgspecError if it is none."""
    try:
        return msgspec.json.decode(data, type=Manifest)
    except msgspec.ValidationError:
        return msgspec.convert(_of_version_1(msgspec.json.decode(data)), Manifest)


def _of_version_1(stored: Any) -> Any:
    """As it is written today: a package index once meant exactly one wheel, spelled out in the source."""
    source = stored.get("source") if isinstance(stored, dict) else None
    if isinstance(source, dict) and source.get("kind") == "package-index" and "wheels" not in source:
        names = {"package": "package", "version": "version", "wheel_sha256": "sha256", "member": "member"}
        wheel = {new: source[old] for old, new in names.items() if old in source}
        kept = {key: source[key] for key in ("kind", "size", "sha256") if key in source}
        wheel["size"] = source.get("wheel_size", 0)
        return {**stored, "source": {**kept, "wheels": [wheel]}}
    return stored


def digest_of_parts(parts: Sequence[Part]) -> str:
    """The digest that a model in several files is known by: of theirs, in order, as 64 hex digits a line."""
    return hashlib.sha256("".join(f"{part.sha256}\n" for part in parts).encode()).hexdigest()


def digest_of_source(source: ReadySource) -> str:
    """The digest that a model from `source` must be known by; "" if the source does not tell."""
    match source:
        case HubFile(files=remote):
            if not all(file.sha256 for file in remote):
                return ""
            if len(remote) == 1:
                return remote[0].sha256
            return digest_of_parts([Part(file.sha256, file.size) for file in remote])
        case PackageIndex(wheels=wheels, sha256=sha256):
            split = len(wheels) > 1 and all(number_of(Path(one.member).name) for one in wheels)
            return "" if split else sha256
        case UrlFile(sha256=sha256):
            return sha256


def raw(path: Path) -> bytes:
    """The bytes of a manifest. ValueError if it is a link or too large; OSError as the system says."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
        raise ValueError("it is a link, or too large")
    return path.read_bytes()


def digests_of(model: Manifest) -> list[str]:
    """The SHA-256 of each of its files, in their order."""
    return [part.sha256 for part in model.parts] or [model.sha256]


def describe(
    name: str,
    parts: Sequence[Part],
    header: Header,
    about: About,
    source: Origin,
    *,
    pinned: bool,
    sharing: Sharing = "",
    places: Sequence[Place] = (),
    allowed_architecture: str = "",
) -> Manifest:
    """The manifest of a model just added; `header` is of all its `parts`.

    What `about` knows wins over what the file claims.
    """
    whole = len(parts) == 1
    return Manifest(
        name=name,
        sha256=parts[0].sha256 if whole else digest_of_parts(parts),
        size=sum(part.size for part in parts),
        parts=() if whole else tuple(parts),
        sharing=sharing,
        places=tuple(places),
        allowed_architecture=allowed_architecture,
        title=about.title or header.name or name,
        architecture=header.architecture,
        file_type=_file_type(source, header),
        parameters=header.parameters,
        context_trained=header.context_trained,
        license=about.license or header.license,
        reasoning=header.reasons if about.reasoning is None else about.reasoning,
        source=source,
        added=datetime.datetime.now(datetime.UTC).isoformat(),
        pinned=pinned,
        note=about.note,
        sampling=about.sampling,
        examples=about.examples,
    )


def _file_type(source: Origin, header: Header) -> str:
    """As the file says; llama.cpp has no word for one with a type for each tensor."""
    mixed = source.mixture if isinstance(source, Checkpoint) else None
    return mixed.name if mixed else header.file_type


def is_fetched(model: Manifest) -> bool:
    """Whether it can be had again where it came from, by its name or by its source."""
    return isinstance(model.source, PackageIndex | Builtin | HubFile | UrlFile)


def is_in_catalogue(model: Manifest) -> bool:
    """Whether it was fetched, and can be had again by its name alone."""
    from models import catalog  # only here: to read it takes 15 ms

    try:
        catalog.wanted(model.name)
    except LocalAIError:
        return False
    return is_fetched(model)


def is_of(model: Manifest, entry: Entry) -> bool:
    """Whether it is a type of that model of the catalogue: fetched so, or made here of the same weights."""
    source, weights = model.source, entry.checkpoint
    if isinstance(source, Checkpoint):
        if not isinstance(weights, HubCheckpoint) or source.repository != weights.repository:
            return False
        return weights.revision in ("", source.revision)
    return f"{model.name}:".startswith(f"{entry.name}:") and is_in_catalogue(model)


def repair_hint(model: Manifest) -> str:
    """What to do when the file of `model` is missing or damaged."""
    if words := _pull_words(model):
        return f"Get it again: localai models pull {shlex.join(words)}"
    return f"Remove it with `localai models remove {model.name}`, then add it again"


def _pull_words(model: Manifest) -> list[str]:
    """What `localai models pull` takes to have it again; none if it cannot be fetched."""
    if is_in_catalogue(model):
        return [model.name]
    match model.source:
        case HubFile(repository=repository, revision=revision, files=remote):
            return [f"{repository}@{revision}", "--file", remote[0].path, "--name", model.name]
        case UrlFile(url=url, sha256=sha256):
            return [url, "--sha256", sha256, "--name", model.name]
        case Checkpoint(repository=repository) if repository:
            return ["--from-source", model.name]
    return []
