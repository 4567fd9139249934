"""What a GGUF file holds, as digests: of its tensors, of its metadata, and of the whole file.

Two files with the same tensors and metadata in another order have the same first two digests.
"""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from gguf import GGUFReader


def digest(path: Path) -> dict[str, str]:
    """SHA-256 of "tensors" (name, type, shape, bytes; by name), "metadata" (by key) and the whole file."""
    reader = GGUFReader(path)
    tensors = sorted(
        (
            tensor.name,
            int(tensor.tensor_type),
            [int(size) for size in tensor.shape],
            hashlib.sha256(tensor.data.tobytes()).hexdigest(),
        )
        for tensor in reader.tensors
    )
    metadata = {
        key: [[kind.name for kind in field.types], field.contents()]
        for key, field in reader.fields.items()
        if not key.startswith("GGUF.")  # the header's own numbers
    }
    return {
        "tensors": _of(tensors),
        "metadata": _of(metadata),
        "sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
    }


def types(path: Path) -> dict[str, str]:
    """The type of each tensor, by name: for people who look for a difference."""
    return {tensor.name: tensor.tensor_type.name for tensor in GGUFReader(path).tensors}


def _of(value: object) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True, ensure_ascii=True).encode()).hexdigest()
