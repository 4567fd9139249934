"""The client against workers that misbehave: scripted processes on real pipes."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path
from typing import Any

import pytest

from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.client import Engine
from localai.errors import EngineError, LoadError, WorkerDied, WorkerHung

PRELUDE = """
import os, signal, sys, time
from localai import processes, frames
from localai.engine import protocol as p
reader, writer = processes.claim_stdio()
def send(event): writer.write(p.encode(event))
def receive(): return p.decode_request(frames.read(reader))
def load():
    receive()
    form = ("CPU", "deepseek-r1", True, False, p.Sampling(), 0.1)
    send(p.Loaded("d", "qwen2", "n", "Q8_0", 1, 1, 2048, 2048, 1, 0, *form))
def done(id): send(p.Done(id, "stop", p.Usage(1, 0, 1, 0), p.Timings(0, 0, 0, 0)))
"""


def scripted(script: str, **limits: Any) -> Engine:
    return Engine([sys.executable, "-P", "-c", PRELUDE + script], **limits)


async def ask(engine: Engine) -> list[protocol.GenerationEvent]:
    return [event async for event in engine.generate([ChatMessage("user", "Hi")])]


async def loaded(script: str, **limits: Any) -> Engine:
    engine = scripted(script, **limits)
    await engine.load(Path("model.gguf"))
    return engine


async def test_a_silent_worker_is_stopped() -> None:
    engine = await loaded("load(); receive(); time.sleep(1000)", silence_s=0.3)
    with pytest.raises(WorkerHung, match="got stuck"):
        await ask(engine)
    assert engine.model is None


async def test_a_stopped_process_is_noticed() -> None:
    engine = await loaded("load(); receive(); os.kill(os.getpid(), signal.SIGSTOP)", silence_s=0.3)
    with pytest.raises(WorkerHung):
        await ask(engine)


async def test_a_worker_that_is_alive_but_gets_nowhere_is_stopped() -> None:
    script = "load(); receive()\nwhile True: send(p.Alive(5)); time.sleep(0.02)"
    engine = await loaded(script, stall_beats=30)
    with pytest.raises(WorkerHung):
        await ask(engine)


async def test_a_slow_worker_that_gets_somewhere_is_left_alone() -> None:
    script = (
        "load(); r = receive()\nfor n in range(40): send(p.Alive(n)); time.sleep(0.02)\ndone(r.id); receive()"
    )
    engine = await loaded(script, stall_beats=30)
    assert isinstance((await ask(engine))[-1], protocol.Done)
    await engine.close()


async def test_abort_is_told_with_the_last_words_of_the_worker() -> None:
    script = "load(); receive(); print('ggml.c:42: GGML_ASSERT(a) failed', file=sys.stderr); os.abort()"
    engine = await loaded(script)
    with pytest.raises(WorkerDied, match=r"SIGABRT.*GGML_ASSERT\(a\) failed"):
        await ask(engine)


async def test_an_early_end_is_told_with_its_exit_code() -> None:
    engine = await loaded("load(); receive(); sys.exit(7)")
    with pytest.raises(WorkerDied, match="exit code 7"):
        await ask(engine)


async def test_death_while_loading_names_the_model() -> None:
    engine = scripted("receive(); os.abort()")
    with pytest.raises(LoadError, match=r"model\.gguf.*SIGABRT"):
        await engine.load(Path("model.gguf"))


async def test_a_worker_that_cannot_be_started() -> None:
    engine = Engine(["/nonexistent/python"])
    with pytest.raises(EngineError, match="could not be started"):
        await engine.load(Path("model.gguf"))


@pytest.mark.parametrize(
    "garbage",
    [
        "writer.write(b'\\xff\\xff\\xff\\xff')",
        "writer.write(frames.pack(b'garbage'))",
        "writer.write(frames.pack(p._encoder.encode({'type': 'Answer', 'id': 'one'})))",
        "writer.write(frames.pack(p._encoder.encode({'type': 'Pickle'})))",
    ],
)
async def test_garbage_is_one_error(garbage: str) -> None:
    engine = await loaded(f"load(); receive(); {garbage}; receive()")
    with pytest.raises(EngineError, match="not a message"):
        await ask(engine)
    assert engine.model is None


async def test_what_a_library_prints_does_not_get_between_the_frames() -> None:
    engine = await loaded("load(); r = receive(); print('noise'); os.write(1, b'more noise'); done(r.id)")
    assert isinstance((await ask(engine))[-1], protocol.Done)
    await engine.close()


async def test_an_error_name_from_outside_the_tree_stays_inside() -> None:
    engine = await loaded("load(); r = receive(); send(p.Failed('SystemExit', 'x', '', r.id)); receive()")
    with pytest.raises(EngineError, match="x"):
        await ask(engine)
    await engine.close()


async def test_events_of_an_earlier_reply_are_dropped() -> None:
    script = """
load(); r = receive()
send(p.Answer(r.id, "old", 1))
c = receive(); assert isinstance(c, p.Cancel) and c.id == r.id
send(p.Answer(r.id, "older", 1)); done(r.id)
r = receive()
send(p.Answer(r.id, "new", 1)); done(r.id); receive()
"""
    engine = await loaded(script)
    stream = engine.generate([ChatMessage("user", "Hi")])
    async for _ in stream:
        break
    await stream.aclose()  # type: ignore[attr-defined]
    assert [event.text for event in await ask(engine) if isinstance(event, protocol.Answer)] == ["new"]
    await engine.close()


async def test_a_cancelled_task_loses_no_bytes_of_the_stream() -> None:
    """The head of a frame is there, its body not yet, when the reader is cancelled."""
    script = """
load(); r = receive()
frame = p.encode(p.Answer(r.id, "half", 1))
writer.write(frame[:7])
c = receive(); assert isinstance(c, p.Cancel)
writer.write(frame[7:]); done(r.id)
r = receive()
send(p.Answer(r.id, "whole", 1)); done(r.id); receive()
"""
    engine = await loaded(script)
    task = asyncio.create_task(ask(engine))
    assert engine._worker is not None
    async with asyncio.timeout(20):
        while engine._worker._body_length is None:
            await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert [event.text for event in await ask(engine) if isinstance(event, protocol.Answer)] == ["whole"]
    await engine.close()


async def test_a_worker_does_not_survive_a_cancelled_close() -> None:
    """Someone who has no more patience than the engine leaves no process behind."""
    engine = await loaded("load(); os.kill(os.getpid(), signal.SIGSTOP)")
    process = engine._worker._process  # type: ignore[union-attr]
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.close(), 0.2)
    assert await process.wait() == -9


async def test_a_worker_that_ignores_the_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("localai.engine.client.SHUTDOWN_S", 0.3)
    engine = await loaded("signal.signal(signal.SIGTERM, signal.SIG_IGN); load(); time.sleep(1000)")
    process = engine._worker._process  # type: ignore[union-attr]
    await engine.close()
    assert process.returncode == -9
