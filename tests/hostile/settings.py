"""Hostile policies and catalogues: what cannot be understood lets nothing run."""

from __future__ import annotations

import os
from pathlib import Path

from tests.hostile.case import Case, Make, Scene

BROKEN = r"policy .* is broken in line \d+"
PLACE = {"LOCALAI_POLICY": "{input}"}
CATALOG = {"LOCALAI_CATALOG": "{input}"}


def text(value: str | bytes) -> Make:
    return lambda scene: scene.write("settings.toml", value)


def special(kind: str) -> Make:
    def make(scene: Scene) -> Path:
        path = scene.files / "settings.toml"
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind != "none":
            path.symlink_to(path.name if kind == "loop" else kind)
        return path

    return make


def policy(name: str, value: str | bytes | Make, says: str = BROKEN) -> Case:
    make = value if callable(value) else text(value)
    return Case(f"policy: {name}", make, "models list", says, environment=PLACE)


def catalog(name: str, value: str | bytes | Make, says: str = "cannot be used") -> Case:
    make = value if callable(value) else text(value)
    return Case(f"catalogue: {name}", make, "models list", says, code=2, environment=CATALOG)


CASES = [
    Case("policy: control", text("[forbid]\npull = true\n"), "models list", ".", code=0, environment=PLACE),
    policy("not TOML", "[require\nsandbox"),
    policy("an unknown key", "[require]\nsandbx = true\n"),
    policy("an unknown table", "[forbidden]\npull = true\n"),
    policy("a key twice", "[forbid]\npull = true\npull = false\n"),
    policy("a switch that is a text", '[forbid]\npull = "false"\n'),
    policy("a switch that is 0", "[forbid]\npull = 0\n"),
    policy("a table that is a switch", "forbid = true\n"),
    policy("days of infinity", "[require]\nretention_days = inf\n"),
    policy("days of NaN", "[require]\nretention_days = nan\n"),
    policy("days of -1", "[require]\nretention_days = -1\n"),
    policy("days of 10^400", "[require]\nretention_days = 1" + "0" * 400 + "\n"),
    policy("a number of 10,000 digits", "[require]\nretention_days = " + "9" * 10_000 + "\n"),
    policy("a digest that is short", '[models]\nallow = ["abc"]\n'),
    policy("digests that are a text", f'[models]\nallow = "{"0" * 64}"\n'),
    policy("digests nested deep", "[models]\nallow = " + "[" * 10_000 + "]" * 10_000 + "\n"),
    policy("tables nested deep", "[" + ".".join(["a"] * 10_000) + "]\n"),
    policy("a contact with escapes", 'contact = "\\u001b[2J\\u0007"\n'),
    policy("a key with escapes", '"\\u001b[2J" = 1\n'),
    policy("not UTF-8", b"[forbid]\npull = true # \xff\n"),
    policy("NUL", b"[forbid]\npull = true\0\n"),
    policy("UTF-16", "[forbid]\npull = true\n".encode("utf-16")),
    policy("2 MB", "#" * (2 << 20), "cannot be read: it is larger"),
    policy("missing", special("none"), "cannot be read: it is not there"),
    policy("a pipe", special("pipe"), "cannot be read: it is not a file"),
    policy("a folder", special("folder"), "cannot be read"),
    policy("/dev/zero", special("/dev/zero"), "cannot be read: it is not a file"),
    policy("a link to itself", special("loop"), "cannot be read"),
    catalog("not TOML", "[[model]\n"),
    catalog("an unknown key", "evil = 1\n"),
    catalog("nested deep", "a = " + "[" * 10_000 + "]" * 10_000),
    catalog("a number of 10,000 digits", "a = " + "9" * 10_000),
    catalog("not UTF-8", b"\xff\xfe"),
    catalog("a name that is a path", '[[model]]\nname = "../../x"\n'),
    catalog("escapes", '"\\u001b[2J" = 1\n'),
    catalog("32 MB", "#" * (32 << 20)),
    catalog("missing", special("none"), "no catalogue"),
    catalog("a pipe", special("pipe"), "not a file"),
    catalog("/dev/zero", special("/dev/zero"), "not a file"),
    catalog("a link to itself", special("loop"), "symbolic links"),
]
