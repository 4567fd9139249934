"""A GGUF file as a source, whole or in parts; its metadata is copied as it stands."""

from __future__ import annotations

import struct
from pathlib import Path

from gguf import GGMLQuantizationType

from localai.errors import ModelFileError, UnsupportedModel
from models import supported
from models.gguf import read_header
from models.header import Header, TensorInfo
from quantize.gguf_file import Metadata
from quantize.safetensors import StoredTensor
from quantize.source import Source, Tensor

_NOT_COPIED = {"split.no", "split.count", "split.tensors.count", "general.alignment"}
_FIXED = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
_STRING, _ARRAY = 8, 9
_KNOWN = {int(kind) for kind in GGMLQuantizationType}


def open_source(path: Path) -> Source:
    """The model in the GGUF file `path`; if it is the first of several parts, in all of them.

    ModelFileError if a part is malformed or missing, UnsupportedModel for what the engine would not run.
    """
    first = read_header(path)
    supported.check_supported(first, path)
    files = _parts(path, first.split_count)
    tensors: dict[str, Tensor] = {}
    for file in files:
        header = first if file == path else read_header(file)
        for info in header.tensors:
            if info.name in tensors:
                raise ModelFileError(f"the tensor {info.name!r} is twice in the parts of {path}", _AGAIN)
            tensors[info.name] = _tensor(info, file, header)
    declared = first.integer("split.tensors.count", len(tensors))
    if declared != len(tensors):
        raise ModelFileError(f"{path} is to have {declared} tensors, but {len(tensors)} are there", _AGAIN)
    return Source(
        path=path,
        architecture=first.architecture,
        tensors=list(tensors.values()),
        metadata=_metadata(path, first),
        weight_files=tuple(files),
        small_files=(),
        is_gguf=True,
    )


def _parts(path: Path, count: int) -> list[Path]:
    """The files of a model in `count` parts, which `check_supported` has found to be there."""
    if count == 1:
        return [path]
    stem = path.name.removesuffix(f"-00001-of-{count:05}.gguf")
    return [path.with_name(f"{stem}-{number:05}-of-{count:05}.gguf") for number in range(1, count + 1)]


def _tensor(info: TensorInfo, file: Path, header: Header) -> Tensor:
    if not info.name.isascii() or not info.name.isprintable() or " " in info.name:
        raise UnsupportedModel(f"{file} has a tensor with the name {info.name!r}", _AGAIN)
    if len(info.shape) > 2:
        raise UnsupportedModel(
            f"{file} is a mixture of experts ({info.name}), which is not quantized here", "Use llama-quantize"
        )
    if info.type not in _KNOWN:
        raise UnsupportedModel(
            f"{file} has weights of type {info.type_name}, which are not read", "Start from another file"
        )
    shape = tuple(reversed(info.shape))
    stored = StoredTensor(info.name, file, info.type_name, shape, header.data_offset + info.offset, info.size)
    return Tensor(info.name, shape, GGMLQuantizationType(info.type), stored)


def _metadata(path: Path, header: Header) -> Metadata:
    """The encoded values. `read_header` has checked that each of them lies within the header."""
    with path.open("rb") as file:
        data = file.read(header.data_offset)
    found: Metadata = {}
    at = 24
    for _ in header.metadata:
        start = at + 8 + struct.unpack_from("<Q", data, at)[0]
        key = data[at + 8 : start].decode()
        (kind,) = struct.unpack_from("<I", data, start)
        at = _end(data, start + 4, kind)
        if key not in _NOT_COPIED:
            found[key] = data[start:at]
    return found


def _end(data: bytes, at: int, kind: int) -> int:
    """Where the value of `kind` that starts at `at` ends."""
    if kind == _STRING:
        return at + 8 + int(struct.unpack_from("<Q", data, at)[0])
    if kind != _ARRAY:
        return at + _FIXED[kind]
    item, count = struct.unpack_from("<IQ", data, at)
    at += 12
    if item != _STRING:
        return at + _FIXED[item] * int(count)
    for _ in range(count):
        at += 8 + int(struct.unpack_from("<Q", data, at)[0])
    return at


_AGAIN = "Fetch or make the file again"
