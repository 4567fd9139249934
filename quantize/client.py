"""Runs a quantize job in a worker process, checks what it made, and puts it in place.

    made = run(Job(source="folder"), [Wanted("Q4_K_M", Path("model.gguf"))], on_event=print)

The app neither parses weights nor loads llama.cpp: whatever a checkpoint does to the worker is one error
here, and nothing of an unfinished file stays. The worker gets open files, and cannot choose where it
writes.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO, cast

import msgspec

from localai import confine, frames, policy, processes
from localai.confine.report import NOT_STARTED, require
from localai.errors import LocalAIError, NoSpace, QuantizeError, UsageError, by_name
from models.files import free_bytes, megabytes
from models.gguf import read_header
from quantize import inputs
from quantize.partials import MAKE_SPACE, Partial
from quantize.protocol import (
    Check,
    Confined,
    Errors,
    Event,
    Failed,
    Finished,
    Forecast,
    Job,
    Progress,
    Report,
    Target,
    Written,
    decode_event,
    pack,
)

_STDERR_TAIL = 8 * 1024

OnEvent = Callable[[Forecast | Progress], None]
Observer = Callable[[Forecast | Progress | Errors], None]


@dataclass(frozen=True)
class Wanted:
    """A file to be made: of which type, and where."""

    file_type: str
    output: Path


@dataclass(frozen=True)
class Made:
    """What came of it."""

    forecast: Forecast
    report: Report
    checks: tuple[Check, ...]
    """One for each output, in order."""


def forecast(job: Job, on_start: Callable[[int], None] | None = None) -> Forecast:
    """What the outputs of `job`, whose targets are left out, would be; its weights are not read."""
    with tempfile.TemporaryFile() as errors:
        return _work(msgspec.structs.replace(job, targets=()), (), lambda event: None, on_start, errors)[0]


def errors(
    job: Job, types: Sequence[int], on_event: OnEvent = lambda event: None, *, rows: int = 0
) -> tuple[Forecast, dict[str, Errors]]:
    """The forecast for `job`, and what each matrix of its source loses by each of `types` that it can have.

    Matrices are in the order in which they lie in a file. A type is left out where its blocks do not divide
    the columns, and where it needs an importance matrix that `job` has not. `rows`: look at so many rows of
    each matrix only, evenly spread. Raises as `run` does.
    """
    found: dict[str, Errors] = {}
    asked = msgspec.structs.replace(job, targets=(), errors_of=tuple(types), error_rows=rows)

    def observe(event: Forecast | Progress | Errors) -> None:
        if isinstance(event, Errors):
            found[event.tensor] = event
        else:
            on_event(event)

    with tempfile.TemporaryFile() as messages:
        known = _work(asked, (), observe, None, messages)[0]
    for one in found.values():
        if one.errors.keys() != one.sizes.keys() or not one.errors.keys() <= set(types):
            raise QuantizeError(f"the quantize worker sent errors of {one.tensor} that nobody asked for")
    return known, found


def run(
    job: Job,
    wanted: Sequence[Wanted],
    *,
    overwrite: bool = False,
    load: bool = True,
    on_event: OnEvent = lambda event: None,
    on_start: Callable[[int], None] | None = None,
) -> Made:
    """Make the `wanted` files of `job`, whose targets are filled in here, in a worker, and wait for it.

    With `load`, each file is loaded in the engine and must generate before it gets its name. `overwrite`
    replaces what is there; it stays as it was until all files are complete. `on_event` is called in this
    thread. `on_start` gets the worker's process id. Raises errors of `localai.errors`, QuantizeError if the
    worker dies. Whatever ends this call, also KeyboardInterrupt or an exception of `on_event`, ends the
    worker, and nothing of an unfinished file stays.
    """
    outputs = [Path(os.path.abspath(one.output)) for one in wanted]  # noqa: PTH100 - no links followed
    if len(set(outputs)) < len(outputs):
        raise UsageError("two outputs would have the same name", "Choose another output for one of them")
    for output in outputs:
        inputs.require_no_input(output, job)
    with ExitStack() as stack:
        partials = [stack.enter_context(Partial(output, overwrite=overwrite)) for output in outputs]
        made = _fill(job, [one.file_type for one in wanted], partials, load, on_event, on_start)
        _commit(partials)
    return made


@contextmanager
def scratch(job: Job, file_type: str, folder: Path, on_event: OnEvent = lambda event: None) -> Iterator[Path]:
    """A file of `file_type` that is made of `job`, for the body of the block: it never gets a name.

    It takes room on the disk of `folder`. Raises as `run` does.
    """
    with Partial(folder / f"localai-{file_type}.gguf", overwrite=True) as partial:
        fill(job, [file_type], [partial], on_event)
        yield partial.path


def fill(
    job: Job,
    types: Sequence[str],
    partials: Sequence[Partial],
    on_event: OnEvent = lambda event: None,
    *,
    plain: int = 0,
) -> Made:
    """Have the worker write files of `types` into `partials` in one reading of the source; raises as `run`.

    The first `plain` ones are made without the importance matrix and the options of `job`. They get no names:
    who calls this may give one its place with `Partial.keep_as`.
    """
    return _fill(job, types, partials, load=False, on_event=on_event, plain=plain)


def _fill(
    job: Job,
    types: Sequence[str],
    partials: Sequence[Partial],
    load: bool,
    on_event: OnEvent,
    on_start: Callable[[int], None] | None = None,
    plain: int = 0,
) -> Made:
    """Have the worker write files of `types` into `partials`, and look at them."""
    targets = tuple(
        Target(job.kind(one), str(partial.output), partial.fd, number < plain)
        for number, (one, partial) in enumerate(zip(types, partials, strict=True))
    )
    handed = msgspec.structs.replace(job, targets=targets)
    free = {folder: free_bytes(folder) for folder in {partial.output.parent for partial in partials}}

    def observe(event: Forecast | Progress | Errors) -> None:
        if isinstance(event, Forecast):
            _require_space(handed, event, free)
        if not isinstance(event, Errors):
            on_event(event)

    with tempfile.TemporaryFile() as errors:
        known, report = _work(handed, partials, observe, on_start, errors)
    checks = tuple(
        _checked(partial, written, known, load, on_event)
        for partial, written in zip(partials, report.outputs, strict=True)
    )
    return Made(known, report, checks)


def _commit(partials: Sequence[Partial]) -> None:
    """Put all files in place. If one cannot be, those before it go again, unless they replaced another."""
    done: list[Partial] = []
    try:
        for partial in partials:
            partial.commit()
            done.append(partial)
    except BaseException:
        for partial in done:
            partial.undo()
        raise


def _work(
    job: Job,
    partials: Sequence[Partial],
    on_event: Observer,
    on_start: Callable[[int], None] | None,
    errors: IO[bytes],
) -> tuple[Forecast, Report]:
    job = msgspec.structs.replace(job, sandbox=policy.sandbox_mode())
    with _start(job, errors, [partial.fd for partial in partials]) as worker:
        try:
            if on_start is not None:
                on_start(worker.pid)
            return _converse(worker, job, on_event, errors)
        finally:
            worker.kill()
            worker.wait()


def _start(job: Job, errors: IO[bytes], inherited: Sequence[int]) -> subprocess.Popen[bytes]:
    command = processes.worker_command("quantize.worker")
    return subprocess.Popen(
        confine.command(command, job.sandbox, [job.source, job.imatrix], writes=True),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=processes.confined_environment(),
        pass_fds=inherited,
        start_new_session=os.name == "posix",  # Ctrl-C is for this process alone; it ends the worker
    )


def _converse(
    worker: subprocess.Popen[bytes], job: Job, on_event: Observer, errors: IO[bytes]
) -> tuple[Forecast, Report]:
    assert worker.stdin is not None
    assert worker.stdout is not None
    _send(worker.stdin, job)
    stdout = cast(BinaryIO, worker.stdout)
    known: Forecast | None = None
    sandbox = NOT_STARTED
    while (body := _read(stdout)) is not None:
        match _decode(body):
            case Confined(sandbox):
                require(job.sandbox, sandbox)
            case Forecast() as known:
                require(job.sandbox, sandbox)
                on_event(known)
            case Progress() | Errors() as event:
                on_event(event)
            case Finished(report) if known is not None and len(report.outputs) == len(job.targets):
                return known, report
            case Failed(kind, message, hint):
                raise by_name(kind)(message, hint)
            case Finished():
                break
    worker.stdin.close()
    raise QuantizeError(
        f"the quantize worker stopped in the middle of {job.source}: "
        f"{processes.describe_exit(worker.wait(), _tail(errors))}",
        "Nothing was changed. Try again; if it stops again, the checkpoint may be damaged or too large "
        "for this machine's memory",
    )


def _require_space(job: Job, known: Forecast, free: Mapping[Path, int]) -> None:
    """NoSpace if the disks cannot take what will be written, which is known to the byte.

    `free` is what each folder had before the start: by now the worker may have set its room aside.
    """
    needed: dict[Path, int] = {}
    for target in job.targets:
        folder = Path(target.path).parent
        needed[folder] = needed.get(folder, 0) + known.size_of(target)
    for folder, size in needed.items():
        if size > free[folder]:
            raise NoSpace(
                f"{folder} has room for {megabytes(free[folder])}, but the result takes {megabytes(size)}",
                MAKE_SPACE,
            )


def _checked(partial: Partial, written: Written, known: Forecast, load: bool, on_event: OnEvent) -> Check:
    """Look at the file once more before it gets its name: its header, and whether the engine runs it."""
    try:
        header = read_header(partial.path)
        if len(header.tensors) != known.tensors or header.file_size != written.size:
            raise QuantizeError("it has not the tensors that it should have")
        if not load:
            return Check("skipped", "--no-check")
        from quantize import check  # only here: it brings in the whole engine's client

        on_event(Progress("check", "", 0, written.size))
        return check.run(partial.path, header)
    except LocalAIError as error:
        reason = error.message.replace(str(partial.path), "it")
        raise QuantizeError(
            f"{partial.output} would not be sound, so it was not kept: {reason}",
            "Try again; if it happens again, the weights may be broken. --no-check keeps it all the same",
        ) from error


def _send(stdin: IO[bytes], job: Job) -> None:
    """Write the job past the buffer of `stdin`, which could not be closed once the worker is dead."""
    frame = memoryview(pack(job))
    try:
        while frame:
            frame = frame[os.write(stdin.fileno(), frame) :]
    except BrokenPipeError:
        pass  # it died at once; reading tells how


def _read(stdout: BinaryIO) -> bytes | None:
    try:
        return frames.read(stdout)
    except frames.FrameTooLong as error:
        raise QuantizeError(f"the quantize worker sent something that is not an event: {error}") from error


def _decode(body: bytes) -> Event:
    try:
        return decode_event(body)
    except msgspec.MsgspecError as error:
        raise QuantizeError(f"the quantize worker sent something that is not an event: {error}") from error


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _STDERR_TAIL))
    return errors.read().decode("utf-8", errors="replace")
