"""Hostile weights: safetensors headers that lie, indexes that lead outside, and what is no such file."""

from __future__ import annotations

import json
import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.hostile.case import Case, Make, Scene
from tests.hostile.checkpoints import QUANTIZE, WEIGHTS, folder, odd, replaced

INDEX = "model.safetensors.index.json"
NORM = "model.norm.weight"


def packed(header: bytes, length: int | None = None) -> bytes:
    return struct.pack("<Q", len(header) if length is None else length) + header


def raw(header: object, data: bytes = b"", length: int | None = None) -> Make:
    """A file of a header alone, and some bytes."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return replaced(WEIGHTS, packed(text, length) + data)


def one(dtype: str, shape: list[Any], offsets: list[Any], data: bytes = bytes(64)) -> Make:
    """A file of one tensor."""
    return raw({NORM: {"dtype": dtype, "shape": shape, "data_offsets": offsets}}, data)


def real(change: Callable[[dict[str, Any], bytearray], object], tail: bytes = b"") -> Make:
    """r1-nano's weights with a changed header or changed data."""

    def make(scene: Scene) -> Path:
        made = folder(scene)
        data = (made / WEIGHTS).read_bytes()
        (length,) = struct.unpack_from("<Q", data)
        header, body = json.loads(data[8 : 8 + length]), bytearray(data[8 + length :])
        change(header, body)
        (made / WEIGHTS).unlink()
        (made / WEIGHTS).write_bytes(packed(json.dumps(header).encode()) + body + tail)
        return made

    return make


def fill(name: str, bits: bytes) -> Make:
    """With the same two bytes all over one tensor."""

    def change(header: dict[str, Any], body: bytearray) -> None:
        begin, end = header[name]["data_offsets"]
        body[begin:end] = bits * ((end - begin) // 2)

    return real(change)


def rename(old: str, new: str) -> Make:
    return real(lambda header, body: header.update({new: header.pop(old)}))


def index(weight_map: object, *, keep: bool = True) -> Make:
    """With an index of shards."""

    def make(scene: Scene) -> Path:
        made = folder(scene)
        (made / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
        os.link(scene.checkpoint / WEIGHTS, scene.canary / "outside.safetensors")
        if not keep:
            (made / WEIGHTS).unlink()
        return made

    return make


def pickles(scene: Scene) -> Path:
    made = folder(scene)
    (made / WEIGHTS).unlink()
    command = f"touch {scene.canary}/owned"
    (made / "pytorch_model.bin").write_bytes(b"cposix\nsystem\n(S'" + command.encode() + b"'\ntR.")
    return made


def beside(scene: Scene) -> Path:
    """Safetensors, and a pickle beside it that would run a command."""
    made = pickles(scene)
    os.link(scene.checkpoint / WEIGHTS, made / WEIGHTS)
    return made


def outside(scene: Scene) -> Path:
    """The weights are a link to a file of the user's."""
    made = folder(scene)
    (made / WEIGHTS).unlink()
    (made / WEIGHTS).symlink_to(scene.root / "home" / ".bashrc")
    return made


F32 = {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]}
CASES = [
    Case("control", lambda scene: folder(scene), QUANTIZE, "made", code=0),
    Case("empty", replaced(WEIGHTS, b""), QUANTIZE, "has only 0 bytes", names=WEIGHTS),
    Case("a header of 2^63", raw({}, length=1 << 63), QUANTIZE, "header would take", names=WEIGHTS),
    Case("a header of 2^64-1", raw({}, length=(1 << 64) - 1), QUANTIZE, "header would take", names=WEIGHTS),
    Case("a header longer than the file", raw({}, length=1000), QUANTIZE, "truncated", names=WEIGHTS),
    Case("a sparse header of 100 MB", odd(WEIGHTS, "100000000"), QUANTIZE, "JSON|bytes", names=WEIGHTS),
    Case("1 TB of nothing", odd(WEIGHTS, str(1 << 40)), QUANTIZE, "JSON", names=WEIGHTS),
    Case("a header that is no JSON", raw(b"{'a': 1}"), QUANTIZE, "not valid JSON", names=WEIGHTS),
    Case("a header that is a list", raw([]), QUANTIZE, "not hold a JSON object", names=WEIGHTS),
    Case("a header that is not UTF-8", raw(b'{"\xff": 1}'), QUANTIZE, "not UTF-8", names=WEIGHTS),
    Case("a header nested 100,000 deep", raw(b'{"a":' * 100_000), QUANTIZE, "nested", names=WEIGHTS),
    Case("half a character", raw(b'{"\\ud800": 1}'), QUANTIZE, "half a character", names=WEIGHTS),
    Case("a number of 10,000 digits", raw(b'{"a":' + b"9" * 10_000 + b"}"), QUANTIZE, "JSON", names=WEIGHTS),
    Case("a tensor twice", raw(b'{"a":1,"a":1}'), QUANTIZE, "stands there twice", names=WEIGHTS),
    Case("a tensor that is a number", raw({NORM: 1}), QUANTIZE, "not describe", names=WEIGHTS),
    Case("an unknown type", one("F3", [4], [0, 16]), QUANTIZE, "unknown type", names=WEIGHTS),
    Case("a type of 8 bits", one("F8_E4M3", [64], [0, 64]), QUANTIZE, "lacks the tensor", names=""),
    Case("a negative length", one("F32", [-4, -4], [0, 64]), QUANTIZE, "impossible shape", names=WEIGHTS),
    Case("a length of 2^63", one("F32", [1 << 63, 2], [0, 64]), QUANTIZE, "impossible shape", names=WEIGHTS),
    Case("a size that wraps", one("F32", [1 << 31, 1 << 33], [0, 0]), QUANTIZE, "takes", names=WEIGHTS),
    Case("a length that is a fraction", one("F32", [1.5], [0, 6]), QUANTIZE, "impossible", names=WEIGHTS),
    Case("a thousand dimensions", one("F32", [1] * 1000, [0, 4]), QUANTIZE, "impossible", names=WEIGHTS),
    Case(
        "offsets the other way round", one("F32", [4], [16, 0]), QUANTIZE, "impossible offsets", names=WEIGHTS
    ),
    Case("an offset of -16", one("F32", [4], [-16, 0]), QUANTIZE, "impossible offsets", names=WEIGHTS),
    Case("an offset that is a truth", one("U8", [1], [False, True]), QUANTIZE, "offsets", names=WEIGHTS),
    Case(
        "an offset beyond the file",
        one("F32", [4], [1 << 40, (1 << 40) + 16]),
        QUANTIZE,
        "gap",
        names=WEIGHTS,
    ),
    Case("shape and bytes differ", one("F32", [5], [0, 16]), QUANTIZE, "takes 20", names=WEIGHTS),
    Case("overlapping tensors", raw({"a": F32, "b": F32}, bytes(16)), QUANTIZE, "overlaps", names=WEIGHTS),
    Case(
        "a hole between tensors",
        raw({"a": F32, "b": F32 | {"data_offsets": [32, 48]}}, bytes(48)),
        QUANTIZE,
        "leaves a gap",
        names=WEIGHTS,
    ),
    Case(
        "bytes after the last tensor",
        real(lambda h, b: None, b"PK\3\4"),
        QUANTIZE,
        "4 bytes after",
        names=WEIGHTS,
    ),
    Case("cut", real(lambda h, b: b.pop()), QUANTIZE, "1 of .* missing", names=WEIGHTS),
    Case("weights of NaN", fill(NORM, b"\xc0\x7f"), QUANTIZE, "not a finite number", names=""),
    Case(
        "endless weights",
        fill("model.layers.0.mlp.up_proj.weight", b"\x80\x7f"),
        QUANTIZE,
        "up_proj.* not a finite number",
        names="",
    ),
    Case("a tensor's name is a path", rename(NORM, "../../etc/passwd"), QUANTIZE, "passwd|norm", names=""),
    Case(
        "a tensor's name has escapes",
        rename(NORM, "\x1b[2J\x07"),
        QUANTIZE,
        "lacks the tensor 'model.norm",
        names="",
    ),
    Case(
        "a tensor's name of 1 MB",
        rename(NORM, "n" * 1_000_000),
        QUANTIZE,
        "lacks the tensor 'model.norm",
        names="",
    ),
    Case(
        "layer 2^70",
        rename("model.layers.0.mlp.up_proj.weight", f"model.layers.{1 << 70}.mlp.up_proj.weight"),
        QUANTIZE,
        "lacks the tensor .model.layers.0",
        names="",
    ),
    Case(
        "a name of digits that are none",
        rename(NORM, "model.layers.²٣.mlp.up_proj.weight"),
        QUANTIZE,
        "lacks the tensor",
        names="",
    ),
    Case(
        "an index that leads up",
        index({NORM: "../../canary/outside.safetensors"}, keep=False),
        QUANTIZE,
        "outside|path|name",
        names="index",
    ),
    Case(
        "an index with a whole path",
        index({NORM: "/etc/passwd"}, keep=False),
        QUANTIZE,
        "not a file in its folder",
        names="index",
    ),
    Case(
        "an index of a shard that is missing",
        index({NORM: "model-9.safetensors"}),
        QUANTIZE,
        "model-9",
        names="",
    ),
    Case(
        "an index with a shard of NUL",
        index({NORM: "a\0b.safetensors"}, keep=False),
        QUANTIZE,
        "not a file in its folder",
        names="index",
    ),
    Case("an index that is a list", index(["a"]), QUANTIZE, "weight_map|index", names="index"),
    Case("an index to itself", index({NORM: INDEX}), QUANTIZE, "not a safetensors file", names="index"),
    Case("an index without tensors", index({}), QUANTIZE, "has no weight_map", names=""),
    Case("an index nested deep", replaced(INDEX, '{"weight_map":' * 50_000), QUANTIZE, "nested", names=INDEX),
    Case("a pickle alone", pickles, QUANTIZE, "pickled", names="checkpoint"),
    Case("a pickle beside", beside, QUANTIZE, "made", code=0),
    Case(
        "weights that are a pipe", odd(WEIGHTS, "pipe"), QUANTIZE, "lacks 1 of 1 weight files", names=WEIGHTS
    ),
    Case(
        "weights that are a folder",
        odd(WEIGHTS, "folder"),
        QUANTIZE,
        "lacks 1 of 1 weight files",
        names=WEIGHTS,
    ),
    Case(
        "weights that are /dev/zero",
        odd(WEIGHTS, "/dev/zero"),
        QUANTIZE,
        "lacks 1 of 1 weight files",
        names=WEIGHTS,
    ),
    Case("weights that link to a file of the user's", outside, QUANTIZE, "outside", names=WEIGHTS),
    Case(
        "weights that link to themselves",
        odd(WEIGHTS, WEIGHTS),
        QUANTIZE,
        "is a link to itself",
        names=WEIGHTS,
    ),
]
