"""Reads the weights once, from beginning to end, and writes every output along the way.

Threads make of each piece (some rows of a tensor) what each output wants of it, and write it to its place
(`quantize.weight_files`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from localai.engine import quants
from quantize import floats, weight_files, weights
from quantize.imatrix import ImportanceMatrix
from quantize.output_file import OutputFile
from quantize.plan import Output, importance_of
from quantize.source import Source, Tensor
from quantize.weight_files import OnPiece


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
    order = list(sinks[0].output.types)
    return weight_files.read(source, works, order, threads, on_piece, hash_inputs=hash_inputs)


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
        tensor = self.tensor
        rows = weights.checked(tensor, rows)
        based = wide = None
        for part in self._parts:
            if part.direct and part.type in weights.FLOATS:
                data = floats.convert(rows, weights.stored_type(tensor).name, GGMLQuantizationType(part.type))
            else:
                based = weights.based(tensor, rows) if based is None else based
                if part.type == tensor.base:
                    data = based
                else:
                    wide = weights.wide(tensor, based) if wide is None else wide
                    weights.require_fit(tensor, wide, part.type)
                    data = quants.quantize_rows(part.type, wide, part.importance)
            weights.require_range(tensor, data, part.type)
            offset = tensor.bytes_as(part.type) // tensor.shape[0] * start
            part.file.write(tensor.name, offset, weights.as_bytes(data).data)


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
    if number == tensor.base or (output.direct and number in weights.FLOATS):
        return None
    return importance_of(tensor, number, output.file_type, importance, output.name)
