"""Sums for r1-nano, the tiny model that comes with the program and can do nothing else."""

from __future__ import annotations

import random
from typing import Final

COUNT: Final = 100
SEED: Final = 840
"""With it, no pair of numbers was in the model's training, in either order: see ORIGIN.md."""
WORDINGS: Final = (
    "What is {a} + {b}?",
    "{a} + {b}",
    "Add {a} and {b}.",
    "Please compute {a} + {b}.",
    "How much is {a} plus {b}?",
    "Sum {a} and {b}",
    "What do {a} and {b} make together?",
    "Calculate {a}+{b}.",
)
"""Those that it was trained on."""


def drawn() -> list[tuple[str, int, int]]:
    """Each sum in words, and its two numbers.

    One of them has three digits, each tenth time four; the other has two or three.
    """
    chance = random.Random(SEED)
    found = []
    for number in range(COUNT):
        digits = 4 if number % 10 == 9 else 3
        a = chance.randrange(10 ** (digits - 1), 10**digits)
        b = chance.randrange(10, 1000)
        if chance.randrange(2):
            a, b = b, a
        found.append((WORDINGS[number % len(WORDINGS)].format(a=a, b=b), a, b))
    return found
