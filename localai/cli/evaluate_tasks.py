"""`localai evaluate --tasks`: how many questions a model answers rightly, and how many another one does."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import UnsupportedModel, UsageError, WorkerDied, WorkerHung

if TYPE_CHECKING:
    from localai.evaluation.run import Candidate
    from localai.evaluation.tasks.report import Report
    from localai.evaluation.tasks.run import Result, Step
    from localai.evaluation.tasks.sets import TaskSet
    from models.store import Resolved


@dataclasses.dataclass(frozen=True)
class Asking:
    """Right answers."""

    tasks: Annotated[
        bool,
        typer.Option(
            "--tasks",
            help="Ask questions instead, of a set that suits the model: how many does it get right?",
        ),
    ] = False
    questions: Annotated[
        int | None,
        typer.Option(min=1, max=10_000, metavar="N", help="With --tasks: only so many.", show_default=False),
    ] = None
    think_budget: Annotated[
        int | None,
        typer.Option(
            "--think-budget",
            min=0,
            max=100_000,
            metavar="TOKENS",
            help="With --tasks: close the thinking after so many tokens, and have it answer. Default: 2048.",
            show_default=False,
        ),
    ] = None
    each: Annotated[
        bool, typer.Option("--each", help="With --tasks: tell of each question, not only of all.")
    ] = False

    def check(self) -> None:
        """UsageError if there is something that goes with --tasks, and no --tasks."""
        alone = (
            ("--questions", self.questions is not None),
            ("--think-budget", self.think_budget is not None),
            ("--each", self.each),
        )
        for name, given in alone:
            if given and not self.tasks:
                raise UsageError(f"{name} goes with --tasks", "Add --tasks")


def ask(
    model: Resolved,
    reference: Resolved | None,
    loading: options.Loading,
    asking: Asking,
    *,
    fresh: bool,
    json: bool,
) -> None:
    """Ask `model`, and `reference` the same; print what came of it, also when Ctrl+C ends it before."""
    import asyncio

    from localai.evaluation.tasks.report import report

    found: list[Result] = []
    try:
        asyncio.run(_ask(model, reference, loading, asking, fresh, found.append))
    finally:
        if found:
            result = report(found[0], found[1] if len(found) > 1 else None)
            result = options.stored_types(result, model, reference if len(found) > 1 else None)
            if json:
                output.print_json(result)
            else:
                print_report(result, found[0], each=asking.each)


async def _ask(
    model: Resolved,
    reference: Resolved | None,
    loading: options.Loading,
    asking: Asking,
    fresh: bool,
    take: Callable[[Result], None],
) -> None:
    from localai.engine.client import Engine
    from localai.evaluation.tasks.run import Plan, run

    allowed = loading.allowed(model, reference)
    candidates = [_candidate(one, allowed) for one in (model, reference) if one is not None]
    plan = Plan(
        tasks=_fitting(candidates[0]),
        questions=asking.questions or 0,
        think_budget=asking.think_budget,
        fresh=fresh,
    )
    engine = Engine()
    try:
        with output.progress() as progress:
            for one, resolved in zip(candidates, filter(None, (model, reference)), strict=True):
                shown = _shown(progress, f"Asking {one.name}")
                result = await run(engine, one, loading.options(model, reference), plan, shown, take)
                take(result)
                if asking.think_budget is None:
                    _keep(resolved, result)
    except (WorkerDied, WorkerHung) as error:
        raise type(error)(error.message, "Run it again: it goes on from where it was") from error
    finally:
        await engine.close()


def _keep(model: Resolved, result: Result) -> None:
    """Keep how many were right with a model of the store."""
    from models import measured
    from models.figures import Figures

    if (one := model.manifest) is not None:
        measured.keep(
            Figures(sha256=one.sha256, file_type=one.file_type, size=one.size, answers=result.answers)
        )


def _candidate(model: Resolved, allowed: tuple[str, ...]) -> Candidate:
    from localai.evaluation.run import Candidate

    header = options.header(model, allowed)
    return Candidate(model.path, model.name, header, options.digest(model), options.stored_name(model))


def _fitting(model: Candidate) -> TaskSet:
    from localai.evaluation.tasks.sets import fitting

    tasks = fitting(model.header)
    if tasks is None:
        raise UnsupportedModel(
            f"no set of questions suits {model.name}: it has no chat template that somebody has read",
            "Evaluate it on a text, without --tasks",
        )
    return tasks


def _shown(progress: output.Progress, step: str) -> Callable[[Step], None]:
    def show(now: Step) -> None:
        progress(step, now.done, now.total, f"{now.right} right", "questions")

    return show


def print_report(report: Report, found: Result, *, each: bool = False) -> None:
    """Some lines about what was asked, then the figures; with `each`, a line for each question first."""
    for line in report.notes:
        output.note(line)
    if report.asked < report.asked_planned:
        left = f"{report.asked:,} of {report.asked_planned:,} questions"
        output.note(f"stopped after {left}; the next run goes on there")
    if each:
        _print_each(report, found)
    for label, value in [*_about(report), ("", ""), *_figures(report)]:
        print(f"{label:<24}{output.clean(value)}".rstrip())


def _about(report: Report) -> list[tuple[str, str]]:
    rows = [("model", f"{report.model}: {report.file_type}, {output.size(report.size)}")]
    if report.reference is not None:
        size = output.size(report.reference_size or 0)
        rows.append(("reference", f"{report.reference}: {report.reference_file_type}, {size}"))
    length = f"{report.tokens_per_question:,.0f} tokens each"
    rows.append(("questions", f"{report.asked:,} {report.set_title}, {length}"))
    if report.asked_now:
        rows.append(("took", f"{output.duration(report.seconds)} on {report.backend}"))
    else:
        rows.append(("took", "nothing: it was asked before (--fresh asks again)"))
    return rows


def _figures(report: Report) -> list[tuple[str, str]]:
    rows = [("right", _share(report.right, report.asked, report.share, report.share_stderr))]
    if report.answered < report.asked:
        rows.append(("  no answer", f"{report.asked - report.answered:,}"))
    if report.cut:
        rows.append(("  cut short", f"{report.cut:,}"))
    if report.reference_share is not None:
        right, asked = report.reference_right or 0, report.reference_asked or 0
        error = report.reference_share_stderr or 0.0
        rows.append(("right in the reference", _share(right, asked, report.reference_share, error)))
    if (both := report.compared) is not None:
        percent, error = 100 * both.difference, 100 * both.difference_stderr
        rows.append(("difference", f"{percent:+.1f} % +- {error:.1f} %"))
        rows.append(("  only the model", f"{both.only:,}"))
        rows.append(("  only the reference", f"{both.only_reference:,}"))
        rows.append(("  by chance", f"equals differ as much in {100 * both.chance:.0f} % of all cases"))
    return rows


def _share(right: int, asked: int, value: float, error: float) -> str:
    return f"{right:,} of {asked:,}: {100 * value:.0f} % +- {100 * error:.1f} %"


def _print_each(report: Report, found: Result) -> None:
    words = {True: "right", False: "wrong", None: ""}
    texts = {question.id: question for question in found.tasks.questions}
    rows = []
    for one in report.questions:
        question = texts[one.question]
        cells = [words[one.right], f"{one.tokens:,}", question.answer, question.ask]
        rows.append(cells if report.reference is None else [cells[0], words[one.reference_right], *cells[1:]])
    compared = [] if report.reference is None else ["REFERENCE"]
    output.print_table(["MODEL", *compared, "TOKENS", "ANSWER", "QUESTION"], rows)
    print()
