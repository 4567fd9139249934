"""A Hugging Face checkpoint folder as untrusted input: its small files, and where each tensor lies.

Only safetensors are read, one file or shards with an index. Pickled checkpoints (.bin, .pt, .pth) are
refused, because reading one can run code that it carries.
"""

from __future__ import annotations

import difflib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from localai.errors import CheckpointError, UnsupportedModel
from quantize import links, strict_json
from quantize.safetensors import StoredTensor, read_header

INDEX = "model.safetensors.index.json"
_CHECK_PATH = "Check the path; names of models: localai models list"
_PICKLES = {".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"}
_FETCH_ALL = "Fetch the index and the weights again: they do not belong together"
_ASK_CHAT = "Supported are models that generate text"
_READ = {".json", ".safetensors", ".jinja", ".md", ".model"}
"""Suffixes of files that are read."""
_ASK_SAFETENSORS = "Reading a pickled checkpoint can run code that it carries: get the model as safetensors"


@dataclass(frozen=True)
class Checkpoint:
    """What a folder holds. `tensors` are in the order in which llama.cpp's converter meets them:
    files by name, then tensors by name."""

    folder: Path
    config: dict[str, Any]
    generation: dict[str, Any]
    tokenizer_config: dict[str, Any]
    tensors: dict[str, StoredTensor]


def open_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint in the folder `path`; CheckpointError if it is incomplete, malformed or refused."""
    try:
        return _opened(path)
    except OSError as error:
        raise strict_json.unreadable(Path(error.filename or path), error) from error


def _opened(path: Path) -> Checkpoint:
    _require_folder(path)
    names = sorted(entry.name for entry in path.iterdir())
    _refuse_pickles_only(path, names)
    for name in names:
        if Path(name).suffix in _READ:
            require_inside(path, path / name)
    if not os.path.lexists(path / "config.json"):
        raise CheckpointError(
            f"{path} has no config.json, so it is not a model checkpoint",
            "Give the folder that holds config.json, tokenizer.json and the .safetensors files"
            + _below(path),
        )
    config = strict_json.read_object(path / "config.json")
    _refuse_other_uses(path, names, config)
    return Checkpoint(
        folder=path,
        config=config,
        generation=strict_json.read_optional(path / "generation_config.json"),
        tokenizer_config=strict_json.read_optional(path / "tokenizer_config.json"),
        tensors=_tensors(path, names),
    )


def _below(path: Path) -> str:
    """The one folder in it that is a checkpoint, as a hint; "" if there is none, or more than one."""
    found = [entry for entry in path.iterdir() if os.path.lexists(entry / "config.json")]
    return f": {found[0]}" if len(found) == 1 else ""


def _require_folder(path: Path) -> None:
    if path.is_dir():
        return
    if not path.exists():
        raise CheckpointError(f"there is no folder {path}", _nearest(path))
    if path.suffix.lower() in _PICKLES:
        raise CheckpointError(f"{path} is a pickled checkpoint, which is refused", _ASK_SAFETENSORS)
    hint = "Give the folder that holds config.json and the .safetensors files"
    if path.suffix.lower() == ".gguf":
        hint = "It is a GGUF already: import it as it is"
    raise CheckpointError(f"{path} is a file, not a checkpoint folder", hint)


def _nearest(path: Path) -> str:
    if not path.parent.is_dir():
        return _CHECK_PATH
    folders = [entry.name for entry in path.parent.iterdir() if entry.is_dir()]
    near = difflib.get_close_matches(path.name, folders, n=1)
    return f"Did you mean {path.parent / near[0]}?" if near else _CHECK_PATH


def require_inside(folder: Path, path: Path) -> None:
    """CheckpointError if `path`, an entry of the checkpoint in `folder`, leads to a file elsewhere.

    A checkpoint could so have another file of the user's read and its content put into the output.
    """
    try:
        target = links.outside(folder, path)
    except RuntimeError as error:  # of Python before 3.13; then on, it is found where the file is opened
        raise CheckpointError(f"{path} is a link to itself", strict_json.FETCH_AGAIN) from error
    if target is not None:
        raise CheckpointError(
            f"{path} is a link to {target}, which is outside of the checkpoint's folder",
            "Put the file itself in its place, or give the folder in the hub's cache",
        )


def _refuse_other_uses(path: Path, names: list[str], config: dict[str, Any]) -> None:
    """UnsupportedModel for models that have the tensors of a chat model but are none."""
    if "modules.json" in names:
        raise UnsupportedModel(
            f"{path} is an embedding model of sentence-transformers (it has a modules.json)", _ASK_CHAT
        )
    called = f"{path.name} {config.get('_name_or_path', '')}".lower()
    if "qwen3-reranker" in called or "qwen3-vl-reranker" in called:
        raise UnsupportedModel(f"{path} is a model that ranks documents, by its name", _ASK_CHAT)


def _refuse_pickles_only(path: Path, names: list[str]) -> None:
    pickles = [name for name in names if Path(name).suffix.lower() in _PICKLES]
    if pickles and not any(name.endswith((".safetensors", INDEX)) for name in names):
        raise CheckpointError(
            f"{path} holds only pickled weights ({pickles[0]}), which are refused", _ASK_SAFETENSORS
        )


def _tensors(path: Path, names: list[str]) -> dict[str, StoredTensor]:
    index = path / INDEX
    listed = _weight_map(index) if os.path.lexists(index) else None
    files = sorted(set(listed.values())) if listed is not None else _weight_files(path, names)
    _require_files(path, files)
    tensors: dict[str, StoredTensor] = {}
    for file in files:
        for name, tensor in sorted(read_header(path / file).items()):
            if name in tensors:
                raise CheckpointError(
                    f"the tensor {name!r} stands both in {tensors[name].file} and in {path / file}",
                    _FETCH_ALL,
                )
            tensors[name] = tensor
    if listed is not None:
        _compare(listed, tensors, index)
    return tensors


def _weight_map(index: Path) -> dict[str, str]:
    weight_map = strict_json.read_object(index).get("weight_map")
    if not isinstance(weight_map, dict) or not weight_map:
        raise CheckpointError(f"{index} has no weight_map", strict_json.FETCH_AGAIN)
    for tensor, file in weight_map.items():
        if not isinstance(file, str) or not _is_plain_name(file):
            raise CheckpointError(
                f"{index} names {file!r} for the tensor {tensor!r}, which is not a file in its folder",
                "Do not use this checkpoint: a proper one names only files beside its index",
            )
        if not file.endswith(".safetensors"):
            raise CheckpointError(
                f"{index} names {file!r}, which is not a safetensors file", _ASK_SAFETENSORS
            )
    return weight_map


def _is_plain_name(name: str) -> bool:
    """Whether `name` is one component under POSIX and Windows rules alike."""
    return bool(name) and name not in {".", ".."} and not re.search(r'[/\\:\x00-\x1f<>"|?*]', name)


def _weight_files(path: Path, names: list[str]) -> list[str]:
    files = [name for name in names if name.startswith("model") and name.endswith(".safetensors")]
    if not files:
        other = next((name for name in names if name.endswith(".safetensors")), "")
        hint = f"{other} is not one: an adapter or a part cannot be converted by itself" if other else ""
        raise CheckpointError(
            f"{path} has no model.safetensors and no {INDEX}", hint or "Fetch the weights, too"
        )
    counted = [match for name in files if (match := re.fullmatch(r"(.*)-(\d+)-of-(\d+)\.safetensors", name))]
    if counted:
        stem, number, total = counted[0].groups()
        if int(total) > 10_000:
            raise CheckpointError(
                f"{path / files[0]} says that it is one of {int(total)} shards",
                "Check its name, or fetch it again",
            )
        files = [f"{stem}-{i:0{len(number)}d}-of-{total}.safetensors" for i in range(1, int(total) + 1)]
    return files


def _require_files(path: Path, files: list[str]) -> None:
    missing = [file for file in files if not (path / file).is_file()]
    if missing:
        raise CheckpointError(
            f"{path} lacks {len(missing)} of {len(files)} weight files: {', '.join(missing[:3])}"
            f"{' and others' if len(missing) > 3 else ''}",
            "Fetch the missing files, too",
        )


def _compare(listed: dict[str, str], tensors: dict[str, StoredTensor], index: Path) -> None:
    for name, file in listed.items():
        if name not in tensors or tensors[name].file.name != file:
            raise CheckpointError(
                f"{index} says that the tensor {name!r} is in {file}, but it is not there", _FETCH_ALL
            )
    extra = next((name for name in tensors if name not in listed), None)
    if extra is not None:
        raise CheckpointError(
            f"{tensors[extra].file} holds the tensor {extra!r}, which {index} does not list", _FETCH_ALL
        )
