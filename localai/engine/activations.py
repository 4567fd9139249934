"""How strongly each column of each matrix is used where a model reads a text: for importance matrices.

llama.cpp calls us for each operation that it computes. Of each multiplication with a matrix of a layer, we
add up the squares of what the matrix is multiplied with, column by column, as llama-imatrix does; without the
output matrix, as that does unless told otherwise. The text is read in pieces, each for itself, that begin
with the token that begins texts. All logits are asked for: else llama.cpp leaves rows out of the last layer.

Sources: tools/imatrix/imatrix.cpp, ggml.h and ggml-backend.h of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from localai.engine import protocol
from localai.engine.bindings import bindings
from localai.engine.context import Aborted, AbortFlag, Context, ContextSettings
from localai.engine.llama import Model
from localai.engine.tensors import Tensor, name_of, operation, values_of
from localai.engine.threads import ThreadGovernor
from localai.errors import EngineError, UnsupportedModel, UsageError

LEAST_CHUNK: Final = 32
"""Tokens of the smallest piece of text; llama.cpp's tool, and so this one, passes over less than 16 rows."""
BATCH: Final = 128
"""Tokens that are evaluated at once. More are no quicker here, and each takes memory for all its logits."""

_LEAST_ROWS = 16
_F32 = 0


def observe(
    model: Model, request: protocol.Observe, threads: int, abort: AbortFlag, *, pinned: bool
) -> Iterator[protocol.ObserveProgress | protocol.Activations | protocol.Observed]:
    """Answer `request`. UsageError if the text is too short, UnsupportedModel, EngineError.

    `pinned`: compute with so many `threads`, also where other programs want the cores.
    """
    size = request.chunk
    if size < LEAST_CHUNK:
        raise UsageError(f"pieces of {size} tokens are too short", f"Take {LEAST_CHUNK} or more")
    tokens = model.tokenize_document(request.text, special=request.special)
    if len(tokens) < 2 * size:
        raise UsageError(
            f"the text has {len(tokens):,} tokens, and two pieces of {size:,} are the least",
            "Give a longer text, or shorter pieces with --context",
        )
    count = min(request.chunks or len(tokens), len(tokens) // size)
    observer = _Observer()
    settings = ContextSettings(size=size, threads=threads, batch=min(BATCH, size), outputs=BATCH)
    with Context(model, settings, abort, observer.callback) as context:
        governor = ThreadGovernor(threads, context.set_threads, fixed=pinned)
        for number in range(count):
            piece = tokens[number * size : (number + 1) * size]
            if model.adds_bos:
                piece[0] = tokens[0]
            for done in _read(context, piece, observer, governor):
                yield protocol.ObserveProgress(request.id, number * size + done, count * size)
    for name, sums in sorted(observer.sums.items()):
        data = sums.astype("<f8").tobytes()
        yield protocol.Activations(request.id, name, data, observer.rows[name])
    yield protocol.Observed(request.id, count)


def _read(context: Context, piece: list[int], observer: _Observer, governor: ThreadGovernor) -> Iterator[int]:
    """Evaluate `piece` from an empty cache, in batches of about the same size; how much is done."""
    context.truncate(0, 0)
    batches = -(-len(piece) // context.batch)
    ends = [len(piece) * number // batches for number in range(1, batches + 1)]
    for start, end in zip([0, *ends], ends, strict=False):
        context.add(0, start, piece[start:end], end - start)
        governor.begin(float(end - start))
        try:
            context.evaluate()
        except Aborted:
            raise EngineError("the reading of the text was stopped") from None
        governor.end()
        observer.check()
        yield end


class _Observer:
    """Sums up. `callback` is what llama.cpp calls."""

    def __init__(self) -> None:
        self.sums: dict[str, NDArray[np.float64]] = {}
        """By name of the matrix, one sum for each column."""
        self.rows: dict[str, int] = {}
        self._multiply = operation("MUL_MAT")
        self._route = operation("MUL_MAT_ID")
        self._error: Exception | None = None
        self.callback = bindings().ggml_backend_sched_eval_callback(self._called)

    def check(self) -> None:
        """Raise what went wrong while llama.cpp computed, through which no exception passes."""
        if self._error is not None:
            raise self._error

    def _called(self, address: int, ask: bool, _data: Any) -> bool:
        """Whether the operation's result is wanted; or, when it is there, whether to go on."""
        try:
            tensor = Tensor.from_address(address)
            if ask:
                return self._wants(tensor)
            self._take(tensor)
        except Exception as error:  # noqa: BLE001 - it would end in C: `check` raises it
            self._error = error
        return self._error is None

    def _wants(self, tensor: Tensor) -> bool:
        if tensor.op == self._route:
            raise UnsupportedModel(
                "the model is a mixture of experts, for which no importance matrix is made here",
                "Make it with llama-imatrix",
            )
        if tensor.op != self._multiply or self._error is not None:
            return False
        given = Tensor.from_address(tensor.src[1])
        if given.type != _F32 or given.ne[1] < _LEAST_ROWS:
            return False
        return name_of(Tensor.from_address(tensor.src[0])).startswith("blk.")

    def _take(self, tensor: Tensor) -> None:
        matrix = Tensor.from_address(tensor.src[0])
        name, given = name_of(matrix), values_of(tensor.src[1])
        if matrix.ne[2] * matrix.ne[3] != 1:
            raise UnsupportedModel(
                f"{name} is more than one matrix, for which no importance matrix is made here",
                "Make it with llama-imatrix",
            )
        with np.errstate(over="ignore", invalid="ignore"):
            sums = np.einsum("ij,ij->j", given, given)
        if not np.isfinite(sums).all():
            raise EngineError(
                f"what the model computes before {name} is too large or no number",
                "Its weights are damaged: fetch or make the file again",
            )
        self.sums[name] = self.sums.get(name, 0.0) + sums.astype(np.float64)
        self.rows[name] = self.rows.get(name, 0) + len(given)
