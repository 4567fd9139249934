"""Which of the files of a repository are meant by a type: found by their names, as everybody calls them.

Names are `MODEL-TYPE.gguf` or `MODEL.TYPE.gguf`, and of a model in several files
`MODEL-TYPE-00001-of-00003.gguf`, perhaps in a folder. What only belongs to a model (projectors, importance
matrices) is passed over.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from localai.errors import FetchError, ModelNotFound, UsageError
from models.fetch.listing import Listing
from models.ggml_types import FILE_TYPES
from models.header import printable
from models.names import nearest
from models.parts import name_of_part, number_of, stem_of

_NOT_MODELS: Final = ("mmproj", "imatrix", "tokenizer", "vocab-only")
_TYPE = re.compile(
    r"(?i)(?:^|[-._/])((?:UD-)?(?:I?Q\d(?:_[0-9A-Z]+)*|TQ\d_\d|BF16|F16|F32|MXFP4(?:_MOE)?|NVFP4))(?=$|[-._])"
)
_MOST_SHOWN: Final = 12


def choose(listing: Listing, file_type: str, path: str) -> list[str]:
    """The paths of the one model that is meant, its parts in order. ModelNotFound, with what there is."""
    models = _models(listing)
    if path:
        return _by_path(listing, models, path)
    if not models:
        raise _no_gguf(listing)
    wanted = file_type.upper()
    if wanted and wanted not in FILE_TYPES.values() and not _TYPE.fullmatch(wanted):
        raise UsageError(
            f"{printable(file_type)!r} is not a type of GGUF files", f"There are: {_types(models)}"
        )
    found = [parts for stem, parts in models.items() if not wanted or type_of(stem) == wanted]
    if len(found) == 1:
        return _whole(listing, found[0])
    if not found:
        raise ModelNotFound(
            f"{listing.repository} has no file of the type {wanted}", f"It has: {_types(models)}"
        )
    if not wanted:
        raise ModelNotFound(f"{listing.repository} has {len(found)} models", f"Name a type: {_types(models)}")
    raise ModelNotFound(
        f"{listing.repository} has {len(found)} files of the type {wanted}",
        f"Name one by its path: {_shown([parts[0] for parts in found])}",
    )


def type_of(stem: str) -> str:
    """The type that a name ends in, such as "Q4_K_M"; "" if it says none."""
    found = _TYPE.findall(stem)
    return str(found[-1]).upper() if found else ""


def _models(listing: Listing) -> dict[str, list[str]]:
    """The GGUF files by their names without the ending and without the number of the part."""
    models: dict[str, list[str]] = {}
    for path in sorted(listing.files):
        name = path.rpartition("/")[2].lower()
        if name.endswith(".gguf") and not any(word in name for word in _NOT_MODELS):
            models.setdefault(stem_of(path.removesuffix(path[-5:]) + ".gguf"), []).append(path)
    return models


def _by_path(listing: Listing, models: dict[str, list[str]], path: str) -> list[str]:
    if path not in listing.files:
        close = nearest(path, [one for parts in models.values() for one in parts])
        raise ModelNotFound(
            f"{listing.repository} has no file {printable(path)} at {listing.commit}",
            f"Did you mean {_shown(close)}?" if close else f"It has: {_types(models)}",
        )
    if not path.lower().endswith(".gguf"):
        raise UsageError(f"{printable(path)} is not a GGUF file", f"Choose one: {_types(models)}")
    parts = next((parts for parts in models.values() if path in parts), [path])
    return _whole(listing, parts)


def _whole(listing: Listing, parts: list[str]) -> list[str]:
    """`parts` of one model in order, all of them. FetchError if one is missing."""
    number = number_of(parts[0])
    if number is None:
        return parts
    stem, count = stem_of(parts[0]), number[1]
    needed = [name_of_part(stem, i, count) for i in range(1, min(count, 99_999) + 1)]
    if missing := [path for path in needed if path not in listing.files]:
        raise FetchError(
            f"{listing.repository} lacks {len(missing)} of {count} parts, such as {printable(missing[0])}",
            "Tell its publisher, or choose another type or revision",
        )
    return needed


def _no_gguf(listing: Listing) -> ModelNotFound:
    has_weights = any(path.endswith(".safetensors") for path in listing.files)
    hint = (
        "It has safetensors, which can be quantized here: --from-source" if has_weights else "Choose another"
    )
    return ModelNotFound(f"{listing.repository} has no GGUF files", hint)


def _types(models: dict[str, list[str]]) -> str:
    return ", ".join(
        list(dict.fromkeys(type_of(stem) or printable(stem, 60) for stem in models))[: 3 * _MOST_SHOWN]
    )


def _shown(paths: Sequence[str]) -> str:
    more = f" and {len(paths) - _MOST_SHOWN} more" if len(paths) > _MOST_SHOWN else ""
    return ", ".join(printable(path, 120) for path in paths[:_MOST_SHOWN]) + more
