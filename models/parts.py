"""Models in several files: NAME-00001-of-00003.gguf and so on, of which llama.cpp opens the first."""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from pathlib import Path

import msgspec

from localai.errors import ModelFileError, UnsupportedModel
from models.gguf import Header, check_supported, read_header

_PART = re.compile(r"(?s)(.*)-(\d{5})-of-(\d{5})\.gguf")
MOST = 999
"""Files of one model."""


def name_of_part(stem: str, number: int, count: int) -> str:
    """The name of file `number`, counted from 1, of `count`."""
    return f"{stem}-{number:05}-of-{count:05}.gguf"


def stem_of(name: str) -> str:
    """The name of a model's file without its ending, and without what tells which part of it it is."""
    match = _PART.fullmatch(name)
    return match[1] if match else name.removesuffix(".gguf")


def number_of(name: str) -> tuple[int, int] | None:
    """(which part, counted from 1, of how many), as the name of a file says; None if it says nothing."""
    match = _PART.fullmatch(name)
    return (int(match[2]), int(match[3])) if match else None


def files_of(path: Path) -> list[Path]:
    """All files of the model of which `path` is one, by their names, in order; also missing ones."""
    match = _PART.fullmatch(path.name)
    if match is None or not 1 <= int(match[3]) <= MOST:
        return [path]
    count = int(match[3])
    return [path.with_name(name_of_part(match[1], number, count)) for number in range(1, count + 1)]


def read_whole(path: Path, allow: Collection[str] = ()) -> Header:
    """The header of the model at `path`, checked to run here, with the tensors and bytes of all its files.

    Of metadata only the first file's counts, as for llama.cpp. Errors as of `read_header` and
    `check_supported`.
    """
    first = read_header(path)
    check_supported(first, path, allow)
    if first.split_count == 1:
        return first
    return merged(first, [(file, read_header(file)) for file in files_of(path)[1:]], path)


def merged(first: Header, others: Sequence[tuple[Path, Header]], path: Path) -> Header:
    """`first` with the tensors of all. ModelFileError if they are not the parts of one model, in order."""
    tensors, names = list(first.tensors), {tensor.name for tensor in first.tensors}
    for number, (file, header) in enumerate(others, start=1):
        if header.integer("split.no", -1) != number or header.split_count != first.split_count:
            raise ModelFileError(
                f"{file} is not part {number + 1} of the model {path.name}", "Fetch or copy its parts again."
            )
        if clash := names & {tensor.name for tensor in header.tensors}:
            raise ModelFileError(
                f"{file} holds the tensor {min(clash)}, which another part has too",
                "Fetch or copy its parts again.",
            )
        names |= {tensor.name for tensor in header.tensors}
        tensors += header.tensors
    expected = first.integer("split.tensors.count", len(tensors))
    if expected != len(tensors):
        raise UnsupportedModel(
            f"{path} says that its model has {expected} tensors, and its parts hold {len(tensors)}",
            "Fetch or copy its parts again.",
        )
    size = first.file_size + sum(header.file_size for _, header in others)
    return msgspec.structs.replace(first, tensors=tensors, file_size=size)
