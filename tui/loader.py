"""Which model is chosen, and how far it is: loading in the background while the user already types."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Literal

import msgspec

from localai.engine.client import Engine
from localai.engine.protocol import Loaded
from localai.engine.settings import LoadOptions, Sampling
from localai.errors import LocalAIError, ModelNotFound
from tui.shelf import ModelEntry, ModelShelf, ResolvedModel

ModelState = Literal["none", "loading", "ready", "failed"]
Step = Callable[[], Awaitable[None]]


async def _nothing() -> None:
    """The step that is none."""


class Loader:
    """Loads one model at a time into the engine; the latest choice wins."""

    def __init__(
        self,
        engine: Engine,
        models: ModelShelf,
        options: LoadOptions,
        sampling: Sampling = Sampling(),
        *,
        before: Step = _nothing,
        after: Step = _nothing,
    ) -> None:
        """`sampling` overrides, field by field, what a model recommends.

        `before` is awaited while the model before it is still loaded, `after` before this one is ready.
        """
        self.state: ModelState = "none"
        self.entry: ModelEntry | None = None
        """The chosen model, loaded or not."""
        self.fraction = 0.0
        self.loaded: Loaded | None = None
        self.sha256 = ""
        """Of the file of the chosen model, where that is known."""
        self.error: LocalAIError | None = None
        self.on_change: Callable[[], None] = lambda: None
        self._engine = engine
        self._models = models
        self._options = options
        self._sampling = sampling
        self._before, self._after = before, after
        self.name = ""
        """What was chosen: a name, or a path."""
        self._task: asyncio.Task[ResolvedModel] | None = None

    def start(self, name: str, context: int | None = None) -> None:
        """Load the model of that name, instead of any other; with `context` tokens of context, if given."""
        previous = self._task
        if previous is not None:
            previous.cancel()
        self.name = name
        self.loaded, self.error, self.fraction = None, None, 0.0
        self.state = "loading"
        options = self._options
        if context is not None:
            options = msgspec.structs.replace(options, context=context)
        self._task = asyncio.create_task(self._load(name, options, previous))
        # Its error is kept in `error`: nobody has to await the task for it.
        self._task.add_done_callback(lambda task: task.cancelled() or task.exception())
        self.on_change()

    def enlarge(self, context: int) -> None:
        """Load the chosen model again, with that many tokens of context."""
        self.start(self.name, context)

    async def ready(self) -> ResolvedModel:
        """The model, when it is loaded; after a failure, this tries again. Errors as in `Engine.load`."""
        if self._task is None:
            raise ModelNotFound("No model is chosen", "Ctrl+O shows the installed ones")
        if self.state == "failed":
            self.start(self.name)
        while True:
            task = self._task
            await asyncio.wait({task})
            if task is self._task:
                return task.result()

    async def close(self) -> None:
        """Stop loading."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.wait({self._task})

    async def _load(
        self, name: str, options: LoadOptions, previous: asyncio.Task[ResolvedModel] | None
    ) -> ResolvedModel:
        if previous is not None:
            await asyncio.wait({previous})
        try:
            self.entry, self.sha256 = _unopened(name), ""
            model = self._models.resolve(name)
            self.entry, self.sha256 = model.entry, model.sha256
            self.on_change()
            await self._before()
            stored = model.entry.name if model.sha256 else ""
            allowed = (*options.allow_architectures, *model.allow_architectures)
            options = msgspec.structs.replace(options, allow_architectures=allowed)
            self.loaded = await self._engine.load(
                model.path, options, self._progress, sha256=model.sha256, name=stored
            )
            await self._after()
        except LocalAIError as error:
            self.state, self.error = "failed", error
            self.on_change()
            raise
        self.state, self.fraction = "ready", 1.0
        self.on_change()
        return msgspec.structs.replace(model, sampling=self._sampling.completed_by(model.sampling))

    def _progress(self, fraction: float) -> None:
        # The screen shows whole per cents: more calls than that would only cost time.
        if int(fraction * 100) != int(self.fraction * 100):
            self.fraction = fraction
            self.on_change()


def _unopened(name: str) -> ModelEntry:
    """What is known of a model that cannot be found or read: that somebody chose it."""
    short = Path(name).name
    return ModelEntry(name=short, title=short, note="It could not be opened.")
