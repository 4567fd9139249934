"""The store: adding, finding, checking and removing models."""

from __future__ import annotations

import hashlib
import json
import stat
from collections.abc import Callable
from pathlib import Path

import pytest

from localai.errors import (
    IntegrityError,
    ModelFileError,
    ModelNotFound,
    NoSpace,
    StoreError,
    UnsupportedModel,
    UsageError,
)
from models.origins import About, Builtin, Checkpoint, LocalFile, Sampling
from models.store import Store

MakeModel = Callable[..., Path]

HERE = LocalFile(path="/somewhere/tiny.gguf")


def files_below(store: Store) -> set[str]:
    """All that the store keeps, apart from its lock."""
    return {
        path.relative_to(store.root).as_posix()
        for path in store.root.rglob("*")
        if path.is_file() and path.name != "lock"
    }


def test_an_empty_store_creates_nothing(store: Store) -> None:
    assert store.manifests() == store.damaged() == []
    assert store.default() is None
    assert not store.root.exists()


def test_what_was_added_is_found_again(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    content = path.read_bytes()
    digest = hashlib.sha256(content).hexdigest()
    seen: list[tuple[str, int, int]] = []
    added = store.add(
        path, "R1:7B", source=HERE, about=About(note="A note."), on_progress=lambda *now: seen.append(now)
    )
    again = Store(store.root)
    assert again.manifests() == [added] == [again.get("r1:7b")]
    assert again.path(added).read_bytes() == content == path.read_bytes()
    assert files_below(store) == {f"blobs/sha256-{digest}", "refs/r1/7b.json"}
    assert (added.name, added.sha256, added.size) == ("r1:7b", digest, len(content))
    assert (added.title, added.architecture, added.file_type) == ("Tiny", "llama", "F32")
    assert (added.parameters, added.context_trained, added.license) == (576, 4096, "apache-2.0")
    assert (added.source, added.note, added.pinned) == (HERE, "A note.", False)
    assert added.added.endswith("+00:00")
    assert seen[0] == ("Copying", 0, len(content))
    assert seen[-1] == ("Copying", len(content), len(content))
    again.verify(added)


def test_blobs_are_read_only_and_the_store_is_private(store: Store, make_model: MakeModel) -> None:
    added = store.add(make_model(), "a", source=HERE)
    assert stat.S_IMODE(store.path(added).stat().st_mode) == 0o444
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700


def test_the_manifest_is_json_that_people_can_read(store: Store, make_model: MakeModel) -> None:
    origin = Checkpoint(path="/models/r1", recipe="Q4_K_M")
    store.add(make_model(), "r1", source=origin, about=About(sampling=Sampling(temperature=0.6)))
    stored = json.loads((store.root / "refs" / "r1.json").read_text(encoding="utf-8"))
    said = {"kind": "checkpoint", "path": "/models/r1", "recipe": "Q4_K_M"}
    unsaid = dict.fromkeys(["repository", "model", "revision", "imatrix_sha256", "program", "llama_cpp"], "")
    assert stored["source"] == said | unsaid | {"inputs": {}, "mixture": None}
    assert stored["sampling"] == {"temperature": 0.6, "top_p": None}
    assert store.get("r1").source == origin


def test_a_checkpoint_of_an_older_manifest(store: Store, make_model: MakeModel) -> None:
    """It said less."""
    origin = Checkpoint(path="/models/r1", recipe="Q4_K_M")
    store.add(make_model(), "r1", source=origin)
    path = store.root / "refs" / "r1.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    stored["source"] = {"kind": "checkpoint", "path": "/models/r1", "recipe": "Q4_K_M"}
    path.chmod(0o600)
    path.write_text(json.dumps(stored), encoding="utf-8")
    assert store.get("r1").source == origin


def test_names_nest(store: Store, make_model: MakeModel) -> None:
    for seed, name in enumerate(["r1", "r1:7b", "r1:7b:q4_k_m", "r1:8b"]):
        store.add(make_model(seed=seed), name, source=HERE)
    assert [model.name for model in store.manifests()] == ["r1", "r1:7b", "r1:7b:q4_k_m", "r1:8b"]
    store.remove("r1:7b")
    assert [model.name for model in store.manifests()] == ["r1", "r1:7b:q4_k_m", "r1:8b"]


def test_reasoning_is_seen_in_the_template_unless_it_is_known(store: Store, make_model: MakeModel) -> None:
    plain = make_model("plain.gguf")
    thinks = make_model("thinks.gguf", template="{% set content = content.split('</think>')[-1] %}")
    assert store.add(thinks, "thinks", source=HERE).reasoning is True
    assert store.add(plain, "plain", source=HERE).reasoning is False
    assert store.add(thinks, "told", source=HERE, about=About(reasoning=False)).reasoning is False


def test_the_default_is_the_newest_that_reasons(store: Store, make_model: MakeModel) -> None:
    for seed, (name, reasoning) in enumerate([("a", False), ("b", True), ("c", True), ("d", False)]):
        store.add(make_model(seed=seed), name, source=HERE, about=About(reasoning=reasoning))
    for expected in ["c", "b", "d", "a"]:
        model = store.default()
        assert model is not None
        assert model.name == expected
        store.remove(expected)
    assert store.default() is None


def test_the_same_content_is_stored_once(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    first = store.add(path, "a", source=HERE)
    second = store.add(path, "b", source=HERE)
    assert first.sha256 == second.sha256
    assert len(list((store.root / "blobs").iterdir())) == 1
    store.remove("a")
    assert store.prune().freed == 0
    assert store.path(second).is_file()
    store.remove("b")
    assert store.prune().freed == second.size
    assert files_below(store) == set()
    assert not (store.root / "refs" / "a.json").exists()


def test_a_taken_name_is_kept_unless_it_is_to_be_replaced(store: Store, make_model: MakeModel) -> None:
    store.add(make_model(seed=1), "a", source=HERE)
    with pytest.raises(StoreError, match="called a already"):
        store.add(make_model(seed=2), "A", source=HERE)
    with pytest.raises(StoreError):
        store.require_free("a")
    store.require_free("a", replace=True)
    store.require_free("b")
    older = store.get("a")
    newer = store.add(make_model(seed=2), "A", source=HERE, replace=True)
    assert store.manifests() == [newer]
    assert [item.manifest for item in store.removed()] == [older], "what was replaced can be brought back"
    store.prune()
    assert files_below(store) == {f"blobs/sha256-{newer.sha256}", "refs/a.json"}


def test_move_takes_the_file_itself(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    inode = path.stat().st_ino
    added = store.add(path, "a", source=HERE, move=True)
    assert not path.exists()
    assert store.path(added).stat().st_ino == inode


def test_move_does_not_take_a_link(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    link = path.with_name("link.gguf")
    link.symlink_to(path)
    added = store.add(link, "a", source=HERE, move=True)
    assert path.is_file()
    assert not store.path(added).is_symlink()


@pytest.mark.parametrize("move", [False, True])
def test_an_expected_digest_must_be_met(store: Store, make_model: MakeModel, move: bool) -> None:
    path = make_model()
    with pytest.raises(IntegrityError, match="has the sha256"):
        store.add(path, "a", source=HERE, expect_sha256="0" * 64, move=move)
    assert path.is_file()
    assert files_below(store) == set()
    digest = hashlib.sha256(path.read_bytes()).hexdigest()
    assert store.add(path, "a", source=HERE, expect_sha256=digest, move=move).pinned


def test_files_that_do_not_run_are_not_stored(store: Store, make_model: MakeModel, tmp_path: Path) -> None:
    other = make_model("other.gguf", architecture="gemma3")
    with pytest.raises(UnsupportedModel, match="gemma3"):
        store.add(other, "a", source=HERE)
    split = make_model("m-00001-of-00002.gguf", split=(0, 2))
    with pytest.raises(UnsupportedModel, match=r"00002\.gguf is missing"):
        store.add(split, "a", source=HERE)
    junk = tmp_path / "junk.gguf"
    junk.write_bytes(b"junk")
    with pytest.raises(ModelFileError, match="not a GGUF"):
        store.add(junk, "a", source=HERE)
    with pytest.raises(ModelNotFound):
        store.add(tmp_path / "none.gguf", "a", source=HERE)
    assert not store.root.exists()


def test_space_is_checked_first(tmp_path: Path, make_model: MakeModel) -> None:
    store = Store(tmp_path / "full", free_space=lambda _: 10_000_000)
    with pytest.raises(NoSpace, match=r"67\.1 MB are needed, 10\.0 MB are free"):
        store.add(make_model(), "a", source=HERE)
    assert files_below(store) == set()
    assert list((store.root / "incoming").iterdir()) == []


def test_an_interruption_leaves_nothing(store: Store, make_model: MakeModel) -> None:
    def interrupt(step: str, done: int, total: int) -> None:
        if done:
            raise KeyboardInterrupt

    path = make_model()
    for move in (False, True):
        with pytest.raises(KeyboardInterrupt):
            store.add(path, "a", source=HERE, move=move, on_progress=interrupt)
    assert path.is_file()
    assert files_below(store) == set()
    assert list((store.root / "incoming").iterdir()) == []


def test_a_transfer_folder_is_cleaned_up(store: Store) -> None:
    with store.incoming() as folder:
        (folder / "part").write_bytes(b"x")
        with store.incoming() as other:
            assert other != folder
        assert (folder / "part").is_file(), "the folder of a living transfer is left alone"
    assert not folder.exists()
    assert list((store.root / "incoming").iterdir()) == []


def test_unknown_names_suggest_what_may_be_meant(store: Store, make_model: MakeModel) -> None:
    store.add(make_model(), "mymodel:7b", source=HERE)
    with pytest.raises(ModelNotFound, match="Install it with: localai models pull smollm2:135m"):
        store.get("SmolLM2:135m")
    with pytest.raises(ModelNotFound, match=r"Did you mean mymodel:7b\?"):
        store.get("mymodel")
    with pytest.raises(
        ModelNotFound, match=r"Did you mean smollm2:135m \(localai models pull smollm2:135m\)\?"
    ):
        store.get("smollm2")
    with pytest.raises(ModelNotFound, match="localai models list"):
        store.get("zzzzzzzzz")
    with pytest.raises(ModelNotFound):
        store.remove("zzzzzzzzz")


def test_faults_of_a_blob_are_found(store: Store, make_model: MakeModel, tmp_path: Path) -> None:
    added = store.add(make_model(), "r1-nano", source=Builtin(checkpoint="r1-nano"))
    blob = store.path(added)
    content = blob.read_bytes()
    blob.chmod(0o600)
    blob.write_bytes(content[:-1] + b"!")
    assert store.path(added) == blob
    with pytest.raises(IntegrityError, match=r"was changed or is damaged.*localai models pull r1-nano"):
        store.verify(added)
    blob.write_bytes(content[:-1])
    with pytest.raises(IntegrityError, match="bytes and not"):
        store.path(added)
    blob.unlink()
    with pytest.raises(IntegrityError, match="is missing"):
        store.path(added)
    elsewhere = tmp_path / "elsewhere"
    elsewhere.write_bytes(content)
    blob.symlink_to(elsewhere)
    with pytest.raises(IntegrityError, match="is a link"):
        store.path(added)
    assert store.default() is None
    repaired = store.add(elsewhere, "r1-nano", source=HERE, replace=True)
    store.verify(repaired)
    assert not store.path(repaired).is_symlink()


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"{",
        b"\xff\xfe",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b" " * (2 * 1024 * 1024),
    ],
)
def test_a_damaged_manifest_hides_no_other(store: Store, make_model: MakeModel, damage: bytes) -> None:
    good = store.add(make_model(seed=1), "good", source=HERE)
    store.add(make_model(seed=2), "bad", source=HERE)
    path = store.root / "refs" / "bad.json"
    path.write_bytes(damage)
    assert store.manifests() == [good]
    assert [damaged.path for damaged in store.damaged()] == [path]
    with pytest.raises(IntegrityError, match="is damaged"):
        store.get("bad")
    assert store.remove("bad") is None
    assert store.damaged() == []


def test_a_manifest_elsewhere_is_not_believed(store: Store, make_model: MakeModel) -> None:
    store.add(make_model(), "a", source=HERE)
    refs = store.root / "refs"
    (refs / "b.json").write_bytes((refs / "a.json").read_bytes())
    (refs / "c.json").symlink_to(refs / "a.json")
    (refs / "Upper.json").write_bytes((refs / "a.json").read_bytes())
    evil = json.loads((refs / "a.json").read_text(encoding="utf-8"))
    (refs / "d.json").write_text(json.dumps({**evil, "name": "d", "sha256": "../../../etc/passwd"}))
    assert [model.name for model in store.manifests()] == ["a"]
    assert {damaged.path.name for damaged in store.damaged()} == {"b.json", "c.json", "d.json", "Upper.json"}


def test_a_blob_that_a_damaged_manifest_mentions_stays(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    first = store.add(path, "a", source=HERE)
    store.add(path, "b", source=HERE)
    manifest = store.root / "refs" / "b.json"
    manifest.write_bytes(manifest.read_bytes()[:-5])
    store.remove("a")
    assert store.prune().freed == 0
    assert store.path(first).is_file()


def test_fields_of_a_later_version_are_ignored(store: Store, make_model: MakeModel) -> None:
    added = store.add(make_model(), "a", source=HERE)
    path = store.root / "refs" / "a.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    path.write_text(json.dumps({**stored, "later": [1, 2]}), encoding="utf-8")
    assert store.get("a") == added


class TestResolve:
    """Names, and paths."""

    def test_a_name(self, store: Store, make_model: MakeModel) -> None:
        added = store.add(make_model(), "r1:7b", source=HERE)
        found = store.resolve("R1:7b")
        assert (found.path, found.name, found.manifest) == (store.path(added), "r1:7b", added)
        assert found.header().architecture == "llama"

    def test_a_path(self, store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch) -> None:
        path = make_model("Some Model.gguf")
        for text in (str(path), "./Some Model.gguf", "Some Model.gguf"):
            monkeypatch.chdir(path.parent)
            found = store.resolve(text)
            assert (found.path, found.name, found.manifest) == (path, "Some Model.gguf", None)

    def test_a_file_without_a_suffix(
        self, store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_model("model")
        monkeypatch.chdir(path.parent)
        assert store.resolve("model").path == path

    def test_a_name_in_the_store_wins_over_a_file(
        self, store: Store, make_model, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        path = make_model("model")
        added = store.add(path, "model", source=HERE)
        monkeypatch.chdir(path.parent)
        assert store.resolve("model").manifest == added
        assert store.resolve("./model").manifest is None

    @pytest.mark.parametrize("name", ["folder", "./folder", "~/x/../"])
    def test_a_folder(self, store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
        (tmp_path / "folder").mkdir()
        monkeypatch.chdir(tmp_path)
        monkeypatch.setenv("HOME", str(tmp_path))
        (tmp_path / "x").mkdir()
        with pytest.raises(UsageError, match="localai quantize"):
            store.resolve(name)

    @pytest.mark.parametrize("name", ["m.bin", "m.pt", "m.PTH", "m.ckpt", "m.pkl"])
    def test_pickles_are_refused(self, store: Store, tmp_path: Path, name: str) -> None:
        (tmp_path / name).write_bytes(b"PK")
        with pytest.raises(ModelFileError, match="pickled"):
            store.resolve(str(tmp_path / name))

    def test_safetensors(self, store: Store, tmp_path: Path) -> None:
        (tmp_path / "m.safetensors").write_bytes(b"x")
        with pytest.raises(ModelFileError, match=f"localai quantize {tmp_path}"):
            store.resolve(str(tmp_path / "m.safetensors"))

    def test_nothing(self, store: Store, tmp_path: Path) -> None:
        with pytest.raises(ModelNotFound, match="There is no file"):
            store.resolve(str(tmp_path / "none.gguf"))
        with pytest.raises(ModelNotFound, match="localai models pull smollm2:135m"):
            store.resolve("smollm2:135m")
        with pytest.raises(UsageError):
            store.resolve("")
        with pytest.raises(UsageError):
            store.resolve("no such model")
        with pytest.raises(UsageError):
            store.resolve("a\0b/c")
