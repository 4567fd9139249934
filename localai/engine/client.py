"""The app's side of the engine: starts, watches and restarts the worker."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from localai.chat.messages import ChatMessage
from localai.engine import protocol


class LoadOptions(msgspec.Struct, frozen=True):
    """How to load a model; None leaves the choice to the engine."""

    context: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None


class Engine:
    """One worker process and the model in it."""

    model: protocol.Loaded | None = None

    async def load(
        self,
        path: Path,
        options: LoadOptions = LoadOptions(),
        on_progress: Callable[[float], None] | None = None,
    ) -> protocol.Loaded:
        """Load the GGUF at `path`, in a fresh worker if another model is loaded."""
        raise NotImplementedError

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: protocol.Sampling = protocol.Sampling(),
        max_tokens: int | None = None,
    ) -> AsyncIterator[protocol.GenerationEvent]:
        """The model's reply as a stream of events, the last a `Done`; raises from the error tree.

        A worker that has died since the last reply is replaced and the model loaded again first.
        """
        raise NotImplementedError

    async def cancel(self) -> None:
        """Stop the running generation; its stream still ends with `Done`, reason "cancelled"."""
        raise NotImplementedError

    async def close(self) -> None:
        """End the worker. The engine can be loaded again afterwards."""
        raise NotImplementedError
