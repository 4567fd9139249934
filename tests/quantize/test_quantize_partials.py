"""Files that appear only when they are complete, and what is never replaced."""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from localai.errors import LocalAIError, NoSpace, QuantizeError, UsageError
from quantize import partials
from quantize.client import Wanted, run
from quantize.partials import Partial
from quantize.protocol import Job
from tests.quantize.doing import convert
from tests.quantize.making import NANO, make_checkpoint, names_in

NEW, OLD = b"the new one", b"the old one"


@pytest.fixture(params=["unnamed", "named"])
def kind(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Both ways in which files are kept until they are complete."""
    if request.param == "named":
        monkeypatch.setattr(Partial, "_open_unnamed", lambda self: -1)
    return str(request.param)


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name")
def test_an_incomplete_file_has_no_name(tmp_path: Path) -> None:
    with Partial(tmp_path / "x", overwrite=False) as partial:
        os.write(partial.fd, NEW)
        assert names_in(tmp_path) == []
        assert partial.path.read_bytes() == NEW
    assert names_in(tmp_path) == []


@pytest.mark.parametrize("existing", [False, True])
def test_a_file_appears_when_it_is_committed(tmp_path: Path, kind: str, existing: bool) -> None:
    output = tmp_path / "x"
    if existing:
        output.write_bytes(OLD)
    with Partial(output, overwrite=existing) as partial:
        os.write(partial.fd, NEW)
        assert partial.path.read_bytes() == NEW
        assert (output.read_bytes() == OLD) if existing else not output.exists()
        partial.commit()
        assert output.read_bytes() == NEW
    assert names_in(tmp_path) == ["x"]
    umask = os.umask(0)
    os.umask(umask)
    assert stat.S_IMODE(output.stat().st_mode) == 0o666 & ~umask


@pytest.mark.parametrize("overwrite", [False, True])
def test_what_is_not_committed_goes_away(tmp_path: Path, kind: str, overwrite: bool) -> None:
    output = tmp_path / "x"
    if overwrite:
        output.write_bytes(OLD)
    with pytest.raises(KeyboardInterrupt), Partial(output, overwrite=overwrite) as partial:
        assert len(names_in(tmp_path)) == (kind == "named") + overwrite
        raise KeyboardInterrupt
    assert partial.fd == -1
    assert names_in(tmp_path) == (["x"] if overwrite else [])


def test_what_appears_meanwhile_is_kept(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "x"
    with (
        pytest.raises((QuantizeError, UsageError), match=r"appeared while|is there already"),
        Partial(output, overwrite=False) as partial,
    ):
        output.write_bytes(OLD)
        partial.commit()
    assert output.read_bytes() == OLD
    assert names_in(tmp_path) == ["x"]


@pytest.mark.skipif(not hasattr(os, "O_TMPFILE"), reason="only Linux has files without a name")
def test_what_appears_in_the_last_moment_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After the last look: the file gets its name by a link, which replaces nothing."""
    output = tmp_path / "x"
    monkeypatch.setattr(partials, "require_target", lambda *_: None)
    with (
        pytest.raises(QuantizeError, match="appeared while it was being made"),
        Partial(output, overwrite=False) as partial,
    ):
        output.write_bytes(OLD)
        partial.commit()
    assert output.read_bytes() == OLD


def test_a_link_that_appears_meanwhile_is_not_followed(tmp_path: Path, kind: str) -> None:
    output = tmp_path / "x"
    (tmp_path / "file").write_bytes(OLD)
    with (
        pytest.raises(UsageError, match="is a symbolic link, which is never replaced"),
        Partial(output, overwrite=True) as partial,
    ):
        output.symlink_to(tmp_path / "file")
        partial.commit()
    assert (tmp_path / "file").read_bytes() == OLD
    assert names_in(tmp_path) == ["file", "x"]


def test_a_folder_that_vanishes(tmp_path: Path, kind: str) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    with (
        pytest.raises(LocalAIError, match=r"cannot write .*folder/x: No such file|there is no folder"),
        Partial(folder / "x", overwrite=False) as partial,
    ):
        shutil.rmtree(folder)
        partial.commit()
    assert not folder.exists()


def test_a_rename_that_fails_leaves_nothing(
    tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    output = tmp_path / "x"
    output.write_bytes(OLD)
    with pytest.raises(NoSpace, match="not enough room"), Partial(output, overwrite=True) as partial:
        monkeypatch.setattr(Path, "replace", fail)
        partial.commit()
    assert output.read_bytes() == OLD
    assert names_in(tmp_path) == ["x"]


def test_a_disk_that_cannot_flush_folders(tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Some network and FAT disks; the file is in its place."""
    real = os.fsync

    def fsync(fd: int) -> None:
        if stat.S_ISDIR(os.fstat(fd).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        real(fd)

    monkeypatch.setattr(os, "fsync", fsync)
    with Partial(tmp_path / "x", overwrite=False) as partial:
        partial.commit()
    assert names_in(tmp_path) == ["x"]


@pytest.mark.parametrize("number", [errno.EOPNOTSUPP, errno.EISDIR, errno.EINVAL])
def test_a_disk_that_knows_only_files_with_names(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    real = os.open

    def open_(path: os.PathLike[str] | str, flags: int, *rest: int, **options) -> int:
        if flags & getattr(os, "O_TMPFILE", 0) == getattr(os, "O_TMPFILE", -1):
            raise OSError(number, os.strerror(number))
        return real(path, flags, *rest, **options)

    monkeypatch.setattr(os, "open", open_)
    with Partial(tmp_path / "x", overwrite=False) as partial:
        assert names_in(tmp_path) == [f".x.partial-{os.getpid()}"]
        partial.commit()
    assert names_in(tmp_path) == ["x"]


# ------------------------------------------------------------------------------------------ what is stale


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_removed(tmp_path: Path, kind: str) -> None:
    stale = tmp_path / f".x.partial-{dead_pid()}"
    living = tmp_path / f".x.partial-{os.getppid()}"
    of_another = tmp_path / ".y.partial-1"
    reused = tmp_path / f".x.partial-{psutil.Process().parents()[-1].pid}"
    for path in (stale, living, of_another, reused):
        path.write_bytes(b"x")
    os.utime(reused, (1, 1))  # older than the process that now has its number
    with Partial(tmp_path / "x", overwrite=False) as partial:
        partial.commit()
    kept = {living.name, of_another.name, "x"} - {reused.name}
    assert set(names_in(tmp_path)) == kept


# --------------------------------------------------------------------------------- what is never replaced


def attempt(source: Path, output: Path, overwrite: bool = True, imatrix: str = "") -> None:
    run(Job(str(source), imatrix=imatrix), [Wanted("BF16", output)], overwrite=overwrite, load=False)


def test_an_existing_output_is_kept_unless_asked(tmp_path: Path) -> None:
    output = tmp_path / "x.gguf"
    output.write_bytes(OLD)
    with pytest.raises(UsageError, match=r"is there already.*--overwrite"):
        attempt(NANO, output, overwrite=False)
    assert output.read_bytes() == OLD
    attempt(NANO, output)
    assert output.read_bytes()[:4] == b"GGUF"


def test_an_impossible_target(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(OLD)
    with pytest.raises(UsageError, match="there is no folder"):
        attempt(NANO, tmp_path / "nowhere" / "x.gguf")
    with pytest.raises(UsageError, match="there is no folder"):
        attempt(NANO, tmp_path / "file" / "x.gguf")
    with pytest.raises(UsageError, match="is a folder"):
        attempt(NANO, tmp_path)
    with pytest.raises(QuantizeError, match=r"cannot write .*: File name too long") as caught:
        attempt(NANO, tmp_path / ("x" * 300))
    assert caught.value.hint
    assert names_in(tmp_path) == ["file"]


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="only Linux has a /proc that nobody can write to")
def test_a_folder_that_cannot_be_written_to(kind: str) -> None:
    """Also for root, other than one without the right to write."""
    with pytest.raises(QuantizeError, match=r"cannot write /proc/x\.gguf: ") as caught:
        attempt(NANO, Path("/proc/x.gguf"))
    assert "rights" in caught.value.hint


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["m/model.safetensors", "m/config.json", "m/tokenizer.json", "hub/blob", "other/model.gguf"]
)
def test_the_checkpoint_itself_is_never_replaced(tmp_path: Path, name: str, overwrite: bool) -> None:
    folder = tmp_path / "m"
    make_checkpoint(folder)
    for place, original in (
        ("hub/blob", "generation_config.json"),
        ("other/model.gguf", "model.safetensors"),
    ):
        (tmp_path / place).parent.mkdir()
        (folder / original).rename(tmp_path / place)  # as the cache of the hub has it
        (folder / original).symlink_to(tmp_path / place)
    before = contents(folder)
    (tmp_path / "link").symlink_to(folder)
    for source in (folder, tmp_path / "link"):
        target = tmp_path / name
        if target.is_symlink():
            target = target.resolve()
        with pytest.raises(UsageError, match="a file of the model that is read"):
            attempt(source, target, overwrite)
    assert contents(folder) == before


def test_a_gguf_that_is_read_is_never_replaced(tmp_path: Path) -> None:
    """Neither the file, nor another name of it, nor a further part of the model, nor the imatrix."""
    parts = [tmp_path / f"m-{number:05}-of-00002.gguf" for number in (1, 2)]
    convert(NANO, parts[0])
    parts[1].write_bytes(OLD)
    (tmp_path / "same.gguf").hardlink_to(parts[0])
    imatrix = tmp_path / "imatrix.gguf"
    imatrix.write_bytes(OLD)
    before = contents(tmp_path)
    for output in (*parts, tmp_path / "same.gguf", imatrix):
        with pytest.raises(UsageError, match="a file of the model that is read"):
            attempt(parts[0], output, imatrix=str(imatrix))
    assert contents(tmp_path) == before


def test_a_gguf_file_beside_the_weights_may_be_replaced(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")
    output = tmp_path / "m" / "old.gguf"
    output.write_bytes(OLD)
    attempt(tmp_path / "m", output)
    assert output.read_bytes()[:4] == b"GGUF"


def device(path: Path) -> None:
    """/dev/null under another name: only root may make a device."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this user may not make devices")


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):  # a short name
        one.bind(path.name)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a device": device,
    "a named pipe": os.mkfifo,
    "a socket": socket_at,
    "a symbolic link": lambda path: path.symlink_to(path.with_name("file")),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("what", [*SPECIAL, "a symbolic link to nothing"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, what: str, overwrite: bool) -> None:
    output = tmp_path / "x.gguf"
    what, _, nothing = what.partition(" to ")
    if not nothing:
        (tmp_path / "file").write_bytes(b"kept")
    SPECIAL[what](output)
    before = output.lstat()
    with pytest.raises(UsageError, match=f"is {what}, which is never replaced"):
        attempt(NANO, output, overwrite)
    assert os.path.samestat(before, output.lstat())
    assert nothing or (tmp_path / "file").read_bytes() == b"kept"
    assert names_in(tmp_path) == (["x.gguf"] if nothing else ["file", "x.gguf"])


def test_undone_it_leaves_nothing_unless_it_replaced(tmp_path: Path, kind: str) -> None:
    new, old = tmp_path / "new", tmp_path / "old"
    old.write_bytes(OLD)
    with Partial(new, overwrite=True) as first, Partial(old, overwrite=True) as second:
        for partial in (first, second):
            partial.commit()
            partial.undo()
    assert names_in(tmp_path) == ["old"]
    assert old.read_bytes() == b""
