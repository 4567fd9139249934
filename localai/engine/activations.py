"""How strongly each column of each matrix is used where a model reads a text: for importance matrices.

llama.cpp calls us for each operation that it computes. Of each multiplication with a matrix of a layer, we
add up the squares of what the matrix is multiplied with, column by column, as llama-imatrix does; without the
output matrix, as that does unless told otherwise. The text is read in pieces, each for itself, that begin
with the token that begins texts. All logits are asked for: else llama.cpp leaves rows out of the last layer.

Sources: tools/imatrix/imatrix.cpp, ggml.h and ggml-backend.h of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from localai.engine import protocol
from localai.engine.bindings import bindings, ggml
from localai.engine.context import Aborted, AbortFlag, Context, ContextSettings
from localai.engine.llama import Model
from localai.engine.threads import ThreadGovernor
from localai.errors import EngineError, UnsupportedModel, UsageError

LEAST_CHUNK: Final = 32
"""Tokens of the smallest piece of text; llama.cpp's tool, and so this one, passes over less than 16 rows."""
BATCH: Final = 128
"""Tokens that are evaluated at once. More are no quicker here, and each takes memory for all its logits."""

_LEAST_ROWS = 16
_F32 = 0
_MOST_OPERATIONS = 64
_OBJECT_BYTES = 32
"""What `ggml_tensor_overhead` counts besides the tensor."""


class _Tensor(ctypes.Structure):
    """ggml_tensor."""


_Tensor._fields_ = (
    ("type", ctypes.c_int),
    ("buffer", ctypes.c_void_p),
    ("ne", ctypes.c_int64 * 4),
    ("nb", ctypes.c_size_t * 4),
    ("op", ctypes.c_int),
    ("op_params", ctypes.c_int32 * 16),
    ("flags", ctypes.c_int32),
    ("src", ctypes.c_void_p * 10),
    ("view_src", ctypes.c_void_p),
    ("view_offs", ctypes.c_size_t),
    ("data", ctypes.c_void_p),
    ("name", ctypes.c_char * 64),
    ("extra", ctypes.c_void_p),
    ("padding", ctypes.c_char * 8),
)


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
        self._multiply = _operation("MUL_MAT")
        self._route = _operation("MUL_MAT_ID")
        self._error: Exception | None = None
        self.callback = bindings().ggml_backend_sched_eval_callback(self._called)

    def check(self) -> None:
        """Raise what went wrong while llama.cpp computed, through which no exception passes."""
        if self._error is not None:
            raise self._error

    def _called(self, address: int, ask: bool, _data: Any) -> bool:
        """Whether the operation's result is wanted; or, when it is there, whether to go on."""
        try:
            tensor = _Tensor.from_address(address)
            if ask:
                return self._wants(tensor)
            self._take(tensor)
        except Exception as error:  # noqa: BLE001 - it would end in C: `check` raises it
            self._error = error
        return self._error is None

    def _wants(self, tensor: _Tensor) -> bool:
        if tensor.op == self._route:
            raise UnsupportedModel(
                "the model is a mixture of experts, for which no importance matrix is made here",
                "Make it with llama-imatrix",
            )
        if tensor.op != self._multiply or self._error is not None:
            return False
        given = _Tensor.from_address(tensor.src[1])
        if given.type != _F32 or given.ne[1] < _LEAST_ROWS:
            return False
        return _name(_Tensor.from_address(tensor.src[0])).startswith("blk.")

    def _take(self, tensor: _Tensor) -> None:
        matrix = _Tensor.from_address(tensor.src[0])
        name, given = _name(matrix), _values(tensor.src[1])
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


def _name(tensor: _Tensor) -> str:
    """The tensor's name in the file: "CUDA0#blk.0.attn_k.weight#0" is a copy on another device."""
    parts = tensor.name.decode("utf-8", "replace").split("#")
    return str(parts[1] if len(parts) > 1 else parts[0])


def _values(address: int) -> NDArray[np.float32]:
    """The numbers of an F32 tensor, one row after the other; to be used before llama.cpp goes on."""
    tensor = _Tensor.from_address(address)
    columns, rows = tensor.ne[0], tensor.ne[1] * tensor.ne[2] * tensor.ne[3]
    shape, strides = tuple(reversed(tensor.ne)), tuple(reversed(tensor.nb))
    size = strides[0] * (shape[0] - 1) + sum(s * (n - 1) for s, n in zip(strides[1:], shape[1:], strict=True))
    if ggml().ggml_backend_buffer_is_host(tensor.buffer):
        buffer: Any = (ctypes.c_char * (size + 4)).from_address(tensor.data)
    else:
        buffer = bytearray(size + 4)
        place = (ctypes.c_char * (size + 4)).from_buffer(buffer)
        ggml().ggml_backend_tensor_get(address, ctypes.addressof(place), 0, size + 4)
    return np.ndarray(shape, np.float32, buffer, strides=strides).reshape(rows, columns)


@cache
def _operation(name: str) -> int:
    """ggml's number of an operation. EngineError if this ggml has other tensors than are described here."""
    library = ggml()
    if library.ggml_tensor_overhead() != ctypes.sizeof(_Tensor) + _OBJECT_BYTES:
        raise EngineError(
            "this llama.cpp has tensors of another form", "Run `make clean install` in the repository"
        )
    return next(i for i in range(_MOST_OPERATIONS) if library.ggml_op_name(i) == name.encode())
