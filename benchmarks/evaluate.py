"""`localai evaluate` against llama-perplexity of the same llama.cpp commit: figures, speed, memory, disk.

Both evaluate the same file on the same text, in turns: perplexity alone, and with `--reference` KL
divergence too, for which llama-perplexity runs twice and puts all logits of the reference on the disk in
between. Counted is the time from the first chunk to the last, not the loading. The claims: figures within
1e-3, at least 0.9 of its speed, and no bytes on the disk but those of the result.

Usage: python benchmarks/evaluate.py MODEL --llama-perplexity PATH [--reference BASE] [--chunks 4] ...
"""

from __future__ import annotations

import argparse
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

from common import compared, parser, print_json, resolve, run, shown

from localai import hardware, paths
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.evaluation.report import Report
from localai.evaluation.run import Candidate, Plan
from localai.evaluation.run import run as evaluate
from localai.evaluation.texts import EVALUATION, Text, built_in
from models.store import Resolved

CONTEXT = 512
CLAIM = "at least 0.9"
_FIGURES = {
    "perplexity": r"(?:Mean PPL\(Q\) +:|PPL =) +([\d.]+)",
    "kl_mean": r"Mean +KLD: +([\d.]+)",
    "kl_p99": r"99\.0% +KLD: +([\d.]+)",
    "top1_agreement_percent": r"Same top p: +([\d.]+)",
}
_BEGIN = re.compile(r"^(\d+)\.(\d+)\.(\d+)\.(\d+) I .*(?:calculating|computing) .*over", re.MULTILINE)


class Turn(NamedTuple):
    """One evaluation by one of the two."""

    tokens_per_s: float
    memory: int
    """Bytes, at most."""
    disk: int
    """Bytes written beside the results."""
    figures: dict[str, float]


def main() -> None:
    arguments = _arguments()
    model, base = resolve(arguments.model), arguments.reference and resolve(arguments.reference)
    found = {"alone": measure(model, None, arguments)}
    if base:
        found["with a reference"] = measure(model, base, arguments)
    if arguments.json:
        print_json(found)
        return
    for name, result in found.items():
        _print(f"{model.name}, {name}", result)


def measure(model: Resolved, base: Resolved | None, arguments: argparse.Namespace) -> dict[str, Any]:
    """Both in turns."""
    ours, theirs = [], []
    for number in range(arguments.rounds):
        for side in ("theirs", "ours") if number % 2 == 0 else ("ours", "theirs"):
            if side == "ours":
                ours.append(_ours(model, base, arguments))
            else:
                theirs.append(_theirs(model, base, arguments))
    rates = [[turn.tokens_per_s for turn in turns] for turns in (ours, theirs)]
    return {
        "tokens_per_s": statistics.median(rates[0]),
        "llama_perplexity_tokens_per_s": statistics.median(rates[1]),
        "speed": compared(rates[0], rates[1], CLAIM),
        "memory": [max(turn.memory for turn in turns) for turns in (ours, theirs)],
        "disk": [max(turn.disk for turn in turns) for turns in (ours, theirs)],
        "figures": {
            name: [ours[0].figures[name], value, ours[0].figures[name] / value - 1 if value else 0.0]
            for name, value in theirs[0].figures.items()
        },
    }


# --------------------------------------------------------------------------------------------------- ours


def _ours(model: Resolved, base: Resolved | None, arguments: argparse.Namespace) -> Turn:
    with tempfile.TemporaryDirectory() as home:
        text, before = built_in(EVALUATION), os.environ.get("LOCALAI_HOME")
        os.environ["LOCALAI_HOME"] = home  # it shows what is written, and nothing is taken from there
        try:
            report = run(_evaluated(model, base, text, arguments))
            kept = sum(path.stat().st_size for path in paths.data_dir().glob("evaluations/*"))
            written = sum(path.stat().st_size for path in Path(home).rglob("*") if path.is_file()) - kept
        finally:
            os.environ.pop("LOCALAI_HOME") if before is None else os.environ.update(LOCALAI_HOME=before)
    figures = {"perplexity": report.perplexity}
    if report.kl is not None and report.top1_agreement is not None:
        figures |= {"kl_mean": report.kl.mean, "kl_p99": report.kl.p99}
        figures["top1_agreement_percent"] = report.top1_agreement * 100
    return Turn(report.tokens_per_s or 0.0, report.memory, written, figures)


async def _evaluated(
    model: Resolved, base: Resolved | None, text: Text, arguments: argparse.Namespace
) -> Report:
    engine = Engine()
    plan = Plan(text=text, context=CONTEXT, chunks=arguments.chunks)
    options = LoadOptions(threads=arguments.threads)
    try:
        reference = None if base is None else _candidate(base)
        return await evaluate(engine, _candidate(model), reference, options, plan)
    finally:
        await engine.close()


def _candidate(model: Resolved) -> Candidate:
    return Candidate(model.path, model.name, model.header())


# ------------------------------------------------------------------------------------------------- theirs


def _theirs(model: Resolved, base: Resolved | None, arguments: argparse.Namespace) -> Turn:
    with tempfile.TemporaryDirectory() as folder:
        logits, text = Path(folder, "base.kld"), Path(folder, "text.txt")
        text.write_text(built_in(EVALUATION).content + "\n", encoding="utf-8")
        tokens = arguments.chunks * CONTEXT
        if base is None:
            out, seconds, memory = _run(model, text, [], arguments)
            return Turn(tokens / seconds, memory, 0, _figures(out))
        words = ["--kl-divergence-base", str(logits)]
        _, first, one = _run(base, text, words, arguments)
        out, second, other = _run(model, text, [*words, "--kl-divergence"], arguments)
        return Turn(tokens / (first + second), max(one, other), logits.stat().st_size, _figures(out))


def _run(
    model: Resolved, text: Path, words: list[str], arguments: argparse.Namespace
) -> tuple[str, float, int]:
    """(what it says, seconds from its first chunk on, bytes of memory at most)."""
    threads = str(arguments.threads or hardware.physical_cores())
    tool = Path(arguments.llama_perplexity)
    command = [str(tool), "-m", str(model.path), "-f", str(text), "-t", threads, *words]
    command += [
        "-c",
        str(CONTEXT),
        "-b",
        str(CONTEXT),
        "-ub",
        str(CONTEXT),
        "--chunks",
        str(arguments.chunks),
    ]
    environment = {**os.environ, "LD_LIBRARY_PATH": str(tool.parent)}
    with tempfile.TemporaryFile() as output:
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=output, stderr=output, env=environment)
        _, status, used = os.wait4(process.pid, 0)
        wall = time.perf_counter() - started
        process.returncode = os.waitstatus_to_exitcode(status)
        output.seek(0)
        said = output.read().decode("utf-8", "replace")
    began = _BEGIN.search(said)
    if process.returncode or began is None:
        sys.exit(f"{tool} failed:\n{said[-2000:]}")
    minutes, seconds, milli, micro = map(int, began.groups())
    return said, wall - (60 * minutes + seconds + milli / 1e3 + micro / 1e6), used.ru_maxrss * 1024


def _figures(said: str) -> dict[str, float]:
    found = {name: re.search(pattern, said) for name, pattern in _FIGURES.items()}
    return {name: float(match[1]) for name, match in found.items() if match is not None}


# ------------------------------------------------------------------------------------------- command line


def _arguments() -> argparse.Namespace:
    options = parser(__doc__, rounds=3)
    options.add_argument("--llama-perplexity", metavar="PATH", required=True)
    options.add_argument("--reference", metavar="BASE")
    options.add_argument("--chunks", type=int, default=4)
    return options.parse_args()


def _print(title: str, found: dict[str, Any]) -> None:
    print(title)
    rates = f"{found['tokens_per_s']:.0f} and {found['llama_perplexity_tokens_per_s']:.0f} tokens/s"
    print(f"  speed: {rates}; {shown(found['speed'])}")
    for name in ("memory", "disk"):
        print(f"  {name}: {found[name][0] / 1e6:.1f} and {found[name][1] / 1e6:.1f} MB")
    for name, (ours, theirs, apart) in found["figures"].items():
        print(f"  {name}: {ours:.6f} and {theirs:.6f} ({apart:+.1e})")


if __name__ == "__main__":
    main()
