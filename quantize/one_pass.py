"""Reads the weights once, from beginning to end, and writes every output along the way.

This thread reads and hashes the files; a pool of threads makes of each piece (some rows of a tensor) what
each output wants of it, and writes it to its place. Pieces wait in a short queue, so that memory stays
bounded however large the model is.
"""

from __future__ import annotations

import hashlib
import math
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from localai.engine import quants
from localai.errors import CheckpointError, QuantizeError
from models.ggml_types import TENSOR_TYPES
from quantize import floats
from quantize.imatrix import ImportanceMatrix
from quantize.output_file import OutputFile, errors_about
from quantize.plan import Output, importance_of
from quantize.safetensors import FLOATS, StoredTensor
from quantize.source import FLOAT_TYPES, Source, Tensor

PIECE_WEIGHTS = 512 * 1024
"""About how many weights are worked on at a time, in one thread."""

_FLOATS = {int(kind) for kind in FLOAT_TYPES.values()}
_LARGEST = 1e9
"""More than a block of any type can hold: a scale in F16 times a scale and a value of 8 bits."""

OnPiece = Callable[[str, int], None]
"""Called with a tensor's name and the bytes of weight files read since the last call."""


@dataclass(frozen=True)
class Sink:
    """An output and the open file that it goes to."""

    output: Output
    file: OutputFile


def run(
    source: Source,
    sinks: Sequence[Sink],
    importance: ImportanceMatrix | None,
    threads: int,
    on_piece: OnPiece,
    *,
    hash_inputs: bool,
) -> dict[str, str]:
    """Write all of `sinks`; with `hash_inputs`, the sha256 of each weight file of `source`, by its path.

    QuantizeError for weights that are no finite numbers or do not fit a type, CheckpointError if a file
    changes meanwhile, OSError as the system says. The files that `sinks` go to are then of no use.
    """
    works = [_Work(tensor, sinks, importance) for tensor in source.tensors]
    quants.prepare({number for sink in sinks for number in sink.output.types.values()})
    for sink in sinks:
        sink.file.begin()
    for work in works:
        if work.tensor.values is not None:
            work.do(0, work.tensor.values)
    by_file: dict[Path, list[_Work]] = {path: [] for path in source.weight_files}
    for work in works:
        if work.tensor.stored is not None:
            by_file[work.tensor.stored.file].append(work)
    hashes = {}
    with _Pool(threads) as pool:
        for path, there in _in_order(by_file, sinks[0].output):
            digest = hashlib.sha256() if hash_inputs else None
            with errors_about(path):
                _read(path, there, pool, on_piece, digest)
            if digest is not None:
                hashes[str(path)] = digest.hexdigest()
    return {str(path): hashes[str(path)] for path in source.weight_files if str(path) in hashes}


def _in_order(by_file: dict[Path, list[_Work]], output: Output) -> list[tuple[Path, list[_Work]]]:
    """The files in the order in which their tensors begin in `output`, so that it is complete from its
    beginning on.

    The last of several often has the output matrix, which comes first in a quantized file.
    """
    position = {name: number for number, name in enumerate(output.types)}
    return sorted(
        by_file.items(),
        key=lambda item: min((position[work.tensor.name] for work in item[1]), default=len(position)),
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


class _Work:
    """What is to be done with one tensor."""

    def __init__(self, tensor: Tensor, sinks: Sequence[Sink], importance: ImportanceMatrix | None) -> None:
        self.tensor = tensor
        self._parts = [
            _Part(
                sink.file,
                sink.output.types[tensor.name],
                sink.output.direct,
                importance_for(tensor, sink.output, importance),
            )
            for sink in sinks
        ]

    def do(self, start: int, rows: NDArray[Any]) -> None:
        """Write `rows` of the tensor, from the row `start` on: floats of its own type, or blocks as bytes."""
        tensor, base = self.tensor, int(self.tensor.base)
        dtype = tensor.stored.dtype if tensor.stored else "F32"
        stored = GGMLQuantizationType[dtype]
        self._require_finite(rows, stored)
        if tensor.head_rows:
            rows = floats.interleave_heads(rows, tensor.head_rows)
        based = wide = None
        for part in self._parts:
            if part.direct and part.type in _FLOATS:
                data = floats.convert(rows, dtype, GGMLQuantizationType(part.type))
            else:
                if based is None:
                    based = rows if stored == base else floats.convert(rows, dtype, tensor.base)
                    self._require_range(based, base, stored)
                if part.type == base:
                    data = based
                else:
                    wide = _wide(based, base, tensor) if wide is None else wide
                    if _is_too_large(wide, part.type):
                        raise self._beyond(part.type)
                    data = quants.quantize_rows(part.type, wide, part.importance)
            self._require_range(data, part.type, stored)
            offset = tensor.bytes_as(part.type) // tensor.shape[0] * start
            part.file.write(tensor.name, offset, _bytes(data).data)

    def _require_range(self, data: NDArray[Any], number: int, stored: int) -> None:
        """Whether `data` of the type `number` is still finite after it was made of the type `stored`."""
        if number != stored and not quants.are_finite(number, _bytes(data)):
            raise self._beyond(number)

    def _beyond(self, number: int) -> QuantizeError:
        kind = TENSOR_TYPES[number].name
        return QuantizeError(
            f"the tensor {self._called} has values beyond the range of {kind}", "Use BF16 or F32 instead"
        )

    def _require_finite(self, rows: NDArray[Any], kind: GGMLQuantizationType) -> None:
        if not quants.are_finite(int(kind), _bytes(rows)):
            raise QuantizeError(
                f"the tensor {self._called} holds a value that is not a finite number",
                "The model is damaged, or was published so: fetch it again",
            )

    @property
    def _called(self) -> str:
        stored = self.tensor.stored
        return f"{stored.name!r} in {stored.file}" if stored else repr(self.tensor.name)


@dataclass(frozen=True, slots=True)
class _Part:
    """What one output wants of one tensor."""

    file: OutputFile
    type: int
    direct: bool
    importance: NDArray[np.float32] | None


def importance_for(
    tensor: Tensor, output: Output, importance: ImportanceMatrix | None
) -> NDArray[np.float32] | None:
    """The importance of the columns of `tensor` in `output`; QuantizeError if it is missing but needed."""
    number = output.types[tensor.name]
    if number == tensor.base or (output.direct and number in _FLOATS):
        return None
    return importance_of(tensor, number, output.file_type, importance)


def _bytes(data: NDArray[Any]) -> NDArray[np.uint8]:
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


def _wide(rows: NDArray[Any], base: int, tensor: Tensor) -> NDArray[np.float32]:
    """`rows` as F32 (n, columns)."""
    columns = tensor.shape[-1]
    return quants.dequantize_rows(base, _bytes(rows).reshape(-1, quants.row_bytes(base, columns)), columns)


def _is_too_large(wide: NDArray[np.float32], number: int) -> bool:
    """Whether no blocks can hold these values; ggml's sums over their squares would be infinite unseen."""
    return number not in _FLOATS and max(wide.max(), -wide.min()) > _LARGEST


def _read(path: Path, works: list[_Work], pool: _Pool, on_piece: OnPiece, digest: Any) -> None:
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
