"""Where the program keeps things.

Every path is below one folder per purpose, as the platform has it (XDG on Linux). `LOCALAI_HOME` moves all
of them below one folder, which is what tests and portable installations use.
"""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def _folder(kind: str) -> Path:
    if home := os.environ.get("LOCALAI_HOME"):
        return Path(home).expanduser().resolve() / kind
    return platformdirs.user_data_path("localai", appauthor=False)


def data_dir() -> Path:
    """Models and conversations."""
    return _folder("data")


def models_dir() -> Path:
    """The model store: blobs, references, incoming transfers."""
    return data_dir() / "models"


def history_path() -> Path:
    """The database of conversations."""
    return data_dir() / "conversations.sqlite"


def private_dir(path: Path) -> Path:
    """Create `path` and its parents, readable by the user alone."""
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    return path
