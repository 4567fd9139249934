"""What was measured before: a file for each evaluation, to which each chunk is added when it is done.

An evaluation that was stopped goes on where it was, and one that is asked for again is there at once. The
file is found by what its figures depend on. It has numbers and no text. What a crash has left half written,
or somebody has changed, is measured again.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from itertools import count, takewhile
from pathlib import Path
from typing import Final

import msgspec
import numpy as np

from localai import frames, paths
from localai.engine import protocol
from localai.engine.loading import digest
from localai.evaluation.statistics import Tokens
from models.parts import files_of

FORMAT: Final = 1
"""Of the files; those of others are not looked at."""


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What figures depend on. Threads and batches only move the last digits of the numbers."""

    model: str
    """As `identity` says it."""
    reference: str
    text: str
    """SHA-256."""
    context: int
    llama_cpp_commit: str
    kv_type: str
    flash_attention: str
    backend: str
    format: int = FORMAT

    @property
    def path(self) -> Path:
        """Where what was measured lies."""
        name = hashlib.sha256(msgspec.json.encode(self)).hexdigest()
        return paths.data_dir() / "evaluations" / f"{name}.chunks"


def identity(model: Path, sha256: str) -> str:
    """Tells one model from another: by the digest where it is known, else by samples of its files."""
    if sha256:
        return sha256
    parts = files_of(model)
    return " ".join(f"{digest(part)}-{part.stat().st_mtime_ns}" for part in parts)


def load(path: Path, counted: int, *, compared: bool) -> list[Tokens]:
    """The chunks that were measured, from the first on without a gap; each has `counted` tokens."""
    found: dict[int, Tokens] = {}
    with suppress(OSError), path.open("r+b") as file:
        sound = 0
        with suppress(frames.FrameTooLong, msgspec.MsgspecError, ValueError):
            while (body := frames.read(file)) is not None:
                event = protocol.decode_event(body)
                if isinstance(event, protocol.Evaluated):
                    found.setdefault(event.chunk, tokens(event, counted, compared=compared))
                sound = file.tell()
        file.truncate(sound)  # what is added later must not follow something that cannot be read
    return [found[number] for number in takewhile(found.__contains__, count())]


def add(path: Path, event: protocol.Evaluated) -> None:
    """Keep one chunk. Where it cannot be written, only going on from here is lost."""
    with suppress(OSError):
        paths.private_dir(path.parent)
        with path.open("ab", buffering=0) as file:
            file.write(protocol.encode(event))


def forget(path: Path) -> None:
    """Measure anew next time."""
    with suppress(OSError):
        path.unlink()


def tokens(event: protocol.Evaluated, counted: int, *, compared: bool) -> Tokens:
    """The numbers in `event`. ValueError if it has not as many as it must, or one that cannot be."""
    floats = [np.frombuffer(data, "<f4").astype(float) for data in (event.nll, event.reference_nll, event.kl)]
    same = np.frombuffer(event.same, np.uint8)
    expected = [counted, *[counted if compared else 0] * 3]
    if [len(values) for values in (*floats, same)] != expected:
        raise ValueError(f"a chunk of {counted} tokens has other numbers of figures")
    if not all(np.isfinite(values).all() and (values >= 0).all() for values in floats) or (same > 1).any():
        raise ValueError("a figure of a chunk is impossible")
    return Tokens(floats[0], floats[1], floats[2], same.astype(np.bool_))
