"""A GGUF file at an address, which must have a known digest: so plain http is as good as https here."""

from __future__ import annotations

import re
from urllib.parse import unquote, urldefrag, urlsplit

import msgspec

from localai.errors import FetchError, IntegrityError, LocalAIError, ModelNotFound
from models.fetch import pages
from models.fetch.access import credentials, without_userinfo
from models.fetch.pages import Page
from models.fetch.plan import Item, Plan
from models.fetch.protocol import Listed, Resolved
from models.fetch.wanted import Wanted
from models.fetch.web import Web, shown
from models.origins import UrlFile


def resolve(source: UrlFile, web: Web) -> Plan:
    """The plan for `source`. ModelNotFound or FetchError if it is not there, IntegrityError if it is another.

    A user and a password in the address are used and kept out of what is recorded.
    """
    url, headers = without_userinfo(urldefrag(source.url).url)
    headers = headers or credentials(url)
    size = _size(web, url, headers)
    if size and source.size and size != source.size:
        raise IntegrityError(
            f"{shown(url)} has {size} bytes and not {source.size}: it was replaced",
            "Ask whoever runs that server; take another digest only if you trust who replaced it",
        )
    size = size or source.size
    completed = msgspec.structs.replace(source, url=url, size=size)
    listed = Listed(unquote(urlsplit(url).path.rpartition("/")[2]), size, source.sha256)
    wanted = Wanted(url=url, headers=headers, size=size, sha256=source.sha256)
    resolved = Resolved(source=completed, files=(listed,), total=size, peak=size)
    return Plan(resolved, (Item(listed, "model.gguf", wanted),))


def _size(web: Web, url: str, headers: dict[str, str]) -> int:
    """Bytes of the file at `url`; 0 if the server does not tell."""
    page = pages.ask(web, url, own=headers, method="HEAD")
    if page.status == 200 and _number(page.headers.get("Content-Length", "")):
        return _number(page.headers["Content-Length"])
    page = pages.ask(web, url, {"Range": "bytes=0-0"}, headers, body=False)
    if page.status not in (200, 206):
        raise _refused(page, url)
    total = re.fullmatch(r"bytes 0-0/(\d+)", page.headers.get("Content-Range", ""))
    return _number(
        total[1] if total else page.headers.get("Content-Length", "") if page.status == 200 else ""
    )


def _number(text: str) -> int:
    return int(text) if re.fullmatch(r"[0-9]{1,15}", text) else 0


def _refused(page: Page, url: str) -> LocalAIError:
    status = page.status
    if status in (404, 410):
        return ModelNotFound(f"There is nothing at {shown(url)} ({status})", "Check the address")
    if status in (401, 403):
        return FetchError(
            f"{shown(url)} is not given to everybody ({status})",
            "Put a user and a password for that host into ~/.netrc",
        )
    return FetchError(f"The server answered {status} when asked for {shown(url)}", "Try again later")
