"""The context that a model is given by default, and the memory that it needs with one."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from localai.chat.messages import ChatMessage
from localai.engine import llama
from localai.engine.bindings import captured_log
from localai.engine.client import Engine, LoadOptions
from localai.errors import UsageError
from models.fit import (
    BATCH,
    LEAST,
    MOST,
    Shape,
    check_context,
    default_context,
    graph_bytes,
    kv_cache_bytes,
    memory_needed,
    usable_memory,
)
from models.gguf import Header, read_header

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


@pytest.mark.parametrize(
    ("trained", "available", "context"),
    [
        (131072, 16 * GB, 16384),
        (131072, 4 * 28672 * 16384, 16384),
        (131072, 4 * 28672 * 16384 - 4, 8192),
        (131072, GB, 8192),
        (131072, 4 * 28672 * 4096, 4096),
        (131072, 0, 2048),
        (131072, -1, 2048),
        (8192, 16 * GB, 8192),
        (10000, 4 * 28672 * 5000, 5000),
        (3000, 0, 2048),
        (2048, 0, 2048),
        (512, 0, 512),
        (0, 16 * GB, 16384),
    ],
)
def test_default_context(trained: int, available: int, context: int) -> None:
    assert default_context(header(trained), available) == context


def test_separate_key_and_value_lengths_count() -> None:
    plain = header(4096)
    metadata = {**plain.metadata, "qwen2.attention.key_length": 64, "qwen2.attention.value_length": 32}
    assert msgspec.structs.replace(plain, metadata=metadata).kv_bytes_per_token == 28 * 2 * (64 + 32) * 2


def test_a_model_that_says_nothing_gets_the_most() -> None:
    empty = msgspec.structs.replace(header(0), metadata={})
    assert empty.kv_bytes_per_token == 0
    assert default_context(empty, 0) == MOST
    assert LEAST < MOST


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


@pytest.mark.parametrize(
    ("numbers", "weights", "context", "measured"),
    [
        # 4 layers of R1-Distill-Qwen-1.5B at Q4_K_M, 2 of 7B at Q4_K_M, 4 of Llama-8B at Q4_0.
        ((151_936, 1536, 8960, 4, 12, 2, 128), 422.2, 4096, 588.9),
        ((152_064, 3584, 18_944, 2, 28, 4, 128), 1003.1, 32768, 1363.7),
        ((128_256, 4096, 14_336, 4, 32, 8, 128), 1031.8, 16384, 1499.5),
    ],
)
def test_what_a_process_was_seen_to_need(
    numbers: tuple[int, ...], weights: float, context: int, measured: float
) -> None:
    """`measured` MiB: resident after a prompt and a reply, less the weights that it held twice."""
    needed = memory_needed(shape(numbers), int(weights * MB), context)
    assert measured <= needed / MB <= 1.15 * measured


@pytest.mark.parametrize("context", [100, 512, 2100, 8192])
def test_the_buffers_that_llama_cpp_reports(nano: Path, context: int) -> None:
    small = Shape.of(read_header(nano))
    with (
        captured_log() as pieces,
        llama.Model(nano, 0, lambda _: True) as model,
        llama.Context(model, context, 1, llama.AbortFlag()),
    ):
        log = b"".join(pieces).decode()
    assert kv_cache_bytes(small, context) / MB == pytest.approx(logged_mb(log, "KV"), abs=0.01)
    assert graph_bytes(small, context) / MB == pytest.approx(logged_mb(log, "compute"), rel=0.02)
    assert BATCH == llama.PREFILL_BATCH


def logged_mb(log: str, kind: str) -> float:
    """The sum of the sizes of llama.cpp's buffers of one kind, in MiB."""
    sizes = re.findall(rf"CPU +{kind} buffer size = +([\d.]+) MiB", log)
    assert sizes
    return sum(map(float, sizes))


@pytest.mark.skipif(sys.platform != "linux", reason="resident sizes of other systems count other things")
@pytest.mark.parametrize("context", [512, 2048])
async def test_the_worker_stays_within_it(nano: Path, context: int) -> None:
    info = read_header(nano)
    others = set(psutil.Process().children())
    engine = Engine()
    try:
        loaded = await engine.load(nano, LoadOptions(context=context, threads=2))
        if loaded.backend != "CPU":
            pytest.skip("a GPU's driver takes memory of its own")
        async for _ in engine.generate([ChatMessage("user", "What is 47 + 85?")]):
            pass
        (worker,) = set(psutil.Process().children()) - others
        resident = worker.memory_info().rss
    finally:
        await engine.close()
    assert memory_needed(Shape.of(info), info.tensor_bytes, context) > 0.95 * resident


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
