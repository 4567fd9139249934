"""How fast a model runs here, measured as llama-bench does, but through the worker and the pipe.

A test "pp512" reads a prompt of 512 random tokens, "tg128" generates 128 tokens after a prompt of one, and
"@ d4096" behind a name says that 4,096 tokens were in the context before. The clock is that of the app, from
sending the request to the last event. Each test is run once to warm up, then some times; a repetition that
did not compute exactly what it should is an error, never a figure.
"""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncGenerator, Callable, Iterator, Sequence
from contextlib import aclosing
from itertools import cycle
from pathlib import Path
from typing import Final, Protocol

import msgspec

from localai.engine import protocol
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import ContextOverflow, EngineError, UsageError
from models import figures
from models.header import Header
from models.machine import machine_id

SEED: Final = 20_250_120
"""Of the random tokens: they are the same each time, so that runs can be compared."""
_WARM_UP_TOKENS = 16
"""Generated before a test that generates: pages, caches and code are then in place on both sides."""
_GREEDY = Sampling(temperature=0.0)
_LEAST_READ, _LEAST_WRITTEN, _LEAST_TIMES = 128, 32, 3
"""Tokens and repetitions of tests whose figures are worth being kept with the model."""

OnStep = Callable[[str, int, int], None]
"""Is told the test, the repetition that begins (0: the warm-up), and how many there are."""


class BenchEngine(Protocol):
    """What is measured: the part of `localai.engine.client.Engine` that is used here."""

    async def describe(self) -> protocol.EngineInfo:
        """What the engine is made of."""

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
        """Load a model; errors call it by its name, if it has one. `made_here` as in `Engine.load`."""

    def continue_tokens(
        self, tokens: Sequence[int], sampling: Sampling, limits: Limits, *, ignore_end: bool = False
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        """Read `tokens` and generate."""

    async def status(self) -> protocol.StatusReport:
        """What the worker holds and uses."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is measured; lengths in tokens, 0 leaves a test out."""

    prompt: int = 512
    generate: int = 128
    depths: tuple[int, ...] = (0,)
    repetitions: int = 5
    parallel: int = 1
    """With more than 1, so many generations at the same time are measured too."""

    def context(self, trained: int) -> int:
        """The tokens of context that it needs, rounded up; UsageError if the model has less."""
        deepest = max(self.depths) + self.prompt + self.generate + 1
        needed = max(deepest, self.parallel * (self.generate + 1))
        if trained and needed > trained:
            raise UsageError(
                f"that takes {needed:,} tokens of context, and the model was trained for {trained:,}",
                "Make --depth, --prompt, --generate or --parallel smaller",
            )
        rounded = -(-needed // 256) * 256
        return min(rounded, trained) if trained else rounded


class Test(msgspec.Struct, frozen=True, kw_only=True):
    """One test: the mean rate of its repetitions and their standard deviation, in tokens per second."""

    test: str
    tokens_per_s: float
    stddev: float
    repetitions: int
    samples: list[float]
    bandwidth_bytes_per_s: float | None = None
    """What must have been read from memory at least, for a test that generates one reply at a time."""
    flops: float | None = None
    """Floating-point operations per second that must have been done at least, for a test that reads."""


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """What `localai bench --json` prints: see docs/json.md."""

    model: str
    backend: str
    threads: int
    tests: list[Test]
    architecture: str
    file_type: str
    size: int
    parameters: int
    context: int
    kv_type: str
    gpu_layers: int
    llama_cpp_commit: str
    memory: int
    """Bytes that the worker occupied at the end."""
    notes: list[str]


class _Case(msgspec.Struct, frozen=True):
    """A test before it is run."""

    depth: int
    prompt: int
    generate: int
    at_once: int = 1

    @property
    def name(self) -> str:
        name = f"pp{self.prompt}" if self.prompt else f"tg{self.generate}"
        name += f" x{self.at_once}" if self.at_once > 1 else ""
        return f"{name} @ d{self.depth}" if self.depth else name

    @property
    def tokens(self) -> int:
        """What its rate counts."""
        return (self.prompt or self.generate) * self.at_once


def cases(plan: Plan) -> Iterator[_Case]:
    """The tests of `plan`, in the order of llama-bench: by depth, reading before generating."""
    for depth in plan.depths:
        if plan.prompt:
            yield _Case(depth, plan.prompt, 0)
        if plan.generate:
            yield _Case(depth, 0, plan.generate)
    if plan.generate and plan.parallel > 1:
        yield _Case(0, 0, plan.generate, plan.parallel)


async def run(
    engine: BenchEngine,
    path: Path,
    header: Header,
    options: LoadOptions,
    plan: Plan,
    on_step: OnStep,
    *,
    name: str,
    sha256: str = "",
    stored_name: str = "",
    made_here: bool = False,
    on_cancel: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Load the model at `path`, whose header is `header`, and measure it; raises from the error tree.

    Without a context in `options`, it gets the one that `plan` needs. Drafts are never used. `stored_name` is
    what the model store calls the file, `made_here` as in `Engine.load`. If this is cancelled after something
    was measured, that is told to `on_cancel`: the last test then has fewer repetitions.
    """
    needed = plan.context(header.context_trained)
    if options.context is not None and options.context < needed:
        raise UsageError(f"--context {options.context:,} is less than the {needed:,} tokens that this takes")
    options = msgspec.structs.replace(
        options,
        context=options.context or needed,
        parallel=plan.parallel,
        speculate=False,
        draft=None,
        converse=False,
    )
    loaded = await engine.load(path, options, sha256=sha256, name=stored_name, made_here=made_here)
    info = await engine.describe()
    bench = _Bench(engine, loaded.vocabulary)
    measured: list[tuple[_Case, list[float]]] = []
    memory = (await engine.status()).memory

    def report() -> Report:
        tests = [_summary(case, samples, loaded, header) for case, samples in measured if samples]
        return _report(name, loaded, info, tests, memory)

    try:
        for case in cases(plan):
            measured.append((case, []))
            await bench.measure(case, plan.repetitions, on_step, measured[-1][1])
            memory = (await engine.status()).memory
    except asyncio.CancelledError:
        if (so_far := report()).tests:
            on_cancel(so_far)
        raise
    return report()


def _report(
    name: str, loaded: protocol.Loaded, info: protocol.EngineInfo, tests: list[Test], memory: int
) -> Report:
    return Report(
        model=name,
        backend=loaded.backend,
        threads=loaded.threads,
        tests=tests,
        architecture=loaded.architecture,
        file_type=loaded.file_type,
        size=loaded.size,
        parameters=loaded.parameters,
        context=loaded.context,
        kv_type=loaded.kv_type,
        gpu_layers=loaded.gpu_layers,
        llama_cpp_commit=info.llama_cpp_commit,
        memory=memory,
        notes=list(loaded.notes),
    )


def speed_of(report: Report) -> figures.Speed | None:
    """What is kept with the model: how fast it reads and writes with an empty context, one reply at a time.

    None if one of the two was not measured, or only in a hurry.
    """
    prompt, generate = _rate(report, "pp", _LEAST_READ), _rate(report, "tg", _LEAST_WRITTEN)
    if prompt is None or generate is None:
        return None
    return figures.Speed(
        machine=machine_id(),
        backend=report.backend,
        threads=report.threads,
        prompt=prompt,
        generate=generate,
    )


def _rate(report: Report, kind: str, least: int) -> figures.Rate | None:
    for test in report.tests:
        length = test.test.removeprefix(kind)
        usual = length != test.test and length.isdecimal()  # neither several at once nor behind a context
        if usual and int(length) >= least and test.repetitions >= _LEAST_TIMES:
            return figures.rate(test.samples)
    return None


class _Bench:
    """Runs cases. No prompt begins as one before it did, so that nothing is found in a cache unasked."""

    def __init__(self, engine: BenchEngine, vocabulary: int) -> None:
        self._engine = engine
        self._random = random.Random(SEED)
        self._vocabulary = vocabulary
        self._firsts = cycle(self._random.sample(range(vocabulary), vocabulary))

    async def measure(self, case: _Case, repetitions: int, on_step: OnStep, found: list[float]) -> None:
        """Put the seconds of each repetition into `found`, one after the other."""
        beginning = self._tokens(case.depth)
        for repetition in range(repetitions + 1):
            on_step(case.name, repetition, repetitions)
            if case.depth:  # whatever the last repetition left behind this beginning is cut off again
                await self._evaluate(beginning, 0)
            warm_up = not repetition and case.generate
            generate = min(_WARM_UP_TOKENS, case.generate) if warm_up else case.generate
            prompts = [[*beginning, *self._tokens(case.prompt or 1)] for _ in range(case.at_once)]
            started = time.perf_counter()
            await self._all(prompts, generate, case.depth)
            if repetition:
                found.append(time.perf_counter() - started)

    async def _all(self, prompts: list[list[int]], generate: int, cached: int) -> None:
        await asyncio.gather(*(self._evaluate(prompt, generate, cached) for prompt in prompts))

    async def _evaluate(self, tokens: list[int], generate: int, cached: int | None = None) -> None:
        """Read `tokens` and generate; EngineError unless exactly `cached` of them were in the cache."""
        limits = Limits(max_tokens=generate)
        async with aclosing(self._engine.continue_tokens(tokens, _GREEDY, limits, ignore_end=True)) as events:
            async for event in events:
                if isinstance(event, protocol.Overflow):
                    raise ContextOverflow(
                        f"{event.prompt_tokens:,} tokens do not fit into the context of {event.context:,}"
                    )
                if isinstance(event, protocol.Done):
                    _check(event, len(tokens), generate, cached)

    def _tokens(self, count: int) -> list[int]:
        """Random tokens, the first of which has not been the first before, as far as there are others."""
        if not count:
            return []
        more = (self._random.randrange(self._vocabulary) for _ in range(count - 1))
        return [next(self._firsts), *more]


def _check(done: protocol.Done, prompt: int, generate: int, cached: int | None) -> None:
    usage = done.usage
    read, wanted = usage.prompt_tokens - usage.cached_tokens, prompt - (cached or 0)
    if usage.prompt_tokens != prompt or usage.completion_tokens != generate:
        raise EngineError(
            f"the engine read {usage.prompt_tokens:,} and generated {usage.completion_tokens:,} tokens, "
            f"not {prompt:,} and {generate:,}: it ended for {done.reason!r}"
        )
    if cached is not None and read != wanted:
        raise EngineError(f"the engine evaluated {read:,} tokens of a prompt and not {wanted:,}")


def _summary(case: _Case, seconds: list[float], loaded: protocol.Loaded, header: Header) -> Test:
    rates = [case.tokens / sample for sample in seconds]
    rate = statistics.fmean(rates)
    one_reply = case.generate and case.at_once == 1
    return Test(
        test=case.name,
        tokens_per_s=rate,
        stddev=statistics.stdev(rates) if len(rates) > 1 else 0.0,
        repetitions=len(rates),
        samples=rates,
        bandwidth_bytes_per_s=rate * bytes_per_token(case.depth, case.generate, loaded)
        if one_reply
        else None,
        flops=rate * operations_per_token(header) if case.prompt else None,
    )


def bytes_per_token(depth: int, generate: int, loaded: protocol.Loaded) -> float:
    """Bytes read from memory for a generated token: the weights, and the cache at its mean length."""
    return loaded.weights_read + loaded.kv_bytes_per_token * (depth + generate / 2)


def operations_per_token(header: Header) -> int:
    """Floating-point operations for a token of a prompt: a multiplication and an addition for each weight.

    Of the layers' matrices only: the input embedding is looked up, the output is computed for the last token,
    and attention, which grows with the depth, is left out.
    """
    return 2 * sum(t.elements for t in header.tensors if t.name.startswith("blk.") and len(t.shape) > 1)
