"""Hostile exports: ours, ChatGPT's and DeepSeek's, given to a store that holds a conversation already."""

from __future__ import annotations

import io
import json
import os
import zipfile
from pathlib import Path
from typing import Any

from localai.history.exchange import FORMAT
from tests.hostile.case import Case, Make, Scene

IMPORT = "history import {input}"
FILE = "conversations.json"


def data(value: object) -> Make:
    text = value if isinstance(value, bytes) else json.dumps(value).encode()
    return lambda scene: scene.write(FILE, text)


def message(number: object, parent: object = None, **fields: Any) -> dict[str, Any]:
    return {"id": number, "parent": parent, "role": "user", "content": "x", **fields}


def ours(*messages: dict[str, Any], **fields: Any) -> Make:
    """Our own JSON, of one conversation."""
    one = {"id": "c", "messages": list(messages) or [message("m")], **fields}
    return data({"format": FORMAT, "version": 1, "conversations": [one]})


def node(text: object = "x", role: object = "user", **fields: Any) -> dict[str, Any]:
    said = {"author": {"role": role}, "content": {"content_type": "text", "parts": [text]}}
    return {"message": said, "parent": None, "children": [], **fields}


def chatgpt(mapping: object, **fields: Any) -> Make:
    return data([{"title": "t", "create_time": 1.0, "mapping": mapping, **fields}])


def deepseek(mapping: object, **fields: Any) -> Make:
    return data([{"title": "t", "inserted_at": "2026-01-01T00:00:00Z", "mapping": mapping, **fields}])


def chain(length: int) -> dict[str, Any]:
    return {
        f"n{n}": node(parent=f"n{n - 1}" if n else None, role="assistant" if n % 2 else "user")
        for n in range(length)
    }


def zipped(scene: Scene) -> Path:
    memory = io.BytesIO()
    with zipfile.ZipFile(memory, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("../../conversations.json", b"[" * 5_000_000)
    return scene.write(FILE, memory.getvalue())


def special(kind: str) -> Make:
    def make(scene: Scene) -> Path:
        path = scene.files / FILE
        if kind == "pipe":
            os.mkfifo(path)
        elif kind == "folder":
            path.mkdir()
        elif kind.isdigit():
            path.touch()
            os.truncate(path, int(kind))
        else:
            path.symlink_to(FILE if kind == "loop" else kind)
        return path

    return make


CASES = [
    Case("control", ours(), IMPORT, "1 conversation", code=0),
    Case("control of ChatGPT", chatgpt({"a": node()}), IMPORT, "1 conversation", code=0),
    Case("control of DeepSeek", deepseek({"a": node()}), IMPORT, "1 conversation", code=0),
    Case("empty", data(b""), IMPORT, "not JSON"),
    Case("not JSON", data(b"<html><script>alert(1)</script>"), IMPORT, "not JSON"),
    Case("not UTF-8", data(b'["\xff"]'), IMPORT, "not JSON"),
    Case("a zip that unpacks to more", zipped, IMPORT, "ZIP archive"),
    Case("a pipe", special("pipe"), IMPORT, "not a file|pipe"),
    Case("a folder", special("folder"), IMPORT, "folder|directory|not a file"),
    Case("/dev/zero", special("/dev/zero"), IMPORT, "not a file|device"),
    Case("a link to itself", special("loop"), IMPORT, "cannot be read"),
    Case("1 TB of nothing", special(str(1 << 40)), IMPORT, "larger than"),
    Case("a million lists deep", data(b"[" * 1_000_000), IMPORT, "nested|not JSON"),
    Case("a million objects deep", data(b'{"a":' * 1_000_000), IMPORT, "nested|not JSON"),
    Case("deep with half a character", data(b'["\\ud800",' + b"[" * 200_000), IMPORT, "nested|not JSON"),
    Case("a number of 100,000 digits", data(b"[" + b"9" * 100_000 + b"]"), IMPORT, "."),
    Case("half a character and 100,000 digits", data(b'["\\ud800",' + b"9" * 100_000 + b"]"), IMPORT, "."),
    Case("a number", data(b"7"), IMPORT, "no export"),
    Case("null", data(b"null"), IMPORT, "no export"),
    Case("a million empty objects", data(b"[" + b"{}," * 999_999 + b"{}]"), IMPORT, "no export"),
    Case("another format", data({"format": "x" * 99_999}), IMPORT, "format"),
    Case("a later version", data({"format": FORMAT, "version": 1 << 70}), IMPORT, "newer version|int"),
    Case("a version that is a list", data({"format": FORMAT, "version": []}), IMPORT, "version"),
    Case("an unknown field", ours(evil=1), IMPORT, "evil"),
    Case("a message of its own", ours(message("m", "m")), IMPORT, "follows itself"),
    Case(
        "messages in a circle",
        ours(message("a", "c"), message("b", "a"), message("c", "b")),
        IMPORT,
        "follows itself",
    ),
    Case("a parent that is missing", ours(message("a", "gone")), IMPORT, "missing"),
    Case("the same message twice", ours(message("a"), message("a")), IMPORT, "same identifier"),
    Case("an identifier that is a path", ours(message("../../x")), IMPORT, "no identifier"),
    Case("an identifier that is SQL", ours(id="'; DROP TABLE messages; --"), IMPORT, "no identifier"),
    Case("an identifier with escapes", ours(id="\x1b[2J"), IMPORT, "no identifier"),
    Case("an identifier of 1 MB", ours(id="x" * 1_000_000), IMPORT, "no identifier"),
    Case("an unknown role", ours(message("a", role="system")), IMPORT, "role|enum|system"),
    Case("a date of 1e308", ours(created=1e308), IMPORT, "created is"),
    Case("a date of -1", ours(message("a", created=-1.0)), IMPORT, "created is -1"),
    Case(
        "a date that is no number",
        data(
            json.dumps(
                {
                    "format": FORMAT,
                    "version": 1,
                    "conversations": [{"id": "c", "messages": [], "created": float("nan")}],
                }
            ).encode()
        ),
        IMPORT,
        ".",
    ),
    Case("tokens of 2^63", ours(message("a", completion_tokens=1 << 63)), IMPORT, "."),
    Case("settings of 1 MB", ours(settings={"a": "x" * 1_000_000}), IMPORT, "settings are too large"),
    Case(
        "settings 400 deep",
        data(
            b'{"format":"localai conversations","version":1,'
            b'"conversations":[{"id":"c","messages":[],"settings":'
            + b'{"a":' * 400
            + b"1"
            + b"}" * 400
            + b"}]}"
        ),
        IMPORT,
        ".",
        code=0,
    ),
    Case("a text of 17 MB", ours(message("a", content="x" * (17 << 20))), IMPORT, "longer than"),
    Case("a title of 17 MB", ours(title="x" * (17 << 20)), IMPORT, "longer than"),
    Case("the last message missing", ours(head="gone"), IMPORT, "shows last is missing"),
    Case("100,001 messages", ours(*(message(f"m{n}") for n in range(100_001))), IMPORT, "more than 100,000"),
    Case(
        "a chain of 10,000",
        ours(*(message(f"m{n}", f"m{n - 1}" if n else None) for n in range(10_000))),
        IMPORT,
        "1 conversation",
        code=0,
    ),
    Case("a conversation of the store again", ours(id="kept-conversation"), IMPORT, "1 conversation", code=0),
    Case(
        "control characters",
        ours(message("a", content="\x1b[2J\x07\u202e\x00"), title="\x1b]0;x\x07"),
        IMPORT,
        "1 conv",
        code=0,
    ),
    Case(
        "an attachment that is a path",
        ours(message("a", attachments=[{"name": "../../../etc/passwd", "text": "x"}])),
        IMPORT,
        "1 conversation",
        code=0,
    ),
    Case(
        "a title with escapes and an error",
        ours(message("a", role=7), title="\x1b[2J\x1b]0;x\x07"),
        IMPORT,
        "role",
    ),
    Case("nodes in a circle", chatgpt({"a": node(parent="b"), "b": node(parent="a")}), IMPORT, "circle"),
    Case("a node of its own", chatgpt({"a": node(parent="a")}), IMPORT, "circle"),
    Case("a node that is a number", chatgpt({"a": 7}), IMPORT, "not an object"),
    Case("a mapping that is a list", chatgpt([1]), IMPORT, "no export"),
    Case("a second mapping that is a list", data([{"mapping": {}}, {"mapping": [1]}]), IMPORT, "mapping"),
    Case(
        "children that are missing",
        chatgpt({"a": node(children=["x", 7, None, {}])}),
        IMPORT,
        "1 conversation",
        code=0,
    ),
    Case(
        "parts of every kind",
        chatgpt({"a": node({"a": {"b": []}}), "b": node([[[]]]), "c": node(7)}),
        IMPORT,
        ".",
        code=0,
    ),
    Case(
        "dates of 1e308",
        chatgpt({"a": node()}, create_time=1e308, update_time=-1e308),
        IMPORT,
        "1 conv",
        code=0,
    ),
    Case(
        "a date in the year 99999",
        deepseek({"a": node()}, updated_at="99999-99-99T99:99:99Z"),
        IMPORT,
        "1 conv",
        code=0,
    ),
    Case(
        "dates that overflow",
        deepseek({"a": node()}, updated_at="0001-01-01T00:00:00+23:59"),
        IMPORT,
        "1 conv",
        code=0,
    ),
    Case("a chain of 20,000 nodes", chatgpt(chain(20_000)), IMPORT, "1 conversation", code=0),
    Case("a title that is a list", chatgpt({"a": node()}, title=["x"]), IMPORT, "1 conversation", code=0),
    Case(
        "a script as a title",
        chatgpt({"a": node("<script>alert(1)</script>")}, title="<script>"),
        IMPORT,
        "1 conv",
        code=0,
    ),
    Case(
        "replies that share a beginning",
        chatgpt(
            {
                "r": node("y" * 1_000_000, "assistant"),
                **{f"n{n}": node("z", "assistant", parent="r") for n in range(500)},
            }
        ),
        IMPORT,
        "too large",
    ),
]
