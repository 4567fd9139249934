"""What the store knows about a model: one JSON file for each name."""

from __future__ import annotations

import datetime
import stat
from pathlib import Path
from typing import Final

import msgspec

from localai.errors import IntegrityError, UsageError
from models.header import Header
from models.names import name_of
from models.origins import About, Builtin, Count, Origin, PackageIndex, Sampling, Sha256

_MAX_BYTES: Final = 1024 * 1024


class Manifest(msgspec.Struct, frozen=True, kw_only=True):
    """One model in the store. Fields that a later version adds are ignored when read here."""

    name: str
    sha256: Sha256
    """Of the file, as it was hashed when it was added."""
    size: Count
    """Bytes of the file."""
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


class Damaged(msgspec.Struct, frozen=True):
    """A manifest that cannot be used: where it is, and why."""

    path: Path
    reason: str


def encode(manifest: Manifest) -> bytes:
    """As JSON for a file that people may read."""
    return msgspec.json.format(msgspec.json.encode(manifest), indent=2) + b"\n"


def read(refs: Path, path: Path) -> Manifest:
    """The manifest at `path` below `refs`. IntegrityError if it is damaged or belongs elsewhere."""
    try:
        manifest = msgspec.json.decode(raw(path), type=Manifest)
        if name_of(refs, path) != manifest.name:
            raise ValueError(f"it is the manifest of {manifest.name!r}")
    except (OSError, ValueError, RecursionError, UsageError, msgspec.MsgspecError) as error:
        raise IntegrityError(
            f"The manifest {path} is damaged: {error}", "Remove the model and fetch or add it again."
        ) from error
    return manifest


def raw(path: Path) -> bytes:
    """The bytes of a manifest. ValueError if it is a link or too large; OSError as the system says."""
    status = path.lstat()
    if not stat.S_ISREG(status.st_mode) or status.st_size > _MAX_BYTES:
        raise ValueError("it is a link, or too large")
    return path.read_bytes()


def describe(
    name: str, sha256: str, header: Header, about: About, source: Origin, *, pinned: bool
) -> Manifest:
    """The manifest of a file just added. What `about` knows wins over what the file claims."""
    return Manifest(
        name=name,
        sha256=sha256,
        size=header.file_size,
        title=about.title or header.name or name,
        architecture=header.architecture,
        file_type=header.file_type,
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


def repair_hint(model: Manifest) -> str:
    """What to do when the file of `model` is missing or damaged."""
    if isinstance(model.source, PackageIndex | Builtin):
        return f"Get it again: localai models pull {model.name}"
    return f"Remove it with `localai models remove {model.name}`, then add it again"
