"""Processes that attack: `drive` prepares targets and starts an attacker, which confines itself first.

    python -m tests.localai.confined_attacker drive FOLDER SETTINGS

FOLDER is empty and can be written. Prints a `Found` as JSON. The driver runs as the user that the attacker is
to be, for what it aims at is the driver.
"""

from __future__ import annotations

import mmap
import os
import subprocess
import sys
import threading
import time
from pathlib import Path

import msgspec

from localai.confine import attacks, landlock, linux
from localai.confine.attacks import kernel
from localai.confine.report import OFF, LayerName, Profile, Sandbox


class Settings(msgspec.Struct):
    """How an attacker is confined."""

    layers: tuple[LayerName, ...] | None
    """None: not at all. What is not named is left out, as on a system that has not got it."""
    early: bool = False
    """Also attack from a thread that is older than the sandbox."""
    landlock_abi: int = landlock.NEWEST
    profile: Profile = "cpu"
    act: str = "attack"
    """Or "work", or "enter 32 bit"."""


class Found(msgspec.Struct):
    """What came of it."""

    sandbox: Sandbox = OFF
    outcomes: tuple[attacks.Outcome, ...] = ()
    works: dict[str, str] = {}
    changed: list[str] = []
    """Paths whose content, rights or existence differ after it, as the driver sees them."""
    seconds: float = 0.0
    """What the attacks took."""
    exit_code: int = 0


def drive(folder: Path, settings: Settings) -> Found:
    """Attack this process with another that is confined as `settings` say."""
    with attacks.prepare(folder, traceable=True) as targets:
        before = attacks.state(folder)
        words = [msgspec.json.encode(part).decode() for part in (settings, targets)]
        attacker = subprocess.run(
            [sys.executable, "-m", "tests.localai.confined_attacker", "attack", *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            pass_fds=(targets.descriptor,),
        )
        after = attacks.state(folder)
    if attacker.returncode or not attacker.stdout:
        sys.stderr.write(attacker.stderr.decode())
        return Found(exit_code=attacker.returncode)
    found = msgspec.json.decode(attacker.stdout, type=Found)
    found.changed = [*attacks.changed(before, after)]
    return found


def attack(settings: Settings, targets: attacks.Targets) -> Found:
    """Confine this process, then do what the settings say."""
    early = attacks.EarlyThread() if settings.early else None
    imported = _imports if settings.act == "work" else lambda: None
    found = Found()
    if settings.layers is not None:
        found.sandbox = linux.enter(
            settings.profile,
            [targets.model],
            imported,
            layers=settings.layers,
            landlock_abi=settings.landlock_abi,
        )
    began = time.perf_counter()
    if settings.act == "work":
        imported()
        found.works = _work(targets)
    elif settings.act == "enter 32 bit":
        found.works = {"process": str(kernel.enter_32_bit() == os.getpid())}
    else:
        found.outcomes = attacks.run(targets, early=early)
    found.seconds = time.perf_counter() - began
    return found


def _imports() -> None:
    import numpy

    numpy.zeros(1)


def _work(targets: attacks.Targets) -> dict[str, str]:
    """What a worker must be able to do."""
    import numpy

    with Path(targets.model).open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, prot=mmap.PROT_READ)
    began = time.monotonic()
    results: list[int] = []
    threads = [threading.Thread(target=results.append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    square = numpy.random.default_rng(0).standard_normal((128, 128))
    return {
        "map": str(len(mapped[:])),
        "memmap": str(int(numpy.memmap(targets.model, dtype=numpy.uint8, mode="r").sum())),
        "product": str(bool(numpy.isfinite(square @ square).all())),
        "threads": str(sorted(results)),
        "random": str(len(os.getrandom(16))),
        "clock": str(time.monotonic() >= began),
        "no new privileges": str("NoNewPrivs:\t1" in Path("/proc/self/status").read_text()),
    }


def main() -> None:
    """As the docstring of this file says; `attack` is what `drive` starts."""
    kind, first, second = sys.argv[1:]
    if kind == "drive":
        found = drive(Path(first), msgspec.json.decode(second, type=Settings))
    else:
        found = attack(
            msgspec.json.decode(first, type=Settings), msgspec.json.decode(second, type=attacks.Targets)
        )
    sys.stdout.write(msgspec.json.encode(found).decode())
    sys.stdout.flush()
    os._exit(0)  # a thread may still wait


if __name__ == "__main__":
    main()
