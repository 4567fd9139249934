"""Chooses a type for every tensor, makes the file, and checks it against the usual type of that size.

1. An importance matrix, unless there is one, and the errors of all types, in one reading of the source.
2. What each group of matrices costs, measured in memory on the calibration text (`measuring`).
3. A knapsack: the types of least loss within the size (`choosing`).
4. The file with these types and that of the best usual one that fits, in one reading; both are compared with
   the reference on the evaluation text, which nothing before has seen. The better one is the result.
"""

from __future__ import annotations

import asyncio
import datetime
import hashlib
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

import localai
from localai.comparison import losses, selection
from localai.comparison.losses import Reading
from localai.comparison.selection import Reference
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.errors import EngineError, UsageError
from localai.evaluation import keeping
from localai.evaluation import run as evaluation
from localai.evaluation.report import Report
from localai.evaluation.run import Candidate
from localai.optimization import choosing, measuring
from localai.optimization.choosing import Choice
from localai.optimization.measuring import Costs
from models import measured
from models.figures import Figures, Loss
from models.mixture import Mixture
from models.parts import read_whole
from quantize import advice, client, collecting, imatrix_file, recipe
from quantize.client import Made, OnEvent
from quantize.imatrix import ImportanceMatrix, read_imatrix
from quantize.partials import Partial
from quantize.protocol import Candidate as Planned
from quantize.protocol import Errors, Job
from quantize.recipe import Recipe
from quantize.self_text import SelfText, require_chat, text_of
from quantize.texts import Text

ROWS: Final = 256
"""Of each matrix the errors of the types are taken from so many, evenly spread."""
CHUNKS: Final = 2
"""Pieces of the calibration text that are read each time."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked for."""

    max_size: int
    """Bytes."""
    source: str
    """As the user calls it."""
    calibration: Text | SelfText
    check: Reading
    """The text that the result is checked on; `chunks` 0: as many as there is time for."""
    memory: int
    """Bytes that a model may take here."""
    threads: int | None = None


class Watching(NamedTuple):
    """Who is told what is going on."""

    on_event: OnEvent
    """What the quantizer does."""
    on_step: Callable[[str, int, int, str, str], None]
    """What is done, how much of it, of how much, in which unit, and a word about it."""
    on_note: Callable[[str], None]


class Checked(NamedTuple):
    """A file that was made and compared with the reference."""

    name: str
    """The mixture's, or that of a usual type."""
    size: int
    report: Report


class Optimized(NamedTuple):
    """What came of it, as long as the files are there."""

    recipe: Recipe
    costs: Costs
    mixed: Checked
    usual: Checked | None
    """The best of the usual types that fit; None if none does."""
    partial: Partial
    """The file of the recipe."""
    made: Made
    job: Job
    """What it was made with."""

    @property
    def is_mixed(self) -> bool:
        """Whether the result is the mixture: else the usual type was better."""
        return self.recipe.mixture.name == self.mixed.name


@contextmanager
def optimized(job: Job, wish: Wish, folder: Path, watching: Watching) -> Iterator[Optimized]:
    """The best file of `job` that takes at most what `wish` says, for the body of the block.

    All files lie on the disk of `folder` without names; the one of the result may be given its place there.
    `job.imatrix` is used if there is one. Raises from the error tree; UsageError if nothing is so small, or
    `Q8_0` is.
    """
    with ExitStack() as stack:
        yield _Run(job, wish, folder, watching, stack).work()


class _Run:
    """One optimization under way."""

    def __init__(self, job: Job, wish: Wish, folder: Path, watching: Watching, stack: ExitStack) -> None:
        self._wish, self._folder, self._watching, self._stack = wish, folder, watching, stack
        self._job = msgspec.structs.replace(job, imatrix_promised="", hash_inputs=True)
        self._known = client.forecast(self._promising(job))
        choosing.require_choice(self._known, wish.max_size)
        if isinstance(wish.calibration, SelfText):
            require_chat(self._known, job.source)
        self._reference = self._choose_reference(Path(job.source))
        self._text = wish.calibration

    def _promising(self, job: Job) -> Job:
        promised = "" if job.imatrix else self._wish.calibration.name
        return msgspec.structs.replace(job, imatrix_promised=promised)

    def _choose_reference(self, source: Path) -> Reference:
        known, memory = self._known, self._wish.memory
        close = next(one for one in known.candidates if one.file_type == selection.CLOSEST)
        found = selection.reference(known, [close], memory, gguf=not source.is_dir())
        if found.file_type not in (*selection.PLAIN, selection.CLOSEST):
            raise UsageError(
                f"{source} is {found.file_type}, from which no types can be chosen any more",
                "Start from the checkpoint, or from a GGUF file in BF16, F16, F32 or Q8_0",
            )
        for note in found.notes:
            self._watching.on_note(note)
        return found

    def work(self) -> Optimized:
        """All of it."""
        base = self._base()
        importance, identity = self._importance(base)
        errors = self._errors()
        room = self._wish.max_size - self._known.fixed_bytes
        choosing.require_room(errors, room)
        weights = sum(one.weights for one in errors.values())
        costs = asyncio.run(self._measure(base, errors, importance, identity))
        choice = choosing.choose(errors, costs.costs, room)
        return self._made(base, costs, choice, weights)

    # --------------------------------------------------------------------------------- what is measured

    def _partial(self, name: str) -> Partial:
        return self._stack.enter_context(Partial(self._folder / f"localai-{name}.gguf", overwrite=True))

    def _base(self) -> Candidate:
        """The file that is measured and compared with: the source itself, or one that is made of it."""
        kind = self._reference.file_type
        if not self._reference.made:
            path = Path(self._job.source)
            return Candidate(path, kind, read_whole(path))
        partial = self._partial("reference")
        made = client.fill(self._job, [kind], [partial], self._watching.on_event, plain=1)
        digest = made.report.outputs[0].sha256
        return Candidate(
            partial.path, kind, read_whole(partial.path), digest, f"the {kind} file", made_here=True
        )

    def _importance(self, base: Candidate) -> tuple[ImportanceMatrix, str]:
        """The importance matrix, collected unless there is one, and what tells it from others.

        The calibration text is there afterwards, too.
        """
        reading = collecting.Reading(threads=self._wish.threads)
        self._text = words = text_of(
            self._wish.calibration, base.path, reading, self._tokens("Write"), made_here=base.made_here
        )
        if self._job.imatrix:
            found = read_imatrix(Path(self._job.imatrix))
            return found, hashlib.sha256(Path(self._job.imatrix).read_bytes()).hexdigest()
        collected = collecting.collect(
            base.path, words, reading, self._tokens("Read"), made_here=base.made_here
        )
        partial = self._partial("imatrix")
        imatrix_file.write(collected, partial)
        self._job = msgspec.structs.replace(self._job, imatrix=str(partial.path), imatrix_name="auto")
        return read_imatrix(partial.path), hashlib.sha256(words.content.encode()).hexdigest()

    def _tokens(self, step: str) -> Callable[[int, int], None]:
        return lambda done, total: self._watching.on_step(step, done, total, "tokens", "")

    def _errors(self) -> dict[str, Errors]:
        types = choosing.looked_at(self._wish.max_size, self._known.weights)
        self._known, errors = client.errors(self._job, types, self._watching.on_event, rows=ROWS)
        return errors

    async def _measure(
        self,
        base: Candidate,
        errors: dict[str, Errors],
        importance: ImportanceMatrix,
        identity: str,
    ) -> Costs:
        assert isinstance(self._text, Text)
        reading = measuring.Reading(
            self._text,
            losses.context(None, self._known.context_trained),
            CHUNKS,
            self._wish.threads,
            identity,
        )

        def on_step(done: int, total: int, name: str) -> None:
            self._watching.on_step("Weigh", done, total, "groups", name)

        return await measuring.measure(base, errors, importance.weights, reading, on_step)

    # ------------------------------------------------------------------------------------ what is chosen

    def _mixture(self, base: Candidate, choice: Choice, weights: int) -> Mixture:
        size = self._known.fixed_bytes + choice.nbytes
        kinds = set(choice.types.values())
        return Mixture(
            name=recipe.name_for(8 * choice.nbytes / max(weights, 1)),
            architecture=self._known.architecture,
            layers=max(1, base.header.block_count),
            file_type=recipe.nearest_file_type(kinds, size, self._known.candidates),
            types=choice.types,
        )

    def _usual(self) -> Planned | None:
        """The best of the usual types that are small enough."""
        fitting = [one for one in advice.sensible(self._known) if one.size <= self._wish.max_size]
        return fitting[0] if fitting else None

    def _made(self, base: Candidate, costs: Costs, choice: Choice, weights: int) -> Optimized:
        mixture = self._mixture(base, choice, weights)
        usual = self._usual()
        names = [mixture.name, *([usual.file_type] if usual else [])]
        job = msgspec.structs.replace(self._job, mixtures=(mixture,))
        partials = [self._partial(name) for name in names]
        made = client.fill(job, names, partials, self._watching.on_event)
        size = made.report.outputs[0].size
        if size > self._wish.max_size:
            raise EngineError(f"the file takes {size:,} bytes, more than was reckoned with")
        checked = asyncio.run(self._check(base, names, partials, made))
        best = min(range(len(checked)), key=lambda number: _loss(checked[number].report))
        if best:
            mixture = recipe.of_file(
                msgspec.structs.replace(mixture, name=names[best].lower() + "-like", file_type=names[best]),
                read_whole(partials[best].path),
            )
        loss = keeping.any_loss_of(checked[best].report, base.sha256)
        bits = made.report.outputs[best].bits_per_weight
        found = self._recipe(mixture, choice, checked[best].size, loss, bits, made)
        only = _only(made, best)
        return Optimized(found, costs, checked[0], checked[1] if usual else None, partials[best], only, job)

    def _recipe(
        self, mixture: Mixture, choice: Choice, size: int, loss: Loss | None, bits: float, made: Made
    ) -> Recipe:
        assert isinstance(self._text, Text)
        return Recipe(
            made_for=self._wish.source,
            size=size,
            bits_per_weight=bits,
            expected_kl=choice.kl,
            loss=loss,
            imatrix_sha256=made.report.imatrix_sha256,
            text=self._text.name,
            text_sha256=hashlib.sha256(self._text.content.encode()).hexdigest(),
            program=localai.__version__,
            llama_cpp=made.report.llama_cpp_commit,
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            mixture=mixture,
        )

    # ------------------------------------------------------------------------------------- and the check

    async def _check(
        self, base: Candidate, names: list[str], partials: list[Partial], made: Made
    ) -> list[Checked]:
        engine = Engine()
        options = LoadOptions(threads=self._wish.threads, converse=False)
        reading, found = self._wish.check, list[Checked]()
        try:
            for number, (name, partial) in enumerate(zip(names, partials, strict=True)):
                output = made.report.outputs[number]
                model = Candidate(
                    partial.path,
                    name,
                    read_whole(partial.path),
                    output.sha256,
                    f"the {name} file",
                    made_here=True,
                )
                if not reading.chunks:
                    reading = await self._with_chunks(engine, model, base, options, reading)
                report = await self._evaluate(engine, model, base, options, reading, number, len(names))
                found.append(Checked(name, output.size, report))
                loss = keeping.loss_of(report, base.sha256)
                measured.keep(
                    Figures(sha256=output.sha256, file_type=name, size=output.size, loss=loss, imatrix=True)
                )
        finally:
            await engine.close()
        return found

    async def _with_chunks(
        self, engine: Engine, model: Candidate, base: Candidate, options: LoadOptions, reading: Reading
    ) -> Reading:
        """As many chunks as there is time for, by how long one takes."""
        one = msgspec.structs.replace(reading, chunks=1)
        report = await self._evaluate(engine, model, base, options, one, 0, 1)
        chunks = losses.chunks(losses.chunk_seconds(report, None), 2)
        return msgspec.structs.replace(reading, chunks=chunks)

    async def _evaluate(
        self,
        engine: Engine,
        model: Candidate,
        base: Candidate,
        options: LoadOptions,
        reading: Reading,
        number: int,
        of: int,
    ) -> Report:
        plan = evaluation.Plan(text=reading.text, context=reading.context, chunks=reading.chunks)
        total = of * reading.chunks * reading.context

        def on_step(step: evaluation.Step) -> None:
            done = int((number + step.share) * reading.chunks * reading.context)
            self._watching.on_step("Check", done, total, "tokens", model.name)

        return await evaluation.run(engine, model, base, options, plan, on_step)


def _loss(report: Report) -> float:
    return report.kl.mean if report.kl is not None else float("inf")


def _only(made: Made, number: int) -> Made:
    """What is known of one of the files."""
    outputs = (made.report.outputs[number],)
    return Made(
        made.forecast,
        msgspec.structs.replace(made.report, outputs=outputs),
        made.checks[number : number + 1],
    )
