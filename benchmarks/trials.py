"""Files given to the engine one after the other, in a process that may die of them and is then replaced."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from localai import processes

if TYPE_CHECKING:
    from benchmarks.mutants import Mutants

PATIENCE_S = 20.0
"""What takes longer has hung."""


class Trials:
    """A worker that tries files at `path`, and its successors."""

    def __init__(self, path: Path, *, unchecked: bool = False) -> None:
        script = Path(__file__).with_name("hostile_worker.py")
        self._command = [sys.executable, str(script), *(["--unchecked"] if unchecked else [])]
        self._path = path

    def run(self, mutants: Mutants, numbers: Iterable[int]) -> Iterator[tuple[int, str, float]]:
        """(number, what came of it, seconds) of each."""
        left = list(numbers)
        while left:
            yield from self._some(mutants, left)

    def _some(self, mutants: Mutants, left: list[int]) -> Iterator[tuple[int, str, float]]:
        """Until none is left, or the worker has ended."""
        environment = {**processes.worker_environment(), "PYTHONPATH": str(Path(__file__).parents[1])}
        with (
            tempfile.TemporaryFile("w+") as words,
            subprocess.Popen(
                self._command,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=words,
                text=True,
                env=environment,
            ) as worker,
        ):
            while left:
                number = left.pop(0)
                mutant = mutants.make(number)
                self._path.write_bytes(mutant.head + mutant.body)
                started = time.perf_counter()
                answer = _asked(worker, self._path)
                seconds = time.perf_counter() - started
                if answer:
                    yield number, json.loads(answer)[0], seconds
                    continue
                code = worker.wait()
                words.seek(0)
                why = "it hung" if seconds >= PATIENCE_S else processes.describe_exit(code, words.read())
                yield number, f"ended: {why}", seconds
                return
            assert worker.stdin is not None
            worker.stdin.close()


def _asked(worker: subprocess.Popen[str], path: Path) -> str:
    """The worker's answer; empty if it ended, or had to be ended."""
    assert worker.stdin is not None
    assert worker.stdout is not None
    worker.stdin.write(f"{path}\n")
    worker.stdin.flush()
    ready, _, _ = select.select([worker.stdout], [], [], PATIENCE_S)
    if not ready:
        worker.kill()
        return ""
    return worker.stdout.readline()
