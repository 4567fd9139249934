"""What a model needs in memory, and what context it should be given."""

from __future__ import annotations

from typing import Final, Self

import msgspec

from localai.errors import UsageError
from models.header import Header

MOST: Final = 16_384
"""Tokens: R1's thinking rarely needs more, and the cache for them stays small."""
LEAST: Final = 2_048
"""Tokens: below this, thinking and answer do not fit."""
BATCH: Final = 512
"""Tokens that the engine evaluates at once (its `PREFILL_BATCH`): what compute buffers are sized for."""

_F16, _F32 = 2, 4
_CELLS = 256
"""llama_context pads the context to a multiple of this many tokens."""
_TOKEN = 512
"""Bytes for each token of the vocabulary. Measured: 320 to 460 for its text, its merges and the tables to
find them (R1's Qwen and Llama vocabularies), and 40 for its logit and the sampler's list of candidates."""
_PROCESS = 48 << 20
"""Bytes of the worker itself: 28 to 36 MiB measured with two threads; each further thread takes 0.4 MiB."""
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


def default_context(header: Header, available_bytes: int) -> int:
    """Tokens of context when the user asks for none.

    What the model was trained for, at most `MOST`, halved until its KV cache takes no more than a quarter
    of `available_bytes`, but never below `LEAST` or below what the model was trained for if that is less.
    """
    trained = header.context_trained or MOST
    context = min(trained, MOST)
    least = min(trained, LEAST)
    while context > least and header.kv_bytes_per_token * context > available_bytes // 4:
        context = max(context // 2, least)
    return context


def check_context(header: Header, wanted: int | None) -> None:
    """Refuse, with UsageError, more tokens of context than the model was trained for; None asks for none."""
    if wanted is not None and header.context_trained and wanted > header.context_trained:
        raise UsageError(
            f"--context {wanted:,} is more than the {header.context_trained:,} tokens "
            "that the model was trained for"
        )


def memory_needed(shape: Shape, weight_bytes: int, context: int) -> int:
    """Bytes of RAM that the worker needs to run a model on the CPU with `context` tokens.

    `weight_bytes` are those of all tensors. They count once: of weights that llama.cpp repacks for the CPU,
    its log and the resident size of the process show two copies, but the pages of the file are not read again
    after loading, and the system takes them back when memory is short.

    Against R1's shapes in a process that had filled and used its context, this is 0 to 15 % more than was
    needed, and at most `_PROCESS` more for tiny models. It leaves out what is reserved but never touched:
    logits for all tokens of a batch (`BATCH` * vocabulary * 4 bytes), of which we ask for one token's.
    """
    used = kv_cache_bytes(shape, context) + graph_bytes(shape, context) + _work_bytes(shape, context)
    return weight_bytes + used + _TOKEN * shape.vocabulary + _PROCESS


def kv_cache_bytes(shape: Shape, context: int) -> int:
    """Bytes of the KV cache: f16 keys and values of all layers, zeroed and so resident from the start.

    As in the constructor of llama_kv_cache, which logs it as "KV buffer size".
    """
    return shape.layers * shape.kv_heads * (shape.key_length + shape.value_length) * _F16 * _padded(context)


def graph_bytes(shape: Shape, context: int) -> int:
    """Bytes of llama.cpp's compute buffer that are touched, as ggml_gallocr lays them out for one batch.

    f32 activations of the widest moment in a layer (buffers are shared by all layers), which is one of
    - build_ffn with LLM_FFN_SILU: gate, up and their product, beside four vectors of the model's width;
    - build_attn: queries before and after the rotation and the attention's result, keys and values;
    and the f16 mask of build_attn_inp_kq_mask, a batch of tokens by the context: flash attention, llama.cpp's
    default where the CPU computes, needs no other buffer that grows with the context. For all R1 models it
    equals the "compute buffer size" that llama_context::sched_reserve logs with `n_outputs_max` of 1.
    """
    width, heads = shape.embedding_length, shape.heads * shape.key_length
    cached = shape.kv_heads * (shape.key_length + shape.value_length)
    widest = max(3 * shape.feed_forward_length + 4 * width, 2 * width + 3 * heads + cached)
    return _batch(context) * (widest * _F32 + _padded(context) * _F16)


def usable_memory(total_bytes: int) -> int:
    """Bytes that a model may take of a machine with `total_bytes` of memory.

    A quarter is left to the system, the screen and a browser: at least 2 GiB, about what an idle desktop
    takes, and at most 8 GiB; but never more than half. A choice, not a measurement.
    """
    room = min(max(total_bytes // 4, _LEAST_ROOM), _MOST_ROOM)
    return total_bytes - min(room, total_bytes // 2)


def _work_bytes(shape: Shape, context: int) -> int:
    """Bytes of ggml_graph_plan's scratch: the widest activations as a vec_dot_type, at most 16 bits each."""
    return _batch(context) * shape.feed_forward_length * _F16


def _batch(context: int) -> int:
    return min(BATCH, context)


def _padded(context: int) -> int:
    return -(-context // _CELLS) * _CELLS
