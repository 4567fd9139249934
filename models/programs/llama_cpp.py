"""What llama.cpp has fetched: a flat folder of GGUF files, and since 2026 a cache laid out as the hub's."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Final

from models.programs import hub_cache, reading
from models.programs.found import Found, Surroundings

NAME: Final = "llama.cpp"


def find(here: Surroundings) -> Iterator[Found]:
    """The models in LLAMA_CACHE and in the usual folder."""
    for folder in dict.fromkeys([here.named("LLAMA_CACHE"), here.cache / "llama.cpp"]):
        if folder is not None:
            yield from _in_folder(folder)


def _in_folder(folder: Path) -> Iterator[Found]:
    files = reading.files_below(folder, reading.Budget(), depth=0)
    yield from reading.models_among(files, NAME, lambda path: path.name)
    yield from hub_cache.models_in(folder, NAME)
