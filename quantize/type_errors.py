"""What a matrix loses by a type: how far its weights are from what is read back; all types in one reading.

The error of a type is the sum of h_j (w_ij - q_ij)^2 over the sum of h_j w_ij^2, where q is what becomes of
w, and h_j is how important column j is: what the importance matrix says of it, or 1. It is 0 for what stays
as it is. Of two matrices whose outputs matter equally, that with the larger error does more harm.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localai.engine import quants
from models.ggml_types import TENSOR_TYPES, WRITABLE
from quantize import weight_files, weights
from quantize.gguf_file import padded
from quantize.imatrix import ImportanceMatrix
from quantize.plan import importance_of, needs_importance
from quantize.protocol import Errors
from quantize.source import Source, Tensor
from quantize.weight_files import OnPiece

_F32 = WRITABLE["F32"]
_LARGEST = 1e15
"""What `Errors` can tell; a matrix that loses so much is lost."""


def measure(
    source: Source,
    matrices: Collection[str],
    types: Sequence[int],
    importance: ImportanceMatrix | None,
    threads: int,
    on_piece: OnPiece,
    *,
    rows: int = 0,
) -> Iterator[Errors]:
    """Read `source` once; what each of its tensors called in `matrices` loses by each of ggml's `types`.

    In the order of `matrices`. Left out is what a tensor cannot be: blocks that do not divide its columns,
    and types that need an importance that is not there. `rows`: see `Job.error_rows`. Raises as
    `one_pass.run` does, and as `importance_of` for an importance matrix of another model.
    """
    wanted = [number for number in dict.fromkeys(types) if number in WRITABLE.values()]
    tensors = {tensor.name: tensor for tensor in source.tensors}
    works = [_Work(tensors[name], wanted, importance, rows) for name in matrices]
    quants.prepare({number for work in works for number in work.types})
    weight_files.read(source, works, list(matrices), threads, on_piece)
    return (work.found() for work in works)


class _Work:
    """What is to be done with one tensor."""

    def __init__(
        self, tensor: Tensor, types: Sequence[int], importance: ImportanceMatrix | None, rows: int
    ) -> None:
        self.tensor = tensor
        self._importance = importance_of(tensor, _F32, "", importance)
        self.types = [number for number in types if self._can_be(number)]
        self._step = max(1, tensor.shape[0] // rows) if rows else 1
        self._sums: dict[int, _Sums] = {}

    def _can_be(self, number: int) -> bool:
        if self.tensor.shape[-1] % TENSOR_TYPES[number].elements:
            return False
        return self._importance is not None or not needs_importance(self.tensor.name, number)

    def do(self, start: int, rows: NDArray[Any]) -> None:
        """Add what becomes of `rows`; their sums are kept apart, so that the order does not matter."""
        tensor = self.tensor
        based = weights.based(tensor, weights.checked(tensor, rows))
        wide = np.ascontiguousarray(weights.wide(tensor, based)[-start % self._step :: self._step])
        if len(wide):
            changes = {number: self._change(wide, number) for number in self.types}
            self._sums[start] = _Sums(_weighted(wide, self._importance), changes)

    def _change(self, wide: NDArray[np.float32], number: int) -> float:
        """The weighted squares of what changes where `wide` becomes the type `number`."""
        if number == self.tensor.base:
            return 0.0
        weights.require_fit(self.tensor, wide, number)
        data = quants.quantize_rows(number, wide, self._importance)
        weights.require_range(self.tensor, data, number)
        back = quants.dequantize_rows(number, data, wide.shape[1])
        back -= wide
        return _weighted(back, self._importance)

    def found(self) -> Errors:
        """All together, once everything was read."""
        sums = [self._sums[start] for start in sorted(self._sums)]
        whole = math.fsum(one.whole for one in sums)
        errors = {number: math.fsum(one.changes[number] for one in sums) for number in self.types}
        return Errors(
            tensor=self.tensor.name,
            weights=self.tensor.weights,
            errors={number: _ratio(change, whole) for number, change in errors.items()},
            sizes={number: padded(self.tensor.bytes_as(number)) for number in self.types},
        )


@dataclass(frozen=True, slots=True)
class _Sums:
    """Of some rows: the weighted squares of all weights, and of what changes by type."""

    whole: float
    changes: dict[int, float]


def _weighted(values: NDArray[np.float32], importance: NDArray[np.float32] | None) -> float:
    """The sum of the squares of `values` (n, columns), each times the importance of its column."""
    squares = np.einsum("ij,ij->j", values, values, dtype=np.float64)
    return float(squares.sum() if importance is None else squares @ importance.astype(np.float64))


def _ratio(change: float, whole: float) -> float:
    if not change:
        return 0.0
    return min(change / whole, _LARGEST) if whole else _LARGEST
