"""The quantize worker: takes one job on standard input, reports on standard output, and ends.

Run as `python -P -m quantize.worker` by `quantize.client`. It parses the checkpoint and calls llama.cpp, so
that neither happens in the app. Before it reads the source, it confines itself: it can then read that and
the runtime, and write to files that it inherits open, but not more than they are to have. When standard input
closes, its parent is gone or no longer wants the result: it ends at once, also in the middle of its work.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO

import msgspec

from localai import confine, frames, offline, processes
from localai.confine import readable
from localai.confine.report import Sandbox, require
from localai.engine import bindings
from localai.errors import LocalAIError
from quantize import inputs
from quantize.protocol import (
    Confined,
    Errors,
    Event,
    Failed,
    Finished,
    Forecast,
    Job,
    Progress,
    decode_job,
    pack,
)


def main() -> int:
    """Serve one job; 0 if its result was reported, good or bad."""
    offline.forbid_network()
    processes.be_first_to_go()
    reader, writer = processes.claim_stdio()
    body = frames.read(reader)
    if body is None:
        return 0
    try:
        job = decode_job(body)
    except msgspec.MsgspecError as error:
        print(f"not a job: {error}", file=sys.stderr)
        return 2
    processes.close_inherited({reader.fileno(), writer.fileno(), *(target.fd for target in job.targets)})
    job = _reachable(job)
    send = _Sender(writer)
    event = _confine(job, send)
    threading.Thread(target=_end_with_parent, args=(reader,), name="parent", daemon=True).start()
    send(event or _serve(job, send))
    return 0


def _reachable(job: Job) -> Job:
    """`job` with its importance matrix as it is reached from here, if it is a file without a name."""
    try:
        return msgspec.structs.replace(job, imatrix=readable.opened(job.imatrix)[0])
    except OSError:
        return job  # reading it tells what is wrong


def _confine(job: Job, send: _Sender) -> Failed | None:
    """Confine this process, which has one thread, and tell how far that went; what came in between."""

    def prepare() -> None:
        from quantize import pipeline  # noqa: F401 - here, so that a failing import is reported, too

        bindings.ggml()

    try:
        sandbox = _enter(job, prepare)
        send(Confined(sandbox))
        require(job.sandbox, sandbox)  # here, too: until the app has seen it, the source would be read
    except LocalAIError as error:
        return Failed(type(error).__name__, error.message, error.hint)
    except Exception as error:  # noqa: BLE001 - the process boundary
        return Failed("QuantizeError", f"the conversion failed: {type(error).__name__}: {error}", "")
    return None


class _Sender:
    """Sends whole frames, from any thread."""

    def __init__(self, writer: BinaryIO) -> None:
        self._writer = writer
        self._lock = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._lock:
            frame = memoryview(_packed(event))
            while frame:
                frame = frame[self._writer.write(frame) :]


def _enter(job: Job, prepare: Callable[[], None]) -> Sandbox:
    return confine.enter(job.sandbox, "quantize", inputs.files(job), prepare, lists=inputs.folders(job))


class _Limiting:
    """Sends events, and once the sizes of the outputs are known, lets no file grow beyond them."""

    def __init__(self, job: Job, send: _Sender) -> None:
        self._targets = job.targets
        self._confined = job.sandbox != "off" and sys.platform != "win32"
        self._send = send

    def __call__(self, event: Forecast | Progress | Errors) -> None:
        if self._confined and isinstance(event, Forecast):
            from localai.confine import limits  # not for Windows, which has no such thing

            limits.limit_files(max((event.size_of(one) for one in self._targets), default=0))
        self._send(event)


def _packed(event: Event) -> bytes:
    """`event` as a frame; what cannot be encoded, as in the name of a file, is written with escapes."""
    try:
        return pack(event)
    except UnicodeEncodeError:
        return pack(msgspec.convert(_encodable(msgspec.to_builtins(event)), type(event)))


def _encodable(value: Any) -> Any:
    match value:
        case str():
            return value.encode(errors="backslashreplace").decode()
        case list() | tuple():
            return [_encodable(one) for one in value]
        case dict():
            return {_encodable(key): _encodable(one) for key, one in value.items()}
        case _:
            return value


def _serve(job: Job, send: _Sender) -> Event:
    try:
        from quantize import pipeline

        return Finished(pipeline.run(job, _Limiting(job, send)))
    except LocalAIError as error:
        return Failed(type(error).__name__, error.message, error.hint)
    except MemoryError:
        return Failed("QuantizeError", "memory did not suffice", "Close other programs and try again")
    except Exception as error:  # noqa: BLE001 - the process boundary
        return Failed("QuantizeError", f"the conversion failed: {type(error).__name__}: {error}", "")


def _end_with_parent(reader: BinaryIO) -> None:
    while os.read(reader.fileno(), 1):  # not through the reader: its lock would be held at exit
        pass
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
