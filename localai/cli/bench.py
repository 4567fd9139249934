"""`localai bench`: how fast a model runs on this machine, as llama-bench tells it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import UsageError, WorkerDied, WorkerHung

if TYPE_CHECKING:
    from localai.bench import Plan, Report, Test
    from models.store import Resolved

_MOST = 10_000_000


@options.spread
def bench(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A model's name or a GGUF file. Default: the newest reasoning model.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    prompt: Annotated[int, typer.Option(min=0, max=_MOST, help="Tokens of a prompt to read. 0: none.")] = 512,
    generate: Annotated[int, typer.Option(min=0, max=_MOST, help="Tokens to generate. 0: none.")] = 128,
    depth: Annotated[
        str, typer.Option(metavar="TOKENS,...", help="Tokens that are in the context before.")
    ] = "0",
    repetitions: Annotated[int, typer.Option(min=1, max=1000, help="How often each test is measured.")] = 5,
    parallel: Annotated[
        int, typer.Option(min=1, max=64, help="Measure so many generations at the same time, too.")
    ] = 1,
    *,
    loading: options.Loading,
) -> None:
    """Measure how fast a model reads and generates here.

    The same tests as those of llama-bench, but through all that an answer goes through. Close other programs
    first. Without --context, the context is as large as the tests need.
    """
    import asyncio

    from localai.bench import Plan
    from models.store import Store

    output.require_stdout()
    if not prompt and not generate:
        raise UsageError("there is nothing to measure", "Give --prompt or --generate a number above 0")
    depths = parse_depths(depth)
    resolved = options.choose_model(Store(), model)
    plan = Plan(prompt=prompt, generate=generate, depths=depths, repetitions=repetitions, parallel=parallel)
    so_far: list[Report] = []
    try:
        so_far.append(asyncio.run(_run(resolved, loading, plan, so_far.append)))
        _keep(resolved, loading, so_far[-1])
    finally:  # also when Ctrl+C ends it before all is measured
        for report in (options.stored_types(one, resolved) for one in so_far):
            if json:
                output.print_json(report)
            else:
                print_report(report)


def _keep(model: Resolved, loading: options.Loading, report: Report) -> None:
    """Keep the speed with a model of the store, if it was loaded as it always is."""
    from localai.bench import speed_of
    from models import measured
    from models.figures import Figures

    usual = options.Loading(loading.context, allow_architecture=loading.allow_architecture)
    speed = speed_of(report)
    if model.manifest is None or speed is None or dataclasses.replace(loading, sandbox=None) != usual:
        return
    one = model.manifest
    measured.keep(Figures(sha256=one.sha256, file_type=one.file_type, size=one.size, speed=speed))


def parse_depths(text: str) -> tuple[int, ...]:
    """The numbers of "0,4096"; UsageError."""
    words = [word.strip() for word in text.split(",")]
    if not all(word.isascii() and word.isdecimal() and len(word) < 9 for word in words):
        raise UsageError(f"--depth {text!r} is not a list of numbers", "Try: --depth 0,4096")
    return tuple(dict.fromkeys(int(word) for word in words))


async def _run(
    model: Resolved, loading: options.Loading, plan: Plan, on_cancel: Callable[[Report], None]
) -> Report:
    """Measure; what was measured is told to `on_cancel` if Ctrl+C comes first."""
    from localai.bench import run
    from localai.engine.client import Engine

    engine = Engine()
    steps = _Steps()
    try:
        return await run(
            engine,
            model.path,
            options.header(model, loading.allowed()),
            loading.options(model),
            plan,
            steps,
            name=model.name,
            sha256=options.digest(model),
            stored_name=options.stored_name(model),
            on_cancel=on_cancel,
        )
    except (WorkerDied, WorkerHung) as error:
        raise type(error)(error.message, "Measure again to start a new one") from error
    finally:
        steps.end()
        await engine.close()


class _Steps:
    """Says on standard error what is measured: on a terminal each repetition, elsewhere each test."""

    def __init__(self) -> None:
        self._terminal = output.is_terminal()

    def __call__(self, test: str, repetition: int, repetitions: int) -> None:
        if self._terminal:
            what = f"{repetition}/{repetitions}" if repetition else "warming up"
            output.aside(f"\r\x1b[K{test} {what}")
        elif repetition == 1:
            output.aside(f"{test} ...\n")

    def end(self) -> None:
        """Clear the line."""
        if self._terminal:
            output.aside("\r\x1b[K")


def print_report(report: Report) -> None:
    """A few lines about what was measured, then a table."""
    for line in report.notes:
        output.note(line)
    kept = f"{report.context:,} tokens as {report.kv_type}"
    rows = {
        "model": f"{report.model}: {report.architecture} {report.file_type}, {output.size(report.size)}, "
        f"{output.count(report.parameters)} parameters",
        "backend": f"{report.backend}, {report.threads} threads"
        + (f", {report.gpu_layers} layers on the GPU" if report.gpu_layers else ""),
        "context": f"{kept}; the engine took {output.size(report.memory)} of memory",
        "llama.cpp": f"commit {report.llama_cpp_commit}",
    }
    for label, value in rows.items():
        print(f"{label:<12}{output.clean(value)}")
    print()
    output.print_table(["TEST", "TOKENS/S", "+-", "MEMORY", "ARITHMETIC"], [_row(t) for t in report.tests])


def _row(test: Test) -> list[str]:
    bandwidth, flops = test.bandwidth_bytes_per_s, test.flops
    return [
        test.test,
        f"{test.tokens_per_s:.2f}",
        f"{test.stddev:.2f}",
        f"{bandwidth / 1e9:.1f} GB/s" if bandwidth is not None else "",
        f"{flops / 1e9:.1f} GFLOP/s" if flops is not None else "",
    ]
