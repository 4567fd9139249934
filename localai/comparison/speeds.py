"""How fast the types are: measured in turns, because what else a machine does changes from minute to minute.

Each round measures every type once; what counts is the median of the rounds. How long the prompts and the
replies are depends on how fast the first type is, so that all of it takes minutes.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import msgspec

from localai import bench
from localai.comparison.files import File
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from models import figures
from models.figures import Speed
from models.machine import machine_id

BUDGET_S: Final = 180.0
"""Seconds that all rounds may take, about, where shorter measurements make that possible."""
_WARM_UP: Final = 16
"""Tokens that `bench` generates before it measures; prompts it reads twice."""
_LOAD_S: Final = 1.0

T = TypeVar("T")


class Lengths(NamedTuple):
    """What is measured, in tokens: a prompt is read, a reply written."""

    prompt: int
    generate: int


LENGTHS: Final = (Lengths(512, 128), Lengths(512, 64), Lengths(256, 64), Lengths(128, 32), Lengths(64, 16))
"""The longest first."""


class Samples(msgspec.Struct):
    """Of one type: tokens per second of each round."""

    report: bench.Report
    prompt: list[float] = []
    generate: list[float] = []

    @property
    def speed(self) -> Speed:
        """The medians."""
        return Speed(
            machine=machine_id(),
            backend=self.report.backend,
            threads=self.report.threads,
            prompt=figures.rate(self.prompt),
            generate=figures.rate(self.generate),
        )


def lengths(prompt_rate: float, generate_rate: float, measurements: int, most: int) -> Lengths:
    """The longest that so many measurements have time for, at such rates, in at most `most` tokens."""
    allowed = [one for one in LENGTHS if sum(one) + 1 <= most or not most] or [_shortest(most)]
    for one in allowed:
        if measurements * seconds(one, prompt_rate, generate_rate) <= BUDGET_S:
            return one
    return allowed[-1]


def _shortest(most: int) -> Lengths:
    return Lengths(max(1, most // 2), max(1, most // 8))


def seconds(one: Lengths, prompt_rate: float, generate_rate: float) -> float:
    """About how long one measurement takes, with its warm-up."""
    reading = 2 * one.prompt / max(prompt_rate, 1e-6)
    return _LOAD_S + reading + (one.generate + _WARM_UP) / max(generate_rate, 1e-6)


async def measure(
    engine: Engine, file: File, options: LoadOptions, lengths: Lengths, found: Samples | None = None
) -> Samples:
    """One measurement, added to what was `found` in earlier rounds; raises from the error tree."""
    model = file.model
    report = await bench.run(
        engine,
        model.path,
        model.header,
        options,
        bench.Plan(prompt=lengths.prompt, generate=lengths.generate, repetitions=1),
        lambda test, repetition, repetitions: None,
        name=model.name,
        sha256=model.sha256,
        stored_name=model.stored_name,
        made_here=model.made_here,
    )
    found = found or Samples(report)
    reading, writing = report.tests
    found.prompt += reading.samples
    found.generate += writing.samples
    return found


async def probe(engine: Engine, file: File, options: LoadOptions, measurements: int) -> Lengths:
    """How long the prompts and replies are to be: found by a short measurement of one type."""
    most = file.model.header.context_trained
    short = lengths(0.0, 0.0, 1, most)
    found = await measure(engine, file, options, short)
    return lengths(found.prompt[0], found.generate[0], measurements, most)


def in_turns(files: Sequence[T], rounds: int) -> list[T]:
    """Round by round, every one once in each; every second round in the other order."""
    return [one for n in range(rounds) for one in (files if n % 2 == 0 else reversed(files))]
