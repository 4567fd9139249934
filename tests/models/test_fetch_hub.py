"""Models from a hub: the real process against a real server that plays the hub."""

from __future__ import annotations

import hashlib
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from localai.errors import (
    FetchError,
    IntegrityError,
    ModelNotFound,
    UsageError,
)
from models.fetch.client import Fetch, Search
from models.origins import HubFile, RemoteFile
from tests.hub_server import Fault, HubServer, Repository
from tests.models.fetching import fetch, inside, isolate, refused, resolve

NAME = "publisher/Model-GGUF"
ONE = "Model-Q4_K_M.gguf"
PARTS = [f"Model-Q8_0/Model-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]


def content(seed: int, size: int = 300_000) -> bytes:
    return b"GGUF" + random.Random(seed).randbytes(size)


ONE_BYTES = content(1)
FILES = {
    ONE: ONE_BYTES,
    "Model-Q2_K.gguf": content(2, 1000),
    "mmproj-Model-Q4_K_M.gguf": content(3, 1000),
    "Model-imatrix.gguf": content(4, 1000),
    "README.md": b"# Model\n",
    **{path: content(number, 50_000) for number, path in enumerate(PARTS, start=10)},
}


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as hub:
        isolate(monkeypatch, tmp_path, hub.url)
        yield hub


@pytest.fixture
def repository(hub: HubServer) -> Repository:
    return hub.add_repository(NAME, FILES)


def source(*paths: str, **changes: Any) -> HubFile:
    return HubFile(repository=NAME, files=tuple(RemoteFile(path=path) for path in paths), **changes)


def test_a_file_is_fetched_and_what_is_recorded_names_it_for_ever(
    repository: Repository, tmp_path: Path
) -> None:
    resolved, files = fetch(source(ONE), tmp_path / "in")
    sha256 = hashlib.sha256(ONE_BYTES).hexdigest()
    assert resolved.source == HubFile(
        repository=NAME,
        files=(RemoteFile(path=ONE, size=len(ONE_BYTES), sha256=sha256),),
        revision=repository.head,
        requested="main",
    )
    assert resolved.total == resolved.peak == len(ONE_BYTES)
    assert [(file.path, file.size, file.sha256, file.remote) for file in files] == [
        (str(tmp_path / "in" / "model.gguf"), len(ONE_BYTES), sha256, ONE)
    ]
    assert (tmp_path / "in" / "model.gguf").read_bytes() == ONE_BYTES
    assert inside(tmp_path / "in") == {"model.gguf"}


def test_a_branch_that_moves_on_does_not_mix(hub: HubServer, repository: Repository, tmp_path: Path) -> None:
    first = repository.head
    (tmp_path / "in").mkdir()
    with Fetch(source(ONE)) as process:
        process.resolve()
        repository.commit({ONE: content(99)})
        (file,) = process.transfer(tmp_path / "in")
    assert Path(file.path).read_bytes() == ONE_BYTES
    assert resolve(source(ONE, revision=first)).source == HubFile(
        repository=NAME,
        files=(RemoteFile(path=ONE, size=len(ONE_BYTES), sha256=hashlib.sha256(ONE_BYTES).hexdigest()),),
        revision=first,
    )


def test_a_model_in_parts(repository: Repository, tmp_path: Path) -> None:
    resolved, files = fetch(source(*PARTS), tmp_path / "in")
    assert resolved.total == sum(len(FILES[path]) for path in PARTS)
    assert [file.remote for file in files] == PARTS
    for number, (file, path) in enumerate(zip(files, PARTS, strict=True), start=1):
        assert Path(file.path).name == f"model-{number:05}-of-00003.gguf"
        assert Path(file.path).read_bytes() == FILES[path]


def test_progress_is_of_all_files_and_ends_at_the_end(repository: Repository, tmp_path: Path) -> None:
    told: list[tuple[str, int, int]] = []
    headers: list[Path] = []
    (tmp_path / "in").mkdir()
    with Fetch(source(*PARTS)) as process:
        total = process.resolve(on_progress=lambda *now: told.append(now)).total
        assert {step for step, _, _ in told} == {"Asking the hub"}
        told.clear()

        def on_header(path: Path) -> None:
            headers.append(path)
            assert path.read_bytes()[:4] == b"GGUF"

        process.transfer(tmp_path / "in", on_progress=lambda *now: told.append(now), on_header=on_header)
    assert told[-1] == ("Downloading", total, total)
    assert [done for _, done, _ in told] == sorted(done for _, done, _ in told)
    assert {of for _, _, of in told} == {total}
    assert len(headers) == 1


def test_what_is_there_is_not_fetched_again(hub: HubServer, repository: Repository, tmp_path: Path) -> None:
    fetch(source(*PARTS), tmp_path / "in")
    damaged = tmp_path / "in" / "model-00002-of-00003.gguf"
    damaged.write_bytes(b"x" * len(FILES[PARTS[1]]))
    hub.requests.clear()
    _, files = fetch(source(*PARTS), tmp_path / "in")
    assert {
        request.path.partition("?")[0].rpartition("/")[2]
        for request in hub.requests
        if "resolve" in request.path
    } == {PARTS[1].rpartition("/")[2]}
    assert damaged.read_bytes() == FILES[PARTS[1]]
    assert len(files) == 3


@pytest.mark.parametrize("where", ["target", "partial"])
def test_links_in_the_folder_are_not_followed(repository: Repository, tmp_path: Path, where: str) -> None:
    victim = tmp_path / "victim"
    victim.write_bytes(b"precious")
    (tmp_path / "in").mkdir()
    for name in (
        ["model.gguf"]
        if where == "target"
        else ["model.gguf.partial", "model.gguf.journal", "model.gguf.lock"]
    ):
        (tmp_path / "in" / name).symlink_to(victim)
    fetch(source(ONE), tmp_path / "in")
    assert victim.read_bytes() == b"precious"
    target = tmp_path / "in" / "model.gguf"
    assert not target.is_symlink()
    assert target.read_bytes() == ONE_BYTES


def test_a_file_that_was_replaced_under_the_same_name(repository: Repository) -> None:
    known = RemoteFile(path=ONE, size=5, sha256="0" * 64)
    error = refused(HubFile(repository=NAME, files=(known,)), IntegrityError, "replaced under the same name")
    assert hashlib.sha256(ONE_BYTES).hexdigest() in error.message
    assert "0" * 64 in error.message
    assert "revision" in error.hint
    same_size = msgspec.structs.replace(known, size=len(ONE_BYTES))
    refused(HubFile(repository=NAME, files=(same_size,)), IntegrityError, "replaced under the same name")


def test_a_mirror_that_tells_no_digests(hub: HubServer, repository: Repository, tmp_path: Path) -> None:
    repository.hide_metadata = True
    sha256 = hashlib.sha256(ONE_BYTES).hexdigest()
    known = HubFile(repository=NAME, files=(RemoteFile(path=ONE, size=len(ONE_BYTES), sha256=sha256),))
    resolved, files = fetch(known, tmp_path / "known")
    assert (resolved.total, files[0].sha256) == (len(ONE_BYTES), sha256)
    resolved, files = fetch(source(ONE), tmp_path / "unknown")
    assert (resolved.total, files[0].sha256) == (len(ONE_BYTES), sha256)
    assert resolved.source == msgspec.structs.replace(known, revision=repository.head, requested="main")
    hub.plan(Fault(method="HEAD", status=404, times=9))
    resolved, files = fetch(source(ONE), tmp_path / "silent")
    assert (resolved.total, files[0].sha256) == (0, sha256)
    wrong = msgspec.structs.replace(known, files=(RemoteFile(path=ONE, sha256="0" * 64),))
    with pytest.raises(IntegrityError):
        fetch(wrong, tmp_path / "wrong")
    assert "model.gguf" not in inside(tmp_path / "wrong")


def test_a_mirror_with_a_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    with HubServer(prefix="/artifactory/api/hf") as hub:
        hub.add_repository(NAME, FILES)
        isolate(monkeypatch, tmp_path, f"{hub.url}/")
        fetch(source(ONE), tmp_path / "in")
        assert all(
            request.path.startswith("/artifactory/api/hf/")
            for request in hub.requests
            if request.role == "hub"
        )


def test_a_mirror_that_wants_a_password(
    hub: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_ENDPOINT", hub.url.replace("//", "//user:p%40ss@"))
    fetch(source(ONE), tmp_path / "in")
    assert {request.token for request in hub.requests if request.role == "hub"} == {"Basic dXNlcjpwQHNz"}
    assert {request.token for request in hub.requests if request.role == "cdn"} == {""}


@pytest.mark.parametrize("given", ["HF_TOKEN", "LOCALAI_HUB_TOKEN_FILE"])
def test_the_token_goes_to_the_hub_alone(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, given: str
) -> None:
    hub.add_repository(NAME, FILES, gated=True, private=True)
    (tmp_path / "token").write_text("hf_test\n")
    monkeypatch.setenv(given, "hf_test" if given == "HF_TOKEN" else str(tmp_path / "token"))
    fetch(source(ONE), tmp_path / "in")
    roles = {(request.role, request.token) for request in hub.requests}
    assert roles == {("hub", "Bearer hf_test"), ("cdn", "")}


def test_a_token_that_lies_about_is_not_used(
    hub: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    stored = tmp_path / ".cache" / "huggingface" / "token"
    stored.parent.mkdir(parents=True)
    stored.write_text("hf_test")
    monkeypatch.setenv("HF_TOKEN_PATH", str(stored))
    monkeypatch.setenv("HF_HUB_DISABLE_IMPLICIT_TOKEN", "0")
    monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
    resolve(source(ONE))
    (asked,) = hub.requests
    assert asked.token == ""
    assert set(asked.headers) == {"host", "user-agent", "accept-encoding"}
    assert asked.headers["user-agent"].startswith("localai/")


HOSTILE = {
    "HF_HUB_DISABLE_TELEMETRY": "0",
    "DISABLE_TELEMETRY": "0",
    "DO_NOT_TRACK": "0",
    "HF_HUB_DISABLE_UPDATE_CHECK": "0",
    "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
    "HF_HUB_DISABLE_XET": "0",
    "HF_HUB_ENABLE_HF_TRANSFER": "1",
    "HF_HUB_USER_AGENT_ORIGIN": "who runs it",
    "HUGGING_FACE_HUB_TOKEN": "hf_of_another_program",
}
"""What another program may have set, or somebody who wants to know what is fetched."""


def test_whatever_the_environment_says_the_hub_learns_what_is_fetched_and_no_more(
    hub: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name in ("token", "stored_tokens"):
        (tmp_path / name).write_text("hf_stored")
    for name, value in {**HOSTILE, "HF_HOME": str(tmp_path)}.items():
        monkeypatch.setenv(name, value)
    fetch(source(ONE), tmp_path / "in")
    assert {request.token for request in hub.requests} == {""}
    assert all("who runs it" not in str(request.headers) for request in hub.requests)
    paths = {request.path.partition("?")[0] for request in hub.requests if request.role == "hub"}
    resolved = f"/{NAME}/resolve/{repository.refs['main']}/{ONE}"
    assert paths == {f"/api/models/{NAME}/revision/main", resolved}


def test_a_library_that_does_not_obey_is_not_used(hub: HubServer) -> None:
    code = f"""
import huggingface_hub.constants  # with the settings of the environment, before ours
from models.fetch import hub_api
from models.fetch.access import Access
hub_api.Hub(Access({hub.url!r}), None)
"""
    run = subprocess.run(
        [sys.executable, "-P", "-c", code], env={**os.environ, **HOSTILE}, text=True, capture_output=True
    )
    assert "FetchError: huggingface_hub does not obey HF_HUB_DISABLE_TELEMETRY" in run.stderr
    assert hub.requests == []


def test_a_token_is_not_sent_in_the_clear(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path, "http://mirror.example")
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    error = refused(source(ONE), UsageError, "unencrypted")
    assert "hf_secret" not in str(error)


@pytest.mark.parametrize("token", ["a b", "a\nHost: evil", "t\u00f6ken", "x" * 5000])
def test_a_token_that_is_none(hub: HubServer, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    error = refused(source(ONE), UsageError, "is not a token")
    assert token not in str(error)
    assert hub.requests == []


@pytest.mark.parametrize(
    "address", ["ftp://hub.example", "hub.example", "https://", "https://hub.example:x", "https://h/?q"]
)
def test_an_address_that_is_no_hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, address: str) -> None:
    isolate(monkeypatch, tmp_path, address)
    refused(source(ONE), UsageError, "address")


def test_gated(hub: HubServer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.add_repository(NAME, FILES, gated=True)
    (tmp_path / "in").mkdir()
    with Fetch(source(ONE)) as process, pytest.raises(FetchError, match=r"gated|token") as caught:
        process.resolve()
        process.transfer(tmp_path / "in")
    assert "HF_TOKEN" in caught.value.hint


def test_private(hub: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add_repository(NAME, FILES, private=True)
    error = refused(source(ONE), ModelNotFound, f"no repository {NAME}")
    assert "HF_TOKEN" in error.hint
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    refused(source(ONE), ModelNotFound, f"no repository {NAME}")
    hub.plan(Fault(status=401, times=9))
    refused(source(ONE), FetchError, "does not accept the token")


def test_renamed(hub: HubServer, repository: Repository, tmp_path: Path) -> None:
    hub.renamed["old/name"] = NAME
    old = HubFile(repository="old/name", files=(RemoteFile(path=ONE),))
    resolved, _ = fetch(old, tmp_path / "in")
    assert isinstance(resolved.source, HubFile)
    assert (resolved.source.repository, resolved.source.revision) == ("old/name", repository.head)


def test_redirected_to_another_host_without_the_token(
    hub: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_test")
    hub.plan(Fault(on="/api/models", redirect=f"{hub.cdn_origin}/stolen"))
    refused(source(ONE), ModelNotFound, "no repository|does not accept")
    assert [(request.role, request.token) for request in hub.requests] == [
        ("hub", "Bearer hf_test"),
        ("cdn", ""),
    ]


@pytest.mark.parametrize("status", [429, 503])
def test_a_busy_hub_is_asked_again(hub: HubServer, repository: Repository, status: int) -> None:
    hub.plan(Fault(on="/api/models", status=status, retry_after="0", times=3))
    assert resolve(source(ONE)).total == len(ONE_BYTES)
    assert len(hub.requests) == 4


def test_a_hub_that_stays_busy(hub: HubServer, repository: Repository) -> None:
    hub.plan(Fault(on="/api/models", status=429, retry_after="3600", times=9))
    refused(source(ONE), FetchError, "answered 429.*3600")
    assert len(hub.requests) == 1


def test_a_connection_that_breaks(hub: HubServer, repository: Repository) -> None:
    hub.plan(Fault(on="/api/models", close=True, times=1))
    assert resolve(source(ONE)).total == len(ONE_BYTES)


def test_no_hub_at_all(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    error = refused(source(ONE), FetchError, "127.0.0.1:1")
    assert "HF_ENDPOINT" in error.hint
    assert "network" in error.hint


def test_offline_mode_is_respected(
    hub: HubServer, repository: Repository, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    with pytest.raises(FetchError, match="HF_HUB_OFFLINE"):
        fetch(source(ONE), tmp_path)
    assert hub.requests == []


@pytest.mark.parametrize(
    ("wanted", "words"),
    [
        (HubFile(repository="nobody/nothing", files=(RemoteFile(path=ONE),)), "no repository nobody/nothing"),
        (HubFile(repository="a--b/c..d", files=(RemoteFile(path=ONE),)), "cannot be a repository"),
        (source("Model-Q4_K_L.gguf"), "has no file Model-Q4_K_L.gguf"),
        (source(ONE, revision="0" * 40), "has no revision"),
        (Search(repository=NAME, revision="v9"), "has no revision 'v9'"),
    ],
)
def test_what_is_not_there(repository: Repository, wanted: HubFile | Search, words: str) -> None:
    refused(wanted, ModelNotFound, words)


def test_a_commit_that_is_answered_with_another(hub: HubServer, repository: Repository) -> None:
    old = repository.head
    new = repository.commit({ONE: content(5)})
    repository.commits[old], repository.refs[old] = repository.commits[new], new
    del repository.commits[old]
    refused(source(ONE, revision=old), IntegrityError, "a commit|with the commit")


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"not json",
        b"[]",
        b"null",
        b"{}",
        b'{"id": "a/b"}',
        b'{"id": "a/b", "sha": "main", "siblings": []}',
        b'{"id": "a/b", "sha": null, "siblings": []}',
        b'{"id": "a/b", "sha": "' + b"a" * 40 + b'", "siblings": null}',
        b'{"id": "a/b", "sha": "' + b"a" * 40 + b'", "siblings": [1]}',
        b'{"id": "a/b", "sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": 7}]}',
        b'{"id": "a/b", "sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": "x", "size": -1}]}',
        b'{"id": "a/b", "sha": "' + b"a" * 40 + b'", "siblings": [{"rfilename": "x", "lfs": {"size": 1}}]}',
        b'{"id": "a/b", "createdAt": "never", "sha": "' + b"a" * 40 + b'", "siblings": []}',
        b"[" * 100_000,
        b'{"id": "\xff"}',
        b"<html>Please log in</html>",
    ],
)
def test_answers_that_are_none(hub: HubServer, body: bytes) -> None:
    hub.add_page(f"/api/models/{NAME}/revision/main", body, "application/json")
    refused(source(ONE), FetchError, "lists no files")


def test_an_answer_without_end(hub: HubServer) -> None:
    hub.add_page(f"/api/models/{NAME}/revision/main", b" " * (17 * 1024 * 1024), "application/json")
    refused(source(ONE), FetchError, "more than 16 MiB")


def test_an_error_that_is_hostile(hub: HubServer) -> None:
    body = b'["\x1b[2J' + b"evil" * 1000 + b'"]'
    hub.plan(Fault(on="/api/models", status=404, body=body, headers={"X-Error-Message": "\x1b[2Jevil"}))
    assert len(str(refused(source(ONE), ModelNotFound, "no repository"))) < 400


SETTINGS = """
from models.fetch import access, hub_api
from models.fetch.web import Web
hub = hub_api.Hub(access.from_environment(), Web())
from huggingface_hub import constants as now
print(now.HF_HUB_DISABLE_TELEMETRY, now.HF_HUB_DISABLE_IMPLICIT_TOKEN, now.HF_HUB_DISABLE_XET,
      now.HF_HUB_DISABLE_UPDATE_CHECK, now.HF_HUB_DISABLE_SYMLINKS, not now.HF_DEBUG,
      now.ENDPOINT == "https://mirror.example/hf", now.HF_HUB_USER_AGENT_ORIGIN is None)
"""


def test_the_library_is_quiet_whatever_the_environment_says(tmp_path: Path) -> None:
    hostile = {
        "HF_HUB_DISABLE_TELEMETRY": "0",
        "DO_NOT_TRACK": "0",
        "HF_HUB_DISABLE_IMPLICIT_TOKEN": "0",
        "HF_HUB_DISABLE_XET": "0",
        "HF_HUB_DISABLE_UPDATE_CHECK": "0",
        "HF_HUB_DISABLE_SYMLINKS": "0",
        "HF_DEBUG": "1",
        "HF_HUB_ETAG_TIMEOUT": "soon",
        "HF_HUB_USER_AGENT_ORIGIN": "somebody",
        "HF_OIDC_RESOURCE": "x",
        "HUGGINGFACE_CO_STAGING": "1",
        "HF_ENDPOINT": "https://mirror.example/hf/",
        "HF_HOME": str(tmp_path / "cache"),
        "HOME": str(tmp_path / "home"),
    }
    result = subprocess.run(
        [sys.executable, "-c", SETTINGS],
        env={**os.environ, **hostile},
        capture_output=True,
        text=True,
        check=True,
    )
    assert result.stdout.split() == ["True"] * 8
    assert inside(tmp_path) == set()
