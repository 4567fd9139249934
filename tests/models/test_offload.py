"""How many layers a GPU is given: made-up files of R1's shapes on made-up devices."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from models.fit import Shape, default_context, graph_bytes, kv_cache_bytes, layer_weights
from models.header import Header, TensorInfo
from models.offload import RESERVE, Memory, Offload, layers_that_fit, plan, shares
from models.offload import default_context as gpu_context

GB = 1 << 30


def model(layers: int, width: int, feed_forward: int, heads: int, kv_heads: int, vocabulary: int) -> Header:
    """A file at Q4_K_M's 4.85 bits for each weight, as R1's distills have it: output apart from input."""

    def tensor(name: str, weights: int) -> TensorInfo:
        return TensorInfo(name, (weights,), 12, "Q4_K", 0, weights * 485 // 800)

    tensors = [tensor("token_embd.weight", width * vocabulary), tensor("output.weight", width * vocabulary)]
    for layer in range(layers):
        kv = width * kv_heads // heads
        for name, weights in (
            *((f"attn_{part}", width * width) for part in ("q", "output")),
            *((f"attn_{part}", width * kv) for part in ("k", "v")),
            *((f"ffn_{part}", width * feed_forward) for part in ("up", "gate", "down")),
        ):
            tensors.append(tensor(f"blk.{layer}.{name}.weight", weights))
    return Header(
        version=3,
        metadata={
            "general.architecture": "qwen2",
            "qwen2.context_length": 131072,
            "qwen2.block_count": layers,
            "qwen2.embedding_length": width,
            "qwen2.feed_forward_length": feed_forward,
            "qwen2.attention.head_count": heads,
            "qwen2.attention.head_count_kv": kv_heads,
            "tokenizer.ggml.tokens": ("x",),
        },
        tensors=tensors,
        alignment=32,
        data_offset=0,
        file_size=0,
    )


QWEN_7B = model(28, 3584, 18_944, 28, 4, 152_064)
LLAMA_70B = model(80, 8192, 28_672, 64, 8, 128_256)


def needed(header: Header, layers: int, context: int) -> int:
    """Bytes that the last `layers` need on one device, written down anew."""
    shape = Shape.of(header)
    weights = sum(layer_weights(header)[-layers:])
    cache = kv_cache_bytes(shape, context) // shape.layers * (layers - 1)
    largest_matrix = max(t.size for t in header.tensors if "ffn" in t.name)
    return weights + cache + graph_bytes(shape, context) + largest_matrix + RESERVE


@pytest.mark.parametrize("header", [QWEN_7B, LLAMA_70B])
@pytest.mark.parametrize("layers", [1, 2, 20, 28])
def test_exactly_what_fits(header: Header, layers: int) -> None:
    room = needed(header, layers, 4096)
    assert layers_that_fit(header, 4096, "f16", [room]) == layers
    assert layers_that_fit(header, 4096, "f16", [room - 1]) == layers - 1


def test_known_cards() -> None:
    """The 7B's 4.7 GB fit on a card of 8 GB and not on one of 4; the 70B's 43 GB need two of 24."""
    assert layers_that_fit(QWEN_7B, 8192, "f16", [8 * GB]) == 29
    assert 10 < layers_that_fit(QWEN_7B, 8192, "f16", [4 * GB]) < 25
    assert 35 < layers_that_fit(LLAMA_70B, 8192, "f16", [24 * GB]) < 50
    assert layers_that_fit(LLAMA_70B, 8192, "f16", [24 * GB, 24 * GB]) == 81
    assert layers_that_fit(QWEN_7B, 8192, "f16", [256 << 20]) == 0
    assert layers_that_fit(QWEN_7B, 8192, "f16", [0]) == 0


def test_the_cache_counts() -> None:
    room = needed(QWEN_7B, 29, 32768)
    assert layers_that_fit(QWEN_7B, 32768, "f16", [room]) == 29
    assert layers_that_fit(QWEN_7B, 65536, "f16", [room]) < 29
    assert layers_that_fit(QWEN_7B, 65536, "q4_0", [room]) == 29
    assert layers_that_fit(QWEN_7B, 32768, "f16", [room], batch=2048) < 29
    assert layers_that_fit(QWEN_7B, 32768, "f16", [room], flash=False) < 29


@pytest.mark.parametrize(
    ("count", "free", "expected"),
    [
        (29, [8], [range(29)]),
        (3, [8], [range(26, 29)]),
        (28, [8, 8], [range(1, 15), range(15, 29)]),
        (29, [8, 8], [range(15), range(15, 29)]),
        (20, [6, 2], [range(9, 24), range(24, 29)]),
        (1, [6, 2], [range(28, 29), range(29, 29)]),
        (4, [0, 8], [range(25, 25), range(25, 29)]),
    ],
)
def test_who_gets_which_layers(count: int, free: list[int], expected: list[range]) -> None:
    """As load_tensors logs it: `layer N assigned to device D`, for layers that begin at 29 - count."""
    assert shares(29, count, free) == expected


@given(st.integers(1, 81), st.lists(st.integers(0, 1 << 38), min_size=1, max_size=4))
def test_every_layer_has_one_device(count: int, free: list[int]) -> None:
    parts = shares(81, count, free)
    assert len(parts) == len(free)
    assert [layer for part in parts for layer in part] == list(range(81 - count, 81))


def one(free: int) -> list[Memory]:
    return [Memory(free, 24 * GB)]


@pytest.mark.parametrize("wanted", [None, -1, 29, 1000])
def test_all_that_are_asked_for(wanted: int | None) -> None:
    assert plan(QWEN_7B, 4096, "f16", wanted, one(24 * GB)) == Offload(29)


def test_fewer_than_asked_for_are_said() -> None:
    found = plan(QWEN_7B, 4096, "f16", None, one(4 * GB))
    assert found.layers == layers_that_fit(QWEN_7B, 4096, "f16", [4 * GB])
    (note,) = found.notes
    assert note.startswith(f"{found.layers} of 29 layers fit into the 4.3 GB of memory that the GPU has free")
    assert plan(QWEN_7B, 4096, "f16", 3, one(4 * GB)) == Offload(3)
    none = plan(QWEN_7B, 4096, "f16", 3, [Memory(1, GB), Memory(1, GB)])
    assert none.layers == 0
    assert "no layer fits into the 0.0 MB of memory that the 2 GPUs have free" in none.notes[0]


def test_without_a_gpu_layers_that_are_asked_for_are_said_to_stay() -> None:
    assert plan(QWEN_7B, 4096, "f16", None, []) == Offload(0)
    assert plan(QWEN_7B, 4096, "f16", 0, []) == Offload(0)
    found = plan(QWEN_7B, 4096, "f16", 5, [])
    assert found.layers == 0
    assert "no GPU" in found.notes[0]


def test_a_device_that_does_not_tell_is_believed() -> None:
    assert plan(QWEN_7B, 4096, "f16", 12, [Memory(0, 0)]) == Offload(12)
    assert plan(QWEN_7B, 4096, "f16", None, [Memory(0, 0)]) == Offload(29)


def test_the_default_context_comes_from_where_the_cache_is() -> None:
    main = 2 * GB
    here = default_context(QWEN_7B, main)
    assert gpu_context(QWEN_7B, main, "f16", []) == here
    assert gpu_context(QWEN_7B, main, "f16", one(4 * GB)) == here
    assert gpu_context(QWEN_7B, main, "f16", [Memory(0, 0)]) == here
    there = gpu_context(QWEN_7B, main, "f16", one(12 * GB))
    assert there > here
    spare = 12 * GB - RESERVE - sum(layer_weights(QWEN_7B))
    assert there == default_context(QWEN_7B, 2 * spare)
    assert plan(QWEN_7B, there, "f16", None, one(12 * GB)) == Offload(29)
    assert gpu_context(QWEN_7B, main, "f16", one(24 * GB)) == 131072
