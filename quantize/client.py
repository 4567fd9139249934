"""Runs a quantize job in a worker process and rebuilds its errors.

    report = run(Job("folder", "model.gguf", "Q4_K_M"), on_progress=print)

The app neither parses weights nor loads llama.cpp: whatever a checkpoint does to the worker is one error
here, and no temporary file stays.
"""

from __future__ import annotations

import os
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import IO, BinaryIO, cast

import msgspec

from localai import frames, processes
from localai.errors import QuantizeError, by_name
from quantize import partials
from quantize.protocol import Failed, Finished, Job, Progress, Report, decode_event, pack

_STDERR_TAIL = 8 * 1024


def run(
    job: Job,
    on_progress: Callable[[Progress], None] | None = None,
    on_start: Callable[[int], None] | None = None,
) -> Report:
    """Do `job` in a worker and wait for it.

    `on_progress` is called in this thread. `on_start` gets the worker's process id. Raises what
    `quantize.pipeline.convert` raises, and QuantizeError if the worker dies. Whatever ends this call, also
    KeyboardInterrupt or an exception of `on_progress`, ends the worker and removes its temporary files.
    """
    with tempfile.TemporaryFile() as errors, _start(errors) as worker:
        try:
            if on_start is not None:
                on_start(worker.pid)
            return _converse(worker, job, on_progress, errors)
        finally:
            worker.kill()
            worker.wait()
            partials.remove_of(Path(job.output).absolute(), worker.pid)


def _start(errors: IO[bytes]) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        processes.worker_command("quantize.worker"),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=errors,
        env=processes.worker_environment(),
        start_new_session=os.name == "posix",  # Ctrl-C is for this process alone; it ends the worker
    )


def _converse(
    worker: subprocess.Popen[bytes],
    job: Job,
    on_progress: Callable[[Progress], None] | None,
    errors: IO[bytes],
) -> Report:
    assert worker.stdin is not None
    assert worker.stdout is not None
    _send(worker.stdin, job)
    stdout = cast(BinaryIO, worker.stdout)
    while (body := _read(stdout)) is not None:
        match _decode(body):
            case Progress() as progress:
                if on_progress is not None:
                    on_progress(progress)
            case Finished(report):
                return report
            case Failed(kind, message, hint):
                raise by_name(kind)(message, hint)
    worker.stdin.close()
    raise QuantizeError(
        f"the quantize worker stopped in the middle of {job.output}: "
        f"{processes.describe_exit(worker.wait(), _tail(errors))}",
        "Nothing was changed. Try again; if it stops again, the checkpoint may be damaged or too large "
        "for this machine's memory",
    )


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


def _decode(body: bytes) -> Progress | Finished | Failed:
    try:
        return decode_event(body)
    except msgspec.MsgspecError as error:
        raise QuantizeError(f"the quantize worker sent something that is not an event: {error}") from error


def _tail(errors: IO[bytes]) -> str:
    errors.seek(0, os.SEEK_END)
    errors.seek(max(0, errors.tell() - _STDERR_TAIL))
    return errors.read().decode("utf-8", errors="replace")
