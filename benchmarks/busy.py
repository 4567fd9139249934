"""Generation while other programs want the cores, as ratios.

The same model is loaded twice: once as it is by default, where the engine lowers its threads when others
compete, and once with a pinned number of threads. Both answer in turns, calm and next to other programs, each
of which is in a session of its own, as a browser or a compiler in another terminal would be:

    calm        none
    every core  a busy loop on each core
    one core    one busy loop
    a part      30 % of one core: 3 ms of each 10 ms

The claims: 0.99 of the pinned engine when calm; 0.45 of the pinned engine's calm speed next to a busy loop on
every core; never slower than the pinned engine. A pinned engine next to busy loops can take seconds for a
token: its reply is stopped after `--patience` seconds.

Usage: python benchmarks/busy.py [MODEL] [--rounds 3] [--tokens 256] [--threads N] [--patience 15] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import statistics
import sys
from asyncio.subprocess import PIPE, Process, create_subprocess_exec
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, NamedTuple

from common import GREEDY, compared, loaded, parser, print_json, reply, resolve, run, settled, shown

from localai import hardware
from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions
from models.store import Resolved

CONTEXT = 2048
PROMPT = "Write a long story about a lighthouse keeper, the sea, and a letter that arrives too late."
SETTLING_S = 0.5
"""How long the scheduler gets to spread the other programs over the cores."""
OTHER = """
import os, sys, time
busy, rest = float(sys.argv[1]), float(sys.argv[2])
parent = os.getppid()
print(flush=True)
while os.getppid() == parent:
    end = time.perf_counter() + busy
    while time.perf_counter() < end:
        pass
    if rest:
        time.sleep(rest)
"""
"""Computes for some seconds, rests for some, and ends with this program."""


class Scene(NamedTuple):
    """What else runs, and what is claimed of the default engine."""

    programs: int
    busy_s: float
    rest_s: float
    claim: str
    of_calm: str = ""
    """The claim beside the pinned engine's calm speed."""


SCENES = {
    "calm": Scene(0, 0.0, 0.0, "at least 0.99"),
    "every core": Scene(hardware.usable_cores(), 0.01, 0.0, "at least 1", "at least 0.45"),
    "one core": Scene(1, 0.01, 0.0, "at least 1"),
    "a part": Scene(1, 0.003, 0.007, "at least 1"),
}


class Rates(NamedTuple):
    """Tokens per second of both engines."""

    default: float
    pinned: float


def main() -> None:
    arguments = _arguments()
    found = run(measure(resolve(arguments.model), arguments))
    if arguments.json:
        print_json(found)
    else:
        _print(found)


async def measure(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """All scenes, in turns."""
    threads = arguments.threads or hardware.physical_cores()
    rates: dict[str, list[Rates]] = {name: [] for name in SCENES}
    async with AsyncExitStack() as stack:
        default, pinned = [
            await stack.enter_async_context(
                loaded(model, LoadOptions(context=CONTEXT, threads=count, speculate=False))
            )
            for count in (None, threads)
        ]
        for engine in (default, pinned):
            await rate(engine, arguments)  # the first reply also reads the weights from the disk
        for number in range(arguments.rounds):
            for name, scene in SCENES.items():
                async with others(scene):
                    rates[name].append(await in_turns(default, pinned, arguments, number))
    return {
        "model": model.name,
        "threads": threads,
        "tokens": arguments.tokens,
        "scenes": {
            name: _compared(SCENES[name], measured, rates["calm"]) for name, measured in rates.items()
        },
    }


async def in_turns(default: Engine, pinned: Engine, arguments: argparse.Namespace, number: int) -> Rates:
    """One reply of each; which comes first changes with `number`."""
    if number % 2:
        first = await rate(pinned, arguments)
        return Rates(await rate(default, arguments), first)
    first = await rate(default, arguments)
    return Rates(first, await rate(pinned, arguments))


async def rate(engine: Engine, arguments: argparse.Namespace) -> float:
    """Tokens per second of one reply, after the first token."""
    limits = Limits(max_tokens=arguments.tokens)
    patience = asyncio.create_task(_cancel(engine, arguments.patience))
    try:
        timed = await reply(engine, [ChatMessage("user", PROMPT)], GREEDY, limits)
    finally:
        patience.cancel()
    await settled(engine)
    # A reply that was stopped at its first token has no rate; it was slower than this.
    return timed.done.timings.tokens_per_s or 1 / timed.total_s


async def _cancel(engine: Engine, after_s: float) -> None:
    await asyncio.sleep(after_s)
    await engine.cancel()


@asynccontextmanager
async def others(scene: Scene) -> AsyncIterator[None]:
    """The other programs of a scene run meanwhile."""
    command = [sys.executable, "-c", OTHER, str(scene.busy_s), str(scene.rest_s)]
    programs: list[Process] = []
    try:
        for _ in range(scene.programs):
            programs.append(await create_subprocess_exec(*command, stdout=PIPE, start_new_session=True))
        for program in programs:
            assert program.stdout is not None
            await program.stdout.readline()
        if programs:
            await asyncio.sleep(SETTLING_S)
        yield
    finally:
        for program in programs:
            program.kill()
        for program in programs:
            await program.wait()


def _compared(scene: Scene, rates: list[Rates], calm: list[Rates]) -> dict[str, Any]:
    default, pinned = [one.default for one in rates], [one.pinned for one in rates]
    found: dict[str, Any] = {
        "default_tokens_per_s": statistics.median(default),
        "pinned_tokens_per_s": statistics.median(pinned),
        "of_pinned": compared(default, pinned, scene.claim),
    }
    if scene.of_calm:
        found["of_calm"] = compared(default, [one.pinned for one in calm], scene.of_calm)
    return found


def _print(found: dict[str, Any]) -> None:
    print(f"{found['model']}, {found['threads']} threads, {found['tokens']} tokens")
    for name, scene in found["scenes"].items():
        speeds = (
            f"default {scene['default_tokens_per_s']:.1f}, pinned {scene['pinned_tokens_per_s']:.1f} tokens/s"
        )
        print(f"{name}: {speeds}")
        print(f"  of pinned: {shown(scene['of_pinned'])}")
        if "of_calm" in scene:
            print(f"  of pinned and calm: {shown(scene['of_calm'])}")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=3)
    found.add_argument("--tokens", type=int, default=256, help="most of each reply")
    found.add_argument("--patience", type=float, default=15.0, help="seconds until a reply is stopped")
    return found.parse_args()


if __name__ == "__main__":
    main()
