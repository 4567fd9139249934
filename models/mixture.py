"""A type for each tensor, as data: what a file was made with whose types no recipe of llama.cpp gives."""

from __future__ import annotations

from typing import Annotated

import msgspec

from models.ggml_types import FILE_TYPES, WRITABLE

EMBEDDING = "token_embd.weight"
OUTPUT = "output.weight"
_FLOATS = ("F32", "F16", "BF16")

TensorName = Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9_.]{1,63}\Z")]
"""As GGUF calls it. Nothing in it means anything in a regular expression but the dot."""
Types = Annotated[dict[TensorName, str], msgspec.Meta(min_length=1, max_length=65_536)]
"""By the name of a tensor, the name of its ggml type."""


class Mixture(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The types of all matrices of one model, and of those that are built alike."""

    name: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,31}\Z")]
    """What stands where the name of a file type would stand, such as "mixed-4.6"."""
    architecture: Annotated[str, msgspec.Meta(pattern=r"\A[a-z0-9][a-z0-9._-]{0,63}\Z")]
    """As in `general.architecture`."""
    layers: Annotated[int, msgspec.Meta(ge=1, le=4096)]
    file_type: str
    """The file type that llama.cpp takes it for; it counts for tensors that are not in `types`."""
    types: Types

    def __post_init__(self) -> None:
        if self.file_type not in FILE_TYPES.values() or self.file_type in _FLOATS:
            raise ValueError(f"a quantized file cannot be of the type {self.file_type[:32]!r}")
        if self.name.upper() in FILE_TYPES.values():
            raise ValueError(f"{self.name!r} is the name of a file type")
        if EMBEDDING not in self.types:
            raise ValueError(f"it has no type for {EMBEDDING}")
        for tensor, kind in self.types.items():
            if kind not in WRITABLE:
                raise ValueError(f"{tensor} cannot be of the type {kind[:32]!r}")
