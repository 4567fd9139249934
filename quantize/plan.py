"""What a conversion will write: which tensors, of which type, how large, and whether the disk takes it."""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from gguf import GGMLQuantizationType, LlamaFileType
from numpy.typing import NDArray

from localai.errors import CheckpointError, NoSpace, UnsupportedModel
from models.files import megabytes
from quantize.architectures.base import Config, Expected, Family
from quantize.checkpoint import Checkpoint
from quantize.safetensors import FLOATS, StoredTensor

FLOAT_TYPES = {
    "F32": (LlamaFileType.ALL_F32, GGMLQuantizationType.F32),
    "F16": (LlamaFileType.MOSTLY_F16, GGMLQuantizationType.F16),
    "BF16": (LlamaFileType.MOSTLY_BF16, GGMLQuantizationType.BF16),
}
_WEIGHT_BYTES = {GGMLQuantizationType.F32: 4, GGMLQuantizationType.F16: 2, GGMLQuantizationType.BF16: 2}

# Bits per weight of the layers' matrices, and of the output (or tied embedding), as llama.cpp mixes types.
_MIXED_BITS = {
    "Q8_0": (8.5, 8.5), "Q6_K": (6.5625, 6.5625), "Q5_K_M": (5.7, 6.5625), "Q5_K_S": (5.5, 6.5625),
    "Q5_0": (5.5, 6.5625), "Q5_1": (6.0, 6.5625), "Q4_K_M": (4.85, 6.5625), "Q4_K_S": (4.6, 6.5625),
    "Q4_0": (4.5, 6.5625), "Q4_1": (5.0, 6.5625), "Q3_K_L": (4.25, 6.5625), "Q3_K_M": (3.9, 6.5625),
    "Q3_K_S": (3.45, 6.5625), "Q2_K": (3.0, 6.5625),
}  # fmt: skip
_MARGIN = 1.03
_NARROW = 9.0  # bits, at most, where rows are no multiple of 256 and another type is fallen back to

FreeSpace = Callable[[Path], int]
"""Free bytes on the disk that holds a folder."""


@dataclass(frozen=True, slots=True)
class PlannedTensor:
    """A tensor of the GGUF with float weights. `shape` has rows first; its data is `stored`, or `values`."""

    name: str
    shape: tuple[int, ...]
    type: GGMLQuantizationType
    stored: StoredTensor | None = None
    head_rows: int = 0
    values: NDArray[np.float32] | None = None

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * _WEIGHT_BYTES[self.type]


def source_type(checkpoint: Checkpoint) -> str:
    """The float type of the checkpoint's matrices: of the first that has 16 bits, else F32."""
    matrices = (tensor.dtype for tensor in checkpoint.tensors.values() if len(tensor.shape) > 1)
    return next((dtype for dtype in matrices if dtype in {"BF16", "F16"}), "F32")


def plan_tensors(
    checkpoint: Checkpoint, family: Family, config: Config, float_type: str
) -> list[PlannedTensor]:
    """The tensors in the order in which they are written: generated ones, then as in the checkpoint.

    Matrices become `float_type`, vectors F32. CheckpointError if a tensor is missing, has another shape than
    the family gives it, or is not known to the family.
    """
    expected = {tensor.source: tensor for tensor in family.tensors(config)}
    missing = [t.source for t in expected.values() if not t.optional and t.source not in checkpoint.tensors]
    if missing:
        more = f" and {len(missing) - 1} more tensors" if len(missing) > 1 else ""
        raise CheckpointError(f"{checkpoint.folder} lacks the tensor {missing[0]!r}{more}", _OTHER_MODEL)
    matrix = FLOAT_TYPES[float_type][1]
    planned = [
        PlannedTensor(name, values.shape, GGMLQuantizationType.F32, values=values)
        for name, values in family.generated(config)
    ]
    for name, stored in checkpoint.tensors.items():
        if name in expected:
            planned.append(_planned(stored, expected[name], matrix))
        elif not _is_needless(name, config):
            raise CheckpointError(
                f"{stored.file} holds the tensor {name!r}, which the model has not", _OTHER_MODEL
            )
    return planned


def _planned(stored: StoredTensor, expected: Expected, matrix: GGMLQuantizationType) -> PlannedTensor:
    if stored.shape != expected.shape:
        raise CheckpointError(
            f"the tensor {stored.name!r} in {stored.file} has the shape {list(stored.shape)}, "
            f"but config.json asks for {list(expected.shape)}",
            _OTHER_MODEL,
        )
    if stored.dtype not in FLOATS:
        raise UnsupportedModel(
            f"the tensor {stored.name!r} in {stored.file} is of type {stored.dtype}, which is not converted",
            "Use a checkpoint in BF16, F16 or F32",
        )
    is_vector = len(expected.shape) == 1
    kind = GGMLQuantizationType.F32 if is_vector else matrix
    return PlannedTensor(expected.name, expected.shape, kind, stored, expected.head_rows)


def _is_needless(name: str, config: Config) -> bool:
    """Whether `name` is a buffer that old checkpoints hold, or the copy of a tied embedding."""
    buffers = (".attention.masked_bias", ".attention.bias", ".rotary_emb.inv_freq")
    return name.endswith(buffers) or (config.tie_word_embeddings and name == "lm_head.weight")


def float_bytes(planned: Iterable[PlannedTensor]) -> int:
    """Bytes of the tensors with float weights."""
    return sum(tensor.nbytes for tensor in planned)


def estimated_bytes(planned: list[PlannedTensor], type_name: str) -> int:
    """Bytes that the tensors will take as `type_name`: exact for float types, else a little high."""
    if type_name in FLOAT_TYPES:
        return float_bytes(planned)
    layers, output = _MIXED_BITS[type_name]
    last = "output.weight" if any(t.name == "output.weight" for t in planned) else "token_embd.weight"
    bits = 0.0
    for tensor in planned:
        weight_bits = output if tensor.name == last else layers
        if tensor.shape[-1] % 256:
            weight_bits = max(weight_bits, _NARROW)
        bits += math.prod(tensor.shape) * (weight_bits * _MARGIN if len(tensor.shape) > 1 else 32)
    return math.ceil(bits / 8)


def free_space(folder: Path) -> int:
    """Free bytes for this user on the disk of `folder`."""
    return shutil.disk_usage(folder).free


def require_space(folder: Path, needed: int, free: FreeSpace = free_space) -> None:
    """NoSpace if `folder` cannot take `needed` bytes."""
    available = free(folder)
    if needed > available:
        raise NoSpace(
            f"the disk at {_disk(folder)} has {megabytes(available)} free, "
            f"but the conversion needs {megabytes(needed)}",
            MAKE_SPACE,
        )


def _disk(folder: Path) -> Path:
    """Where the disk of `folder` is mounted: `folder` may be a temporary one that the user never named."""
    disk = folder.resolve()
    while not os.path.ismount(disk) and disk != disk.parent:
        disk = disk.parent
    return disk


MAKE_SPACE = "Free some space, or choose another place"
_OTHER_MODEL = "config.json and the weights are of different models, or the checkpoint is incomplete"
