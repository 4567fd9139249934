"""Models that were removed and can be brought back: their manifests, until `prune`.

removed/<UTC time>-<8 hex digits>.json     the manifest as it was; its files stay in `blobs`
"""

from __future__ import annotations

import datetime
import re
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec

from localai.paths import private_dir
from models import manifest
from models.files import sync_folder
from models.manifest import Manifest

FOLDER: Final = "removed"
_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ"
_NAME: Final = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-[0-9a-f]{8}\.json")


class Removed(msgspec.Struct, frozen=True):
    """A model that was removed."""

    manifest: Manifest
    when: str
    """In UTC, as ISO 8601."""
    path: Path
    """Of its manifest."""


def set_aside(root: Path, path: Path) -> None:
    """Move the manifest at `path` to those of removed models. Only a rename: done or not done."""
    folder = private_dir(root / FOLDER)
    now = datetime.datetime.now(datetime.UTC).strftime(_FORMAT)
    path.replace(folder / f"{now}-{uuid.uuid4().hex[:8]}.json")
    sync_folder(folder)
    sync_folder(path.parent)


def paths(root: Path) -> list[Path]:
    """The manifests of removed models, the oldest first, also damaged ones."""
    return sorted(path for path in (root / FOLDER).glob("*.json") if _NAME.fullmatch(path.name))


def all_of(root: Path) -> Iterator[Removed]:
    """The removed models, the oldest first; damaged manifests are left out."""
    for path in paths(root):
        match = _NAME.fullmatch(path.name)
        try:
            known = manifest.decode(manifest.raw(path))
            when = datetime.datetime.strptime(match[1] if match else "", _FORMAT)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            continue
        yield Removed(known, when.replace(tzinfo=datetime.UTC).isoformat(), path)
