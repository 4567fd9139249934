"""A file from a local server: ours, verified, against hf_hub_download and curl, which verify nothing.

    python benchmarks/pull.py [--size MB] [--rounds N] [--folder PATH] [--json]

Claim: at least 0.9 of the speed of the faster of the two, as fast as the machine can, at 125 MB/s (a gigabit
line), and at 125 MB/s with 20 ms until each answer begins. In turns, to the same disk, which is at rest
before. Ours flushes the file to the disk before it says that it is done, the others do not: "flushed" is with
the time that they would need for that.
"""

from __future__ import annotations

import argparse
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from common import compared, print_json, shown

CLAIM = "at least 0.9"
LINES = {"unlimited": (0.0, 0.0), "125 MB/s": (125e6, 0.0), "125 MB/s, 20 ms": (125e6, 0.02)}
WAYS = ("ours", "hf_hub_download", *(["curl"] if shutil.which("curl") else []))
REPOSITORY, NAME = "owner/name", "model.gguf"


# --------------------------------------------------------------------------------------------- one transfer


def ours(url: str, folder: Path, size: int, sha256: str) -> Path:
    """With our own transfer: the file is verified and flushed."""
    from models.fetch.transfer import Wanted, download

    target = folder / NAME
    started = time.perf_counter()
    download(Wanted(url=url, size=size, sha256=sha256, label=NAME), target)
    print(time.perf_counter() - started)
    return target


def hub(url: str, folder: Path) -> Path:
    """With huggingface_hub, nothing cached."""
    endpoint = url.partition(f"/{REPOSITORY}")[0]
    os.environ |= {"HF_ENDPOINT": endpoint, "HF_HOME": str(folder), "HF_HUB_DISABLE_XET": "1"}
    os.environ |= {"HF_HUB_DISABLE_TELEMETRY": "1", "HF_HUB_DISABLE_PROGRESS_BARS": "1"}
    from huggingface_hub import hf_hub_download

    started = time.perf_counter()
    target = hf_hub_download(REPOSITORY, NAME)
    print(time.perf_counter() - started)
    return Path(target).resolve()


def curl(url: str, folder: Path) -> Path:
    """With curl."""
    target = folder / NAME
    started = time.perf_counter()
    subprocess.run(["curl", "-sS", "-o", str(target), url], check=True)
    print(time.perf_counter() - started)
    return target


def child(way: str, url: str, folder: Path, size: int, sha256: str) -> None:
    """Fetch once; print the seconds that it took, those to flush it, and the most memory of this process."""
    import resource

    target = {"ours": lambda: ours(url, folder, size, sha256), "curl": lambda: curl(url, folder)}.get(
        way, lambda: hub(url, folder)
    )()
    started = time.perf_counter()
    descriptor = os.open(target, os.O_RDONLY)
    os.fsync(descriptor)
    os.close(descriptor)
    print(time.perf_counter() - started)
    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024)
    if target.stat().st_size != size:
        sys.exit(f"{target} is not whole")


def once(way: str, url: str, folder: Path, size: int, sha256: str) -> tuple[float, float, int]:
    """(seconds, seconds until flushed, bytes of memory at most) in a process of its own."""
    os.sync()
    with tempfile.TemporaryDirectory(dir=folder) as place:
        command = [sys.executable, __file__, "--child", way, url, place, str(size), sha256]
        environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)}
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment)
    seconds, flush, memory = done.stdout.split()
    return float(seconds), float(seconds) + float(flush), int(memory)


# --------------------------------------------------------------------------------------------- the server


@contextmanager
def server(file: Path, rate: float, latency: float) -> Iterator[str]:
    """The address of the file on a server that runs meanwhile."""
    command = [sys.executable, str(Path(__file__).with_name("pull_server.py")), str(file)]
    command += ["--rate", str(rate), "--latency", str(latency)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{process.stdout.readline().strip()}/{REPOSITORY}/resolve/main/{NAME}"
    finally:
        process.terminate()
        process.wait()
        if process.stdout is not None:
            process.stdout.close()


def measured(file: Path, line: str, rounds: int, size: int, sha256: str) -> dict[str, Any]:
    """Speeds in MB/s, in turns, and the ratios."""
    took: dict[str, list[tuple[float, float, int]]] = {way: [] for way in WAYS}
    with server(file, *LINES[line]) as url:
        for number in range(rounds):
            for way in WAYS if number % 2 else reversed(WAYS):
                took[way].append(once(way, url, file.parent, size, sha256))
    speeds = {way: [size / 1e6 / one[0] for one in took[way]] for way in WAYS}
    flushed = {way: [size / 1e6 / one[1] for one in took[way]] for way in WAYS}
    return {
        "line": line,
        "speeds": speeds,
        "flushed": flushed,
        "memory": max(one[2] for one in took["ours"]),
        "against": {
            way: {
                "as it is": compared(speeds["ours"], speeds[way], CLAIM),
                "flushed": compared(flushed["ours"], flushed[way], CLAIM),
            }
            for way in WAYS[1:]
        },
    }


def tell(found: dict[str, Any]) -> None:
    """For people."""
    print(f"{found['line']}: most memory {found['memory'] / 1e6:.0f} MB")
    for way in WAYS:
        speeds = ", ".join(f"{speed:.0f}" for speed in found["speeds"][way])
        print(f"  {way}: {speeds} MB/s")
    for way, ratios in found["against"].items():
        for kind, ratio in ratios.items():
            print(f"  against {way}, {kind}: {shown(ratio)}")


def main() -> None:
    """Make a file, serve it, fetch it in turns."""
    if sys.argv[1:2] == ["--child"]:
        way, url, folder, size, sha256 = sys.argv[2:]
        child(way, url, Path(folder), int(size), sha256)
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=1000, help="MB")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="on the disk to use")
    parser.add_argument("--line", choices=[*LINES], action="append", help="default: all")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=given.folder) as folder:
        file, digest = Path(folder) / "served", hashlib.sha256()
        with file.open("wb") as writer:
            for _ in range(given.size):
                block = os.urandom(1_000_000)
                digest.update(block)
                writer.write(block)
        size = given.size * 1_000_000
        found = [measured(file, line, given.rounds, size, digest.hexdigest()) for line in given.line or LINES]
    if given.json:
        print_json(found)
        return
    for one in found:
        tell(one)


if __name__ == "__main__":
    main()
