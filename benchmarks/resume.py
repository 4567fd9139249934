"""Going on with a conversation the next day: its cache state restored against read again, as a ratio.

In turns, each time in a fresh worker: the first token of the reply to a conversation of 3,000 tokens with
nothing in the cache; and the saved state given back and then the same first token. Starting the worker and
loading the model are the same on both sides and not counted. The claim: restoring is at least 20 times as
fast, on the starter.

Usage: python benchmarks/resume.py [MODEL] [--rounds 5] [--tokens 3000] [--json]
"""

from __future__ import annotations

import argparse
import math
import statistics
import time
from typing import Any, NamedTuple

from common import (
    FIRST_TOKEN,
    GREEDY,
    compared,
    conversation,
    loaded,
    parser,
    print_json,
    reply,
    resolve,
    run,
    settled,
    shown,
)

from localai.engine.settings import LoadOptions
from localai.errors import EngineError
from models.store import Resolved

CLAIM = "at least 20"


class _Round(NamedTuple):
    """Seconds, and what was moved."""

    read_s: float
    save_s: float
    restore_s: float
    first_s: float
    """The first token after restoring."""
    size: int
    tokens: int
    left: int
    """Tokens that still had to be read after restoring."""


def main() -> None:
    arguments = _arguments()
    found = run(measure(resolve(arguments.model), arguments))
    if arguments.json:
        print_json(found)
    else:
        _print(found)


async def measure(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """All rounds."""
    trained = model.header().context_trained or math.inf
    context = int(min(trained, arguments.tokens + 500))
    options = LoadOptions(context=context, threads=arguments.threads)
    length = min(arguments.tokens, context - 250)
    rounds = [await _round(model, options, length, number) for number in range(arguments.rounds)]
    return {
        "model": model.name,
        "tokens": rounds[-1].tokens,
        "left_tokens": rounds[-1].left,
        "state_bytes": rounds[-1].size,
        "median_s": {
            name: statistics.median(getattr(one, f"{name}_s") for one in rounds)
            for name in ("read", "save", "restore", "first")
        },
        **compared([one.read_s for one in rounds], [one.restore_s + one.first_s for one in rounds], CLAIM),
    }


async def _round(model: Resolved, options: LoadOptions, length: int, number: int) -> _Round:
    async with loaded(model, options) as engine:
        messages = await conversation(engine, length, number)
        read = await reply(engine, messages, GREEDY, FIRST_TOKEN)
        await settled(engine)
        started = time.perf_counter()
        state = await engine.save(messages)
        save_s = time.perf_counter() - started
    if state is None:
        raise EngineError("the engine gave no state of the conversation")
    async with loaded(model, options) as engine:
        started = time.perf_counter()
        restored = await engine.restore(state)
        restore_s = time.perf_counter() - started
        if not restored:
            raise EngineError("the engine did not take the state back")
        first = await reply(engine, messages, GREEDY, FIRST_TOKEN)
    tokens = first.done.usage.prompt_tokens
    return _Round(read.total_s, save_s, restore_s, first.total_s, state.size, tokens, first.read)


def _print(found: dict[str, Any]) -> None:
    seconds = found["median_s"]
    print(f"{found['model']}: a conversation of {found['tokens']:,} tokens")
    print(f"  read again     {seconds['read'] * 1000:9.1f} ms to the first token")
    restored = (
        f"{seconds['restore'] * 1000:9.1f} ms, then {seconds['first'] * 1000:.1f} ms to the first token"
    )
    print(f"  restored       {restored}, {found['left_tokens']:,} tokens read")
    print(f"  saved          {seconds['save'] * 1000:9.1f} ms, {found['state_bytes'] / 1e6:.1f} MB")
    print(f"reading over restoring: {shown(found)}")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5)
    found.add_argument("--tokens", type=int, default=3000, help="of the conversation")
    return found.parse_args()


if __name__ == "__main__":
    main()
