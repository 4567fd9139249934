"""When a model was last used: an empty file of its digest, whose time of change tells.

It is the user's own and not the store's, which may be a folder that a team shares and only reads.
"""

from __future__ import annotations

import datetime
import re
from contextlib import suppress
from pathlib import Path
from typing import Final

from localai import paths
from localai.paths import private_dir

_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def mark(sha256: str) -> None:
    """The model with that digest is used now. Never fails: nothing depends on it."""
    if not _DIGEST.fullmatch(sha256):
        return
    with suppress(OSError):
        path = _folder() / sha256
        private_dir(path.parent)
        path.touch(mode=0o600)


def last_used(sha256: str) -> datetime.datetime | None:
    """When, in UTC; None: never, as far as is known."""
    try:
        return datetime.datetime.fromtimestamp((_folder() / sha256).stat().st_mtime, datetime.UTC)
    except (OSError, OverflowError, ValueError):
        return None


def forget(sha256: str) -> None:
    """The model with that digest is gone."""
    with suppress(OSError):
        (_folder() / sha256).unlink(missing_ok=True)


def _folder() -> Path:
    return paths.data_dir() / "used"
