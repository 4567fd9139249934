"""The header that a model of the catalogue will have, as far as its memory and its speed depend on it.

So that what is not here yet is judged by the same formulas as a file. The bytes of all tensors are the
catalogue's; how they are spread over the layers is a guess, which matters only where a GPU holds some.
"""

from __future__ import annotations

from typing import Final

from models import catalog, fit
from models.catalog import Entry, Shape
from models.ggml_types import FILE_TYPES, TENSOR_TYPES
from models.header import ArrayInfo, Header, TensorInfo, Value
from models.origins import size_of

_SUFFIXES: Final = ("_XS", "_S", "_M", "_L")
_MORE: Final = 1.08
"""How much larger a mixture such as Q4_K_M is than its name says: some tensors have more bits."""
_USUAL_BITS: Final = 5.0
"""Of types that are not known here."""
_EMBEDDING: Final = "token_embd.weight"


def sketch(entry: Entry, file_type: str) -> Header | None:
    """What the header of `entry` in `file_type` will say; None if the catalogue tells no size."""
    weights = weight_bytes(entry, file_type)
    return outline(
        file_type, weights, entry.parameters, title=entry.title, context=entry.context, shape=entry.shape
    )


def outline(
    file_type: str,
    weights: int,
    parameters: int = 0,
    *,
    title: str = "",
    context: int = fit.LEAST,
    shape: Shape | None = None,
) -> Header | None:
    """The header of a file with `weights` bytes of tensors; None if too little is known.

    Without a `shape`, it is that of the model that is nearest in size: a guess.
    """
    known = shape or _nearest_shape(parameters or round(weights * 8 / _bits(file_type)))
    if not weights or known is None:
        return None
    return Header(
        version=3,
        metadata=_metadata(title, context, file_type, known),
        tensors=_tensors(known, file_type, weights),
        alignment=32,
        data_offset=0,
        file_size=weights,
    )


def weight_bytes(entry: Entry, file_type: str = "") -> int:
    """Bytes of all tensors of `entry` in `file_type` (default: its own); 0: nothing tells.

    Those of the catalogue; else the size of a ready file; else an estimate from the parameters, within 3 %
    for the usual types.
    """
    kind = file_type.upper() or entry.type
    if known := entry.weights.get(kind):
        return known
    sizes = (size_of(one.source) for one in entry.ready(kind))
    return next(filter(None, sizes), 0) or round(entry.parameters * _bits(kind) / 8)


def base_type(file_type: str) -> str:
    """The type that most tensors of a file have, by its name: "Q4_K" of "Q4_K_M"."""
    names = {block.name for block in TENSOR_TYPES.values()}
    stems = (file_type.removesuffix(suffix) for suffix in _SUFFIXES)
    return next((name for name in (file_type, *stems) if name in names), file_type)


def _bits(file_type: str) -> float:
    """Bits of a weight."""
    base = base_type(file_type)
    for block in TENSOR_TYPES.values():
        if block.name == base:
            return block.size * 8 / block.elements * (_MORE if file_type != base else 1)
    return _USUAL_BITS


def _nearest_shape(parameters: int) -> Shape | None:
    """The shape of the model that is nearest in size: a guess for entries that state none."""
    known = [entry for entry in catalog.entries() if entry.shape]
    return min(known, key=lambda e: abs(e.parameters - parameters)).shape if parameters and known else None


def _metadata(title: str, context: int, file_type: str, shape: Shape) -> dict[str, Value]:
    own = shape.architecture
    number = next((number for number, name in FILE_TYPES.items() if name == file_type), -1)
    return {
        "general.architecture": own,
        "general.name": title,
        "general.file_type": number,
        "tokenizer.ggml.tokens": ArrayInfo("string", shape.vocabulary),
        f"{own}.context_length": context,
        f"{own}.block_count": shape.layers,
        f"{own}.embedding_length": shape.embedding_length,
        f"{own}.feed_forward_length": shape.feed_forward_length,
        f"{own}.attention.head_count": shape.heads,
        f"{own}.attention.head_count_kv": shape.kv_heads,
        f"{own}.attention.key_length": shape.head_size,
        f"{own}.attention.value_length": shape.head_size,
    }


def _tensors(shape: Shape, file_type: str, weights: int) -> list[TensorInfo]:
    """Embedding, output, and the matrices of each layer, which share the rest of `weights` bytes."""
    base = base_type(file_type)
    kinds = {block.name: (number, block) for number, block in TENSOR_TYPES.items()}
    number, block = kinds.get(base, kinds["Q5_K"])
    numbers = shape.vocabulary * shape.embedding_length
    ends = min(numbers * block.size // block.elements, weights // 4)
    sizes = {_EMBEDDING: ends} if shape.tied else {_EMBEDDING: ends, "output.weight": ends}
    rest, whole = max(0, weights - sum(sizes.values())), _layer_numbers(shape)
    for layer in range(shape.layers):
        room = rest // shape.layers + (rest % shape.layers if layer == 0 else 0)
        matrix = room * shape.embedding_length * shape.feed_forward_length // whole
        for part in ("gate", "up", "down"):
            sizes[f"blk.{layer}.ffn_{part}.weight"] = matrix
        sizes[f"blk.{layer}.attn_q.weight"] = room - 3 * matrix
    return [TensorInfo(name, (size,), number, base, 0, size) for name, size in sizes.items()]


def _layer_numbers(shape: Shape) -> int:
    """Numbers in the matrices of one layer."""
    attention = 2 * shape.head_size * (shape.heads + shape.kv_heads)
    return shape.embedding_length * (3 * shape.feed_forward_length + attention)
