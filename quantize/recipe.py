"""Recipes: the type of every matrix of a model, what that was found for, and how good it is.

    recipe = read(Path("model.recipe.json"))
    patterns(recipe.mixture.types)      # the same as rules for llama-quantize's --tensor-type

A recipe holds for each model of its architecture: of as many layers, tensor by tensor; of another number, by
relative depth, first to first and last to last. Files of others are untrusted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from localai.errors import QuantizeError, UsageError
from models.figures import Amount, Loss
from models.ggml_types import WRITABLE
from models.header import Header
from models.mixture import EMBEDDING, OUTPUT, Mixture
from models.origins import Count, MaybeSha256
from quantize import file_kinds
from quantize.file_types import FILE_TYPES, TERNARY
from quantize.output_file import write_all
from quantize.partials import Partial, system_errors
from quantize.protocol import Candidate

MAX_BYTES: Final = 8 << 20
"""Largest file that is read; a model of 126 layers has 60 kB."""
SUFFIX: Final = ".recipe.json"

_NEEDY: Final = {"IQ3_XXS", "IQ3_XS", "IQ2_M", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"}
"""File types, and types of tensors, that need an importance matrix."""
_NEVER: Final = {"F32", "F16", "BF16", "Q2_K_S", *TERNARY}
"""Q2_K_S: as a file type it makes llama.cpp ask for an importance matrix for Q2_K, too."""
_BLOCK: Final = re.compile(r"blk\.(\d{1,4})\.(.+)")
_NAME: Final = re.compile(r"[a-z0-9_.]{1,63}")

Line = Annotated[str, msgspec.Meta(max_length=500, pattern=r"\A[^\x00-\x1f\x7f]*\Z")]


class Recipe(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A mixture of types, and what is known of it."""

    format: Literal["localai-recipe"] = "localai-recipe"
    version: Literal[1] = 1
    made_for: Line
    """What it was found for, as it was called."""
    size: Count
    """Bytes of the file that was made with it."""
    bits_per_weight: Amount
    expected_kl: Amount | None = None
    """What its choice was based on: the mean KL divergence in nats, put together from single measurements."""
    loss: Loss | None = None
    """What the file has lost, measured on a text that the choice did not see."""
    imatrix_sha256: MaybeSha256 = ""
    text: Line = ""
    """The name of the text on which the choice was measured."""
    text_sha256: MaybeSha256 = ""
    program: Line = ""
    """The version of this program."""
    llama_cpp: Line = ""
    """The commit of llama.cpp."""
    made: Line = ""
    """When, in UTC, as ISO 8601."""
    mixture: Mixture

    def encode(self) -> bytes:
        """As JSON for a file that people may read."""
        return msgspec.json.format(msgspec.json.encode(self), indent=2) + b"\n"


class _Head(msgspec.Struct):
    """What each version of the file has."""

    format: str = ""
    version: int = 0


# ------------------------------------------------------------------------------------------------- files


def read(path: Path) -> Recipe:
    """The recipe in the file at `path`.

    UsageError where there is no such file, or it is something else; QuantizeError if it is malformed.
    """
    try:
        if not file_kinds.is_regular(mode := path.stat().st_mode):
            raise UsageError(f"{path} is {file_kinds.describe(mode)}, not a recipe", "Give the file itself")
        with path.open("rb") as file:
            return parse(file.read(MAX_BYTES + 1), str(path))
    except (FileNotFoundError, NotADirectoryError, ValueError):  # ValueError: a zero byte in the path
        raise UsageError(f"there is no file {str(path)!r}", "Check the path") from None
    except OSError as error:
        raise QuantizeError(
            f"cannot read {path}: {error.strerror or error}", "Check its rights and its disk"
        ) from error


def parse(data: bytes, called: str) -> Recipe:
    """The recipe that `data`, which errors call `called`, holds; UsageError or QuantizeError."""
    _require_known(data, called)
    try:
        return msgspec.json.decode(data, type=Recipe)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise QuantizeError(f"{called} is not a valid recipe: {error}", _MAKE_ONE) from error


def _require_known(data: bytes, called: str) -> None:
    """UsageError if `data` is something else than a recipe, QuantizeError if it is one of a later version."""
    try:
        head = msgspec.json.decode(data, type=_Head)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise UsageError(f"{called} is not a recipe: {error}", _MAKE_ONE) from error
    if head.format != "localai-recipe" or len(data) > MAX_BYTES:
        raise UsageError(f"{called} is not a recipe", _MAKE_ONE)
    if head.version > 1:
        raise QuantizeError(
            f"{called} is a recipe of version {head.version}, which this program does not know",
            "Use a newer version of localai",
        )


def beside(model: Path) -> Path:
    """Where the recipe of the file `model` is kept: model.recipe.json beside model.gguf."""
    stem = model.name[: -len(".gguf")] if model.name.lower().endswith(".gguf") else model.name
    return model.with_name(stem + SUFFIX)


def write(recipe: Recipe, path: Path, *, overwrite: bool) -> None:
    """Write `recipe` to `path`, whole or not at all; raises as `Partial` does."""
    with Partial(path, overwrite=overwrite) as partial:
        with system_errors(path):
            write_all(partial.fd, recipe.encode(), 0)
        partial.commit()


# ------------------------------------------------------------------------------------------------- types


def name_for(bits_per_weight: float) -> str:
    """What a mixture is called where the name of a file type would stand."""
    return f"mixed-{bits_per_weight:.1f}"


def nearest_file_type(kinds: Iterable[str], size: int, candidates: Sequence[Candidate]) -> str:
    """The file type of `candidates` whose file is nearest to `size` bytes: what llama.cpp shall take it for.

    None that needs an importance matrix, unless one of `kinds`, the types of the tensors, needs one anyway;
    no float, and none of the types for ternary models.
    """
    left_out = _NEVER if not _NEEDY.isdisjoint(kinds) else _NEVER | _NEEDY
    suited = FILE_TYPES.keys() - left_out
    found = [one for one in candidates if one.file_type in suited]
    return min(found, key=lambda one: abs(one.size - size)).file_type


def for_model(mixture: Mixture, architecture: str, layers: int, tensors: Iterable[str]) -> dict[str, str]:
    """The type of each of `tensors`, the matrices of a model of `architecture` with so many `layers`.

    With as many layers as the mixture's, those of the same names; else those of the layer at the same
    relative depth. What it has nothing for gets the type of the token embeddings; where only one of the two
    models has an output matrix of its own, the embeddings are the output, and get the type of that.
    UsageError for another architecture. Whether the types fit the tensors' columns is not known here.
    """
    if architecture != mixture.architecture:
        raise UsageError(
            f"the recipe {mixture.name} is for models of the architecture {mixture.architecture}, "
            f"and this is one of {architecture}",
            "Have one made for it: --optimize --max-size SIZE",
        )
    names = list(tensors)
    rest = mixture.types[EMBEDDING]
    found = {name: mixture.types.get(_donor(name, mixture.layers, layers), rest) for name in names}
    if OUTPUT not in names and EMBEDDING in found:
        found[EMBEDDING] = mixture.types.get(OUTPUT, rest)
    return found


def _donor(name: str, donors: int, layers: int) -> str:
    """The tensor of a model with `donors` layers that stands where `name` stands in one with `layers`."""
    match = _BLOCK.fullmatch(name)
    if match is None or donors == layers:
        return name
    spans = max(1, layers - 1)
    layer = (2 * int(match[1]) * (donors - 1) + spans) // (2 * spans)  # halves are rounded up
    return f"blk.{layer}.{match[2]}"


def of_file(mixture: Mixture, header: Header) -> Mixture:
    """`mixture` as it came out in the file with this `header`: what it takes to make that file again."""
    types = {
        tensor.name: tensor.type_name
        for tensor in header.tensors
        if len(tensor.shape) > 1 and tensor.type_name in WRITABLE and _NAME.fullmatch(tensor.name)
    }
    return msgspec.structs.replace(mixture, layers=max(1, header.block_count), types=types)


def patterns(types: Mapping[str, str]) -> tuple[tuple[str, int], ...]:
    """Rules for `--tensor-type`, here and in llama-quantize: few, and each is about whole names.

    Regular expressions that mean the same in Python and in C++ (ECMAScript), and ggml's numbers.
    """
    return tuple(
        (_pattern(part, layers, alone=len(by_kind) == 1), WRITABLE[kind])
        for part, by_kind in grouped(types).items()
        for kind, layers in by_kind.items()
    )


def grouped(types: Mapping[str, str]) -> dict[str, dict[str, list[int]]]:
    """The layers of each type for each part of a layer: {"ffn_up.weight": {"Q4_K": [0, 2], "Q6_K": [1]}}.

    A tensor outside of the layers has its whole name as the part, and no layers.
    """
    found: dict[str, dict[str, list[int]]] = {}
    for name, kind in types.items():
        match = _BLOCK.fullmatch(name)
        layers = found.setdefault(match[2] if match else name, {}).setdefault(kind, [])
        if match:
            layers.append(int(match[1]))
    return found


def _pattern(part: str, layers: list[int], *, alone: bool) -> str:
    escaped = part.replace(".", r"\.")
    if not layers:
        return f"^{escaped}$"
    numbers = "[0-9]+" if alone and len(layers) > 1 else "|".join(map(str, sorted(layers)))
    numbers = f"({numbers})" if "|" in numbers else numbers
    return rf"^blk\.{numbers}\.{escaped}$"


_MAKE_ONE = "Have one made: localai quantize MODEL --optimize --max-size SIZE"
