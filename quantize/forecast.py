"""What the files would be, for every type, before any weight is read. Runs in the worker."""

from __future__ import annotations

import hashlib
from collections import Counter

import msgspec

from localai import hardware
from localai.chat.prompt import ASSISTANT, USER
from models import fit, templates
from models.header import Header
from quantize.file_types import FILE_TYPES
from quantize.gguf_file import padded, text
from quantize.plan import Output, Planner
from quantize.protocol import R1_CHAT, Candidate, Forecast
from quantize.source import Source
from quantize.weight_files import PIECE_WEIGHTS

CONTEXTS = (4_096, 16_384, 32_768)
"""Tokens of context that memory is told for: a chat, a long thought, a document."""

_TYPE_BYTES = 4
"""Before a value in metadata, and not before an item of a list."""
_PROCESS = 160 << 20
"""Bytes of the worker with a vocabulary of 150,000 tokens and llama.cpp's libraries."""
_BYTES_PER_WEIGHT = 20
"""Of a piece in work: as it was read (two of them wait), as F32, and as what it becomes."""


def of(source: Source, plans: Planner) -> Forecast:
    """The forecast for `source`. Raises what planning raises."""
    header = plans.header
    shape = msgspec.structs.replace(fit.Shape.of(header), vocabulary=_vocabulary(source))
    return Forecast(
        architecture=source.architecture,
        tensors=len(source.tensors),
        weights=source.weights,
        source_type=_type_of_most(source),
        source_bytes=source.nbytes,
        context_trained=header.context_trained,
        working_memory=_PROCESS + hardware.usable_cores() * PIECE_WEIGHTS * _BYTES_PER_WEIGHT,
        candidates=tuple(_candidate(plans.output(name), source, header, shape) for name in plans.names),
        fixed_bytes=_fixed_bytes(plans),
        plain={name: plans.plain_output(name).layout.nbytes for name in _compared(source)},
        chat=_chat(source),
    )


def _chat(source: Source) -> str:
    tokens = source.metadata.get("tokenizer.ggml.tokens", b"")
    if all(text(marker.encode())[_TYPE_BYTES:] in tokens for marker in (USER, ASSISTANT)):
        return R1_CHAT
    template = source.metadata.get("tokenizer.chat_template", b"")[len(text(b"")) :]
    return templates.digest(template.decode("utf-8", "replace")) if template else ""


def _compared(source: Source) -> list[str]:
    """The types that others are compared with: that of the source, and the closest one."""
    return [name for name in dict.fromkeys([_type_of_most(source), "Q8_0"]) if name in FILE_TYPES]


def _fixed_bytes(plans: Planner) -> int:
    layout, matrices = plans.output("Q8_0").layout, set(plans.matrices)
    return layout.nbytes - sum(padded(one.nbytes) for one in layout.entries if one.name in matrices)


def bits_per_weight(source: Source, output: Output) -> float:
    """Bits of tensor data for each weight of the model."""
    return round(_tensor_bytes(source, output) * 8 / source.weights, 3)


def _candidate(output: Output, source: Source, header: Header, shape: fit.Shape) -> Candidate:
    weights = _tensor_bytes(source, output) - _embedding_bytes(source, output)
    trained = header.context_trained or CONTEXTS[-1]
    contexts = [context for context in CONTEXTS if context <= trained] or [trained]
    return Candidate(
        file_type=output.name,
        size=output.layout.nbytes,
        bits_per_weight=bits_per_weight(source, output),
        needs_imatrix=output.needs_importance,
        memory={context: fit.memory_needed(shape, weights, context) for context in contexts},
        layout=_layout(output),
    )


def _layout(output: Output) -> str:
    types = " ".join(f"{name}={number}" for name, number in sorted(output.types.items()))
    return hashlib.sha256(types.encode()).hexdigest()[:16]


def _tensor_bytes(source: Source, output: Output) -> int:
    return sum(tensor.bytes_as(output.types[tensor.name]) for tensor in source.tensors)


def _embedding_bytes(source: Source, output: Output) -> int:
    """As `fit.embedding_bytes`: an input embedding of its own is hardly read."""
    tensors = {tensor.name: tensor for tensor in source.tensors}
    if "output.weight" not in tensors or "token_embd.weight" not in tensors:
        return 0
    return tensors["token_embd.weight"].bytes_as(output.types["token_embd.weight"])


def _vocabulary(source: Source) -> int:
    return next((t.shape[0] for t in source.tensors if t.name == "token_embd.weight"), 0)


def _type_of_most(source: Source) -> str:
    weights: Counter[str] = Counter()
    for tensor in source.tensors:
        weights[tensor.base.name] += tensor.weights
    return weights.most_common(1)[0][0]
