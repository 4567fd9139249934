"""What a model needs in memory, what context it should be given, and what cannot work."""

from __future__ import annotations

from bisect import bisect_right
from typing import Final, Literal, Self

import msgspec

from localai.errors import LoadError, UsageError
from models.files import megabytes
from models.header import Header

KvType = Literal["f16", "q8_0", "q4_0"]
"""How keys and values are kept, as `localai.engine.settings.KvType`."""

LEAST: Final = 2_048
"""Tokens: below this, thinking and answer do not fit."""
BATCH: Final = 512
"""Tokens that the engine evaluates at once unless told otherwise: what compute buffers are sized for."""
OUTPUTS: Final = 64
"""Positions of one batch whose logits the engine can ask for (its `MOST_OUTPUTS`)."""

_F16, _F32 = 2, 4
_EMBEDDING = "token_embd.weight"
_BLOCK: Final[dict[KvType, int]] = {"f16": 64, "q8_0": 34, "q4_0": 18}
"""Bytes of 32 numbers as ggml's blocks: half floats; bytes or half bytes with a half float as their scale."""
_STEP = 1_024
"""Contexts that are chosen here are multiples of so many tokens."""
_CELLS = 256
"""llama_context pads the context to a multiple of this many tokens."""
_TOKEN = 340
"""Bytes for each token of the vocabulary. Measured: 290 (R1's Qwen vocabulary) to 365 (SmolLM2's) for its
text, its merges and the tables to find them, and 30 for its logit and the sampler's list of candidates."""
_PROCESS = 46 << 20
"""Bytes of the worker itself: 24 MiB of its own, and 22 of the libraries that it maps and partly shares
with the app. Measured with two threads; each further one takes 0.4 MiB."""
_SCRATCH = 292 / 256
"""Bytes of a number as the CPU multiplies it with quantized weights: ggml's Q8_K, or the smaller Q8_0."""
_LEAST_ROOM, _MOST_ROOM = 2 << 30, 8 << 30


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a llama, qwen2 or qwen3 model that its memory depends on; lengths count numbers."""

    vocabulary: int
    embedding_length: int
    feed_forward_length: int
    layers: int
    heads: int
    kv_heads: int
    key_length: int
    value_length: int

    @classmethod
    def of(cls, header: Header) -> Self:
        """The shape that `header` claims, with llama.cpp's defaults for what it leaves out."""
        head = header.embedding_length // header.head_count if header.head_count else 0
        return cls(
            vocabulary=header.vocabulary,
            embedding_length=header.embedding_length,
            feed_forward_length=header.own("feed_forward_length"),
            layers=header.block_count,
            heads=header.head_count,
            kv_heads=header.head_count_kv,
            key_length=header.own("attention.key_length", head),
            value_length=header.own("attention.value_length", head),
        )


def default_context(header: Header, available_bytes: int, kv_type: KvType = "f16") -> int:
    """Tokens of context when the user asks for none.

    All that the model was trained for, if its KV cache takes at most a quarter of `available_bytes`; else
    what a quarter holds, but at least `LEAST`, or what the model was trained for if that is less.
    """
    trained = header.context_trained or LEAST
    room, each = max(0, available_bytes) // 4, kv_bytes_per_token(header, kv_type)
    if each * trained <= room:
        return trained
    return max(room // each // _STEP * _STEP, min(trained, LEAST))


def largest_context(
    header: Header, available_bytes: int, kv_type: KvType = "f16", *, batch: int = BATCH, flash: bool = True
) -> int:
    """The most tokens of context that the model was trained for and that fit into `available_bytes`; 0: none.

    `available_bytes` are those that are free without the context that there is now, if there is one.
    """
    trained, shape = header.context_trained or LEAST, Shape.of(header)

    def needed(context: int) -> int:
        return context_bytes(shape, context, kv_type, batch=batch, flash=flash)

    if needed(trained) <= available_bytes:
        return trained
    return bisect_right(range(_STEP, trained, _STEP), available_bytes, key=needed) * _STEP


def check_context(header: Header, wanted: int | None) -> None:
    """Refuse, with UsageError, more tokens of context than the model was trained for; None asks for none."""
    if wanted is not None and header.context_trained and wanted > header.context_trained:
        raise UsageError(
            f"--context {wanted:,} is more than the {header.context_trained:,} tokens "
            "that the model was trained for"
        )


def check_memory(
    header: Header,
    context: int,
    kv_type: KvType,
    available_bytes: int,
    total_bytes: int,
    *,
    batch: int = BATCH,
    flash: bool = True,
    gpu_layers: int = 0,
    mapped: bool = True,
) -> list[str]:
    """Refuse, with LoadError, what the main memory cannot hold; what the user should know, one line each.

    `available_bytes` can be had without swapping before anything of the model is loaded.
    `gpu_layers`, counted as llama.cpp does, are elsewhere: their cache and weights need no main memory.
    Weights that are `mapped`, and not locked, may exceed it: the system reads again what it dropped.
    """
    weights = weights_here(header, gpu_layers) - (embedding_bytes(header) if mapped else 0)
    needed = context_here(header, context, kv_type, batch, flash, gpu_layers)
    if needed > available_bytes:
        raise LoadError(
            f"{context:,} tokens of context need {megabytes(needed)} of memory, "
            f"and {megabytes(max(0, available_bytes))} is free",
            _less_memory(header, available_bytes, kv_type, batch, flash),
        )
    if weights + needed <= available_bytes:
        return []
    if not mapped:
        raise LoadError(
            f"the weights need {megabytes(weights)} of memory, "
            f"and {megabytes(available_bytes - needed)} is free beside the context",
            "Leave out --no-mmap and --mlock, or take a smaller model",
        )
    if weights + needed > total_bytes:
        return [
            f"the weights need {megabytes(weights)} and this machine has {megabytes(total_bytes)} of memory: "
            "much is read from the disk for each token, which is very slow"
        ]
    free = megabytes(available_bytes - needed)
    return [f"the weights need {megabytes(weights)} and {free} of memory is free: it will be slow"]


def parking_limit(
    header: Header,
    context: int,
    kv_type: KvType,
    available_bytes: int,
    *,
    batch: int = BATCH,
    flash: bool = True,
    gpu_layers: int = 0,
) -> int:
    """Bytes of main memory that conversations may take which are kept beside the context, to come back to.

    As many as a full context has, but at most half of what the weights and the context leave free of
    `available_bytes`, which are as those of `check_memory`. Where memory is short, 0: nothing is kept.
    """
    taken = weights_here(header, gpu_layers) + context_here(
        header, context, kv_type, batch, flash, gpu_layers
    )
    full = context * kv_bytes_per_token(header, kv_type)
    return max(0, min(full, (available_bytes - taken) // 2))


def context_here(
    header: Header, context: int, kv_type: KvType, batch: int, flash: bool, gpu_layers: int
) -> int:
    """Bytes of main memory for the context and to compute with it."""
    shape = Shape.of(header)
    there = min(max(gpu_layers - 1, 0), shape.layers)  # the first to go is the output: it has no cache
    cache = kv_cache_bytes(shape, context, kv_type) * (shape.layers - there) // max(1, shape.layers)
    return cache + compute_bytes(shape, context, batch, flash=flash)


def weights_here(header: Header, gpu_layers: int) -> int:
    """Bytes of weights that stay in main memory when the last `gpu_layers` layers go elsewhere."""
    first = max(0, header.block_count + 1 - max(0, gpu_layers))
    gone = sum(layer_weights(header)[first:])
    shared = next((t.size for t in header.tensors if t.name == _EMBEDDING), 0)
    return header.tensor_bytes - gone + (shared if gpu_layers > 0 and _shares_output(header) else 0)


def _less_memory(header: Header, available_bytes: int, kv_type: KvType, batch: int, flash: bool) -> str:
    for kind, block in _BLOCK.items():
        if block > _BLOCK[kv_type] or (kind != kv_type and not flash):
            continue  # without flash attention, llama.cpp keeps values as f16 only
        if context := largest_context(header, available_bytes, kind, batch=batch, flash=flash):
            return f"Try --context {context}" + (f" --kv-type {kind}" if kind != kv_type else "")
    return "Close other programs, or take a smaller model"


def memory_needed(shape: Shape, weight_bytes: int, context: int, kv_type: KvType = "f16") -> int:
    """Bytes of RAM that the worker needs to run a model on the CPU with `context` tokens.

    `weight_bytes` are those that are read for each token (`weights_read`). They count once: of weights that
    llama.cpp repacks for the CPU, its log and the resident size of the process show two copies, but the pages
    of the file are not read again after loading, and the system takes them back when memory is short.
    `benchmarks/fit.py` compares this with workers that have filled their context: within 8 %.
    """
    return weight_bytes + context_bytes(shape, context, kv_type) + worker_bytes(shape)


def worker_bytes(shape: Shape) -> int:
    """Bytes of memory of the worker with a vocabulary, but without weights and a context."""
    return _TOKEN * shape.vocabulary + _PROCESS


def weights_read(header: Header) -> int:
    """Bytes of weights that are read for each token: all but those of an input embedding of its own.

    Of that one, a row is read: where the file is mapped, it hardly takes memory.
    """
    return header.tensor_bytes - embedding_bytes(header)


def embedding_bytes(header: Header) -> int:
    """Bytes of the input embedding; 0 where the output is computed with the same tensor."""
    if _shares_output(header):
        return 0
    return next((tensor.size for tensor in header.tensors if tensor.name == _EMBEDDING), 0)


def context_bytes(
    shape: Shape, context: int, kv_type: KvType = "f16", *, batch: int = BATCH, flash: bool = True
) -> int:
    """Bytes of memory for `context` tokens: the KV cache, and the buffers to compute with."""
    return kv_cache_bytes(shape, context, kv_type) + compute_bytes(shape, context, batch, flash=flash)


def compute_bytes(shape: Shape, context: int, batch: int = BATCH, *, flash: bool = True) -> int:
    """Bytes of the buffers to compute with: the graph's, and ggml_graph_plan's scratch.

    The scratch holds the widest activations as a vec_dot_type of quantized weights.
    """
    scratch = round(min(batch, context) * shape.feed_forward_length * _SCRATCH)
    return graph_bytes(shape, context, batch, flash=flash) + scratch


def kv_cache_bytes(shape: Shape, context: int, kv_type: KvType = "f16") -> int:
    """Bytes of the KV cache: keys and values of all layers, zeroed and so resident from the start.

    As in the constructor of llama_kv_cache, which logs it as "KV buffer size".
    """
    numbers = shape.layers * shape.kv_heads * (shape.key_length + shape.value_length)
    return numbers * _BLOCK[kv_type] // 32 * _padded(context)


def kv_bytes_per_token(header: Header, kv_type: KvType = "f16") -> int:
    """Bytes of KV cache for one token; 0 if the header does not tell."""
    return header.kv_bytes_per_token * _BLOCK[kv_type] // _BLOCK["f16"]


def layer_weights(header: Header) -> list[int]:
    """Bytes of the tensors of each layer, and of the output, which llama.cpp counts as the last layer.

    An output that shares its tensor with the input counts all the same: a GPU gets a copy of its own. The
    input embedding stays in main memory and is not in the list.
    """
    layers = [0] * (header.block_count + 1)
    sizes = {tensor.name: tensor.size for tensor in header.tensors}
    for name, size in sizes.items():
        kind, _, rest = name.partition(".")
        number = rest.partition(".")[0]
        if kind == "blk" and number.isdecimal() and int(number) < header.block_count:
            layers[int(number)] += size
        elif kind in ("output", "output_norm"):
            layers[-1] += size
    if _shares_output(header):
        layers[-1] += sizes.get(_EMBEDDING, 0)
    return layers


def _shares_output(header: Header) -> bool:
    return all(tensor.name != "output.weight" for tensor in header.tensors)


def graph_bytes(shape: Shape, context: int, batch: int = BATCH, *, flash: bool = True) -> int:
    """Bytes of llama.cpp's compute buffer, as ggml_gallocr lays them out for one batch.

    f32 activations of the widest moment in a layer (buffers are shared by all layers), which is one of
    - build_ffn with LLM_FFN_SILU: gate, up and their product, beside four vectors of the model's width;
    - build_attn: queries before and after the rotation and the attention's result, keys and values, and
      without `flash` attention, the default where the CPU computes, the weight of each token for each other;
    and the mask of build_attn_inp_kq_mask, a batch of tokens by the context, f16 with flash attention and f32
    without; but never less than `OUTPUTS` tokens' logits. For all R1 models it equals the "compute buffer
    size" that llama_context::sched_reserve logs.
    """
    width, heads = shape.embedding_length, shape.heads * shape.key_length
    cached = shape.kv_heads * (shape.key_length + shape.value_length)
    scores = 0 if flash else shape.heads * _padded(context)
    widest = max(3 * shape.feed_forward_length + 4 * width, 2 * width + 3 * heads + cached + scores)
    mask = _padded(context) * (_F16 if flash else _F32)
    logits = min(batch, OUTPUTS) * shape.vocabulary * _F32
    return max(min(batch, context) * (widest * _F32 + mask), logits)


def usable_memory(total_bytes: int) -> int:
    """Bytes that a model may take of a machine with `total_bytes` of memory.

    A quarter is left to the system, the screen and a browser: at least 2 GiB, about what an idle desktop
    takes, and at most 8 GiB; but never more than half. A choice, not a measurement.
    """
    room = min(max(total_bytes // 4, _LEAST_ROOM), _MOST_ROOM)
    return total_bytes - min(room, total_bytes // 2)


def _padded(context: int) -> int:
    return -(-context // _CELLS) * _CELLS
