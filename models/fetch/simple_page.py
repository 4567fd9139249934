"""A page of a package index (PEP 503 in HTML, PEP 691 in JSON), or any page with links: which files it lists.

All of it is untrusted: an address is only where to ask, and a digest only a promise.
"""

from __future__ import annotations

import html.parser
import re
from dataclasses import dataclass
from typing import Final
from urllib.parse import SplitResult, unquote, urljoin, urlsplit

import msgspec

from localai.errors import FetchError
from models.fetch.where import is_plain
from models.header import printable

ACCEPT: Final = (
    "application/vnd.pypi.simple.v1+json, application/vnd.pypi.simple.v1+html;q=0.2, text/html;q=0.01"
)
_SHA256 = re.compile(r"[0-9a-f]{64}")


@dataclass(frozen=True)
class Link:
    """A file on an index."""

    filename: str
    url: str
    sha256: str = ""
    """"" if the index does not tell it."""
    size: int = 0
    """Bytes; 0 if the index does not tell it."""


class _File(msgspec.Struct):
    filename: str
    url: str
    hashes: dict[str, str] = {}
    size: int | None = None


class _Project(msgspec.Struct):
    files: list[_File]


def parse(body: bytes, kind: str, url: str) -> list[Link]:
    """The links on the page `body` from `url`, whose Content-Type is `kind`. FetchError if malformed."""
    try:
        if "json" in kind.lower():
            found = (_of_json(file, url) for file in msgspec.json.decode(body, type=_Project).files)
            return [link for link in found if link is not None]
        return _Anchors.links(body.decode("utf-8", errors="replace"), url)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        host = urlsplit(url).hostname or url
        raise FetchError(
            f"The package index {printable(host)} sent no list of files: {printable(str(error))}",
            "Check which index is set: python -m pip config list",
        ) from error


def _joined(base: str, href: str) -> SplitResult | None:
    """The address that `href` means on the page `base`; None if it is none."""
    href = href.strip()
    if not is_plain(href):
        return None
    try:
        parts = urlsplit(urljoin(base, href))
        _ = parts.port
    except ValueError:
        return None
    return parts


def _of_json(file: _File, url: str) -> Link | None:
    sha256 = file.hashes.get("sha256", "").lower()
    parts = _joined(url, file.url)
    if parts is None:
        return None
    return Link(
        file.filename,
        parts._replace(fragment="").geturl(),
        sha256 if _SHA256.fullmatch(sha256) else "",
        max(0, file.size or 0),
    )


class _Anchors(html.parser.HTMLParser):
    def __init__(self, url: str) -> None:
        super().__init__()
        self._base = url
        self.found: list[Link] = []

    @classmethod
    def links(cls, text: str, url: str) -> list[Link]:
        parser = cls(url)
        parser.feed(text)
        parser.close()
        return parser.found

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        href = dict(attributes).get("href")
        if not href:
            return
        parts = _joined(self._base, href)
        if tag == "base" and parts is not None:
            self._base = parts.geturl()
        elif tag == "a" and parts is not None:
            digest = re.search(r"(?:^|&)sha256=([0-9a-f]{64})(?:&|$)", parts.fragment)
            name = unquote(parts.path.rpartition("/")[2])
            self.found.append(Link(name, parts._replace(fragment="").geturl(), digest[1] if digest else ""))
