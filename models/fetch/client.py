"""Fetches a model in a process of its own, the only one that ever talks to a network.

    with Fetch(source) as fetch:
        resolved = fetch.resolve()                               # what it is now, and how many bytes
        files = fetch.transfer(folder, on_progress=show)         # all of it, verified

Whatever ends the block ends the process; what has come stays in the folder, and the next transfer into it
goes on from there. The process gets no secrets but those that the user set for its source. It is the less
trusted side: what it says must be an answer to what was asked (`models.fetch.answers`), and the store looks
at the headers again. The digests that it computed while it wrote are believed: `localai models verify`
repeats them.
"""

from __future__ import annotations

import io
import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import IO, BinaryIO, Final, Self, cast

import msgspec

from localai import frames, policy, processes
from localai.errors import FetchError, UsageError, by_name
from models.fetch import answers
from models.fetch.protocol import (
    Advance,
    Event,
    Failed,
    FetchedFile,
    HeaderReady,
    Listed,
    Proceed,
    Request,
    Resolve,
    Resolved,
    Search,
    Source,
    Transfer,
    Transferred,
    decode_event,
    pack,
)
from models.header import printable
from models.progress import Progress, silent

__all__ = ["Fetch", "FetchedFile", "Listed", "Resolved", "Search", "Source"]

_GRACE_SECONDS: Final = 5.0
"""How long the process may take to note down what it has when nobody wants the rest."""
_STDERR_TAIL: Final = 8 * 1024
BESIDES: Final = "`localai models import` adds a model that is on this machine"
"""What a user can do whose organization lets nothing be fetched."""
_AGAIN: Final = "Run it again: it goes on where it stopped"

OnHeader = Callable[[Path], None]


class Fetch:
    """One fetch of one source. All raise errors of `localai.errors`: FetchError, IntegrityError, NoSpace."""

    def __init__(self, source: Source | Search) -> None:
        self._source = source
        self._errors: IO[bytes] = io.BytesIO()
        self._resolved: Resolved | None = None
        """How many files there may be in the end."""
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The number of the process, within the block."""
        return self._running.pid

    def __enter__(self) -> Self:
        policy.current().check("forbid.pull", "models cannot be fetched", BESIDES)
        self._errors = tempfile.TemporaryFile()  # Closed at the end of the block
        self._process = subprocess.Popen(
            processes.worker_command("models.fetch.worker"),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env=processes.worker_environment(),
            start_new_session=os.name == "posix",  # Ctrl-C is for this process alone; it ends the other
        )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        process = self._running
        try:
            cast(BinaryIO, process.stdin).close()  # Empty: requests are written past its buffer
            process.wait(_GRACE_SECONDS)
        except subprocess.TimeoutExpired:
            pass
        finally:
            process.kill()
            process.wait()
            cast(BinaryIO, process.stdout).close()
            self._errors.close()
            self._process = None

    def resolve(self, *, on_progress: Progress = silent) -> Resolved:
        """Ask the source what it means right now: commit, files, sizes, digests. Nothing is written.

        `on_progress` is called in this thread several times a second, as in `transfer`.
        """
        self._send(Resolve(self._source))
        while True:
            match self._next():
                case Advance(step, done, total):
                    on_progress(step, done, total)
                case Resolved() as resolved if answers.resolves(self._source, resolved):
                    self._resolved = resolved
                    return resolved
                case other:
                    raise self._nonsense(type(other).__name__)

    def transfer(
        self, folder: Path, *, on_progress: Progress = silent, on_header: OnHeader | None = None
    ) -> tuple[FetchedFile, ...]:
        """Fetch all that `resolve` found into `folder`, which exists; what of it is there already is kept.

        Files lie in `folder`, those of a checkpoint in its `checkpoint` folder. `on_progress` is called in
        this thread several times a second, also when nothing comes; `on_header` once, with a file that has
        the first bytes of a GGUF file and, mostly, not yet the others. What either raises ends the fetch,
        and stays resumable.
        """
        folder = folder.absolute()
        self._send(Transfer(str(folder)))
        while True:
            match self._next():
                case Advance(step, done, total):
                    on_progress(step, done, total)
                case HeaderReady(path):
                    if on_header is not None:
                        on_header(self._inside(folder, path))
                    self._send(Proceed())
                case Transferred(files) if self._resolved and answers.brings(self._resolved, files):
                    for file in files:
                        self._inside(folder, file.path)
                    return files
                case other:
                    raise self._nonsense(type(other).__name__)

    @property
    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            raise RuntimeError("a Fetch is used within its block")
        return self._process

    def _send(self, request: Request) -> None:
        try:
            frame = memoryview(pack(request))
        except UnicodeEncodeError as error:
            raise UsageError("A name has bytes in it that are no text", "Write it in another way") from error
        stdin = cast(BinaryIO, self._running.stdin)
        try:
            while frame:
                frame = frame[os.write(stdin.fileno(), frame) :]
        except BrokenPipeError:
            pass  # It died; reading tells how

    def _next(self) -> Event:
        try:
            body = frames.read(cast(BinaryIO, self._running.stdout))
            event = None if body is None else decode_event(body)
        except (frames.FrameTooLong, msgspec.MsgspecError) as error:
            raise self._nonsense(str(error)) from error
        if event is None:
            raise self._died()
        if isinstance(event, Failed):
            raise by_name(event.kind)(event.message, event.hint)
        return event

    def _inside(self, folder: Path, path: str) -> Path:
        found = Path(path)
        if not found.is_relative_to(folder) or not found.resolve().is_relative_to(folder.resolve()):
            raise self._nonsense(path)
        return found

    def _nonsense(self, what: str) -> FetchError:
        return FetchError(f"The fetch process said something unexpected: {printable(what)}", _AGAIN)

    def _died(self) -> FetchError:
        how = processes.describe_exit(self._running.wait(), self._tail())
        return FetchError(f"The fetch process stopped in the middle: {printable(how)}", _AGAIN)

    def _tail(self) -> str:
        self._errors.seek(max(0, self._errors.seek(0, os.SEEK_END) - _STDERR_TAIL))
        return self._errors.read().decode("utf-8", errors="replace")
