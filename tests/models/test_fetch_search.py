"""Finding a model of a type in a repository on a hub that no catalogue knows."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from localai.errors import FetchError, ModelNotFound, UsageError
from models.fetch.client import Search
from models.fetch.find_gguf import type_of
from models.origins import HubFile
from tests.hub_server import HubServer, Repository
from tests.models.fetching import isolate, refused, resolve

NAME = "publisher/Model-GGUF"
ONE = "Model-Q4_K_M.gguf"
PARTS = [f"Model-Q8_0/Model-Q8_0-0000{number}-of-00003.gguf" for number in (1, 2, 3)]
OTHERS = ["Model-Q2_K.gguf", "mmproj-Model-Q4_K_M.gguf", "Model-imatrix.gguf", "README.md"]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as hub:
        isolate(monkeypatch, tmp_path, hub.url)
        yield hub


@pytest.fixture
def repository(hub: HubServer) -> Repository:
    return hub.add_repository(NAME, {path: path.encode() for path in [ONE, *PARTS, *OTHERS]})


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


@pytest.mark.parametrize(
    ("stem", "found"),
    [
        ("DeepSeek-R1-Distill-Qwen-7B-Q4_K_M", "Q4_K_M"),
        ("model.q8_0", "Q8_0"),
        ("Qwen3-8B-UD-Q4_K_XL", "UD-Q4_K_XL"),
        ("Q4_0/model-BF16", "BF16"),
        ("model-IQ4_XS", "IQ4_XS"),
        ("model-f16", "F16"),
        ("model-TQ1_0", "TQ1_0"),
        ("model-MXFP4_MOE", "MXFP4_MOE"),
        ("Q4_K_M", "Q4_K_M"),
        ("model", ""),
        ("modelQ4_0", ""),
    ],
)
def test_types_in_names(stem: str, found: str) -> None:
    assert type_of(stem) == found
