"""Make .venv and install localai into it: what `make chat` and `make test` run first.

Only the standard library. llama.cpp is compiled here, for this processor, which takes minutes: this says so
and shows how far it is. Everything that pip prints goes to .venv/install.log.

Usage: python install.py [EXTRA]      (EXTRA: test)
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
import tomllib
import venv
from collections.abc import Iterator
from pathlib import Path
from typing import TextIO

ROOT = Path(__file__).resolve().parent
VENV = ROOT / ".venv"
PYTHON = VENV / ("Scripts/python.exe" if sys.platform == "win32" else "bin/python")
LOG = VENV / "install.log"
COMPILED = re.compile(r"^\s*\[(\d+)/(\d+)\]")
CMAKE_ARGS = "-DLLAVA_BUILD=OFF"
"""Parsers for images and audio are left out: R1 reads text. The environment's CMAKE_ARGS come behind it."""


def main() -> None:
    """Install; ends with exit code 1 and one line if something is missing."""
    extra = sys.argv[1] if len(sys.argv) > 1 else ""
    check_tools()
    make_venv()
    engine = next(d for d in dependencies() if d.startswith("llama-cpp-python"))
    if not installed(engine):
        say("Compiling llama.cpp for this processor. This is done once and takes about 5 minutes on 2 cores.")
        # Without the cache: a wheel in it may be for another processor, or without the GPU that is asked for.
        run_pip("Compiling llama.cpp", "install", "--verbose", "--no-cache-dir", engine)
    say("Installing localai" + (f" with its {extra} tools" if extra else ""))
    run_pip("Installing", "install", "--editable", f"{ROOT}[{extra}]" if extra else str(ROOT))
    (VENV / f".installed{'-' + extra if extra else ''}").touch()


def check_tools() -> None:
    """A C++ compiler must be there before minutes are spent on finding out that none is."""
    compilers = [os.environ.get("CXX", ""), "c++", "g++", "clang++", "cl"]
    if not any(name and shutil.which(name.split()[0]) for name in compilers):
        fail("there is no C++ compiler", "Debian: apt install g++; macOS: xcode-select --install")


def make_venv() -> None:
    """Create .venv unless it is there."""
    if PYTHON.exists() and not installed("pip>=1"):
        shutil.rmtree(VENV)
    if PYTHON.exists():
        return
    say(f"Making {VENV.name} with Python {sys.version_info.major}.{sys.version_info.minor}")
    try:
        venv.create(VENV, with_pip=True)
    except (subprocess.CalledProcessError, OSError) as error:
        shutil.rmtree(VENV, ignore_errors=True)
        fail(f"the virtual environment could not be made: {error}", "Debian: apt install python3-venv")


def dependencies() -> list[str]:
    """The run-time dependencies in pyproject.toml."""
    with (ROOT / "pyproject.toml").open("rb") as file:
        found: list[str] = tomllib.load(file)["project"]["dependencies"]
    return found


def installed(requirement: str) -> bool:
    """Whether .venv has what `requirement` asks for."""
    code = (
        "import importlib.metadata, sys\n"
        "from pip._vendor.packaging.requirements import Requirement\n"
        f"wanted = Requirement({requirement!r})\n"
        "sys.exit(importlib.metadata.version(wanted.name) not in wanted.specifier)"
    )
    return subprocess.run([PYTHON, "-c", code], check=False, capture_output=True).returncode == 0


def run_pip(label: str, *arguments: str) -> None:
    """Run pip, its words into the log, its progress onto the screen."""
    cmake = f"{CMAKE_ARGS} {os.environ.get('CMAKE_ARGS', '')}".strip()
    environment = {**os.environ, "CMAKE_ARGS": cmake, "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    command = [str(PYTHON), "-m", "pip", *arguments]
    with LOG.open("a", encoding="utf-8") as log:
        log.write(f"\n$ {' '.join(command)}\n")
        process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        show(label, follow(process, log))
    if process.wait() != 0:
        errors = [line for line in LOG.read_text(errors="replace").splitlines() if "error" in line.lower()]
        print("\n".join(errors[-5:]), file=sys.stderr)
        fail(f"pip could not finish: {label.lower()}", f"All it said is in {LOG}")


def follow(process: subprocess.Popen[str], log: TextIO) -> Iterator[str]:
    """The lines of a process, which are written to `log` too."""
    assert process.stdout is not None
    for line in process.stdout:
        log.write(line)
        log.flush()
        yield line


def show(label: str, lines: Iterator[str]) -> None:
    """Keep one line of progress up to date on a terminal; print a line every 10% elsewhere."""
    terminal, started, tenth = sys.stdout.isatty(), time.monotonic(), -1
    for line in lines:
        minutes, seconds = divmod(int(time.monotonic() - started), 60)
        found = COMPILED.match(line)
        done, total = (int(found[1]), int(found[2])) if found else (0, 0)
        if terminal:
            what = f"{done} of {total} files" if found else " ".join(line.split())
            text = f"  {label}, {minutes}:{seconds:02} - {what}"
            print(f"\r\x1b[K{text[: shutil.get_terminal_size().columns - 1]}", end="", flush=True)
        elif found and done * 10 // total > tenth:
            tenth = done * 10 // total
            print(f"  {label}, {minutes}:{seconds:02} - {done} of {total} files", flush=True)
    if terminal:
        print("\r\x1b[K", end="", flush=True)


def say(text: str) -> None:
    """A line for the user."""
    print(f"* {text}", flush=True)


def fail(what: str, todo: str) -> None:
    """End with one line."""
    sys.exit(f"install: error: {what}. {todo}.")


if __name__ == "__main__":
    if sys.version_info < (3, 11):  # noqa: UP036 - said before pip would say it at length
        sys.exit("install: error: Python 3.11 or newer is needed. Try: make PYTHON=python3.12 chat")
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("\ninstall: interrupted. Run it again to go on")
