"""What a model takes of the memory once it is loaded and its context is full, part by part.

Beside `models.fit`, which has the formulas, this says what counts: weights that are mapped from a file count
as far as they are read for each token. Those that llama.cpp has copied in another order for the CPU count
once, and a separate input embedding not at all: its file pages are free for the system to take, and of the
rows that a text needs, a few megabytes come back.
"""

from __future__ import annotations

from bisect import bisect_right

import msgspec

from models import fit
from models.header import Header

STEP = 1_024
"""Contexts that are proposed are multiples of so many tokens."""
USUAL = 8_192
"""Tokens of context for some questions and answers with their thinking."""


class Need(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes of main memory."""

    weights: int
    """Read for each token."""
    cache: int
    """Keys and values of a full context."""
    compute: int
    """Buffers to compute with."""
    process: int
    """The worker itself, and the vocabulary."""

    @property
    def total(self) -> int:
        """All of it."""
        return self.weights + self.cache + self.compute + self.process


def need(
    header: Header,
    context: int,
    kv_type: fit.KvType = "f16",
    *,
    batch: int = fit.BATCH,
    flash: bool = True,
    mapped: bool = True,
    gpu_layers: int = 0,
) -> Need:
    """What the model of `header` takes of main memory with `context` tokens.

    Without `mapped` weights (--no-mmap, --mlock) all count. The last `gpu_layers` are elsewhere, counted as
    llama.cpp does.
    """
    shape = fit.Shape.of(header)
    beside = fit.embedding_bytes(header) if mapped else 0
    held = fit.context_here(header, context, kv_type, batch, flash, gpu_layers)
    compute = fit.compute_bytes(shape, context, batch, flash=flash)
    return Need(
        weights=max(0, fit.weights_here(header, gpu_layers) - beside),
        cache=held - compute,
        compute=compute,
        process=fit.worker_bytes(shape),
    )


def usual_context(header: Header) -> int:
    """`USUAL`, or what the model was trained for if that is less."""
    return min(USUAL, trained(header))


def least_context(header: Header) -> int:
    """Tokens of context below which a model is of no use."""
    return min(fit.LEAST, trained(header))


def trained(header: Header) -> int:
    """Tokens of context that the model was trained for; `fit.LEAST` if the file does not say."""
    return header.context_trained or fit.LEAST


def largest_context(
    header: Header, available_bytes: int, kv_type: fit.KvType = "f16", *, gpu_layers: int = 0
) -> int:
    """The most tokens of context with which all of it fits into `available_bytes` of main memory; 0: none."""
    most, least = trained(header), least_context(header)

    def total(context: int) -> int:
        return need(header, context, kv_type, gpu_layers=gpu_layers).total

    if total(most) <= available_bytes:
        return most
    if total(least) > available_bytes:
        return 0
    return max(least, bisect_right(range(STEP, most, STEP), available_bytes, key=total) * STEP)
