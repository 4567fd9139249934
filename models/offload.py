"""How many layers a GPU has room for.

llama.cpp counts a model's layers and, as the last, its output. Of `n` layers that are asked for it moves the
last `n`, so the output goes first and the first layer last; several devices share them, in order and in
proportion to their free memory (llama_model_base::load_tensors). The input embedding always stays in main
memory. Nothing here asks a device: everything is reckoned from a file's header.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import Final

import msgspec

from models import fit
from models.files import megabytes
from models.header import Header

RESERVE: Final = 512 << 20
"""Bytes of each device that are left alone: for its driver, scratch memory of its kernels, and the screen."""


class Memory(msgspec.Struct, frozen=True):
    """The memory of one device, in bytes; a total of 0 means that it does not tell."""

    free: int
    total: int


class Offload(msgspec.Struct, frozen=True):
    """The layers to move, the output counted, and what the user should know about it, one line each."""

    layers: int
    notes: tuple[str, ...] = ()


def plan(
    header: Header,
    context: int,
    kv_type: fit.KvType,
    wanted: int | None,
    devices: Sequence[Memory],
    *,
    batch: int = fit.BATCH,
    flash: bool = True,
) -> Offload:
    """What to move of the `wanted` layers (None or negative: all) so that `devices` can hold it.

    A device that does not tell its memory is believed to have enough.
    """
    layers = header.block_count + 1
    asked = layers if wanted is None or wanted < 0 else min(wanted, layers)
    if not devices:
        none = "there is no GPU that this llama.cpp was compiled for: the CPU computes all layers"
        return Offload(0, (none,) if wanted is not None and wanted > 0 else ())
    if not all(device.total for device in devices):
        return Offload(asked)
    free = [device.free for device in devices]
    fitting = layers_that_fit(header, context, kv_type, free, batch=batch, flash=flash, at_most=asked)
    if fitting == asked:
        return Offload(asked)
    owner = "the GPU has" if len(devices) == 1 else f"the {len(devices)} GPUs have"
    found = f"{fitting} of {layers} layers fit" if fitting else "no layer fits"
    note = (
        f"{found} into the {megabytes(sum(free))} of memory that {owner} free, with {context:,} tokens of "
        "context: the CPU computes the rest"
    )
    return Offload(fitting, (note,))


def default_context(
    header: Header,
    available_bytes: int,
    kv_type: fit.KvType,
    devices: Sequence[Memory],
    *,
    batch: int = fit.BATCH,
    flash: bool = True,
) -> int:
    """As `fit.default_context`, but from the memory of `devices` if they hold all layers.

    The cache may then take a half of what is free beside the weights: GPUs have their memory for this.
    `available_bytes` are those of main memory.
    """
    free = [device.free for device in devices]
    spare = sum(free) - RESERVE * len(free) - sum(fit.layer_weights(header))
    if devices and all(device.total for device in devices) and spare > 0:
        context = fit.default_context(header, 2 * spare, kv_type)
        fitting = layers_that_fit(header, context, kv_type, free, batch=batch, flash=flash)
        if fitting == header.block_count + 1:
            return context
    return fit.default_context(header, available_bytes, kv_type)


def layers_that_fit(
    header: Header,
    context: int,
    kv_type: fit.KvType,
    free_bytes: Sequence[int],
    *,
    batch: int = fit.BATCH,
    flash: bool = True,
    at_most: int | None = None,
) -> int:
    """The most layers, as llama.cpp counts them, that devices with `free_bytes` hold, with their context."""
    weights = fit.layer_weights(header)
    most = len(weights) if at_most is None else min(at_most, len(weights))
    need = _Needs(header, context, kv_type, batch, flash)
    for count in range(most, 0, -1):
        parts = shares(len(weights), count, free_bytes)
        if all(need.of(part) <= free for part, free in zip(parts, free_bytes, strict=True) if part):
            return count
    return 0


def shares(layers: int, count: int, free_bytes: Sequence[int]) -> list[range]:
    """The layers that each device gets of the last `count` of `layers`; devices without memory get none."""
    splits = [part / max(1, sum(free_bytes)) for part in accumulate(free_bytes)]
    owners = [min(bisect_right(splits, i / count), len(splits) - 1) for i in range(count)]
    first = layers - count
    starts = [first + bisect_right(owners, device - 1) for device in range(len(splits) + 1)]
    return [range(start, end) for start, end in pairwise(starts)]


class _Needs:
    """What layers take on a device: weights, their share of the KV cache, and buffers to compute with."""

    def __init__(self, header: Header, context: int, kv_type: fit.KvType, batch: int, flash: bool) -> None:
        shape = fit.Shape.of(header)
        self._weights = fit.layer_weights(header)
        self._cache = fit.kv_cache_bytes(shape, context, kv_type) // max(1, shape.layers)
        self._graph = fit.graph_bytes(shape, context, batch, flash=flash)
        # While layers are left to the CPU, a GPU still multiplies the large batches of a prompt with their
        # weights, one matrix at a time, for which it needs room.
        self._visitor = max((tensor.size for tensor in header.tensors if ".ffn_" in tensor.name), default=0)

    def of(self, layers: range) -> int:
        """Bytes for `layers`, with `RESERVE`."""
        last = len(self._weights) - 1
        weights = sum(self._weights[layer] for layer in layers)
        cached = len(layers) - (last in layers)
        return weights + cached * self._cache + self._graph + self._visitor + RESERVE
