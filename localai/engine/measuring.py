"""Measuring a model, and having it write: the part of the app's side of the engine that no chat needs."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Sequence
from contextlib import AbstractAsyncContextManager

from localai.engine import protocol
from localai.engine.pipe import WorkerPipe
from localai.engine.settings import Limits, Sampling
from localai.errors import EngineError

LONGEST_REPLY = 64 * 1024 * 1024
"""Characters. A million tokens have a tenth of it; who goes on and on would fill the app's memory."""


class Measuring(ABC):
    """What `localai.engine.client.Engine` can ask about the model in its worker."""

    @abstractmethod
    def _using(self) -> AbstractAsyncContextManager[WorkerPipe]:
        """The worker with the model in it, which is not replaced meanwhile as long as it lives."""

    @abstractmethod
    def _new_id(self) -> int:
        """For a request."""

    async def observe(
        self, text: str, chunk: int, chunks: int = 0, *, special: bool = False
    ) -> AsyncGenerator[protocol.ObserveProgress | protocol.Activations | protocol.Observed, None]:
        """How strongly the model's matrices are used where it reads `text`, as in `protocol.Observe`.

        The last event is `Observed`. Who leaves the stream early closes the engine.
        """
        async with self._using() as worker:
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Observe(inbox.id, text, chunk, chunks, special))
                while not isinstance(event := await inbox.get(), protocol.Observed):
                    if isinstance(event, protocol.ObserveProgress | protocol.Activations):
                        yield event
                yield event

    async def evaluate(
        self, text: str, chunk: int, first: int = 0, chunks: int = 0
    ) -> AsyncGenerator[protocol.Evaluating | protocol.EvaluateProgress | protocol.Evaluated, None]:
        """How well the model foretells `text`, and how far it is from its reference: see `protocol.Evaluate`.

        Who leaves the stream early closes the engine.
        """
        async with self._using() as worker:
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Evaluate(inbox.id, text, chunk, first, chunks))
                left = 1
                while left:
                    event = await inbox.get()
                    if isinstance(event, protocol.Evaluating | protocol.Evaluated):
                        left = event.left
                        yield event
                    elif isinstance(event, protocol.EvaluateProgress):
                        yield event

    async def baseline(
        self, text: str, chunk: int, chunks: int, *, special: bool = False
    ) -> protocol.BaselineKept:
        """Keep what the model foretells of `text`, as in `protocol.Baseline`."""
        async with self._using() as worker:
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Baseline(inbox.id, text, chunk, chunks, special))
                return await inbox.first(protocol.BaselineKept)

    async def perturb(self, matrices: Sequence[protocol.Matrix]) -> protocol.Perturbed:
        """How far the model with other matrices is from itself, as in `protocol.Perturb`."""
        async with self._using() as worker:
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Perturb(inbox.id, tuple(matrices)))
                return await inbox.first(protocol.Perturbed)

    async def write(
        self,
        conversations: Sequence[Sequence[str]],
        tokens: int,
        sampling: Sampling = Sampling(),
        limits: Limits = Limits(),
    ) -> AsyncGenerator[protocol.WriteProgress | protocol.Written, None]:
        """Have the model write a text of about so many `tokens`, as in `protocol.Write`.

        As many replies are written at a time as the model was loaded for. Who leaves the stream early closes
        the engine.
        """
        asked = [list(turns) for turns in conversations]
        async with self._using() as worker:
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Write(inbox.id, asked, tokens, sampling, limits))
                left, room = 1, LONGEST_REPLY
                while left:
                    event = await inbox.get()
                    if isinstance(event, protocol.WriteProgress):
                        yield event
                    elif isinstance(event, protocol.Written):
                        left, room = event.left, room - len(event.text)
                        if room < 0:
                            raise worker.give_up(EngineError("the engine's text is longer than any can be"))
                        yield event
