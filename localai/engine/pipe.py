"""A worker process, the requests that go to it, and the events that come from it.

Events are routed by their id: whoever makes a request opens an `Inbox` for it first; what belongs to none is
dropped. All of it happens in callbacks of the event loop: there is no task that could be left behind, a token
costs one turn of the loop, and a state passes at more than 1 GB/s.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self, TypeVar, cast

import msgspec

from localai import frames, processes
from localai.engine import protocol
from localai.errors import EngineError, WorkerDied, WorkerHung, by_name

LAST_WORDS_S = 1.0
"""How long a worker that closed its pipe may take to die by its own cause, which the user is told."""
BUFFER_BYTES = 1024 * 1024
"""What may be on its way before a sender has to wait."""
_TICK_S = 1.0
_STDERR_KEPT = 8192
_LONGEST_REASON = 16 * 1024
"""Characters of an error that people are shown: some paths, but not megabytes of a hostile file."""
_STDIN, _STDOUT = 0, 1
_Event = TypeVar("_Event")
_AGAIN = "The next question starts a new one"


class Patience:
    """How long a worker may be silent, or get nowhere, while somebody waits for it.

    Silence is counted in short steps: a clock also runs while the computer sleeps.
    """

    def __init__(self, silence_s: float, stall_beats: int) -> None:
        """Seconds of silence, and heartbeats without a step between them; after more of it, it has hung."""
        self.tick_s = min(_TICK_S, silence_s)
        self._ticks = math.ceil(silence_s / self.tick_s)
        self._stall_beats = stall_beats
        self.renew()

    def renew(self) -> None:
        """Begin anew."""
        self._silent = 0
        self._step = -1
        self._beats = 0

    def heard(self) -> None:
        """The worker did something."""
        self._silent = -1

    def tick(self, *, awaited: bool) -> bool:
        """Count one `tick_s`, in which something was awaited or not; whether it is enough."""
        self._silent = self._silent + 1 if awaited else 0
        return self._silent > self._ticks

    def beat(self, step: int) -> bool:
        """Count a heartbeat; whether there have been too many since `step` last changed."""
        self._beats = self._beats + 1 if step == self._step else 0
        self._step = step
        return self._beats > self._stall_beats


class Inbox:
    """The events of one request, in order; open within its `with` block. One task at a time may wait."""

    def __init__(self, worker: WorkerPipe, request_id: int) -> None:
        self.id = request_id
        self._worker = worker
        self._events: deque[protocol.Event] = deque()
        self._waiter: asyncio.Future[None] | None = None

    def __enter__(self) -> Self:
        self._worker.register(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._worker.unregister(self)

    @property
    def waiting(self) -> bool:
        """Whether somebody waits for an event that has not come."""
        return self._waiter is not None

    async def first(self, kind: type[_Event]) -> _Event:
        """The next event of that kind; those before it are dropped. Raises as `get`."""
        while not isinstance(event := await self.get(), kind):
            pass
        return event

    async def get(self) -> protocol.Event:
        """The next event; a `Failed`, and whatever befalls the worker, is raised from the error tree."""
        while not self._events:
            if self._worker.over:
                raise await self._worker.failure()
            self._waiter = asyncio.get_running_loop().create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        event = self._events.popleft()
        if isinstance(event, protocol.Failed):
            raise by_name(event.kind)(event.message[:_LONGEST_REASON], event.hint[:_LONGEST_REASON])
        return event

    def put(self, event: protocol.Event) -> None:
        """Add an event at the end."""
        self._events.append(event)
        self.wake()

    def wake(self) -> None:
        """Let the one who waits look again."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class WorkerPipe(asyncio.SubprocessProtocol):
    """One worker process. Made by `start`; whoever starts it ends it with `end`."""

    def __init__(self, patience: Patience) -> None:
        self._process: asyncio.SubprocessTransport  # from connection_made
        self._stdin: asyncio.WriteTransport
        self._inboxes: dict[int, Inbox] = {}
        self._received = frames.Assembler()
        self._stderr = bytearray()
        self._fault: EngineError | None = None
        self._stdout_closed = False
        self._exited, self._disconnected, self._writable = (asyncio.Event() for _ in range(3))
        self._writable.set()
        self._senders = 0
        self._patience = patience
        self._timer: asyncio.TimerHandle | None = None

    @classmethod
    async def start(cls, command: Sequence[str], patience: Patience) -> WorkerPipe:
        """Start `command`; a group of its own keeps the terminal's Ctrl+C away from it."""
        try:
            _, worker = await asyncio.get_running_loop().subprocess_exec(
                lambda: cls(patience),
                *command,
                env=processes.confined_environment(),
                start_new_session=True,
            )
        except OSError as error:
            raise EngineError(f"the engine could not be started: {command[0]}: {error.strerror}") from error
        return worker

    @property
    def pid(self) -> int:
        """The process id."""
        return self._process.get_pid()

    @property
    def returncode(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._process.get_returncode()

    @property
    def over(self) -> bool:
        """Whether no more events can come."""
        return self._stdout_closed or self._fault is not None

    @property
    def alive(self) -> bool:
        """Whether it can be given requests, as far as is known."""
        return not self.over and self.returncode is None

    # ------------------------------------------------------------------------------------------ requests

    def open(self, request_id: int) -> Inbox:
        """Where the events with that id arrive while its `with` block runs."""
        return Inbox(self, request_id)

    def post(self, request: protocol.Request) -> None:
        """Send `request` without waiting; nothing happens if the worker is gone: inboxes tell about that."""
        if not self.alive:
            return
        try:
            self._stdin.write(protocol.encode(request))
        except frames.FrameTooLong as error:
            limit = frames.MAX_FRAME // (1024 * 1024)
            raise EngineError(f"the message is longer than {limit} MB", "Shorten it") from error

    @property
    def congested(self) -> bool:
        """Whether the worker is slow to take what was sent."""
        return not self._writable.is_set()

    async def send(self, request: protocol.Request) -> None:
        """As `post`, and wait while the worker is slow to take it; not for ever, if an inbox is open."""
        self.post(request)
        self._senders += 1
        try:
            await self._writable.wait()
        finally:
            self._senders -= 1

    def register(self, inbox: Inbox) -> None:
        """For `Inbox`."""
        if not self._inboxes:
            self._patience.renew()
            self._watch()
        self._inboxes[inbox.id] = inbox

    def unregister(self, inbox: Inbox) -> None:
        """For `Inbox`."""
        del self._inboxes[inbox.id]
        if not self._inboxes and self._timer is not None:
            self._timer.cancel()
            self._timer = None

    # ----------------------------------------------------------------------------------------------- end

    async def failure(self) -> EngineError:
        """What ended a worker that is not alive; its process is gone afterwards."""
        code, stderr = await self.end(LAST_WORDS_S if self._fault is None else 0)
        if self._fault is not None:
            return type(self._fault)(self._fault.message, self._fault.hint)  # one for each who asks
        reason = processes.describe_exit(code, stderr)
        return WorkerDied(f"the engine stopped in the middle of its work: {reason}", _AGAIN)

    async def end(self, patience_s: float) -> tuple[int | None, str]:
        """Wait so long for the process to end, then kill it; its exit code and the end of its stderr.

        Also when this is cancelled, the process does not stay. Several tasks may do it at once.
        """
        self._stdin.close()
        try:
            with suppress(TimeoutError):
                async with asyncio.timeout(patience_s):
                    await self._exited.wait()
        finally:
            self._kill()
        await self._exited.wait()
        with suppress(TimeoutError):
            async with asyncio.timeout(LAST_WORDS_S):
                await self._disconnected.wait()
        self._process.close()
        return self.returncode, self._stderr.decode("utf-8", "replace")

    def give_up(self, fault: EngineError) -> EngineError:
        """End the worker for `fault`, which is returned; whoever waits for it gets the same."""
        self._break(fault)
        return fault

    def _break(self, fault: EngineError) -> None:
        """Give the worker up."""
        self._fault = fault
        self._kill()
        self._wake()

    def _kill(self) -> None:
        with suppress(ProcessLookupError):
            self._process.kill()

    def _wake(self) -> None:
        self._writable.set()
        for inbox in self._inboxes.values():
            inbox.wake()

    # ------------------------------------------------------------------------------- called by the loop

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """The process runs."""
        self._process = cast(asyncio.SubprocessTransport, transport)
        self._stdin = cast(asyncio.WriteTransport, self._process.get_pipe_transport(_STDIN))
        self._stdin.set_write_buffer_limits(BUFFER_BYTES)
        for number in (_STDIN, _STDOUT):
            pipe = self._process.get_pipe_transport(number)
            if pipe is not None and not pipe.is_closing():  # it is, if the worker ended at once
                processes.enlarge_pipe(pipe.get_extra_info("pipe").fileno(), BUFFER_BYTES)

    def pipe_data_received(self, fd: int, data: bytes) -> None:
        """Bytes of standard output or standard error."""
        if fd != _STDOUT:
            self._stderr += data
            del self._stderr[:-_STDERR_KEPT]
        elif self._fault is None:
            self._patience.heard()
            try:
                self._received.feed(data, self._take)
            except (msgspec.DecodeError, frames.FrameTooLong) as error:
                self._break(EngineError(f"the engine sent something that is not a message: {error}"))

    def pipe_connection_lost(self, fd: int, exc: Exception | None) -> None:
        """The worker closed a pipe, as it does when it ends."""
        if fd == _STDOUT:
            self._stdout_closed = True
        self._wake()

    def process_exited(self) -> None:
        """The process has ended; what it sent before may still be on its way."""
        self._exited.set()

    def connection_lost(self, exc: Exception | None) -> None:
        """The process has ended and all its pipes are empty."""
        self._process.close()
        self._disconnected.set()

    def pause_writing(self) -> None:
        """More than `BUFFER_BYTES` wait to be sent."""
        self._writable.clear()

    def resume_writing(self) -> None:
        """The worker took some of it."""
        self._patience.heard()
        self._writable.set()

    def _take(self, body: memoryview) -> None:
        event = protocol.decode_event(body)
        if isinstance(event, protocol.Alive):
            if self._inboxes and self._patience.beat(event.step):
                self._hung()
            return
        inbox = self._inboxes.get(getattr(event, "id", 0))
        if inbox is not None:
            inbox.put(event)

    # --------------------------------------------------------------------------------------------- watch

    def _watch(self) -> None:
        self._timer = asyncio.get_running_loop().call_later(self._patience.tick_s, self._tick)

    def _tick(self) -> None:
        self._watch()
        awaited = self._senders > 0 or any(inbox.waiting for inbox in self._inboxes.values())
        if self._patience.tick(awaited=awaited):
            self._hung()

    def _hung(self) -> None:
        if not self.over:
            self._break(WorkerHung("the engine got stuck and was stopped", _AGAIN))
