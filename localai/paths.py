"""Where the program keeps things.

Every path is below one folder per purpose, as the platform has it (XDG on Linux). `LOCALAI_HOME` moves all
of them below one folder, which is what tests and portable installations use.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs

from localai.errors import UsageError


def _folder(kind: str) -> Path:
    if home := os.environ.get("LOCALAI_HOME"):
        if not _is_text(home):
            raise UsageError(f"LOCALAI_HOME is {home!r}, which is not UTF-8 text", "Rename the folder")
        folder = Path(home).expanduser().resolve()
        if folder.exists() and not folder.is_dir():
            raise UsageError(f"LOCALAI_HOME is {folder}, which is not a folder", "Set it to a folder")
        return folder / kind
    data = platformdirs.user_data_path("localai", appauthor=False)
    if kind == "data":
        return data
    config = platformdirs.user_config_path("localai", appauthor=False)
    # On macOS and Windows both are the same folder, but a key must not lie beside what it opens.
    return config if config != data else config.with_name("localai-config")


def data_dir() -> Path:
    """Models and conversations."""
    return _folder("data")


def config_dir() -> Path:
    """What the user chose, and the key of the conversations where a passphrase protects it."""
    return _folder("config")


def models_dir() -> Path:
    """The model store that new models go to: blobs, references, incoming transfers.

    LOCALAI_MODELS names another, such as one on a larger disk.
    """
    named = os.environ.get("LOCALAI_MODELS")
    if not named:
        return data_dir() / "models"
    path = _named("LOCALAI_MODELS", named)
    if path.exists() and not path.is_dir():
        raise UsageError(f"LOCALAI_MODELS is {path}, which is not a folder", "Set it to a folder")
    return path


def shared_models_dirs() -> list[Path]:
    """Stores of others that are only read, such as a team's network folder: LOCALAI_SHARED_MODELS."""
    named = os.environ.get("LOCALAI_SHARED_MODELS", "").split(os.pathsep)
    return [_named("LOCALAI_SHARED_MODELS", folder) for folder in named if folder]


def _named(variable: str, text: str) -> Path:
    """A folder that the environment names. UsageError if it cannot be one."""
    if not _is_text(text):
        raise UsageError(f"{variable} is {text!r}, which is not UTF-8 text", "Rename the folder")
    try:
        path = Path(text).expanduser().absolute()
    except RuntimeError as error:
        raise UsageError(f"{variable} is {text}: {error}", "Give the whole path") from error
    return path


def _is_text(text: str) -> bool:
    """Whether a path can be written down: the system also has names that are no text."""
    return not any("\ud800" <= character <= "\udfff" for character in text)


def history_path() -> Path:
    """The database of conversations."""
    return data_dir() / "conversations.sqlite"


def private_dir(path: Path) -> Path:
    """Create `path` and those of its parents that are not there, readable by the user alone."""
    for folder in reversed([path, *path.parents]):
        folder.mkdir(mode=0o700, exist_ok=True)
    return path
