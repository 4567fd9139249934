"""The first token of the second turn, after a reply with thinking, as a ratio.

R1's format drops the thinking of past replies, so the cache no longer matches what the next prompt begins
with. The engine makes that good while the user reads. A conversation of 3,000 tokens gets a reply with 500
tokens of thinking (a model that does not think answers with 100 tokens; a model with a small context gets
less of everything), the engine rests, and a short message is sent:

    second turn   the time to its first token
    alone         the same message again when only its own tokens are not in the cache
    at once       as "second turn", but sent at once, without idle time
    cold          the whole conversation before it, with nothing in the cache

The claim: the second turn takes at most 1.3 of the time of the message alone.

Usage: python benchmarks/second_turn.py [MODEL] [--rounds 5] [--tokens 3000] [--json]
"""

from __future__ import annotations

import argparse
import math
import statistics
from typing import Any

from common import (
    FIRST_TOKEN,
    GREEDY,
    Timed,
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

from localai.chat.messages import ChatMessage
from localai.chat.prompt import END, END_THINK
from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, LogitBias, Sampling
from localai.errors import EngineError
from models.store import Resolved

CLAIM = "at most 1.3"
THINKING, ANSWER, REPLY = 500, 60, 100
"""Tokens of thinking, of the answer after it, and of a reply without thinking."""
QUESTIONS = ("Why is that so?", "Who can tell me that?")
"""They begin differently, so that neither leaves a part of the other in the cache."""
ALONE = 4
"""How often a message alone is measured in a round."""


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
    context = int(min(trained, arguments.tokens + THINKING + ANSWER + 500))
    options = LoadOptions(context=context, threads=arguments.threads)
    async with loaded(model, options) as engine:
        assert engine.model is not None
        plan = _Plan(engine.model, arguments.tokens)
        rounds = [await _round(engine, plan, number) for number in range(arguments.rounds)]
    times = {name: [found[name].total_s for found in rounds] for name in rounds[0]}
    return {
        "model": model.name,
        "conversation_tokens": rounds[-1]["cold"].done.usage.prompt_tokens,
        "thinking_tokens": plan.thinking,
        "read_tokens": {name: timed.read for name, timed in rounds[-1].items()},
        "median_s": {name: statistics.median(values) for name, values in times.items()},
        **compared(times["second turn"], times["alone"], CLAIM),
        "at_once_ratio": statistics.median(times["at once"]) / statistics.median(times["alone"]),
        "cold_ratio": statistics.median(times["cold"]) / statistics.median(times["alone"]),
    }


class _Plan:
    """How long everything is, and how the reply is made to be so long."""

    def __init__(self, model: protocol.Loaded, tokens: int) -> None:
        self.thinking = min(THINKING, model.context // 4) if model.reasoning else 0
        self.length = min(tokens, model.context - self.thinking - ANSWER - 200)
        if self.thinking:
            biases = tuple(LogitBias(tag, -math.inf) for tag in (END, END_THINK))
            self.sampling = Sampling(temperature=0, logit_bias=biases)
            self.limits = Limits(max_tokens=self.thinking + ANSWER, think_budget=self.thinking)
        else:
            self.sampling, self.limits = GREEDY, Limits(max_tokens=REPLY)


async def _round(engine: Engine, plan: _Plan, number: int) -> dict[str, Timed]:
    """One conversation. Its beginning is a new one, so that nothing is in the cache."""
    begun = await conversation(engine, plan.length, number)
    found = {"cold": await reply(engine, begun, GREEDY, FIRST_TOKEN)}
    history = await _answered(engine, plan, begun)
    await settled(engine)
    found["second turn"] = await _asked(engine, history, 0)
    alone = []
    for turn in range(ALONE + 1):
        await settled(engine)
        timed = await _asked(engine, history, (turn + 1) % 2)
        if turn % 2:  # the other question only takes the first one's place in the cache
            alone.append(timed)
    found["alone"] = sorted(alone, key=lambda timed: timed.total_s)[len(alone) // 2]
    await settled(engine)
    history = await _answered(engine, plan, begun)
    found["at once"] = await _asked(engine, history, 0)
    return found


async def _answered(engine: Engine, plan: _Plan, begun: list[ChatMessage]) -> list[ChatMessage]:
    """The conversation with the model's reply."""
    answer: list[str] = []

    def on_event(event: protocol.GenerationEvent) -> None:
        if isinstance(event, protocol.Answer):
            answer.append(event.text)

    timed = await reply(engine, begun, plan.sampling, plan.limits, on_event=on_event)
    if timed.done.usage.thinking_tokens < plan.thinking or not answer:
        raise EngineError(
            f"the reply had {timed.done.usage.thinking_tokens} tokens of thinking and no answer"
        )
    return [*begun, ChatMessage("assistant", "".join(answer))]


async def _asked(engine: Engine, history: list[ChatMessage], question: int) -> Timed:
    """The first token of the reply to a short message."""
    return await reply(engine, [*history, ChatMessage("user", QUESTIONS[question])], GREEDY, FIRST_TOKEN)


def _print(found: dict[str, Any]) -> None:
    thinking = found["thinking_tokens"]
    said = f"a reply with {thinking} tokens of thinking" if thinking else "a reply without thinking"
    print(f"{found['model']}: a conversation of {found['conversation_tokens']:,} tokens and {said}")
    for name, seconds in found["median_s"].items():
        print(f"  {name:<12} {seconds * 1000:9.1f} ms, {found['read_tokens'][name]:6,} tokens read")
    print(f"second turn over alone: {shown(found)}")
    print(f"without idle time {found['at_once_ratio']:.2f}, cold {found['cold_ratio']:.1f}")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5)
    found.add_argument("--tokens", type=int, default=3000, help="of the conversation")
    return found.parse_args()


if __name__ == "__main__":
    main()
