"""Some rows of a tensor on their way from the file to a type: checked, at the source's precision, as F32."""

from __future__ import annotations

from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from localai.engine import quants
from localai.errors import QuantizeError
from models.ggml_types import TENSOR_TYPES
from quantize import floats
from quantize.source import FLOAT_TYPES, Tensor

FLOATS = {int(kind) for kind in FLOAT_TYPES.values()}
"""ggml's numbers of the types that are not quantized."""

_LARGEST = 1e9
"""More than a block of any type can hold: a scale in F16 times a scale and a value of 8 bits."""


def stored_type(tensor: Tensor) -> GGMLQuantizationType:
    """The type that `tensor` has where it is read from."""
    return GGMLQuantizationType[tensor.stored.dtype if tensor.stored else "F32"]


def checked(tensor: Tensor, rows: NDArray[Any]) -> NDArray[Any]:
    """`rows` as they are stored, in GGUF's order; QuantizeError if one holds no finite number."""
    if not quants.are_finite(int(stored_type(tensor)), as_bytes(rows)):
        raise QuantizeError(
            f"the tensor {_called(tensor)} holds a value that is not a finite number",
            "The model is damaged, or was published so: fetch it again",
        )
    return floats.interleave_heads(rows, tensor.head_rows) if tensor.head_rows else rows


def based(tensor: Tensor, rows: NDArray[Any]) -> NDArray[Any]:
    """What `checked` gave in the source's own precision, which quantized types are made from."""
    stored = stored_type(tensor)
    if stored == tensor.base:
        return rows
    data = floats.convert(rows, stored.name, tensor.base)
    require_range(tensor, data, int(tensor.base))
    return data


def wide(tensor: Tensor, rows: NDArray[Any]) -> NDArray[np.float32]:
    """What `based` gave as F32 (n, columns)."""
    columns, base = tensor.shape[-1], int(tensor.base)
    return quants.dequantize_rows(base, as_bytes(rows).reshape(-1, quants.row_bytes(base, columns)), columns)


def require_range(tensor: Tensor, data: NDArray[Any], number: int) -> None:
    """QuantizeError unless `data` is still finite after it was made of rows of `tensor`, as type `number`."""
    if number != stored_type(tensor) and not quants.are_finite(number, as_bytes(data)):
        raise _beyond(tensor, number)


def require_fit(tensor: Tensor, rows: NDArray[np.float32], number: int) -> None:
    """QuantizeError if no blocks can hold `rows`; ggml's sums over their squares would be infinite unseen."""
    if number not in FLOATS and max(rows.max(), -rows.min()) > _LARGEST:
        raise _beyond(tensor, number)


def as_bytes(data: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of `data`, in C order."""
    return np.ascontiguousarray(data).reshape(-1).view(np.uint8)


def _beyond(tensor: Tensor, number: int) -> QuantizeError:
    kind = TENSOR_TYPES[number].name
    return QuantizeError(
        f"the tensor {_called(tensor)} has values beyond the range of {kind}", "Use BF16 or F32 instead"
    )


def _called(tensor: Tensor) -> str:
    stored = tensor.stored
    return f"{stored.name!r} in {stored.file}" if stored else repr(tensor.name)
