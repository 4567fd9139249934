"""Between the float types of weights, and llama.cpp's order of rows within a head."""

from __future__ import annotations

from typing import Any

import numpy as np
from gguf import GGMLQuantizationType
from gguf.quants import quantize
from numpy.typing import NDArray

_STORED_AS = {
    "BF16": GGMLQuantizationType.BF16,
    "F16": GGMLQuantizationType.F16,
    "F32": GGMLQuantizationType.F32,
}


def convert(values: NDArray[Any], dtype: str, target: GGMLQuantizationType) -> NDArray[Any]:
    """`values` of the checkpoint type `dtype` (BF16 as its bits) as `target`, in the same shape.

    What is too large for `target` becomes infinite.
    """
    if _STORED_AS[dtype] == target:
        return values
    wide = widen(values, dtype)
    if target == GGMLQuantizationType.F32:
        return wide
    if target == GGMLQuantizationType.BF16:
        return quantize(wide, target).view(np.uint16)
    with np.errstate(over="ignore"):
        return wide.astype(np.float16)


def widen(values: NDArray[Any], dtype: str) -> NDArray[np.float32]:
    """As F32, exactly."""
    if dtype == "BF16":
        bits = values.astype(np.uint32)
        np.left_shift(bits, 16, out=bits)
        return bits.view(np.float32)
    return values.astype(np.float32)


def interleave_heads(rows: NDArray[Any], head_rows: int) -> NDArray[Any]:
    """`rows` (whole heads of `head_rows` each) with the two halves of each head interleaved.

    The checkpoint's rotary embedding pairs row i with row i + head_rows / 2; llama.cpp's, for the llama
    architecture, pairs neighbours: out[2 i] = in[i], out[2 i + 1] = in[i + head_rows / 2].
    """
    halves = rows.reshape(-1, 2, head_rows // 2, *rows.shape[1:])
    return halves.swapaxes(1, 2).reshape(rows.shape)
