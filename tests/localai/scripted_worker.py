"""Engines whose worker is a script on real pipes: it speaks the protocol, and does what a test needs."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable
from pathlib import Path

from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.client import SILENCE_S, STALL_BEATS, Engine
from localai.engine.pipe import Patience

PRELUDE = """
import os, signal, sys, time
from localai import processes, frames
from localai.engine import protocol as p
reader, writer = processes.claim_stdio()

def send(event):
    frames.write_all(writer, p.encode(event))

def receive(*kinds):
    "The next request; the worker fails if it is none of these kinds."
    body = frames.read(reader)
    if body is None:
        os._exit(0)
    request = p.decode_request(body)
    if isinstance(request, p.Confine):
        frames.write_all(writer, p.encode(p.Confined(p.Sandbox("full"))))
        return receive(*kinds)
    if kinds and not isinstance(request, kinds):
        sys.exit(f"not expected: {request}")
    return request

def load(parallel=1):
    request = receive(p.Load)
    send(p.Loaded(
        description="d", architecture="qwen2", name="n", file_type="Q8_0", parameters=1, size=1, context=2048,
        context_trained=2048, threads=1, gpu_layers=0, backend="CPU", prompt_format="deepseek-r1",
        reasoning=True, system_role=False, sampling=p.Sampling(), load_s=0.1, vocabulary=1, parallel=parallel,
        kv_type="f16", kv_bytes_per_token=1, weights_read=1, fingerprint="print"))
    return request

def answer(id, text): send(p.Answer(id, text, 1))
def done(id, reason="stop"): send(p.Done(id, reason, p.Usage(1, 0, 1, 0), p.Timings(0, 0, 0, 0)))
def counted(id, total=5): send(p.Counted(id, total, (total,), 0, 2048, None))

def wait_for(path):
    while not os.path.exists(path):
        time.sleep(0.005)

def first_time(path):
    "Whether this is the first worker that asks."
    first = not os.path.exists(path)
    open(path, "w").close()
    return first
"""
HI = [ChatMessage("user", "Hi")]


def scripted(script: str) -> Engine:
    """An engine whose worker runs `script` after the `PRELUDE`."""
    return Engine([sys.executable, "-P", "-c", PRELUDE + script])


async def loaded(script: str, *, silence_s: float = SILENCE_S, stall_beats: int = STALL_BEATS) -> Engine:
    """An engine whose worker runs `script` and has "loaded" a model; that far, it may take its time."""
    engine = scripted(script)
    await engine.load(Path("model.gguf"))
    assert engine._worker is not None
    engine._worker._patience = Patience(silence_s, stall_beats)
    return engine


async def ask(engine: Engine) -> list[protocol.GenerationEvent]:
    """The events of a reply."""
    return [event async for event in engine.generate(HI)]


def fingerprint(engine: Engine) -> str:
    """What states of the model that is loaded are tied to."""
    assert engine.model is not None
    return engine.model.fingerprint


def text(events: list[protocol.GenerationEvent]) -> str:
    """The answer in `events`."""
    return "".join(event.text for event in events if isinstance(event, protocol.Answer))


async def until(condition: Callable[[], object], seconds: float = 20) -> None:
    """Wait for what another process, or another task, brings about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.005)
