"""What GPT4All holds: GGUF files in and below the folder of its settings, or in the usual ones.

The settings are an INI file as Qt writes it: nomic.ai/GPT4All.ini, `modelPath` in the section General.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

from models.programs import reading
from models.programs.found import Found, Surroundings

NAME: Final = "GPT4All"

_ESCAPE = re.compile(r"\\(?:x([0-9a-fA-F]{1,4})|(.))")


def find(here: Surroundings) -> Iterator[Found]:
    """The models of the application and of its Python package."""
    config = here.of_platform("APPDATA", ".config", "XDG_CONFIG_HOME", ".config")
    ini = (reading.content(config / "nomic.ai/GPT4All.ini") or b"").decode("utf-8", "replace")
    usual = here.local_data / "nomic.ai/GPT4All"
    for folder in dict.fromkeys([here.folder(model_path(ini)), usual, here.home / ".cache/gpt4all"]):
        if folder is not None:
            files = reading.files_below(folder, reading.Budget())
            yield from reading.models_among(files, NAME, lambda path: path.name)


def model_path(ini: str) -> str:
    """The value of `modelPath`, or of what it was called before, in an INI file of Qt's; "" if not there."""
    section, values = "general", dict[str, str]()
    for line in ini.splitlines():
        if line.startswith("["):
            section = line.strip(" []").lower()
        elif section == "general" and "=" in line:
            key, _, value = line.partition("=")
            values.setdefault(key.strip(), _unescaped(value.strip()))
    return values.get("modelPath") or values.get("modelPaths") or ""


def _unescaped(value: str) -> str:
    """As Qt reads it: quotes go, \\x and up to four digits are a character, and so is \\ and another."""
    if len(value) >= 2 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return _ESCAPE.sub(lambda match: chr(int(match[1], 16)) if match[1] else match[2], value)
