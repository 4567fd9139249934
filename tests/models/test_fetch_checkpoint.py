"""A publisher's own checkpoint from a hub: the files that `quantize` reads, each verified, and no others."""

from __future__ import annotations

import hashlib
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from localai.errors import (
    CheckpointError,
    FetchError,
    IntegrityError,
    LocalAIError,
    ModelNotFound,
    UnsupportedModel,
)
from models.catalog import builtin_checkpoint
from models.fetch.client import Search
from models.origins import HubCheckpoint, RemoteFile
from quantize.checkpoint import open_checkpoint
from tests.hub_server import Fault, HubServer
from tests.models.fetching import fetch, fetch_here, inside, isolate, refused, resolve

NAME = "publisher/Model"


def content(seed: int, size: int = 300_000) -> bytes:
    return random.Random(seed).randbytes(size)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as hub:
        isolate(monkeypatch, tmp_path, hub.url)
        yield hub


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


def test_a_real_one_can_be_quantized(hub: HubServer, tmp_path: Path) -> None:
    folder = builtin_checkpoint("r1-nano")
    hub.add_repository(NAME, {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()})
    fetch_here(HubCheckpoint(repository=NAME), tmp_path / "in")
    assert set(open_checkpoint(tmp_path / "in" / "checkpoint").tensors) == set(
        open_checkpoint(folder).tensors
    )
