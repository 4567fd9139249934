"""The app's side of the engine: starts, watches and restarts the worker.

One `Engine` has at most one worker process with at most one model in it. Requests are made one at a time;
`cancel` may be called while one runs. A worker that dies, hangs or talks nonsense becomes one exception of
`localai.errors`, and the next request gets a new worker.
"""

from __future__ import annotations

import asyncio
import math
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import suppress
from pathlib import Path

import msgspec

from localai import frames, processes
from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.errors import EngineError, LoadError, WorkerDied, WorkerHung, by_name

WORKER = "localai.engine.worker"
SILENCE_S = 30.0
"""A busy worker sends something every second; one that is silent for so long has hung."""
STALL_BEATS = 600
"""A computation that gets nowhere for so many heartbeats, one a second, has hung. Half a minute is normal."""
_TICK_S = 1.0
SHUTDOWN_S = 2.0
"""How long a worker may take for an orderly end before it is killed."""
LAST_WORDS_S = 1.0
"""How long a worker that closed its pipe may take to die by its own cause, which the user is told."""
_STDERR_KEPT = 8192


class LoadOptions(msgspec.Struct, frozen=True):
    """How to load a model; None leaves the choice to the engine."""

    context: int | None = None
    threads: int | None = None
    gpu_layers: int | None = None


class Engine:
    """One worker process and the model in it.

    `command` starts the worker (tests put another program there); `silence_s` and `stall_beats` are the
    limits of patience with it.
    """

    def __init__(
        self,
        command: Sequence[str] | None = None,
        *,
        silence_s: float = SILENCE_S,
        stall_beats: int = STALL_BEATS,
    ) -> None:
        self.model: protocol.Loaded | None = None
        self._command = list(command or processes.worker_command(WORKER))
        self._silence_s, self._stall_beats = silence_s, stall_beats
        self._worker: _WorkerPipe | None = None
        self._last_load: protocol.Load | None = None
        self._lock = asyncio.Lock()
        self._next_id = 1
        self._running = 0

    async def load(
        self,
        path: Path,
        options: LoadOptions = LoadOptions(),
        on_progress: Callable[[float], None] | None = None,
    ) -> protocol.Loaded:
        """Load the GGUF at `path`, in a fresh worker if one was loaded before; raises from the error tree."""
        request = _load_request(path, options)
        async with self._lock:
            if self._last_load is not None:
                await self._stop()
            return await self._load(request, on_progress)

    async def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: protocol.Sampling = protocol.Sampling(),
        max_tokens: int | None = None,
    ) -> AsyncGenerator[protocol.GenerationEvent, None]:
        """The model's reply as a stream of events, the last a `Done`; raises from the error tree.

        A worker that has died since the last reply is replaced and the model loaded again first. Leaving
        the stream early cancels the reply.
        """
        async with self._lock:
            worker = await self._ready()
            request = protocol.Generate(self._next_id, list(messages), sampling, max_tokens)
            self._next_id += 1
            self._running = request.id
            ended = False
            try:
                await self._send(worker, request)
                while not ended:
                    event = await self._receive(worker, request.id)
                    ended = isinstance(event, protocol.Done)
                    if isinstance(event, protocol.GenerationEvent):
                        yield event
            finally:
                self._running = 0
                if not ended:
                    await self._abandon(worker, request.id)

    async def cancel(self) -> None:
        """Stop the running generation; its stream still ends with `Done`, reason "cancelled"."""
        if self._running and self._worker is not None:
            with suppress(EngineError):
                await self._send(self._worker, protocol.Cancel(self._running))

    async def describe(self) -> protocol.EngineInfo:
        """What the engine is made of."""
        async with self._lock:
            worker = await self._ensure_worker()
            await self._send(worker, protocol.Describe())
            while True:
                event = await self._receive(worker, 0)
                if isinstance(event, protocol.EngineInfo):
                    return event

    async def close(self) -> None:
        """End the worker, also in the middle of a request. The engine can be loaded again afterwards."""
        await self._stop()

    # ------------------------------------------------------------------------------------------- worker

    async def _ensure_worker(self) -> _WorkerPipe:
        if self._worker is None or not self._worker.alive:
            await self._stop()
            self._worker = await _WorkerPipe.start(self._command)
        return self._worker

    async def _ready(self) -> _WorkerPipe:
        """A worker with the model in it."""
        if self._last_load is None:
            raise EngineError("no model is loaded")
        if self._worker is None or not self._worker.alive or self.model is None:
            await self._load(self._last_load, None)
        return await self._ensure_worker()

    async def _load(
        self, request: protocol.Load, on_progress: Callable[[float], None] | None
    ) -> protocol.Loaded:
        worker = await self._ensure_worker()
        self.model, self._last_load = None, request
        try:
            await self._send(worker, request)
            self.model = await self._loaded(worker, on_progress)
        except WorkerDied as error:
            raise LoadError(f"the engine could not load {request.path}: {error.message}") from error
        finally:
            if self.model is None:
                await self._stop()  # half a model may be in memory
        return self.model

    async def _loaded(
        self, worker: _WorkerPipe, on_progress: Callable[[float], None] | None
    ) -> protocol.Loaded:
        while True:
            event = await self._receive(worker, 0)
            if isinstance(event, protocol.LoadProgress) and on_progress is not None:
                on_progress(event.fraction)
            if isinstance(event, protocol.Loaded):
                return event

    async def _send(self, worker: _WorkerPipe, request: protocol.Request) -> None:
        try:
            await worker.write(protocol.encode(request))
        except frames.FrameTooLong as error:
            limit = frames.MAX_FRAME // (1024 * 1024)
            raise EngineError(f"the message is longer than {limit} MB", "Shorten it") from error
        except (BrokenPipeError, ConnectionResetError) as error:
            raise await self._died(worker) from error

    async def _receive(self, worker: _WorkerPipe, request_id: int) -> protocol.Event:
        """The next event that belongs to `request_id`; errors of the worker are raised."""
        while True:
            event = await self._next_event(worker)
            if isinstance(event, protocol.Alive):
                if worker.beats_without_step(event.step) > self._stall_beats:
                    raise await self._hung(worker)
                continue
            if getattr(event, "id", 0) != request_id:
                continue  # the rest of a reply that was left early
            if isinstance(event, protocol.Failed):
                raise by_name(event.kind)(event.message, event.hint)
            return event

    async def _next_event(self, worker: _WorkerPipe) -> protocol.Event:
        try:
            return protocol.decode_event(await self._read(worker))
        except (asyncio.IncompleteReadError, ConnectionResetError) as error:
            raise await self._died(worker) from error
        except (msgspec.DecodeError, frames.FrameTooLong) as error:
            await self._stop()
            raise EngineError(f"the engine sent something that is not a message: {error}") from error

    async def _read(self, worker: _WorkerPipe) -> bytes:
        """The next frame. Silence is counted in short waits: a clock also runs while the app is suspended."""
        tick = min(_TICK_S, self._silence_s)
        for _ in range(math.ceil(self._silence_s / tick)):
            with suppress(TimeoutError):
                async with asyncio.timeout(tick):
                    return await worker.read()
        raise await self._hung(worker)

    async def _died(self, worker: _WorkerPipe) -> WorkerDied:
        reason = processes.describe_exit(*await worker.end(LAST_WORDS_S))
        self._forget(worker)
        return WorkerDied(
            f"the engine stopped in the middle of its work: {reason}", "The next question starts a new one"
        )

    async def _hung(self, worker: _WorkerPipe) -> WorkerHung:
        await worker.end(0)
        self._forget(worker)
        return WorkerHung("the engine got stuck and was stopped", "The next question starts a new one")

    async def _abandon(self, worker: _WorkerPipe, request_id: int) -> None:
        if worker.alive:
            with suppress(EngineError):
                await self._send(worker, protocol.Cancel(request_id))

    async def _stop(self) -> None:
        if (worker := self._worker) is not None:
            self._forget(worker)
            with suppress(BrokenPipeError, ConnectionResetError):
                await worker.write(protocol.encode(protocol.Shutdown()))
            await worker.end(SHUTDOWN_S)

    def _forget(self, worker: _WorkerPipe) -> None:
        if self._worker is worker:
            self._worker = None
            self.model = None


def _load_request(path: Path, options: LoadOptions) -> protocol.Load:
    return protocol.Load(str(path.absolute()), options.context, options.threads, options.gpu_layers)


class _WorkerPipe:
    """A worker process: frames in, frames out, and the end of its standard error."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._stderr = bytearray()
        self._stderr_task = asyncio.create_task(self._drain_stderr())
        self._body_length: int | None = None
        self._step = -1
        self._beats = 0

    @classmethod
    async def start(cls, command: Sequence[str]) -> _WorkerPipe:
        """Start `command`; a group of its own keeps the terminal's Ctrl+C away from it."""
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=PIPE,
                stdout=PIPE,
                stderr=PIPE,
                env=processes.worker_environment(),
                start_new_session=True,
                limit=1 << 20,
            )
        except OSError as error:
            raise EngineError(f"the engine could not be started: {command[0]}: {error.strerror}") from error
        return cls(process)

    @property
    def alive(self) -> bool:
        """Whether the process has not ended, as far as is known."""
        return self._process.returncode is None

    def beats_without_step(self, step: int) -> int:
        """Count a heartbeat; how many there were since the worker's `step` last changed."""
        self._beats = self._beats + 1 if step == self._step else 0
        self._step = step
        return self._beats

    async def write(self, data: bytes) -> None:
        """Send a frame."""
        assert self._process.stdin is not None
        self._process.stdin.write(data)
        await self._process.stdin.drain()

    async def read(self) -> bytes:
        """The next frame's body. May be cancelled at any point without losing a byte."""
        assert self._process.stdout is not None
        if self._body_length is None:
            self._body_length = frames.body_length(await self._process.stdout.readexactly(frames.HEAD_BYTES))
        body = await self._process.stdout.readexactly(self._body_length)
        self._body_length = None
        return body

    async def end(self, patience_s: float) -> tuple[int | None, str]:
        """Wait so long for the process to end, then kill it; its exit code and the end of its stderr.

        Also when this is cancelled, the process does not stay.
        """
        assert self._process.stdin is not None
        self._process.stdin.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._process.wait()
        finally:
            with suppress(ProcessLookupError):
                self._process.kill()
        await self._process.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._stderr_task
        return self._process.returncode, self._stderr.decode("utf-8", "replace")

    async def _drain_stderr(self) -> None:
        assert self._process.stderr is not None
        while chunk := await self._process.stderr.read(4096):
            self._stderr += chunk
            del self._stderr[:-_STDERR_KEPT]
