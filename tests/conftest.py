"""What all tests share: a home of their own, and the real tiny model, quantized once."""

from __future__ import annotations

import os
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest
from hypothesis import settings

from models.catalog import builtin_checkpoint
from quantize.client import Wanted, run
from quantize.protocol import Job

LONGEST_ID = 60
# The same examples each time: what fails, fails for everybody. HYPOTHESIS_PROFILE=search looks for new ones.
settings.register_profile("same", derandomize=True, deadline=None)
settings.register_profile("search", max_examples=2000, deadline=None)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


CORES = sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []
"""That all workers of pytest share; none where the system does not tell."""


def pytest_configure() -> None:
    """Give each of several workers its own share of the cores.

    A model computes with a thread for each core, which waits for the others by spinning: two of them on the
    same cores take more than twice as long as one after the other.
    """
    worker = os.environ.get("PYTEST_XDIST_WORKER", "")
    if worker and CORES:
        share = max(1, len(CORES) // int(os.environ["PYTEST_XDIST_WORKER_COUNT"]))
        first = int(worker.removeprefix("gw")) * share % len(CORES)
        os.sched_setaffinity(0, CORES[first : first + share])


@pytest.fixture
def all_cores() -> Iterator[None]:
    """For what is to be seen with as many threads as a user has."""
    before = os.sched_getaffinity(0) if CORES else set()
    if CORES:
        os.sched_setaffinity(0, CORES)
    yield
    if CORES:
        os.sched_setaffinity(0, before)


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A long value is called by its argument: some are random, and every worker must see the same names."""
    return argname if isinstance(val, str | bytes) and len(val) > LONGEST_ID else None


@pytest.fixture(scope="session")
def homes(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """Folders to live in. Not from `mktemp`, which looks through all that it has made before."""
    folder = tmp_path_factory.mktemp("homes")
    return (folder / f"{number}" for number in count())


@pytest.fixture(autouse=True)
def home(homes: Iterator[Path], monkeypatch: pytest.MonkeyPatch) -> Path:
    """A LOCALAI_HOME of the test's own: nothing touches the user's models and conversations."""
    folder = next(homes)
    folder.mkdir()
    monkeypatch.setenv("LOCALAI_HOME", str(folder))
    return folder


@pytest.fixture(scope="session")
def nano(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r1-nano at Q8_0: a real model that reasons about sums."""
    output = tmp_path_factory.mktemp("nano") / "r1-nano-Q8_0.gguf"
    run(Job(source=str(builtin_checkpoint("r1-nano"))), [Wanted("Q8_0", output)], load=False)
    return output
