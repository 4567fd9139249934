"""What takes a while and is no conversation: a model that is fetched, quantized or added, beside it."""

from __future__ import annotations

import asyncio
from asyncio.subprocess import DEVNULL, Process
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Final, Literal

import msgspec

from localai.chat.clean import clean_line
from tui import asking, command
from tui.asking import Forecast
from tui.model_entry import ModelEntry

State = Literal["running", "done", "failed", "stopped"]
KEPT: Final = "fetching"
"""What a job does that leaves what has come when it is stopped, for the next attempt."""


class _Progress(msgspec.Struct, frozen=True):
    """A line of progress, as docs/json.md describes it."""

    step: str
    done: int
    total: int
    bytes_per_s: int = 0


_progress = msgspec.json.Decoder(_Progress)


def pull(name: str, *, from_source: bool = False) -> Job:
    """Fetch the model of the catalogue called `name` into the store; `from_source`: make it here.

    Whether it fits was shown before: the command is not to refuse what the user wants all the same.
    """
    more = ["--from-source"] if from_source else []
    return Job(name, KEPT, ["models", "pull", "--anyway", *more, "--", name])


def go_on(name: str, words: Sequence[str]) -> Job:
    """Go on with the fetch of `name` that was begun with `words`, "pull" and so on. Else as `pull`."""
    command, *rest = words
    return Job(name, KEPT, ["models", command, "--anyway", *rest])


def quantize(source: str, file_type: str, name: str) -> Job:
    """Make a model of type `file_type` from `source`, a model's name or a path, and store it as `name`."""
    return Job(name, "quantizing", ["quantize", "--type", file_type, "--name", name, "--", source])


def add(name: str) -> Job:
    """Take a model of another program's into the store, where it is to be called `name`, without a copy."""
    return Job(name, "adding", ["models", "discover", f"--add={name}"])


class Job:
    """One command that makes a model. `on_change` is called whenever something here has changed."""

    def __init__(self, name: str, doing: str, words: list[str]) -> None:
        """`words`: of our own command line, which makes the model called `name`."""
        self.name = name
        """Of the model that comes."""
        self.doing = doing
        """What is done, for the screen: "fetching", "quantizing", "adding"."""
        self.state: State = "running"
        self.stage = ""
        """The step that it is at, in a word or two; "": not known yet."""
        self.done = 0
        self.total = 0
        """Bytes of the step; 0: not known."""
        self.rate = 0
        """Bytes per second of the step so far; 0: not known."""
        self.error = ""
        """Why it failed: one line."""
        self.on_change: Callable[[], None] = lambda: None
        self._words = words
        self._process: Process | None = None
        self._begun = self._stopping = False
        self._ended = asyncio.Event()

    @property
    def left_s(self) -> float:
        """Seconds that the step may still take; 0: not known."""
        return max(0, self.total - self.done) / self.rate if self.rate else 0.0

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
            await command.end(self._process)
        if self._begun:
            await self._ended.wait()
        elif self.state == "running":
            self._end("stopped")

    async def _work(self) -> None:
        process = await command.start(self._words, stdout=DEVNULL)
        self._process = process
        try:
            if self._stopping:
                process.terminate()
            assert process.stderr is not None
            while line := await command.line(process.stderr):
                self._read(line.decode("utf-8", "replace").rstrip())
            code = await process.wait()
        finally:
            await command.end(process)
        if code == 0:
            self._end("done")
        elif self._stopping:
            self._end("stopped")
        else:
            self._end("failed", self.error or command.stopped(code))

    def _read(self, line: str) -> None:
        if line.startswith(command.ERROR):
            self.error = command.sentence(line)
            return
        with suppress(msgspec.MsgspecError):
            told = _progress.decode(line)
            self.stage, self.done, self.total = clean_line(told.step), told.done, told.total
            self.rate = told.bytes_per_s
            self.on_change()

    def _end(self, state: State, error: str = "") -> None:
        self.state, self.error = state, error
        self.on_change()


class Jobs:
    """The jobs of one run of the program: they go on whatever screen is shown."""

    def __init__(self) -> None:
        self.all: list[Job] = []
        """In the order in which they were started."""
        self.found: Sequence[ModelEntry] = ()
        """What other programs held when they were last looked at."""
        self.on_change: Callable[[], None] = lambda: None
        self.on_end: Callable[[Job], None] = lambda job: None
        """Called with each job that has ended."""
        self.is_told: Callable[[Job], bool] = lambda job: False
        """Whether what is on the screen tells of itself that a job has failed, and why."""
        self._tasks: set[asyncio.Task[None]] = set()
        self._search: asyncio.Task[Sequence[ModelEntry]] | None = None

    @property
    def running(self) -> list[Job]:
        """Those that have not ended."""
        return [job for job in self.all if job.state == "running"]

    def of(self, name: str) -> Job | None:
        """The running job that makes the model called `name`."""
        return next((job for job in self.running if job.name == name), None)

    def pull(self, name: str, *, from_source: bool = False) -> None:
        """Begin to fetch a model of the catalogue, or go on; `from_source`: its publisher's own weights."""
        self.start(pull(name, from_source=from_source))

    def go_on(self, name: str, words: Sequence[str]) -> None:
        """Go on with an interrupted fetch, as the function of that name."""
        self.start(go_on(name, words))

    def add(self, name: str) -> None:
        """Begin to take over a model of another program's."""
        self.start(add(name))

    def quantize(self, source: str, file_type: str, name: str) -> None:
        """Begin to quantize."""
        self.start(quantize(source, file_type, name))

    async def forecast(self, source: str) -> Forecast:
        """As the function of that name."""
        return await asking.forecast(source)

    async def discover(self) -> Sequence[ModelEntry]:
        """As the function of that name; the answer is kept in `found`, also if nobody waits for it."""
        if self._search is None or self._search.done():
            self._search = asyncio.create_task(self._discover())
            # Whoever asked may be gone: nobody then has to await the task for its error.
            self._search.add_done_callback(lambda task: task.cancelled() or task.exception())
        return await asyncio.shield(self._search)

    async def _discover(self) -> Sequence[ModelEntry]:
        self.found = await asking.discover()
        return self.found

    def failed(self, name: str) -> Job | None:
        """The latest job that was to make the model called `name`, if it has failed."""
        return next((job for job in self.all if job.name == name and job.state == "failed"), None)

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
        if self._search is not None:
            self._search.cancel()
            await asyncio.wait({self._search})
        await asyncio.gather(*(job.stop() for job in self.running))
        if self._tasks:
            await asyncio.wait(self._tasks)

    async def _run(self, job: Job) -> None:
        await job.run()
        self.on_end(job)
        self._changed()

    def _changed(self) -> None:
        self.on_change()
