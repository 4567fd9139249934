"""A second name for the same bytes: by reflink, by hard link, or not at all. Real disks, where possible."""

from __future__ import annotations

import os
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from localai.errors import ModelFileError, ModelNotFound, StoreError
from models import linking
from models.linking import bring

BYTES = bytes(range(256)) * 512


@pytest.fixture
def source(tmp_path: Path) -> Path:
    path = tmp_path / "model.gguf"
    path.write_bytes(BYTES)
    path.chmod(0o640)
    return path


def _mounted(folder: Path, make: list[str], size: int) -> Iterator[Path]:
    """A new disk at `folder`, or a skipped test where this system does not let us have it."""
    if os.name != "posix" or os.geteuid() != 0 or shutil.which(make[0]) is None:
        pytest.skip(f"needs root and {make[0]}")
    image, place = folder / "image", folder / "disk"
    with image.open("wb") as file:
        file.truncate(size)
    subprocess.run([*make, str(image)], check=True, capture_output=True)
    place.mkdir()
    done = subprocess.run(["mount", "-o", "loop", str(image), str(place)], capture_output=True, check=False)
    if done.returncode:
        pytest.skip(f"this kernel does not mount it: {done.stderr.decode().strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@pytest.fixture(scope="module")
def btrfs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk that has reflinks."""
    yield from _mounted(tmp_path_factory.mktemp("btrfs"), ["mkfs.btrfs", "--quiet"], 160 << 20)


@pytest.fixture(scope="module", params=[["mkfs.vfat"], ["mkfs.exfat"]], ids=["FAT", "exFAT"])
def fat(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A disk that has no links of any kind."""
    yield from _mounted(tmp_path_factory.mktemp("fat"), request.param, 32 << 20)


def _flush(path: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())


def test_a_hard_link_is_the_same_file_and_leaves_it_as_it_is(source: Path, tmp_path: Path) -> None:
    before = source.stat()
    target = tmp_path / "blob"
    assert bring(source, target, ["hard link"]) == "hard link"
    after = source.stat()
    assert target.samefile(source)
    assert (after.st_mode, after.st_uid, after.st_gid) == (before.st_mode, before.st_uid, before.st_gid)
    assert (after.st_size, after.st_mtime_ns, after.st_nlink) == (before.st_size, before.st_mtime_ns, 2)


def test_a_reflink_is_a_file_of_its_own_with_the_same_blocks(btrfs: Path) -> None:
    source, target = btrfs / "model.gguf", btrfs / "blob"
    source.write_bytes(BYTES * 64)
    source.chmod(0o440)
    os.chown(source, 1234, 1234)
    before = source.stat()
    _flush(source)
    used = shutil.disk_usage(btrfs).used
    assert bring(source, target) == "reflink"
    _flush(target)
    assert shutil.disk_usage(btrfs).used - used < len(BYTES) * 32
    assert not target.samefile(source)
    assert target.read_bytes() == BYTES * 64
    with target.open("r+b") as file:
        file.write(b"other")
    assert source.read_bytes() == BYTES * 64
    after = source.stat()
    assert (after.st_mode, after.st_uid, after.st_nlink) == (before.st_mode, 1234, 1)
    assert (target.stat().st_uid, stat.S_IMODE(target.stat().st_mode)) == (os.geteuid(), 0o600)


def test_where_a_reflink_is_not_possible_nothing_is_left_of_the_attempt(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> int:
        raise OSError(95, "Operation not supported")

    if not hasattr(linking, "fcntl"):
        pytest.skip("no reflinks on this system")
    monkeypatch.setattr(linking.fcntl, "ioctl", refuse)
    assert bring(source, tmp_path / "blob", ["reflink"]) is None
    assert not (tmp_path / "blob").exists()
    assert bring(source, tmp_path / "blob") == "hard link"


def test_another_disk_cannot_be_linked_to(source: Path) -> None:
    if not os.access("/dev/shm", os.W_OK) or Path("/dev/shm").stat().st_dev == source.stat().st_dev:
        pytest.skip("needs a second disk at /dev/shm")
    with tempfile.TemporaryDirectory(dir="/dev/shm") as folder:
        assert bring(source, Path(folder, "blob")) is None
        assert list(Path(folder).iterdir()) == []


def test_a_disk_without_links_gets_none(fat: Path) -> None:
    source = fat / "model.gguf"
    source.write_bytes(BYTES)
    assert bring(source, fat / "blob") is None
    assert [path.name for path in fat.iterdir()] == ["model.gguf"]


def test_a_file_of_somebody_else_that_the_system_protects_is_not_linked_to() -> None:
    protected = Path("/proc/sys/fs/protected_hardlinks")
    if not protected.exists() or protected.read_text().strip() != "1" or os.geteuid() != 0:
        pytest.skip("needs Linux, root, and fs.protected_hardlinks")
    with tempfile.TemporaryDirectory(prefix="protected-") as name:
        folder = Path(name)
        folder.chmod(0o777)
        source = folder / "model.gguf"
        source.write_bytes(BYTES)
        source.chmod(0o444)
        os.seteuid(65534)
        try:
            assert bring(source, folder / "blob", ["hard link"]) is None
        finally:
            os.seteuid(0)
        assert not (folder / "blob").exists()


def test_of_a_link_the_file_is_meant_that_it_leads_to(source: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.gguf"
    link.symlink_to("model.gguf")
    assert bring(link, tmp_path / "blob", ["hard link"]) == "hard link"
    assert not (tmp_path / "blob").is_symlink()
    assert (tmp_path / "blob").samefile(source)


def _folder(path: Path) -> None:
    path.mkdir()


def _circle(path: Path) -> None:
    path.symlink_to(path.name)


def _device(path: Path) -> None:
    path.symlink_to("/dev/zero")


@pytest.mark.parametrize("make", [_folder, os.mkfifo, _circle, _device])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, make: Callable[[Path], None]) -> None:
    make(tmp_path / "odd")
    with pytest.raises(ModelFileError, match="odd"):
        bring(tmp_path / "odd", tmp_path / "blob")
    assert not (tmp_path / "blob").exists()


@pytest.mark.parametrize("name", ["none", "none/none"])
def test_what_is_not_there_is_not_found(tmp_path: Path, name: str) -> None:
    with pytest.raises(ModelNotFound, match="none"):
        bring(tmp_path / name, tmp_path / "blob")


@pytest.mark.parametrize("way", linking.WAYS)
def test_a_target_that_is_there_is_never_touched(source: Path, tmp_path: Path, way: linking.Way) -> None:
    target = tmp_path / "blob"
    target.write_bytes(b"mine")
    with pytest.raises(StoreError, match="there already"):
        bring(source, target, [way])
    assert target.read_bytes() == b"mine"
    assert source.read_bytes() == BYTES


def test_a_file_that_takes_the_place_of_the_source_meanwhile_is_not_taken_for_it(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def exchange(_descriptor: int, file: Path, target: Path) -> bool:
        (tmp_path / "other").write_bytes(BYTES)
        (tmp_path / "other").replace(file)
        os.link(file, target)
        return True

    monkeypatch.setitem(linking._MAKERS, "hard link", exchange)
    with pytest.raises(StoreError, match="changed"):
        bring(source, tmp_path / "blob", ["hard link"])
    assert not (tmp_path / "blob").exists()


def test_a_source_that_grows_meanwhile_is_not_taken(
    source: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def grow(_descriptor: int, file: Path, target: Path) -> bool:
        os.link(file, target)
        with file.open("ab") as growing:
            growing.write(b"more")
        return True

    monkeypatch.setitem(linking._MAKERS, "hard link", grow)
    with pytest.raises(StoreError, match="changed"):
        bring(source, tmp_path / "blob", ["hard link"])
    assert not (tmp_path / "blob").exists()
