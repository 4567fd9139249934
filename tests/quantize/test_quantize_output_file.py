"""A file that is hashed while it is written: by several threads, in any order, and on a failing disk."""

from __future__ import annotations

import errno
import hashlib
import os
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest

from localai.errors import QuantizeError
from quantize import output_file
from quantize.gguf_file import Entry, Layout
from quantize.output_file import OutputFile

SHAPES = {"a": (40, 64), "b": (7,), "c": (3, 5), "d": (100, 32), "e": (1,)}
VALUES = {
    name: np.random.default_rng(3).standard_normal(shape).astype("<f4") for name, shape in SHAPES.items()
}
MADE = Path("made.gguf")
LAYOUT = Layout({}, [Entry(name, array.shape, 0, array.nbytes) for name, array in VALUES.items()])


@pytest.fixture
def fd(tmp_path: Path) -> Iterator[int]:
    handle = os.open(tmp_path / "x", os.O_RDWR | os.O_CREAT)
    yield handle
    os.close(handle)


def pieces(seed: int) -> list[tuple[str, int, bytes]]:
    """All of the data in some order, in pieces of 64 bytes at most."""
    found = []
    for name, array in VALUES.items():
        data = array.tobytes()
        found += [(name, at, data[at : at + 64]) for at in range(0, len(data), 64)]
    order = np.random.default_rng(seed).permutation(len(found))
    return [found[i] for i in order]


def expected() -> bytes:
    data = bytearray(LAYOUT.header().ljust(LAYOUT.nbytes, b"\0"))
    for name, array in VALUES.items():
        start = LAYOUT.offsets[name]
        data[start : start + array.nbytes] = array.tobytes()
    return bytes(data)


@pytest.mark.parametrize("seed", range(5))
def test_pieces_come_in_any_order_from_any_thread(
    tmp_path: Path, fd: int, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    monkeypatch.setattr(output_file, "_CHUNK", 100)
    monkeypatch.setattr(output_file, "_SYNC_EVERY", 2000)
    done: list[int] = []
    with OutputFile(fd, MADE, LAYOUT) as file:
        file.begin()
        with ThreadPoolExecutor(4) as pool:
            for name, offset, data in pieces(seed):
                pool.submit(file.write, name, offset, memoryview(data))
        digest = file.finish(done.append)
    assert (tmp_path / "x").read_bytes() == expected()
    assert digest == hashlib.sha256(expected()).hexdigest()
    assert done == sorted(done)
    assert all(count <= LAYOUT.nbytes for count in done)


@pytest.mark.parametrize("begun", [False, True])
def test_what_is_left_early_ends_its_thread(fd: int, begun: bool) -> None:
    before = threading.active_count()
    with pytest.raises(KeyboardInterrupt), OutputFile(fd, MADE, LAYOUT) as file:
        if begun:
            file.begin()
            file.write("d", 0, memoryview(VALUES["d"].tobytes()))
        raise KeyboardInterrupt
    assert threading.active_count() == before


def test_a_disk_that_fails_while_it_is_flushed(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: int) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(output_file, "_SYNC_EVERY", 1)
    monkeypatch.setattr(os, "fdatasync", fail, raising=False)
    with (
        pytest.raises(OSError, match="Input/output error"),
        OutputFile(fd, MADE, LAYOUT) as file,
    ):
        file.begin()
        for name, offset, data in pieces(0):
            file.write(name, offset, memoryview(data))
        file.finish(lambda done: None)


def test_a_file_that_shrinks_by_itself(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    with (
        pytest.raises(QuantizeError, match="became shorter by itself"),
        OutputFile(fd, MADE, LAYOUT) as file,
    ):
        file.begin()
        for name, offset, data in pieces(0)[:-1]:
            file.write(name, offset, memoryview(data))
        monkeypatch.setattr(os, "pread", lambda *_: b"")
        name, offset, data = pieces(0)[-1]
        file.write(name, offset, memoryview(data))
        file.finish(lambda done: None)


def test_reads_may_be_short(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.pread
    monkeypatch.setattr(os, "pread", lambda fd, count, offset: real(fd, min(count, 33), offset))
    with OutputFile(fd, MADE, LAYOUT) as file:
        file.begin()
        for name, array in VALUES.items():
            file.write(name, 0, memoryview(array.tobytes()))
        assert file.finish(lambda done: None) == hashlib.sha256(expected()).hexdigest()


def test_a_tensor_that_was_not_written(fd: int) -> None:
    with OutputFile(fd, MADE, LAYOUT) as file:
        file.begin()
        with pytest.raises(QuantizeError, match=r"the tensor '\w+' of made\.gguf was not written"):
            file.finish(lambda done: None)


def test_a_tensor_that_comes_twice(fd: int) -> None:
    entry = LAYOUT.entries[0]
    with OutputFile(fd, MADE, LAYOUT) as file:
        file.begin()
        file.write(entry.name, 0, memoryview(bytes(entry.nbytes)))
        with pytest.raises(QuantizeError, match="came twice"):
            file.write(entry.name, 0, memoryview(bytes(entry.nbytes)))


def test_errors_name_the_file(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def failing(*_: object) -> int:
        raise OSError(errno.EIO, "Input/output error")

    with OutputFile(fd, MADE, LAYOUT) as file:
        file.begin()
        monkeypatch.setattr(os, "pwrite", failing)
        with pytest.raises(OSError, match=r"made\.gguf"):
            file.write(LAYOUT.entries[0].name, 0, memoryview(b"x"))


def test_a_failing_disk_ends_the_work_early(fd: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """What the settling thread runs into is told by the next write, not after hours of work."""
    failed = threading.Event()

    def failing(*_: object) -> bytes:
        failed.set()
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "pread", failing)
    with OutputFile(fd, MADE, LAYOUT) as file:
        file.begin()
        assert failed.wait(30)
        file._thread.join(30)
        with pytest.raises(OSError, match="Input/output error"):
            file.write(LAYOUT.entries[0].name, 0, memoryview(b"x"))
