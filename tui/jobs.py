"""What takes a while and is no conversation: a model that is fetched or quantized, in a process of its own.

The process is our own command line. The program with the screen so imports no network code, and whatever
ends it ends the job: the commands stop, and clean up, as soon as nobody reads their progress any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE, Process
from collections.abc import Callable
from contextlib import suppress
from typing import Final, Literal

import msgspec

from localai.chat.clean import clean
from localai.errors import QuantizeError
from localai.processes import describe_exit, worker_command, worker_environment

State = Literal["running", "done", "failed", "stopped"]

PATIENCE_S: Final = 3.0
"""How long a command that was told to stop may clean up."""
_ERROR: Final = "localai: error: "


class _Progress(msgspec.Struct, frozen=True):
    """A line of progress, as docs/json.md describes it."""

    step: str
    done: int
    total: int


_progress = msgspec.json.Decoder(_Progress)


def pull(name: str) -> Job:
    """Fetch the model of the catalogue called `name` into the store."""
    return Job(name, "fetching", ["models", "pull", "--", name])


def quantize(source: str, file_type: str, name: str) -> Job:
    """Make a model of type `file_type` from `source`, a model's name or a path, and store it as `name`."""
    return Job(name, "quantizing", ["quantize", "--type", file_type, "--name", name, "--", source])


class Need(msgspec.Struct, frozen=True):
    """The memory that a model takes to run with so many tokens of context."""

    context: int
    bytes: int
    fits: bool
    """Whether a model may take so much here."""


class TypeForecast(msgspec.Struct, frozen=True):
    """A type that a model could have."""

    type: str
    size: int
    """Bytes of the file."""
    bits_per_weight: float
    sensible: bool
    """Whether it makes sense for this model."""
    memory: list[Need]


class Recommended(msgspec.Struct, frozen=True):
    """The type to take, and why."""

    type: str
    reason: str


class Forecast(msgspec.Struct, frozen=True):
    """What a model would be in each type. Of docs/json.md, what the screen needs."""

    source_type: str
    types: list[TypeForecast]
    """Best first."""
    recommended: Recommended


class _Told(msgspec.Struct, frozen=True):
    forecast: Forecast


_forecasts = msgspec.json.Decoder(_Told)


async def forecast(source: str) -> Forecast:
    """What `source`, a model's name or a path, would be when quantized; QuantizeError if it cannot be."""
    try:
        process = await start(["quantize", "--dry-run", "--json", "--", source], stdout=PIPE)
    except OSError as error:
        raise QuantizeError(f"the command could not be started: {error.strerror or error}") from error
    try:
        output, errors = await process.communicate()
    finally:
        await _end(process)
    if process.returncode != 0:
        lines = errors.decode("utf-8", "replace").splitlines()
        told = [sentence(line) for line in lines if line.startswith(_ERROR)]
        raise QuantizeError(told[-1] if told else _stopped(process.returncode))
    try:
        return _forecasts.decode(output).forecast
    except ValueError as error:  # of msgspec, or not even text
        raise QuantizeError("The forecast cannot be read") from error


class Job:
    """One command that makes a model. `on_change` is called whenever something here has changed."""

    def __init__(self, name: str, doing: str, words: list[str]) -> None:
        """`words`: of our own command line, which makes the model called `name`."""
        self.name = name
        """Of the model that comes."""
        self.doing = doing
        """What is done, for the screen: "fetching", "quantizing"."""
        self.state: State = "running"
        self.stage = ""
        """The step that it is at, in a word or two; "": not known yet."""
        self.done = 0
        self.total = 0
        """Bytes of the step; 0: not known."""
        self.left_s = 0.0
        """Seconds that the step may still take; 0: not known."""
        self.error = ""
        """Why it failed: one line."""
        self.on_change: Callable[[], None] = lambda: None
        self._words = words
        self._process: Process | None = None
        self._begun = self._stopping = False
        self._since = 0.0
        self._ended = asyncio.Event()

    async def run(self) -> None:
        """Work until it is done, has failed or was stopped. Whatever ends this call ends the process."""
        self._begun = True
        try:
            if not self._stopping:
                await self._work()
        except OSError as error:
            self._end("failed", f"The command could not be started: {error.strerror or error}")
        finally:
            if self.state == "running":
                self._end("stopped")
            self._ended.set()

    async def stop(self) -> None:
        """End it, and wait until it has cleaned up. What is in the store stays as it was."""
        self._stopping = True
        if self._process is not None:
            await _end(self._process)
        if self._begun:
            await self._ended.wait()
        elif self.state == "running":
            self._end("stopped")

    async def _work(self) -> None:
        process = await start(self._words, stdout=DEVNULL)
        self._process = process
        try:
            if self._stopping:
                process.terminate()
            assert process.stderr is not None
            while line := await _line(process.stderr):
                self._read(line.decode("utf-8", "replace").rstrip())
            code = await process.wait()
        finally:
            await _end(process)
        if code == 0:
            self._end("done")
        elif self._stopping:
            self._end("stopped")
        else:
            self._end("failed", self.error or _stopped(code))

    def _read(self, line: str) -> None:
        if line.startswith(_ERROR):
            self.error = sentence(line)
            return
        with suppress(msgspec.MsgspecError):
            told = _progress.decode(line)
            self._note(clean(told.step), told.done, told.total)
            self.on_change()

    def _note(self, stage: str, done: int, total: int) -> None:
        now = time.monotonic()
        if stage != self.stage:
            self._since = now
        self.stage, self.done, self.total = stage, done, total
        share = done / total if total else 0.0
        # The first moments tell nothing: a connection is made, a file is opened.
        known = share > 0.02 and now - self._since > 1
        self.left_s = (now - self._since) * (1 - share) / share if known else 0.0

    def _end(self, state: State, error: str = "") -> None:
        self.state, self.error = state, error
        self.on_change()


class Jobs:
    """The jobs of one run of the program: they go on whatever screen is shown."""

    def __init__(self) -> None:
        self.all: list[Job] = []
        """In the order in which they were started."""
        self.on_change: Callable[[], None] = lambda: None
        self.on_end: Callable[[Job], None] = lambda job: None
        """Called with each job that has ended."""
        self._tasks: set[asyncio.Task[None]] = set()

    @property
    def running(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self.all if job.state == "running"]

    def of(self, name: str) -> Job | None:
        """The running job that makes the model called `name`."""
        return next((job for job in self.running if job.name == name), None)

    def pull(self, name: str) -> None:
        """Begin to fetch a model of the catalogue."""
        self.start(pull(name))

    def quantize(self, source: str, file_type: str, name: str) -> None:
        """Begin to quantize."""
        self.start(quantize(source, file_type, name))

    async def forecast(self, source: str) -> Forecast:
        """As the function of that name."""
        return await forecast(source)

    def start(self, job: Job) -> None:
        """Let `job` run. One that has ended and made the same model is forgotten."""
        self.all = [other for other in self.all if other.name != job.name]
        self.all.append(job)
        job.on_change = self._changed
        task = asyncio.create_task(self._run(job))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        self._changed()

    async def stop(self) -> None:
        """Stop all that run, and wait for them."""
        await asyncio.gather(*(job.stop() for job in self.running))
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, job: Job) -> None:
        await job.run()
        self.on_end(job)
        self._changed()

    def _changed(self) -> None:
        self.on_change()


async def start(words: list[str], *, stdout: int) -> Process:
    """Our own command line with `words`, in a process that no key pressed here reaches. OSError."""
    return await asyncio.create_subprocess_exec(
        *worker_command("localai"),
        *words,
        stdin=DEVNULL,
        stdout=stdout,
        stderr=PIPE,
        env=worker_environment() | {"LOCALAI_PROGRESS": "json"},
        start_new_session=os.name == "posix",
    )


def sentence(error: str) -> str:
    """An error as the command line prints it, in one line for the screen."""
    text = " ".join(clean(error).removeprefix(_ERROR).split())
    is_word = text.partition(" ")[0].isalpha()  # the name of a model stays as it is
    return text[:1].upper() + text[1:] if is_word else text


def _stopped(code: int | None) -> str:
    return f"The command stopped: {describe_exit(code)}"


async def _line(reader: StreamReader) -> bytes:
    """The next line; empty: there is none. Those that `reader` cannot hold are none of ours: left out."""
    while True:
        with suppress(ValueError):
            return await reader.readline()


async def _end(process: Process) -> None:
    """End `process` if it runs: it may clean up first. What it has started and left behind is killed."""
    try:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE_S)
    except TimeoutError:
        pass
    finally:
        _kill(process)
    await process.wait()


def _kill(process: Process) -> None:
    """Kill all that is left of it. Whoever holds its standard error would be waited for, for ever."""
    with suppress(ProcessLookupError, PermissionError):  # none is left, or on a Mac only dead ones
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
