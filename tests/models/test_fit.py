"""The context that a model is given by default."""

from __future__ import annotations

import msgspec
import pytest

from localai.errors import UsageError
from models.fit import LEAST, MOST, check_context, default_context
from models.gguf import Header

GB = 1 << 30


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
