"""Models that other programs on this machine already hold: found by looking where each keeps them.

One file for each program. Nothing is run, written or asked of a network, and nothing found is trusted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec

from localai.errors import UsageError
from models.header import printable
from models.programs import gpt4all, hub_cache, jan, llama_cpp, lm_studio, ollama
from models.programs.found import Found, Surroundings, is_text

__all__ = ["PROGRAMS", "Found", "find", "program"]

PROGRAMS: Final[dict[str, Callable[[Surroundings], Iterator[Found]]]] = {
    one.NAME: one.find for one in (ollama, lm_studio, llama_cpp, gpt4all, jan, hub_cache)
}
"""How to find a program's models, by its name for people. Where two mean the same file, the first has it."""


def find(
    environ: Mapping[str, str] | None = None,
    home: Path | None = None,
    platform: str = sys.platform,
    *,
    root: Path = Path("/"),
) -> list[Found]:
    """The models of all programs, each file once. Never fails: what cannot be read is not there.

    The answer depends on the arguments and the disk alone; their defaults are this process's. `root` is where
    folders of the system begin.
    """
    here = Surroundings(
        environ=os.environ if environ is None else environ,
        home=Path.home() if home is None else home,
        platform=platform,
        root=root,
    )
    found = (one for search in PROGRAMS.values() for one in search(here))
    return list(_each_once(found))


def program(text: str) -> str:
    """The program that the user means by `text`, in any case and also cut short. UsageError if none."""
    wanted = _plain(text)
    if wanted in ("hub", "hubcache", "hf", "hfcache"):
        return hub_cache.NAME
    meant = [name for name in PROGRAMS if _plain(name).startswith(wanted)]
    if wanted and len(meant) == 1:
        return meant[0]
    raise UsageError(f"{printable(text)!r} is none of the programs", f"There are: {', '.join(PROGRAMS)}.")


def _plain(name: str) -> str:
    return "".join(char for char in name.lower() if char.isalnum())


def _each_once(found: Iterator[Found]) -> Iterator[Found]:
    """Several names may lead to one file: one without a problem is kept. A path must be text."""
    seen: set[object] = set()
    for one in sorted(found, key=lambda one: bool(one.problem)):
        identity = _identity(one)
        if identity not in seen and all(is_text(str(path)) for path in one.paths):
            seen.add(identity)
            yield msgspec.structs.replace(one, called=printable(one.called))


def _identity(found: Found) -> object:
    """The same for two that are the same file, whatever leads to it."""
    try:
        status = found.paths[0].stat()
    except OSError:
        return found.program, found.called
    return status.st_dev, status.st_ino
