"""A fast server of one file, in a process of its own: as a hub, and under any other path.

    python benchmarks/pull_server.py FILE [--rate BYTES] [--latency SECONDS]

It prints its port. `--rate` is how much it sends in a second to all together, `--latency` how long each
answer takes to begin. The file goes from the page cache into the socket (sendfile): little is left to be
measured but the client.
"""

from __future__ import annotations

import argparse
import os
import re
import socket
import threading
import time
from pathlib import Path

COMMIT = "0123456789abcdef0123456789abcdef01234567"
_AT_ONCE = 4 * 1024 * 1024
_PACED = 256 * 1024


class Budget:
    """What may be sent; shared by all connections."""

    def __init__(self, rate: float) -> None:
        self._rate, self._lock, self._due = rate, threading.Lock(), time.monotonic()

    @property
    def piece(self) -> int:
        """How much to send at one time."""
        return _PACED if self._rate else _AT_ONCE

    def take(self, count: int) -> None:
        """Wait until so many bytes may be sent."""
        if not self._rate:
            return
        with self._lock:
            now = time.monotonic()
            self._due = max(self._due, now - 0.01) + count / self._rate
            wait = self._due - now
        if wait > 0:
            time.sleep(wait)


def serve(connection: socket.socket, file: int, budget: Budget, latency: float) -> None:
    """Answer requests until the client goes."""
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    size, received = os.fstat(file).st_size, b""
    with connection:
        while True:
            while b"\r\n\r\n" not in received:
                if not (data := connection.recv(65536)):
                    return
                received += data
            request, _, received = received.partition(b"\r\n\r\n")
            time.sleep(latency)
            if not answer(connection, request, file, size, budget):
                return


def answer(connection: socket.socket, request: bytes, file: int, size: int, budget: Budget) -> bool:
    """Answer one request; False if the client has gone."""
    method, path, _ = request.split(b" ", 2)
    found = re.search(rb"(?i)\r\nrange: *bytes=(\d+)-(\d*)", request)
    start, end = (int(found[1]), int(found[2]) + 1 if found[2] else size) if found else (0, size)
    head = [
        "HTTP/1.1 404 Not Found"
        if b"/api/" in path
        else "HTTP/1.1 206 Partial"
        if found
        else "HTTP/1.1 200 OK",
        f"Content-Length: {0 if b'/api/' in path else end - start}",
        f"Content-Range: bytes {start}-{end - 1}/{size}",
        "Accept-Ranges: bytes",
        'ETag: "0123456789abcdef"',
        f"X-Repo-Commit: {COMMIT}",
    ]
    try:
        connection.sendall("\r\n".join([*head, "\r\n"]).encode())
        while start < end and method == b"GET" and b"/api/" not in path:
            piece = min(budget.piece, end - start)
            budget.take(piece)
            start += os.sendfile(connection.fileno(), file, start, piece)
    except OSError:
        return False
    return True


def main() -> None:
    """Serve until the process is ended."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", type=Path)
    parser.add_argument("--rate", type=float, default=0)
    parser.add_argument("--latency", type=float, default=0)
    given = parser.parse_args()
    file, budget = os.open(given.file, os.O_RDONLY), Budget(given.rate)
    with socket.create_server(("127.0.0.1", 0), backlog=64) as server:
        print(server.getsockname()[1], flush=True)
        while True:
            connection, _ = server.accept()
            words = (connection, file, budget, given.latency)
            threading.Thread(target=serve, args=words, daemon=True).start()


if __name__ == "__main__":
    main()
