"""A hostile store of models, as a team's folder or a USB stick may bring it: manifests, pins, blobs, links.

Each stands beside a model whose manifest is as it should be.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Case, Make, Scene

LIST = "models list"
GOOD: dict[str, Any] = {
    "name": "bad",
    "sha256": "0" * 64,
    "size": 4,
    "title": "Bad",
    "architecture": "qwen2",
    "file_type": "Q8_0",
    "parameters": 1,
    "context_trained": 1,
    "license": "mit",
    "reasoning": True,
    "source": {"kind": "file", "path": "/x.gguf"},
    "added": "2026-01-01T00:00:00+00:00",
}


def _write(scene: Scene, name: str, value: object) -> Path:
    path = scene.models / "refs" / f"{name}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def manifest(value: object = None, **fields: Any) -> Make:
    """A manifest "bad" beside "good", whose file is there."""

    def make(scene: Scene) -> Path:
        blob = scene.models / "blobs" / f"sha256-{'1' * 64}"
        blob.parent.mkdir(parents=True)
        os.link(scene.nano, blob)
        _write(scene, "good", GOOD | {"name": "good", "sha256": "1" * 64, "size": scene.nano.stat().st_size})
        return _write(scene, "bad", GOOD | fields if value is None else value)

    return make


def with_blob(kind: str, **fields: Any) -> Make:
    """A manifest "bad" whose blob is no plain file."""

    def make(scene: Scene) -> Path:
        path = manifest(**fields)(scene)
        blob = scene.models / "blobs" / f"sha256-{'0' * 64}"
        if kind == "pipe":
            os.mkfifo(blob)
        elif kind == "folder":
            blob.mkdir()
        else:
            blob.symlink_to(blob.name if kind == "loop" else scene.root / "home" / ".bashrc")
        return path

    return make


def odd(edit: Callable[[Path], object]) -> Make:
    """What stands in the place of the manifest "bad" is no file."""

    def make(scene: Scene) -> Path:
        path = manifest()(scene)
        path.unlink()
        edit(path)
        return path

    return make


def beside(name: str, content: bytes) -> Make:
    """A file of the store beside the manifests."""

    def make(scene: Scene) -> Path:
        manifest()(scene)
        path = scene.models / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return path

    return make


def listed(name: str, make: Make, says: str = r"good.*bad|bad.*good") -> Case:
    """The list still has the good one, and says that the other is damaged."""
    return Case(name, make, LIST, says, code=0)


DEEP = b'{"name":' * 100_000
SHOW = "models show bad"
REMOVED = "removed/20260101T000000.000000Z-00000000-bad.json"
CASES = [
    listed("control", manifest()),
    listed("not JSON", manifest(b"{'a'}")),
    listed("empty", manifest(b"")),
    listed("100,000 deep", manifest(DEEP)),
    listed("not UTF-8", manifest(b'{"name":"\xff"}')),
    listed("2 MB", manifest(b'"' + b"x" * (2 << 20))),
    listed("a pipe", odd(os.mkfifo)),
    listed("a link to itself", odd(lambda path: path.symlink_to(path.name))),
    listed("a link to a device", odd(lambda path: path.symlink_to("/dev/zero"))),
    Case("a name that is a path", manifest(name="../../x"), SHOW, "cannot be one|damaged", names="bad"),
    Case("the name of another", manifest(name="good"), SHOW, "manifest of 'good'", names="bad"),
    Case("a digest that is a path", manifest(sha256="../../../../etc/passwd"), SHOW, "damaged", names="bad"),
    Case("a digest with a line break", manifest(sha256="0" * 64 + "\n"), SHOW, "damaged", names="bad"),
    Case("a size of -1", manifest(size=-1), SHOW, "damaged", names="bad"),
    Case(
        "a size of 1e400",
        manifest(json.dumps(GOOD).replace('"size": 4', '"size": 1e400').encode()),
        SHOW,
        "damaged",
        names="bad",
    ),
    Case("a size of NaN", manifest(size=float("nan")), SHOW, "damaged", names="bad"),
    Case("a title that is a list", manifest(title=["x"]), SHOW, "damaged", names="bad"),
    listed("a title with escapes", manifest(title="\x1b[2J\x1b]0;x\x07\u202e")),
    Case(
        "a source of no kind",
        manifest(source={"kind": "shell", "command": "rm"}),
        SHOW,
        "damaged",
        names="bad",
    ),
    Case(
        "an address with a line break",
        manifest(source={"kind": "url", "url": "http://x/\n", "sha256": "0" * 64}),
        SHOW,
        "damaged",
        names="bad",
    ),
    Case(
        "a thousand parts of nothing",
        manifest(parts=[{"sha256": "0" * 64, "size": 1}] * 1000),
        SHOW,
        "is missing",
        names="bad",
    ),
    Case(
        "a place that is relative",
        manifest(places=[{"path": "../x", "size": 4, "modified_ns": 0}]),
        SHOW,
        "damaged",
        names="bad",
    ),
    Case(
        "a place with NUL",
        manifest(places=[{"path": "/x\0y", "size": 4, "modified_ns": 0}]),
        SHOW,
        "damaged",
        names="bad",
    ),
    Case(
        "a place that is /dev/zero",
        manifest(places=[{"path": "/dev/zero", "size": 4, "modified_ns": 0}]),
        "ask bad hi",
        "which is refused",
        names="",
    ),
    Case(
        "a place that is a secret",
        manifest(places=[{"path": "/etc/passwd", "size": 4, "modified_ns": 0}]),
        "ask bad hi",
        "has 1221 bytes|bytes and not 4",
        names="bad",
        code=1,
    ),
    Case("no file", manifest(), "ask bad hi", "missing|not there|gone", names="bad"),
    Case("a file that is a pipe", with_blob("pipe"), "ask bad hi", "which is refused", names="0000"),
    Case("a file that is a folder", with_blob("folder"), "ask bad hi", "which is refused", names="0000"),
    Case("a file that links outside", with_blob("link"), "ask bad hi", "which is refused", names="0000"),
    Case("a file that links to itself", with_blob("loop"), "ask bad hi", "which is refused", names="0000"),
    Case(
        "a file of other bytes",
        lambda s: (manifest(size=4)(s), (s.models / "blobs" / f"sha256-{'0' * 64}").write_bytes(b"GGUF"))[0],
        "ask bad hi",
        "not a valid GGUF",
        names="bad",
    ),
    listed("a file that is a pipe, listed", with_blob("pipe")),
    listed(
        "a name of a device",
        lambda s: (manifest()(s), _write(s, "nul", GOOD | {"name": "nul"}))[1],
        "good.*nul|nul.*good",
    ),
    listed("folders 300 deep", lambda s: (manifest()(s), _write(s, "/".join(["d"] * 300), GOOD))[1]),
    listed("pins nested deep", beside("pins.json", DEEP)),
    listed("pins of the wrong kind", beside("pins.json", b'{"a": 1}')),
    listed("removed and nested deep", beside(REMOVED, DEEP)),
    Case(
        "restored although it is broken",
        beside(REMOVED.replace("bad", "gone"), b"{"),
        "models restore gone",
        "damaged|cannot be|no removed",
        names="gone",
    ),
    listed("removed under a path", beside("removed/20260101T000000.000000Z-00000000-..json", b"{}")),
]
