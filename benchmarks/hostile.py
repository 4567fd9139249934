"""Mutated GGUF headers, all of them through our reader, and those that pass through the engine.

Each mutant has a number, which is its seed (`mutants.py`). The claims: the reader takes at most 1 s and
200 MB for any of them and says nothing but an error of ours; and no mutant that it lets through makes
llama.cpp abort or hang. With --unchecked, all go to the engine as they are: what llama.cpp does without us.

Usage: python benchmarks/hostile.py [--first 0] [--count 10000] [--unchecked] [--json]
"""

from __future__ import annotations

import argparse
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from common import print_json
from mutants import Mutants
from trials import Trials

from localai.errors import ModelFileError, UnsupportedModel
from models.catalog import builtin_checkpoint
from models.gguf import check_supported, read_header

CLAIMS = {"read_s": 1.0, "read_bytes": 200_000_000, "ended": 0, "unexpected": 0}
"""At most so much of each."""
_SHOWN = 20
_MAKE_MODEL = """
import sys
from pathlib import Path
from quantize.client import Wanted, run
from quantize.protocol import Job
run(Job(source=sys.argv[1]), [Wanted("Q8_0", Path(sys.argv[2]))], load=False)
"""
"""In a process of its own, where `quantize` is not the benchmark beside this file."""
_SCALE = 1 if sys.platform == "darwin" else 1024


def main() -> None:
    arguments = _arguments()
    with tempfile.TemporaryDirectory(prefix="localai-hostile-") as folder:
        found = measure(Path(folder), range(arguments.first, arguments.first + arguments.count), arguments)
    if arguments.json:
        print_json(found)
    else:
        _print(found)
    if not found["held"]:
        sys.exit(1)


def measure(folder: Path, numbers: range, arguments: argparse.Namespace) -> dict[str, Any]:
    """What became of the mutants with these numbers."""
    model = folder / "nano.gguf"
    source = str(builtin_checkpoint("r1-nano"))
    subprocess.run([sys.executable, "-P", "-c", _MAKE_MODEL, source, str(model)], check=True)
    mutants, path = Mutants(model), folder / "mutant.gguf"
    read = _read_all(mutants, path, numbers)
    passed = read.pop("passed")
    tried = numbers if arguments.unchecked else passed
    engine = _try_all(mutants, path, tried, unchecked=arguments.unchecked)
    figures = {**read, **engine}
    return {
        "mutants": len(numbers),
        "passed": len(passed),
        **figures,
        "claims": CLAIMS,
        "held": all(figures[name] <= most for name, most in CLAIMS.items()),
    }


def _read_all(mutants: Mutants, path: Path, numbers: Iterable[int]) -> dict[str, Any]:
    """The numbers of those that pass, the longest time, and the memory that reading them took at most."""
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    passed, refused, slowest = [], Counter[str](), 0.0
    for number in numbers:
        head, size, _ = mutants.head(number)
        with path.open("wb") as file:
            file.write(head)
            file.truncate(len(head) + size)
        started = time.process_time()
        try:
            check_supported(read_header(path), path)
            passed.append(number)
        except (ModelFileError, UnsupportedModel) as error:
            refused[type(error).__name__] += 1
        slowest = max(slowest, time.process_time() - started)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * _SCALE
    return {"passed": passed, "refused": dict(refused), "read_s": slowest, "read_bytes": grown}


def _try_all(mutants: Mutants, path: Path, numbers: Iterable[int], *, unchecked: bool) -> dict[str, Any]:
    """What the engine says to each; a worker that ends is replaced."""
    said, ended, slowest = Counter[str](), [], 0.0
    for number, what, seconds in Trials(path, unchecked=unchecked).run(mutants, numbers):
        kind = what.partition(":")[0]
        said[kind] += 1
        slowest = max(slowest, seconds)
        if kind == "ended" or kind.startswith("unexpected"):
            ended.append([number, mutants.head(number)[2], what.removeprefix("ended: ")])
    return {
        "engine": dict(said),
        "engine_s": slowest,
        "ended": said["ended"],
        "unexpected": sum(count for kind, count in said.items() if kind.startswith("unexpected")),
        "of_these": ended[:_SHOWN],
    }


def _print(found: dict[str, Any]) -> None:
    print(f"{found['mutants']:,} mutants; {found['passed']:,} pass our checks, refused: {found['refused']}")
    print(f"reading: at most {found['read_s']:.3f} s and {found['read_bytes'] / 1e6:.0f} MB")
    print(f"the engine: {found['engine']}, at most {found['engine_s']:.1f} s for one")
    for number, faults, what in found["of_these"]:
        print(f"  {number} ({faults}): {what}")
    print(f"claims, at most: {found['claims']}: {'held' if found['held'] else 'NOT held'}")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--first", type=int, default=0, help="the number of the first mutant")
    parser.add_argument("--count", type=int, default=10_000)
    parser.add_argument(
        "--unchecked", action="store_true", help="let the engine have all, without our checks"
    )
    parser.add_argument("--json", action="store_true")
    return parser.parse_args()


if __name__ == "__main__":
    main()
