"""How fast each type is made, as a share of Q8_0's rate, and how long that makes a large model take.

Quantizes rows of random weights in one thread, the types in turns, and divides by what Q8_0 does in the same
round. With `--weights` (70.55e9 for DeepSeek-R1-Distill-Llama-70B) and `--cores` it prints the hours that the
weights alone take on this machine: the plan for a large model in docs/quantize.md was made with it.

Usage: python benchmarks/quantize_rates.py [--types Q4_K Q6_K ...] [--rounds 3] [--weights 70.55e9] [--cores
N] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time

import numpy as np

from localai import hardware
from localai.engine import quants
from models.ggml_types import TENSOR_TYPES

COLUMNS = 4096
BASE = "Q8_0"
TYPES = [
    "Q8_0",
    "Q6_K",
    "Q5_K",
    "Q5_1",
    "Q5_0",
    "Q4_K",
    "IQ4_NL",
    "IQ4_XS",
    "Q4_1",
    "Q4_0",
    "Q3_K",
    "IQ3_S",
    "IQ3_XXS",
    "Q2_K",
    "IQ2_S",
    "IQ2_XS",
    "IQ2_XXS",
    "IQ1_M",
    "IQ1_S",
    "TQ2_0",
    "TQ1_0",
]


def main() -> None:
    arguments = _arguments()
    numbers = {block.name: number for number, block in TENSOR_TYPES.items()}
    random = np.random.default_rng(0)
    rows = random.standard_normal((16, COLUMNS), np.float32) * np.float32(0.03)
    importance = random.random(COLUMNS, np.float32) + np.float32(0.1)
    names = list(dict.fromkeys([BASE, *arguments.types]))
    quants.prepare({numbers[name] for name in names})
    rates: dict[str, list[float]] = {name: [] for name in names}
    for _ in range(arguments.rounds):
        for name in names:
            rates[name].append(_rate(numbers[name], rows, importance))
    found = {
        name: {
            "share": statistics.median(a / b for a, b in zip(measured, rates[BASE], strict=True)),
            "weights_per_s": max(measured),
            "hours": arguments.weights / max(measured) / arguments.cores / 3600,
        }
        for name, measured in rates.items()
    }
    if arguments.json:
        print(json.dumps(found, indent=2))
        return
    print(f"{arguments.weights / 1e9:.1f} billion weights, {arguments.cores} cores")
    for name, each in found.items():
        print(
            f"{name:8} {each['share']:6.3f} of {BASE}, {each['weights_per_s'] / 1e6:7.1f} million/s, "
            f"{each['hours']:6.2f} h"
        )


def _rate(number: int, rows: np.ndarray, importance: np.ndarray) -> float:
    """Weights per second of this thread's own time, over at least a fifth of a second."""
    needed = importance if quants.requires_importance(number) else None
    count, started = 0, time.thread_time()
    while (passed := time.thread_time() - started) < 0.2:
        quants.quantize_rows(number, rows, needed)
        count += rows.size
    return count / passed


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--types", nargs="+", default=TYPES, choices=TYPES)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--weights", type=float, default=70.55e9)
    parser.add_argument("--cores", type=int, default=hardware.usable_cores())
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
