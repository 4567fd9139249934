"""Reads weight files once, from beginning to end, and hands their tensors, in pieces, to threads.

This thread reads and hashes; a pool of threads does the work on each piece (some rows of a tensor). Pieces
wait in a short queue, so that memory stays bounded however large the model is.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, BinaryIO, Protocol

import numpy as np
from numpy.typing import NDArray

from localai.errors import CheckpointError
from quantize.output_file import errors_about
from quantize.safetensors import FLOATS, StoredTensor
from quantize.source import Source, Tensor

PIECE_WEIGHTS = 512 * 1024
"""About how many weights are worked on at a time, in one thread."""

OnPiece = Callable[[str, int], None]
"""Called with a tensor's name and the bytes of weight files read since the last call."""


class Work(Protocol):
    """What is to be done with one tensor."""

    @property
    def tensor(self) -> Tensor: ...

    def do(self, start: int, rows: NDArray[Any]) -> None:
        """Do it with `rows`, from the row `start` on, as they are stored; called from any thread."""


def read(
    source: Source,
    works: Iterable[Work],
    order: Sequence[str],
    threads: int,
    on_piece: OnPiece,
    *,
    hash_inputs: bool = False,
) -> dict[str, str]:
    """Do all `works` on the tensors of `source`; with `hash_inputs`, the sha256 of each file, by its path.

    Files are read in the order in which their tensors first appear in `order`. CheckpointError if a file
    changes meanwhile, OSError as the system says, and whatever a piece raises, after which none is begun.
    """
    by_file: dict[Path, list[Work]] = {path: [] for path in source.weight_files}
    for work in works:
        if work.tensor.stored is not None:
            by_file[work.tensor.stored.file].append(work)
        elif work.tensor.values is not None:
            work.do(0, work.tensor.values)
    hashes = {}
    with _Pool(threads) as pool:
        for path, there in _in_order(by_file, order):
            digest = hashlib.sha256() if hash_inputs else None
            with errors_about(path):
                _read(path, there, pool, on_piece, digest)
            if digest is not None:
                hashes[str(path)] = digest.hexdigest()
    return {str(path): hashes[str(path)] for path in source.weight_files if str(path) in hashes}


def _in_order(by_file: Mapping[Path, list[Work]], order: Sequence[str]) -> list[tuple[Path, list[Work]]]:
    """The files as their tensors begin in `order`, so that an output is complete from its beginning on.

    The last of several often has the output matrix, which comes first in a quantized file.
    """
    position = {name: number for number, name in enumerate(order)}
    last = len(position)
    return sorted(
        by_file.items(),
        key=lambda item: min((position.get(work.tensor.name, last) for work in item[1]), default=last),
    )


class _Pool:
    """Threads with a short queue. The first error of a piece ends the run; leaving waits for the rest."""

    def __init__(self, threads: int) -> None:
        self._executor = ThreadPoolExecutor(threads, "rows")
        self._room = threading.BoundedSemaphore(2 * threads + 1)
        self._error: BaseException | None = None

    def __enter__(self) -> _Pool:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        self._executor.shutdown(wait=True, cancel_futures=kind is not None)
        if kind is None:
            self._raise()

    def submit(self, work: Callable[..., None], *arguments: Any) -> None:
        """Have `work` done as soon as there is room for it."""
        self._room.acquire()
        self._raise()
        self._executor.submit(work, *arguments).add_done_callback(self._done)

    def _done(self, future: Future[None]) -> None:
        if not future.cancelled() and self._error is None:
            self._error = future.exception()
        self._room.release()

    def _raise(self) -> None:
        if self._error is not None:
            raise self._error


def _read(path: Path, works: list[Work], pool: _Pool, on_piece: OnPiece, digest: Any) -> None:
    """Hand the tensors of one file to the pool, and all bytes, each read once, to `digest` if there is
    one."""
    with path.open("rb", buffering=0) as file:
        at = 0
        for work in sorted(works, key=lambda work: work.tensor.stored.offset if work.tensor.stored else 0):
            stored = work.tensor.stored
            assert stored is not None
            _skip(file, stored.offset - at, digest, path)
            for start, rows in _pieces(file, stored, work.tensor.head_rows):
                raw = rows.reshape(-1).view(np.uint8)
                if digest is not None:
                    digest.update(raw.data)
                pool.submit(work.do, start, rows)
                on_piece(work.tensor.name, raw.nbytes)
            at = stored.offset + stored.nbytes
        _skip(file, os.fstat(file.fileno()).st_size - at, digest, path)


def _skip(file: BinaryIO, count: int, digest: Any, path: Path) -> None:
    """Read past what is not converted: headers, padding, tensors that GGUF has not."""
    if digest is None:
        file.seek(max(0, count), os.SEEK_CUR)
        return
    while count > 0:
        data = file.read(min(count, 1 << 20))
        if not data:
            raise _changed(path)
        digest.update(data)
        count -= len(data)


def _pieces(file: BinaryIO, stored: StoredTensor, head_rows: int) -> Iterator[tuple[int, NDArray[Any]]]:
    """The tensor's rows, some at a time, each with the number of its first row; whole heads where they
    count."""
    item = FLOATS.get(stored.dtype)
    # A vector of blocks, which nobody makes, is one row: its numbers have no bytes of their own.
    shape = stored.shape if item or len(stored.shape) > 1 else (1, *stored.shape)
    count, columns = shape[0], math.prod(shape[1:])
    row_bytes = stored.nbytes // count
    step = max(1, PIECE_WEIGHTS // columns)
    if head_rows:
        step = math.ceil(step / head_rows) * head_rows
    for start in range(0, count, step):
        number = min(step, count - start)
        raw = np.empty(number * row_bytes, np.uint8)
        _fill(file, raw, stored.file)
        yield (
            start,
            raw.view(item).reshape(number, *shape[1:]) if item else raw.reshape(number, row_bytes),
        )


def _fill(file: BinaryIO, buffer: NDArray[np.uint8], path: Path) -> None:
    view = buffer.data
    while view:
        count = file.readinto(view)  # type: ignore[attr-defined]
        if not count:
            raise _changed(path)
        view = view[count:]


def _changed(path: Path) -> CheckpointError:
    return CheckpointError(f"{path} became shorter while it was read", "Let nothing else write to it")
