"""Checkpoint folders as untrusted input."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from localai.errors import CheckpointError, UnsupportedModel
from quantize import strict_json
from quantize.checkpoint import INDEX, open_checkpoint
from quantize.from_checkpoint import open_source
from tests.quantize.making import make_checkpoint, rows_of, safetensors

SHARD_2 = "model-00002-of-00003.safetensors"


@pytest.mark.parametrize("shards", [1, 3])
def test_a_proper_folder_is_read(tmp_path: Path, shards: int) -> None:
    values = make_checkpoint(tmp_path / "m", shards=shards)
    checkpoint = open_checkpoint(tmp_path / "m")
    assert checkpoint.tensors.keys() == values.keys()
    assert checkpoint.config["hidden_size"] == 64
    assert checkpoint.generation["temperature"] == 0.6
    assert sum(tensor.nbytes for tensor in checkpoint.tensors.values()) == sum(
        value.size * 2 for value in values.values()
    )
    files = [tensor.file.name for tensor in checkpoint.tensors.values()]
    assert files == sorted(files)


def change_index(folder: Path, change: Callable[[dict], None]) -> None:
    index = json.loads((folder / INDEX).read_text())
    change(index)
    (folder / INDEX).write_text(json.dumps(index))


def point_to(name: object) -> Callable[[Path], None]:
    return lambda folder: change_index(folder, lambda i: i["weight_map"].update({"lm_head.weight": name}))


def only_pickle(folder: Path) -> None:
    for file in (*folder.glob("*.safetensors"), folder / INDEX):
        file.unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x02.")


def shards_without_index(folder: Path) -> None:
    (folder / INDEX).unlink()
    (folder / SHARD_2).unlink()


def fifo_shard(folder: Path) -> None:
    (folder / SHARD_2).unlink()
    os.mkfifo(folder / SHARD_2)


def extra_tensor(folder: Path) -> None:
    change_index(folder, lambda index: index["weight_map"].pop("lm_head.weight"))


def same_tensor_twice(folder: Path) -> None:
    (folder / INDEX).unlink()
    shard = folder / "model-00001-of-00003.safetensors"
    (folder / SHARD_2).write_bytes(shard.read_bytes())


def adapter_only(folder: Path) -> None:
    only_pickle(folder)
    (folder / "pytorch_model.bin").unlink()
    (folder / "adapter_model.safetensors").write_bytes(safetensors({}))


def truncated(folder: Path) -> None:
    data = (folder / SHARD_2).read_bytes()
    (folder / SHARD_2).write_bytes(data[:-100])


def write(name: str, text: str | bytes) -> Callable[[Path], None]:
    data = text if isinstance(text, bytes) else text.encode()
    return lambda folder: (folder / name).write_bytes(data) and None


def link(name: str, target: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).symlink_to(target)

    return change


def pipe(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        os.mkfifo(folder / name)

    return change


def folder(name: str) -> Callable[[Path], None]:
    def change(folder: Path) -> None:
        (folder / name).unlink()
        (folder / name).mkdir()

    return change


HOSTILE: dict[str, tuple[Callable[[Path], None], str]] = {
    "no config.json": (lambda folder: (folder / "config.json").unlink(), "has no config.json"),
    "config.json is not JSON": (write("config.json", "{"), "not valid JSON"),
    "config.json is a list": (write("config.json", "[]"), "does not hold a JSON object"),
    "config.json says a key twice": (write("config.json", '{"a": 1, "a": 2}'), "'a' stands there twice"),
    "config.json is a git-lfs pointer": (
        write("config.json", "version https://git-lfs.github.com/spec/v1\n"),
        "git lfs pull",
    ),
    "a missing shard": (lambda folder: (folder / SHARD_2).unlink(), f"lacks 1 of 3 weight files: {SHARD_2}"),
    "a missing shard and no index": (shards_without_index, f"lacks 1 of 3 weight files: {SHARD_2}"),
    "an index that names ..": (point_to("../x.safetensors"), "not a file in its folder"),
    "an index that names an absolute path": (point_to("/etc/x.safetensors"), "not a file in its folder"),
    "an index that names a Windows path": (point_to("..\\x.safetensors"), "not a file in its folder"),
    "an index that names a drive": (point_to("C:x.safetensors"), "not a file in its folder"),
    "an index that names a NUL": (point_to("x\0.safetensors"), "not a file in its folder"),
    "an index that names nothing": (point_to(""), "not a file in its folder"),
    "an index that names a number": (point_to(3), "not a file in its folder"),
    "an index that names a pickle": (point_to("pytorch_model.bin"), "not a safetensors file"),
    "an index without a map": (write(INDEX, "{}"), "has no weight_map"),
    "an index with a list": (write(INDEX, '{"weight_map": []}'), "has no weight_map"),
    "a tensor in another shard": (point_to(SHARD_2), "it is not there"),
    "a tensor that the index lacks": (extra_tensor, "does not list"),
    "a tensor in two shards": (same_tensor_twice, "stands both in"),
    "a truncated shard": (truncated, "is truncated: 100 of"),
    "only pickled weights": (only_pickle, "holds only pickled weights (pytorch_model.bin)"),
    "only an adapter": (adapter_only, "has no model.safetensors"),
    "a shard that is a pipe": (fifo_shard, "lacks 1 of 3 weight files"),
    "config.json is nested too deeply": (write("config.json", '{"a":' * 100_000), "nested too deeply"),
    "config.json is not UTF-8": (write("config.json", b"\xff"), "not UTF-8"),
    "config.json is a device": (
        link("config.json", "/dev/zero"),
        "config.json is a link to a device, which is refused",
    ),
    "config.json is a pipe": (pipe("config.json"), "config.json is a named pipe, which is refused"),
    "config.json is a folder": (folder("config.json"), "config.json is a folder, which is refused"),
    "config.json leads to a folder": (link("config.json", "/"), "config.json is a link to a folder, which"),
    "config.json leads nowhere": (link("config.json", "nowhere"), "config.json: No such file"),
    "generation_config.json is a pipe": (pipe("generation_config.json"), "is a named pipe, which is refused"),
    "the index is a device": (link(INDEX, "/dev/zero"), "is a link to a device, which is refused"),
    "four bytes of weights": (write(SHARD_2, b"1234"), "it has only 4 bytes"),
    "a broken generation_config.json": (write("generation_config.json", b"\xff"), "not UTF-8"),
}


@pytest.mark.parametrize("case", HOSTILE)
def test_hostile_folders_are_refused(tmp_path: Path, case: str) -> None:
    change, message = HOSTILE[case]
    make_checkpoint(tmp_path / "m", shards=3)
    change(tmp_path / "m")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "m")
    assert message in str(caught.value)
    assert str(tmp_path / "m") in str(caught.value)
    assert caught.value.hint


def test_a_file_without_the_right_to_read_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not by its mode: root may read all."""
    make_checkpoint(tmp_path / "m")
    real = Path.open

    def refuse(path: Path, *arguments, **options):
        if path.name == "config.json":
            raise PermissionError(errno.EACCES, "Permission denied", str(path))
        return real(path, *arguments, **options)

    monkeypatch.setattr(Path, "open", refuse)
    with pytest.raises(CheckpointError, match=r"cannot read .*config\.json: Permission denied") as caught:
        open_checkpoint(tmp_path / "m")
    assert "rights" in caught.value.hint


def test_a_folder_without_the_right_to_list_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> None:
        raise PermissionError(errno.EACCES, "Permission denied", str(path))

    monkeypatch.setattr(Path, "iterdir", refuse)
    with pytest.raises(CheckpointError, match="Permission denied") as caught:
        open_checkpoint(tmp_path)
    assert "rights" in caught.value.hint


def put(name: str, *keys: str | int, value: object) -> Callable[[Path], None]:
    """A change of the value that stands under `keys` in the JSON file `name`."""

    def change(folder: Path) -> None:
        path = folder / name
        root = json.loads(path.read_text()) if path.exists() else {}
        *parents, last = keys
        inner = root
        for key in parents:
            inner = inner[key]
        inner[last] = value
        path.write_text(json.dumps(root))

    return change


HALF = "a\ud800"
HALVES: dict[str, Callable[[Path], None]] = {
    "an architecture": put("config.json", "architectures", value=[HALF]),
    "the model's name": put("config.json", "_name_or_path", value=HALF),
    "a key": put("generation_config.json", HALF, value=1),
    "the chat template": put("tokenizer_config.json", "chat_template", value=HALF),
    "the template's own file": put("chat_template.json", "chat_template", value=HALF),
    "a token": put("tokenizer.json", "model", "vocab", HALF, value=511),
    "a merge": put("tokenizer.json", "model", "merges", 0, value=[HALF, "b"]),
    "an added token": put("tokenizer.json", "added_tokens", 0, "content", value="\udfff"),
    "a declared token": put("added_tokens.json", HALF, value=500),
    "a tensor in the index": put(INDEX, "weight_map", HALF, value="model-00001-of-00003.safetensors"),
}


@pytest.mark.parametrize("case", HALVES)
def test_half_a_character_is_refused(tmp_path: Path, case: str) -> None:
    make_checkpoint(tmp_path / "m", shards=3)
    (tmp_path / "m" / "tokenizer_config.json").write_text("{}")
    before = {path: path.read_bytes() for path in (tmp_path / "m").iterdir()}
    HALVES[case](tmp_path / "m")
    (changed,) = [path for path in (tmp_path / "m").iterdir() if path.read_bytes() != before.get(path)]
    with pytest.raises(CheckpointError, match="half a character") as caught:
        open_source(tmp_path / "m")
    assert str(changed) in caught.value.message
    assert caught.value.hint
    caught.value.message.encode()


@pytest.mark.parametrize(
    ("text", "is_half"),
    [
        (r"\ud83d\ude00", False),
        (r"\uD83D\uDE00\uD83D\uDE00", False),
        (r"\\ud800", False),
        (r"\\\\uD800 \u00d8 \n\"", False),
        ("\U0001f600 ud800", False),
        (r"\u0041\ud7ff\ue000", False),
        (r"\ud83d", True),
        (r"\uDE00", True),
        (r"\ude00\ud83d", True),
        (r"\ud83d \ude00", True),
        (r"\ud83d\ud83d\ude00", True),
        (r"\ud83d\ude00\ude00", True),
        (r"\\\uDbFf", True),
        (r"\ud83d\\ude00", True),
    ],
)
def test_what_half_a_character_is(text: str, is_half: bool) -> None:
    """As Python says, which cannot encode it."""
    data = f'{{"a": "{text}"}}'.encode()
    try:
        json.loads(data)["a"].encode()
    except UnicodeEncodeError:
        assert is_half
        with pytest.raises(CheckpointError, match="half a character"):
            strict_json.parse_object(data, Path("x.json"))
    else:
        assert not is_half
        assert strict_json.parse_object(data, Path("x.json")) == json.loads(data)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".pth"])
def test_a_pickle_is_refused_unread(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"model{suffix}"
    path.write_bytes(b"\x80\x02")
    with pytest.raises(CheckpointError, match="pickled checkpoint") as caught:
        open_checkpoint(path)
    assert "safetensors" in caught.value.hint


def test_the_one_checkpoint_in_a_folder_is_named(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "model" / "checkpoint")
    with pytest.raises(CheckpointError, match=r"has no config\.json") as caught:
        open_checkpoint(tmp_path / "model")
    assert caught.value.hint.endswith(f".safetensors files: {tmp_path / 'model' / 'checkpoint'}")
    make_checkpoint(tmp_path / "model" / "other")
    with pytest.raises(CheckpointError) as caught:
        open_checkpoint(tmp_path / "model")
    assert caught.value.hint.endswith("the .safetensors files")


def test_other_things_than_folders(tmp_path: Path) -> None:
    (tmp_path / "DeepSeek-R1").mkdir()
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(CheckpointError, match=r"Did you mean .*DeepSeek-R1"):
        open_checkpoint(tmp_path / "DeepSek-R1")
    with pytest.raises(CheckpointError, match="Check the path"):
        open_checkpoint(tmp_path / "nowhere" / "m")
    with pytest.raises(CheckpointError, match="GGUF already"):
        open_checkpoint(tmp_path / "x.gguf")


def as_in_the_hubs_cache(folder: Path, repository: str = "models--x--y") -> Path:
    """A checkpoint laid out as the hub's cache does it; the snapshot's folder."""
    blobs, snapshot = folder / repository / "blobs", folder / repository / "snapshots" / "0123"
    make_checkpoint(blobs)
    snapshot.mkdir(parents=True)
    for file in blobs.iterdir():
        (snapshot / file.name).symlink_to(Path("../../blobs") / file.name)
    return snapshot


def test_the_layout_of_the_hub_cache_is_read(tmp_path: Path) -> None:
    tensors = open_checkpoint(as_in_the_hubs_cache(tmp_path)).tensors
    assert np.isfinite(rows_of(tensors["model.norm.weight"], 0, 64)).all()
    (tmp_path / "short").symlink_to(tmp_path / "models--x--y" / "snapshots" / "0123")
    assert open_checkpoint(tmp_path / "short").tensors.keys() == tensors.keys()


def test_the_layout_that_repositories_share_is_read(tmp_path: Path) -> None:
    """Then what is in a repository's blobs are links, to one folder for all."""
    snapshot = as_in_the_hubs_cache(tmp_path)
    for blob in sorted((tmp_path / "models--x--y" / "blobs").iterdir()):
        shared = tmp_path / "blobs" / "ab" / blob.name
        shared.parent.mkdir(parents=True, exist_ok=True)
        blob.rename(shared)
        blob.symlink_to(shared)
    assert open_checkpoint(snapshot).tensors


def test_links_within_the_folder_are_followed(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / "weights")
    (tmp_path / "m" / "model.safetensors").symlink_to("weights")
    assert open_checkpoint(tmp_path / "m").tensors


@pytest.mark.parametrize("name", ["model.safetensors", "tokenizer.json", "chat_template.jinja", "README.md"])
def test_a_link_out_of_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / name).unlink(missing_ok=True)
    (tmp_path / "secret").write_text("{}")
    (tmp_path / "m" / name).symlink_to(tmp_path / "secret")
    with pytest.raises(CheckpointError, match=f"{name} is a link to .*secret, which is outside") as caught:
        open_checkpoint(tmp_path / "m")
    assert "hub's cache" in caught.value.hint


@pytest.mark.parametrize(
    "target", ["models--x--z/blobs/f", "models--x--y/f", "f", "models--x--y/blobs/deep/f"]
)
def test_a_link_out_of_the_hubs_cache_is_refused(tmp_path: Path, target: str) -> None:
    snapshot = as_in_the_hubs_cache(tmp_path)
    (tmp_path / target).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / target).write_text("{}")
    (snapshot / "generation_config.json").unlink()
    (snapshot / "generation_config.json").symlink_to(tmp_path / target)
    with pytest.raises(CheckpointError, match="outside of the checkpoint's folder"):
        open_checkpoint(snapshot)


def test_a_folder_that_only_looks_like_the_cache_may_not_link_out(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="outside of the checkpoint's folder"):
        open_checkpoint(as_in_the_hubs_cache(tmp_path, "x"))


def test_models_for_other_uses_are_refused(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "embedder")
    (tmp_path / "embedder" / "modules.json").write_text("[]")
    with pytest.raises(UnsupportedModel, match="embedding model"):
        open_checkpoint(tmp_path / "embedder")
    make_checkpoint(tmp_path / "Qwen3-Reranker-0.6B")
    with pytest.raises(UnsupportedModel, match="ranks documents"):
        open_checkpoint(tmp_path / "Qwen3-Reranker-0.6B")
