"""What was asked before: a file for each set and model, to which each answer is added when it is there.

It has numbers and no text: which question, whether the answer was right, how many tokens. As in
`localai.evaluation.kept`, what a crash has left half written, or somebody has changed, is asked again.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Annotated, Final

import msgspec

from localai import frames, paths

FORMAT: Final = 1
"""Of the files, and of how answers are found in replies; those of others are not looked at."""

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]


class Key(msgspec.Struct, frozen=True, kw_only=True):
    """What answers depend on, as far as it is more than the last digits of a logit."""

    model: str
    """As `localai.evaluation.kept.identity` says it."""
    tasks: str
    """SHA-256 of the set and of how it is asked."""
    llama_cpp_commit: str
    kv_type: str
    flash_attention: str
    backend: str
    format: int = FORMAT

    @property
    def path(self) -> Path:
        """Where the answers lie."""
        name = hashlib.sha256(msgspec.json.encode(self)).hexdigest()
        return paths.data_dir() / "evaluations" / f"{name}.answers"


class Record(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What became of one question."""

    question: Count
    """Its number in the set, from 0."""
    right: bool
    answered: bool
    """Whether there was an answer of the kind that was asked for; without one, it is not right."""
    tokens: Count
    """Of the reply, thinking and answer."""
    cut: bool
    """Whether thinking or answer were as long as they might be, and ended there."""
    seconds: Annotated[float, msgspec.Meta(ge=0, le=1e9)]


def load(path: Path, questions: int) -> dict[int, Record]:
    """The answers to the first `questions` that are there, by the number of the question."""
    found: dict[int, Record] = {}
    with suppress(OSError), path.open("r+b") as file:
        sound = 0
        with suppress(frames.FrameTooLong, msgspec.MsgspecError):
            while (body := frames.read(file)) is not None:
                record = msgspec.msgpack.decode(body, type=Record)
                if record.question < questions:
                    found.setdefault(record.question, record)
                sound = file.tell()
        file.truncate(sound)  # what is added later must not follow something that cannot be read
    return found


def add(path: Path, record: Record) -> None:
    """Keep one answer. Where it cannot be written, only going on from here is lost."""
    with suppress(OSError):
        paths.private_dir(path.parent)
        with path.open("ab", buffering=0) as file:
            file.write(frames.pack(msgspec.msgpack.encode(record)))
