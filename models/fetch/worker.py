"""The fetch process: resolves one source, transfers its files, and ends.

Run as `python -P -m models.fetch.worker` by `models.fetch.client`; the only process of the program that talks
to a network, and only to the source that it was asked for. When standard input closes, its parent is gone or
no longer wants the result: it notes down what it has, and ends.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
from pathlib import Path
from typing import BinaryIO, Final

import msgspec

from localai import frames, policy, processes
from localai.errors import LocalAIError
from models.fetch.protocol import (
    Failed,
    HeaderReady,
    Proceed,
    Request,
    Resolve,
    Transfer,
    Transferred,
    decode_request,
)
from models.fetch.reporter import Reporter
from models.header import printable

_GRACE_SECONDS: Final = 3.0
"""How long it may take to note down what has come, once nobody wants the rest."""


def main() -> int:
    """Serve one source; 0 if its result was reported, good or bad, or nobody waits for it any more."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # It may have been ignored where we were started
    reader, writer = processes.claim_stdio()
    requests = _Requests(reader)
    try:
        with Reporter(writer) as reporter:
            failed = _serve(requests, reporter)
            if failed is not None:
                reporter.send(failed)
    except (KeyboardInterrupt, BrokenPipeError):
        return 0
    return 0


def _serve(requests: _Requests, reporter: Reporter) -> Failed | None:
    try:
        _work(requests, reporter)
    except LocalAIError as error:
        return Failed(type(error).__name__, _encodable(error.message), _encodable(error.hint))
    except MemoryError:
        return Failed("FetchError", "Memory did not suffice for the transfer", "Close other programs")
    except BrokenPipeError:
        raise
    except Exception as error:  # noqa: BLE001 - the process boundary
        what = printable(_encodable(f"{type(error).__name__}: {error}"))
        return Failed(
            "FetchError", f"The transfer failed: {what}", "Run it again: it goes on where it stopped"
        )
    return None


def _work(requests: _Requests, reporter: Reporter) -> None:
    request = requests.next()
    if not isinstance(request, Resolve):
        return
    policy.current().check("forbid.pull", "models cannot be fetched")  # whoever started this process
    from models.fetch import carry, sources  # Here, so that an import that fails is reported, too

    plan = sources.resolve(request.source, reporter.advance)
    reporter.send(plan.resolved)
    request = requests.next()
    if not isinstance(request, Transfer):
        return

    def on_header(path: Path) -> None:
        reporter.send(HeaderReady(str(path)))
        if not isinstance(requests.next(), Proceed):
            raise KeyboardInterrupt

    files = carry.transfer(plan, Path(request.folder), reporter.advance, on_header)
    reporter.send(Transferred(files))


def _encodable(text: str) -> str:
    """`text` without halves of characters, as names of files may have."""
    return text.encode(errors="backslashreplace").decode()


class _Requests:
    """What the app asks for, read by a thread that also notices its end."""

    def __init__(self, reader: BinaryIO) -> None:
        self._reader = reader
        self._waiting: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        threading.Thread(target=self._read, name="requests", daemon=True).start()

    def next(self) -> Request | None:
        """The next request; None if there will be none."""
        return self._waiting.get()

    def _read(self) -> None:
        assembler = frames.Assembler()
        try:  # Not through the reader: its lock would be held at exit
            while data := os.read(self._reader.fileno(), 64 * 1024):
                assembler.feed(data, lambda body: self._waiting.put(decode_request(bytes(body))))
        except (msgspec.MsgspecError, frames.FrameTooLong) as error:
            print(f"not a request: {error}", file=sys.stderr)
        self._waiting.put(None)
        _end()


def _end() -> None:
    """End this process: at once if it is idle, else as soon as it has noted down what it has."""
    if sys.platform != "win32":
        signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
        threading.main_thread().join(_GRACE_SECONDS)
    os._exit(1)


if __name__ == "__main__":
    sys.exit(main())
