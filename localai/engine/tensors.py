"""Tensors of llama.cpp's compute graph, as its evaluation callback hands them over: ggml's own structure.

Sources: ggml.h and ggml-backend.h of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import ctypes
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from localai.engine.bindings import ggml
from localai.errors import EngineError

_MOST_OPERATIONS = 64
_OBJECT_BYTES = 32
"""What `ggml_tensor_overhead` counts besides the tensor."""


class Tensor(ctypes.Structure):
    """ggml_tensor."""


Tensor._fields_ = (
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


def name_of(tensor: Tensor) -> str:
    """The tensor's name in the file: "CUDA0#blk.0.attn_k.weight#0" is a copy on another device."""
    parts = tensor.name.decode("utf-8", "replace").split("#")
    return str(parts[1] if len(parts) > 1 else parts[0])


def values_of(address: int) -> NDArray[np.float32]:
    """The numbers of an F32 tensor, one row after the other; to be used before llama.cpp goes on."""
    tensor = Tensor.from_address(address)
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


def replace(address: int, data: NDArray[np.uint8]) -> None:
    """Put `data`, the bytes of all its rows, into a tensor; OverflowError unless it has as many."""
    tensor = Tensor.from_address(address)
    if data.nbytes != tensor.nb[1] * tensor.ne[1] or tensor.ne[2] * tensor.ne[3] != 1:
        raise OverflowError(f"{data.nbytes} bytes for {name_of(tensor)}")
    ggml().ggml_backend_tensor_set(address, data.ctypes.data, 0, data.nbytes)


def rows_of(address: int) -> NDArray[np.uint8]:
    """A copy of the bytes of a matrix, one row after the other."""
    tensor = Tensor.from_address(address)
    data = np.empty((tensor.ne[1], tensor.nb[1]), np.uint8)
    ggml().ggml_backend_tensor_get(address, data.ctypes.data, 0, data.nbytes)
    return data


@cache
def operation(name: str) -> int:
    """ggml's number of an operation. EngineError if this ggml has other tensors than are described here."""
    library = ggml()
    if library.ggml_tensor_overhead() != ctypes.sizeof(Tensor) + _OBJECT_BYTES:
        raise EngineError(
            "this llama.cpp has tensors of another form", "Run `make clean install` in the repository"
        )
    return next(i for i in range(_MOST_OPERATIONS) if library.ggml_op_name(i) == name.encode())
