"""What the tests of transfers share: content, options that make all small, and what must be there after."""

from __future__ import annotations

import hashlib
import os
import random
from pathlib import Path
from typing import Any

import pytest
from msgspec import structs

from models.fetch.intervals import Intervals
from models.fetch.transfer import Options, Received, Wanted, download
from tests.hub_server import HubServer, git_blob

K = 1024
LARGEST = 5_000_000
CONTENT = random.Random(6).randbytes(LARGEST)
SMALL = Options(
    connections=3,
    range=256 * K,
    least_range=32 * K,
    window=1024 * K,
    piece=16 * K,
    piece_seconds=0.1,
    header=256 * K,
    durable=512 * K,
    attempts=6,
    first_attempts=4,
    first_wait=0.005,
    longest_wait=0.05,
    longest_retry_after=5.0,
    progress=8 * K,
    slow_rate=20_000,
    slow_seconds=3.0,
    starving_seconds=0.3,
    tick=0.02,
    connect_timeout=5.0,
    read_timeout=5.0,
)
IMPATIENT = structs.replace(SMALL, slow_seconds=0.3, read_timeout=0.3)
"""For servers that stop to send: on a busy machine others may look so, too."""
LABEL = "model.gguf"
_OF_THE_MACHINE = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "ssl_cert_file", "ssl_cert_dir")
_BUNDLES = ("requests_ca_bundle", "curl_ca_bundle")


def isolate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let no proxy and no certificates of the machine count."""
    for name in list(os.environ):
        if name.lower() in (*_OF_THE_MACHINE, *_BUNDLES):
            monkeypatch.delenv(name)


def wanted(url: str, content: bytes, **changes: Any) -> Wanted:
    """The file at `url`, of which all is known but its ETag."""
    known = {"size": len(content), "sha256": hashlib.sha256(content).hexdigest(), "label": LABEL}
    return Wanted(**{"url": url, **known, **changes})


def by_git(url: str, content: bytes, **changes: Any) -> Wanted:
    """The same, known by git's name for it."""
    return wanted(url, content, sha256="", git_sha1=git_blob(content), **changes)


def fetch(want: Wanted, target: Path, **more: Any) -> Received:
    """Fetch with small options."""
    return download(want, target, **{"options": SMALL, **more})


def require_done(received: Received, target: Path, content: bytes) -> None:
    """The file is there, right, and alone."""
    assert target.read_bytes() == content
    assert received == Received(len(content), hashlib.sha256(content).hexdigest())
    assert beside(target) == []


def beside(target: Path) -> list[str]:
    """What kinds of files lie beside `target`."""
    return sorted(
        path.name.removeprefix(f"{target.name}.") for path in target.parent.glob(f"{target.name}.*")
    )


def twice(hub: HubServer) -> int:
    """How many bytes were sent that had been sent before."""
    requests = hub.data_requests
    covered = Intervals((one.start, one.start + one.sent) for one in requests)
    return sum(one.sent for one in requests) - covered.total
