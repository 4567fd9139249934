"""What the hostile checkpoints share: a copy of r1-nano's folder in which one file is another."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Make, Scene

QUANTIZE = "quantize {input} --type Q8_0 --name made"
WEIGHTS = "model.safetensors"
Edit = Callable[[dict[str, Any]], object]


def folder(scene: Scene) -> Path:
    """The checkpoint, as it should be; the weights are a second link to those that all cases share."""
    made = scene.files / "checkpoint"
    made.mkdir()
    for path in scene.checkpoint.iterdir():
        if path.name == WEIGHTS:
            os.link(path, made / path.name)
        else:
            (made / path.name).write_bytes(path.read_bytes())
    return made


def replaced(name: str, data: bytes | str | None) -> Make:
    """With another content of one file; None: without it."""

    def make(scene: Scene) -> Path:
        made = folder(scene)
        (made / name).unlink(missing_ok=True)
        if data is not None:
            (made / name).write_bytes(data.encode() if isinstance(data, str) else data)
        return made

    return make


def edited(name: str, *edits: Edit) -> Make:
    """With one JSON file edited."""

    def make(scene: Scene) -> Path:
        made = folder(scene)
        value = json.loads((made / name).read_bytes())
        for edit in edits:
            edit(value)
        (made / name).write_text(json.dumps(value))
        return made

    return make


def odd(name: str, kind: str) -> Make:
    """With a pipe, a folder, a link or a huge hole in the place of one file."""

    def make(scene: Scene) -> Path:
        made = folder(scene)
        path = made / name
        path.unlink(missing_ok=True)
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind.isdigit():
            path.touch()
            os.truncate(path, int(kind))
        else:
            path.symlink_to(kind)
        return made

    return make
