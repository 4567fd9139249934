"""The store when a process is killed, the disk is full, or several processes add at once."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from localai.errors import StoreError
from models.origins import LocalFile
from models.store import Store

MakeModel = Callable[..., Path]

HERE = LocalFile(path="x")

PAUSED = """
import sys
from pathlib import Path
from models import files
from models.origins import LocalFile
from models.store import Store

def pause():
    print("paused", flush=True)
    sys.stdin.read()

root, path, moment = sys.argv[1:]
if moment == "before the manifest":
    files.write_atomic = lambda *_: pause()
if moment == "before the blob":
    files.place = lambda *_, **__: pause()
Store(Path(root), free_space=lambda _: 1 << 50).add(
    Path(path), "new", source=LocalFile(path="x"), replace=True,
    on_progress=lambda step, done, total: pause() if moment == "while copying" and done else None,
)
"""

FULL = """
import sys
from pathlib import Path
from localai.errors import NoSpace
from models.origins import LocalFile
from models.store import Store

store = Store(Path(sys.argv[1]) / "store", free_space=lambda _: 1 << 50)
small = store.add(Path(sys.argv[2]), "small", source=LocalFile(path="x"))
for _ in range(2):
    try:
        store.add(Path(sys.argv[3]), "large", source=LocalFile(path="x"))
    except NoSpace as error:
        print(error)
store.verify(small)
assert store.manifests() == [small]
assert list((store.root / "incoming").iterdir()) == []
assert len(list((store.root / "blobs").iterdir())) == 1
try:
    Store(store.root).add(Path(sys.argv[3]), "large", source=LocalFile(path="x"))
except NoSpace as error:
    print(error)
"""

ADDING = """
import sys
from pathlib import Path
from models.origins import LocalFile
from models.store import Store

store = Store(Path(sys.argv[1]), free_space=lambda _: 1 << 50)
print("ready", flush=True)
sys.stdin.readline()
for number in range(20):
    store.add(Path(sys.argv[2]), "same", source=LocalFile(path="x"), replace=True)
    store.add(Path(sys.argv[2]), sys.argv[3], source=LocalFile(path="x"), replace=True)
    if number < 19:
        store.remove(sys.argv[3])
        store.prune()
"""


def python(script: str, *words: str) -> list[str]:
    return [sys.executable, "-W", "error", "-c", script, *words]


def start(script: str, *words: object) -> subprocess.Popen[str]:
    command = python(script, *map(str, words))
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def said(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    return process.stdout.readline().strip()


@pytest.mark.parametrize("moment", ["while copying", "before the blob", "before the manifest"])
def test_a_killed_add_leaves_the_store_intact(store: Store, make_model: MakeModel, moment: str) -> None:
    old = store.add(make_model("old.gguf", seed=1), "old", source=HERE)
    path = make_model("new.gguf", seed=2)
    with start(PAUSED, store.root, path, moment) as process:
        assert said(process) == "paused"
        assert store.manifests() == [old], "a store can be read while another process adds"
        process.kill()
    assert store.manifests() == [old]
    assert store.damaged() == []
    store.verify(old)
    new = store.add(path, "new", source=HERE)
    store.verify(new)
    assert store.manifests() == [new, old]
    assert list((store.root / "incoming").iterdir()) == [], "what the dead process left is swept up"
    assert len(list((store.root / "blobs").iterdir())) == 2


def test_a_killed_replacement_keeps_the_old_model(store: Store, make_model: MakeModel) -> None:
    old = store.add(make_model("old.gguf", seed=1), "new", source=HERE)
    with start(PAUSED, store.root, make_model("new.gguf", seed=2), "before the manifest") as process:
        assert said(process) == "paused"
        process.kill()
    assert store.get("new") == old
    store.verify(old)


def test_two_processes_at_once(store: Store, make_model: MakeModel) -> None:
    path = make_model()
    with start(ADDING, store.root, path, "one") as first, start(ADDING, store.root, path, "two") as second:
        for process in (first, second):
            assert said(process) == "ready"
        for process in (first, second):
            assert process.stdin is not None
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [first.wait(), second.wait()] == [0, 0]
    assert [model.name for model in store.manifests()] == ["one", "same", "two"]
    for model in store.manifests():
        store.verify(model)
    assert len(list((store.root / "blobs").iterdir())) == 1
    assert list((store.root / "incoming").iterdir()) == []


def test_a_disk_that_is_really_full(tmp_path: Path, make_model: MakeModel) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    mount = f'mount -t tmpfs -o size=256k tmpfs "{disk}" && exec "$@"'
    if shutil.which("unshare") is None:
        pytest.skip("no unshare: a small disk cannot be made")
    alone = ["unshare", "-rm", "sh", "-c", mount, "sh"]
    probe = subprocess.run([*alone, "true"], capture_output=True, check=False)
    if probe.returncode != 0:
        pytest.skip(f"a small disk cannot be mounted: {probe.stderr.decode().strip()}")
    small, large = make_model("small.gguf"), make_model("large.gguf", rows=2000)
    script = python(FULL, str(disk), str(small), str(large))
    result = subprocess.run([*alone, *script], capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
    full, again, checked = result.stdout.splitlines()
    assert full.startswith("The disk is full")
    assert again.startswith("The disk is full")
    assert checked.startswith("Not enough space")


def test_a_store_that_cannot_be_written(tmp_path: Path, make_model: MakeModel) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(StoreError, match="cannot be used"):
        Store(tmp_path / "file" / "store").add(make_model(), "a", source=HERE)
