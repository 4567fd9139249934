"""The worker's three threads, on real pipes: who may interrupt what. The model is scripted."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any, BinaryIO

import pytest

from localai import frames
from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.worker import Worker

PATIENCE_S = 20.0
"""So long a computation waits to be interrupted before the test fails."""
DRAFT = protocol.Prefill(1, [ChatMessage("user", "A draft")])


class Scheduler:
    """Computes until it is interrupted."""

    def __init__(self, worker: Worker) -> None:
        self.busy = self.reads_ahead = False
        self.steps = 0
        self.began, self.interrupted = threading.Event(), threading.Event()
        self._worker = worker

    def compute(self) -> None:
        self.began.set()
        waited = threading.Event()
        for _ in range(int(PATIENCE_S / 0.005)):
            if self._worker._abort.is_set:
                self._worker._abort.clear()
                self.interrupted.set()
                return
            waited.wait(0.005)

    def ahead(self) -> None:
        self.compute()
        self.reads_ahead = False


class Governor:
    def __init__(self) -> None:
        self.late = False
        self.watch_s = 0.025

    def overdue(self) -> bool:
        return self.late


class Served:
    """Answers each request with a count, and begins what the request asks for."""

    def __init__(self, worker: Worker) -> None:
        self.scheduler, self.governor = Scheduler(worker), Governor()
        self.seen: list[protocol.Request] = []

    def serve(self, request: protocol.Request) -> Iterator[protocol.Event]:
        self.seen.append(request)
        if isinstance(request, protocol.Prefill):
            self.scheduler.reads_ahead = True
        elif isinstance(request, protocol.Generate):
            self.scheduler.busy = True
        elif isinstance(request, protocol.Cancel):
            self.scheduler.busy = False
        elif isinstance(request, protocol.Status):
            yield protocol.Restored(request.id, len(self.seen))

    def step(self) -> Iterator[protocol.Event]:
        self.scheduler.compute()
        yield from ()


class Side:
    """The app's ends of the pipes, and the worker in a thread of this process."""

    def __init__(self) -> None:
        down, up = os.pipe(), os.pipe()
        self.requests: BinaryIO = os.fdopen(down[1], "wb", buffering=0)
        self.events: BinaryIO = os.fdopen(up[0], "rb")
        self.gone = threading.Event()
        """The worker would have left at once."""
        self.worker = Worker(
            os.fdopen(down[0], "rb"), os.fdopen(up[1], "wb", buffering=0), lambda code: self.gone.set()
        )
        self.served = Served(self.worker)
        self.worker._served = self.served  # type: ignore[assignment]
        self.thread = threading.Thread(target=self.worker.run)
        self.thread.start()

    def send(self, request: protocol.Request) -> None:
        frames.write_all(self.requests, protocol.encode(request))

    def receive(self, kind: type[Any]) -> Any:
        while True:
            body = frames.read(self.events)
            assert body is not None
            event = protocol.decode_event(body)
            if isinstance(event, kind):
                return event


@pytest.fixture
def side() -> Iterator[Side]:
    side = Side()
    yield side
    side.send(protocol.Shutdown())
    side.thread.join(PATIENCE_S)
    assert not side.thread.is_alive()
    assert not side.gone.is_set()
    side.requests.close()
    assert side.gone.wait(PATIENCE_S)  # an app that is gone is not outlived
    for thread in threading.enumerate():
        if thread.name in ("watch", "reader"):
            thread.join(PATIENCE_S)
    for file in (side.worker._reader, side.worker._writer, side.events):
        file.close()


def test_a_request_interrupts_what_is_done_in_idle_time(side: Side) -> None:
    side.send(DRAFT)
    assert side.served.scheduler.began.wait(PATIENCE_S)
    side.send(protocol.Generate(2, [ChatMessage("user", "Hi")]))
    assert side.served.scheduler.interrupted.wait(PATIENCE_S)
    side.send(protocol.Cancel(2))


@pytest.mark.parametrize("question", [protocol.Status(3), protocol.Count(3, []), DRAFT])
def test_a_mere_question_does_not(side: Side, question: protocol.Request) -> None:
    side.send(DRAFT)
    assert side.served.scheduler.began.wait(PATIENCE_S)
    side.send(question)
    assert not side.served.scheduler.interrupted.wait(0.2)
    side.send(protocol.Generate(4, [ChatMessage("user", "Hi")]))
    assert side.served.scheduler.interrupted.wait(PATIENCE_S)
    side.send(protocol.Cancel(4))


def test_a_cancellation_interrupts_a_computation(side: Side) -> None:
    side.send(protocol.Generate(2, [ChatMessage("user", "Hi")]))
    assert side.served.scheduler.began.wait(PATIENCE_S)
    side.send(protocol.Cancel(2))
    assert side.served.scheduler.interrupted.wait(PATIENCE_S)
    side.send(protocol.Status(5))
    assert side.receive(protocol.Restored).id == 5
    assert [type(request) for request in side.served.seen][:2] == [protocol.Generate, protocol.Cancel]


def test_other_requests_wait_for_the_end_of_a_step(side: Side) -> None:
    side.send(protocol.Generate(2, [ChatMessage("user", "Hi")]))
    assert side.served.scheduler.began.wait(PATIENCE_S)
    side.send(protocol.Generate(3, [ChatMessage("user", "Hi")]))
    assert not side.served.scheduler.interrupted.wait(0.2)
    side.send(protocol.Cancel(2))


def test_a_computation_that_is_held_up_is_interrupted(side: Side) -> None:
    side.send(protocol.Generate(2, [ChatMessage("user", "Hi")]))
    assert side.served.scheduler.began.wait(PATIENCE_S)
    side.served.governor.late = True
    assert side.served.scheduler.interrupted.wait(PATIENCE_S)
    side.served.governor.late = False
    side.send(protocol.Cancel(2))


def test_a_busy_worker_says_that_it_is_alive(side: Side) -> None:
    side.send(protocol.Generate(2, [ChatMessage("user", "Hi")]))
    assert side.served.scheduler.began.wait(PATIENCE_S)
    side.served.scheduler.steps = 41
    first = side.receive(protocol.Alive)
    assert side.receive(protocol.Alive).step == 41
    assert first.step in (0, 41)
    side.send(protocol.Cancel(2))


@pytest.mark.parametrize("garbage", [frames.pack(b"garbage"), b"\xff\xff\xff\xff"])
def test_what_is_no_request_ends_the_worker_with_the_reason(garbage: bytes) -> None:
    command = [sys.executable, "-P", "-m", "localai.engine.worker"]
    done = subprocess.run(command, input=garbage, capture_output=True, check=False, timeout=60)
    assert done.returncode == 1
    assert b"something that is not a request" in done.stderr


def test_where_memory_runs_out_linux_ends_the_worker_first() -> None:
    if sys.platform != "linux":
        pytest.skip("oom_score_adj is Linux's")
    code = "from localai.engine import worker; worker.Worker.run = worker.Worker.begin = lambda self: None; worker.main(); import pathlib, sys; sys.stderr.write(pathlib.Path('/proc/self/oom_score_adj').read_text())"  # noqa: E501
    done = subprocess.run(
        [sys.executable, "-P", "-c", code], capture_output=True, check=True, stdin=subprocess.DEVNULL
    )
    assert int(done.stderr) == 800
