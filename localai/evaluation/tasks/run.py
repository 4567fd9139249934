"""Ask a model the questions of a set, one after the other, from where it was stopped.

Each question is a conversation of its own, with a seed of its own: the same file on the same machine says the
same again, whatever was asked before (docs/engine.md). That is why none are asked at the same time.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from typing import NamedTuple

import msgspec

from localai.chat.messages import ChatMessage
from localai.confine.report import Sandbox
from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions
from localai.errors import ContextOverflow, EngineError, UsageError
from localai.evaluation.kept import forget, identity
from localai.evaluation.run import Candidate
from localai.evaluation.tasks import kept
from localai.evaluation.tasks.kept import Record
from localai.evaluation.tasks.scoring import is_right
from localai.evaluation.tasks.sets import SEED, Question, TaskSet
from models.figures import Answers

ROOM_FOR_ANSWER = 512
"""Tokens beside those of the thinking."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked."""

    tasks: TaskSet
    questions: int = 0
    """Only the first so many; 0: all."""
    think_budget: int | None = None
    """Tokens of thinking for each question; None: as the set has it."""
    fresh: bool = False
    """Ask also what was asked before."""

    def resolved(self) -> TaskSet:
        """The set as it is asked. UsageError for a budget where nothing is thought about."""
        if self.think_budget is None:
            return self.tasks
        if self.tasks.limits.think_budget is None:
            raise UsageError(f"the set {self.tasks.name!r} has no --think-budget", "Leave it out")
        limits = Limits(max_tokens=self.think_budget + ROOM_FOR_ANSWER, think_budget=self.think_budget)
        return msgspec.structs.replace(self.tasks, limits=limits)


class Step(NamedTuple):
    """How far it is."""

    done: int
    """Questions."""
    total: int
    right: int
    left_s: float | None
    """About so many seconds more; None while that is not known."""


class Result(msgspec.Struct, frozen=True, kw_only=True):
    """The answers of one model."""

    model: str
    tasks: TaskSet
    """As it was asked."""
    asked_planned: int
    """More than there are `records` if it was stopped."""
    records: list[Record]
    """By the numbers of the questions."""
    asked_now: int
    """Those of `records` that were asked now; the others were kept."""
    seconds: float
    """What the questions took that were asked now."""
    loaded: protocol.Loaded
    llama_cpp_commit: str
    sandbox: Sandbox

    @property
    def answers(self) -> Answers:
        """In short, to be kept with the model."""
        right = sum(record.right for record in self.records)
        return Answers(set=self.tasks.name, right=right, asked=len(self.records))


async def run(
    engine: Engine,
    model: Candidate,
    options: LoadOptions,
    plan: Plan,
    on_step: Callable[[Step], None] = lambda step: None,
    on_cancel: Callable[[Result], None] = lambda result: None,
    *,
    made_here: bool = False,
) -> Result:
    """Load the model and ask; raises from the error tree.

    If this is cancelled after something was answered, that is told to `on_cancel`. `made_here`: the file was
    made by this program only to be measured.
    """
    tasks = plan.resolved()
    options = msgspec.structs.replace(
        options,
        context=_context(tasks, model),
        parallel=1,
        speculate=False,
        converse=True,
        draft=None,
        reference=None,
    )
    loaded = await engine.load(
        model.path, options, sha256=model.sha256, name=model.stored_name, made_here=made_here
    )
    run = _Run(engine, model, options, plan, tasks, loaded, (await engine.describe()).llama_cpp_commit)
    try:
        await run.ask(on_step)
    except asyncio.CancelledError:
        if run.records:
            on_cancel(run.result())
        raise
    return run.result()


def _context(tasks: TaskSet, model: Candidate) -> int:
    trained = model.header.context_trained
    return min(tasks.context, trained) if trained else tasks.context


class _Run:
    """The questions to one model."""

    def __init__(
        self,
        engine: Engine,
        model: Candidate,
        options: LoadOptions,
        plan: Plan,
        tasks: TaskSet,
        loaded: protocol.Loaded,
        commit: str,
    ) -> None:
        self._engine, self._model, self._tasks, self._loaded, self._commit = (
            engine,
            model,
            tasks,
            loaded,
            commit,
        )
        self._path = kept.Key(
            model=identity(model.path, model.sha256),
            tasks=tasks.sha256,
            llama_cpp_commit=commit,
            kv_type=loaded.kv_type,
            flash_attention=options.flash_attention,
            backend=loaded.backend,
        ).path
        if plan.fresh:
            forget(self._path)
        self._planned = min(plan.questions or len(tasks.questions), len(tasks.questions))
        self.records = kept.load(self._path, self._planned)
        self._now, self._seconds = 0, 0.0

    async def ask(self, on_step: Callable[[Step], None]) -> None:
        """All questions that have no answer yet."""
        for number, question in enumerate(self._tasks.questions[: self._planned]):
            on_step(self._step())
            if number in self.records:
                continue
            record = await self._answer(number, question)
            self.records[number] = record
            kept.add(self._path, record)
            self._now, self._seconds = self._now + 1, self._seconds + record.seconds
        on_step(self._step())

    async def _answer(self, number: int, question: Question) -> Record:
        sampling = msgspec.structs.replace(self._tasks.sampling, seed=SEED + number)
        text = f"{question.ask}\n\n{self._tasks.wish}" if self._tasks.wish else question.ask
        started = time.perf_counter()
        reply: list[str] = []
        stream = self._engine.generate([ChatMessage("user", text)], sampling, self._tasks.limits)
        async with aclosing(stream) as events:
            async for event in events:
                if isinstance(event, protocol.Answer):
                    reply.append(event.text)
                elif isinstance(event, protocol.Overflow):
                    raise ContextOverflow(f"{self._model.name} has too little context to be asked anything")
                elif isinstance(event, protocol.Done):
                    verdict = is_right(question, "".join(reply))
                    return _record(number, verdict, event, time.perf_counter() - started)
        raise EngineError("the engine ended a reply without saying so")

    def _step(self) -> Step:
        right = sum(record.right for record in self.records.values())
        left = self._planned - len(self.records)
        seconds = left * self._seconds / self._now if self._now else None
        return Step(len(self.records), self._planned, right, seconds)

    def result(self) -> Result:
        """What is known so far."""
        return Result(
            model=self._model.name,
            tasks=self._tasks,
            asked_planned=self._planned,
            records=[self.records[number] for number in sorted(self.records)],
            asked_now=self._now,
            seconds=self._seconds,
            loaded=self._loaded,
            llama_cpp_commit=self._commit,
            sandbox=self._engine.sandbox,
        )


def _record(number: int, verdict: bool | None, done: protocol.Done, seconds: float) -> Record:
    return Record(
        question=number,
        right=verdict is True,
        answered=verdict is not None,
        tokens=done.usage.completion_tokens,
        cut=done.think_closed or done.reason != "stop",
        seconds=seconds,
    )
