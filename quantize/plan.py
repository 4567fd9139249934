"""What will be written: the type and the place of each tensor in each output, to the byte.

llama.cpp decides the types (`localai.engine.quants`). It is shown a file with the model's hyper-parameters
and the shapes of its tensors and nothing behind them: a sparse one, which takes no room.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import numpy as np
from gguf import GGML_QUANT_VERSION
from numpy.typing import NDArray

from localai.engine import quants
from localai.errors import QuantizeError, UsageError
from models.ggml_types import TENSOR_TYPES
from models.gguf import read_header
from models.header import Header
from models.mixture import Mixture
from quantize import gguf_file, recipe
from quantize.file_types import FILE_TYPES, output_type
from quantize.gguf_file import Entry, Layout, Metadata
from quantize.imatrix import ImportanceMatrix
from quantize.source import FLOAT_TYPES, Source, Tensor

# As in llama-quantize: these types of layers' matrices are garbage without an importance matrix.
_NEEDS_IMPORTANCE = {"IQ3_XXS", "IQ2_XXS", "IQ2_XS", "IQ2_S", "IQ1_M", "IQ1_S"}
_FREE = {"token_embd.weight", "output.weight"}
_LONGEST = 127
"""Bytes of a text that llama-quantize takes over into the file."""


@dataclass(frozen=True)
class Options:
    """What changes the types, besides the file type; llama-quantize has options of these names."""

    pure: bool = False
    output_type: int | None = None
    embedding_type: int | None = None
    tensor_types: tuple[tuple[str, int], ...] = ()
    imatrix: str = ""
    """The importance matrix, as the user called its file."""
    mixtures: tuple[Mixture, ...] = ()
    """Types by tensor. They, and nothing of the above but `imatrix`, count for outputs of their names."""


@dataclass(frozen=True)
class Output:
    """One file to be written: for each tensor its ggml type, in the order in which they lie in the file.

    `direct`: weights go straight from the checkpoint's type to the output's, as llama.cpp's converter does
    it, and not through the precision of the whole checkpoint, as llama-quantize does.
    """

    file_type: str
    """As llama.cpp calls it."""
    name: str
    """That of a mixture, or the file type again."""
    types: dict[str, int]
    layout: Layout
    direct: bool
    needs_importance: bool
    """Whether it cannot be made: it needs an importance matrix, and there is none, or not of each tensor."""


class Planner:
    """Plans outputs of one source. Use it as what `planner` yields."""

    def __init__(self, source: Source, options: Options, importance: ImportanceMatrix | None, bare: Path):
        self._source = source
        self._options = options
        self._importance = importance
        self.bare = bare
        self._tensors = {tensor.name: tensor for tensor in source.tensors}

    @cached_property
    def header(self) -> Header:
        """That of the model in its own precision, without its vocabulary."""
        return read_header(self.bare)

    @cached_property
    def matrices(self) -> list[str]:
        """The tensors that llama.cpp quantizes: those whose type depends on which floats are asked for."""
        half, full = (self._asked(quants.Recipe(FILE_TYPES[name])).types for name in ("F16", "F32"))
        return [name for name in half if half[name] != full[name]]

    @property
    def names(self) -> list[str]:
        """All that `output` knows: the mixtures, then the file types, best first."""
        return [*(mixture.name for mixture in self._options.mixtures), *FILE_TYPES]

    def output(self, name: str) -> Output:
        """The file of the type `name`, which may be a mixture's.

        UsageError if llama.cpp does not understand a pattern, or if the mixture is for other models.
        """
        mixture = next((one for one in self._options.mixtures if one.name == name), None)
        if mixture is None:
            return self._output(name, name, self._recipe(name))
        types = recipe.for_model(mixture, self._source.architecture, self.header.block_count, self.matrices)
        file_type = output_type(mixture.file_type)
        rules = recipe.patterns(types)
        return self._output(name, file_type, quants.Recipe(FILE_TYPES[file_type], tensor_types=rules))

    def _output(self, name: str, file_type: str, how: quants.Recipe) -> Output:
        asked = self._asked(how)
        if asked.types.keys() != self._tensors.keys():
            raise QuantizeError(
                "this llama.cpp tells its plan in words that are not understood",
                "Install the llama-cpp-python that pyproject.toml names: make clean install",
            )
        direct = file_type in FLOAT_TYPES and not self._source.is_gguf and not self._importance
        order = list(self._tensors) if direct else list(asked.types)
        types = {name: asked.types[name] for name in order}
        return Output(
            file_type=file_type,
            name=name,
            types=types,
            layout=Layout(self._metadata(file_type, direct), self._entries(types)),
            direct=direct,
            needs_importance=self._lacks(types, file_type) if self._importance else asked.needs_importance,
        )

    def _lacks(self, types: Mapping[str, int], file_type: str) -> bool:
        """Whether there is an importance matrix without a tensor that has to have one to be of its type."""
        known = self._importance.weights if self._importance else {}
        return any(
            name not in known and needs_importance(name, number, file_type) for name, number in types.items()
        )

    def plain_output(self, file_type: str) -> Output:
        """The same without an importance matrix and options."""
        return Planner(self._source, Options(), None, self.bare).output(file_type)

    def _asked(self, how: quants.Recipe) -> quants.TypePlan:
        importance = self._importance.weights if self._importance else {}
        try:
            return quants.plan_types(self.bare, how, importance)
        except QuantizeError as error:
            if not how.tensor_types:
                raise
            quants.plan_types(self.bare, replace(how, tensor_types=()), importance)
            patterns = ", ".join(repr(pattern) for pattern, _ in how.tensor_types)
            reason = error.message.rpartition(": ")[2]
            raise UsageError(
                f"llama.cpp does not understand --tensor-type {patterns}: {reason}",
                "Give regular expressions, such as 'blk\\.[0-3]\\.ffn_down=Q6_K'",
            ) from error

    def _recipe(self, file_type: str) -> quants.Recipe:
        o = self._options
        return quants.Recipe(FILE_TYPES[file_type], o.pure, o.output_type, o.embedding_type, o.tensor_types)

    def _entries(self, types: Mapping[str, int]) -> list[Entry]:
        tensors = self._tensors
        return [
            Entry(name, tensors[name].shape, number, tensors[name].bytes_as(number))
            for name, number in types.items()
        ]

    def _metadata(self, file_type: str, direct: bool) -> Metadata:
        """As the converter writes it; or as llama-quantize changes it, which puts what it sets last."""
        number = gguf_file.u32(FILE_TYPES[file_type])
        if direct:
            return {**self._source.metadata, "general.file_type": number}
        changed = {
            "general.quantization_version": gguf_file.u32(GGML_QUANT_VERSION),
            "general.file_type": number,
            **_importance_metadata(self._importance, self._options.imatrix),
        }
        kept = {key: value for key, value in self._source.metadata.items() if key not in changed}
        return {**kept, **changed}


def _importance_metadata(importance: ImportanceMatrix | None, named: str) -> Metadata:
    if importance is None:
        return {}
    found = {"quantize.imatrix.file": gguf_file.text(os.fsencode(named)[:_LONGEST])}
    if importance.datasets:
        found["quantize.imatrix.dataset"] = gguf_file.text(importance.datasets[0].encode()[:_LONGEST])
    found["quantize.imatrix.entries_count"] = gguf_file.u32(len(importance.weights))
    if importance.chunks > 0:
        found["quantize.imatrix.chunks_count"] = gguf_file.u32(importance.chunks)
    return found


@contextmanager
def planner(source: Source, options: Options, importance: ImportanceMatrix | None) -> Iterator[Planner]:
    """A planner for `source`; what llama.cpp looks at for it goes away afterwards.

    UsageError if `options` have a rule that is about no tensor of it.
    """
    _require_matches(source, options)
    entries = [Entry(t.name, t.shape, t.base, t.bytes_as(t.base)) for t in source.tensors]
    model = {key: value for key, value in source.metadata.items() if not key.startswith("tokenizer.")}
    bare = Layout(model, entries)
    with _sparse_file(bare) as path:
        yield Planner(source, options, importance, path)


def _require_matches(source: Source, options: Options) -> None:
    for pattern, _ in options.tensor_types:
        with suppress(re.error):  # llama.cpp's expressions are another dialect: it is asked later
            if not any(re.search(pattern, tensor.name) for tensor in source.tensors):
                raise UsageError(
                    f"--tensor-type {pattern!r} matches no tensor",
                    "They are called token_embd.weight, output.weight, blk.0.attn_v.weight and so on",
                )


@contextmanager
def _sparse_file(bare: Layout) -> Iterator[Path]:
    """A file with the header of `bare` and the length of its data, which is not there."""
    if hasattr(os, "memfd_create"):  # Linux: it has no name on any disk
        handle = os.memfd_create("localai-plan")
        with os.fdopen(handle, "wb", buffering=0) as file:
            file.write(bare.header())
            file.truncate(bare.nbytes)
            yield Path(f"/proc/self/fd/{handle}")
        return
    with tempfile.TemporaryDirectory(prefix="localai-") as folder:
        path = Path(folder, "plan.gguf")
        with path.open("wb") as file:
            file.write(bare.header())
            file.truncate(bare.nbytes)
        yield path


def importance_of(
    tensor: Tensor, number: int, file_type: str, importance: ImportanceMatrix | None, called: str = ""
) -> NDArray[np.float32] | None:
    """The weights of the columns of `tensor` when it becomes the type `number`; None: quantize without.

    QuantizeError where the type needs them and they are missing, or if they are of another model. `called`:
    how it calls the output, if not by its `file_type`.
    """
    found = importance.weights.get(tensor.name) if importance else None
    columns = tensor.shape[-1]
    if found is not None and importance is not None and found.size != columns:
        if tensor.name != "token_embd.weight":
            raise QuantizeError(
                f"the importance matrix {importance.path} has {found.size} values for {tensor.name}, "
                f"which has {columns} columns",
                "It is the importance matrix of another model",
            )
        found = None
    if found is None and needs_importance(tensor.name, number, file_type):
        kind = TENSOR_TYPES[number].name
        if importance is None:
            raise QuantizeError(
                f"{called or file_type} needs an importance matrix, for {kind} in {tensor.name}",
                "Have one made with --imatrix auto, or choose a type that needs none, such as Q2_K or IQ4_XS",
            )
        raise QuantizeError(
            f"the importance matrix {importance.path} has nothing for {tensor.name}, which {kind} needs",
            "Make the importance matrix again from a longer text, or choose another type",
        )
    return found


def needs_importance(name: str, number: int, file_type: str = "") -> bool:
    """Whether the tensor `name` cannot become the type `number`, in a file of `file_type`, without it."""
    if quants.requires_importance(number):
        return True
    kind = TENSOR_TYPES[number].name
    return name not in _FREE and (kind in _NEEDS_IMPORTANCE or (kind == "Q2_K" and file_type == "Q2_K_S"))
