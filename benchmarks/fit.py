"""What `localai models fit` says a model takes, against what a worker with it really takes. Linux only.

Each model is loaded with several contexts, reads some text, generates some tokens, and is looked at, as
worker_memory.py says. Models are the installed ones, the files that are named, and files of R1's shapes and
types without real weights (shapes.py), the larger ones with fewer layers. The claim: every estimate is within
8 % of what is needed. `--speed` also compares the tokens per second that it says to those of the worker: an
estimate, without a claim; other programs on the machine make it worse.

Usage: python benchmarks/fit.py [MODEL ...] [--context 2048,8192,16384] [--quick] [--speed] [--json]
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from common import print_json, resolve
from shapes import write
from worker_memory import FILL, Real, measure

from localai.engine.settings import KvType, LoadOptions
from localai.errors import LocalAIError
from models import need, speed
from models.header import Header
from models.machine import this_machine
from models.parts import read_whole
from models.store import Store

CLAIM = 0.08
SYNTHETIC = [
    *(("r1:1.5b", kind, 0) for kind in ("Q4_K_M", "Q8_0", "Q4_0", "IQ4_XS")),
    *(("r1:7b", "Q4_K_M", 14), ("r1:8b", "Q4_K_M", 16), ("r1-0528:8b", "Q6_K", 18), ("r1:14b", "Q4_K_M", 16)),
]
"""Names in the catalogue, types, and layers (0: all)."""


class Case(NamedTuple):
    """A model, loaded in one way."""

    name: str
    path: Path
    context: int
    kv_type: KvType


def main() -> None:
    arguments = _arguments()
    if sys.platform != "linux":
        sys.exit("this can be measured on Linux only")
    machine = this_machine(measure=True)
    found = []
    with tempfile.TemporaryDirectory(prefix="localai-", dir=arguments.folder) as folder:
        for case in _cases(arguments, Path(folder)):
            header = read_whole(case.path)
            options = LoadOptions(context=case.context, kv_type=case.kv_type, gpu_layers=0)
            try:
                real = asyncio.run(measure(case.path, options, arguments.fill))
            except (LocalAIError, PermissionError) as error:
                sys.exit(f"{case.name}: {error}")
            rate = speed.estimate(header, 2 * min(case.context, arguments.fill), case.kv_type, machine)
            found.append(_result(case, header, real, rate))
            if not arguments.json:
                _print(found[-1], arguments.speed)
    worst = max(found, key=lambda one: abs(one["ratio"] - 1))
    if arguments.json:
        print_json({"cases": found, "worst": worst, "claim": f"within {CLAIM:.0%}"})
        return
    verdict = "kept" if abs(worst["ratio"] - 1) <= CLAIM else "BROKEN"
    print(f"worst: {worst['ratio']:.3f} ({worst['name']}); claim: within {CLAIM:.0%}: {verdict}")


def _cases(arguments: argparse.Namespace, folder: Path) -> Iterator[Case]:
    """All models in all ways. What was made for one is deleted before the next is made."""
    named = [(str(one), resolve(one).path) for one in arguments.models]
    store = Store()
    named += (
        [] if named else [(one.name, store.path(one)) for one in store.manifests() if not store.fault(one)]
    )
    for name, path in named:
        yield from _ways(name, path, arguments)
    for name, kind, layers in [] if arguments.models else SYNTHETIC[: 1 if arguments.quick else None]:
        path = write(folder / "model.gguf", name, kind, layers=2 if arguments.quick else layers)
        yield from _ways(f"{name} {kind}" + (f", {layers} layers" if layers else ""), path, arguments)
        path.unlink()


def _ways(name: str, path: Path, arguments: argparse.Namespace) -> Iterator[Case]:
    trained = need.trained(read_whole(path))
    contexts = sorted({min(trained, int(one)) for one in arguments.context.split(",")})
    for context in contexts:
        yield Case(name, path, context, "f16")
    if not arguments.quick:
        yield Case(name, path, contexts[-1], "q8_0")


def _result(case: Case, header: Header, real: Real, rate: speed.Speed) -> dict[str, Any]:
    estimate = need.need(header, case.context, case.kv_type)
    return {
        "name": case.name,
        "context": case.context,
        "kv_type": case.kv_type,
        "estimate": estimate.total,
        "needed": real.needed,
        "ratio": estimate.total / real.needed,
        "resident": real.resident,
        "tokens_per_s": real.tokens_per_s,
        "estimated_tokens_per_s": rate.tokens_per_s,
    }


def _print(one: dict[str, Any], with_speed: bool) -> None:
    line = (
        f"{one['name']:<28} {one['context']:>6} {one['kv_type']:<5}"
        f" estimate {one['estimate'] / 1e6:8.1f} MB, needed {one['needed'] / 1e6:8.1f} MB: {one['ratio']:.3f}"
        f" (resident {one['resident'] / 1e6:.1f} MB)"
    )
    if with_speed:
        line += f"; {one['tokens_per_s']:.1f} tokens/s, estimate {one['estimated_tokens_per_s']:.1f}"
    print(line, flush=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("models", nargs="*", metavar="MODEL")
    parser.add_argument("--context", default="2048,8192,16384", metavar="TOKENS,...")
    parser.add_argument("--fill", type=int, default=FILL, metavar="TOKENS")
    parser.add_argument(
        "--folder", type=Path, help="for the files that are made: gigabytes that take no disk"
    )
    parser.add_argument("--quick", action="store_true", help="one small model of R1's shapes")
    parser.add_argument("--speed", action="store_true")
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
