"""Sources on a hub: which files are meant, at which commit, and whether they are those that were known."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

import msgspec

from localai.errors import FetchError, IntegrityError, ModelNotFound, UsageError
from models.fetch import access, checkpoint_files, find_gguf
from models.fetch.hub_api import Hub
from models.fetch.listing import Listing
from models.fetch.plan import Item, Plan
from models.fetch.protocol import Listed, Resolved, Search
from models.fetch.wanted import Wanted
from models.fetch.web import Web
from models.header import printable
from models.names import nearest
from models.origins import HubCheckpoint, HubFile, RemoteFile
from models.parts import MOST, name_of_part
from models.remote_names import checked_all

CHECKPOINT: Final = "checkpoint"
"""The folder that the files of a checkpoint come into: it has nothing else in it."""
_DEFAULT: Final = "main"


def resolve(source: HubFile | HubCheckpoint | Search, web: Web) -> Plan:
    """The plan for `source`. ModelNotFound, FetchError, IntegrityError or UsageError if there is none."""
    hub = Hub(access.from_environment(), web)
    asked = _revision(source)
    listing = hub.listing(source.repository, asked)
    _require_commit(listing, asked)
    requested = "" if asked == listing.commit else asked
    match source:
        case HubFile(files=known):
            requested = requested or source.requested
            return _ready(hub, listing, [file.path for file in known], known, requested)
        case Search(checkpoint=False):
            found = find_gguf.choose(listing, source.type, source.path)
            return _ready(hub, listing, found, (), requested)
        case Search():
            return _checkpoint(hub, listing, ())
        case HubCheckpoint(files=known):
            return _checkpoint(hub, listing, known)


def _revision(source: HubFile | HubCheckpoint | Search) -> str:
    asked = source.revision or getattr(source, "requested", "") or _DEFAULT
    if len(asked) > 255 or not asked.isprintable() or not asked.strip():
        raise UsageError(f"{printable(asked)!r} cannot be a branch, a tag or a commit", "Check it")
    return str(asked)


def _require_commit(listing: Listing, asked: str) -> None:
    if not listing.commit:
        raise FetchError(
            f"The hub does not say which commit {asked!r} of {listing.repository} is", "Check HF_ENDPOINT"
        )
    if len(asked) == 40 and set(asked) <= set("0123456789abcdef") and asked != listing.commit:
        raise IntegrityError(
            f"The hub answers with the commit {listing.commit} of {listing.repository} and not with {asked}",
            "Ask whoever runs that hub: a commit is never another one",
        )


def _ready(
    hub: Hub, listing: Listing, paths: Sequence[str], known: Sequence[RemoteFile], requested: str
) -> Plan:
    """A GGUF file, or the parts of one model: they get names of our own."""
    checked_all(paths)
    if len(paths) > MOST:
        raise FetchError(
            f"{listing.repository} has a model in {len(paths)} files", f"At most {MOST} are supported"
        )
    listing = hub.completed(listing, paths)
    files = _compared(listing, paths, known)
    count = len(files)
    names = ["model.gguf"] if count == 1 else [name_of_part("model", i, count) for i in range(1, count + 1)]
    source = HubFile(
        repository=listing.repository, files=_remote(files), revision=listing.commit, requested=requested
    )
    return Plan(_resolved(source, files), _items(hub, listing, files, names))


def _checkpoint(hub: Hub, listing: Listing, known: Sequence[RemoteFile]) -> Plan:
    """A checkpoint folder: its files keep their names, which are few and checked."""
    paths = checkpoint_files.choose(listing, lambda file: hub.content(listing, file))
    checked_all(paths)
    files = _compared(listing, paths, [file for file in known if file.path in paths])
    source = HubCheckpoint(repository=listing.repository, revision=listing.commit, files=_remote(files))
    names = [f"{CHECKPOINT}/{path}" for path in paths]
    return Plan(_resolved(source, files), _items(hub, listing, files, names), header_first=False)


def _compared(listing: Listing, paths: Sequence[str], known: Iterable[RemoteFile]) -> list[Listed]:
    """What the hub says about `paths`, completed by what is known; an error where both say something else."""
    expected = {file.path: file for file in known}
    return [_one(listing, path, expected.get(path)) for path in paths]


def _one(listing: Listing, path: str, known: RemoteFile | None) -> Listed:
    file = listing.files.get(path)
    if file is None:
        close = nearest(path, [name for name in listing.files if name.lower().endswith(".gguf")])
        near = f"It has {printable(close[0])}" if close else "Check its path"
        raise ModelNotFound(f"{listing.repository} has no file {printable(path)} at {listing.commit}", near)
    if known is None:
        return file
    same_size = not (known.size and file.size) or known.size == file.size
    if not same_size or (known.sha256 and file.sha256 and known.sha256 != file.sha256):
        raise IntegrityError(
            f"{printable(path)} in {listing.repository} was replaced under the same name: it now has "
            f"{_called(file.sha256, file.size)}, and not {_called(known.sha256, known.size)}",
            "Name the commit that had it as the revision; take the new one only if you trust who replaced it",
        )
    return msgspec.structs.replace(file, size=file.size or known.size, sha256=file.sha256 or known.sha256)


def _called(sha256: str, size: int) -> str:
    return " and ".join([*([f"the sha256 {sha256}"] if sha256 else []), *([f"{size} bytes"] if size else [])])


def _remote(files: Sequence[Listed]) -> tuple[RemoteFile, ...]:
    return tuple(RemoteFile(path=file.path, size=file.size, sha256=file.sha256) for file in files)


def _resolved(source: HubFile | HubCheckpoint, files: Sequence[Listed]) -> Resolved:
    known = all(file.size or file.git_sha1 for file in files)
    total = sum(file.size for file in files) if known else 0
    return Resolved(source=source, files=tuple(files), total=total, peak=total)


def _items(hub: Hub, listing: Listing, files: Sequence[Listed], names: Sequence[str]) -> tuple[Item, ...]:
    return tuple(
        Item(
            listed=file,
            name=name,
            wanted=Wanted(
                url=hub.address(listing, file.path),
                headers=hub.access.headers,
                size=file.size,
                sha256=file.sha256,
                git_sha1=file.git_sha1,
                label=f"{listing.repository}, {printable(file.path)}",
            ),
        )
        for file, name in zip(files, names, strict=True)
    )
