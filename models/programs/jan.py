"""What Jan holds: a model.yml for each model, which says where in Jan's data folder its GGUF file is.

    settings.json                             "data_folder", if it is not the usual one
    data/llamacpp/models/ID/model.yml         model_path, counted from the data folder, or absolute

Versions before 2025 had GGUF files below data/models, ~/jan/models or ~/cortexcpp/models.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

import msgspec
import yaml  # type: ignore[import-untyped]

from models.parts import MOST, files_of, number_of
from models.programs import reading
from models.programs.found import Found, Surroundings

NAME: Final = "Jan"

_SHA256 = re.compile(r"[0-9a-f]{64}")
_MAX_YAML: Final = 64 << 10
_FIELD = re.compile(r"(?m)^(model_path|model_sha256|model_size_bytes):[ \t]+([^\s\[{&*!|>].{0,4095})$")
"""What is not text on one line is not looked at: to parse any YAML can take seconds."""


class _Settings(msgspec.Struct):
    data_folder: str = ""


class _Model(msgspec.Struct):
    """Of a model.yml; numbers are still text there."""

    model_path: str = ""
    model_sha256: str = ""
    model_size_bytes: str = ""


def find(here: Surroundings) -> Iterator[Found]:
    """The models in Jan's data folder, and those of earlier versions."""
    root = here.named("JAN_DATA_ROOT") or here.data
    settings = [root / "Jan/settings.json", root / "jan.ai.app/settings.json"]
    if not here.is_mac and not here.is_windows:
        settings.append(here.config / "Jan/settings.json")
    said = (reading.json_of(path, _Settings) for path in settings)
    chosen = [here.named("JAN_DATA_FOLDER"), *(here.folder(one.data_folder) for one in said if one)]
    data = [folder for folder in dict.fromkeys([*chosen, root / "Jan/data"]) if folder is not None]
    for folder in data:
        yield from _described(folder)
    for folder in [*data, here.home / "jan", here.home / "cortexcpp"]:
        yield from _of_earlier_versions(folder / "models")


def _of_earlier_versions(models: Path) -> Iterator[Found]:
    """A model was called as its folder."""

    def called(path: Path) -> str:
        place = path.parent.relative_to(models).as_posix()
        return path.name if place in (".", "imported") else place

    return reading.models_among(reading.files_below(models, reading.Budget()), NAME, called)


def _described(data: Path) -> Iterator[Found]:
    models = data / "llamacpp/models"
    for path in reading.files_below(models, reading.Budget()):
        if path.name == "model.yml" and path.parent != models:
            model = _read(path)
            file = _file(data, model.model_path) if model else None
            if model is not None and file is not None:
                yield _found(model, file, path.parent.relative_to(models).as_posix())


def _found(model: _Model, file: Path, called: str) -> Found:
    number = number_of(file.name)
    count = number[1] if number and number[0] == 1 and number[1] <= MOST else 0
    parts = [path for path in files_of(file) if reading.is_regular(path)] if count else [file]
    sha256 = model.model_sha256.lower()
    known = sha256 if not count and _SHA256.fullmatch(sha256) else ""
    found = reading.model_of(parts, count, NAME, called, lambda _: known)
    size = model.model_size_bytes
    if not count and size.isdecimal() and len(size) < 20 and int(size) != found.size:
        problem = f"its file has {found.size} bytes and not {int(size)}"
        return msgspec.structs.replace(found, problem=problem)
    return found


def _file(data: Path, text: str) -> Path | None:
    """The GGUF file that a model.yml names; None if it is none, or elsewhere but for an absolute path."""
    if not text or "\0" in text or len(text) > 4096:
        return None
    path = data / text.replace("\\", "/") if not Path(text).is_absolute() else Path(text)
    if not Path(text).is_absolute() and not reading.inside(path.parent, data):
        return None
    return path if path.name.lower().endswith(".gguf") and reading.is_regular(path) else None


def _read(path: Path) -> _Model | None:
    """What a model.yml says, as Jan writes it: a line for each field. It need not be YAML as a whole."""
    text = (reading.content(path, _MAX_YAML) or b"").decode("utf-8", "replace")
    fields = {key: _scalar(value) for key, value in _FIELD.findall(text)}
    return _Model(**fields) if fields else None


def _scalar(text: str) -> str:
    """The value of a field, without its quotes; "" if it is no text on one line."""
    with suppress(yaml.YAMLError, ValueError, RecursionError):
        value = yaml.load(text, Loader=yaml.BaseLoader)  # text only: nothing else is made of it
        return value if isinstance(value, str) else ""
    return ""
