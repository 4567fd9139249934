"""Where a file's bytes come from: its address, where that leads to, and whether what answers is that file.

The address that a redirect led to is used for all ranges, until it is no longer good. An answer is believed
only if it says what was asked for: the right places of a file of the right size, under the name (ETag) that
this server gave it before, and in no other encoding.
"""

from __future__ import annotations

import re
import threading
from collections.abc import Callable, Mapping
from typing import Final, NamedTuple

from localai.errors import FetchError
from models.fetch.options import Options
from models.fetch.retry import Broken, Changed, retry_after
from models.fetch.wanted import Wanted
from models.fetch.web import Answer, Web
from models.fetch.where import host, origin, shown

AGAIN: Final = "Run it again: it goes on where it stopped."
_BUSY: Final = frozenset({408, 425, 429, 500, 502, 503, 504})
DOUBTS: Final = 3
"""So often may a server say what cannot be."""


class Span(NamedTuple):
    """What the body of an answer is: bytes of the file from `start` to before `end`."""

    start: int
    end: int | None
    """None: up to the end of the file, wherever that is."""
    is_whole: bool
    """Whether it is the whole file, though a part was asked for."""
    size: int | None
    """Bytes of the whole file; None: still not known."""


class Source:
    """Safe for several threads."""

    def __init__(
        self, web: Web, wanted: Wanted, options: Options, names: Mapping[str, str], *, begun: bool
    ) -> None:
        """`names`: what servers, by origin, called the file of which something is there if it is `begun`."""
        self._web, self._wanted, self._options = web, wanted, options
        self._home = origin(wanted.url)
        self._lock = threading.Lock()
        self._final = ""
        self._names = dict(names)
        self._begun = begun
        self._asks_for_parts = True
        self._disputes = 0
        """How often the server told another size than before."""
        self.compares_names = True
        self.on_name: Callable[[str, str], None] = lambda server, name: None
        """Called when a server has given the file a name."""

    def failed(self, broken: Broken, times: int) -> FetchError:
        """The error for what happened so many times in a row."""
        server = broken.host or host(self._wanted.url)
        again = f" ({times} times in a row)" if times > 1 else ""
        return FetchError(
            f"{self._wanted.label} cannot be fetched from {server}: {broken.reason}{again}", AGAIN
        )

    def ask(self, start: int, end: int | None, size: int | None) -> tuple[Answer, Span]:
        """Ask for the bytes from `start` to before `end` of the file of that `size` (None: not known).

        Broken if another try may help, Changed if it is another file now, FetchError if neither.
        """
        with self._lock:
            url = self._final or self._wanted.url
        try:
            answer = self._web.open(url, *self._headers(url, start, end), origin(url))
        except Broken:
            self._forget(url)
            raise
        try:
            self._require_status(answer, url)
            looked_up = url == self._wanted.url and self._is_as_looked_up(answer)
            span = self._span(answer, start, end, size)
            self._identify(answer, span, looked_up=looked_up)
        except BaseException as error:
            answer.close()
            if isinstance(error, Broken):
                error.host = host(answer.url)
            raise
        return answer, span

    def _headers(self, url: str, start: int, end: int | None) -> tuple[dict[str, str], dict[str, str]]:
        """What to send to `url` and to where it redirects to, and what to send to its own origin alone."""
        server = origin(url)
        own = dict(self._wanted.headers) if server == self._home else {}
        if not self._asks_for_parts:
            return {}, own
        name = self._names.get(server, "")
        if self.compares_names and name and not name.startswith("W/"):
            own["If-Range"] = name
        return {"Range": f"bytes={start}-{'' if end is None else end - 1}"}, own

    # ------------------------------------------------------------------------------------------ address

    def _forget(self, url: str) -> None:
        with self._lock:
            self._final = "" if self._final == url else self._final

    # ------------------------------------------------------------------------------------------- status

    def _require_status(self, answer: Answer, url: str) -> None:
        status, at = answer.status, shown(answer.url)
        if status in (200, 206, 416):
            return
        if status in _BUSY:
            wait = retry_after(answer.headers)
            if wait is not None and wait > self._options.longest_retry_after:
                raise FetchError(
                    f"{at} wants to be left alone for {wait / 60:.0f} minutes", "Run it again then."
                )
            if status >= 500:
                self._forget(url)
            raise Broken(_busy(status), wait=wait, crowded=status in (429, 503))
        if url != self._wanted.url:
            self._forget(url)
            raise Broken(f"it answered {status}", expired=True, attempts=DOUBTS)
        raise _final(status, self._wanted.label, at)

    # ------------------------------------------------------------------------------------ the same file

    def _is_as_looked_up(self, answer: Answer) -> bool:
        """Whether it says to be the file that was looked up; FetchError if it says that it is another."""
        first, wanted = answer.first, self._wanted
        etag = first.get("X-Linked-Etag", "")
        if not etag and answer.direct and not wanted.has_digest:
            etag = first.get("ETag", "")
        size = _number(first.get("X-Linked-Size"))
        is_other = wanted.etag and etag and _bare(etag) != _bare(wanted.etag)
        if is_other or (wanted.size and size is not None and size != wanted.size):
            raise FetchError(
                f"{wanted.label} was replaced at {shown(wanted.url)} since it was looked up",
                "Run it again, for the new one.",
            )
        return bool(wanted.etag and etag)

    def _identify(self, answer: Answer, span: Span, *, looked_up: bool) -> None:
        """The bytes must be of the file of which some have come; remember its server, and its name there."""
        server, name = (
            origin(answer.url),
            answer.headers.get("ETag") or answer.headers.get("Last-Modified") or "",
        )
        with self._lock:
            known = self._names.get(server, "")
            if self.compares_names and known and name and name != known:
                raise Changed
            if not (looked_up or self._wanted.has_digest or (name and name == known)):
                if self._begun:
                    raise Changed
                if not name and not span.is_whole:
                    self._asks_for_parts = False
                    raise Broken("it does not say of which file it sends parts", expired=True)
            self._begun = True
            self._final = self._final if answer.direct else answer.url
            self._names[server] = name or known
        if name and name != known:
            self.on_name(server, name)

    def _span(self, answer: Answer, start: int, end: int | None, size: int | None) -> Span:
        """What the body is. Broken, Changed or FetchError if it is not what was asked for."""
        headers = answer.headers
        if headers.get("Content-Encoding", "").strip().lower() not in ("", "identity"):
            raise Broken("it sends the file in an encoding that was not asked for", attempts=DOUBTS)
        length = _number(headers.get("Content-Length"))
        if answer.status == 416:
            return self._nothing(headers, start, size)
        if answer.status == 200:
            self._require_size(length, size)
            whole = size if length is None else length
            self._require_an_end(answer, whole)
            return Span(0, whole, True, whole)
        first, after, total = _content_range(headers.get("Content-Range", ""))
        self._require_size(total, size)
        limit = min((one for one in (end, total, size) if one is not None), default=None)
        if first != start or after <= first or (limit is not None and after > limit):
            raise Broken("it sends other bytes than those that were asked for", attempts=DOUBTS)
        if length is not None and length != after - first:
            raise Broken("it says two different lengths", attempts=DOUBTS)
        if total is None and size is None:
            raise Broken("it does not say how long the file is", attempts=DOUBTS)
        return Span(first, after, False, size if total is None else total)

    def _require_size(self, told: int | None, size: int | None) -> None:
        """The file must have the size that is known: else it is another, or the server is wrong for once."""
        if told is None or size is None or told == size:
            return
        if self._wanted.size:
            raise Broken(f"the file there has {told:,} bytes, and {size:,} were looked up", attempts=DOUBTS)
        with self._lock:
            self._disputes += 1
        if self._disputes > 1:
            raise Changed
        raise Broken("it tells another size than before")

    def _nothing(self, headers: Mapping[str, str], start: int, size: int | None) -> Span:
        """The answer that there are no such bytes: right for an empty file alone."""
        found = re.fullmatch(r"bytes \*/([0-9]{1,18})", headers.get("Content-Range", "").strip())
        total = int(found[1]) if found else None
        if total == start == 0 and size is None:
            return Span(0, 0, False, 0)
        self._require_size(total, size)
        raise Broken("it does not have the bytes that were asked for", attempts=DOUBTS)

    def _require_an_end(self, answer: Answer, size: int | None) -> None:
        """A file that just ends, nobody knows where, can be told from a part of it by its digest only."""
        ends = answer.headers.get("Transfer-Encoding", "").strip().lower() == "chunked"
        if size is None and not self._wanted.has_digest and not ends:
            raise FetchError(
                f"{shown(answer.url)} does not tell how long {self._wanted.label} is",
                "Give the file's sha256: without either nobody can tell whether all of it has come.",
            )


def _final(status: int, label: str, at: str) -> FetchError:
    """The error for an answer that will be the same next time."""
    if status in (401, 403):
        return FetchError(
            f"{label} may not be fetched from {at} ({status})",
            "It is private, or its terms must be accepted on its website: set HF_TOKEN to a token that may.",
        )
    if status in (404, 410):
        return FetchError(f"{label} is not at {at} ({status})", "It was removed or renamed: check the name.")
    return FetchError(f"{label} cannot be fetched: {at} answered {status}", "Run it again later.")


def _busy(status: int) -> str:
    return "it has too much to do (429)" if status == 429 else f"it answered {status}"


def _bare(etag: str) -> str:
    return etag.removeprefix("W/").strip('"')


def _content_range(text: str) -> tuple[int, int, int | None]:
    """(first byte, the one after the last, all bytes of the file or None). Broken if it says nothing."""
    found = re.fullmatch(r"bytes ([0-9]{1,18})-([0-9]{1,18})/([0-9]{1,18}|\*)", text.strip())
    if found is None:
        raise Broken("it does not say which bytes it sends", attempts=DOUBTS)
    return int(found[1]), int(found[2]) + 1, None if found[3] == "*" else int(found[3])


def _number(text: str | None) -> int | None:
    return int(text) if text is not None and re.fullmatch(r"[0-9]{1,18}", text) else None
