"""What a comparison of types has found: what `localai quantize --compare --json` prints, see docs/json.md."""

from __future__ import annotations

import msgspec

from models.figures import Answers, Loss, Speed


class Row(msgspec.Struct, frozen=True, kw_only=True):
    """One type. What is None was not measured, or not yet."""

    file_type: str
    """A name of `quantize.file_types`, or of a recipe."""
    size: int
    """Bytes of the file."""
    bits_per_weight: float
    memory: dict[int, int]
    """Bytes of memory that it needs to run, by tokens of context: 4,096 and 16,384, as far as trained for."""
    fits: bool
    """Whether this machine has that memory, for the largest context of `memory`."""
    sha256: str = ""
    """Of the file."""
    loss: Loss | None = None
    speed: Speed | None = None
    answers: Answers | None = None


class Advice(msgspec.Struct, frozen=True, kw_only=True):
    """Which type to take."""

    file_type: str
    sentence: str
    """One sentence with its reason."""
    remarks: tuple[str, ...] = ()
    """One sentence each: what is dominated by what and by how much, what would be better with more memory."""


class Comparison(msgspec.Struct, frozen=True, kw_only=True):
    """Types of one checkpoint."""

    source: str
    """As the user called it."""
    name: str
    """The model's name in its file, for headings."""
    architecture: str
    weights: int
    """Number of weights."""
    reference: str
    """The type that all are compared with, such as "BF16"."""
    reference_size: int
    """Bytes of its file."""
    imatrix: str
    """"" without one, "auto", or its file."""
    options: tuple[str, ...] = ()
    """More of the command line that the types were made with, such as "--allow-requantize"."""
    text: str
    chunks: int
    context: int
    machine: str
    """In words, such as "Intel Xeon, 2 cores, 8.2 GB of memory"."""
    memory_usable: int
    """Bytes of memory that a model may take here."""
    rows: tuple[Row, ...]
    """By size, the largest first."""
    advice: Advice | None
    """None as long as too little is measured."""
    program: str
    """The version of this program."""
    llama_cpp: str
    """The commit of llama.cpp."""
    made: str
    """When, in UTC, as ISO 8601."""
    notes: tuple[str, ...] = ()
