"""Evaluate a model, alone or against a reference: in one worker, chunk by chunk, from where it was stopped.

The definitions are those of llama-perplexity; `localai.engine.evaluation` and `localai.evaluation.statistics`
say where they are.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import aclosing
from pathlib import Path
from typing import NamedTuple

import msgspec

from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.errors import EngineError, UsageError
from localai.evaluation import kept, statistics
from localai.evaluation.report import Report, comparison
from localai.evaluation.statistics import Figure, Running, Tokens
from localai.evaluation.texts import Text
from models.header import Header


class Candidate(NamedTuple):
    """A model to evaluate, or one to compare with."""

    path: Path
    name: str
    header: Header
    sha256: str = ""
    stored_name: str = ""
    """What the model store calls the file; errors then call it so."""
    made_here: bool = False
    """Whether this program has just made the file, to try it: see `Engine.load`."""


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """What is evaluated."""

    text: Text
    context: int = 512
    """Tokens of each chunk."""
    chunks: int = 0
    """How many; 0: as many as the text has."""
    fresh: bool = False
    """Measure also what was measured before."""


class Step(NamedTuple):
    """How far it is."""

    done: int
    """Chunks."""
    total: int
    share: float
    """Of all chunks, the part of the current one included."""
    left_s: float | None
    """About so many seconds more; None while that is not known."""
    perplexity: Figure | None
    """As the chunks so far say; None before the first."""
    kl: Figure | None
    """The mean divergence, the same; None also without a reference."""


async def run(
    engine: Engine,
    model: Candidate,
    reference: Candidate | None,
    options: LoadOptions,
    plan: Plan,
    on_step: Callable[[Step], None] = lambda step: None,
    on_cancel: Callable[[Report], None] = lambda report: None,
) -> Report:
    """Load both models and evaluate; raises from the error tree.

    If this is cancelled after something was measured, that is told to `on_cancel`.
    """
    for one in (model, reference) if reference is not None else (model,):
        _check_context(plan.context, one)
    options = msgspec.structs.replace(
        options,
        context=max(plan.context, 256),
        speculate=False,
        converse=False,
        draft=None,
        reference=None if reference is None else str(reference.path),
    )
    loaded = await engine.load(
        model.path,
        options,
        sha256=model.sha256,
        name=model.stored_name,
        reference_name="" if reference is None else reference.stored_name,
        made_here=model.made_here,
        reference_made_here=reference is not None and reference.made_here,
    )
    run = _Run(engine, model, reference, options, plan, loaded, await engine.describe())
    try:
        await run.measure(on_step)
    except asyncio.CancelledError:
        if run.parts:
            on_cancel(run.report())
        raise
    return run.report()


def _check_context(context: int, one: Candidate) -> None:
    trained = one.header.context_trained
    if trained and context > trained:
        raise UsageError(
            f"--context {context:,} is more than the {trained:,} tokens that {one.name} was trained for"
        )


class _Run:
    """One evaluation under way."""

    def __init__(
        self,
        engine: Engine,
        model: Candidate,
        reference: Candidate | None,
        options: LoadOptions,
        plan: Plan,
        loaded: protocol.Loaded,
        info: protocol.EngineInfo,
    ) -> None:
        self._engine, self._model, self._reference, self._plan = engine, model, reference, plan
        self._loaded, self._info = loaded, info
        self._counted = plan.context - 1 - plan.context // 2
        self._path = kept.Key(
            model=kept.identity(model.path, model.sha256),
            reference="" if reference is None else kept.identity(reference.path, reference.sha256),
            text=plan.text.sha256,
            context=plan.context,
            llama_cpp_commit=info.llama_cpp_commit,
            kv_type=loaded.kv_type,
            flash_attention=options.flash_attention,
            backend=loaded.backend,
        ).path
        if plan.fresh:
            kept.forget(self._path)
        self.parts = kept.load(self._path, self._counted, compared=reference is not None)
        if plan.chunks:
            del self.parts[plan.chunks :]
        self._nll, self._kl = Running(), Running()
        for tokens in self.parts:
            self._count(tokens)
        self._before, self._planned, self._memory = len(self.parts), len(self.parts), 0
        self._seconds = 0.0

    async def measure(self, on_step: Callable[[Step], None]) -> None:
        """All chunks that are not there yet."""
        plan = self._plan
        started = time.perf_counter()
        stream = self._engine.evaluate(plan.text.content, plan.context, self._before, plan.chunks)
        async with aclosing(stream) as events:
            async for event in events:
                self._seconds = time.perf_counter() - started
                if isinstance(event, protocol.Evaluating):
                    self._begin(event)
                elif isinstance(event, protocol.Evaluated):
                    self._take(event)
                on_step(self._step(event))

    def _begin(self, event: protocol.Evaluating) -> None:
        if event.chunks < self._before or event.left != event.chunks - self._before:
            raise EngineError("the engine counts the chunks of a text in another way than before")
        self._planned = event.chunks

    def _take(self, event: protocol.Evaluated) -> None:
        if event.chunk != len(self.parts) or event.left != self._planned - len(self.parts) - 1:
            raise EngineError("the engine sent a chunk that it was not asked for")
        try:
            tokens = kept.tokens(event, self._counted, compared=self._reference is not None)
        except ValueError as error:
            raise EngineError(f"the engine sent something that cannot be: {error}") from error
        self._memory = max(self._memory, event.memory)
        self.parts.append(tokens)
        self._count(tokens)
        kept.add(self._path, event)

    def _count(self, tokens: Tokens) -> None:
        self._nll.add(tokens.nll)
        self._kl.add(tokens.kl)

    def _step(self, event: protocol.Evaluating | protocol.EvaluateProgress | protocol.Evaluated) -> Step:
        part = event.done / self._plan.context if isinstance(event, protocol.EvaluateProgress) else 0.0
        new, total = len(self.parts) - self._before + part, max(self._planned, 1)
        left = (self._planned - self._before - new) * self._seconds / new if new else None
        share, nll = (len(self.parts) + part) / total, self._nll.mean
        known = None if nll is None else statistics.exponential(nll)
        return Step(len(self.parts), self._planned, share, left, known, self._kl.mean)

    def report(self) -> Report:
        """What the chunks so far say; there must be one."""
        tokens = Tokens.joined(self.parts)
        perplexity = statistics.perplexity(tokens.nll)
        new = len(self.parts) - self._before
        rate = new * self._plan.context / self._seconds if new and self._seconds else None
        loaded, model, other = self._loaded, self._model, self._reference
        return Report(
            model=model.name,
            text=self._plan.text.name,
            text_sha256=self._plan.text.sha256,
            context=self._plan.context,
            chunks=len(self.parts),
            chunks_planned=self._planned,
            tokens=len(tokens.nll),
            perplexity=perplexity.value,
            perplexity_stderr=perplexity.stderr,
            file_type=loaded.file_type,
            size=loaded.size,
            backend=loaded.backend,
            threads=loaded.threads,
            kv_type=loaded.kv_type,
            llama_cpp_commit=self._info.llama_cpp_commit,
            chunks_measured=new,
            tokens_per_s=rate,
            seconds=self._seconds if new else 0.0,
            memory=self._memory,
            notes=list(loaded.notes),
            sandbox=self._engine.sandbox,
            **({} if other is None else comparison(other.name, other.header, tokens)),
        )
