"""What the app's process costs while tokens stream, as a share of one processor core.

The process with the `Engine` in it does what the chat does with a reply but for drawing it: it takes the
events and puts their texts together. Its processor time over the time that passed is its share; where fewer
than 100 tokens came in a second it is scaled up to 100. (With more it is not scaled down: events come no
oftener.) The claim: at most 0.10. Beside it: the cores that the worker took, and the memory of both.

Usage: python benchmarks/overhead.py [MODEL] [--rounds 5] [--tokens 512] [--json]
"""

from __future__ import annotations

import argparse
import statistics
import time
from typing import Any, NamedTuple

import psutil
from common import loaded, parser, print_json, reply, resolve, run, settled

from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from models.store import Resolved

CLAIM = "at most 0.10"
RATE = 100
"""Tokens per second that the claim is about."""
PROMPT = "Write a long story about a lighthouse keeper, the sea, and a letter that arrives too late."


class _Round(NamedTuple):
    """Seconds of processor time and of the clock, and tokens."""

    app_s: float
    worker_s: float
    wall_s: float
    tokens: int

    @property
    def share(self) -> float:
        """Of one core, at `RATE` tokens per second or more."""
        return self.app_s / self.wall_s * max(1.0, RATE * self.wall_s / self.tokens)


def main() -> None:
    arguments = _arguments()
    found = run(measure(resolve(arguments.model), arguments))
    if arguments.json:
        print_json(found)
    else:
        _print(found)


async def measure(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds."""
    app = psutil.Process()
    before = app.memory_info().rss
    options = LoadOptions(context=2048, threads=arguments.threads)
    async with loaded(model, options) as engine:
        worker = max(app.children(), key=lambda child: child.create_time())
        rounds = [await _round(engine, worker, arguments.tokens) for _ in range(arguments.rounds + 1)][1:]
        memory = app.memory_info().rss
        worker_memory = (await engine.status()).memory
    shares = [one.share for one in rounds]
    return {
        "model": model.name,
        "tokens_per_s": statistics.median(one.tokens / one.wall_s for one in rounds),
        "ratio": statistics.median(shares),
        "ratios": shares,
        "claim": CLAIM,
        "app_cores": statistics.median(one.app_s / one.wall_s for one in rounds),
        "worker_cores": statistics.median(one.worker_s / one.wall_s for one in rounds),
        "app_memory_bytes": memory,
        "streaming_memory_bytes": memory - before,
        "worker_memory_bytes": worker_memory,
    }


async def _round(engine: Engine, worker: psutil.Process, count: int) -> _Round:
    await settled(engine)
    app_s, worker_s, started = time.process_time(), _processor_s(worker), time.perf_counter()
    timed = await reply(engine, [ChatMessage("user", PROMPT)], Sampling(), Limits(max_tokens=count))
    return _Round(
        time.process_time() - app_s,
        _processor_s(worker) - worker_s,
        time.perf_counter() - started,
        timed.done.usage.completion_tokens,
    )


def _processor_s(process: psutil.Process) -> float:
    times = process.cpu_times()
    return float(times.user + times.system)


def _print(found: dict[str, Any]) -> None:
    shares = found["ratios"]
    print(f"{found['model']}: {found['tokens_per_s']:.1f} tokens/s")
    spread = f"{min(shares):.4f} to {max(shares):.4f}"
    print(f"app at {RATE} tokens/s: ratio {found['ratio']:.4f} of a core ({spread}); claim: {found['claim']}")
    print(f"  app     {found['app_cores']:.4f} cores, {found['app_memory_bytes'] / 1e6:.1f} MB of memory")
    print(
        f"          {found['streaming_memory_bytes'] / 1e6:.1f} MB of it since before the engine was started"
    )
    print(
        f"  worker  {found['worker_cores']:.4f} cores, {found['worker_memory_bytes'] / 1e6:.1f} MB of memory"
    )


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5)
    found.add_argument("--tokens", type=int, default=512, help="most of each reply")
    return found.parse_args()


if __name__ == "__main__":
    main()
