"""The context that a model is given by default, the memory that it needs with one, and what is refused."""

from __future__ import annotations

import re
import typing
from pathlib import Path

import msgspec
import pytest

from localai.engine import context as contexts
from localai.engine import llama, settings
from localai.engine.bindings import captured_log
from localai.errors import LoadError, UsageError
from models.fit import (
    LEAST,
    OUTPUTS,
    KvType,
    Shape,
    check_context,
    check_memory,
    context_bytes,
    default_context,
    graph_bytes,
    kv_bytes_per_token,
    kv_cache_bytes,
    largest_context,
    layer_weights,
    memory_needed,
    parking_limit,
    usable_memory,
)
from models.gguf import Header, read_header
from models.header import TensorInfo

GB = 1 << 30
MB = 1 << 20


def header(context: int, layers: int = 28, heads: int = 2) -> Header:
    """A header of the size of R1-Distill-Qwen-1.5B: 28,672 bytes of KV cache for each token."""
    return Header(
        version=3,
        metadata={
            "general.architecture": "qwen2",
            "qwen2.context_length": context,
            "qwen2.block_count": layers,
            "qwen2.embedding_length": 1536,
            "qwen2.attention.head_count": 12,
            "qwen2.attention.head_count_kv": heads,
        },
        tensors=[],
        alignment=32,
        data_offset=0,
        file_size=0,
    )


def test_the_cache_of_a_token() -> None:
    assert header(131072).kv_bytes_per_token == 28 * 2 * 2 * 128 * 2


CACHE = 28672


@pytest.mark.parametrize(
    ("trained", "available", "context"),
    [
        (131072, 16 * GB, 131072),
        (131072, 4 * CACHE * 131072, 131072),
        (131072, 4 * CACHE * 131072 - 4, 130048),
        (131072, 4 * CACHE * 20000, 19456),
        (131072, 4 * CACHE * 4096, 4096),
        (131072, 0, 2048),
        (131072, -1, 2048),
        (8192, 16 * GB, 8192),
        (10000, 4 * CACHE * 10000, 10000),
        (10000, 4 * CACHE * 9999, 9216),
        (3000, 0, 2048),
        (2048, 0, 2048),
        (512, 0, 512),
        (0, 16 * GB, 2048),
    ],
)
def test_default_context(trained: int, available: int, context: int) -> None:
    assert default_context(header(trained), available) == context


@pytest.mark.parametrize(("kv_type", "factor"), [("f16", 64), ("q8_0", 34), ("q4_0", 18)])
def test_smaller_keys_and_values_give_more_context(kv_type: KvType, factor: int) -> None:
    each = CACHE * factor // 64
    assert kv_bytes_per_token(header(131072), kv_type) == each
    assert default_context(header(131072), 4 * each * 50_000, kv_type) == 49_152
    assert kv_cache_bytes(Shape.of(header(131072)), 1024, kv_type) == 1024 * each


def test_the_types_of_keys_and_values_are_the_engines() -> None:
    assert typing.get_args(KvType) == typing.get_args(settings.KvType)


@pytest.mark.parametrize("available", [0, 10 * MB, 100 * MB, GB, 3 * GB, 5 * GB])
@pytest.mark.parametrize("flash", [True, False])
def test_the_largest_context_is_the_largest(available: int, flash: bool) -> None:
    model = header(131072)
    found = largest_context(model, available, batch=256, flash=flash)

    def needed(context: int) -> int:
        return context_bytes(Shape.of(model), context, batch=256, flash=flash)

    assert found == 0 or needed(found) <= available
    assert found == 131072 or needed(found + 1024) > available
    assert largest_context(header(1500), 5 * GB) == 1500


def test_separate_key_and_value_lengths_count() -> None:
    plain = header(4096)
    metadata = {**plain.metadata, "qwen2.attention.key_length": 64, "qwen2.attention.value_length": 32}
    assert msgspec.structs.replace(plain, metadata=metadata).kv_bytes_per_token == 28 * 2 * (64 + 32) * 2


def test_a_model_that_says_nothing_gets_the_least() -> None:
    empty = msgspec.structs.replace(header(0), metadata={})
    assert empty.kv_bytes_per_token == 0
    assert default_context(empty, 0) == LEAST


@pytest.mark.parametrize(("trained", "wanted"), [(2048, None), (2048, 256), (2048, 2048), (0, 999_999)])
def test_a_context_that_the_model_can_have(trained: int, wanted: int | None) -> None:
    check_context(header(trained), wanted)


def test_a_context_beyond_the_training_is_refused() -> None:
    reason = r"--context 2,049 is more than the 2,048 tokens that the model was trained for"
    with pytest.raises(UsageError, match=reason):
        check_context(header(2048), 2049)


def shape(numbers: tuple[int, ...]) -> Shape:
    """From vocabulary, width, feed-forward width, layers, heads, KV heads, and the length of a head."""
    return Shape(**dict(zip(Shape.__struct_fields__, (*numbers, numbers[-1]), strict=True)))


QWEN_1B = (151_936, 1536, 8960, 28, 12, 2, 128)
QWEN_7B = (152_064, 3584, 18_944, 28, 28, 4, 128)
LLAMA_8B = (128_256, 4096, 14_336, 32, 32, 8, 128)
LLAMA_70B = (128_256, 8192, 28_672, 80, 64, 8, 128)


def test_the_shape_of_a_header() -> None:
    plain = header(131072)
    assert Shape.of(plain) == shape((0, 1536, 0, 28, 12, 2, 128))
    more = {
        "qwen2.feed_forward_length": 8960,
        "qwen2.attention.key_length": 64,
        "qwen2.attention.value_length": 32,
        "tokenizer.ggml.tokens": ("a", "b"),
    }
    full = Shape.of(msgspec.structs.replace(plain, metadata=plain.metadata | more))
    assert (full.vocabulary, full.feed_forward_length, full.key_length, full.value_length) == (
        2,
        8960,
        64,
        32,
    )
    assert kv_cache_bytes(full, 1024) == plain.kv_bytes_per_token * 1024 * (64 + 32) // 256


def test_a_header_that_says_nothing() -> None:
    empty = Shape.of(msgspec.structs.replace(header(0), metadata={}))
    assert empty == shape((0,) * 7)
    assert memory_needed(empty, 100, 0) > 100


@pytest.mark.parametrize(
    ("numbers", "context", "logged"),
    [
        (QWEN_1B, 512, 65.01),
        (QWEN_1B, 4096, 68.51),
        (QWEN_1B, 32768, 96.51),
        (QWEN_7B, 4096, 143.01),
        (LLAMA_8B, 16384, 132.01),
        ((152_064, 5120, 13_824, 48, 40, 8, 128), 2048, 123.01),
        (LLAMA_70B, 2048, 234.01),
        ((151_936, 4096, 12_288, 36, 32, 8, 128), 16384, 120.01),
        ((49_152, 576, 1536, 30, 9, 3, 64), 8192, 21.51),
    ],
)
def test_the_compute_buffer_of_each_size(numbers: tuple[int, ...], context: int, logged: float) -> None:
    """`logged` MiB: llama.cpp's "compute buffer size" for files of this shape, with `n_outputs_max` of 1."""
    assert graph_bytes(shape(numbers), context) / MB == pytest.approx(logged, abs=0.02)


@pytest.mark.parametrize("size", [100, 512, 2048])
@pytest.mark.parametrize("kv_type", ["f16", "q8_0", "q4_0"])
def test_the_buffers_that_llama_cpp_reports(nano: Path, size: int, kv_type: settings.KvType) -> None:
    small = Shape.of(read_header(nano))
    log = log_of(nano, size=size, kv_type=kv_type, batch=512)
    assert kv_cache_bytes(small, size, kv_type) / MB == pytest.approx(logged_mb(log, "KV"), abs=0.01)
    # Smaller keys and values are turned in place: a little less than is reckoned with.
    assert graph_bytes(small, size) / MB == pytest.approx(logged_mb(log, "compute"), rel=0.12, abs=0.4)


@pytest.mark.parametrize("batch", [512, 2048])
@pytest.mark.parametrize("flash", ["on", "off"])
def test_the_compute_buffer_of_other_batches_and_attentions(
    nano: Path, batch: int, flash: settings.FlashAttention
) -> None:
    small = Shape.of(read_header(nano))
    log = log_of(nano, size=2048, batch=batch, flash_attention=flash)
    found = graph_bytes(small, 2048, batch, flash=flash == "on")
    assert found / MB == pytest.approx(logged_mb(log, "compute"), rel=0.02)


def test_the_outputs_are_the_engines() -> None:
    assert contexts.MOST_OUTPUTS == OUTPUTS


def log_of(path: Path, **changes: typing.Any) -> str:
    with (
        captured_log() as pieces,
        llama.Model(path, 0, lambda _: True) as model,
        contexts.Context(model, contexts.ContextSettings(threads=1, **changes), contexts.AbortFlag()),
    ):
        return b"".join(pieces).decode()


def logged_mb(log: str, kind: str) -> float:
    """The sum of the sizes of llama.cpp's buffers of one kind, in MiB."""
    sizes = re.findall(rf"CPU +{kind} buffer size = +([\d.]+) MiB", log)
    assert sizes
    return sum(map(float, sizes))


def test_whole_models() -> None:
    """Real sizes at Q4_K_M: what the formula says of models that are too large to try."""
    assert memory_needed(shape(QWEN_1B), 1_117_320_000, 4096) / GB == pytest.approx(1.35, abs=0.1)
    assert memory_needed(shape(QWEN_7B), 4_683_000_000, 4096) / GB == pytest.approx(4.85, abs=0.1)
    assert memory_needed(shape(LLAMA_70B), 42_520_000_000, 4096) / GB == pytest.approx(41.2, abs=0.2)


@pytest.mark.parametrize(
    ("total", "usable"),
    [(0, 0), (2 * GB, GB), (4 * GB, 2 * GB), (8 * GB, 6 * GB), (16 * GB, 12 * GB), (64 * GB, 56 * GB)],
)
def test_usable_memory(total: int, usable: int) -> None:
    assert usable_memory(total) == usable


# ------------------------------------------------------------------------------------- what cannot work

WEIGHTS = 30 * MB


def weighty(trained: int = 131072, *, shared: bool = False) -> Header:
    """`header` with 28 layers of 1 MiB each, and a vocabulary and an output (if not shared) of 1 MiB."""
    names = [f"blk.{layer}.{part}.weight" for layer in range(28) for part in ("attn_q", "ffn_up")]
    sizes = dict.fromkeys(names, MB // 2) | {"token_embd.weight": MB}
    sizes |= {} if shared else {"output.weight": MB - 64, "output_norm.weight": 64}
    tensors = [TensorInfo(name, (1,), 0, "F32", 0, size) for name, size in sizes.items()]
    return msgspec.structs.replace(header(trained), tensors=tensors)


def test_the_weights_of_layers() -> None:
    assert layer_weights(weighty()) == [MB] * 29
    assert layer_weights(weighty(shared=True)) == [MB] * 29
    assert weighty().tensor_bytes == WEIGHTS


def test_what_fits_is_not_remarked() -> None:
    assert check_memory(weighty(), 4096, "f16", GB, GB) == []


def test_a_context_that_memory_cannot_hold_is_refused() -> None:
    model, free = weighty(), GB
    with pytest.raises(LoadError) as caught:
        check_memory(model, 131072, "f16", free, 64 * GB)
    assert "131,072 tokens of context need 3.9 GB of memory, and 1.1 GB is free" in caught.value.message
    assert caught.value.hint == f"Try --context {largest_context(model, free)}"
    check_memory(model, largest_context(model, free), "f16", free, 64 * GB)


def test_what_is_kept_beside_the_context_fits_beside_it() -> None:
    model = weighty()
    full = 4096 * kv_bytes_per_token(model)
    taken = WEIGHTS + context_bytes(Shape.of(model), 4096)
    assert parking_limit(model, 4096, "f16", 64 * GB) == full
    assert parking_limit(model, 4096, "q8_0", 64 * GB) == full * 34 // 64
    assert parking_limit(model, 4096, "f16", taken + 2 * full) == full
    assert parking_limit(model, 4096, "f16", taken + full) == full // 2
    assert parking_limit(model, 4096, "f16", taken) == 0
    assert parking_limit(model, 4096, "f16", taken - GB) == 0


def test_what_a_gpu_holds_leaves_room_for_what_is_kept() -> None:
    model, context = weighty(), 4096
    free = WEIGHTS + context_bytes(Shape.of(model), context)
    assert parking_limit(model, context, "f16", free, gpu_layers=15) > 0
    assert parking_limit(model, context, "f16", free + 1000, batch=64) > 500


def test_smaller_keys_are_proposed_where_only_they_help() -> None:
    model = weighty()
    free = context_bytes(Shape.of(model), 1024, "q8_0") + MB
    with pytest.raises(LoadError, match=r"Try --context 1024 --kv-type q8_0"):
        check_memory(model, 4096, "f16", free, GB)
    with pytest.raises(LoadError, match="Close other programs"):
        check_memory(model, 4096, "f16", free, GB, flash=False)
    with pytest.raises(LoadError, match=r"and 0\.0 MB is free\. Close other programs"):
        check_memory(model, 4096, "f16", -5, GB)


def test_weights_that_exceed_the_memory_are_a_note_if_they_are_mapped() -> None:
    model = weighty()
    free = context_bytes(Shape.of(model), 1024) + WEIGHTS // 2
    assert check_memory(model, 1024, "f16", free, GB) == [
        "the weights need 30.4 MB and 15.7 MB of memory is free: it will be slow"
    ]
    (note,) = check_memory(model, 1024, "f16", free, free)
    assert "very slow" in note
    with pytest.raises(LoadError, match="--no-mmap"):
        check_memory(model, 1024, "f16", free, GB, mapped=False)


@pytest.mark.parametrize("shared", [False, True])
@pytest.mark.parametrize("gpu_layers", [1, 15, 29, 99])
def test_what_is_on_a_gpu_needs_no_memory(gpu_layers: int, shared: bool) -> None:
    model = weighty(shared=shared)
    whole = Shape.of(model)
    left = 29 - min(gpu_layers, 29)
    cache = kv_cache_bytes(whole, 4096) * left // 28
    compute = context_bytes(whole, 4096) - kv_cache_bytes(whole, 4096)
    weights = (left + shared) * MB  # an input embedding of its own is hardly read
    free = cache + compute + weights
    assert check_memory(model, 4096, "f16", free, GB, gpu_layers=gpu_layers) == []
    if weights:
        assert check_memory(model, 4096, "f16", free - 1, GB, gpu_layers=gpu_layers) != []
    with pytest.raises(LoadError):
        check_memory(model, 4096, "f16", cache + compute - 1, GB, gpu_layers=gpu_layers)
