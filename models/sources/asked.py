"""What the user's words for a model that is to be fetched mean: a name, a repository, an address."""

from __future__ import annotations

import re
from pathlib import PurePosixPath
from typing import Final
from urllib.parse import unquote, urlsplit

import msgspec

from localai.errors import ModelNotFound, UsageError
from models.catalog import Wanted
from models.fetch.protocol import Search
from models.files import megabytes
from models.ggml_types import FILE_TYPES
from models.header import printable
from models.names import suggested
from models.origins import HubCheckpoint, Repository, UrlFile
from models.parts import stem_of
from models.sources import Request

_HUBS: Final = re.compile(r"(?:https?://)?(?:www\.)?(?:hf\.co|huggingface\.co)/([^/\s]+/[^/\s]+?)/?")
_SHA256: Final = re.compile(r"[0-9a-f]{64}")
_ON_THE_HUB: Final = re.compile(r"([^/:@\s]+/[^/:@\s]+)(?::([^/:@\s]+))?(?:@(\S+))?")


def tidied(text: str) -> str:
    """`text`, or OWNER/REPOSITORY in the place of the hub's own ways to write it; UsageError for a file."""
    if match := _HUBS.fullmatch(text):
        return match[1]
    if text.startswith((".", "/", "~")) or (text.lower().endswith(".gguf") and "://" not in text):
        raise UsageError(
            f"{printable(text)!r} is a file on this machine",
            "To add it to the store: localai models import FILE",
        )
    return text


def is_name(text: str) -> bool:
    """Whether `text` can only be a name of the catalogue: no address, and no repository on the hub."""
    return "://" not in text and not _ON_THE_HUB.fullmatch(text)


def by_name(wanted: Wanted, name: str | None) -> Request:
    """A model of the catalogue, ready-made. ModelNotFound, saying what can be done, if nobody has it so."""
    entry, file_type = wanted.entry, wanted.type
    ready = entry.ready(file_type)
    if not ready:
        types = ", ".join(dict.fromkeys(one.type for one in entry.file)) or "none"
        hint = f"Ready-made types: {types}"
        if isinstance(entry.checkpoint, HubCheckpoint):
            size = max(2 * entry.parameters, sum(file.size for file in entry.checkpoint.files))
            hint += f". With --from-source it is made here, from {megabytes(size)} of the publisher's weights"
        raise ModelNotFound(f"{entry.name} is not ready-made as {file_type}", hint)
    sources = tuple(one.source for one in ready)
    return Request(name=name or wanted.name, sources=sources, about=entry.about, catalogued=name is None)


def on_the_hub(text: str, name: str | None, path: str | None, sha256: str | None = None) -> Request:
    """OWNER/REPOSITORY[:TYPE][@REVISION], and perhaps the `path` of the file. UsageError if it is not."""
    match = _ON_THE_HUB.fullmatch(text)
    try:
        repository = msgspec.convert(match[1] if match else "", Repository)
    except msgspec.ValidationError:
        raise UsageError(
            f"{printable(text)!r} is not a repository on the hub", "OWNER/REPOSITORY:TYPE is the form"
        ) from None
    file_type = (match[2] or "").upper() if match else ""
    if file_type and file_type not in FILE_TYPES.values():
        raise UsageError(f"{printable(file_type)!r} is not a type of GGUF files", "Such as Q4_K_M, Q8_0, F16")
    source = Search(
        repository=repository,
        revision=(match[3] or "") if match else "",
        type=file_type,
        path=path or "",
    )
    own = repository.partition("/")[2]
    own = own[: -len("-GGUF")] if own.upper().endswith("-GGUF") else own
    called = name or suggested(f"{own}:{file_type}" if file_type else own)
    return Request(name=called, sources=(source,), sha256=_digest(sha256) if sha256 else "")


def _digest(text: str) -> str:
    digest = text.lower().removeprefix("sha256:")
    if not _SHA256.fullmatch(digest):
        raise UsageError(f"{printable(text)!r} is not a sha256", "It has 64 hex digits")
    return digest


def at_address(url: str, name: str | None, sha256: str | None) -> Request:
    """A GGUF file at an address, which must have that digest. UsageError without, or for another scheme."""
    if not sha256:
        raise UsageError(
            "A file from an address needs its digest: nobody else vouches for it",
            "Get the sha256 from whoever made the file, and add --sha256 HEX",
        )
    try:
        source = msgspec.convert({"kind": "url", "url": url, "sha256": _digest(sha256)}, UrlFile)
        stem = stem_of(PurePosixPath(unquote(urlsplit(url).path)).name)
    except (msgspec.ValidationError, ValueError):
        raise UsageError(
            f"{printable(url)!r} cannot be fetched", "Give an https address without blanks"
        ) from None
    return Request(name=name or suggested(stem or "model"), sources=(source,))
