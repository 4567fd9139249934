"""Compares types: makes their files, and measures how fast each is, what it has lost and what it answers.

    run = Run(asked, job, known, selection, reference)
    run.work(folder, watching, keep)
    run.found.comparison()

What was found stays in `found` when this is stopped, and what each type has lost is kept: a second run makes
the same files, byte for byte, and goes on where the first one was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import msgspec

from localai.comparison import asking, files, losses, speeds
from localai.comparison.asking import Asking
from localai.comparison.files import File, Group
from localai.comparison.found import Asked, Found
from localai.comparison.selection import Reference, Selection
from localai.comparison.speeds import Lengths
from localai.engine import allowed
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.errors import EngineError, SandboxError
from localai.evaluation.run import Step as EvaluationStep
from localai.evaluation.tasks.run import Step as QuestionStep
from quantize.client import OnEvent
from quantize.protocol import Forecast, Job

Keep = Callable[[File], None]
"""Gives the file that is advised its place."""


class Watching(NamedTuple):
    """Who is told what is going on."""

    on_event: OnEvent
    """What the quantizer does."""
    on_step: Callable[[str, int, int, str, str], None]
    """What is measured, how much of it is done, of how much, in which unit, and a word about it."""
    on_note: Callable[[str], None]
    """What the user should know, in one line."""


def require_allowed(job: Job, reference: Reference) -> None:
    """PolicyError if types are compared with the source, and the organization does not let it be run."""
    if not reference.made:
        asyncio.run(allowed.seen([job.source]))


class Run:
    """One comparison. Errors of one type are noted, and the others go on; if all have one, it is raised."""

    def __init__(
        self, asked: Asked, job: Job, known: Forecast, selection: Selection, reference: Reference
    ) -> None:
        self.found = Found(asked, known, selection, reference)
        self._asked, self._selection, self._reference = asked, selection, reference
        self._job = msgspec.structs.replace(job, hash_inputs=True)
        self._options = LoadOptions(threads=asked.threads, converse=False)
        self._lengths: Lengths | None = None
        self._reading = asked.reading
        self._asking: Asking | None = None
        self._before = 0
        """Types of the groups before this one."""
        self._problem: EngineError | None = None

    def work(self, folder: Path, watching: Watching, keep: Keep | None) -> None:
        """Do all of it, with files on the disk of `folder`; raises from the error tree.

        `keep` gets the file that is advised, if one is.
        """
        kept = False
        with files.made(self._job, self._selection, self._reference, folder, watching.on_event) as groups:
            for group in groups:
                if group.of > 1:
                    watching.on_note(
                        f"the disk cannot take all files at once: group {group.number} of {group.of}"
                    )
                asyncio.run(self._measure(group, watching))
                self._before += len(group.files)
                self._finish()
                advised = [one for one in group.files if one.file_type == self._advised()]
                if advised and keep is not None:
                    keep(advised[0])
                    kept = True
        if (name := self._advised()) and keep is not None and not kept:
            with files.one_more(self._job, name, folder, watching.on_event) as again:
                keep(again)

    def _finish(self) -> None:
        """Once all types were measured: whether anything came of it."""
        if self._before < len(self._selection.types):
            return
        if not self.found.anything and self._problem is not None:
            raise self._problem
        self.found.complete = True

    def _advised(self) -> str:
        if not self.found.complete:
            return ""
        advice = self.found.comparison().advice
        return advice.file_type if advice is not None else ""

    async def _measure(self, group: Group, watching: Watching) -> None:
        self.found.begin(group.files, group.reference.sha256)
        engine = Engine()
        try:
            await self._measure_speeds(engine, group, watching)
            await self._measure_losses(engine, group, watching)
            await self._ask(engine, group, watching)
        finally:
            await engine.close()

    async def _measure_speeds(self, engine: Engine, group: Group, watching: Watching) -> None:
        rounds, types = self._asked.rounds, len(self._selection.types)
        good = list(group.files)
        while good and self._lengths is None:
            watching.on_step("Speed", 0, rounds * types, "measurements", good[0].file_type)
            await self._choose_lengths(engine, good, rounds * types)
        for number, file in enumerate(speeds.in_turns(group.files, rounds), self._before * rounds):
            watching.on_step("Speed", number, rounds * types, "measurements", file.file_type)
            if file in good and self._lengths is not None:
                await self._measure_speed(engine, file, self._lengths, good)
        for file in group.files:
            self.found.keep(file.file_type)

    async def _choose_lengths(self, engine: Engine, good: list[File], measurements: int) -> None:
        """By how fast the first of the `good` ones is; if that cannot be measured, it is none of them."""
        file = good.pop(0)
        with self._noted(file.file_type, "speed"):
            self._lengths = await speeds.probe(engine, file, self._options, measurements)
            good.insert(0, file)
            reads, writes = self._lengths
            self.found.notes.append(
                f"speed: a prompt of {reads} tokens is read and {writes} are written; the median of "
                f"{self._asked.rounds} rounds"
            )

    async def _measure_speed(self, engine: Engine, file: File, lengths: Lengths, good: list[File]) -> None:
        """Once; a type that cannot be measured is no good one any more."""
        name = file.file_type
        good.remove(file)
        with self._noted(name, "speed"):
            before = self.found.speeds.get(name)
            found = await speeds.measure(engine, file, self._options, lengths, before)
            self.found.speeds[name] = found
            good.append(file)

    async def _measure_losses(self, engine: Engine, group: Group, watching: Watching) -> None:
        compared = [one for one in group.files if self._is_compared(one)]
        if compared and not self._reading.chunks:
            await self._choose_chunks(engine, group, compared[0], watching)
        for number, file in enumerate(compared, self._before):
            step = self._loss_steps(number, file.file_type, watching)
            with self._noted(file.file_type, "loss"):
                report = await losses.measure(
                    engine, file, group.reference, self._options, self._reading, step
                )
                self.found.add_loss(file.file_type, report)

    def _is_compared(self, file: File) -> bool:
        """Whether a type can be compared with the reference: not with itself, where that only stands in."""
        return self._reference.exact or file.file_type != self._reference.file_type

    async def _choose_chunks(self, engine: Engine, group: Group, file: File, watching: Watching) -> None:
        """As many as there is time for, by how long the first takes."""
        watching.on_step("Loss", 0, 0, "tokens", file.file_type)
        one = msgspec.structs.replace(self._reading, chunks=1)
        with self._noted(file.file_type, "loss"):
            report = await losses.measure(
                engine, file, group.reference, self._options, one, lambda step: None
            )
            speed, types = self.found.speeds.get(file.file_type), len(self._selection.types)
            seconds = losses.chunk_seconds(report, speed.speed.prompt.median if speed else None)
            chunks = losses.chunks(seconds, types)
            self._reading = msgspec.structs.replace(self._reading, chunks=chunks)
            minutes = max(1, round(seconds * chunks * types / 60))
            watching.on_note(
                f"the losses on {chunks} chunks of text take about {minutes} min; "
                "what was measured before is not read again"
            )

    def _loss_steps(self, number: int, name: str, watching: Watching) -> Callable[[EvaluationStep], None]:
        each = self._reading.chunks * self._reading.context

        def on_step(step: EvaluationStep) -> None:
            all_of_them = step.total * self._reading.context if step.total else each
            done, total = number + step.share, len(self._selection.types)
            watching.on_step("Loss", int(done * all_of_them), total * all_of_them, "tokens", name)

        return on_step

    async def _ask(self, engine: Engine, group: Group, watching: Watching) -> None:
        if self._asking is None:
            rates = [self.found.rate(one.file_type) for one in group.files]
            rates += [rates[-1]] * (len(self._selection.types) - len(rates))
            self._asking = asking.plan(group.files[0].model.header, self._asked.questions, rates)
            if self._asking.note:
                self.found.notes.append(self._asking.note)
        total = self._asking.questions * len(self._selection.types)
        for number, file in enumerate(group.files if self._asking.tasks else (), self._before):
            first = number * self._asking.questions

            def on_step(step: QuestionStep, name: str = file.file_type, first: int = first) -> None:
                watching.on_step("Questions", first + step.done, total, "questions", name)

            with self._noted(file.file_type, "answers"):
                answers = await asking.ask(engine, file, self._options, self._asking, on_step)
                if answers is not None:
                    self.found.add_answers(file.file_type, answers)

    @contextmanager
    def _noted(self, file_type: str, what: str) -> Iterator[None]:
        """An error of the engine about one type is noted; it must not cost what is known of the others."""
        try:
            yield
        except SandboxError:
            raise
        except EngineError as error:
            self._problem = error
            self.found.notes.append(f"{file_type}: its {what} could not be measured: {error.message}")
