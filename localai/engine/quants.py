"""llama.cpp's quantizer, in pieces: which type each tensor of a file gets, and the bytes of some rows.

The types are asked of `llama_model_quantize` itself, as a dry run over a file that has a header and no data.
(llama-ext.h has `llama_quant_compute_types` for it, but that answers as if there were no importance matrix,
knows the special rule for 80 layers in one architecture only, and its C++ names vary by compiler.) The bytes
come from `ggml_quantize_chunk`, row by row the same that llama-quantize writes. ctypes releases the
interpreter lock in all of these calls, so threads run them side by side.

Source: llama.h, ggml.h, and src/llama-quant.cpp for the wording of the dry run.
"""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localai.engine.bindings import because, bindings, captured_log, ggml, log_tail
from localai.errors import QuantizeError
from models.ggml_types import TENSOR_TYPES

_LINE = re.compile(
    rb"^\[ *\d+/ *\d+\] (\S+) +- \[[^\]]*\], type = +(\w+), size = [^\n(]*(?:\((\w+)\))?$", re.M
)
_NUMBERS = {block.name: number for number, block in TENSOR_TYPES.items()}
_F32 = _NUMBERS["F32"]


@dataclass(frozen=True)
class Recipe:
    """How a file is to be quantized; the words are llama-quantize's options. Types are ggml's numbers."""

    file_type: int
    """A number of llama.cpp's `llama_ftype`."""
    pure: bool = False
    output_type: int | None = None
    embedding_type: int | None = None
    tensor_types: tuple[tuple[str, int], ...] = ()
    """Regular expressions for names of tensors, and the type of those that match; the first match counts."""


@dataclass(frozen=True)
class TypePlan:
    """What llama-quantize would write: the type of each tensor, in the order in which it writes them."""

    types: dict[str, int]
    needs_importance: bool
    """Whether it would ask for an importance matrix that it was not given."""


def plan_types(model: Path, recipe: Recipe, importance: Mapping[str, NDArray[np.float32]]) -> TypePlan:
    """The types that llama-quantize would give the tensors of `model`, a GGUF file whose data is not read.

    Raises QuantizeError with llama.cpp's reason if it would refuse, such as for a malformed expression.
    """
    api = bindings()
    parameters = api.llama_model_quantize_default_params()
    parameters.ftype = recipe.file_type
    parameters.dry_run = True
    parameters.allow_requantize = True
    parameters.pure = recipe.pure
    if recipe.output_type is not None:
        parameters.output_tensor_type = recipe.output_type
    if recipe.embedding_type is not None:
        parameters.token_embedding_type = recipe.embedding_type
    overrides = _overrides(api, recipe)
    parameters.tt_overrides = overrides
    entries = _importance_array(api, importance)
    parameters.imatrix = entries
    log_tail.clear()
    with captured_log() as pieces:
        code = api.llama_model_quantize(os.fsencode(model), b"", ctypes.byref(parameters))
    if code != 0:
        raise QuantizeError(f"llama.cpp cannot plan the types of the tensors{because()}")
    text = b"".join(pieces)
    return TypePlan(_types_in(text), b"will require an imatrix" in text)


def _overrides(api: Any, recipe: Recipe) -> Any:
    if not recipe.tensor_types:
        return None
    array = (api.llama_model_tensor_override * (len(recipe.tensor_types) + 1))()
    for entry, (pattern, number) in zip(array, recipe.tensor_types, strict=False):
        entry.pattern, entry.type = pattern.encode(), number
    return array


def _importance_array(api: Any, importance: Mapping[str, NDArray[np.float32]]) -> Any:
    """llama.cpp's form of it; it holds pointers into `importance`, which must live as long."""
    if not importance:
        return None
    array = (api.llama_model_imatrix_data * (len(importance) + 1))()
    for entry, (name, values) in zip(array, importance.items(), strict=False):
        entry.name, entry.size = name.encode(), values.size
        entry.data = values.ctypes.data_as(ctypes.POINTER(ctypes.c_float))
    return array


def _types_in(log: bytes) -> dict[str, int]:
    """From the lines "[ 1/ 9] NAME - [SHAPE], type = OLD, size = ... (NEW)"; no NEW where it stays as it
    is."""
    types = {}
    for name, old, new in _LINE.findall(log):
        number = _NUMBERS.get((new or old).decode().upper())
        if number is None:
            raise QuantizeError(
                f"llama.cpp plans the unknown type {(new or old).decode()} for {name.decode()}"
            )
        types[name.decode()] = number
    return types


def prepare(types: set[int]) -> None:
    """Make the tables that quantizing to `types` needs. Call it before threads do."""
    for number in types:
        ggml().ggml_quantize_init(number)


def requires_importance(number: int) -> bool:
    """Whether ggml cannot make rows of this type at all without an importance matrix."""
    return bool(ggml().ggml_quantize_requires_imatrix(number))


def row_bytes(number: int, columns: int) -> int:
    """Bytes of a row of `columns` numbers in the type `number`, whose blocks must divide it."""
    block = TENSOR_TYPES[number]
    return columns // block.elements * block.size


def quantize_rows(
    number: int, rows: NDArray[np.float32], importance: NDArray[np.float32] | None
) -> NDArray[np.uint8]:
    """`rows` (n, columns; C order) in the type `number`: (n, bytes of a row).

    `importance` has one weight for each column.
    """
    count, columns = rows.shape
    assert rows.flags.c_contiguous
    result = np.empty((count, row_bytes(number, columns)), np.uint8)
    weights = None if importance is None else importance.ctypes.data
    ggml().ggml_quantize_chunk(number, rows.ctypes.data, result.ctypes.data, 0, count, columns, weights)
    return result


def dequantize_rows(number: int, rows: NDArray[np.uint8], columns: int) -> NDArray[np.float32]:
    """`rows` (n, bytes of a row) of the type `number`, float or quantized, as F32 (n, columns)."""
    if number == _F32:
        return rows.view("<f4").reshape(len(rows), columns)
    result = np.empty((len(rows), columns), np.float32)
    assert rows.flags.c_contiguous
    _to_float(number)(rows.ctypes.data, result.ctypes.data, result.size)
    return result


def are_finite(number: int, rows: NDArray[np.uint8]) -> bool:
    """Whether `rows` of the type `number` hold neither NaN nor infinity, also not as the scale of a block."""
    return bool(ggml().ggml_validate_row_data(number, rows.ctypes.data, rows.nbytes))


class _Traits(ctypes.Structure):
    _fields_ = (
        ("type_name", ctypes.c_char_p),
        ("blck_size", ctypes.c_int64),
        ("blck_size_interleave", ctypes.c_int64),
        ("type_size", ctypes.c_size_t),
        ("is_quantized", ctypes.c_bool),
        ("to_float", ctypes.c_void_p),
        ("from_float_ref", ctypes.c_void_p),
    )


@cache
def _to_float(number: int) -> Any:
    traits = _Traits.from_address(ggml().ggml_get_type_traits(number))
    block = TENSOR_TYPES[number]
    if (traits.blck_size, traits.type_size) != (block.elements, block.size) or not traits.to_float:
        raise QuantizeError(f"llama.cpp cannot read weights of type {block.name}")
    return ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(traits.to_float)
