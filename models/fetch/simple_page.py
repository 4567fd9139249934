"""A page of a package index (PEP 503 in HTML, PEP 691 in JSON), or any page with links: which files it lists.

All of it is untrusted: an address is only where to ask, and a digest only a promise.
"""

from __future__ import annotations

import html
import re
from collections.abc import Iterator
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
MOST: Final = 50_000
"""Files that a page may list. The largest project on the public index has fewer than half as many."""
_LONGEST_ALL: Final = 32 * 1024 * 1024
"""Characters of all their addresses and names."""
_LONGEST_BASE: Final = 1024
_SHA256 = re.compile(r"[0-9a-f]{64}")
_TAG: Final = re.compile(
    r"""<!--.*?(?:-->|\Z)|<(a|base)[\s/]((?:[^<>"']++|"[^"]*+"|'[^']*+')*+)>""", re.IGNORECASE | re.DOTALL
)
"""A comment, or a tag that matters. It takes time in proportion to the page: a tag begins anew at each "<",
outside of quotes, and nothing is tried in a second way."""
_ATTRIBUTE: Final = re.compile(r"""([^\s"'=/]++)(?:\s*+=\s*+("[^"]*+"|'[^']*+'|[^\s"']++))?""")


@dataclass(frozen=True)
class Link:
    """A file on an index."""

    filename: str
    url: str
    sha256: str = ""
    """"" if the index does not tell it."""
    size: int = 0
    """Bytes; 0 if the index does not tell it."""


class _Hashes(msgspec.Struct, frozen=True):
    sha256: str = ""


class _File(msgspec.Struct):
    filename: str
    url: str
    hashes: _Hashes = _Hashes()
    size: int | None = None


class _Project(msgspec.Struct):
    files: list[_File]


def parse(body: bytes, kind: str, url: str) -> list[Link]:
    """The links on the page `body` from `url`, whose Content-Type is `kind`. FetchError if malformed."""
    try:
        if "json" in kind.lower():
            files = msgspec.json.decode(body, type=_Project).files
            found = [_of_json(file, url) for file in files[: MOST + 1]]
            return _bounded(link for link in found if link is not None)
        return _bounded(_anchors(body.decode("utf-8", errors="replace"), url))
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        host = urlsplit(url).hostname or url
        raise FetchError(
            f"The package index {printable(host)} sent no list of files: {printable(str(error))}",
            "Check which index is set: python -m pip config list",
        ) from error


def _bounded(found: Iterator[Link]) -> list[Link]:
    """All of `found`. ValueError if it is more than any honest page lists."""
    links: list[Link] = []
    room = _LONGEST_ALL
    for link in found:
        links.append(link)
        room -= len(link.url) + len(link.filename)
        if len(links) > MOST or room < 0:
            raise ValueError(f"it lists more than {MOST:,} files")
    return links


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
    sha256 = file.hashes.sha256.lower()
    parts = _joined(url, file.url)
    if parts is None:
        return None
    return Link(
        file.filename,
        parts._replace(fragment="").geturl(),
        sha256 if _SHA256.fullmatch(sha256) else "",
        max(0, file.size or 0),
    )


def _anchors(text: str, url: str) -> Iterator[Link]:
    """The links of a page in HTML."""
    has_base = False
    for tag in _TAG.finditer(text):
        if not tag[1] or (has_base and tag[1].lower() == "base"):
            continue
        href = _href(tag[2])
        parts = _joined(url, href) if href else None
        if parts is None:
            continue
        if tag[1].lower() == "base":
            if len(href) <= _LONGEST_BASE:
                url, has_base = parts.geturl(), True
            continue
        digest = re.search(r"(?:^|&)sha256=([0-9a-f]{64})(?:&|$)", parts.fragment)
        name = unquote(parts.path.rpartition("/")[2])
        yield Link(name, parts._replace(fragment="").geturl(), digest[1] if digest else "")


def _href(attributes: str) -> str:
    """The first `href` among the attributes of a tag; "" if there is none."""
    for found in _ATTRIBUTE.finditer(attributes):
        if found[1].lower() == "href":
            value = found[2] or ""
            return html.unescape(value[1:-1] if value[:1] in ("'", '"') else value)
    return ""
