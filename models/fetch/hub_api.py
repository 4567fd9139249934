"""What a hub tells about a repository: the commit of a revision, and its files with sizes and digests.

The only file that imports huggingface_hub. Whatever the environment says, the library sends no telemetry,
uses no stored token, checks for no updates and keeps no cache. What it asks is asked by `models.fetch.pages`.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Iterable
from dataclasses import replace
from types import ModuleType
from typing import Final

import httpx2
import msgspec

from localai.errors import FetchError, IntegrityError, LocalAIError, ModelNotFound
from models.fetch import pages
from models.fetch.access import PUBLIC, Access
from models.fetch.listing import Listing
from models.fetch.pages import CHECK_NETWORK, Page
from models.fetch.protocol import Listed
from models.fetch.web import Web
from models.header import printable
from models.origins import Commit

_SETTINGS: Final = {
    "HF_HUB_DISABLE_TELEMETRY": "1",
    "DO_NOT_TRACK": "1",
    "DISABLE_TELEMETRY": "1",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "1",
    "HF_HUB_DISABLE_UPDATE_CHECK": "1",
    "HF_HUB_DISABLE_XET": "1",
    "HF_HUB_DISABLE_SYMLINKS": "1",
    "HF_HUB_DISABLE_SHARED_BLOBS": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
}
_CODES: Final = ("X-Error-Code", "X-Error-Message")
_AGAIN: Final = "Try again later, or set HF_ENDPOINT to a mirror"


_MOST: Final = 50_000
"""Files in a repository."""


class _Lfs(msgspec.Struct):
    size: int
    sha256: str


class _Sibling(msgspec.Struct):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _Lfs | None = None


class _Answer(msgspec.Struct):
    """The part of the library's answer that is used, checked."""

    sha: Commit
    siblings: list[_Sibling]


class Hub:
    """One hub. All its methods raise ModelNotFound or FetchError, with one clear line."""

    def __init__(self, access: Access, web: Web) -> None:
        self.access = access
        self._pages = _Pages(web, access)
        self._library = _quiet_library(access.endpoint, self._pages)

    def listing(self, repository: str, revision: str) -> Listing:
        """The files of `repository` at `revision`: a branch, a tag or a commit."""
        if self._library.is_offline_mode():
            raise FetchError("HF_HUB_OFFLINE is set, so that no hub is asked", "Unset it to fetch from a hub")
        api = self._library.HfApi(endpoint=self.access.endpoint, token=False)
        try:
            info = api.model_info(repository, revision=revision, files_metadata=True)
            answer = msgspec.convert(info, _Answer, from_attributes=True)
            if len(answer.siblings) > _MOST:
                raise ValueError(f"it has more than {_MOST:,} files")
            return Listing(repository, answer.sha, {one.rfilename: _listed(one) for one in answer.siblings})
        except LocalAIError:
            raise
        except Exception as error:
            raise self._refused(error, repository, revision) from error

    def address(self, listing: Listing, path: str) -> str:
        """Where the file at `path` is had."""
        return str(
            self._library.hf_hub_url(
                listing.repository, path, revision=listing.commit, endpoint=self.access.endpoint
            )
        )

    def completed(self, listing: Listing, paths: Iterable[str]) -> Listing:
        """`listing`, with what a mirror that lists no sizes and digests tells of these files one by one."""
        bare = {path for path in paths if path in listing.files and listing.files[path] == Listed(path)}
        return replace(listing, files=listing.files | {path: self._told(listing, path) for path in bare})

    def _told(self, listing: Listing, path: str) -> Listed:
        first = self._pages.get(self.address(listing, path), method="HEAD").first
        size, name = first.get("X-Linked-Size", ""), first.get("X-Linked-Etag", "").strip('"')
        is_size, is_sha256 = re.fullmatch("[0-9]{1,15}", size), re.fullmatch("[0-9a-f]{64}", name)
        return Listed(path, int(size) if is_size else 0, name if is_sha256 else "")

    def content(self, listing: Listing, file: Listed) -> bytes:
        """The bytes of a small file, verified as far as the hub tells what it should be."""
        page = self._pages.get(self.address(listing, file.path))
        if page.status != 200:
            raise _refusal(page, self.access, listing.repository, listing.commit)
        if not _is(file, page.body):
            raise IntegrityError(
                f"{self.access.host} sent other bytes for {printable(file.path)} than it says it has", _AGAIN
            )
        return page.body

    def _refused(self, error: Exception, repository: str, revision: str) -> LocalAIError:
        """The error for whatever the library raised: it depends on the answer, if there was one."""
        page = self._pages.last
        if isinstance(error, self._library.errors.HFValidationError):
            return ModelNotFound(f"{printable(repository)} cannot be a repository on a hub", "Check its name")
        if page is None:
            raise error
        if page.status != 200:
            return _refusal(page, self.access, repository, revision)
        return FetchError(
            f"{self.access.host} says something about {repository} that lists no files: "
            f"{printable(f'{type(error).__name__}: {error}')}",
            "Check HF_ENDPOINT, or ask whoever runs that hub",
        )


class _Pages(httpx2.BaseTransport):
    """What the library asks, asked by `models.fetch.pages`: the token never enters the library."""

    def __init__(self, web: Web, access: Access) -> None:
        self._web, self._access = web, access
        is_named = access.endpoint != PUBLIC
        self._hint = f"Check HF_ENDPOINT, which names it. {CHECK_NETWORK}" if is_named else CHECK_NETWORK
        self.last: Page | None = None

    def get(self, url: str, method: str = "GET") -> Page:
        """The answer of the hub."""
        self.last = pages.ask(self._web, url, own=self._access.headers, method=method, hint=self._hint)
        return self.last

    def handle_request(self, request: httpx2.Request) -> httpx2.Response:
        """As the library wants it."""
        page = self.get(str(request.url))
        kept = {name: page.headers[name] for name in (*_CODES, "Content-Type") if name in page.headers}
        return httpx2.Response(page.status, headers=kept, content=page.body, request=request)


def _is(file: Listed, content: bytes) -> bool:
    """Whether the digests that the hub tells for `file` are those of `content`."""
    if file.sha256:
        return hashlib.sha256(content).hexdigest() == file.sha256
    git_blob = hashlib.sha1(b"blob %d\0" % len(content) + content, usedforsecurity=False)
    return not file.git_sha1 or git_blob.hexdigest() == file.git_sha1


def _refusal(page: Page, access: Access, repository: str, revision: str) -> LocalAIError:
    """The error for an answer with another status than 200."""
    code, reason = (page.headers.get(name, "") for name in _CODES)
    if code == "GatedRepo":
        return FetchError(
            f"{repository} is gated: {access.host} gives it to those who accepted its publisher's conditions",
            f"Accept them at {access.endpoint}/{repository}, then set HF_TOKEN to a token of yours",
        )
    if code == "RevisionNotFound":
        return ModelNotFound(
            f"{repository} has no revision {printable(revision)!r}", "Check the branch, tag or commit"
        )
    if code == "EntryNotFound":
        return ModelNotFound(
            f"{repository} has no such file at {revision}", f"See {access.endpoint}/{repository}"
        )
    if reason == "Access to this resource is disabled.":
        return FetchError(f"{access.host} has disabled {repository}", "Choose another source of this model")
    return _by_status(page, access, repository)


def _by_status(page: Page, access: Access, repository: str) -> LocalAIError:
    status, host = page.status, access.host
    is_unknown = page.headers.get(_CODES[0]) == "RepoNotFound"
    if status in (401, 403) and access.headers and not is_unknown:
        return FetchError(
            f"{host} does not accept the token for {repository} ({status})",
            "Check HF_TOKEN, and whether its account may see that repository",
        )
    if status in (401, 403, 404):
        return ModelNotFound(
            f"{host} has no repository {repository}, or does not show it to everybody ({status})",
            "Check its name; if it is private or gated, set HF_TOKEN to a token that may see it",
        )
    after = printable(page.headers.get("Retry-After", ""), 40)
    later = f", and wants to be asked later (Retry-After: {after})" if after else ""
    return FetchError(f"{host} answered {status} when asked for {repository}{later}", _AGAIN)


def _quiet_library(endpoint: str, transport: httpx2.BaseTransport) -> ModuleType:
    """huggingface_hub, set up before it is imported: it reads the environment once, at that moment."""
    offline = os.environ.get("HF_HUB_OFFLINE", "")
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING")):
            del os.environ[name]
    os.environ.update(_SETTINGS, HF_ENDPOINT=endpoint, HF_HUB_OFFLINE=offline)
    import huggingface_hub
    import huggingface_hub.constants
    import huggingface_hub.errors

    _see_that_it_obeys(huggingface_hub.constants)
    huggingface_hub.set_client_factory(lambda: httpx2.Client(transport=transport))
    return huggingface_hub


def _see_that_it_obeys(constants: ModuleType) -> None:
    """FetchError if the library was imported before, or another version reads its settings in another way."""
    wanted = [name for name in _SETTINGS if name.startswith("HF_")]
    if ignored := [name for name in wanted if getattr(constants, name, None) is not True]:
        raise FetchError(
            f"huggingface_hub does not obey {', '.join(ignored)}, and might tell others what is fetched",
            "Install the version of huggingface_hub that this program needs, or fetch the file itself",
        )


def _listed(file: _Sibling) -> Listed:
    found = (
        Listed(file.rfilename, file.lfs.size, file.lfs.sha256)
        if file.lfs
        else Listed(file.rfilename, file.size or 0, "", file.blob_id or "")
    )
    return msgspec.convert(msgspec.to_builtins(found), Listed)
