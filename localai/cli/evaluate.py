"""`localai evaluate`: how good a model file is, and what it has lost against another."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import evaluate_tasks, options, output
from localai.cli.evaluate_tasks import Asking
from localai.errors import UsageError, WorkerDied, WorkerHung

if TYPE_CHECKING:
    from localai.evaluation.report import Report
    from localai.evaluation.run import Candidate, Plan, Step
    from models.store import Resolved

_SHOWN_S = 0.2


@dataclasses.dataclass(frozen=True)
class Reading(options.Loading):
    """How the models are loaded."""

    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            "-c",
            min=32,
            max=1_000_000,
            metavar="TOKENS",
            help="Tokens of each chunk of the text; the second half of them counts.",
            show_default=True,
        ),
    ] = 512


@options.spread
def evaluate(
    model: Annotated[str, typer.Argument(help="A model's name or a GGUF file.", show_default=False)],
    reference: Annotated[
        str | None,
        typer.Option(
            "--reference",
            metavar="MODEL",
            help="What it is compared with, mostly what it was quantized from: what has it lost?",
        ),
    ] = None,
    text: Annotated[
        Path | None,
        typer.Option("--text", help="Evaluate on this text, in UTF-8. Default: a mixed one of our own."),
    ] = None,
    chunks: Annotated[
        int, typer.Option(min=0, max=1_000_000, help="Only so many chunks of the text. 0: all.")
    ] = 0,
    fresh: Annotated[
        bool, typer.Option("--fresh", help="Measure again what was measured before, and is kept.")
    ] = False,
    json: options.Json = False,
    *,
    loading: Reading,
    asking: Asking,
) -> None:
    """Measure how well a model foretells a text, and what it has lost against another.

    It tells the perplexity, and with --reference the KL divergence, as
    llama-perplexity has them; docs/evaluate.md says how to read them.
    With --tasks: how many questions it answers rightly. Ctrl+C shows what
    is known by then; the next run goes on from there.
    """
    import asyncio

    from localai.evaluation.run import Plan
    from localai.evaluation.texts import EVALUATION, built_in, read
    from models.store import Store

    output.require_stdout()
    asking.check()
    if asking.tasks and (text is not None or chunks or loading.context != 512):
        raise UsageError("--text, --chunks and --context are not for --tasks", "Leave them out")
    store = Store()
    resolved = store.resolve(model)
    other = None if reference is None else store.resolve(reference)
    if asking.tasks:
        evaluate_tasks.ask(resolved, other, loading, asking, fresh=fresh, json=json)
        return
    given = built_in(EVALUATION) if text is None else read(options.path(text))
    plan = Plan(text=given, context=loading.context or 512, chunks=chunks, fresh=fresh)
    found: list[Report] = []
    try:
        found.append(asyncio.run(_run(resolved, other, loading, plan, found.append)))
        _keep(resolved, other, loading, found[-1])
    finally:  # also when Ctrl+C ends it before all is measured
        for report in (options.stored_types(one, resolved, other) for one in found):
            if json:
                output.print_json(report)
            else:
                print_report(report)


async def _run(
    model: Resolved,
    reference: Resolved | None,
    loading: Reading,
    plan: Plan,
    on_cancel: Callable[[Report], None],
) -> Report:
    """Evaluate; what is known is told to `on_cancel` if Ctrl+C comes first."""
    from localai.engine.client import Engine
    from localai.evaluation.run import run

    engine = Engine()
    steps = _Steps()
    allowed = loading.allowed(model, reference)
    try:
        return await run(
            engine,
            _candidate(model, allowed),
            None if reference is None else _candidate(reference, allowed),
            loading.options(model, reference),
            plan,
            steps,
            on_cancel,
        )
    except (WorkerDied, WorkerHung) as error:
        raise type(error)(error.message, "Run it again: it goes on from where it was") from error
    finally:
        steps.end()
        await engine.close()


def _keep(model: Resolved, reference: Resolved | None, loading: Reading, report: Report) -> None:
    """Keep what a model of the store has lost with it."""
    from localai.evaluation import keeping
    from models import measured
    from models.figures import Figures

    if model.manifest is None or reference is None:
        return
    one, allowed = model.manifest, loading.allowed(model, reference)
    loss = keeping.loss_of(report, options.digest(reference))
    mine, its = _candidate(model, allowed), _candidate(reference, allowed)
    if loss is not None and keeping.is_made_of(mine, its):
        measured.keep(
            Figures(
                sha256=one.sha256,
                file_type=one.file_type,
                size=one.size,
                loss=loss,
                imatrix="quantize.imatrix.file" in mine.header.metadata,
            )
        )


def _candidate(model: Resolved, allowed: tuple[str, ...]) -> Candidate:
    from localai.evaluation.run import Candidate

    header = options.header(model, allowed)
    return Candidate(model.path, model.name, header, options.digest(model), options.stored_name(model))


class _Steps:
    """Says on standard error how far it is: on a terminal in one line, elsewhere for every tenth."""

    def __init__(self) -> None:
        self._terminal = output.is_terminal()
        self._shown = time.monotonic()
        self._tenth = 0

    def __call__(self, step: Step) -> None:
        now, tenth = time.monotonic(), int(step.share * 10)
        left = "" if step.left_s is None else f", {output.duration(step.left_s)} left"
        line = f"chunk {min(step.done + 1, step.total)} of {step.total}{left}{_in_short(step)}"
        if self._terminal and now - self._shown >= _SHOWN_S:
            self._shown = now
            output.aside(f"\r\x1b[K{line}")
        elif not self._terminal and tenth > self._tenth and now - self._shown >= output.QUIET_S:
            self._tenth = tenth
            output.aside(f"{line}\n")

    def end(self) -> None:
        """Clear the line."""
        if self._terminal:
            output.aside("\r\x1b[K")


def _in_short(step: Step) -> str:
    kl = "" if step.kl is None else f", KL {_with_error(*step.kl)}"
    return "" if step.perplexity is None else f"; perplexity {_with_error(*step.perplexity)}{kl}"


def _with_error(value: float, error: float, unit: str = "") -> str:
    """A figure with the digits that its error leaves."""
    import math

    if error <= 0:
        return f"{value:.3f}{unit}"
    digits = min(max(1 - math.floor(math.log10(error)), 0), 6)
    return f"{value:.{digits}f}{unit} +- {error:.{digits}f}{unit}"


def print_report(report: Report) -> None:
    """Some lines about what was measured, then the figures."""
    for line in report.notes:
        output.note(line)
    if report.chunks < report.chunks_planned:
        output.note(
            f"stopped after {report.chunks:,} of {report.chunks_planned:,} chunks; the next run goes on there"
        )
    for label, value in [*_about(report), *_figures(report)]:
        print(f"{label:<24}{output.clean(value)}".rstrip())


def _about(report: Report) -> list[tuple[str, str]]:
    rows = [("model", f"{report.model}: {report.file_type}, {output.size(report.size)}")]
    if report.reference is not None:
        size = output.size(report.reference_size or 0)
        rows.append(("reference", f"{report.reference}: {report.reference_file_type}, {size}"))
    rows.append(
        (
            "text",
            f"{report.text}: {report.chunks:,} chunks of {report.context:,}, {report.tokens:,} tokens count",
        )
    )
    if report.tokens_per_s is not None:
        rate, memory = output.rate(report.tokens_per_s), output.size(report.memory)
        rows.append(
            (
                "took",
                f"{output.duration(report.seconds)}: {rate} tokens/s on {report.backend}; {memory} of memory",
            )
        )
    else:
        rows.append(("took", "nothing: it was measured before (--fresh measures again)"))
    return [*rows, ("", "")]


def _figures(report: Report) -> list[tuple[str, str]]:
    rows = [("perplexity", _with_error(report.perplexity, report.perplexity_stderr))]
    kl = report.kl
    if kl is None or report.reference is None:
        return rows

    def row(label: str, value: float | None, error: float | None, scale: float = 1, unit: str = "") -> None:
        rows.append((label, _with_error((value or 0.0) * scale, (error or 0.0) * scale, unit)))

    row("  of the reference", report.reference_perplexity, report.reference_perplexity_stderr)
    row("  ratio", report.perplexity_ratio, report.perplexity_ratio_stderr)
    row("KL divergence, mean", kl.mean, kl.mean_stderr)
    row("  median", kl.median, kl.median_stderr)
    row("  90 %", kl.p90, kl.p90_stderr)
    row("  99 %", kl.p99, kl.p99_stderr)
    row("  99.9 %", kl.p999, kl.p999_stderr)
    rows.append(("  maximum", f"{kl.max:.3f}"))
    row("same most likely token", report.top1_agreement, report.top1_agreement_stderr, 100, " %")
    row("right token's chance", report.dp_mean, report.dp_mean_stderr, 100, " %")
    row("  root mean square", report.dp_rms, report.dp_rms_stderr, 100, " %")
    return rows
