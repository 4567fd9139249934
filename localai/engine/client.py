"""The app's side of the engine: starts, watches and restarts the worker.

One `Engine` has at most one worker process with at most one model in it. Several requests may be under way:
as many replies as the model was loaded for (more wait their turn), and beside them whatever asks or tells
something. A worker that dies, hangs or talks nonsense becomes one exception of `localai.errors` for each
request, and the next request gets a new worker with the same model.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from pathlib import Path

import msgspec

from localai import confine, policy, processes
from localai.chat.messages import ChatMessage
from localai.confine.report import NOT_STARTED, Sandbox, require
from localai.engine import allowed, protocol, told
from localai.engine.measuring import LONGEST_REPLY, Measuring
from localai.engine.pipe import Inbox, Patience, WorkerPipe
from localai.engine.settings import Limits, Sampling
from localai.engine.settings import LoadOptions as LoadOptions
from localai.engine.states import State
from localai.errors import EngineError, LoadError, LocalAIError, WorkerDied
from models import templates
from models.parts import files_of
from models.supported import check_may_allow

WORKER = "localai.engine.worker"
SILENCE_S = 30.0
"""A busy worker sends something every second; one that is silent for so long has hung."""
STALL_BEATS = 600
"""A computation that gets nowhere for so many heartbeats, one a second, has hung. Half a minute is normal."""
SHUTDOWN_S = 2.0
"""How long a worker may take for an orderly end before it is killed."""


class Engine(Measuring):
    """One worker process and the model in it.

    `command` starts the worker (tests put another program there); `silence_s` and `stall_beats` are the
    limits of patience with it. All methods belong to one event loop.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        silence_s: float = SILENCE_S,
        stall_beats: int = STALL_BEATS,
        reads: Sequence[str] = (),
    ) -> None:
        """`reads`: further files that its worker may read, as `localai audit` has it attack one."""
        self._command = list(command or processes.worker_command(WORKER))
        self._silence_s, self._stall_beats = silence_s, stall_beats
        self._reads = tuple(reads)
        self._worker: WorkerPipe | None = None
        self._model: protocol.Loaded | None = None
        self._sandbox = NOT_STARTED
        self._confined: protocol.Confine | None = None
        """What the worker was told to confine itself to."""
        self._slots = asyncio.Semaphore(1)
        """One for each reply that the worker makes at the same time; new with each model."""
        self._last_load: protocol.Load | None = None
        self._names: dict[str, str] = {}
        """What the user calls the files of `_last_load`, by their paths."""
        self._made_here: frozenset[str] = frozenset()
        """The files of `_last_load` that this program itself has just made, to try them."""
        self._next_id = 1
        self._running: dict[int, WorkerPipe] = {}
        """The replies that are under way."""
        self._lock = asyncio.Lock()
        """Held to start or end a worker, and to load."""
        self._users = 0
        """Requests that rely on the worker to stay."""
        self._unused = asyncio.Event()
        self._unused.set()
        self._restoring = asyncio.Lock()
        self._closes = 0
        """How often `close` was called: a request from before that must not start anything."""

    @property
    def model(self) -> protocol.Loaded | None:
        """The model that is loaded; None also when its worker is found to be gone."""
        return self._model if self._worker is not None and self._worker.alive else None

    @property
    def sandbox(self) -> Sandbox:
        """What confines the worker that runs, or ran last."""
        return self._sandbox

    async def load(
        self,
        path: Path,
        options: LoadOptions = LoadOptions(),
        on_progress: Callable[[float], None] | None = None,
        *,
        sha256: str = "",
        name: str = "",
        draft_name: str = "",
        reference_name: str = "",
        made_here: bool = False,
        reference_made_here: bool = False,
    ) -> protocol.Loaded:
        """Load the GGUF at `path`, in a fresh worker if one was loaded before; raises from the error tree.

        Requests that are under way end first. `sha256` is the file's, where it is known. Errors call the
        file, and those of the other models, by their names where those are given, else by their paths.
        `made_here`: it is a file that this program has just made, only to try it, which no organization's
        list of models can have; `reference_made_here`: so is the reference of `options`.
        """
        check_may_allow(options.allow_architectures)
        request = _load_request(path, options, sha256)
        closes = self._closes
        async with self._lock:
            await self._unused.wait()
            self._require_open(closes)
            if self._last_load is not None:
                await self._stop()
            names = {"draft": draft_name, "reference": reference_name}
            files = {path: names[field] for field, path in request.options.others.items()}
            files[request.path] = name
            self._names = {file: known for file, known in files.items() if known}
            ours = ((request.path, made_here), (request.options.reference, reference_made_here))
            self._made_here = frozenset(file for file, made in ours if file and made)
            _, model = await self._load(request, on_progress)
            return model

    async def close(self) -> None:
        """End the worker, also in the middle of requests. The engine can be used again afterwards."""
        self._closes += 1
        await self._stop()

    # ------------------------------------------------------------------------------------------- replies

    def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: Sampling = Sampling(),
        limits: Limits = Limits(),
        *,
        begun: protocol.Begun | None = None,
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        """The model's reply as a stream of events, the last `Done` or `Overflow`; raises from the error tree.

        With `begun`, the rest of a reply that begins so. A worker that has died since the last reply is
        replaced and the model loaded again first. Leaving the stream early cancels the reply.
        """
        return self._reply(lambda number: protocol.Generate(number, list(messages), sampling, limits, begun))

    def continue_tokens(
        self,
        tokens: Sequence[int],
        sampling: Sampling = Sampling(),
        limits: Limits = Limits(),
        *,
        ignore_end: bool = False,
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        """What the model continues `tokens` with; otherwise as `generate`."""
        return self._reply(
            lambda number: protocol.Continue(number, list(tokens), sampling, limits, ignore_end)
        )

    async def cancel(self) -> None:
        """Stop the replies that are under way; their streams still end with `Done`, reason "cancelled"."""
        for number, worker in self._running.items():
            worker.post(protocol.Cancel(number))

    async def answer_now(self) -> None:
        """Close the thinking of the replies that are under way and let their answers come."""
        for number, worker in self._running.items():
            worker.post(protocol.AnswerNow(number))

    async def _reply(
        self, request: Callable[[int], protocol.Generate | protocol.Continue]
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        closes = self._closes
        while True:
            async with self._using(closes) as worker:
                waits = self._slots.locked()
                async with self._slots:
                    if waits and not worker.alive:
                        continue  # it died of an earlier reply
                    async with aclosing(self._stream(worker, request)) as events:
                        async for event in events:
                            yield event
                    return

    async def _stream(
        self, worker: WorkerPipe, request: Callable[[int], protocol.Generate | protocol.Continue]
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        with worker.open(self._new_id()) as inbox:
            self._running[inbox.id] = worker
            ended, room = False, LONGEST_REPLY
            try:
                made = request(inbox.id)
                await worker.send(made)
                while not ended:
                    event = told.sound(await inbox.get(), made)
                    ended = isinstance(event, protocol.Done | protocol.Overflow)
                    if isinstance(event, protocol.Thinking | protocol.Answer):
                        room -= len(event.text)
                    if room < 0:
                        raise worker.give_up(EngineError("the engine's reply is longer than any can be"))
                    if isinstance(event, protocol.GenerationEvent):
                        yield event
            except LocalAIError:
                ended = True
                raise
            finally:
                del self._running[inbox.id]
                if not ended:
                    worker.post(protocol.Cancel(inbox.id))

    # ------------------------------------------------------------------------------------ other requests

    async def describe(self) -> protocol.EngineInfo:
        """What the engine is made of."""
        async with self._lock:
            worker = await self._ensure_worker()
            with worker.open(0) as inbox:
                await worker.send(protocol.Describe())
                return await inbox.first(protocol.EngineInfo)

    async def attack(self, targets: bytes) -> bytes:
        """Have the worker attack `targets`, which are made for it; both as in `protocol.Attack`."""
        async with self._lock:
            worker = await self._ensure_worker()
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Attack(inbox.id, targets))
                return (await inbox.first(protocol.Attacked)).outcomes

    async def prefill(self, messages: Sequence[ChatMessage]) -> None:
        """Let the worker read a draft while it has nothing else to do; nothing if no model is loaded."""
        worker = self._worker
        if self.model is not None and worker is not None and not worker.congested:
            with suppress(EngineError):
                worker.post(protocol.Prefill(self._new_id(), list(messages)))

    async def count(self, messages: Sequence[ChatMessage]) -> protocol.Counted:
        """What a conversation costs before it is sent; also while a reply is under way."""
        async with self._using() as worker:
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Count(inbox.id, list(messages)))
                counted = await inbox.first(protocol.Counted)
        if len(counted.messages) != len(messages):
            raise EngineError("the engine counted other messages than it was given")
        return counted

    async def status(self) -> protocol.StatusReport:
        """What the worker holds and uses; also while a reply is under way."""
        async with self._using() as worker:
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Status(inbox.id))
                return await inbox.first(protocol.StatusReport)

    async def save(self, messages: Sequence[ChatMessage], *, limit: int | None = None) -> State | None:
        """The cache state of a conversation; None if there is none, or if it is over `limit` bytes.

        A worker that is gone holds nothing: none is started for this.
        """
        if self.model is None:
            return None
        async with self._using() as worker:
            state, size = State(self._fingerprint(), []), 0
            with worker.open(self._new_id()) as inbox:
                await worker.send(protocol.Save(inbox.id, list(messages)))
                while True:
                    part = await inbox.first(protocol.StatePart)
                    size += len(part.data)
                    if limit is not None and size > limit:
                        state.parts.clear()  # the rest still comes, but need not be kept
                    elif part.data:
                        state.parts.append(part.data)
                    if part.last:
                        return state if state.parts else None

    async def restore(self, state: State) -> int:
        """Give `state` back to the worker; how many tokens need not be read again, 0 if it does not fit."""
        async with self._using() as worker:
            if state.fingerprint != self._fingerprint() or not state.size:
                return 0
            async with self._restoring:
                with worker.open(self._new_id()) as inbox:
                    try:
                        for piece in state.pieces():
                            await worker.send(protocol.Restore(inbox.id, piece, last=False))
                    finally:  # also when this is cancelled: the worker must not wait for the rest
                        worker.post(protocol.Restore(inbox.id, b"", last=True))
                    return (await inbox.first(protocol.Restored)).tokens

    # ------------------------------------------------------------------------------------------- worker

    @asynccontextmanager
    async def _using(self, closes: int | None = None) -> AsyncIterator[WorkerPipe]:
        """The worker with the model in it, which is not replaced meanwhile as long as it lives.

        `closes` is what `_closes` was when the request was made.
        """
        closes = self._closes if closes is None else closes
        async with self._lock:
            self._require_open(closes)
            worker = await self._ready()
            self._users += 1
            self._unused.clear()
        try:
            yield worker
        finally:
            self._users -= 1
            if not self._users:
                self._unused.set()

    def _require_open(self, closes: int) -> None:
        if closes != self._closes:
            raise EngineError("the engine was closed")

    def _fingerprint(self) -> str:
        return self._model.fingerprint if self._model is not None else ""

    def _new_id(self) -> int:
        self._next_id += 1
        return self._next_id - 1

    async def _ready(self) -> WorkerPipe:
        if self._last_load is None:
            raise EngineError("no model is loaded")
        worker = self._worker
        if worker is None or self.model is None:
            worker, _ = await self._load(self._last_load, None)
        return worker

    async def _ensure_worker(self, wanted: protocol.Confine | None = None) -> WorkerPipe:
        """The worker, confined as `wanted`; whatever its confinement is, if that is None."""
        if self._worker is None or not self._worker.alive or wanted not in (None, self._confined):
            await self._stop()
            closes = self._closes
            wanted = wanted or protocol.Confine(policy.sandbox_mode())
            command = confine.command(self._command, wanted.mode, wanted.reads)
            worker = await WorkerPipe.start(command, Patience(self._silence_s, self._stall_beats))
            if closes != self._closes:
                await worker.end(0)
            self._require_open(closes)
            self._worker = worker
            await self._confine(worker, wanted)
        return self._worker

    async def _confine(self, worker: WorkerPipe, wanted: protocol.Confine) -> None:
        """Have the worker confine itself. SandboxError if that is not as far as is required."""
        self._confined = wanted
        try:
            with worker.open(0) as inbox:
                await worker.send(wanted)
                self._sandbox = (await inbox.first(protocol.Confined)).sandbox
            require(wanted.mode, self._sandbox)
        except BaseException:
            await self._stop()
            raise

    async def _load(
        self, request: protocol.Load, on_progress: Callable[[float], None] | None
    ) -> tuple[WorkerPipe, protocol.Loaded]:
        self._last_load, self._model = request, None
        try:
            seen = await self._seen(request)
            worker = await self._ensure_worker(_confinement(request, self._reads))
            with worker.open(0) as inbox:
                seen.require_unchanged()
                await worker.send(request)
                model = await _loaded(inbox, on_progress)
                seen.require_unchanged()
                self._model = model = told.bound(model, request)
        except WorkerDied as error:
            message = f"the engine could not load {request.path}: {error.message}"
            raise LoadError(self._named(message), "Fetch or make the file again, or free memory") from error
        except LocalAIError as error:
            raise type(error)(self._named(error.message), self._named(error.hint)) from error
        finally:
            if self._model is None:
                await self._stop()  # half a model may be in memory
        self._slots = asyncio.Semaphore(max(1, self._model.parallel))
        return worker, self._model

    async def _seen(self, request: protocol.Load) -> allowed.Seen:
        """The files of `request`, if the organization lets them be run."""
        closes = self._closes
        models = [request.path, *request.options.others.values()]
        seen = await allowed.seen(model for model in models if model not in self._made_here)
        self._require_open(closes)
        return seen

    def _named(self, text: str) -> str:
        """`text` with the names of files that lie in the store under their digests."""
        for path, name in self._names.items():
            text = text.replace(path, name)
        return text

    async def _stop(self) -> None:
        if (worker := self._worker) is not None:
            self._worker = self._model = None
            worker.post(protocol.Shutdown())
            await worker.end(SHUTDOWN_S)


def _confinement(request: protocol.Load, further: Sequence[str]) -> protocol.Confine:
    """What the worker for `request` may do: read the files that it names, and `further` ones."""
    options = request.options
    models = [request.path, *options.others.values()]
    reads = tuple(str(file) for model in models for file in files_of(Path(model)))
    return protocol.Confine(policy.sandbox_mode(), (*reads, *further), gpu=options.gpu_layers != 0)


def _load_request(path: Path, options: LoadOptions, sha256: str) -> protocol.Load:
    others = {field: str(Path(other).absolute()) for field, other in options.others.items()}
    options = msgspec.structs.replace(options, **others)
    return protocol.Load(str(path.absolute()), options, sha256, templates.accepted())


async def _loaded(inbox: Inbox, on_progress: Callable[[float], None] | None) -> protocol.Loaded:
    while not isinstance(event := await inbox.get(), protocol.Loaded):
        if isinstance(event, protocol.LoadProgress) and on_progress is not None:
            on_progress(event.fraction)
    return event
