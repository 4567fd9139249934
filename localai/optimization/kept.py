"""What was measured of groups of matrices before: an optimization that was stopped goes on where it was."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final, NamedTuple

import msgspec

from localai import paths
from models.figures import Amount

FORMAT: Final = 1
_MOST_BYTES: Final = 16 << 20


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What the figures depend on, but for the last digits."""

    base: str
    """The model's file, as `localai.evaluation.kept.identity` says it."""
    text: str
    """SHA-256 of the text."""
    context: int
    chunks: int
    imatrix: str
    """What tells the importance matrix from others."""
    llama_cpp_commit: str
    format: int = FORMAT

    @property
    def path(self) -> Path:
        """Where they lie."""
        name = hashlib.sha256(msgspec.json.encode(self)).hexdigest()
        return paths.data_dir() / "evaluations" / f"{name}.losses"


class Measured(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the model lost with a group of matrices in one type."""

    tensors: tuple[str, ...]
    type: int
    """ggml's number."""
    kl: Amount
    kl_stderr: Amount


class Begun(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Into how many groups the matrices were divided."""

    most: Annotated[int, msgspec.Meta(gt=0)]
    """As of `groups.groups`."""


class Kept(NamedTuple):
    """What one file holds."""

    most: int
    """Of the latest division; 0: there is none."""
    measured: dict[tuple[tuple[str, ...], int], Measured]
    """By tensors and type."""


def load(path: Path) -> Kept:
    """What is there. A line that is nothing, such as the last after a crash, is left out."""
    most, found = 0, dict[tuple[tuple[str, ...], int], Measured]()
    with suppress(OSError), path.open("rb") as file:
        for line in file.read(_MOST_BYTES).splitlines():
            with suppress(msgspec.MsgspecError):
                one = msgspec.json.decode(line, type=Measured)
                found[one.tensors, one.type] = one
                continue
            with suppress(msgspec.MsgspecError):
                most = msgspec.json.decode(line, type=Begun).most
    return Kept(most, found)


def add(path: Path, one: Measured | Begun) -> None:
    """Keep one more. Where it cannot be written, only going on from here is lost."""
    with suppress(OSError):
        paths.private_dir(path.parent)
        with path.open("ab", buffering=0) as file:
            file.write(b"\n" + msgspec.json.encode(one) + b"\n")
