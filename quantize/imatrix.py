"""Importance matrices of llama.cpp as untrusted input: the GGUF form, and the older binary one ("dat").

llama-imatrix, and `quantize.collecting`, write how strongly each column of each weight was used on a sample
text. The GGUF form holds sums of squares and the number of tokens that they were taken over; the older form
holds means times the number of chunks. Both are brought to means in float32, to the bit as llama-quantize
does.
"""

from __future__ import annotations

import os
import struct
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from io import BufferedReader
from pathlib import Path
from typing import Final, Never

import numpy as np
from numpy.typing import NDArray

from localai.errors import ModelFileError, ModelNotFound, QuantizeError, UsageError
from models.gguf import Header, TensorInfo, read_header
from quantize import file_kinds

MAX_BYTES: Final = 4 << 30
"""Largest file that is read; that of a model with 61 layers of 384 experts takes 1.5 GB."""

MAX_ENTRIES: Final = 65_536
"""Most tensors in a file; models have a few thousand."""

_MAX_NAME = 63
_MAX_DATASET = 65_535
_MAX_DATASETS = 64
_MAX_COUNT = float(1 << 62)
_LEAST_ENTRY = 17

_SUMS = ".in_sum2"
_COUNTS = ".counts"
_DATASETS = "imatrix.datasets"
_CHUNKS = "imatrix.chunk_count"
_CHUNK_SIZE = "imatrix.chunk_size"

_MAKE_ONE = "Make one: localai imatrix MODEL -o imatrix.gguf"
_MAKE_AGAIN = "Fetch it or make it again with localai imatrix"
_LFS_POINTER = b"version https://git-lfs"


@dataclass(frozen=True, slots=True, eq=False)
class ImportanceMatrix:
    """What one file says. Its texts are one line each, but untrusted: print them with `printable`."""

    path: Path
    datasets: tuple[str, ...]
    """The texts it was made from, as their maker named them; may be empty."""
    chunks: int
    """Pieces of text that were read for it; 0 if the file does not say."""
    weights: dict[str, NDArray[np.float32]]
    """By name of the tensor in GGUF: one value per column, finite and not negative.

    A tensor of several experts has the columns of one after those of the other. The arrays are read-only,
    of one dimension and contiguous. Whether they fit the tensors of a model is not known here.
    """


def promised(columns: Mapping[str, int], dataset: str) -> ImportanceMatrix:
    """A stand-in for one that will be made from `dataset`, for a model whose matrices have so many `columns`.

    All weights are 1. With it, sizes and types are known before it is there.
    """
    weights = {name: np.ones(n, np.float32) for name, n in columns.items() if name.startswith("blk.")}
    return ImportanceMatrix(Path("auto"), (dataset,), 1, weights)


class _Source:
    """Reads an open file of `size` bytes, and compares each length with what is left before it allocates."""

    def __init__(self, file: BufferedReader, path: Path) -> None:
        self.path = path
        self.size = os.fstat(file.fileno()).st_size
        self._file = file
        self._at = 0

    @property
    def remaining(self) -> int:
        return self.size - self._at

    def refuse(self, what: str) -> Never:
        raise QuantizeError(f"{self.path} is not a valid importance matrix: {what}", _MAKE_AGAIN)

    def seek(self, offset: int) -> None:
        self._at = offset
        self._file.seek(offset)

    def expect(self, count: int, what: str) -> None:
        if count > self.remaining:
            raise QuantizeError(
                f"{self.path} is truncated: {what} takes {count} bytes, but only {self.remaining} are left",
                _MAKE_AGAIN,
            )

    def take(self, count: int, what: str) -> bytes:
        self.expect(count, what)
        data = self._file.read(count)
        self._advance(count, len(data))
        return data

    def i32(self, what: str) -> int:
        (value,) = struct.unpack("<i", self.take(4, what))
        return int(value)

    def floats(self, count: int, what: str) -> NDArray[np.float32]:
        """The next `count` numbers, which must be finite and not negative."""
        self.expect(4 * count, what)
        values = np.empty(count, "<f4")
        self._advance(4 * count, self._file.readinto(values.data.cast("B")))
        # In this order: a comparison with NaN would warn.
        if not np.isfinite(values).all() or (values < 0).any():
            self.refuse(f"among {what} are values that are infinite, not numbers or negative")
        return values.astype(np.float32, copy=False)

    def _advance(self, wanted: int, got: int) -> None:
        self._at += got
        if got < wanted:
            self.refuse("it became shorter while it was read")


def read_imatrix(path: Path) -> ImportanceMatrix:
    """The importance matrix in the file at `path`, of either form.

    Raises UsageError when there is no such file, or it is a folder, a device or another kind of GGUF;
    QuantizeError when it is unreadable, truncated, malformed, or has values that are not finite or are
    negative. Takes memory for the values that the file holds, whatever counts it declares.
    """
    try:
        _require_file(path)
        with path.open("rb") as file:
            source = _Source(file, path)
            return _read_gguf(source) if _is_gguf(source) else _read_legacy(source)
    except (FileNotFoundError, NotADirectoryError):
        raise UsageError(f"there is no file {path}", "Check the path") from None
    except OSError as error:
        what = f"cannot read {path}: {error.strerror or error}"
        raise QuantizeError(what, "Check its rights and its disk") from error


def _require_file(path: Path) -> None:
    # Before opening: to open a named pipe would wait for a writer.
    kind = "not a file" if "\0" in str(path) else ""
    if not kind and not file_kinds.is_regular(mode := path.stat().st_mode):
        kind = file_kinds.describe(mode)
    if kind:
        raise UsageError(f"{str(path)!r} is {kind}, not an importance matrix", "Give the file itself")


def _is_gguf(source: _Source) -> bool:
    """Whether the file is of the GGUF form; refuses what is of neither form at first sight."""
    start = source.take(min(len(_LFS_POINTER), source.size), "the start")
    source.seek(0)
    if not start:
        raise QuantizeError(f"{source.path} is empty", _MAKE_AGAIN)
    if start == _LFS_POINTER:
        raise QuantizeError(
            f"{source.path} is a git-lfs pointer, not the file itself", "Run `git lfs pull` in its repository"
        )
    if start.startswith(b"GGUF"):
        return True
    if source.size >= 4 and not 1 <= struct.unpack("<i", start[:4])[0] <= MAX_ENTRIES:
        raise QuantizeError(f"{source.path} is not an importance matrix", _MAKE_ONE)
    _require_size(source)
    return False


def _require_size(source: _Source) -> None:
    if source.size > MAX_BYTES:
        source.refuse(f"it is larger than {MAX_BYTES >> 30} GiB")


def _check_name(name: str, source: _Source) -> None:
    if not name.isprintable():
        source.refuse(f"the name {name!r} has characters that cannot be printed")


def _check_dataset(name: str, source: _Source) -> None:
    # Not `isprintable`: a file may well have an unusual space or a joiner in its name.
    if len(name) > _MAX_DATASET or any(unicodedata.category(char) == "Cc" for char in name):
        source.refuse("the name of a dataset is too long or has control characters")


# The GGUF form


def _read_gguf(source: _Source) -> ImportanceMatrix:
    header = _header(source.path)
    pairs = _pairs(header, source)
    if not pairs and header.text("general.type") != "imatrix":
        what = "a model" if header.architecture else "a GGUF file of another kind"
        raise UsageError(f"{source.path} is {what}, not an importance matrix", _MAKE_ONE)
    _require_size(source)
    if not 1 <= len(pairs) <= MAX_ENTRIES:
        source.refuse(f"it has {len(pairs)} entries; 1 to {MAX_ENTRIES} are possible")
    chunks, datasets = _metadata(header, source)
    _require_end(header, source)
    weights = {name: _means(name, pair, header, source) for name, pair in pairs.items()}
    return ImportanceMatrix(source.path, datasets, chunks, weights)


def _header(path: Path) -> Header:
    try:
        return read_header(path)
    except ModelNotFound as error:
        raise UsageError(error.message, error.hint) from error
    except ModelFileError as error:
        raise QuantizeError(error.message, _MAKE_AGAIN) from error


def _pairs(header: Header, source: _Source) -> dict[str, dict[str, TensorInfo]]:
    """The tensors of each entry by their suffix. Other tensors are passed over, as llama.cpp does."""
    pairs: dict[str, dict[str, TensorInfo]] = {}
    for tensor in header.tensors:
        for suffix in (_SUMS, _COUNTS):
            name = tensor.name.removesuffix(suffix)
            if name and name != tensor.name:
                _check_name(name, source)
                pairs.setdefault(name, {})[suffix] = tensor
    return pairs


def _metadata(header: Header, source: _Source) -> tuple[int, tuple[str, ...]]:
    """The number of chunks and the names of the datasets."""
    missing = [key for key in (_DATASETS, _CHUNKS, _CHUNK_SIZE) if key not in header.metadata]
    if missing:
        source.refuse(f"its metadata lacks {', '.join(missing)}")
    if not (0 <= header.integer(_CHUNKS, -1) < 1 << 31 and 0 <= header.integer(_CHUNK_SIZE, -1) < 1 << 32):
        source.refuse(f"{_CHUNKS} or {_CHUNK_SIZE} is not a possible number")
    value = header.metadata[_DATASETS]
    # The reader of headers passes over longer arrays.
    if not isinstance(value, tuple):
        source.refuse(f"{_DATASETS} is not a list of up to {_MAX_DATASETS} names")
    datasets = tuple(item for item in value if isinstance(item, str))
    if len(datasets) < len(value):
        source.refuse(f"{_DATASETS} has items that are not text")
    for name in datasets:
        _check_dataset(name, source)
    return header.integer(_CHUNKS), datasets


def _require_end(header: Header, source: _Source) -> None:
    """The data must be there with the padding of the last tensor, or llama.cpp would not read it."""
    last = header.tensors[-1]
    source.seek(header.data_offset)
    source.expect(last.offset + last.size + -last.size % header.alignment, "the data")


def _means(name: str, pair: dict[str, TensorInfo], header: Header, source: _Source) -> NDArray[np.float32]:
    if pair.keys() != {_SUMS, _COUNTS}:
        source.refuse(f"{name!r} does not have both its sums and its counts")
    sums, counts = pair[_SUMS], pair[_COUNTS]
    if not sums.type_name == counts.type_name == "F32":
        source.refuse(f"{name!r} has the types {sums.type_name} and {counts.type_name}; both must be F32")
    if sums.elements % counts.elements:
        source.refuse(f"{name!r} has {sums.elements} sums for {counts.elements} counts")
    tokens = _tokens(name, counts, header, source)
    source.seek(header.data_offset + sums.offset)
    # One row per expert.
    means = source.floats(sums.elements, repr(name)).reshape(counts.elements, -1)
    means /= np.maximum(tokens, np.float32(1))[:, None]
    # What no token reached is as important as anything.
    means[tokens == 0] = 1
    means.flags.writeable = False
    return means.reshape(-1)


def _tokens(name: str, counts: TensorInfo, header: Header, source: _Source) -> NDArray[np.float32]:
    """The counts, rounded to whole numbers: halves away from zero, as C's lround does."""
    source.seek(header.data_offset + counts.offset)
    values = source.floats(counts.elements, f"the counts of {name!r}")
    if (values > _MAX_COUNT).any():
        source.refuse(f"{name!r} has impossible counts")
    # In double precision the half is added exactly.
    return np.floor(values.astype(np.float64) + 0.5).astype(np.float32)


# The older form: i32 entries, then for each i32 length, name, i32 calls, i32 values, f32 values


def _read_legacy(source: _Source) -> ImportanceMatrix:
    count = source.i32("the number of entries")
    source.expect(count * _LEAST_ENTRY, f"the least for {count} entries")
    weights: dict[str, NDArray[np.float32]] = {}
    for _ in range(count):
        name = _legacy_name(source)
        if name in weights:
            source.refuse(f"{name!r} is there twice")
        weights[name] = _legacy_means(name, source)
    chunks, datasets = _legacy_end(source)
    return ImportanceMatrix(source.path, datasets, chunks, weights)


def _legacy_name(source: _Source) -> str:
    length = source.i32("the length of a name")
    if not 1 <= length <= _MAX_NAME:
        source.refuse(f"a name is {length} bytes long; 1 to {_MAX_NAME} are possible")
    try:
        name = source.take(length, "a name").decode("utf-8")
    except UnicodeDecodeError:
        source.refuse("a name is not UTF-8")
    _check_name(name, source)
    return name


def _legacy_means(name: str, source: _Source) -> NDArray[np.float32]:
    calls = source.i32(f"the calls of {name!r}")
    count = source.i32(f"the length of {name!r}")
    if calls < 0 or count < 1:
        source.refuse(f"{name!r} has {count} values from {calls} calls")
    means = source.floats(count, repr(name))
    if calls:
        means /= np.float32(calls)
    means.flags.writeable = False
    return means


def _legacy_end(source: _Source) -> tuple[int, tuple[str, ...]]:
    """The number of chunks and the dataset; a file may end before either, as llama.cpp allows."""
    chunks = source.i32("the number of chunks") if source.remaining else 0
    length = source.i32("the length of the dataset's name") if source.remaining else 0
    if chunks < 0 or length < 0:
        source.refuse(f"it has {chunks} chunks and a dataset with a name of {length} bytes")
    if length > _MAX_DATASET:
        source.refuse(f"the name of its dataset takes {length} bytes")
    name = source.take(length, "the dataset's name").decode("utf-8", "replace")
    _check_dataset(name, source)
    if source.remaining:
        source.refuse(f"{source.remaining} bytes come after its end")
    return chunks, (name,) if name else ()
