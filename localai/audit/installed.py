"""The models in the store: what they are, where they came from, and whether their bytes are as they were."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import msgspec

from localai.audit import digests
from localai.audit.finding import Finding
from localai.errors import IntegrityError, LocalAIError, StoreError
from models.library import Library
from models.manifest import Manifest
from models.origins import Checkpoint, Origin, describe
from models.progress import Progress, silent


class Model(msgspec.Struct, frozen=True):
    """One installed model."""

    name: str
    title: str
    sha256: str
    size: int
    architecture: str
    file_type: str
    license: str
    source: str
    """On one line."""
    origin: Origin
    """As it is written down, with commits and digests."""
    pinned: bool
    """Whether the digest was known before the file came; if not, it is as it was first seen."""
    hashed: str
    """When all its bytes were last compared with the digest: now, or when it was added; UTC, ISO 8601."""
    verified: bool | None
    """Whether they are as they were; None: it was not looked at now."""
    fault: str
    """What is wrong with its file; "" if nothing is seen."""
    allowed_architecture: str
    """Outside of R1's family, that the user allowed for it."""
    listed: bool
    """Whether the policy lets it run."""


def models(
    library: Library,
    lists: Callable[[list[str]], bool],
    *,
    verify: bool = False,
    now: str = "",
    on_progress: Progress = silent,
) -> tuple[Model, ...]:
    """All models in the store and in shared ones. `lists`: whether the policy lets files with digests run."""
    return tuple(_model(library, one, lists, verify, now, on_progress) for one in library.manifests())


def findings(found: tuple[Model, ...], library: Library) -> list[Finding]:
    """What is wrong with models and their folders."""
    lines = [
        Finding(
            "models", f"{one.name}: its file {one.fault}", f"Fetch it again: localai models pull {one.name}"
        )
        for one in found
        if one.fault
    ]
    lines += [
        Finding(
            "models",
            f"{one.name} is of the architecture {one.allowed_architecture}, which is not R1's",
            "Remove it if nobody needs it",
        )
        for one in found
        if one.allowed_architecture
    ]
    lines += [
        Finding("models", f"{item.path} cannot be used: {item.reason}", "Add the model again")
        for item in library.damaged()
    ]
    opened = digests.writable_by_others(_folders(library, found))
    if opened:
        what = f"others may change {len(opened)} files or folders of models, such as {opened[0]}"
        lines.append(Finding("models", what, "Take the right to write from them: chmod -R go-w, or chown"))
    return lines


def _model(
    library: Library,
    one: Manifest,
    lists: Callable[[list[str]], bool],
    verify: bool,
    now: str,
    on_progress: Progress,
) -> Model:
    fault = library.fault(one) or ""
    verified: bool | None = None
    if verify:
        try:
            library.verify(one, on_progress)
            verified = True
        except IntegrityError:
            verified, fault = False, fault or "was changed or is damaged"
        except StoreError as error:  # it cannot be read: the rest of the report is wanted all the same
            fault = fault or f"cannot be checked ({error.message})"
    return Model(
        name=one.name,
        title=one.title,
        sha256=one.sha256,
        size=one.size,
        architecture=one.architecture,
        file_type=one.file_type,
        license=one.license,
        source=describe(one.source),
        origin=one.source,
        pinned=one.pinned,
        hashed=now if verified else one.added,
        verified=verified,
        fault=fault,
        allowed_architecture=one.allowed_architecture,
        listed=lists([part.sha256 for part in one.parts] or [one.sha256]),
    )


def _folders(library: Library, found: tuple[Model, ...]) -> list[Path]:
    """The store's own folders, shared ones, and the files of the models."""
    places = [library.root, library.root / "blobs", library.root / "refs", *library.shared_roots]
    for one in library.manifests():
        try:
            places += library.paths(one)
        except LocalAIError:
            continue  # it is told apart
    return [place for place in places if place.exists()]


def commit_of(origin: Origin) -> str:
    """The commit that a model, or what it was made of, came from; "" where none is known."""
    return str(getattr(origin, "revision", "") or "")


def engine_of(origin: Origin) -> str:
    """The commit of llama.cpp that quantized it; "" if that was not done here."""
    return origin.llama_cpp if isinstance(origin, Checkpoint) else ""
