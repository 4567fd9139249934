"""What a model is said to take against what a worker with it takes, and how its parts add up."""

from __future__ import annotations

import sys
from pathlib import Path

import msgspec
import pytest

from benchmarks.shapes import write
from benchmarks.worker_memory import measure
from localai.engine.settings import LoadOptions
from models import fit, need
from models.gguf import read_header
from models.header import Header, TensorInfo
from models.parts import read_whole

WITHIN = 0.08
MB = 1 << 20


@pytest.fixture(scope="session")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """R1-Distill-Qwen-1.5B at Q4_K_M with 2 of its 28 layers: 436 MB that are a hole in the file."""
    return write(tmp_path_factory.mktemp("small") / "small.gguf", "r1:1.5b", "Q4_K_M", layers=2)


async def compare(path: Path, context: int, kv_type: fit.KvType) -> float:
    """The estimate, as a share of what is needed."""
    options = LoadOptions(context=context, kv_type=kv_type, threads=2, gpu_layers=0)
    try:
        real = await measure(path, options, fill=600)
    except PermissionError as error:
        pytest.skip(str(error))
    assert real.resident >= real.needed - 8 * MB
    return need.need(read_whole(path), context, kv_type).total / real.needed


linux = pytest.mark.skipif(sys.platform != "linux", reason="other systems do not tell which pages are needed")


@linux
@pytest.mark.parametrize(("context", "kv_type"), [(2048, "f16"), (8192, "q8_0")])
async def test_a_model_of_r1s_shape_takes_what_is_said(
    small: Path, context: int, kv_type: fit.KvType
) -> None:
    assert await compare(small, context, kv_type) == pytest.approx(1, abs=WITHIN)


@linux
@pytest.mark.parametrize("context", [1024, 2048])
async def test_the_tiny_r1_takes_what_is_said(nano: Path, context: int) -> None:
    assert await compare(nano, context, "f16") == pytest.approx(1, abs=WITHIN)


def header(*, shared: bool = False, trained: int = 131_072) -> Header:
    """Four layers of 10 MiB; an embedding of 40 MiB, and an output of its own unless `shared`."""
    sizes = {"token_embd.weight": 40 * MB, **({} if shared else {"output.weight": 50 * MB})}
    sizes |= {f"blk.{layer}.ffn_up.weight": 10 * MB for layer in range(4)}
    return Header(
        version=3,
        metadata={
            "general.architecture": "qwen2",
            "qwen2.context_length": trained,
            "qwen2.block_count": 4,
            "qwen2.embedding_length": 1536,
            "qwen2.feed_forward_length": 8960,
            "qwen2.attention.head_count": 12,
            "qwen2.attention.head_count_kv": 2,
            "tokenizer.ggml.tokens": ("a",) * 50_000,
        },
        tensors=[TensorInfo(name, (1,), 0, "F32", 0, size) for name, size in sizes.items()],
        alignment=32,
        data_offset=0,
        file_size=0,
    )


def test_an_embedding_of_its_own_takes_no_memory_while_it_is_mapped() -> None:
    assert need.need(header(), 4096).weights == 90 * MB
    assert need.need(header(), 4096, mapped=False).weights == 130 * MB
    assert need.need(header(shared=True), 4096).weights == 80 * MB


def test_the_parts_are_those_of_the_formulas() -> None:
    model = header()
    shape = fit.Shape.of(model)
    found = need.need(model, 4096, "q8_0")
    assert found.cache == fit.kv_cache_bytes(shape, 4096, "q8_0")
    assert found.compute == fit.compute_bytes(shape, 4096)
    assert found.process == fit.worker_bytes(shape)
    assert found.total == found.weights + found.cache + found.compute + found.process
    assert found.total == fit.memory_needed(shape, fit.weights_read(model), 4096, "q8_0")


def test_what_a_gpu_has_takes_no_main_memory() -> None:
    here, most, none = (need.need(header(), 4096, gpu_layers=count) for count in (0, 3, 5))
    assert most.weights == here.weights - 50 * MB - 20 * MB
    assert most.cache == here.cache // 2
    assert (none.weights, none.cache) == (0, 0)


def test_the_largest_context_is_the_largest() -> None:
    model = header()
    free = need.need(model, 20_000).total
    found = need.largest_context(model, free)
    assert found == 19_456
    assert need.need(model, found + need.STEP).total > free
    assert need.largest_context(model, 64 << 30) == 131_072
    least = need.need(model, fit.LEAST).total
    assert need.largest_context(model, least) == fit.LEAST
    assert need.largest_context(model, least - 1) == 0
    assert need.largest_context(header(trained=1500), need.need(model, 1500).total) == 1500


def test_contexts_of_a_model_that_knows_few_tokens() -> None:
    assert [need.usual_context(header()), need.least_context(header())] == [8192, 2048]
    assert [need.usual_context(header(trained=1000)), need.least_context(header(trained=1000))] == [1000] * 2
    silent = msgspec.structs.replace(header(), metadata={})
    assert need.trained(silent) == fit.LEAST


def test_the_header_of_a_file(nano: Path) -> None:
    model = read_header(nano)
    (embedding,) = (tensor.size for tensor in model.tensors if tensor.name == "token_embd.weight")
    assert fit.embedding_bytes(model) == embedding > 0
    assert fit.weights_read(model) == model.tensor_bytes - embedding
