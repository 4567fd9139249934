"""Fetching with the real fetch process, in an environment that leads to nothing but the loopback."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from localai.errors import LocalAIError
from models.fetch import carry, sources, trust
from models.fetch.client import Fetch, FetchedFile, Resolved, Search, Source
from models.progress import silent

CLEARED = ("HF_", "HUGGING", "LOCALAI_HUB", "PIP_", "SSL_CERT_", "REQUESTS_CA_", "CURL_CA_", "NETRC")
PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy")


def isolate(monkeypatch: pytest.MonkeyPatch, home: Path, endpoint: str = "http://127.0.0.1:1") -> None:
    """Let no setting of the machine count, and no address but `endpoint`."""
    for name in list(os.environ):
        if name.startswith(CLEARED) or name.lower() in PROXIES:
            monkeypatch.delenv(name)
    monkeypatch.setattr(trust, "hosts", set())
    monkeypatch.setattr(trust, "own_certificate", [])
    monkeypatch.setenv("HF_ENDPOINT", endpoint)
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")


def fetch(source: Source | Search, folder: Path) -> tuple[Resolved, tuple[FetchedFile, ...]]:
    """Resolve and transfer."""
    folder.mkdir(exist_ok=True)
    with Fetch(source) as process:
        resolved = process.resolve()
        return resolved, process.transfer(folder)


def resolve(source: Source | Search) -> Resolved:
    """Resolve only, as the fetch process does it, but in this one: that is quicker."""
    with _environment_kept():
        return sources.resolve(source, silent).resolved


def fetch_here(source: Source | Search, folder: Path) -> tuple[FetchedFile, ...]:
    """Resolve and transfer, in this process."""
    folder.mkdir(exist_ok=True)
    with _environment_kept():
        return carry.transfer(sources.resolve(source, silent), folder, silent, lambda path: None)


@contextmanager
def _environment_kept() -> Iterator[None]:
    before = dict(os.environ)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


def inside(folder: Path) -> set[str]:
    """All files below `folder`, by their relative paths."""
    return {path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir()}


def refused(wanted: Source | Search, error: type[LocalAIError], words: str) -> LocalAIError:
    """The error of a fetch, which is one line with a hint, if there is something to do."""
    with pytest.raises(error, match=words) as caught:
        resolve(wanted)
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    assert caught.value.hint
    return caught.value
