"""The messages between the app and the quantize worker.

Each frame (`localai.frames`) holds the MessagePack of exactly one struct: one `Job` goes to the worker; a
`Confined`, a `Forecast`, any number of `Progress` and `Errors` and then one `Finished` or `Failed` come
back. msgspec checks types and refuses unknown fields. Standard input of the worker stays open for as long as
its result is wanted.
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec

from localai import frames
from localai.confine.choice import Mode
from localai.confine.report import Sandbox
from models.mixture import Mixture, TensorName
from models.origins import Sha256
from quantize.file_types import output_type

Whole = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""What events tell in numbers: a worker that a checkpoint has taken over may tell anything, such as NaN."""
R1_CHAT: Final = "r1"
Stage = Literal["convert", "measure", "hash", "check"]


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all frames; the class name is the tag."""


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Base of what frames are made of."""


class Target(_Part, frozen=True):
    """An output: its type, and the empty file that the app has opened for it."""

    file_type: str
    """A name in `quantize.file_types.FILE_TYPES`, in any case, or of a mixture of the job."""
    path: str
    """What errors call it."""
    fd: int
    """The file, inherited by the worker."""
    plain: bool = False
    """Made without the importance matrix and the options of the job: to compare other files with it."""


class Job(_Frame, frozen=True):
    """Make `targets` of `source`; without targets, only the forecast."""

    source: str
    """A checkpoint folder, or a GGUF file."""
    targets: tuple[Target, ...] = ()
    threads: int = 0
    """0: the cores that may be used."""
    pre_tokenizer: str = ""
    """llama.cpp's name of the pre-tokenizer; "": find it out from tokenizer.json."""
    name: str = ""
    """The model's name in the file; "": from the model card, config.json or the folder."""
    imatrix: str = ""
    """A file with an importance matrix, or ""."""
    imatrix_name: str = ""
    """What the outputs say that it is called; "": its path."""
    imatrix_promised: str = ""
    """Only for forecasts, without `imatrix`: as with one that will be made from a text of this name."""
    pure: bool = False
    output_type: int | None = None
    """ggml's number of the type of the output matrix; None: by the file type."""
    embedding_type: int | None = None
    tensor_types: tuple[tuple[str, int], ...] = ()
    """Regular expressions for tensors' names, and ggml's numbers."""
    hash_inputs: bool = True
    """Take the sha256 of all files that are read, for the record."""
    allow_requantize: bool = False
    """Take a GGUF whose weights are quantized already."""
    sandbox: Mode = "prefer"
    """How much the worker must be confined."""
    mixtures: tuple[Mixture, ...] = ()
    """Types by tensor: a target whose type is the name of one is made with it."""
    errors_of: tuple[int, ...] = ()
    """Without targets: read the weights, and tell what each matrix loses by each of these ggml types."""
    error_rows: Whole = 0
    """The rows of each matrix that `errors_of` looks at, evenly spread; 0: all."""

    def kind(self, name: str) -> str:
        """The type of a target, as it is spelled: a mixture's or a file type's. UsageError if it is none."""
        return name if any(one.name == name for one in self.mixtures) else output_type(name)


class Confined(_Frame, frozen=True):
    """What the worker was confined to, before it read anything."""

    sandbox: Sandbox


class Candidate(_Part, frozen=True):
    """A type that the model could have."""

    file_type: str
    size: Whole
    """Bytes of the file, exactly."""
    bits_per_weight: Amount
    """Bits of tensor data for each weight, on average."""
    needs_imatrix: bool
    """Whether it cannot be made: it needs an importance matrix, and none was given, or not of each tensor."""
    memory: dict[Whole, Whole]
    """Bytes of memory that it needs to run, by tokens of context."""
    layout: str = ""
    """The same for candidates whose tensors all have the same types."""


class Forecast(_Frame, frozen=True):
    """What is known before any weight is read."""

    architecture: str
    """As in `general.architecture`."""
    tensors: Whole
    weights: Whole
    """Number of weights in all tensors."""
    source_type: str
    """The type of most of the weights."""
    source_bytes: Whole
    """Bytes of the weight files."""
    context_trained: Whole
    """Tokens of context that the model was trained for; 0 if it does not say."""
    working_memory: Whole
    """Bytes of memory, about, that the conversion takes."""
    candidates: tuple[Candidate, ...]
    """The mixtures of the job, then all file types, best first."""
    fixed_bytes: Whole = 0
    """Bytes of a quantized file that no type changes: its header, norms and the like, with their padding."""
    plain: dict[str, Whole] = {}
    """Bytes of the files that others are compared with, by type: as `Target.plain`."""
    chat: str = ""
    """`R1_CHAT` if the vocabulary has R1's markers, else the digest of the chat template
    (`models.templates`), or "" without one."""

    def size_of(self, target: Target) -> int:
        """Bytes that a target will have; 0 for a type that is not there."""
        sizes = {one.file_type.upper(): one.size for one in self.candidates}
        if target.plain:
            sizes |= self.plain
        return sizes.get(target.file_type.upper(), 0)


class Progress(_Frame, frozen=True):
    """How far it is: `done_bytes` of `total_bytes` of this stage, and the tensor that was read last."""

    stage: Stage
    tensor: str
    done_bytes: Whole
    total_bytes: Whole


class Errors(_Frame, frozen=True):
    """What one matrix loses by each type, without those that it cannot have."""

    tensor: TensorName
    weights: Whole
    """How many numbers it holds."""
    errors: dict[int, Amount]
    """By ggml type: the squares of what changes over the squares of the weights, both weighted by the
    importance of their columns."""
    sizes: dict[int, Whole]
    """By ggml type: the bytes that it takes in a file, with padding."""


class Written(_Part, frozen=True):
    """An output that is complete."""

    path: str
    file_type: str
    size: Whole
    """Bytes."""
    sha256: Sha256
    """As the worker hashed it while it wrote; the store takes its own."""
    bits_per_weight: Amount
    types: dict[str, Whole]
    """How many tensors have each ggml type, by its name."""


class Report(_Part, frozen=True):
    """What was made, and from what."""

    architecture: str
    tensors: Whole
    weights: Whole
    source_bytes: Whole
    inputs: dict[str, Sha256]
    """sha256 of each file that was read, by its name within the source's folder, if it was asked for."""
    imatrix_sha256: str
    """"" without one."""
    llama_cpp_commit: str
    outputs: tuple[Written, ...]
    seconds: Amount


class Check(_Part, frozen=True):
    """What came of loading an output; one that failed is not kept, so that there is no word for it."""

    result: Literal["passed", "skipped"]
    reason: str = ""
    """Why it was skipped."""
    tokens: Whole = 0
    """How many the model generated."""


class Finished(_Frame, frozen=True):
    """All outputs are written."""

    report: Report


class Failed(_Frame, frozen=True):
    """Nothing was made. `kind` is the name of a class of `localai.errors`."""

    kind: str
    message: str
    hint: str


Event = Confined | Forecast | Progress | Errors | Finished | Failed

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
