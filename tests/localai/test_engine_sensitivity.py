"""How much a model loses with matrices of other types: measured in memory by the real worker."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from localai.engine.client import Engine
from localai.engine.protocol import Matrix
from localai.engine.settings import LoadOptions
from localai.errors import EngineError, UsageError
from localai.evaluation.run import Candidate, Plan, run
from localai.evaluation.texts import Text
from models.catalog import builtin_checkpoint
from models.ggml_types import WRITABLE
from models.gguf import read_header
from quantize.client import Wanted
from quantize.client import run as quantize
from quantize.protocol import Job

CHUNK = 64
DOWN, EMBEDDING, OUTPUT = "blk.0.ffn_down.weight", "token_embd.weight", "output.weight"
WRITABLE_MODEL = LoadOptions(context=256, writable=True, converse=False, speculate=False, threads=1)
SUMS = "".join(
    f"<｜User｜>What is {a} + {a + 38}?<｜Assistant｜><think>\n</think>\n\n{a} + {a + 38} = **{2 * a + 38}**"
    for a in range(113, 900, 61)
)

Talk = Callable[[Engine], Coroutine[Any, Any, Any]]


@pytest.fixture(scope="module", params=["BF16", "F32", "Q8_0"])
def model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r1-nano in each type whose weights can be changed."""
    output = tmp_path_factory.mktemp("model") / f"r1-nano-{request.param}.gguf"
    quantize(Job(source=str(builtin_checkpoint("r1-nano"))), [Wanted(request.param, output)], load=False)
    return output


def with_engine(path: Path, talk: Talk, options: LoadOptions = WRITABLE_MODEL) -> Any:
    async def work() -> Any:
        engine = Engine()
        try:
            await engine.load(path, options, made_here=True)
            return await talk(engine)
        finally:
            await engine.close()

    return asyncio.run(work())


def test_what_nothing_is_taken_from_loses_nothing_and_all_is_put_back(model: Path) -> None:
    async def talk(engine: Engine) -> None:
        kept = await engine.baseline(SUMS, CHUNK, 3, special=True)
        assert kept.tokens == 3 * (CHUNK - CHUNK // 2 - 1)
        for name in (DOWN, EMBEDDING, OUTPUT):
            same = await engine.perturb([Matrix(name, WRITABLE["F32"])])
            assert (same.kl, same.kl_stderr) == (0.0, 0.0)
        first = await engine.perturb([Matrix(DOWN, WRITABLE["Q4_0"])])
        assert first.kl > 0 < first.kl_stderr
        other = await engine.perturb([Matrix(EMBEDDING, WRITABLE["Q2_K"])])
        assert other.kl > first.kl
        assert (await engine.perturb([Matrix(DOWN, WRITABLE["Q4_0"])])).kl == first.kl
        await engine.perturb([Matrix(DOWN, WRITABLE[kind]) for kind in ("Q4_0", "Q2_K")])
        assert (await engine.perturb([])).kl == 0.0

    with_engine(model, talk)


def test_coarser_types_lose_more_and_matrices_add_up(model: Path) -> None:
    async def talk(engine: Engine) -> None:
        await engine.baseline(SUMS, CHUNK, 4, special=True)

        async def lost(kind: str, *names: str) -> float:
            return (await engine.perturb([Matrix(name, WRITABLE[kind]) for name in names])).kl

        by_type = [await lost(kind, DOWN) for kind in ("Q6_K", "Q4_K", "Q2_K")]
        assert by_type == sorted(by_type)
        up, both = await lost("Q3_K", "blk.2.ffn_up.weight"), await lost("Q3_K", "blk.2.ffn_up.weight", DOWN)
        assert both == pytest.approx(up + await lost("Q3_K", DOWN), rel=0.5)

    with_engine(model, talk)


def test_as_a_file_with_that_type(model: Path, tmp_path: Path) -> None:
    """Up to the rounding of what is multiplied with the matrix."""
    if "Q8_0" in model.name:
        model = model.with_name("r1-nano-F16.gguf")
        quantize(Job(source=str(builtin_checkpoint("r1-nano"))), [Wanted("F16", model)], load=False)
    coarse = tmp_path / "coarse.gguf"
    rules = ((r"^blk\.1\.ffn_(up|down)\.weight$", "Q3_K"), (r"^(?!blk\.1\.ffn_(up|down)).*weight$", "F32"))
    typed = tuple((pattern, WRITABLE[kind]) for pattern, kind in rules)
    job = Job(source=str(model), tensor_types=typed, embedding_type=0, output_type=0)
    quantize(job, [Wanted("Q8_0", coarse)], load=False)
    types = {tensor.name: tensor.type_name for tensor in read_header(coarse).tensors if len(tensor.shape) > 1}
    assert sorted(types.values()) == ["F32"] * (len(types) - 2) + ["Q3_K"] * 2

    async def in_memory(engine: Engine) -> float:
        await engine.baseline(SUMS, CHUNK, 8)
        names = ("blk.1.ffn_up.weight", "blk.1.ffn_down.weight")
        return (await engine.perturb([Matrix(name, WRITABLE["Q3_K"]) for name in names])).kl

    async def of_the_file(engine: Engine) -> float:
        plan = Plan(text=Text("sums", SUMS), context=CHUNK, chunks=8)
        candidates = [Candidate(path, path.name, read_header(path)) for path in (coarse, model)]
        report = await run(engine, candidates[0], candidates[1], LoadOptions(threads=1, converse=False), plan)
        assert report.kl is not None
        return report.kl.mean

    async def work() -> float:
        engine = Engine()
        try:
            return await of_the_file(engine)
        finally:
            await engine.close()

    assert with_engine(model, in_memory) == pytest.approx(asyncio.run(work()), rel=0.2)


def test_importance_is_used(model: Path) -> None:
    """Columns that matter alone are kept better than with all alike."""
    columns = next(tensor.shape[0] for tensor in read_header(model).tensors if tensor.name == DOWN)
    important = np.full(columns, 1e-4, "<f4")
    important[::7] = 1.0

    async def talk(engine: Engine) -> list[float]:
        await engine.baseline(SUMS, CHUNK, 2)
        matrices = [Matrix(DOWN, WRITABLE["Q4_0"], data) for data in (b"", important.tobytes())]
        return [(await engine.perturb([matrix])).kl for matrix in matrices]

    alike, important_ones = with_engine(model, talk)
    assert alike != important_ones


@pytest.mark.parametrize(
    "matrix",
    [
        Matrix("blk.99.ffn_down.weight", WRITABLE["Q4_0"]),
        Matrix("output_norm.weight", WRITABLE["Q4_0"]),
        Matrix(DOWN, 999),
        Matrix(DOWN, WRITABLE["Q4_0"], b"\0" * 12),
    ],
    ids=["no such layer", "no matrix", "no such type", "importance of another"],
)
def test_what_cannot_be_is_refused_and_changes_nothing(nano: Path, matrix: Matrix) -> None:
    async def talk(engine: Engine) -> None:
        await engine.baseline(SUMS, CHUNK, 2)
        with pytest.raises(EngineError, match=matrix.name.replace(".", r"\.")):
            await engine.perturb([Matrix(EMBEDDING, WRITABLE["Q4_0"]), matrix])
        assert (await engine.perturb([])).kl == 0.0

    with_engine(nano, talk)


def test_the_order_of_things(nano: Path) -> None:
    async def talk(engine: Engine) -> None:
        with pytest.raises(EngineError, match="nothing yet to compare with"):
            await engine.perturb([Matrix(DOWN, WRITABLE["Q4_0"])])
        with pytest.raises(UsageError, match="the text has"):
            await engine.baseline("What is 1 + 1?", CHUNK, 2)

    with_engine(nano, talk)


def test_a_model_that_is_mapped_is_left_alone(nano: Path) -> None:
    async def talk(engine: Engine) -> None:
        with pytest.raises(EngineError, match="cannot be changed"):
            await engine.baseline(SUMS, CHUNK, 2)

    with_engine(nano, talk, LoadOptions(context=256, converse=False, threads=1))
