"""Which files of a repository make up a checkpoint that `quantize` reads: never code, never a pickle."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Final

from localai.errors import CheckpointError, FetchError, ModelNotFound, UnsupportedModel
from models.fetch.listing import Listing
from models.fetch.protocol import Listed
from models.header import printable
from models.remote_names import checked

INDEX: Final = "model.safetensors.index.json"
_SMALL: Final = (
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "chat_template.json",
    "README.md",
)
"""What `quantize` reads beside the weights, where it is there."""
_MAX_SMALL: Final = 256 * 1024 * 1024
_MAX_INDEX: Final = 32 * 1024 * 1024
_MOST_SHARDS: Final = 1000

Read = Callable[[Listed], bytes]


def choose(listing: Listing, read: Read) -> list[str]:
    """The paths of the checkpoint's files, the small ones first. `read` fetches one of the small ones.

    ModelNotFound, CheckpointError or UnsupportedModel if there is no checkpoint that can be quantized.
    """
    files = listing.files
    if "config.json" not in files:
        raise ModelNotFound(
            f"{listing.repository} has no config.json, so it is not a model checkpoint",
            "Name the publisher's own repository, or a type of a repository with GGUF files",
        )
    if "modules.json" in files:
        raise UnsupportedModel(
            f"{listing.repository} is an embedding model of sentence-transformers",
            "Models that chat can be quantized",
        )
    weights = _from_index(listing, read) if INDEX in files else _without_index(listing)
    small = [path for path in (*_SMALL, INDEX) if path in files]
    for path in small:
        if files[path].size > _MAX_SMALL:
            raise CheckpointError(
                f"{path} of {listing.repository} is too large to be what it is called", "Choose another"
            )
    return small + weights


def _from_index(listing: Listing, read: Read) -> list[str]:
    if listing.files[INDEX].size > _MAX_INDEX:
        raise CheckpointError(f"{INDEX} of {listing.repository} is too large to be one", "Choose another")
    try:
        weight_map = json.loads(read(listing.files[INDEX]))["weight_map"]
        names = sorted(set(weight_map.values()))
        if not names or len(names) > _MOST_SHARDS or not all(isinstance(name, str) for name in names):
            raise ValueError("no list of files")
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError) as error:
        raise CheckpointError(
            f"{INDEX} of {listing.repository} is not an index of weights: {printable(str(error))}",
            "Choose another",
        ) from error
    for name in names:
        if checked(name).name != name or not name.endswith(".safetensors"):
            raise CheckpointError(
                f"{INDEX} of {listing.repository} names {printable(name)!r}, no safetensors file beside it",
                "Do not use this repository: a proper index names only files beside it",
            )
    if missing := [name for name in names if name not in listing.files]:
        raise FetchError(
            f"{listing.repository} lacks {len(missing)} of {len(names)} files: {printable(missing[0])}",
            "Tell its publisher, or choose another revision",
        )
    return names


def _without_index(listing: Listing) -> list[str]:
    names = sorted(
        path
        for path in listing.files
        if path.startswith("model") and path.endswith(".safetensors") and "/" not in path
    )
    if names:
        return names
    pickles = [path for path in listing.files if path.endswith((".bin", ".pt", ".pth"))]
    if pickles:
        raise CheckpointError(
            f"{listing.repository} has only pickled weights ({printable(pickles[0])}), which are refused",
            "Reading them can run code that they carry: choose a repository with safetensors",
        )
    raise ModelNotFound(
        f"{listing.repository} has no safetensors weights", "Name the publisher's own repository"
    )
