"""`localai bench`: what is measured, what is refused, and what is said of it."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncGenerator, Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from localai import bench
from localai.cli.bench import parse_depths, print_report
from localai.engine import protocol
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import ContextOverflow, EngineError, UsageError
from models.gguf import read_header
from models.header import Header, TensorInfo

COMMAND = [sys.executable, "-P", "-m", "localai", "bench"]
VOCABULARY = 5000


class FakeEngine:
    """Keeps the longest common beginning with any earlier prompt, as the real one does, and counts."""

    def __init__(self, vocabulary: int = VOCABULARY) -> None:
        self.vocabulary = vocabulary
        self.name = ""
        self.options: list[LoadOptions] = []
        self.requests: list[tuple[list[int], int, int]] = []
        """Prompt, tokens found in the cache, tokens generated."""
        self.known: list[list[int]] = []
        self.change: Callable[[protocol.Usage], protocol.Usage] = lambda usage: usage

    async def describe(self) -> protocol.EngineInfo:
        return protocol.EngineInfo(llama_cpp_commit="abc", system_info="", features=[], devices=[])

    async def load(
        self,
        path: Path,
        options: LoadOptions,
        on_progress: Callable[[float], None] | None = None,
        *,
        sha256: str = "",
        name: str = "",
        made_here: bool = False,
    ) -> protocol.Loaded:
        self.options.append(options)
        self.name = name
        return loaded(vocabulary=self.vocabulary, context=options.context, parallel=options.parallel)

    async def continue_tokens(
        self, tokens: Sequence[int], sampling: Sampling, limits: Limits, *, ignore_end: bool = False
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        assert ignore_end
        assert sampling.temperature == 0
        generate = limits.max_tokens or 0
        cached = min(max((common(known, tokens) for known in self.known), default=0), len(tokens) - 1)
        self.known.append(list(tokens))
        self.requests.append((list(tokens), cached, generate))
        yield protocol.PrefillProgress(1, len(tokens), len(tokens))
        usage = self.change(protocol.Usage(len(tokens), cached, generate, 0))
        yield protocol.Done(1, "length", usage, protocol.Timings(0, 0, 0, 0))

    async def status(self) -> protocol.StatusReport:
        return protocol.StatusReport(1, 12345, 0, (), (), 0, 2)


def common(one: Sequence[int], other: Sequence[int]) -> int:
    length = 0
    while length < min(len(one), len(other)) and one[length] == other[length]:
        length += 1
    return length


def loaded(**changes: Any) -> protocol.Loaded:
    fields: dict[str, Any] = {
        **dict.fromkeys(("description", "name", "prompt_format", "fingerprint"), ""),
        **{"architecture": "qwen2", "file_type": "Q8_0", "backend": "CPU", "threads": 2, "load_s": 0.1},
        **{"parameters": 1000, "size": 2000, "context": 1024, "context_trained": 8192, "gpu_layers": 0},
        **{"reasoning": True, "system_role": True, "sampling": Sampling(), "vocabulary": 10, "parallel": 1},
        **{"kv_type": "f16", "kv_bytes_per_token": 8, "weights_read": 1500, "notes": ("a note",)},
    }
    return protocol.Loaded(**(fields | changes))


HEADER = Header(
    version=3,
    metadata={"general.architecture": "qwen2", "qwen2.context_length": 8192},
    tensors=[
        TensorInfo("token_embd.weight", (10, 100), 0, "F32", 0, 4000),
        TensorInfo("blk.0.attn_q.weight", (10, 10), 0, "F32", 0, 400),
        TensorInfo("blk.0.attn_norm.weight", (10,), 0, "F32", 0, 40),
        TensorInfo("blk.1.ffn_up.weight", (10, 20), 0, "F32", 0, 800),
    ],
    alignment=32,
    data_offset=0,
    file_size=0,
)


async def measured(
    engine: FakeEngine,
    plan: bench.Plan,
    options: LoadOptions = LoadOptions(),
    on_step: bench.OnStep | None = None,
) -> bench.Report:
    on_step = on_step or (lambda test, repetition, of: None)
    return await bench.run(engine, Path("/m.gguf"), HEADER, options, plan, on_step, name="m")


SMALL = bench.Plan(prompt=32, generate=8, depths=(0, 64), repetitions=3)


async def test_the_tests_are_those_of_llama_bench() -> None:
    report = await measured(FakeEngine(), SMALL)
    assert [test.test for test in report.tests] == ["pp32", "tg8", "pp32 @ d64", "tg8 @ d64"]
    assert all(test.repetitions == len(test.samples) == 3 for test in report.tests)
    assert (report.model, report.backend, report.threads, report.memory) == ("m", "CPU", 2, 12345)
    assert report.notes == ["a note"]


async def test_exactly_what_is_asked_for_is_computed() -> None:
    engine = FakeEngine()
    await measured(engine, SMALL)
    computed = [(len(tokens) - cached, cached, generate) for tokens, cached, generate in engine.requests]
    assert computed[:4] == [(32, 0, 0)] * 4
    assert computed[4:8] == [(1, 0, 8)] * 4
    deep = computed[8:16]
    assert deep == [(64, 0, 0), (32, 64, 0), *[(1, 63, 0), (32, 64, 0)] * 3]
    assert computed[16:] == [(64, 0, 0), (1, 64, 8), *[(1, 63, 0), (1, 64, 8)] * 3]


async def test_a_long_generation_is_warmed_up_by_a_short_one() -> None:
    engine = FakeEngine()
    await measured(engine, bench.Plan(prompt=0, generate=100, repetitions=2))
    assert [generate for _, _, generate in engine.requests] == [16, 100, 100]


async def test_random_tokens_are_the_same_each_time_and_all_known_to_the_model() -> None:
    engines = [FakeEngine(40), FakeEngine(40)]
    for engine in engines:
        await measured(engine, SMALL)
    assert engines[0].requests == engines[1].requests
    assert {token for tokens, _, _ in engines[0].requests for token in tokens} == set(range(40))


async def test_generations_at_the_same_time() -> None:
    engine = FakeEngine()
    report = await measured(engine, bench.Plan(prompt=0, generate=8, repetitions=2, parallel=3))
    assert [test.test for test in report.tests] == ["tg8", "tg8 x3"]
    assert len(engine.requests) == 3 + 3 * 3
    assert engine.options[0].parallel == 3
    assert report.tests[1].bandwidth_bytes_per_s is None


async def test_drafts_are_never_used() -> None:
    engine = FakeEngine()
    await measured(engine, SMALL, LoadOptions(speculate=True, draft="/small.gguf", threads=3))
    (options,) = engine.options
    assert (options.speculate, options.draft, options.threads) == (False, None, 3)


@pytest.mark.parametrize(
    ("plan", "trained", "context"),
    [
        (bench.Plan(), 131072, 768),
        (bench.Plan(depths=(0, 4096)), 131072, 4864),
        (bench.Plan(prompt=1500, generate=500), 2048, 2048),
        (bench.Plan(prompt=0, generate=100, parallel=8), 131072, 1024),
        (bench.Plan(), 0, 768),
    ],
)
def test_the_context_is_what_the_tests_need(plan: bench.Plan, trained: int, context: int) -> None:
    assert plan.context(trained) == context


def test_more_than_the_model_was_trained_for_is_refused() -> None:
    with pytest.raises(
        UsageError, match=r"takes 4,737 tokens of context, and the model was trained for 2,048"
    ):
        bench.Plan(depths=(4096,)).context(2048)


async def test_a_context_of_the_users() -> None:
    engine = FakeEngine()
    await measured(engine, SMALL, LoadOptions(context=4096))
    assert engine.options[0].context == 4096
    with pytest.raises(UsageError, match="--context 100 is less than"):
        await measured(engine, SMALL, LoadOptions(context=100))


@pytest.mark.parametrize("field", ["prompt_tokens", "cached_tokens", "completion_tokens"])
async def test_what_was_computed_otherwise_is_no_figure(field: str) -> None:
    engine = FakeEngine()
    engine.change = lambda usage: msgspec.structs.replace(usage, **{field: getattr(usage, field) + 1})
    with pytest.raises(EngineError, match="the engine"):
        await measured(engine, SMALL)


async def test_an_overflow_is_an_error() -> None:
    class Full(FakeEngine):
        async def continue_tokens(
            self, tokens: Sequence[int], sampling: Sampling, limits: Limits, *, ignore_end: bool = False
        ) -> AsyncGenerator[protocol.GenerationEvent, None]:
            yield protocol.Overflow(1, 32, 16, 16, ())

    with pytest.raises(ContextOverflow):
        await measured(Full(), SMALL)


async def cancelled(test: str, repetition: int) -> bench.Report | None:
    """What is told of `SMALL` when it is cancelled as this repetition begins."""
    told: list[bench.Report] = []

    def on_step(name: str, number: int, repetitions: int) -> None:
        if (name, number) == (test, repetition):
            task.cancel()

    work = bench.run(
        FakeEngine(), Path("/m.gguf"), HEADER, LoadOptions(), SMALL, on_step, name="m", on_cancel=told.append
    )
    task = asyncio.ensure_future(work)
    with pytest.raises(asyncio.CancelledError):
        await task
    return told[0] if told else None


async def test_what_was_measured_before_it_was_broken_off_is_told() -> None:
    report = await cancelled("tg8", 3)
    assert report is not None
    assert [(test.test, test.repetitions) for test in report.tests] == [("pp32", 3), ("tg8", 2)]
    assert report.memory == 12345
    report = await cancelled("tg8", 1)
    assert report is not None
    assert [test.test for test in report.tests] == ["pp32"]
    assert await cancelled("pp32", 1) is None


async def test_the_engine_gets_the_name_in_the_store() -> None:
    engine = FakeEngine()
    name = {"name": "m", "stored_name": "r1:7b"}
    await bench.run(engine, Path("/m.gguf"), HEADER, LoadOptions(), SMALL, lambda *step: None, **name)
    assert engine.name == "r1:7b"


async def test_the_steps_are_told() -> None:
    steps: list[tuple[str, int, int]] = []
    await measured(
        FakeEngine(), bench.Plan(generate=0, repetitions=2), on_step=lambda *step: steps.append(step)
    )
    assert steps == [("pp512", 0, 2), ("pp512", 1, 2), ("pp512", 2, 2)]


def test_what_a_token_costs() -> None:
    assert bench.operations_per_token(HEADER) == 2 * (10 * 10 + 10 * 20)
    assert bench.bytes_per_token(100, 10, loaded()) == 1500 + 8 * (100 + 5)


async def test_what_a_rate_implies() -> None:
    report = await measured(FakeEngine(), SMALL)
    read, generated, _, deep = report.tests
    assert read.flops == pytest.approx(read.tokens_per_s * 600)
    assert read.bandwidth_bytes_per_s is None
    assert generated.flops is None
    assert generated.bandwidth_bytes_per_s == pytest.approx(generated.tokens_per_s * (1500 + 8 * 4))
    assert deep.bandwidth_bytes_per_s == pytest.approx(deep.tokens_per_s * (1500 + 8 * (64 + 4)))


def test_mean_and_deviation_are_of_the_rates() -> None:
    """As in llama-bench: 10 tokens in 1 s and in 0.5 s are 15 tokens/s, not 13.3."""
    case = next(bench.cases(bench.Plan(prompt=0, generate=10)))
    test = bench._summary(case, [1.0, 0.5], loaded(), HEADER)
    assert (test.tokens_per_s, test.stddev) == (15.0, pytest.approx(7.0710678))
    assert bench._summary(case, [1.0], loaded(), HEADER).stddev == 0.0


@pytest.mark.parametrize(("text", "depths"), [("0", (0,)), ("0,4096", (0, 4096)), (" 5 , 5, 0", (5, 0))])
def test_depths(text: str, depths: tuple[int, ...]) -> None:
    assert parse_depths(text) == depths


@pytest.mark.parametrize("text", ["", "x", "0,", "-1", "1.5", "9" * 30])
def test_depths_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="--depth"):
        parse_depths(text)


async def test_the_table(capsys: pytest.CaptureFixture[str]) -> None:
    report = await measured(FakeEngine(), SMALL)
    print_report(report)
    out, err = capsys.readouterr()
    lines = out.splitlines()
    assert lines[0] == "model       m: qwen2 Q8_0, 2.0 kB, 1k parameters"
    assert lines[1] == "backend     CPU, 2 threads"
    assert lines[2] == "context     256 tokens as f16; the engine took 12.3 kB of memory"
    assert lines[5].split() == ["TEST", "TOKENS/S", "+-", "MEMORY", "ARITHMETIC"]
    assert lines[6].startswith("pp32  ")
    assert lines[6].endswith(" GFLOP/s")
    assert lines[7].endswith(" GB/s")
    assert err == "localai: a note\n"


# -------------------------------------------------------------------------------------- with a real model


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*COMMAND, *words], capture_output=True, text=True, timeout=120, check=False)


def fields_of(kind: type[msgspec.Struct]) -> list[str]:
    return list(kind.__struct_fields__)


def test_r1_nano(nano: Path) -> None:
    words = ["--prompt", "64", "--generate", "8", "--depth", "0,100", "--parallel", "2", "--repetitions", "2"]
    done = run(str(nano), "--json", *words)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert list(report) == fields_of(bench.Report)
    names = [test["test"] for test in report["tests"]]
    assert names == ["pp64", "tg8", "pp64 @ d100", "tg8 @ d100", "tg8 x2"]
    for test in report["tests"]:
        assert list(test) == fields_of(bench.Test)
        assert test["tokens_per_s"] > 0
    assert (report["model"], report["backend"], report["context"]) == (nano.name, "CPU", 256)
    assert report["llama_cpp_commit"]
    assert done.stderr.splitlines() == [f"{name} ..." for name in names]


def test_the_documented_fields_are_the_printed_ones() -> None:
    documented = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    section = documented.partition("## `localai bench --json`")[2].partition("\n## ")[0]
    table = section.partition("Times are those")[0]
    names = [*fields_of(bench.Report), *(f"tests.{name}" for name in fields_of(bench.Test))]
    assert all(f"`{name}`" in table for name in names)


def test_flops_of_a_real_file_are_less_than_of_all_its_parameters(nano: Path) -> None:
    header = read_header(nano)
    assert header.parameters < bench.operations_per_token(header) < 2 * header.parameters


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["--prompt", "0", "--generate", "0"], 2, "nothing to measure"),
        (["--depth", "many"], 2, "--depth"),
        (["--depth", "100000"], 2, "was trained for 2,048"),
        (["--kv-type", "q8_0", "--flash-attention", "off"], 2, "needs flash attention"),
        (["--repetitions", "0"], 2, "--repetitions"),
    ],
)
def test_what_is_refused(nano: Path, words: list[str], code: int, said: str) -> None:
    done = run(str(nano), *words)
    assert done.returncode == code
    assert said in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""


@pytest.mark.skipif(os.name == "nt", reason="signals")
def test_interrupted(nano: Path) -> None:
    process = subprocess.Popen(
        [*COMMAND, str(nano), "--prompt", "0", "--generate", "8", "--repetitions", "1000", "--depth", "0,64"],
        stdout=-1,
        stderr=-1,
        text=True,
    )
    assert process.stderr is not None
    assert process.stderr.readline() == "tg8 ...\n"
    assert process.stderr.readline() == "tg8 @ d64 ...\n"  # the first test is done
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert next(line for line in out.splitlines() if line.startswith("tg8 ")).endswith(" GB/s")
    assert err.splitlines()[-1] == "localai: error: interrupted"
    assert "Traceback" not in err
