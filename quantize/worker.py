"""The quantize worker: takes one job on standard input, reports on standard output, and ends.

Run as `python -P -m quantize.worker` by `quantize.client`. It parses the checkpoint and calls llama.cpp, so
that neither happens in the app. It reads the source, and writes to files that it inherits open. When
standard input closes, its parent is gone or no longer wants the result: it ends at once, also in the middle
of its work.
"""

from __future__ import annotations

import os
import sys
import threading
from typing import Any, BinaryIO

import msgspec

from localai import frames, processes
from localai.errors import LocalAIError
from quantize.protocol import Event, Failed, Finished, Job, decode_job, pack


def main() -> int:
    """Serve one job; 0 if its result was reported, good or bad."""
    reader, writer = processes.claim_stdio()
    body = frames.read(reader)
    if body is None:
        return 0
    try:
        job = decode_job(body)
    except msgspec.MsgspecError as error:
        print(f"not a job: {error}", file=sys.stderr)
        return 2
    threading.Thread(target=_end_with_parent, args=(reader,), name="parent", daemon=True).start()
    send = _Sender(writer)
    send(_serve(job, send))
    return 0


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
        from quantize import pipeline  # here, so that a failing import is reported, too

        return Finished(pipeline.run(job, send))
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
