"""The commands behind the claims run, and print the ratios they promise. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(name: str, *words: str) -> Any:
    command = [sys.executable, str(BENCHMARKS / name), *words, "--json"]
    return json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def test_decode(nano: Path) -> None:
    found = run("decode.py", str(nano), "--rounds", "1", "--tokens", "16", "--threads", "1")
    for mode in ("greedy", "recommended"):
        assert found[mode]["ratio"] > 0
        assert len(found[mode]["ratios"]) == 1


def test_startup(nano: Path) -> None:
    found = run("startup.py", str(nano), "--rounds", "1")
    assert found["ratio"]["python -c pass"] == 1
    assert found["ratio"]["first token"] > found["ratio"]["localai --help"] / 10


def test_every_benchmark_is_described() -> None:
    described = (BENCHMARKS / "README.md").read_text()
    assert all(f"benchmarks/{path.name}" in described for path in BENCHMARKS.glob("*.py"))


def test_without_a_model_there_is_one_line() -> None:
    command = [sys.executable, str(BENCHMARKS / "decode.py"), "smollm2:135m"]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "smollm2:135m is not installed. Install it with: localai models pull smollm2:135m\n"
