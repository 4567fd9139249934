"""Short answers of hubs and indexes: bounded in bytes and time, asked for again when that can help."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from localai.errors import FetchError
from models.fetch.retry import Broken, back_off, retry_after
from models.fetch.web import Answer, Web, origin
from models.header import printable

MAX_BYTES: Final = 16 * 1024 * 1024
"""Longest answer; the index of the largest checkpoint's tensors takes 9 MB, a list of 10,000 files 3 MB."""
CHECK_NETWORK: Final = "Check the network, and HTTPS_PROXY if it needs a proxy"
_MAX_SECONDS: Final = 120.0
"""Longest time that one answer may take to come."""
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
_ATTEMPTS: Final = 5
_UNREACHABLE_ATTEMPTS: Final = 3
_MAX_WAIT: Final = 60.0
"""Longest time in seconds that a server can make us wait."""
_PIECE: Final = 1024 * 1024
_TELL: Final = "Tell whoever runs it"


@dataclass(frozen=True)
class Page:
    """An answer, whole. `url` is where it came from, after all redirects."""

    status: int
    url: str
    headers: Mapping[str, str]
    first: Mapping[str, str]
    """The headers of the first answer, before redirects."""
    body: bytes = b""


def ask(
    web: Web,
    url: str,
    headers: Mapping[str, str] | None = None,
    own: Mapping[str, str] | None = None,
    *,
    method: str = "GET",
    body: bool = True,
    hint: str = CHECK_NETWORK,
) -> Page:
    """The answer to a request for `url`, whatever its status; `own` goes to the url's own origin alone.

    A busy server, or one that cannot be reached, is asked again after a while. Without `body`, that is not
    read. `hint`: what to do if there is no answer. FetchError if there is no answer, or one that is too long.
    """
    host = printable(urlsplit(url).netloc.rpartition("@")[2])
    return _patiently(lambda: _once(web, url, headers or {}, own or {}, method, body), host, hint)


def _once(
    web: Web, url: str, headers: Mapping[str, str], own: Mapping[str, str], method: str, body: bool
) -> Page:
    with web.open(url, headers, own, origin(url), method) as answer:
        data = _read(answer) if body and method != "HEAD" else b""
        return Page(answer.status, answer.url, answer.headers, answer.first, data)


def _patiently(ask: Callable[[], Page], host: str, hint: str) -> Page:
    attempt = 0
    while True:
        attempt += 1
        try:
            page = ask()
        except Broken as error:
            if attempt >= _UNREACHABLE_ATTEMPTS:
                raise FetchError(f"{host} gives no answer: {error.reason}", hint) from error
            time.sleep(back_off(attempt, 0.5, 4.0))
            continue
        if page.status not in _BUSY or attempt >= _ATTEMPTS:
            return page
        wait = retry_after(page.headers)
        if wait is not None and wait > _MAX_WAIT:
            return page
        time.sleep(back_off(attempt, 0.5, 8.0) if wait is None else wait)


def _read(answer: Answer) -> bytes:
    host = printable(urlsplit(answer.url).netloc)
    if answer.headers.get("Content-Encoding", "identity").strip().lower() not in ("", "identity"):
        raise FetchError(f"{host} sent a compressed answer that nobody asked for", _TELL)
    pieces, size, deadline = [], 0, time.monotonic() + _MAX_SECONDS
    while piece := answer.read(_PIECE):
        pieces.append(piece)
        size += len(piece)
        if size > MAX_BYTES:
            raise FetchError(
                f"{host} sent an answer of more than {MAX_BYTES >> 20} MiB, which no list has", _TELL
            )
        if time.monotonic() > deadline:
            raise FetchError(f"{host} takes minutes for one short answer", "Try again later")
    length = answer.headers.get("Content-Length", "")
    if re.fullmatch(r"[0-9]{1,18}", length) and int(length) != size:
        raise Broken("the answer was cut")
    return b"".join(pieces)
