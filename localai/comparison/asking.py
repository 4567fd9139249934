"""Right answers: each type is asked the questions that suit the model, if that does not take too long."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from localai.comparison.files import File
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.evaluation.tasks.run import Plan, Step, run
from localai.evaluation.tasks.sets import TaskSet, estimate, fitting
from models.figures import Answers
from models.header import Header

BUDGET_S: Final = 600.0
"""Seconds that the questions to all types may take, about, unless their number is given."""
_USUAL_RATE: Final = 10.0
"""Tokens per second, where no speed was measured."""


class Asking(msgspec.Struct, frozen=True):
    """What is asked, or why nothing is."""

    tasks: TaskSet | None
    questions: int = 0
    seconds: float = 0.0
    """About so long it takes for all types."""
    note: str = ""


def plan(header: Header, wanted: int | None, rates: Sequence[float | None]) -> Asking:
    """What to ask types that write so many tokens a second; nothing if no set of questions suits the model.

    `wanted`: so many questions of it; None: all, if that is quick.
    """
    tasks = fitting(header) if wanted != 0 else None
    if tasks is None:
        note = "no set of questions suits this model: it has no chat template that is known" if wanted else ""
        return Asking(None, note=note)
    questions = min(wanted or len(tasks.questions), len(tasks.questions))
    seconds = sum(estimate(tasks, rate or _USUAL_RATE, questions) for rate in rates)
    if wanted is None and seconds > BUDGET_S:
        minutes = seconds / questions * 10 / 60
        return Asking(
            None,
            note=f"no questions were asked, which would take about {seconds / 60:.0f} min; --tasks 10 asks "
            f"ten of {len(tasks.questions)}: about {minutes:.0f} min, and a first impression",
        )
    return Asking(tasks, questions, seconds)


async def ask(
    engine: Engine,
    file: File,
    options: LoadOptions,
    asking: Asking,
    on_step: Callable[[Step], None],
) -> Answers | None:
    """The answers of one type, those that it gave before among them; raises from the error tree."""
    if asking.tasks is None:
        return None
    wanted = Plan(tasks=asking.tasks, questions=asking.questions)
    found = await run(engine, file.model, options, wanted, on_step, made_here=file.model.made_here)
    return found.answers
