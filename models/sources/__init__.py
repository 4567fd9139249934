"""Getting models by name: from which source, whether it is here already, and when it may be trusted.

`obtain` fetches a ready GGUF file into the store, `checkpoint` a publisher's own weights to quantize here.
Both have everything from the network done by the fetch process (`models.fetch`).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple, Protocol, TypeAlias

import msgspec

from localai.errors import (
    FetchError,
    IntegrityError,
    ModelError,
    ModelFileError,
    ModelNotFound,
    StoreError,
)
from models import incoming, manifest
from models.fetch.client import Fetch
from models.fetch.protocol import FetchedFile, Resolved, Search
from models.gguf import Header, check_supported, read_header
from models.header import printable
from models.incoming import Unfinished
from models.manifest import Manifest
from models.origins import (
    About,
    HubCheckpoint,
    HubFile,
    Origin,
    PackageIndex,
    ReadySource,
    UrlFile,
    describe,
    without_userinfo,
)
from models.progress import Progress, silent
from models.sources import pinned
from models.store import Bytes, Store
from models.supported import check_may_allow

__all__ = ["Fetched", "Plan", "Request", "checkpoint", "obtain", "replaceable"]

Wanted: TypeAlias = ReadySource | Search


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A model to be had."""

    name: str
    """What it is to be called in the store."""
    sources: tuple[Wanted, ...]
    """Where it can be had, the first choice first. Another is tried where one has it no longer."""
    about: About = About()
    allow: tuple[str, ...] = ()
    """Architectures beside those of R1's family."""
    accept_change: bool = False
    """Whether a file may be another than it was when it was first fetched."""
    sha256: str = ""
    """The digest that the model must have, whatever a source says; "": none is asked for."""
    look_only: bool = False
    """Whether nothing is to be changed: the hooks hear what would come."""
    catalogued: bool = False
    """Whether its name is one of the catalogue, which may say today that another file is meant by it."""
    command: str = ""
    """What goes on with it if it is interrupted, behind `localai models`: such as "pull r1:7b"."""


class Plan(msgspec.Struct, frozen=True):
    """What is about to be fetched."""

    resolved: Resolved
    arrived: int
    """Bytes of it that an earlier attempt has brought already."""


class Fetched(NamedTuple):
    """What `obtain` brought."""

    manifest: Manifest
    downloaded: bool
    """False: the bytes were in the store already."""


class Hooks(Protocol):
    """What whoever asks for a model is told. What these raise ends the attempt; what has come is kept."""

    def plan(self, plan: Plan) -> None:
        """Before anything is transferred."""

    def header(self, header: Header) -> None:
        """As soon as a GGUF file's header is there, which has been found to be of a model that runs here."""

    def note(self, text: str) -> None:
        """A sentence that the user should know."""


class Silent:
    """Hooks for whoever wants to know nothing."""

    def plan(self, plan: Plan) -> None:
        """Go on."""

    def header(self, header: Header) -> None:
        """Go on."""

    def note(self, text: str) -> None:
        """Not shown."""


def obtain(
    request: Request, store: Store, on_progress: Progress = silent, hooks: Hooks = Silent()
) -> Fetched:
    """Have a model in the store under its name, verified; nothing is fetched if its bytes are there.

    ModelNotFound, FetchError or IntegrityError if no source has it as it should be; ModelError as soon as
    its header tells that it does not run here; NoSpace; StoreError. What has come stays for the next attempt.
    """
    check_may_allow(request.allow)
    store.require_free(request.name, replace=replaceable(store, request))
    for source in request.sources:
        found = None if isinstance(source, Search) else _present(request, store, source, on_progress)
        if found:
            return Fetched(found, False)
    problem: FetchError | ModelNotFound | IntegrityError | None = None
    dead: type | None = None
    for source in request.sources:
        if dead is not None and isinstance(source, dead):
            continue  # the same server, which has just given no answer
        if problem is not None:
            hooks.note(f"{problem.message}: trying another source")
        try:
            with Fetch(source) as fetch:
                try:
                    resolved = _resolve(fetch, on_progress)
                except _Unavailable:
                    dead = type(source)
                    raise
                return _fetch(request, fetch, resolved, store, on_progress, hooks)
        except (ModelNotFound, IntegrityError) as error:
            problem = error
        except _Unavailable as error:
            problem = error.error
    raise problem or FetchError(f"Nothing says where {request.name} can be had")


@contextmanager
def checkpoint(
    name: str,
    source: HubCheckpoint,
    store: Store,
    on_progress: Progress = silent,
    hooks: Hooks = Silent(),
    *,
    accept_change: bool = False,
    look_only: bool = False,
    command: str = "",
) -> Iterator[tuple[Path, HubCheckpoint]]:
    """The folder of a publisher's checkpoint, fetched and verified, and the source with its commit.

    The folder goes when the block ends without an exception; otherwise it stays for the next attempt. Errors
    as of `obtain`.
    """
    with Fetch(source) as fetch:
        resolved = fetch.resolve()
        if not isinstance(resolved.source, HubCheckpoint):
            raise FetchError("The fetch process answered something else than it was asked")
        places = pinned.places_of(resolved.source, branch="" if source.revision else "main")
        pinned.check_told(resolved, places, store, accept_change)
        if look_only:
            hooks.plan(Plan(resolved, store.arrived(_key(resolved))))
            raise FetchError("Nothing was to be fetched")
        key = _key(resolved)
        with store.fetching(key, name, resolved.total, _waiting(on_progress), command) as folder:
            _begin(resolved, folder, store, hooks)
            brought = fetch.transfer(folder, on_progress=on_progress)
            pinned.check(pinned.digests_of(resolved, brought), places, store, accept_change)
            pinned.write_down(resolved, brought, places, store, replace=accept_change)
            yield folder / "checkpoint", resolved.source
            incoming.done(folder)


class _Unavailable(Exception):
    """A source does not answer, or gives nothing: another one may."""

    def __init__(self, error: FetchError) -> None:
        super().__init__(error.message)
        self.error = error


def _resolve(fetch: Fetch, on_progress: Progress) -> Resolved:
    on_progress("Looking it up", 0, 0)
    try:
        return fetch.resolve()
    except FetchError as error:
        raise _Unavailable(error) from error


def _fetch(
    request: Request,
    fetch: Fetch,
    resolved: Resolved,
    store: Store,
    on_progress: Progress,
    hooks: Hooks,
) -> Fetched:
    found = resolved.source
    if isinstance(found, HubCheckpoint):
        raise FetchError("The fetch process answered something else than it was asked")
    _check_asked(request, found)
    places = pinned.places_of(found)
    pinned.check_told(resolved, places, store, request.accept_change)
    if model := _present(request, store, found, on_progress):
        return Fetched(model, False)
    if request.look_only:
        hooks.plan(Plan(resolved, store.arrived(_key(resolved))))
        # The header alone tells the rest: whoever hears it ends the transfer.
        with store.incoming() as folder:
            fetch.transfer(folder, on_progress=on_progress, on_header=_looking(request, resolved, hooks))
        raise FetchError("The source has no header to look at")
    key, waiting = _key(resolved), _waiting(on_progress)
    with store.fetching(key, request.name, resolved.total, waiting, request.command) as folder:
        if model := _present(request, store, found, on_progress):  # somebody else has just finished it
            incoming.done(folder)
            return Fetched(model, False)
        _begin(resolved, folder, store, hooks)
        try:
            brought = fetch.transfer(
                folder, on_progress=on_progress, on_header=_looking(request, resolved, hooks)
            )
        except FetchError as error:
            if incoming.arrived(folder):
                raise
            raise _Unavailable(error) from error
        except ModelError:
            incoming.done(folder)  # it does not run here: there is nothing to go on with
            raise
        pinned.check(pinned.digests_of(resolved, brought), places, store, request.accept_change)
        pinned.write_down(resolved, brought, places, store, replace=request.accept_change)
        model = _keep(request, found, brought, store, on_progress)
        incoming.done(folder)
        return Fetched(model, True)


def replaceable(store: Store, request: Request | None = None) -> Callable[[Manifest], bool]:
    """Whether a model that is fetched may take the place of another.

    Not of what the user made or brought; nor of what came from another place, unless the catalogue says so.
    """

    def may(known: Manifest) -> bool:
        if store.fault(known) is not None:
            return True
        if not manifest.is_fetched(known) or request is None or request.catalogued:
            return manifest.is_fetched(known)
        return any(_place(one) == _place(known.source) for one in request.sources)

    return may


def _place(source: Wanted | Origin) -> str:
    """Where a source is, without what changes with time."""
    match source:
        case HubFile(repository=repository) | Search(repository=repository):
            return f"hub:{repository.lower()}"
        case UrlFile(url=url):
            return f"address:{without_userinfo(url)}"
        case PackageIndex(wheels=wheels):
            return f"package index:{wheels[0].package}"
    return "elsewhere"


def _check_asked(request: Request, found: ReadySource) -> None:
    """IntegrityError if the source itself says that it has another file than was asked for."""
    digest = manifest.digest_of_source(found)
    if request.sha256 and digest and digest != request.sha256:
        raise IntegrityError(
            f"{describe(found)} has the sha256 {digest} and not {request.sha256}",
            "Find out which of the two is wrong.",
        )


def _looking(request: Request, resolved: Resolved, hooks: Hooks) -> Callable[[Path], None]:
    return lambda path: _look(path, request, resolved, hooks)


def _begin(resolved: Resolved, folder: Path, store: Store, hooks: Hooks) -> None:
    """Nothing is transferred before all this is in order."""
    arrived = incoming.arrived(folder)
    store.require_space(max(0, max(resolved.peak, resolved.total) - arrived))
    hooks.plan(Plan(resolved, arrived))


def _look(path: Path, request: Request, resolved: Resolved, hooks: Hooks) -> None:
    """Refuse a model that does not run here as soon as its header is there; other parts may be to come."""
    remote = printable(resolved.files[0].path)
    count = len(resolved.source.files) if isinstance(resolved.source, HubFile) else 1
    try:
        header = read_header(path)
        if header.split_count != count:
            raise ModelFileError(
                f"{path} says that its model is in {header.split_count} files, and its name says {count}",
                "Do not use this source.",
            )
        alone = {key: value for key, value in header.metadata.items() if not key.startswith("split.")}
        check_supported(msgspec.structs.replace(header, metadata=alone), path, request.allow)
    except ModelError as error:
        place = f"{pinned.describe_place(resolved.source)}/{remote}"
        raise type(error)(error.message.replace(str(path), place), error.hint) from error
    hooks.header(header)


def _keep(
    request: Request,
    source: ReadySource,
    brought: Sequence[FetchedFile],
    store: Store,
    on_progress: Progress,
) -> Manifest:
    known = Bytes(tuple(file.sha256 for file in brought))
    return store.add(
        Path(brought[0].path),
        request.name,
        source=source,
        about=request.about,
        expect_sha256=request.sha256 or manifest.digest_of_source(source) or None,
        known=known,
        move=True,
        replace=replaceable(store, request),
        allow=request.allow,
        on_progress=on_progress,
    )


def _present(request: Request, store: Store, source: ReadySource, on_progress: Progress) -> Manifest | None:
    """The model of that name with those bytes, named so now if they are there under another name.

    They are hashed again: whoever asks for a model may do so because it is damaged.
    """
    digest = manifest.digest_of_source(source)
    if not digest or request.sha256 not in ("", digest):
        return None
    model = None
    with suppress(ModelNotFound, IntegrityError):
        model = store.get(request.name)
    same = model is not None and model.sha256 == digest
    if not same:
        model = store.with_digest(digest)
    try:
        if model is None or request.look_only:
            return model
        store.verify(model, on_progress)
        if same:
            return model
        kept: Origin = source
        if isinstance(source, UrlFile):
            kept = model.source  # nobody has asked that address
        with suppress(StoreError):  # it has gone meanwhile
            return store.name_again(
                model, request.name, source=kept, about=request.about, replace=replaceable(store, request)
            )
    except IntegrityError:
        pass
    return None


def _key(resolved: Resolved) -> str:
    """Two attempts at the same bytes are the same transfer, whatever they are called."""
    place = pinned.describe_place(resolved.source)
    known = [file.sha256 or f"{place}/{file.path}" for file in resolved.files]
    return hashlib.sha256("\n".join(known).encode()).hexdigest()


def _waiting(on_progress: Progress) -> Callable[[Unfinished], None]:
    return lambda other: on_progress("Another process is fetching it", other.arrived, other.total)
