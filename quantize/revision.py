"""Which commit of its publisher's repository a checkpoint folder is."""

from __future__ import annotations

import re
from pathlib import Path

_COMMIT = re.compile(r"[0-9a-f]{40}")


def revision_of(folder: Path) -> str:
    """The commit of the checkpoint in `folder` as 40 hexadecimal digits, or "" where nothing tells it.

    The hub's cache keeps snapshots in folders that are called like the commit; a download into a folder of
    one's own leaves a note beside it, whose first line is the commit.
    """
    resolved = folder.resolve()
    if resolved.parent.name == "snapshots" and _COMMIT.fullmatch(resolved.name):
        return resolved.name
    note = resolved / ".cache" / "huggingface" / "download" / "config.json.metadata"
    try:
        with note.open(encoding="ascii") as lines:
            first = lines.readline(100).strip()
    except (OSError, UnicodeDecodeError):
        return ""
    return first if _COMMIT.fullmatch(first) else ""


def repository_of(folder: Path) -> str:
    """The name of the repository, without its owner, whose snapshot in the hub's cache `folder` is; or ""."""
    cache = folder.resolve().parents
    if len(cache) < 2 or cache[0].name != "snapshots" or not cache[1].name.startswith("models--"):
        return ""
    return cache[1].name.rpartition("--")[2]
