"""The messages between the app and the quantize worker.

Each frame (`localai.frames`) holds the MessagePack of exactly one struct: one `Job` goes to the worker, any
number of `Progress` and then one `Finished` or `Failed` come back. msgspec checks types and refuses unknown
fields. Standard input of the worker stays open for as long as its result is wanted.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from localai import frames

Stage = Literal["convert", "quantize", "check"]


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all frames; the class name is the tag."""


class Job(_Frame, frozen=True):
    """Make the GGUF file `output` of the checkpoint folder `source`."""

    source: str
    output: str
    file_type: str
    """A name in `quantize.file_types.FILE_TYPES`, in any case."""
    overwrite: bool = False
    """Replace `output` if it is there; it stays as it was until the new file is complete.

    Links, devices, pipes and the files of `source` are never replaced.
    """
    threads: int = 0
    """0: the physical cores."""
    pre_tokenizer: str = ""
    """llama.cpp's name of the pre-tokenizer; "": find it out from tokenizer.json."""
    name: str = ""
    """The model's name in the file; "": from the model card, config.json or the folder."""


class Progress(_Frame, frozen=True):
    """How far it is. `done_bytes` of `total_bytes` of this stage; the total of "quantize" is an estimate."""

    stage: Stage
    tensor: str
    done_bytes: int
    total_bytes: int


class Report(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was made."""

    output: str
    file_type: str
    architecture: str
    """As in `general.architecture`."""
    tensors: int
    weights: int
    """Number of weights in all tensors."""
    source_bytes: int
    """Bytes of the tensors of the checkpoint."""
    output_bytes: int
    seconds: float


class Finished(_Frame, frozen=True):
    """The output is complete, checked and in its place."""

    report: Report


class Failed(_Frame, frozen=True):
    """Nothing was made. `kind` is the name of a class of `localai.errors`."""

    kind: str
    message: str
    hint: str


Event = Progress | Finished | Failed

_encoder = msgspec.msgpack.Encoder()
_jobs = msgspec.msgpack.Decoder(Job)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def pack(message: Job | Event) -> bytes:
    """One frame with `message`."""
    return frames.pack(_encoder.encode(message))


def decode_job(body: bytes) -> Job:
    """The job in the body of a frame; msgspec.MsgspecError if it is anything else."""
    return _jobs.decode(body)


def decode_event(body: bytes) -> Event:
    """The event in the body of a frame; msgspec.MsgspecError if it is anything else."""
    return _events.decode(body)
