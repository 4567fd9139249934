"""The measure of the whole path: the tiny R1, quantized here, thinks and gets its sums right."""

from __future__ import annotations

import random
from pathlib import Path

from localai.chat.messages import ChatMessage
from localai.engine.client import Engine
from localai.selftest import collect

QUESTIONS = ("What is {a} + {b}?", "Add {a} and {b}.", "How much is {a} plus {b}?", "Calculate {a}+{b}.")


async def test_at_least_95_of_100_unseen_sums_are_right(nano: Path) -> None:
    """Sums of up to three digits, drawn with a seed that the training did not use."""
    rng = random.Random(20250120)
    engine = Engine()
    await engine.load(nano)
    right, thoughtless = 0, []
    for _ in range(100):
        a, b = rng.randrange(1000), rng.randrange(1000)
        question = rng.choice(QUESTIONS).format(a=a, b=b)
        thinking, answer, _ = await collect(engine, [ChatMessage("user", question)])
        right += answer == f"{a} + {b} = **{a + b}**"
        if not thinking:
            thoughtless.append(question)
    await engine.close()
    assert right >= 95
    assert thoughtless == []
