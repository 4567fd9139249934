"""Models that were removed or replaced, and can be brought back: their manifests, until `prune`.

    removed/<UTC time>-<8 hex digits>-<name>.json     the manifest as it was; its files stay in `blobs`

The name of the model has "+" for ":". A manifest that cannot be read, such as one of a later version, is
set aside and brought back like any other.
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
from models.files import sync_folder, write_atomic
from models.manifest import Manifest
from models.names import is_name

FOLDER: Final = "removed"
_FORMAT: Final = "%Y%m%dT%H%M%S.%fZ"
_NAME: Final = re.compile(r"(\d{8}T\d{6}\.\d{6}Z)-[0-9a-f]{8}-([a-z0-9._+-]{1,200})\.json")


class Removed(msgspec.Struct, frozen=True):
    """A model that was removed."""

    manifest: Manifest
    when: str
    """In UTC, as ISO 8601."""
    path: Path
    """Of its manifest."""


def set_aside(root: Path, path: Path, name: str) -> Path:
    """Move the manifest at `path` to those of removed models; where it is then. Only a rename."""
    folder = private_dir(root / FOLDER)
    target = folder / _new_name(name)
    path.replace(target)
    sync_folder(folder)
    sync_folder(path.parent)
    return target


def keep(root: Path, data: bytes, name: str, scratch: Path) -> None:
    """Write down what the manifest of `name` was, which is about to be another one."""
    folder = private_dir(root / FOLDER)
    write_atomic(folder / _new_name(name), data, scratch)


def _new_name(name: str) -> str:
    now = datetime.datetime.now(datetime.UTC).strftime(_FORMAT)
    return f"{now}-{uuid.uuid4().hex[:8]}-{name.replace(':', '+')}.json"


def paths(root: Path) -> list[Path]:
    """The manifests of removed models, the oldest first, also damaged ones."""
    return sorted(path for path in (root / FOLDER).glob("*.json") if _NAME.fullmatch(path.name))


def name_of(path: Path) -> str:
    """The name of the model whose manifest was set aside as `path`; "" if it can be none."""
    match = _NAME.fullmatch(path.name)
    name = match[2].replace("+", ":") if match else ""
    return name if is_name(name) else ""


def all_of(root: Path) -> Iterator[Removed]:
    """The removed models, the oldest first; those whose manifests cannot be read are left out."""
    for path in paths(root):
        match = _NAME.fullmatch(path.name)
        try:
            known = manifest.decode(manifest.raw(path))
            when = datetime.datetime.strptime(match[1] if match else "", _FORMAT)
        except (OSError, ValueError, RecursionError, msgspec.MsgspecError):
            continue
        if known.name == name_of(path):
            yield Removed(known, when.replace(tzinfo=datetime.UTC).isoformat(), path)
