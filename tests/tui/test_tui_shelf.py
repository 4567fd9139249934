"""The store of models as the chat sees it."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from localai.engine.settings import Sampling
from localai.errors import IntegrityError, ModelNotFound
from models.catalog import builtin_checkpoint
from models.manifest import Manifest
from models.origins import Builtin, Checkpoint, LocalFile
from models.origins import Sampling as Recommended
from models.store import Resolved, Store
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

    def fault(self, manifest: Manifest) -> str | None:
        return None

    def resolve(self, text: str) -> Resolved:
        if text == "r1:7b":
            return Resolved(Path("/blob"), "r1:7b", MANIFEST)
        if text == "./x.gguf":
            return FakeResolved(Path("/x.gguf"), "x.gguf", None)
        raise ModelNotFound("no such model")


def test_entries() -> None:
    assert StoreShelf(FakeStore()).entries() == [msgspec.structs.replace(ENTRY, frees=123)]


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


# ------------------------------------------------------------------------------------------ the real store


@pytest.fixture
def store(nano: Path) -> Store:
    store = Store()
    store.add(nano, "r1-nano", source=Builtin(checkpoint="r1-nano"))
    return store


def test_what_is_available_is_what_is_not_installed(store: Store) -> None:
    [entry] = StoreShelf(store).available()
    assert (entry.name, entry.installed, entry.fetchable) == ("smollm2:135m", False, True)
    assert (entry.size, entry.download, entry.parameters) == (98_362_432, 92_871_040, 134_515_008)


def test_what_is_shipped_is_not_downloaded() -> None:
    [entry] = [entry for entry in StoreShelf(Store()).available() if entry.name == "r1-nano"]
    assert (entry.size, entry.download) == (0, 0)


def test_a_file_with_two_names_is_not_free_with_one(store: Store, nano: Path) -> None:
    shelf = StoreShelf(store)
    [entry] = shelf.entries()
    assert entry.frees == entry.size > 0
    store.add(nano, "again", source=LocalFile(path=str(nano)))
    assert [entry.frees for entry in shelf.entries()] == [0, 0]
    assert shelf.remove("again") == 0
    assert shelf.remove("r1-nano") == entry.size


def test_a_file_that_is_gone_is_told_and_can_be_had_again(store: Store) -> None:
    [manifest] = store.manifests()
    store.path(manifest).unlink()
    [entry] = StoreShelf(store).entries()
    assert entry.fault == "Its file is missing. Fetch it again, or remove it."
    assert entry.fetchable


def test_a_damaged_manifest_is_told_and_can_be_removed(store: Store, nano: Path) -> None:
    store.add(nano, "my:own", source=LocalFile(path=str(nano)))
    (store.root / "refs/my/own.json").write_text("{")
    shelf = StoreShelf(store)
    [entry] = shelf.damaged()
    assert (entry.name, entry.fetchable) == ("my:own", False)
    assert "is damaged" in entry.fault
    assert entry.fault.endswith("Remove it, then add it again.")
    shelf.remove("my:own")
    assert shelf.damaged() == []


def test_what_is_damaged_is_not_offered_a_second_time() -> None:
    refs = Store().root / "refs"
    refs.mkdir(parents=True)
    (refs / "r1-nano.json").write_text("{")
    shelf = StoreShelf(Store())
    assert [(entry.name, entry.fetchable) for entry in shelf.damaged()] == [("r1-nano", True)]
    assert "r1-nano" not in [entry.name for entry in shelf.available()]


def test_whether_it_fits(store: Store) -> None:
    shelf = StoreShelf(store)
    [installed], [available] = shelf.entries(), shelf.available()
    assert shelf.fit(installed, 0).why.startswith("Fits, with all 2,048 tokens of its context")
    assert shelf.fit(available, 1 << 40).verdict == "fits"
    [manifest] = store.manifests()
    store.path(manifest).unlink()
    with pytest.raises(IntegrityError):
        shelf.fit(installed, 0)


def test_what_was_made_here_is_quantized_from_what_it_was_made_of(
    store: Store, nano: Path, tmp_path: Path
) -> None:
    made_of = tmp_path / "checkpoint"
    store.add(nano, "made", source=Checkpoint(path=str(made_of)))
    store.add(nano, "file", source=LocalFile(path=str(nano)))
    shelf = StoreShelf(store)
    assert shelf.source("r1-nano") == str(builtin_checkpoint("r1-nano"))
    assert shelf.source("made") == "made"
    made_of.mkdir()
    assert shelf.source("made") == str(made_of)
    assert shelf.source("file") == "file"
