"""What LM Studio holds: models/PUBLISHER/MODEL/FILE.gguf below its own folder, or where its settings say.

Its own folder is what the file .lmstudio-home-pointer in the home says, or one of two usual ones.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from models.programs import reading
from models.programs.checkpoints import checkpoint_in
from models.programs.found import Found, Surroundings

NAME: Final = "LM Studio"


class _Settings(msgspec.Struct, rename="camel"):
    downloads_folder: str = ""


def find(here: Surroundings) -> Iterator[Found]:
    """The models in all folders that LM Studio may use."""
    pointer = reading.content(here.home / ".lmstudio-home-pointer", 8192) or b""
    named = here.folder(pointer.decode("utf-8", "replace").strip())
    homes = [named, here.home / ".lmstudio", here.home / ".cache/lm-studio"]
    settings = [*(home / "settings.json" for home in homes if home), here.config / "LM Studio/settings.json"]
    said = (reading.json_of(path, _Settings) for path in settings)
    chosen = [here.folder(one.downloads_folder) for one in said if one]
    for folder in dict.fromkeys([*chosen, *(home / "models" for home in homes if home)]):
        if folder is not None:
            yield from _in_folder(folder)


def _in_folder(folder: Path) -> Iterator[Found]:
    files = list(reading.files_below(folder, reading.Budget()))
    yield from reading.models_among(files, NAME, lambda path: path.relative_to(folder).as_posix())
    for place, inside in itertools.groupby(files, lambda path: path.parent):
        names = {path.name for path in inside}
        if checkpoint := checkpoint_in(place, names, NAME, place.relative_to(folder).as_posix()):
            yield checkpoint
