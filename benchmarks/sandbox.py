"""What the sandbox costs: a confined engine against one that is not, and the same for quantizing.

Two workers have the same model, one at the level `full`, the other with --sandbox off. In turns, each reads a
prompt that it has not seen and generates; then each starts anew and loads; then a checkpoint with R1's
dimensions, cut to a few layers, is quantized by either. Prints ratios of speeds, confined over unconfined, so
that below 1 is a cost. The claim: at most 2 %, so at least 0.98.

Usage: python benchmarks/sandbox.py [MODEL] [--rounds 15] [--threads N] [--quantize-rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import random
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

from common import compared, loaded, parser, print_json, reply, resolve, run, shown

import quantize as checkpoints
from localai.confine import choice
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions
from models.store import Resolved

CLAIM: Final = "at least 0.98"
PROMPT, TOKENS = 256, 96
MODES: Final[tuple[choice.Mode, ...]] = ("require", "off")


def main() -> None:
    arguments = _arguments()
    model = resolve(arguments.model)
    found = run(_engine(model, arguments))
    if arguments.quantize_rounds:
        found |= _quantizing(arguments)
    if arguments.json:
        print_json(found)
        return
    for name, result in found.items():
        print(f"{name:<25} {shown(result)}")


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=15)
    options.add_argument("--quantize-rounds", type=int, default=5, help="0: leave it out")
    options.add_argument("--layers", type=int, default=2, help="of the checkpoint that is quantized")
    return options.parse_args()


async def _engine(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """The speeds of reading and generating, and how often it could start in a second."""
    options = LoadOptions(context=2048, threads=arguments.threads, speculate=False, converse=False)
    speeds: dict[str, dict[str, list[float]]] = {"prompt": {}, "generate": {}, "start": {}}
    choice.choose("require")
    async with loaded(model, options) as confined:
        choice.choose("off")
        async with loaded(model, options) as free:
            engines: dict[str, Engine] = {"require": confined, "off": free}
            assert (confined.sandbox.level, free.sandbox.level) == ("full", "none")

            async def measure(mode: str, number: int) -> None:
                read, written = await _rates(engines[mode], number)
                speeds["prompt"].setdefault(mode, []).append(read)
                speeds["generate"].setdefault(mode, []).append(written)

            await _in_turns(arguments.rounds, measure)

    async def start(mode: str, _number: int) -> None:
        choice.choose("require" if mode == "require" else "off")
        began = time.perf_counter()
        async with loaded(model, options):
            speeds["start"].setdefault(mode, []).append(1 / (time.perf_counter() - began))

    await _in_turns(arguments.rounds, start)
    return {name: compared(rates["require"], rates["off"], CLAIM) for name, rates in speeds.items()}


async def _in_turns(rounds: int, measure: Callable[[str, int], Awaitable[None]]) -> None:
    """`measure` each mode once a round, now the one first and now the other; the first round warms up."""
    for number in range(rounds):
        for mode in MODES if number % 2 == 0 else MODES[::-1]:
            await measure(mode, number)


async def _rates(engine: Engine, number: int) -> tuple[float, float]:
    """(prompt tokens, generated tokens) per second."""
    assert engine.model is not None
    source = random.Random(number)
    prompt = [source.randrange(1000, engine.model.vocabulary) for _ in range(PROMPT)]
    done = (await reply(engine, prompt, limits=Limits(max_tokens=TOKENS), ignore_end=True)).done
    return PROMPT / done.timings.prompt_s, done.timings.tokens_per_s


def _quantizing(arguments: argparse.Namespace) -> dict[str, Any]:
    """How often a checkpoint could be quantized in a second, and in a second of processor time."""
    clock: dict[str, list[float]] = {mode: [] for mode in MODES}
    processor: dict[str, list[float]] = {mode: [] for mode in MODES}
    with tempfile.TemporaryDirectory(prefix="localai-benchmark-") as name:
        source, output = Path(name, "checkpoint"), Path(name, "made.gguf")
        checkpoints.make_checkpoint(source, arguments.layers)
        words = [sys.executable, "-P", "-m", "localai", "quantize", str(source), "--type", "Q8_0"]
        words += ["--output", str(output), "--no-check", "--overwrite"]
        for number in range(arguments.quantize_rounds + 1):
            for mode in MODES if number % 2 == 0 else MODES[::-1]:
                began, used = time.perf_counter(), _children()
                command = [*words, "--sandbox", mode]
                subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
                if number:  # the first reads the checkpoint from the disk
                    clock[mode].append(1 / (time.perf_counter() - began))
                    processor[mode].append(1 / (_children() - used))
    found = {"quantize": clock, "quantize, processor time": processor}
    return {what: compared(rates["require"], rates["off"], CLAIM) for what, rates in found.items()}


def _children() -> float:
    """Seconds of processor time that processes took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


if __name__ == "__main__":
    main()
