"""The worker process: load one model, serve requests, end with the app.

Run as `python -m localai.engine.worker` with pipes for standard input and output. One thread reads requests,
so that a cancellation is seen in the middle of a computation; the main thread serves them one by one; a
third tells the app once a second that it is alive while a request is served.
"""

from __future__ import annotations

import os
import queue
import signal
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import BinaryIO

from localai import frames, hardware, processes
from localai.chat.prompt import ASSISTANT, R1_TEMPERATURE, R1_TOP_P, USER, PromptFormat, R1Format
from localai.engine import protocol
from localai.engine.generate import Session, generate
from localai.engine.llama import (
    AbortFlag,
    Context,
    Model,
    engine_info,
    offload_devices,
)
from localai.errors import EngineError, LoadError, LocalAIError, UnsupportedModel
from models import fit, gguf

HEARTBEAT_S = 1.0
DEFAULT_SAMPLING = protocol.Sampling(temperature=0.7, top_p=0.95, top_k=40, min_p=0.05)
"""For models that recommend nothing."""
R1_SAMPLING = protocol.Sampling(temperature=R1_TEMPERATURE, top_p=R1_TOP_P, top_k=0, min_p=0.0)


class Worker:
    """Serves the requests that arrive on `reader` and answers on `writer`."""

    def __init__(self, reader: BinaryIO, writer: BinaryIO) -> None:
        self._reader = reader
        self._writer = writer
        self._write_lock = threading.Lock()
        self._requests: queue.SimpleQueue[protocol.Request | None] = queue.SimpleQueue()
        self._abort = AbortFlag()
        self._abort_lock = threading.Lock()
        self._running = 0
        self._cancelled: set[int] = set()
        self._busy = threading.Event()
        self._step = 0
        self._load_shown = 0.0
        self._loaded: protocol.Loaded | None = None
        self._session: Session | None = None
        self._resources = ExitStack()

    def run(self) -> None:
        """Serve until `Shutdown`."""
        threading.Thread(target=self._read, daemon=True, name="reader").start()
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()
        with self._resources:
            while (request := self._requests.get()) is not None:
                self._busy.set()
                self._serve(request)
                self._busy.clear()

    def _serve(self, request: protocol.Request) -> None:
        request_id = request.id if isinstance(request, protocol.Generate) else 0
        try:
            match request:
                case protocol.Load():
                    self._load(request)
                case protocol.Generate():
                    self._generate(request)
                case protocol.Describe():
                    self._send(engine_info())
        except LocalAIError as error:
            self._fail(error, request_id)
        except Exception as error:  # noqa: BLE001 - the process boundary: the app gets one line, not a dead worker
            self._fail(EngineError(f"the engine failed: {type(error).__name__}: {error}"), request_id)

    def _fail(self, error: LocalAIError, request_id: int) -> None:
        self._send(protocol.Failed(type(error).__name__, error.message, error.hint, request_id))

    # ------------------------------------------------------------------------------------------- threads

    def _read(self) -> None:
        while (body := frames.read(self._reader)) is not None:
            request = protocol.decode_request(body)
            if isinstance(request, protocol.Cancel):
                self._cancel(request.id)
            elif isinstance(request, protocol.Shutdown):
                self._abort.set()
                self._requests.put(None)
            else:
                self._requests.put(request)
        os._exit(0)  # the app is gone: nobody waits for an orderly end, whatever is being computed

    def _beat(self) -> None:
        while self._busy.wait():
            self._send(protocol.Alive(self._step))
            time.sleep(HEARTBEAT_S)

    def _cancel(self, request_id: int) -> None:
        with self._abort_lock:
            self._cancelled.add(request_id)
            if self._running == request_id:
                self._abort.set()

    def _send(self, event: protocol.Event) -> None:
        data = protocol.encode(event)
        with self._write_lock:
            try:
                while data:
                    data = data[self._writer.write(data) :]
            except BrokenPipeError:
                os._exit(0)

    def _advance(self) -> None:
        self._step += 1

    # ------------------------------------------------------------------------------------------ requests

    def _load(self, request: protocol.Load) -> None:
        if self._session is not None:
            raise LoadError("a model is loaded already", "Start another worker")
        started = time.perf_counter()
        path = Path(request.path)
        header = gguf.read_header(path)
        gguf.check_supported(header, path)
        context_size = _context_size(request, header)
        threads = request.threads or hardware.physical_cores()
        offload = offload_devices()
        layers = -1 if request.gpu_layers is None else request.gpu_layers
        model = self._resources.enter_context(Model(path, layers if offload else 0, self._on_load_progress))
        context = self._resources.enter_context(Context(model, context_size, threads, self._abort))
        prompt_format = _prompt_format(model, header)
        self._session = Session(model, context, prompt_format, header.context_trained)
        offloaded = (model.layers if layers < 0 else min(layers, model.layers)) if offload else 0
        self._loaded = protocol.Loaded(
            description=model.description,
            architecture=header.architecture,
            name=header.name,
            file_type=header.file_type,
            parameters=header.parameters,
            size=model.size,
            context=context.size,
            context_trained=header.context_trained,
            threads=threads,
            gpu_layers=offloaded,
            backend=" + ".join([*(offload if offloaded else []), "CPU"]),
            prompt_format=prompt_format.name,
            reasoning=prompt_format.reasoning,
            system_role=prompt_format.system_role,
            sampling=_recommended(header, prompt_format),
            load_s=time.perf_counter() - started,
        )
        self._send(self._loaded)

    def _on_load_progress(self, fraction: float) -> bool:
        self._advance()
        if fraction - self._load_shown >= 0.01 or fraction >= 1:
            self._load_shown = fraction
            self._send(protocol.LoadProgress(min(max(fraction, 0.0), 1.0)))
        return True

    def _generate(self, request: protocol.Generate) -> None:
        if self._session is None or self._loaded is None:
            raise EngineError("no model is loaded")
        sampling = request.sampling.completed_by(self._loaded.sampling)
        with self._abort_lock:
            self._running = request.id
            if request.id in self._cancelled:
                self._abort.set()
            else:
                self._abort.clear()
        try:
            for event in generate(self._session, request, sampling, self._advance):
                self._send(event)
        finally:
            with self._abort_lock:
                self._running = 0
                self._cancelled = {other for other in self._cancelled if other > request.id}


def _context_size(request: protocol.Load, header: gguf.Header) -> int:
    if request.context is None:
        return fit.default_context(header, hardware.available_memory() - header.tensor_bytes)
    fit.check_context(header, request.context)
    return request.context


def _prompt_format(model: Model, header: gguf.Header) -> PromptFormat:
    if model.special_token(USER) is not None and model.special_token(ASSISTANT) is not None:
        return R1Format()
    if not header.chat_template:
        raise UnsupportedModel(
            f"the model {header.name or header.architecture!r} has no chat template",
            "It is a base model, not one to talk with",
        )
    from localai.chat.template import EmbeddedFormat  # here, because Jinja takes 40 ms and R1 needs none

    return EmbeddedFormat(header.chat_template, model.bos, model.eos, add_bos=model.adds_bos)


def _recommended(header: gguf.Header, prompt_format: PromptFormat) -> protocol.Sampling:
    """What the file recommends, completed by what its family does."""

    def number(key: str) -> float | None:
        value = header.metadata.get(f"general.sampling.{key}")
        return float(value) if isinstance(value, int | float) else None

    top_k = number("top_k")
    own = protocol.Sampling(
        temperature=number("temp"),
        top_p=number("top_p"),
        top_k=None if top_k is None else int(top_k),
        min_p=number("min_p"),
    )
    return own.completed_by(R1_SAMPLING if prompt_format.name == R1Format.name else DEFAULT_SAMPLING)


def main() -> None:
    """Entry point of the process."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    reader, writer = processes.claim_stdio()
    Worker(reader, writer).run()


if __name__ == "__main__":
    main()
