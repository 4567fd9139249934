"""Connections of urllib3 on which nothing is waited for without end: no greeting, and no head of an answer.

The wait for a body is bounded by whoever reads it; `cut` ends it.
"""

from __future__ import annotations

import socket
from contextlib import suppress
from typing import Final

import urllib3
from urllib3.connection import HTTPConnection, HTTPSConnection

from models.fetch.deadline import Deadline

PATIENCE: Final = 2.0
"""What is waited for may take so many times as long as its first byte."""


class Bounded(HTTPConnection):
    """Over plain http."""

    _lifeline: socket.socket | None = None
    """The connection itself, however it is wrapped."""
    _sock: socket.socket | None = None

    def _new_conn(self) -> socket.socket:
        made = super()._new_conn()
        self._lifeline = made.dup()
        return made

    def connect(self) -> None:
        """As it is there; TimeoutError if the proxy, or the encryption, takes too long."""
        with Deadline(self._patience(), self._shut):
            super().connect()

    def getresponse(self) -> urllib3.HTTPResponse:  # type: ignore[override]  # As urllib3's own is
        """As it is there; TimeoutError if the head of the answer takes too long."""
        self._sock = self.sock
        with Deadline(self._patience(), self._shut):
            return super().getresponse()

    def cut(self) -> None:
        """End the connection, and what waits for the body of its last answer: from any thread."""
        with suppress(OSError, ValueError):
            if self._sock is not None:
                self._sock.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """As it is there. The body of the last answer may still come."""
        try:
            super().close()
        finally:
            if self._lifeline is not None:
                self._lifeline.close()
            self._lifeline = None

    def _patience(self) -> float:
        return PATIENCE * (self.timeout if isinstance(self.timeout, (int, float)) else 30.0)

    def _shut(self) -> None:
        with suppress(OSError):
            if self._lifeline is not None:
                self._lifeline.shutdown(socket.SHUT_RDWR)


class _BoundedTls(Bounded, HTTPSConnection):
    """Over https."""


class _Pool(urllib3.HTTPConnectionPool):
    ConnectionCls = Bounded


class _TlsPool(urllib3.HTTPSConnectionPool):
    ConnectionCls = _BoundedTls


def bound(manager: urllib3.PoolManager) -> urllib3.PoolManager:
    """`manager`, which makes such connections from now on."""
    manager.pool_classes_by_scheme = {"http": _Pool, "https": _TlsPool}
    return manager
