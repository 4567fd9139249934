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
    CheckpointError,
    FetchError,
    IntegrityError,
    LocalAIError,
    ModelNotFound,
    UnsupportedModel,
    UsageError,
)
from models.fetch.client import Fetch, Search
from models.origins import HubCheckpoint, HubFile, RemoteFile
from tests.hub_server import Fault, HubServer, Repository
from tests.models.fetching import fetch, inside, isolate, resolve

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


def refused(wanted: HubFile | HubCheckpoint | Search, error: type[LocalAIError], words: str) -> LocalAIError:
    """The error of a fetch, which is one line with a hint, if there is something to do."""
    with pytest.raises(error, match=words) as caught:
        resolve(wanted)
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    assert caught.value.hint
    return caught.value


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
    hub.add_page(f"/api/models/{NAME}/revision/main", b" " * (65 * 1024 * 1024), "application/json")
    refused(source(ONE), FetchError, "more than 64 MiB")


def test_an_error_that_is_hostile(hub: HubServer) -> None:
    body = b'["\x1b[2J' + b"evil" * 1000 + b'"]'
    hub.plan(Fault(on="/api/models", status=404, body=body, headers={"X-Error-Message": "\x1b[2Jevil"}))
    assert len(str(refused(source(ONE), ModelNotFound, "no repository"))) < 400


SETTINGS = """
from models.fetch import access, hub_api
from models.fetch.web import Web
hub = hub_api.Hub(access.from_environment(), Web())
from huggingface_hub import constants
print(constants.HF_HUB_DISABLE_TELEMETRY, constants.HF_HUB_DISABLE_IMPLICIT_TOKEN, constants.HF_HUB_DISABLE_XET,
      constants.HF_HUB_DISABLE_UPDATE_CHECK, constants.HF_HUB_DISABLE_SYMLINKS, not constants.HF_DEBUG,
      constants.ENDPOINT == "https://mirror.example/hf", constants.HF_HUB_USER_AGENT_ORIGIN is None)
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


# ------------------------------------------------------------------------------------------------ by type


@pytest.mark.parametrize(
    ("wanted", "paths"),
    [
        ({"type": "Q4_K_M"}, [ONE]),
        ({"type": "q4_k_m"}, [ONE]),
        ({"type": "Q8_0"}, PARTS),
        ({"path": PARTS[1]}, PARTS),
        ({"path": ONE}, [ONE]),
        ({"path": "mmproj-Model-Q4_K_M.gguf"}, ["mmproj-Model-Q4_K_M.gguf"]),
    ],
)
def test_a_type_is_found_in_a_repository(
    repository: Repository, wanted: dict[str, str], paths: list[str]
) -> None:
    repository.refs["v1"] = repository.head
    resolved = resolve(Search(repository=NAME, revision="v1", **wanted))
    assert isinstance(resolved.source, HubFile)
    assert [file.path for file in resolved.source.files] == paths
    assert all(file.sha256 and file.size for file in resolved.source.files)
    assert (resolved.source.revision, resolved.source.requested) == (repository.head, "v1")


@pytest.mark.parametrize(
    ("wanted", "words", "hint"),
    [
        ({"type": "Q5_K_M"}, "no file of the type Q5_K_M", "Q2_K, Q4_K_M, Q8_0"),
        ({}, "has 3 models", "Q2_K, Q4_K_M, Q8_0"),
        ({"path": "Model-Q4_K_S.gguf"}, "has no file Model-Q4_K_S.gguf", "Model-Q4_K_M.gguf"),
    ],
)
def test_a_type_that_is_not_there(
    repository: Repository, wanted: dict[str, str], words: str, hint: str
) -> None:
    assert hint in refused(Search(repository=NAME, **wanted), ModelNotFound, words).hint


def test_words_that_are_no_type_and_files_that_are_no_models(repository: Repository) -> None:
    refused(Search(repository=NAME, type="best"), UsageError, "'best' is not a type")
    refused(Search(repository=NAME, path="README.md"), UsageError, "not a GGUF file")


def test_two_of_a_type_and_parts_that_are_missing(hub: HubServer) -> None:
    hub.add_repository(
        NAME, {"a/M-Q4_K_M.gguf": b"1", "b/M.Q4_K_M.gguf": b"2", **dict.fromkeys(PARTS[1:], b"3")}
    )
    assert (
        "a/M-Q4_K_M.gguf, b/M.Q4_K_M.gguf"
        in refused(Search(repository=NAME, type="Q4_K_M"), ModelNotFound, "2 files").hint
    )
    refused(Search(repository=NAME, type="Q8_0"), FetchError, "lacks 1 of 3 parts")


def test_the_only_one_needs_no_type(hub: HubServer) -> None:
    hub.add_repository(NAME, {"model.gguf": b"1"})
    resolved = resolve(Search(repository=NAME))
    assert isinstance(resolved.source, HubFile)
    assert [file.path for file in resolved.source.files] == ["model.gguf"]


def test_a_repository_without_gguf(hub: HubServer) -> None:
    hub.add_repository(NAME, {"model.safetensors": b"1"})
    assert "--from-source" in refused(Search(repository=NAME), ModelNotFound, "no GGUF files").hint


# --------------------------------------------------------------------------------------------- checkpoints

SHARDS = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
INDEX = "model.safetensors.index.json"
CHECKPOINT = {
    "config.json": b'{"model_type": "qwen2"}',
    "tokenizer.json": content(20),
    "tokenizer_config.json": b"{}",
    "generation_config.json": b"{}",
    "README.md": b"",
    INDEX: b'{"weight_map": {"a": "%s", "b": "%s"}}' % (SHARDS[0].encode(), SHARDS[1].encode()),
    SHARDS[0]: content(21),
    SHARDS[1]: content(22),
    "pytorch_model.bin": b"pickle",
    "modeling_evil.py": b"import os",
    "original/consolidated.safetensors": content(23),
    "model-00001-of-00009.safetensors": b"of something else",
}
WANTED = set(CHECKPOINT) - {
    "pytorch_model.bin",
    "modeling_evil.py",
    "original/consolidated.safetensors",
    "model-00001-of-00009.safetensors",
}


@pytest.mark.parametrize("caches", [False, True])
def test_a_checkpoint(hub: HubServer, tmp_path: Path, caches: bool) -> None:
    hub.caches_small_files = caches
    repository = hub.add_repository(NAME, CHECKPOINT)
    folder = tmp_path / "in" / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "model-left-over.safetensors").write_bytes(b"old")
    resolved, files = fetch(HubCheckpoint(repository=NAME), tmp_path / "in")
    assert isinstance(resolved.source, HubCheckpoint)
    assert resolved.source.revision == repository.head
    assert inside(folder) == WANTED == {file.path for file in resolved.source.files}
    for file in files:
        assert Path(file.path).read_bytes() == CHECKPOINT[file.remote]
        assert file.sha256 == hashlib.sha256(CHECKPOINT[file.remote]).hexdigest()
    assert resolved.total == sum(len(CHECKPOINT[path]) for path in WANTED)
    hub.requests.clear()
    fetch(Search(repository=NAME, checkpoint=True), tmp_path / "in")
    assert [request.path for request in hub.data_requests if request.role == "cdn"] == []


def test_a_checkpoint_in_one_file(hub: HubServer) -> None:
    hub.add_repository(NAME, {"config.json": b"{}", "model.safetensors": b"1", "adapter.safetensors": b"2"})
    assert [file.path for file in resolve(HubCheckpoint(repository=NAME)).files] == [
        "config.json",
        "model.safetensors",
    ]


def test_a_small_file_with_other_bytes(hub: HubServer, tmp_path: Path) -> None:
    hub.add_repository(NAME, CHECKPOINT)
    hub.plan(Fault(on="/tokenizer_config.json", flip=1, times=99))
    with pytest.raises(IntegrityError, match="tokenizer_config"):
        fetch(HubCheckpoint(repository=NAME), tmp_path / "in")
    hub.plan(Fault(on=INDEX, flip=1, times=99))
    refused(HubCheckpoint(repository=NAME), IntegrityError, "other bytes")


def test_a_weight_that_was_replaced(hub: HubServer) -> None:
    hub.add_repository(NAME, CHECKPOINT)
    known = HubCheckpoint(repository=NAME, files=(RemoteFile(path=SHARDS[1], sha256="0" * 64),))
    refused(known, IntegrityError, "replaced under the same name")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"config.json": None}, ModelNotFound, "no config.json"),
        ({SHARDS[1]: None}, FetchError, "lacks 1 of 2"),
        ({"modules.json": b"[]"}, UnsupportedModel, "embedding"),
        ({INDEX: b"{}"}, CheckpointError, "not an index"),
        ({INDEX: b"[" * 100_000}, CheckpointError, "not an index"),
        ({INDEX: b'{"weight_map": {"a": 1}}'}, CheckpointError, "not an index"),
        ({INDEX: b'{"weight_map": {"a": "../../x.safetensors"}}'}, FetchError, "refused"),
        ({INDEX: b'{"weight_map": {"a": "sub/x.safetensors"}}'}, CheckpointError, "beside it"),
        ({INDEX: b'{"weight_map": {"a": "evil.py"}}'}, CheckpointError, "beside it"),
        (
            {INDEX: None, **{path: None for path in CHECKPOINT if path.startswith("model-")}},
            CheckpointError,
            "pickled",
        ),
    ],
)
def test_what_is_no_checkpoint(
    hub: HubServer, changes: dict[str, bytes | None], error: type[LocalAIError], words: str
) -> None:
    kept = {**CHECKPOINT, **changes}
    hub.add_repository(NAME, {path: data for path, data in kept.items() if data is not None})
    refused(HubCheckpoint(repository=NAME), error, words)
