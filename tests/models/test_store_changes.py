"""The store: undo, names, models in parts, files of other programs, shared stores, other kinds of disks."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localai.errors import IntegrityError, ModelFileError, ModelNotFound, StoreError, UnsupportedModel
from models import linking, manifest, usage
from models.files import storage_errors
from models.incoming import discard_unfinished, done, fetch_folder, unfinished
from models.origins import About, LocalFile, PackageIndex, UrlFile
from models.pins import Pin, Pins
from models.store import Bytes, Store

MakeModel = Callable[..., Path]

HERE = LocalFile(path="/somewhere/tiny.gguf")
KEY = "ab" * 32


def parts(make_model: MakeModel, count: int = 2, stem: str = "m") -> list[Path]:
    """A model in several files; only the first says what it is, as llama-gguf-split writes them."""
    names = [f"{stem}-{number:05}-of-{count:05}.gguf" for number in range(1, count + 1)]
    return [
        make_model(name, split=(number, count), seed=number, prefix=f"blk.{number}." if number else "")
        for number, name in enumerate(names)
    ]


def blobs(store: Store) -> list[str]:
    return sorted(path.relative_to(store.root).as_posix() for path in (store.root / "blobs").rglob("*"))


class TestUndo:
    """What is removed can be brought back until it is pruned."""

    def test_a_removed_model_comes_back(self, store: Store, make_model: MakeModel) -> None:
        added = store.add(make_model(), "r1:7b", source=HERE)
        item = store.remove("R1:7b")
        assert item is not None
        assert item.manifest == added
        assert store.manifests() == []
        with pytest.raises(ModelNotFound):
            store.get("r1:7b")
        assert [one.manifest for one in store.removed()] == [added]
        assert store.prunable() == added.size
        assert store.restore("R1:7B") == added
        store.verify(store.get("r1:7b"))
        assert (store.removed(), store.prunable()) == ([], 0)

    def test_prune_is_the_end(self, store: Store, make_model: MakeModel) -> None:
        added = store.add(make_model(seed=1), "a", source=HERE)
        kept = store.add(make_model(seed=2), "b", source=HERE)
        store.remove("a")
        pruned = store.prune()
        assert (pruned.models, pruned.freed, pruned.unfinished) == (("a",), added.size, 0)
        assert blobs(store) == [f"blobs/sha256-{kept.sha256}"]
        with pytest.raises(ModelNotFound, match="No model called a was removed"):
            store.restore("a")
        assert store.prune().freed == 0

    def test_the_latest_of_a_name_comes_back(self, store: Store, make_model: MakeModel) -> None:
        store.add(make_model(seed=1), "a", source=HERE)
        store.remove("a")
        second = store.add(make_model(seed=2), "a", source=HERE)
        store.remove("a")
        assert store.restore("a") == second
        with pytest.raises(StoreError, match="There is a model called a already"):
            store.restore("a")

    def test_what_nothing_leads_to_is_pruned(self, store: Store, make_model: MakeModel) -> None:
        kept = store.add(make_model(), "a", source=HERE)
        stray = store.root / "blobs" / f"sha256-{'0' * 64}"
        stray.write_bytes(b"12345")
        assert store.prune().freed == 5
        assert blobs(store) == [f"blobs/sha256-{kept.sha256}"]

    def test_a_damaged_removed_manifest_is_no_obstacle(self, store: Store, make_model: MakeModel) -> None:
        store.add(make_model(), "a", source=HERE)
        store.remove("a")
        (path,) = (store.root / "removed").iterdir()
        path.write_bytes(b"{")
        assert store.removed() == []
        store.prune()
        assert blobs(store) == []

    def test_an_empty_store_can_be_pruned(self, store: Store) -> None:
        assert store.prune().freed == 0
        assert not store.root.exists()


class TestNothingIsLost:
    """What might still be needed is not deleted."""

    @pytest.mark.parametrize("damage", [b"", b"{", b"\xff"])
    def test_a_manifest_that_cannot_be_read_keeps_everything(
        self, store: Store, make_model: MakeModel, damage: bytes
    ) -> None:
        added = store.add(make_model(seed=1), "a", source=HERE)
        other = store.add(make_model(seed=2), "b", source=HERE)
        store.remove("b")
        path = store.root / "refs" / "a.json"
        path.write_bytes(damage)
        with pytest.raises(StoreError, match=r"Nothing is freed.*a\.json"):
            store.prune()
        item = next(one for one in store.removed() if one.manifest == other)
        with pytest.raises(StoreError, match="Nothing is freed"):
            store.discard([item])
        assert len(blobs(store)) == 2
        path.write_bytes(manifest.encode(added))
        assert store.prune().models == ("b",)
        store.verify(store.get("a"))

    def test_a_link_in_the_place_of_a_manifest(self, store: Store, make_model: MakeModel) -> None:
        store.add(make_model(), "a", source=HERE)
        path = store.root / "refs" / "a.json"
        path.rename(store.root / "a.json")
        path.symlink_to(store.root / "a.json")
        with pytest.raises(StoreError, match="Nothing is freed"):
            store.prune()
        assert len(blobs(store)) == 1

    def test_a_manifest_of_a_later_version_comes_back(self, store: Store, make_model: MakeModel) -> None:
        store.add(make_model(), "a:b", source=HERE)
        path = store.root / "refs" / "a" / "b.json"
        later = json.loads(path.read_bytes()) | {"source": {"kind": "torrent"}}
        path.write_text(json.dumps(later), "utf-8")
        assert store.remove("a:b") is None
        with pytest.raises(IntegrityError, match="is damaged"):
            store.restore("a:b")
        assert json.loads(path.read_bytes()) == later
        assert len(blobs(store)) == 1

    def test_what_is_replaced_comes_back(self, store: Store, make_model: MakeModel) -> None:
        first = store.add(make_model(seed=1), "a", source=HERE)
        store.add(make_model(seed=2), "a", source=HERE, replace=True)
        store.rename("a", "new")
        assert store.restore("a") == first
        store.verify(first)

    def test_discard_frees_only_what_it_is_told(self, store: Store, make_model: MakeModel) -> None:
        first = store.add(make_model(seed=1), "a", source=HERE)
        store.add(make_model(seed=2), "b", source=HERE)
        store.remove("a")
        item = store.remove("b")
        assert item is not None
        assert store.discard([item]) == item.manifest.size
        assert store.restore("a") == first
        store.verify(first)

    def test_whoever_comes_second_does_not_take_the_name(
        self, store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """The name is free at the start and taken at the end."""
        late, early = make_model("late.gguf", seed=1), make_model("early.gguf", seed=2)

        def meanwhile(step: str, done: int, total: int) -> None:
            if not store.manifests():
                store.add(early, "a", source=LocalFile(path="early"))

        with pytest.raises(StoreError, match="called a already"):
            store.add(late, "a", source=HERE, on_progress=meanwhile)
        assert store.get("a").source == LocalFile(path="early")
        store.verify(store.get("a"))

    def test_a_blob_of_ones_own_is_not_exchanged_for_a_link(
        self, store: Store, make_model: MakeModel
    ) -> None:
        path = make_model()
        own = store.add(path, "own", source=HERE)
        linked = store.adopt([path], "linked", source=HERE)
        assert not store.path(own).samefile(path)
        assert linked.sharing == own.sharing == ""
        with path.open("r+b") as file:
            file.write(b"XXXX")
        store.verify(own)
        store.verify(linked)

    def test_a_name_is_not_given_to_bytes_that_have_gone(self, store: Store, make_model: MakeModel) -> None:
        added = store.add(make_model(), "a", source=HERE)
        store.remove("a")
        store.prune()
        with pytest.raises(StoreError, match="is missing"):
            store.name_again(added, "b", source=HERE, about=About())
        assert store.manifests() == []

    def test_parts_that_are_moved_stay_where_they_are_until_the_end(
        self, store: Store, make_model: MakeModel
    ) -> None:
        files = parts(make_model)
        shutil.copyfile(files[0], files[1])
        with pytest.raises(ModelFileError):
            store.add(files[0], "big", source=HERE, move=True)
        assert all(file.is_file() for file in files)

    def test_what_a_killed_process_left_is_pruned(self, store: Store) -> None:
        left = store.root / "incoming" / ("ab" * 16)
        left.mkdir(parents=True)
        (left / "model.gguf").write_bytes(b"x" * 4096)
        assert store.prune().freed == 4096
        assert list((store.root / "incoming").iterdir()) == []


@pytest.mark.parametrize(
    "wrong",
    [
        {"places": [{"path": "/a\0b", "size": 1, "modified_ns": 1}]},
        {"places": [{"path": "relative", "size": 1, "modified_ns": 1}]},
        {"places": [{"path": f"/{n}", "size": 1, "modified_ns": 1} for n in range(2)]},
        {"size": 10**400},
        {"size": -1},
        {"name": "../x"},
    ],
)
def test_a_manifest_with_what_cannot_be_is_damaged(
    store: Store, make_model: MakeModel, wrong: dict[str, object]
) -> None:
    good = store.add(make_model(seed=1), "good", source=HERE)
    store.add(make_model(seed=2), "bad", source=HERE)
    path = store.root / "refs" / "bad.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | wrong), "utf-8")
    assert store.manifests() == [good]
    assert [item.path for item in store.damaged()] == [path]
    assert store.default() == good


class TestRename:
    def test_to_itself_it_changes_nothing(self, store: Store, make_model: MakeModel) -> None:
        added = store.add(make_model(), "a", source=HERE)
        assert store.rename("a", "A") == added
        assert store.manifests() == [added]

    def test_it_is_the_same_model(self, store: Store, make_model: MakeModel) -> None:
        added = store.add(make_model(), "a:b:c", source=HERE)
        renamed = store.rename("A:b:c", "Other:Name")
        assert (renamed.name, renamed.sha256) == ("other:name", added.sha256)
        assert [model.name for model in store.manifests()] == ["other:name"]
        assert not (store.root / "refs" / "a").exists()

    def test_no_other_is_overwritten(self, store: Store, make_model: MakeModel) -> None:
        first = store.add(make_model(seed=1), "a", source=HERE)
        second = store.add(make_model(seed=2), "b", source=HERE)
        with pytest.raises(StoreError, match="called b already"):
            store.rename("a", "b")
        with pytest.raises(ModelNotFound):
            store.rename("c", "d")
        assert store.manifests() == [first, second]


class TestParts:
    """Models in several files."""

    def test_they_are_kept_together(self, store: Store, make_model: MakeModel) -> None:
        files = parts(make_model, 3)
        added = store.add(files[0], "big", source=HERE)
        digests = [hashlib.sha256(file.read_bytes()).hexdigest() for file in files]
        assert [part.sha256 for part in added.parts] == digests
        assert added.sha256 == hashlib.sha256("".join(f"{d}\n" for d in digests).encode()).hexdigest()
        assert added.size == sum(file.stat().st_size for file in files)
        assert added.parameters == 3 * 576
        assert [path.name for path in store.paths(added)] == [
            f"model-0000{number}-of-00003.gguf" for number in (1, 2, 3)
        ]
        header = store.resolve("big").header()
        assert (len(header.tensors), header.file_size) == (6, added.size)
        store.verify(added)
        store.remove("big")
        assert store.prune().freed == added.size
        assert blobs(store) == []

    def test_a_damaged_or_missing_part_is_found(self, store: Store, make_model: MakeModel) -> None:
        added = store.add(parts(make_model)[0], "big", source=HERE)
        second = store.paths(added)[1]
        content = second.read_bytes()
        second.chmod(0o600)
        second.write_bytes(content[:-1] + b"!")
        with pytest.raises(IntegrityError, match=r"00002-of-00002.gguf, was changed or is damaged"):
            store.verify(added)
        assert not store.is_missing(added)
        second.unlink()
        assert store.is_missing(added)
        with pytest.raises(IntegrityError, match="is missing"):
            store.path(added)

    def test_parts_must_belong_together(self, store: Store, make_model: MakeModel) -> None:
        files = parts(make_model, 3)
        shutil.copyfile(files[1], files[2])
        with pytest.raises(ModelFileError, match="is not part 3"):
            store.add(files[0], "big", source=HERE)
        make_model(files[2].name, split=(2, 3), prefix="blk.1.")
        with pytest.raises(ModelFileError, match="which another part has too"):
            store.add(files[0], "big", source=HERE)
        with pytest.raises(UnsupportedModel, match="is not the first part"):
            store.add(files[1], "big", source=HERE)

    def test_they_can_be_moved_in(self, store: Store, make_model: MakeModel) -> None:
        files = parts(make_model)
        known = Bytes(tuple(hashlib.sha256(file.read_bytes()).hexdigest() for file in files))
        added = store.add(files[0], "big", source=HERE, known=known, move=True)
        assert not files[0].exists()
        assert not files[1].exists()
        store.verify(added)


class TestAdopt:
    """Files of other programs, of which there is no second copy."""

    def test_a_hard_link(self, store: Store, make_model: MakeModel) -> None:
        path = make_model()
        path.chmod(0o640)
        added = store.adopt([path], "a", source=HERE, about=About(title="Theirs"))
        if added.sharing == "reflink":
            pytest.skip("this disk makes reflinks: nothing is linked")
        assert added.sharing == "hard link"
        assert store.path(added).samefile(path)
        assert stat.S_IMODE(path.stat().st_mode) == 0o640, (
            "the rights of the other program's file are its own"
        )
        assert store.disk_bytes(added) == 0
        store.verify(added)
        path.unlink()
        store.verify(added)
        assert store.disk_bytes(added) == added.size, "now it is ours alone"

    def test_a_reference_where_nothing_can_be_linked(
        self, store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(linking, "bring", lambda *_, **__: None)
        path = make_model()
        added = store.adopt([path], "a", source=HERE)
        assert (added.sharing, [place.path for place in added.places]) == ("reference", [str(path)])
        assert store.resolve("a").path == path
        assert not (store.root / "blobs").exists()
        assert store.disk_bytes(added) == 0
        store.verify(added)
        os.utime(path, ns=(1, 1))
        with pytest.raises(IntegrityError, match="was changed by another program"):
            store.path(added)
        path.unlink()
        with pytest.raises(IntegrityError, match="is missing"):
            store.path(added)
        store.remove("a")
        assert store.prune().freed == 0

    def test_removing_a_reference_leaves_the_file(
        self, store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(linking, "bring", lambda *_, **__: None)
        files = parts(make_model)
        added = store.adopt(files, "a", source=HERE)
        assert store.paths(added) == files
        store.remove("a")
        store.prune()
        assert all(file.is_file() for file in files)

    def test_parts_that_cannot_be_opened_where_they_are(
        self, store: Store, make_model: MakeModel, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        files = [file.rename(file.with_name(f"blob{n}")) for n, file in enumerate(parts(make_model))]
        with pytest.raises(StoreError, match="localai models import"), monkeypatch.context() as context:
            context.setattr(linking, "bring", lambda *_, **__: None)
            store.adopt(files, "a", source=HERE)
        added = store.adopt(files, "a", source=HERE)
        assert [path.name for path in store.paths(added)] == [
            "model-00001-of-00002.gguf",
            "model-00002-of-00002.gguf",
        ]

    def test_the_digest_must_be_the_one_that_its_owner_tells(
        self, store: Store, make_model: MakeModel
    ) -> None:
        path = make_model()
        with pytest.raises(IntegrityError, match="has the sha256"):
            store.adopt([path], "a", source=HERE, expect_sha256="0" * 64)
        assert store.manifests() == []
        assert list((store.root / "incoming").iterdir()) == []
        assert path.is_file()

    def test_another_architecture_only_if_allowed(self, store: Store, make_model: MakeModel) -> None:
        path = make_model(architecture="gemma3")
        with pytest.raises(UnsupportedModel, match="gemma3"):
            store.adopt([path], "a", source=HERE)
        added = store.adopt([path], "a", source=HERE, allow=("gemma3",))
        assert added.allowed_architecture == "gemma3"
        assert store.resolve("a").header().architecture == "gemma3"


class TestSharedStore:
    """A team's store, which is only read."""

    @pytest.fixture
    def team(self, tmp_path: Path, make_model: MakeModel) -> Iterator[Path]:
        root = tmp_path / "team"
        with_all = Store(root, free_space=lambda _: 1 << 50)
        with_all.add(make_model("t.gguf", seed=7), "team:7b", source=HERE)
        with_all.add(make_model("u.gguf", seed=8), "both", source=HERE)
        for path in sorted(root.rglob("*"), reverse=True):
            path.chmod(path.stat().st_mode & ~0o222)
        root.chmod(0o555)
        yield root
        for path in [root, *root.rglob("*")]:
            path.chmod(path.stat().st_mode | 0o200)

    def test_its_models_are_found_behind_ones_own(
        self, team: Path, tmp_path: Path, make_model: MakeModel
    ) -> None:
        store = Store(tmp_path / "own", shared=[team], free_space=lambda _: 1 << 50)
        own = Store(store.root, free_space=lambda _: 1 << 50).add(make_model(seed=1), "both", source=HERE)
        assert [model.name for model in store.manifests()] == ["both", "team:7b"]
        assert store.get("both") == own
        assert (store.is_own("both"), store.is_own("team:7b")) == (True, False)
        store.verify(store.get("team:7b"))
        assert store.resolve("team:7b").path.is_relative_to(team)
        assert store.disk_bytes(store.get("team:7b")) == 0

    def test_a_share_that_is_away_is_said_and_no_obstacle(
        self, tmp_path: Path, make_model: MakeModel
    ) -> None:
        (tmp_path / "file").write_bytes(b"")
        for share in (tmp_path / "none", tmp_path / "file"):
            store = Store(tmp_path / "own", shared=[share], free_space=lambda _: 1 << 50)
            store.add(make_model(), "a", source=HERE, replace=True)
            assert [model.name for model in store.manifests()] == ["a"]
            assert ["is not there" in item.reason for item in store.damaged()] == [True]

    def test_it_is_not_changed(self, team: Path, tmp_path: Path, make_model: MakeModel) -> None:
        store = Store(tmp_path / "own", shared=[team], free_space=lambda _: 1 << 50)
        before = sorted(path.as_posix() for path in team.rglob("*"))
        for attempt in (lambda: store.remove("team:7b"), lambda: store.rename("team:7b", "x")):
            with pytest.raises(StoreError, match="is in the shared store"):
                attempt()
        with pytest.raises(StoreError, match="called team:7b already"):
            store.add(make_model(), "team:7b", source=HERE)
        store.prune()
        assert sorted(path.as_posix() for path in team.rglob("*")) == before

    def test_alone_it_can_be_read(self, team: Path) -> None:
        store = Store(team)
        assert len(store.manifests()) == 2
        store.verify(store.get("both"))
        assert store.unfinished() == []
        assert store.removed() == []

    def test_on_a_disk_that_cannot_be_written_it_is_read_and_said_so(
        self, make_disk: Callable[[str], Path], make_model: MakeModel
    ) -> None:
        disk = make_disk("btrfs")
        Store(disk / "store", free_space=lambda _: 1 << 50).add(make_model(), "both", source=HERE)
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        store = Store(disk / "store")
        store.verify(store.get("both"))
        assert store.unfinished() == []
        for attempt in (
            lambda: store.remove("both"),
            lambda: store.rename("both", "other"),
            lambda: store.add(make_model(), "new", source=HERE),
        ):
            with pytest.raises(StoreError, match="only for reading"):
                attempt()

    def test_the_environment_names_both(
        self, team: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, make_model: MakeModel
    ) -> None:
        monkeypatch.setenv("LOCALAI_MODELS", str(tmp_path / "large disk"))
        monkeypatch.setenv("LOCALAI_SHARED_MODELS", os.pathsep.join([str(team), str(tmp_path / "none")]))
        store = Store()
        assert store.root == tmp_path / "large disk"
        store.add(make_model(), "mine", source=HERE)
        assert [model.name for model in store.manifests()] == ["both", "mine", "team:7b"]


def test_a_store_on_a_disk_that_is_only_read_says_so(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="only for reading"), storage_errors(tmp_path):
        raise OSError(30, "Read-only file system", str(tmp_path / "x"))


def test_a_file_that_is_too_large_for_the_disk(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="on FAT32, 4 GiB are the most"), storage_errors(tmp_path):
        raise OSError(27, "File too large", str(tmp_path / "x"))


FAT = """
import sys
from pathlib import Path
from models.origins import LocalFile
from models.store import Store

root, *paths = map(Path, sys.argv[1:])
store = Store(root / "Models", free_space=lambda _: 1 << 50)
added = store.add(paths[0], "R1:7b", source=LocalFile(path="x"))
again = store.adopt([paths[1]], "other", source=LocalFile(path="x"))
assert again.sharing == "reference", again.sharing
for model in store.manifests():
    store.verify(model)
store.rename("r1:7b", "r1:8b")
store.remove("r1:8b")
store.restore("r1:8b")
store.verify(store.get("R1:8B"))
store.remove("r1:8b")
assert store.prune().freed == added.size
with store.fetching("ab" * 32, "a", 5, lambda other: None) as folder:
    (folder / "x").write_bytes(b"12345")
assert [one.name for one in store.unfinished()] == ["a"]
assert [model.name for model in store.manifests()] == ["other"]
print("works")
"""


def test_on_a_disk_that_ignores_case_and_knows_no_links(
    make_disk: Callable[[str], Path], make_model: MakeModel
) -> None:
    words = [str(make_disk("exfat")), str(make_model("a.gguf", seed=1)), str(make_model("b.gguf", seed=2))]
    found = subprocess.run(
        [sys.executable, "-W", "error", "-c", FAT, *words], capture_output=True, text=True, check=False
    )
    assert found.stdout == "works\n", found.stderr


def test_a_copy_shares_blocks_where_the_disk_can(
    make_disk: Callable[[str], Path], make_model: MakeModel
) -> None:
    disk = make_disk("btrfs")
    path = disk / "mine.gguf"
    shutil.copyfile(make_model(), path)
    store = Store(disk / "store", free_space=lambda _: 0)  # nothing is copied, so that no space is needed
    added = store.add(path, "a", source=HERE)
    assert added.sharing == "reflink"
    path.write_bytes(b"changed")
    store.verify(added)


class TestNames:
    def test_the_same_bytes_by_another_name(self, store: Store, make_model: MakeModel) -> None:
        first = store.add(make_model(), "a", source=HERE)
        source = UrlFile(url="https://example.org/x.gguf", sha256=first.sha256)
        second = store.name_again(first, "b", source=source, about=About(title="B", note="Note."))
        assert (second.sha256, second.title, second.source) == (first.sha256, "B", source)
        assert len(blobs(store)) == 1
        assert store.with_digest(first.sha256) in (first, second)
        store.remove("a")
        store.remove("b")
        assert store.with_digest(first.sha256) is not None, "a removed model's bytes are still there"
        store.prune()
        assert store.with_digest(first.sha256) is None


class TestFetchFolder:
    """Where a fetch collects what comes."""

    def test_it_is_there_again_for_the_next_attempt(self, store: Store) -> None:
        with store.fetching(KEY, "r1:7b", 100, lambda other: None) as folder:
            (folder / "part").write_bytes(b"x" * 40)
        with store.incoming():  # sweeps up what others have left
            pass
        (one,) = store.unfinished()
        assert (one.name, one.total, one.running) == ("r1:7b", 100, False)
        assert one.arrived >= 40
        with store.fetching(KEY, "r1:7b", 100, lambda other: None) as again:
            assert (again / "part").read_bytes() == b"x" * 40
            assert store.unfinished()[0].running
            assert discard_unfinished(store.root / "incoming") == 0, "nobody takes it away meanwhile"
            done(again)
        assert store.unfinished() == []
        assert list((store.root / "incoming").iterdir()) == []

    def test_what_is_given_up_is_pruned(self, store: Store) -> None:
        with store.fetching(KEY, "r1:7b", 100, lambda other: None) as folder:
            (folder / "part").write_bytes(b"x" * 4096)
        pruned = store.prune()
        assert pruned.unfinished >= 4096
        assert list((store.root / "incoming").iterdir()) == []

    def test_a_second_one_waits_and_hears_how_far_the_first_is(self, tmp_path: Path) -> None:
        seen = []

        def stop(other: object) -> None:
            seen.append(other)
            raise KeyboardInterrupt

        with fetch_folder(tmp_path, KEY, "a", 10, lambda other: None) as folder:
            (folder / "part").write_bytes(b"12345")
            with pytest.raises(KeyboardInterrupt), fetch_folder(tmp_path, KEY, "b", 10, stop):
                pass
        assert [(one.name, one.running) for one in seen] == [("a", True)]
        assert (folder / "part").is_file()

    @pytest.mark.parametrize("key", ["", "..", "x" * 64, "AB" * 32])
    def test_a_key_is_a_digest(self, tmp_path: Path, key: str) -> None:
        with pytest.raises(StoreError), fetch_folder(tmp_path, key, "a", 1, lambda other: None):
            pass
        assert list(tmp_path.iterdir()) == []

    def test_a_damaged_note_is_no_fetch(self, tmp_path: Path) -> None:
        with fetch_folder(tmp_path, KEY, "a", 10, lambda other: None) as folder:
            (folder / "fetch.json").write_bytes(b"{")
        assert unfinished(tmp_path) == []


class TestPins:
    def test_the_first_counts(self, tmp_path: Path) -> None:
        pins, first, other = Pins(tmp_path), Pin("a" * 64, 1), Pin("b" * 64, 2)
        pins.put({"hub:a/b@c/x": first})
        pins.put({"hub:a/b@c/x": other, "y": other})
        assert Pins(tmp_path).all() == {"hub:a/b@c/x": first, "y": other}
        pins.put({"hub:a/b@c/x": other}, replace=True)
        assert pins.get("hub:a/b@c/x") == other
        assert pins.get("z") is None

    @pytest.mark.parametrize(
        "damage", [b"", b"[]", b'{"a": 1}', b'{"a": {"sha256": "x", "size": 1}}', b"[" * 9999]
    )
    def test_a_damaged_file_lets_nothing_pass(self, tmp_path: Path, damage: bytes) -> None:
        (tmp_path / "pins.json").write_bytes(damage)
        with pytest.raises(IntegrityError, match=r"pins\.json"):
            Pins(tmp_path).get("a")


class TestUsage:
    def test_it_is_known_when_a_model_was_used_last(self, home: Path) -> None:
        digest = "c" * 64
        assert usage.last_used(digest) is None
        usage.mark(digest)
        assert usage.last_used(digest) is not None
        usage.forget(digest)
        assert usage.last_used(digest) is None
        usage.mark("../../x")
        assert [path.name for path in (home / "data" / "used").iterdir()] == []


def test_a_manifest_of_an_earlier_version(store: Store, make_model: MakeModel) -> None:
    """Then a package index meant exactly one wheel."""
    added = store.add(make_model(), "a", source=HERE)
    path = store.root / "refs" / "a.json"
    stored = json.loads(path.read_text(encoding="utf-8"))
    for new in ("parts", "sharing", "places", "allowed_architecture"):
        del stored[new]
    stored["source"] = {
        "kind": "package-index",
        "package": "p",
        "version": "1.0",
        "wheel_sha256": "a" * 64,
        "wheel_size": 5,
        "member": "p/x.gguf",
        "size": 7,
        "sha256": added.sha256,
    }
    path.write_text(json.dumps(stored), encoding="utf-8")
    source = store.get("a").source
    assert isinstance(source, PackageIndex)
    assert (source.wheels[0].package, source.wheels[0].sha256, source.wheels[0].size) == ("p", "a" * 64, 5)
    assert manifest.decode(manifest.encode(store.get("a"))) == store.get("a")
