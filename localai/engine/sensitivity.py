"""How much a model loses if some of its matrices are of other types, without making another file.

The model reads a text as it is, and what it foretells is kept. Then some matrices lose in memory what they
would lose in another type: they are quantized, and what can be read back from that is put in their place, in
the type of the file. The model reads the same text again, and the KL divergence says how far it has come from
itself. Then the matrices are put back. Compared with a file of these types, only the rounding of what the
matrices are multiplied with is left out.

Where the weights lie is told by llama.cpp's evaluation callback: what a matrix is multiplied with, or what
rows are taken from.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import Any, Final, NamedTuple, Self

import msgspec
import numpy as np
import psutil
from numpy.typing import NDArray

from localai.engine import protocol, quants, scores
from localai.engine.bindings import bindings
from localai.engine.context import AbortFlag, Context, ContextSettings
from localai.engine.evaluation import Piece, Reader, most_outputs, pieces
from localai.engine.llama import Model
from localai.engine.tensors import Tensor, name_of, operation, replace, rows_of
from localai.engine.threads import ThreadGovernor
from localai.errors import EngineError, UsageError
from models.ggml_types import TENSOR_TYPES

HELD_BYTES: Final = 512 << 20
"""Of the logits that are compared with. Where a text has more, only some of its positions count."""
_ROWS = 64
"""Rows of a matrix that one thread works on at a time."""
_BASES = {"F32", "F16", "BF16", "Q8_0"}


class _Kept(NamedTuple):
    """What the model itself foretells behind the tokens of one piece of the text."""

    chunk: int
    piece: Piece
    logits: NDArray[np.float32]
    """Of every `step`-th position."""


class Sensitivity:
    """Answers `Baseline` and `Perturb` for a model whose weights can be changed. Close it with the model."""

    def __init__(self, model: Model, settings: ContextSettings, abort: AbortFlag, *, pinned: bool) -> None:
        self._model, self._settings, self._abort = model, settings, abort
        self._pinned = pinned
        self._resources = ExitStack()
        self._places = _places(model, settings, abort)
        self._pool = self._resources.enter_context(ThreadPoolExecutor(settings.threads, "rows"))
        self._reader: Reader | None = None
        self._chunks: list[list[int]] = []
        self._kept: list[_Kept] = []
        self._step = 1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._resources.close()

    def answer(self, request: protocol.Baseline | protocol.Perturb) -> Iterator[protocol.Event]:
        """What is asked for; UsageError for a text that is too short, EngineError."""
        if isinstance(request, protocol.Baseline):
            yield from self._baseline(request)
        elif not self._kept:
            raise EngineError("there is nothing yet to compare with")
        else:
            yield from self._perturbed(request)

    # ------------------------------------------------------------------------------------------ the text

    def _baseline(self, request: protocol.Baseline) -> Iterator[protocol.Event]:
        size = request.chunk
        tokens = self._model.tokenize_document(request.text, special=request.special)
        if len(tokens) < size * request.chunks:
            raise UsageError(
                f"the text has {len(tokens):,} tokens, and {request.chunks} pieces of {size:,} are wanted",
                "Give a longer text, or let fewer or shorter pieces be read",
            )
        self._chunks = [tokens[start * size : (start + 1) * size] for start in range(request.chunks)]
        counted = request.chunks * (size - size // 2)
        self._step = max(1, -(-counted * self._model.vocabulary * 4 // HELD_BYTES))
        self._kept = []
        self._reader = self._reader_for(size)
        for number, piece, logits in self._read():
            self._kept.append(_Kept(number, piece, logits.copy()))
            yield protocol.EvaluateProgress(request.id, number * size + piece.end)
        memory = int(psutil.Process().memory_info().rss)
        yield protocol.BaselineKept(request.id, sum(len(kept.logits) for kept in self._kept), memory)

    def _reader_for(self, size: int) -> Reader:
        outputs = most_outputs(self._model, self._settings.batch)
        settings = msgspec.structs.replace(self._settings, size=size, sequences=1, outputs=outputs)
        context = self._resources.enter_context(Context(self._model, settings, self._abort))
        governor = ThreadGovernor(settings.threads, context.set_threads, fixed=self._pinned)
        return Reader(self._model, context, governor)

    def _read(self) -> Iterator[tuple[int, Piece, NDArray[np.float32]]]:
        """The logits of every `step`-th position that counts, piece by piece, until the next is read."""
        assert self._reader is not None
        batch, outputs = self._settings.batch, most_outputs(self._model, self._settings.batch)
        for number, chunk in enumerate(self._chunks):
            for piece in pieces(len(chunk), batch, outputs):
                logits = self._reader.read(chunk, piece)
                if piece.counts:
                    known = len(chunk[piece.start + 1 : piece.end + 1])
                    yield number, piece, logits[:known][:: self._step]

    # -------------------------------------------------------------------------------------- the matrices

    def _perturbed(self, request: protocol.Perturb) -> Iterator[protocol.Event]:
        divergences = []
        with ExitStack() as changed:
            quants.prepare({matrix.type for matrix in request.matrices})
            for matrix in request.matrices:
                place = self._place(matrix)
                rows = rows_of(place)
                changed.callback(replace, place, rows)
                replace(place, self._worse(place, rows, matrix))
            for kept, (_, _, logits) in zip(self._kept, self._read(), strict=True):
                divergences.append(_divergence(kept, logits, self._chunks[kept.chunk], self._step))
                yield protocol.EvaluateProgress(request.id, kept.piece.end)
        found = np.concatenate(divergences)
        if not np.isfinite(found).all():
            raise EngineError("with other matrices the model computes what is no number")
        error = float(found.std() / np.sqrt(max(len(found) - 1, 1)))
        yield protocol.Perturbed(request.id, float(found.mean()), error)

    def _place(self, matrix: protocol.Matrix) -> int:
        place = self._places.get(matrix.name)
        if place is None or matrix.type not in TENSOR_TYPES:
            raise EngineError(f"the model multiplies with no matrix {matrix.name!r} that can be changed")
        return place

    def _worse(self, place: int, rows: NDArray[np.uint8], matrix: protocol.Matrix) -> NDArray[np.uint8]:
        """`rows` of the matrix with what is left of them in its other type."""
        tensor = Tensor.from_address(place)
        base, columns = int(tensor.type), int(tensor.ne[0])
        importance = np.frombuffer(matrix.importance, "<f4") if matrix.importance else None
        if columns % TENSOR_TYPES[matrix.type].elements or (
            importance is not None and len(importance) != columns
        ):
            raise EngineError(
                f"{matrix.name} has {columns} columns, which do not suit its type or importance"
            )

        def work(start: int) -> None:
            some = np.ascontiguousarray(rows[start : start + _ROWS])
            wide = quants.dequantize_rows(base, some, columns)
            made = quants.quantize_rows(matrix.type, wide, importance)
            left = quants.dequantize_rows(matrix.type, made, columns)
            result[start : start + _ROWS] = quants.quantize_rows(base, left, None)

        result = np.empty_like(rows)
        list(self._pool.map(work, range(0, len(rows), _ROWS)))
        return result


def _divergence(kept: _Kept, logits: NDArray[np.float32], chunk: Sequence[int], step: int) -> Any:
    came = np.array(chunk[kept.piece.start + 1 : kept.piece.end + 1], np.int64)[::step]
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        return scores.compared(logits, kept.logits, came).kl


def _places(model: Model, settings: ContextSettings, abort: AbortFlag) -> dict[str, int]:
    """Where the matrices of `model` are, by name: those that rows are taken from, or that are multiplied."""
    found: dict[str, int] = {}
    wanted = operation("MUL_MAT"), operation("GET_ROWS")

    def called(address: int, _ask: bool, _data: Any) -> bool:
        tensor = Tensor.from_address(address)
        if tensor.op in wanted:
            matrix = Tensor.from_address(tensor.src[0])
            if TENSOR_TYPES[matrix.type].name in _BASES and b"#" not in matrix.name:
                found[name_of(matrix)] = tensor.src[0]
        return False

    callback = bindings().ggml_backend_sched_eval_callback(called)
    small = msgspec.structs.replace(settings, size=256, sequences=1, batch=min(settings.batch, 32))
    with Context(model, small, abort, callback) as context:
        context.add(0, 0, [0, 0], 1)
        context.evaluate()
    return {name: place for name, place in found.items() if name.endswith(".weight")}
