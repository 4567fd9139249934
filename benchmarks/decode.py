"""Reading and generating, as the app receives it, against llama-bench and against a bare loop, as ratios.

llama-bench (`--llama-bench PATH`; llama.cpp's own measure) runs pp512 and tg128 in a process of its own;
so do we, through worker and pipe, as `localai bench` does; in turns, with the same file, threads and
settings. The claims: at least 0.97 of its pp512 and 0.99 of its tg128.

"bare" is a greedy loop over llama.cpp's functions that does nothing but evaluate and draw. We evaluate and
draw as many tokens after the same prompt, greedily and with the sampling that the model recommends, which
costs more. The claim: at least 0.97.

Usage: python benchmarks/decode.py [MODEL...] [--llama-bench PATH] [--rounds 5] [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

from common import GREEDY, bare, compared, loaded, parser, print_json, prompt_text, reply, resolve, run, shown

from localai import bench, hardware
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from models.header import Header
from models.store import Resolved

CONTEXT = 2048
"""Tokens of context beside the bare loop; any R1 has more."""
PROMPT = "Write a long story about a lighthouse keeper, the sea, and a letter that arrives too late."
CLAIMS = {"pp": "at least 0.97", "tg": "at least 0.99"}
BARE_CLAIM = "at least 0.97"


def main() -> None:
    arguments = _arguments()
    models = [resolve(name) for name in arguments.models]
    found = [run(measure(model, arguments)) for model in models]
    if arguments.json:
        print_json({"threads": arguments.threads, "models": found})
        return
    for result in found:
        _print(result)


async def measure(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """All figures of one model."""
    found: dict[str, Any] = {"model": model.name}
    if arguments.llama_bench is not None:
        found["llama-bench"] = await against_llama_bench(model, arguments)
    found["bare"] = await against_bare(model, arguments)
    return found


# -------------------------------------------------------------------------------------------- llama-bench


async def against_llama_bench(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """The tests by their names, each compared."""
    header = model.header()
    ours: dict[str, list[float]] = {}
    theirs: dict[str, list[float]] = {}
    for number in range(arguments.rounds):
        for side in ("theirs", "ours") if number % 2 == 0 else ("ours", "theirs"):
            if side == "ours":
                _append(ours, await _our_rates(model, header, arguments))
            else:
                _append(theirs, _llama_bench(model.path, arguments))
    return {
        test: {
            "tokens_per_s": statistics.median(rates),
            "llama_bench_tokens_per_s": statistics.median(theirs[test]),
            "mean_ratio": statistics.fmean(rates) / statistics.fmean(theirs[test]),
            **compared(rates, theirs[test], CLAIMS[test[:2]]),
        }
        for test, rates in ours.items()
    }


def _append(found: dict[str, list[float]], rates: dict[str, float]) -> None:
    for test, rate in rates.items():
        found.setdefault(test, []).append(rate)


async def _our_rates(model: Resolved, header: Header, arguments: argparse.Namespace) -> dict[str, float]:
    """Mean tokens per second of each test, in a fresh worker."""
    plan = bench.Plan(prompt=arguments.prompt, generate=arguments.tokens, repetitions=arguments.repetitions)
    engine = Engine()
    try:
        options = LoadOptions(threads=arguments.threads)
        report = await bench.run(
            engine, model.path, header, options, plan, lambda test, number, of: None, name=model.name
        )
    finally:
        await engine.close()
    return {test.test: test.tokens_per_s for test in report.tests}


def _llama_bench(path: Path, arguments: argparse.Namespace) -> dict[str, float]:
    """The same from llama-bench."""
    program = Path(arguments.llama_bench)
    command = [str(program), "-m", str(path), "-t", str(arguments.threads), "-r", str(arguments.repetitions)]
    command += ["-p", str(arguments.prompt), "-n", str(arguments.tokens), "-o", "json"]
    libraries = os.pathsep.join(filter(None, [str(program.parent), os.environ.get("LD_LIBRARY_PATH")]))
    try:
        done = subprocess.run(
            command,
            check=True,
            capture_output=True,
            stdin=subprocess.DEVNULL,
            env={**os.environ, "LD_LIBRARY_PATH": libraries},
        )
    except OSError as error:
        sys.exit(f"{program} cannot be run: {error.strerror}")
    except subprocess.CalledProcessError as error:
        sys.exit(f"{program} failed: {error.stderr.decode(errors='replace').strip()[-500:]}")
    return {_name(test): test["avg_ts"] for test in json.loads(done.stdout)}


def _name(test: dict[str, Any]) -> str:
    return f"pp{test['n_prompt']}" if test["n_prompt"] else f"tg{test['n_gen']}"


# ----------------------------------------------------------------------------------------------- the loop


async def against_bare(model: Resolved, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both ways to draw tokens, each compared with the bare loop."""
    given = {"path": str(model.path), "threads": arguments.threads}
    tokens: list[int] = bare("tokens", text=prompt_text(model.header(), PROMPT), **given)["tokens"]
    rates: dict[str, list[float]] = {"greedy": [], "recommended": [], "bare": []}
    for number in range(arguments.rounds):
        for side in list(rates) if number % 2 == 0 else list(rates)[::-1]:
            if side == "bare":
                rate = float(bare("rate", tokens=tokens, count=arguments.tokens, **given)["tokens_per_s"])
            else:
                rate = await _our_rate(model, tokens, GREEDY if side == "greedy" else Sampling(), arguments)
            rates[side].append(rate)
    theirs = rates.pop("bare")
    return {
        "tokens_per_s": statistics.median(theirs),
        **{
            mode: {"tokens_per_s": statistics.median(ours), **compared(ours, theirs, BARE_CLAIM)}
            for mode, ours in rates.items()
        },
    }


async def _our_rate(
    model: Resolved, tokens: list[int], sampling: Sampling, arguments: argparse.Namespace
) -> float:
    """Tokens per second from request to end; the last token of the prompt is the first evaluation."""
    options = LoadOptions(threads=arguments.threads, context=CONTEXT)
    async with loaded(model, options) as engine:
        warm_up = Limits(max_tokens=min(arguments.tokens, 16))
        await reply(engine, tokens, sampling, warm_up, ignore_end=True)
        limits = Limits(max_tokens=arguments.tokens)
        timed = await reply(engine, tokens, sampling, limits, ignore_end=True)
    return timed.done.usage.completion_tokens / timed.total_s


# ------------------------------------------------------------------------------------------------- output


def _print(result: dict[str, Any]) -> None:
    print(result["model"])
    for test, found in result.get("llama-bench", {}).items():
        rates = f"{found['tokens_per_s']:7.1f} of {found['llama_bench_tokens_per_s']:7.1f} tokens/s"
        print(f"  {test:<12}{rates}, {shown(found)}, by means {found['mean_ratio']:.3f}")
    for mode in ("greedy", "recommended"):
        found = result["bare"][mode]
        rates = f"{found['tokens_per_s']:7.1f} of {result['bare']['tokens_per_s']:7.1f} tokens/s"
        print(f"  {mode:<12}{rates}, {shown(found)}")


def _arguments() -> argparse.Namespace:
    found = parser(__doc__, rounds=5, models=True)
    found.set_defaults(threads=hardware.physical_cores())
    found.add_argument("--llama-bench", metavar="PATH", help="llama.cpp's program")
    found.add_argument("--repetitions", type=int, default=3, help="of each test of llama-bench in a round")
    found.add_argument("--prompt", type=int, default=512)
    found.add_argument("--tokens", type=int, default=128)
    return found.parse_args()


if __name__ == "__main__":
    main()
