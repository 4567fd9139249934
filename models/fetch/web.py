"""Requests over HTTP: connections that are used again, and redirects that are followed by hand.

What authorizes a request goes to the origin that it was meant for (scheme, host and port), and to no other.
https is never left for http.
"""

from __future__ import annotations

import http.client
import re
import socket
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Final
from urllib.parse import unquote, urldefrag, urljoin, urlsplit

import urllib3
from urllib3.exceptions import (
    HTTPError,
    LocationValueError,
    NameResolutionError,
    NewConnectionError,
    ProxyError,
    SSLError,
)
from urllib3.exceptions import TimeoutError as Urllib3Timeout

from localai import __version__
from localai.errors import FetchError
from models.fetch import trust
from models.fetch.bounded import PATIENCE, Bounded, bound
from models.fetch.deadline import Deadline
from models.fetch.environment import proxy_for, tls_context
from models.fetch.retry import Broken
from models.fetch.where import host, is_address, is_plain, origin, require_address, server, shown
from models.header import printable

__all__ = ["Answer", "Web", "host", "origin", "shown"]

_REDIRECTS: Final = (301, 302, 303, 307, 308)
_WINDOW: Final = 3 * 1024 * 1024
"""Most bytes that one connection has on the way to us, so that a process that dies loses little."""
_CERTIFICATES: Final = (
    "If your network has a certificate authority of its own, name its certificates in SSL_CERT_FILE."
)
_NO_ADDRESS: Final = (LocationValueError, http.client.InvalidURL, UnicodeError)
_FOREIGN: Final = (HTTPError, http.client.HTTPException, OSError, ValueError)


class Answer:
    """The answer to a request, its body not yet read. Close it, or read it to its end."""

    def __init__(
        self,
        response: urllib3.BaseHTTPResponse,
        url: str,
        first: Mapping[str, str],
        *,
        direct: bool,
        patience: float,
    ) -> None:
        """`patience`: seconds that it may take until some of the body is there."""
        self._response, self._patience = response, patience
        connection = getattr(response, "connection", None)
        self._connection = connection if isinstance(connection, Bounded) else None
        self.url = url
        """Where it came from, after all redirects."""
        self.status = response.status
        self.headers: Mapping[str, str] = response.headers
        self.first = first
        """The headers of the first answer, that of the address which was asked for."""
        self.direct = direct
        """Whether there was no redirect."""
        self._broken: Broken | None = None

    def read(self, count: int) -> bytes:
        """The next bytes of the body, as they came: at most `count`, none at its end. Broken if it is cut."""
        if self._broken is not None:  # urllib3 would take what is missing for the end.
            raise self._broken
        try:
            with _Mapped(self.url), Deadline(self._patience, self.stop):
                return self._response.read1(count, decode_content=False) or b""
        except Broken as broken:
            self._broken = broken
            raise

    def stop(self) -> None:
        """Make `read` end, also in another thread."""
        if self._connection is not None:
            self._connection.cut()

    def close(self) -> None:
        """Give the connection back if all was read, else end it."""
        if self._response.closed:
            self._response.release_conn()
        else:
            self._response.close()

    def __enter__(self) -> Answer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Web:
    """Connections that are kept and used again: safe for several threads. A context manager."""

    def __init__(
        self,
        *,
        connections: int = 4,
        connect_timeout: float = 15.0,
        read_timeout: float = 30.0,
        receive_buffer: int = 0,
        redirects: int = 10,
    ) -> None:
        """Timeouts are seconds; `receive_buffer` is bytes that the system holds for us, 0: as it likes."""
        self._connections, self._redirects = connections, redirects
        self._timeout = urllib3.Timeout(connect=connect_timeout, read=read_timeout)
        self._patience = PATIENCE * read_timeout
        self._options = [*urllib3.connection.HTTPConnection.default_socket_options]
        if receive_buffer:
            self._options.append((socket.SOL_SOCKET, socket.SO_RCVBUF, receive_buffer))
        elif hasattr(socket, "TCP_WINDOW_CLAMP"):
            self._options.append((socket.IPPROTO_TCP, socket.TCP_WINDOW_CLAMP, _WINDOW))
        self._pools: dict[tuple[str, bool], urllib3.PoolManager] = {}
        self._lock = threading.Lock()

    def __enter__(self) -> Web:
        return self

    def __exit__(self, *_: object) -> None:
        for pool in list(self._pools.values()):
            pool.clear()

    def open(
        self, url: str, headers: Mapping[str, str], own: Mapping[str, str], home: str, method: str = "GET"
    ) -> Answer:
        """Ask for `url` with `headers`, and with those of `own` where the origin is `home`.

        Broken if that can be tried again, FetchError if it makes no sense to. Any status but that of a
        redirect is an answer.
        """
        require_address(url)
        first: Mapping[str, str] | None = None
        for _ in range(self._redirects + 1):
            ours = {"User-Agent": f"localai/{__version__}", "Accept-Encoding": "identity"}
            sent = {**ours, **headers, **(own if origin(url) == home else {})}
            with _Mapped(url):
                response = self._pool(url).request(
                    method,
                    url,
                    headers=sent,
                    timeout=self._timeout,
                    preload_content=False,
                    redirect=False,
                    retries=False,
                )
            direct = first is None
            first = response.headers if first is None else first
            if response.status not in _REDIRECTS:
                return Answer(response, url, first, direct=direct, patience=self._patience)
            with Answer(response, url, first, direct=direct, patience=self._patience):
                url = _target(url, response.headers.get("Location", ""))
        raise FetchError(f"{shown(url)} is redirected too often", "Tell whoever runs that server.")

    def _pool(self, url: str) -> urllib3.PoolManager:
        """The connections that lead to that address."""
        key = proxy_for(url), trust.is_trusted(url)
        with self._lock:
            if key not in self._pools:
                self._pools[key] = self._new_pool(*key)
            return self._pools[key]

    def _new_pool(self, proxy: str, is_trusted: bool) -> urllib3.PoolManager:
        context = trust.identify(trust.unverified() if is_trusted else tls_context())
        if is_trusted:
            urllib3.disable_warnings(urllib3.exceptions.InsecureRequestWarning)  # The user knows
        if not proxy:
            return bound(
                urllib3.PoolManager(
                    maxsize=self._connections, ssl_context=context, socket_options=self._options
                )
            )
        parts = urlsplit(proxy)
        if parts.scheme not in ("http", "https"):
            raise FetchError(
                f"The proxy {shown(proxy)} is of a kind that is not supported",
                "Set a proxy that speaks HTTP.",
            )
        user = f"{parts.username or ''}:{parts.password or ''}"
        given = urllib3.make_headers(proxy_basic_auth=unquote(user)) if parts.username else None
        manager = urllib3.ProxyManager(
            f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}",
            maxsize=self._connections,
            ssl_context=context,
            proxy_headers=given,
            socket_options=self._options,
        )
        return bound(manager)


def _target(url: str, location: str) -> str:
    """Where a redirect leads. FetchError if nobody should follow."""
    try:
        target = urldefrag(urljoin(url, location)).url
    except ValueError:
        target = ""
    # Location itself, too: joining drops some of the characters that no address has
    if not location or not is_address(target) or not is_plain(location):
        raise FetchError(
            f"{shown(url)} is redirected to {printable(location, 100)!r}, which is no address of a file",
            "Tell whoever runs that server.",
        )
    if server(url).scheme == "https" and server(target).scheme != "https":
        raise FetchError(
            f"{shown(url)} is redirected to {shown(target)}, which is not encrypted",
            "It was not followed. Tell whoever runs that server.",
        )
    return target


class _Mapped:
    """Turns what urllib3 raises into Broken, or into FetchError where trying again cannot help."""

    def __init__(self, url: str) -> None:
        self._url = url

    def __enter__(self) -> None:
        return None

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if not isinstance(error, _FOREIGN):
            return
        if isinstance(error, SSLError) and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise FetchError(f"The certificate of {host(self._url)} is not trusted", _CERTIFICATES) from error
        if isinstance(error, _NO_ADDRESS):
            raise FetchError(f"{shown(self._url)} is no address", "Correct it.") from error
        raise Broken(_reason(error), host=host(self._url)) from error


def _reason(error: BaseException) -> str:
    """What happened, in a few words."""
    if isinstance(error, ProxyError):
        inner = error.original_error
        known = isinstance(inner, (HTTPError, TimeoutError))
        return f"the proxy failed: {_reason(inner) if known else printable(str(inner or error), 100)}"
    if isinstance(error, NameResolutionError):
        return "no such server is known: there may be no network"
    if isinstance(error, NewConnectionError):
        return "it cannot be reached"
    if isinstance(error, (Urllib3Timeout, TimeoutError)):
        return "it does not answer"
    if isinstance(error, SSLError):
        named = re.search(r"\] ([\w ]+)", str(error))
        return f"there is no secure connection: {named[1]}" if named else "there is no secure connection"
    return "the connection broke"
