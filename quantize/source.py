"""What is quantized, whatever it was read from: the tensors of a model and its metadata."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType
from numpy.typing import NDArray

from models.ggml_types import TENSOR_TYPES
from quantize.gguf_file import Metadata
from quantize.safetensors import StoredTensor

FLOAT_TYPES = {
    "F32": GGMLQuantizationType.F32,
    "F16": GGMLQuantizationType.F16,
    "BF16": GGMLQuantizationType.BF16,
}
"""The file types that are not quantized, and the type of their matrices."""


@dataclass(frozen=True, slots=True)
class Tensor:
    """A tensor of the model. `shape` has rows first; its data is `stored` somewhere, or `values`.

    `base` is its type in a GGUF at the source's own precision, which quantized types are made from.
    `head_rows`: if not 0, each such block of rows is one head, and its halves are interleaved in GGUF.
    """

    name: str
    shape: tuple[int, ...]
    base: GGMLQuantizationType
    stored: StoredTensor | None = None
    head_rows: int = 0
    values: NDArray[np.float32] | None = None

    @property
    def weights(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)

    def bytes_as(self, number: int) -> int:
        """Bytes of its data in ggml's type `number`."""
        block = TENSOR_TYPES[number]
        return self.weights // block.elements * block.size


@dataclass(frozen=True)
class Source:
    """A model to be quantized; `tensors` and `metadata` are those of a GGUF at its own precision."""

    path: Path
    architecture: str
    tensors: list[Tensor]
    metadata: Metadata
    weight_files: tuple[Path, ...]
    """The files with the tensors, in the order in which they are read."""
    small_files: tuple[Path, ...]
    """Other files that went into the metadata."""
    is_gguf: bool

    @property
    def weights(self) -> int:
        """How many numbers all tensors hold."""
        return sum(tensor.weights for tensor in self.tensors)

    @property
    def nbytes(self) -> int:
        """Bytes of the weight files, which are read from beginning to end."""
        return sum(path.stat().st_size for path in self.weight_files)

    @property
    def is_quantized(self) -> bool:
        """Whether its weights have been quantized already."""
        return any(tensor.base.name not in FLOAT_TYPES for tensor in self.tensors)
