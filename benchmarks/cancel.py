"""How soon a reply ends after it was cancelled, in units of the 100 ms that are claimed.

Each cancellation comes at a random moment: while a conversation of 3,000 tokens is being read, or while the
reply is being written, in turns. Measured is the time from `Engine.cancel` to the end of the reply's stream.
The claim: never more than 1.

Usage: python benchmarks/cancel.py [MODEL] [--rounds 20] [--tokens 3000] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import itertools
import math
import random
import statistics
import time
from collections.abc import Iterator, Sequence
from typing import Any

from common import FIRST_TOKEN, GREEDY, conversation, loaded, parser, print_json, reply, resolve, run

from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.errors import EngineError
from models.store import Resolved

LIMIT_S = 0.1
CLAIM = "at most 1"
WRITING_S = 0.5
"""Replies are cancelled within so long after their first text."""
TRIES = 10


def main() -> None:
    arguments = _arguments()
    found = run(measure(resolve(arguments.model), arguments))
    if arguments.json:
        print_json(found)
    else:
        _print(found)


async def measure(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """Latencies in both parts of a reply."""
    trained = model.header().context_trained or math.inf
    context = int(min(trained, arguments.tokens + 1000))
    length = min(arguments.tokens, context - 250)
    moments, numbers = random.Random(1), itertools.count(1)
    reading, writing = [], []
    async with loaded(model, LoadOptions(context=context, threads=arguments.threads)) as engine:
        read_s = (await reply(engine, await conversation(engine, length, 0), GREEDY, FIRST_TOKEN)).total_s
        for _ in range(arguments.rounds):
            wait_s = 0.7 * read_s * moments.random()
            reading.append(await _latency(engine, length, numbers, wait_s))
            writing.append(await _latency(engine, 0, numbers, WRITING_S * moments.random()))
    return {
        "model": model.name,
        "conversation_tokens": length,
        "read_s": read_s,
        "reading": _quantiles(reading),
        "writing": _quantiles(writing),
        "claim": CLAIM,
    }


async def _latency(engine: Engine, length: int, numbers: Iterator[int], wait_s: float) -> float:
    """Seconds from cancelling to the end, for a conversation of that length, or while writing if it is 0.

    Where the reply has gone on to its next part, or to its end, too early, the next is cancelled sooner.
    """
    for _ in range(TRIES):
        number = next(numbers)
        if length:
            prompt: list[ChatMessage] | list[int] = await conversation(engine, length, number)
        else:
            assert engine.model is not None
            prompt = [random.Random(number).randrange(engine.model.vocabulary) for _ in range(8)]
        seconds = await _cancelled(engine, prompt, wait_s)
        if seconds is not None:
            return seconds
        wait_s /= 2
    raise EngineError("the replies are over too soon to be cancelled: take --tokens larger")


async def _cancelled(
    engine: Engine, prompt: Sequence[ChatMessage] | Sequence[int], wait_s: float
) -> float | None:
    """Seconds from cancelling to the end; None if the reply was not in the part that is meant any more.

    That part is reading for a conversation, and writing for tokens; `wait_s` is the time in it.
    """
    writing = isinstance(prompt[0], int)
    began = asyncio.Event()

    def on_event(event: protocol.GenerationEvent) -> None:
        if not writing or isinstance(event, protocol.Answer | protocol.Thinking):
            began.set()

    making = asyncio.create_task(reply(engine, prompt, ignore_end=writing, on_event=on_event))
    making.add_done_callback(lambda task: began.set())
    await began.wait()
    await asyncio.sleep(wait_s)
    started = time.perf_counter()
    await engine.cancel()
    done = (await making).done
    seconds = time.perf_counter() - started
    meant = done.reason == "cancelled" and writing == (done.usage.completion_tokens > 0)
    return seconds if meant else None


def _quantiles(seconds: Sequence[float]) -> dict[str, Any]:
    """What was measured, in units of the limit."""
    ratios = sorted(one / LIMIT_S for one in seconds)
    return {
        "ratio": ratios[-1],
        "median_ratio": statistics.median(ratios),
        "p90_ratio": ratios[math.ceil(0.9 * len(ratios)) - 1],
        "ratios": ratios,
    }


def _print(found: dict[str, Any]) -> None:
    print(f"{found['model']}: seconds from cancelling to the end, over {LIMIT_S} s; claim: {CLAIM}")
    for part in ("reading", "writing"):
        figures = found[part]
        quantiles = f"median {figures['median_ratio']:.3f}, 90 % {figures['p90_ratio']:.3f}"
        print(
            f"  while {part}  ratio {figures['ratio']:.3f} at most of {len(figures['ratios'])} ({quantiles})"
        )


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=20)
    found.add_argument("--tokens", type=int, default=3000, help="of the conversation that is read")
    return found.parse_args()


if __name__ == "__main__":
    main()
