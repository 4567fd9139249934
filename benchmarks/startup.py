"""How long one waits: `localai --help`, and the first token of `localai ask`, beside a bare Python.

Each is a fresh process, in turns. The claims: `localai --help` within 0.35 s; the first token within 1.5 s of
the start of the process, once the model is in the disk cache. As the machines differ, the ratio to
`python -c pass` is printed too.

Usage: python benchmarks/startup.py [MODEL] [--rounds 9] [--json]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from pathlib import Path

from localai.errors import LocalAIError
from models.store import Store

LOCALAI = str(Path(sys.executable).with_name("localai"))
HELP_LIMIT_S = 0.35
FIRST_TOKEN_LIMIT_S = 1.5


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("model", nargs="?", default="smollm2:135m")
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    try:
        Store().resolve(arguments.model)
    except LocalAIError as error:
        sys.exit(str(error))
    times: dict[str, list[float]] = {"python -c pass": [], "localai --help": [], "first token": []}
    for round_number in range(arguments.rounds + 1):
        sample = (
            wall_s([sys.executable, "-c", "pass"]),
            wall_s([LOCALAI, "--help"]),
            first_token_s(arguments.model),
        )
        if round_number:  # the first round only warms the disk cache
            for values, value in zip(times.values(), sample, strict=True):
                values.append(value)
    report(times, as_json=arguments.json)


def wall_s(command: list[str]) -> float:
    """Seconds from start to end of a command."""
    started = time.perf_counter()
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stdin=subprocess.DEVNULL)
    return time.perf_counter() - started


def first_token_s(model: str) -> float:
    """Seconds from the start of `localai ask` to its first token, as it tells."""
    command = [LOCALAI, "ask", model, "Say hello.", "--json", "--temperature", "0", "--max-tokens", "8"]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL)
    return float(json.loads(done.stdout)["timings"]["first_token_s"])


def report(times: dict[str, list[float]], *, as_json: bool) -> None:
    medians = {name: statistics.median(values) for name, values in times.items()}
    python = medians["python -c pass"]
    if as_json:
        print(
            json.dumps({"median_s": medians, "ratio": {n: m / python for n, m in medians.items()}}, indent=2)
        )
        return
    limits = {"localai --help": HELP_LIMIT_S, "first token": FIRST_TOKEN_LIMIT_S}
    for name, median in medians.items():
        limit = f"   limit {limits[name]:.2f} s" if name in limits else ""
        spread = f"({min(times[name]):.3f} to {max(times[name]):.3f})"
        print(f"{name:<16} median {median:.3f} s {spread}, {median / python:5.1f} x python{limit}")


if __name__ == "__main__":
    main()
