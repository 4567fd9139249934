"""Importance matrices as files: the GGUF form, to the byte as llama-imatrix lays it out.

`quantize.imatrix` reads them. For each matrix of the model there are two tensors: the sums of squares of each
column, and how many numbers they were taken over.

Source: `save_imatrix` in tools/imatrix/imatrix.cpp of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np
from gguf import GGMLQuantizationType, GGUFValueType
from numpy.typing import NDArray

from quantize import gguf_file
from quantize.gguf_file import Entry, Layout
from quantize.partials import Partial, system_errors

_F32 = int(GGMLQuantizationType.F32)


@dataclass(frozen=True, slots=True, eq=False)
class Usage:
    """How strongly one matrix was used: for each column a sum of squares, of `rows` numbers each."""

    sums: NDArray[np.float64]
    rows: int


@dataclass(frozen=True, slots=True, eq=False)
class Collected:
    """How strongly the matrices of a model were used where it read a text."""

    dataset: str
    """What the text is called."""
    chunks: int
    chunk: int
    """Tokens of each chunk."""
    matrices: Mapping[str, Usage]
    """By name in GGUF."""


def encode(collected: Collected) -> bytes:
    """The file."""
    metadata = {
        "general.type": gguf_file.encoded("imatrix", GGUFValueType.STRING),
        "imatrix.datasets": gguf_file.encoded(
            [os.fsencode(collected.dataset)], GGUFValueType.ARRAY, GGUFValueType.STRING
        ),
        "imatrix.chunk_count": gguf_file.u32(collected.chunks),
        "imatrix.chunk_size": gguf_file.u32(collected.chunk),
    }
    tensors = dict(_tensors(collected))
    entries = [Entry(name, values.shape, _F32, values.nbytes) for name, values in tensors.items()]
    layout = Layout(metadata, entries)
    data = [values.tobytes().ljust(gguf_file.padded(values.nbytes), b"\0") for values in tensors.values()]
    return layout.header() + b"".join(data)


def _tensors(collected: Collected) -> Iterator[tuple[str, NDArray[np.float32]]]:
    for name, usage in sorted(collected.matrices.items()):
        yield f"{name}.in_sum2", usage.sums.astype("<f4")
        yield f"{name}.counts", np.array([usage.rows], "<f4")


def write(collected: Collected, partial: Partial) -> None:
    """Write it into `partial`, whose file is empty. NoSpace, QuantizeError."""
    rest = memoryview(encode(collected))
    with system_errors(partial.output):
        while rest:
            rest = rest[os.write(partial.fd, rest) :]
