"""Writes a GGUF of float tensors piece by piece, and checks that a file holds the planned tensors."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from io import BufferedWriter
from pathlib import Path
from typing import Any

import numpy as np
from gguf import GGUF_DEFAULT_ALIGNMENT, GGUFWriter
from numpy.typing import NDArray

from localai.errors import LocalAIError, QuantizeError
from models.gguf import read_header
from quantize import floats
from quantize.plan import PlannedTensor

PIECE_BYTES = 32 * 1024 * 1024
"""About how much of a tensor is in memory at a time, as it stands in the checkpoint."""

OnTensor = Callable[[str, int], None]
"""Called with a tensor's name and the bytes written since the last call."""


def write(path: Path, writer: GGUFWriter, planned: list[PlannedTensor], on_tensor: OnTensor) -> None:
    """Write the file at `path`: the metadata that `writer` has collected, then the tensors in order."""
    for tensor in planned:
        dtype = np.dtype(np.float16)  # of no account: the type given is what is written
        writer.add_tensor_info(tensor.name, tensor.shape, dtype, tensor.nbytes, raw_dtype=tensor.type)
    try:
        writer.write_header_to_file(path)
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        assert writer.fout is not None
        (file,) = writer.fout
        for tensor in planned:
            _pad(file)
            for piece in _pieces(tensor):
                file.write(np.ascontiguousarray(piece).reshape(-1).view(np.uint8).data)
                on_tensor(tensor.name, piece.nbytes)
        _pad(file)
    finally:
        writer.close()


def _pad(file: BufferedWriter) -> None:
    file.write(bytes(-file.tell() % GGUF_DEFAULT_ALIGNMENT))


def _pieces(tensor: PlannedTensor) -> Iterator[NDArray[Any]]:
    """The tensor's data in its planned type, some rows at a time."""
    if tensor.values is not None:
        yield tensor.values
        return
    stored = tensor.stored
    assert stored is not None
    rows = stored.shape[0]
    step = max(1, PIECE_BYTES * rows // stored.nbytes)
    if tensor.head_rows:
        step = math.ceil(step / tensor.head_rows) * tensor.head_rows
    for start in range(0, rows, step):
        piece = stored.rows(start, min(rows, start + step))
        if tensor.head_rows:
            piece = floats.interleave_heads(piece, tensor.head_rows)
        yield floats.convert(piece, stored.dtype, tensor.type, stored.name)


def check(path: Path, planned: list[PlannedTensor]) -> None:
    """QuantizeError unless the file at `path` is a GGUF with every planned tensor in its planned shape."""
    try:
        header = read_header(path)
    except LocalAIError as error:
        raise QuantizeError(f"the file that was written is not sound: {error.message}") from error
    found = {tensor.name: tuple(reversed(tensor.shape)) for tensor in header.tensors}
    for tensor in planned:
        if found.pop(tensor.name, None) != tensor.shape:
            raise QuantizeError(f"the file that was written lacks the tensor {tensor.name!r}")
    if found:
        raise QuantizeError(f"the file that was written has the tensor {next(iter(found))!r} too many")
