"""What the types have lost: all on the same chunks of the same text, against the same reference."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

import msgspec

from localai.comparison.files import File
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.evaluation import run as evaluation
from localai.evaluation.report import Report
from localai.evaluation.run import Candidate, Step
from localai.evaluation.texts import Text

BUDGET_S: Final = 600.0
"""Seconds that the evaluation of all types may take, about, where fewer chunks make that possible."""
CHUNKS: Final = (64, 32, 16, 8, 4)
"""Of how many there may be, unless told otherwise. Powers of two, so that a second run chooses the same."""
CONTEXT: Final = 512
_AS_SLOW: Final = 2.2
"""How much longer a chunk takes than a prompt of its length: the reference reads it, too."""


class Reading(msgspec.Struct, frozen=True, kw_only=True):
    """What is read."""

    text: Text
    context: int
    """Tokens of a chunk."""
    chunks: int
    """0: all that the text has."""


def chunks(chunk_s: float, types: int) -> int:
    """As many as there is time for, if one takes so many seconds for one type."""
    return next((n for n in CHUNKS if n * types * chunk_s <= BUDGET_S), CHUNKS[-1])


def chunk_seconds(report: Report, prompt_rate: float | None) -> float:
    """How long a chunk takes: as measured by `report`, or where that was kept, by how fast a type reads."""
    if report.tokens_per_s:
        return report.context / report.tokens_per_s
    return slower(report.context / prompt_rate) if prompt_rate else BUDGET_S


def slower(prompt_s: float) -> float:
    """Seconds for a chunk that takes so many as a prompt, which only one model reads."""
    return prompt_s * _AS_SLOW


def context(wanted: int | None, trained: int) -> int:
    """Tokens of a chunk: as wanted, else the usual number, or all that the model was trained for."""
    return wanted or min(CONTEXT, trained or CONTEXT)


async def measure(
    engine: Engine,
    file: File,
    reference: Candidate,
    options: LoadOptions,
    reading: Reading,
    on_step: Callable[[Step], None],
) -> Report:
    """Evaluate one type; chunks that were measured before are not read again. Raises from the error tree."""
    plan = evaluation.Plan(text=reading.text, context=reading.context, chunks=reading.chunks)
    return await evaluation.run(engine, file.model, reference, options, plan, on_step)
