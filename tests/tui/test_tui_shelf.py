"""The store of models as the chat sees it."""

from __future__ import annotations

from pathlib import Path

import pytest

from localai.engine.settings import Sampling
from localai.errors import ModelNotFound
from models.manifest import Manifest
from models.origins import Sampling as Recommended
from models.store import Resolved
from tui.shelf import ModelEntry, ResolvedModel, StoreShelf

MANIFEST = Manifest(
    name="r1:7b",
    sha256="a" * 64,
    size=123,
    title="DeepSeek R1",
    architecture="qwen2",
    file_type="Q4_K_M",
    parameters=7,
    context_trained=4096,
    license="mit",
    reasoning=True,
    source={},
    added="2026-01-01T00:00:00+00:00",
    note="a note",
    sampling=Recommended(temperature=0.6, top_p=0.95),
)
ENTRY = ModelEntry(
    name="r1:7b", title="DeepSeek R1", file_type="Q4_K_M", size=123, reasoning=True, note="a note"
)


class FakeHeader:
    name = ""
    file_type = "F16"
    file_size = 9
    reasons = False


class FakeResolved(Resolved):
    """A file that needs not be there."""

    def header(self) -> FakeHeader:
        return FakeHeader()


class FakeStore:
    def manifests(self) -> list[Manifest]:
        return [MANIFEST]

    def resolve(self, text: str) -> Resolved:
        if text == "r1:7b":
            return Resolved(Path("/blob"), "r1:7b", MANIFEST)
        if text == "./x.gguf":
            return FakeResolved(Path("/x.gguf"), "x.gguf", None)
        raise ModelNotFound("no such model")


def test_entries() -> None:
    assert StoreShelf(FakeStore()).entries() == [ENTRY]


def test_a_name() -> None:
    assert StoreShelf(FakeStore()).resolve("r1:7b") == ResolvedModel(
        entry=ENTRY, path=Path("/blob"), sha256="a" * 64, sampling=Sampling(temperature=0.6, top_p=0.95)
    )


def test_a_path() -> None:
    found = StoreShelf(FakeStore()).resolve("./x.gguf")
    assert found.entry == ModelEntry(name="x.gguf", title="x.gguf", file_type="F16", size=9, reasoning=False)
    assert (found.path, found.sha256, found.sampling) == (Path("/x.gguf"), "", Sampling())


def test_nothing() -> None:
    with pytest.raises(ModelNotFound):
        StoreShelf(FakeStore()).resolve("nonsense")
