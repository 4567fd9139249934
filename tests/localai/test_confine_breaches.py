"""Ways around the sandbox that attacking it found, and places where it broke what works without it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from localai import frames, processes
from models.catalog import builtin_checkpoint
from quantize.protocol import Confined, Event, Failed, Job, decode_event, pack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what confines workers there is Linux's")
ROOT = Path(__file__).parents[2]


def quantize_worker(job: Job, *, without: str) -> list[Event]:
    """What the worker for `job` tells an app that lets it go on; the kernel lacks the calls `without`."""
    command = [sys.executable, "-m", "tests.localai.without_calls", without]
    worker = subprocess.Popen(
        [*command, *processes.worker_command("quantize.worker")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=processes.confined_environment(),
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker, worker.stdin, worker.stdout as sent:  # it ends by itself when it has told all
        os.write(worker.stdin.fileno(), pack(job))
        return [decode_event(body) for body in iter(lambda: frames.read(sent), None)]  # type: ignore[arg-type]


def test_a_quantize_worker_below_full_reads_nothing_if_full_is_required() -> None:
    """The app ends it, too, but it would have read the source by then."""
    job = Job(source=str(builtin_checkpoint("r1-nano")), sandbox="require")
    told, *rest = quantize_worker(job, without="landlock_create_ruleset")
    assert isinstance(told, Confined)
    assert told.sandbox.level == "partial"
    assert [event.kind for event in rest if isinstance(event, Failed)] == ["SandboxError"]
    assert len(rest) == 1
