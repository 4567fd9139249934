"""Hostile names from hubs, indexes and archives, end to end: refused, and nothing is written anywhere."""

from __future__ import annotations

import hashlib
import io
import json
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from localai.errors import CheckpointError, FetchError, LocalAIError, ModelNotFound, UsageError
from models.fetch import pip_settings
from models.fetch.client import Search
from models.fetch.protocol import Source
from models.origins import HubCheckpoint, HubFile, PackageIndex, RemoteFile, Wheel
from tests.hub_server import HubServer
from tests.models.fetching import fetch, fetch_here, inside, isolate
from tests.models.hostile_names import CLASHES, HOSTILE

NAME = "owner/model"
EVIL = b"GGUF evil"
SHA256 = hashlib.sha256(EVIL).hexdigest()


@pytest.fixture(scope="module")
def server() -> Iterator[HubServer]:
    with HubServer() as server:
        yield server


@pytest.fixture
def hub(server: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> HubServer:
    isolate(monkeypatch, tmp_path, server.url)
    monkeypatch.setenv("PIP_INDEX_URL", f"{server.url}/simple")
    monkeypatch.setattr(pip_settings, "ask_pip", lambda: None)
    server.requests.clear()
    return server


def list_names(hub: HubServer, *names: str, contents: dict[str, bytes] | None = None) -> None:
    """Have the hub say that a repository has files of these names, beside real ones."""
    repository = hub.add_repository(NAME, contents or {})
    lfs = {"sha256": SHA256, "size": len(EVIL), "pointerSize": 1}
    repository.extra_siblings = [{"rfilename": name, "size": len(EVIL), "lfs": lfs} for name in names]


def refused(source: Source | Search, tmp_path: Path, *kinds: type[LocalAIError]) -> None:
    """Nothing may be written, and nothing may be asked but what there is."""
    before = inside(tmp_path)
    folder = tmp_path / "store" / "incoming" / "one"
    folder.mkdir(parents=True)
    with pytest.raises(kinds or FetchError) as caught:
        fetch_here(source, folder)
    assert str(caught.value).isprintable()
    assert caught.value.hint
    assert inside(tmp_path) == before


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_in_the_list_of_a_hub(hub: HubServer, tmp_path: Path, name: str) -> None:
    list_names(hub, name)
    refused(HubFile(repository=NAME, files=(RemoteFile(path=name),)), tmp_path)
    assert not hub.data_requests[1:], "only the list was asked for"


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_found_in_a_repository(hub: HubServer, tmp_path: Path, name: str) -> None:
    list_names(hub, name)
    is_found = name.lower().endswith(".gguf")
    source = Search(repository=NAME) if is_found else Search(repository=NAME, path=name)
    refused(source, tmp_path, FetchError, UsageError, ModelNotFound)
    assert not hub.data_requests[1:], "only the list was asked for"


SHARDS = [
    "../x",
    "..\\x",
    "a/x",
    "/x",
    "C:x",
    "nul",
    "COM1",
    "~x",
    "x:y",
    "x\u202e",
    "x\0",
    "x\ud800",
    "\uff0e\uff0e/x",
]


@pytest.mark.parametrize("name", [*HOSTILE, *(f"{name}.safetensors" for name in SHARDS)], ids=ascii)
def test_in_the_index_of_a_checkpoint(hub: HubServer, tmp_path: Path, name: str) -> None:
    index = json.dumps({"weight_map": {"tensor": name}}).encode()
    list_names(hub, name, contents={"config.json": b"{}", "model.safetensors.index.json": index})
    refused(HubCheckpoint(repository=NAME), tmp_path, FetchError, CheckpointError)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_on_a_package_index(hub: HubServer, tmp_path: Path, name: str) -> None:
    filename = f"evil-1.0-{name}-none-any.whl"
    files = [{"filename": filename, "url": "x.whl", "hashes": {"sha256": SHA256}}]
    hub.add_page("/simple/evil/", json.dumps({"files": files}), "application/json")
    wheel = Wheel(package="evil", version="1.0", sha256=SHA256, member="x.gguf")
    source = PackageIndex(wheels=(wheel,), size=len(EVIL), sha256=SHA256)
    refused(source, tmp_path)


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_in_a_wheel(hub: HubServer, tmp_path: Path, name: str) -> None:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as opened:
        opened.writestr(name.encode(errors="replace").decode() or "x", EVIL)
    data = archive.getvalue()
    hub.add_file("evil-1.0-py3-none-any.whl", data)
    hub.add_page("/simple/evil/", '<a href="../../files/evil-1.0-py3-none-any.whl">x</a>')
    wheel = Wheel(package="evil", version="1.0", sha256=hashlib.sha256(data).hexdigest(), member=name)
    refused(PackageIndex(wheels=(wheel,), size=len(EVIL), sha256=SHA256), tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize("names", CLASHES, ids=ascii)
def test_names_that_are_one_on_some_disk(hub: HubServer, tmp_path: Path, names: tuple[str, str]) -> None:
    list_names(hub, *names)
    refused(HubFile(repository=NAME, files=tuple(RemoteFile(path=name) for name in names)), tmp_path)


@pytest.mark.parametrize(
    "name", ["../../evil.gguf", "C:\\evil.gguf", "nul.gguf", "x\ud800.gguf", "x\n.gguf"], ids=ascii
)
def test_by_the_real_process(hub: HubServer, tmp_path: Path, name: str) -> None:
    list_names(hub, name)
    with pytest.raises(FetchError, match="The source names a file"):
        fetch(Search(repository=NAME), tmp_path / "in")
    assert inside(tmp_path) == set()


def test_names_that_nobody_wants_do_no_harm(hub: HubServer, tmp_path: Path) -> None:
    list_names(
        hub,
        *HOSTILE,
        contents={"good/model-Q8_0.gguf": EVIL, "config.json": b"{}", "model.safetensors": EVIL},
    )
    fetch_here(HubFile(repository=NAME, files=(RemoteFile(path="good/model-Q8_0.gguf"),)), tmp_path / "one")
    fetch_here(Search(repository=NAME, path="good/model-Q8_0.gguf"), tmp_path / "two")
    fetch_here(HubCheckpoint(repository=NAME), tmp_path / "three")
    assert inside(tmp_path) == {
        "one/model.gguf",
        "two/model.gguf",
        "three/checkpoint/config.json",
        "three/checkpoint/model.safetensors",
    }


def test_a_link_in_the_place_of_the_checkpoint(hub: HubServer, tmp_path: Path) -> None:
    list_names(hub, contents={"config.json": b"{}", "model.safetensors": EVIL})
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "model-precious.safetensors").write_bytes(b"precious")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "checkpoint").symlink_to(elsewhere)
    fetch_here(HubCheckpoint(repository=NAME), tmp_path / "in")
    assert inside(elsewhere) == {"model-precious.safetensors"}
    assert inside(tmp_path / "in") == {"checkpoint/config.json", "checkpoint/model.safetensors"}
