"""The worker process: load one model, serve requests, end with the app.

Run as `python -m localai.engine.worker` with pipes for standard input and output. One thread reads requests,
so that a cancellation is seen in the middle of a computation; the main thread computes; a third watches the
computation and tells the app once a second that the worker is alive while a request is served. Before any of
them begins, the worker confines itself as the first request says.
"""

from __future__ import annotations

import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack
from pathlib import Path
from types import MappingProxyType
from typing import BinaryIO

import msgspec

from localai import frames, offline, processes
from localai.engine import protocol
from localai.engine.confinement import attacked, confine_as
from localai.engine.context import AbortFlag
from localai.engine.llama import engine_info
from localai.engine.serving import Served
from localai.errors import EngineError, LoadError, LocalAIError

HEARTBEAT_S = 1.0


class Worker:
    """Serves the requests that arrive on `reader` and answers on `writer`.

    `leave` ends the process with an exit code at once; one thread of several calls it.
    """

    def __init__(
        self,
        reader: BinaryIO,
        writer: BinaryIO,
        leave: Callable[[int], object] = os._exit,
        names: Mapping[str, str] = MappingProxyType({}),
    ) -> None:
        """`names`: how files must be called here, by the names that requests have for them."""
        self._leave = leave
        self._names = names
        self._reader = reader
        self._writer = writer
        self._write_lock = threading.Lock()
        self._requests: queue.SimpleQueue[protocol.Request] = queue.SimpleQueue()
        self._abort = AbortFlag()
        self._idle_work = False
        """Whether what is being computed is given up when a request comes."""
        self._busy = threading.Event()
        self._ended = False
        self._steps = 0
        self._load_shown = 0.0
        self._served: Served | None = None
        self._resources = ExitStack()

    def begin(self) -> None:
        """Confine this process as the first request says, and tell how far that went."""
        request = self._next_request()
        if not isinstance(request, protocol.Confine):
            self._leave(0 if request is None else 1)
            return
        try:
            sandbox, self._names = confine_as(request)
        except LocalAIError as error:
            self._fail(error, 0)
            self._leave(1)
        else:
            self._send(protocol.Confined(sandbox))

    def run(self) -> None:
        """Serve until `Shutdown`."""
        threading.Thread(target=self._read, daemon=True, name="reader").start()
        threading.Thread(target=self._watch, daemon=True, name="watch").start()
        with self._resources:
            while not self._ended:
                self._turn()

    def _turn(self) -> None:
        """Serve one request, or compute one batch, or a piece of what may come, or wait."""
        served = self._served
        working = served is not None and served.scheduler.busy
        if not working and served is not None and served.scheduler.reads_ahead and self._requests.empty():
            self._read_ahead(served)
            return
        if working and self._requests.empty():
            assert served is not None
            self._step(served)
            return
        if not working:
            self._busy.clear()
        request = self._requests.get()
        self._busy.set()
        self._serve(request)

    def _serve(self, request: protocol.Request) -> None:
        try:
            match request:
                case protocol.Shutdown():
                    self._ended = True
                case protocol.Describe():
                    self._send(engine_info())
                case protocol.Load():
                    self._load(request)
                case protocol.Attack():
                    self._send(protocol.Attacked(request.id, attacked(request.targets)))
                case protocol.Confine():
                    raise EngineError("the worker is confined already")
                case _:
                    for event in self._loaded().serve(request):
                        self._steps += 1
                        self._send(event)
        except LocalAIError as error:
            self._fail(error, getattr(request, "id", 0))
        except Exception as error:  # noqa: BLE001 - the process boundary: the app gets one line, not a dead worker
            self._fail(_unexpected(error), getattr(request, "id", 0))

    def _step(self, served: Served) -> None:
        try:
            for event in served.step():
                self._send(event)
        except Exception as error:  # noqa: BLE001 - as above
            known = error if isinstance(error, LocalAIError) else _unexpected(error)
            for request_id in served.drop():
                self._fail(known, request_id)

    def _read_ahead(self, served: Served) -> None:
        self._idle_work = True
        try:
            if self._requests.empty():
                served.scheduler.ahead()
        except Exception:  # noqa: BLE001 - nobody asked for it: the request that needs it will say what is wrong
            served.scheduler.read_ahead([])
        finally:
            self._idle_work = False

    def _loaded(self) -> Served:
        if self._served is None:
            raise EngineError("no model is loaded")
        return self._served

    def _load(self, request: protocol.Load) -> None:
        if self._served is not None:
            raise LoadError("a model is loaded already", "Start another worker")
        renamed = {field: self._names.get(path, path) for field, path in request.options.others.items()}
        served = Served(
            Path(self._names.get(request.path, request.path)),
            msgspec.structs.replace(request.options, **renamed),
            self._abort,
            self._resources,
            self._on_load_progress,
            request.accepted_templates,
        )
        self._send(served.describe(request.sha256))
        self._served = served

    def _on_load_progress(self, fraction: float) -> bool:
        self._steps += 1
        if fraction - self._load_shown >= 0.01 or fraction >= 1:
            self._load_shown = fraction
            self._send(protocol.LoadProgress(min(max(fraction, 0.0), 1.0)))
        return True

    # ------------------------------------------------------------------------------------------- threads

    def _read(self) -> None:
        while (request := self._next_request()) is not None:
            self._requests.put(request)  # before the computation stops, for the main thread to see why
            if self._served is not None:
                self._served.scheduler.hurry = True
            if isinstance(request, protocol.Cancel | protocol.Shutdown) or (
                self._idle_work
                and not isinstance(request, protocol.Prefill | protocol.Count | protocol.Status)
            ):
                self._abort.set()
        self._leave(0)  # the app is gone: nobody waits for an orderly end, whatever is being computed

    def _next_request(self) -> protocol.Request | None:
        """The next request; None when there will be none."""
        try:
            body = frames.read(self._reader)
            return None if body is None else protocol.decode_request(body)
        except (msgspec.MsgspecError, frames.FrameTooLong) as error:
            sys.stderr.write(f"the app sent something that is not a request: {error}\n")
            self._leave(1)  # nobody knows what the app waits for: it is told at once
            return None

    def _watch(self) -> None:
        beat = 0.0
        while self._busy.wait() and not self._ended:
            now = time.monotonic()
            if now - beat >= HEARTBEAT_S:
                beat = now
                steps = self._served.scheduler.steps if self._served is not None else 0
                self._send(protocol.Alive(self._steps + steps))
            governor = self._served.governor if self._served is not None else None
            if governor is not None and governor.overdue():
                self._abort.set()
            time.sleep(governor.watch_s if governor is not None else HEARTBEAT_S / 2)

    # ------------------------------------------------------------------------------------------- sending

    def _fail(self, error: LocalAIError, request_id: int) -> None:
        message, hint = self._named(error.message), self._named(error.hint)
        self._send(protocol.Failed(type(error).__name__, message, hint, request_id))

    def _named(self, text: str) -> str:
        """`text` with the files called as the app calls them."""
        for name, here in self._names.items():
            text = text.replace(here, name)
        return text

    def _send(self, event: protocol.Event) -> None:
        data = protocol.encode(event)
        with self._write_lock:
            try:
                frames.write_all(self._writer, data)
            except OSError:
                self._leave(0)  # the app is gone


def _unexpected(error: Exception) -> EngineError:
    return EngineError(f"the engine failed: {type(error).__name__}: {error}")


def main() -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    offline.forbid_network()
    processes.be_first_to_go()
    processes.close_inherited()
    reader, writer = processes.claim_stdio()
    worker = Worker(reader, writer)
    worker.begin()
    worker.run()


if __name__ == "__main__":
    main()
