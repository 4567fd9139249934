"""The messages between app and worker that are about a model, and not for a chat: they measure what it does.

They are part of `localai.engine.protocol`, which says how they travel.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from localai.engine.frame import Amount, Frame, Whole
from localai.engine.settings import Limits, Sampling

# ---------------------------------------------------------------------------------------------- requests


class Observe(Frame, frozen=True):
    """Ask how strongly each column of each matrix is used where the model reads a text.

    Answered by `ObserveProgress`..., then one `Activations` for each matrix, then `Observed`.
    """

    id: int
    text: str
    chunk: int
    """The text is read in pieces of so many tokens, each for itself; what is left of it is not read."""
    chunks: int = 0
    """How many of them; 0: all."""
    special: bool = False
    """Whether markers in the text are read as markers."""


class Evaluate(Frame, frozen=True):
    """Ask how well the model foretells a text, and how far it is from its reference, if it has one.

    Answered by `Evaluating`, then `EvaluateProgress` and one `Evaluated` for each chunk.
    """

    id: int
    text: str
    chunk: int
    """The text is read in chunks of so many tokens, each for itself; what is left of it is not read."""
    first: int = 0
    """Begin with this one, counted from 0."""
    chunks: int = 0
    """End before this one; 0: with the last."""


class Baseline(Frame, frozen=True):
    """Have the model read a text, and keep what it foretells: what `Perturb` compares with.

    It must be loaded with `LoadOptions.writable`. Answered by `EvaluateProgress`..., then `BaselineKept`.
    """

    id: int
    text: str
    chunk: int
    """The text is read in chunks of so many tokens, each for itself, of which the second half counts."""
    chunks: int
    """How many of them."""
    special: bool = False
    """Whether markers in the text are read as markers."""


class Matrix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A matrix that is to lose what it would lose in another type."""

    name: str
    """As the file calls it."""
    type: int
    """ggml's number."""
    importance: bytes = b""
    """Of each column: float32, little-endian; none: all are alike."""


class Perturb(Frame, frozen=True):
    """Ask how much the model loses if some of its matrices are of other types, and put them back.

    Answered by `EvaluateProgress`..., then `Perturbed`.
    """

    id: int
    matrices: tuple[Matrix, ...]


class Write(Frame, frozen=True):
    """Have the model answer questions as in a chat, and ask for all that it read and wrote, markers included.

    Answered by `WriteProgress`..., then one `Written` for each reply. No other reply may be under way.
    """

    id: int
    conversations: Annotated[
        list[Annotated[list[str], msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)
    ]
    """What a user says, turn by turn. When all are answered they are asked again, with other seeds."""
    tokens: Annotated[int, msgspec.Meta(ge=1)]
    """When so many tokens were read and written, it ends, also in the middle of replies."""
    sampling: Sampling = Sampling()
    """What it leaves open is as the model recommends. Each conversation adds its number to the seed."""
    limits: Limits = Limits()
    """Of each reply."""


# ------------------------------------------------------------------------------------------------ events


class ObserveProgress(Frame, frozen=True):
    """How much of a text has been read, in tokens."""

    id: int
    done: Whole
    total: Whole


class Activations(Frame, frozen=True):
    """How strongly each column of one matrix was used."""

    id: int
    name: str
    """The matrix, as the file calls it."""
    sums: bytes
    """For each column the sum of the squares of what it was multiplied with: float64, little-endian."""
    rows: Whole
    """How many numbers each sum is of."""


class Observed(Frame, frozen=True):
    """All `Activations` have been sent."""

    id: int
    chunks: Whole
    """Pieces of text that were read."""


class Evaluating(Frame, frozen=True):
    """What is going to be evaluated."""

    id: int
    tokens: Whole
    """Of the whole text."""
    chunks: Whole
    """Those of the text, or as many as were asked for."""
    left: Whole
    """How many `Evaluated` will follow."""


class BaselineKept(Frame, frozen=True):
    """What the model foretells is known."""

    id: int
    tokens: Whole
    """Those that count."""
    memory: Whole
    """Bytes that the worker occupies."""


class Perturbed(Frame, frozen=True):
    """How far the model with other matrices is from itself, as a KL divergence in nats."""

    id: int
    kl: Amount
    """The mean."""
    kl_stderr: Amount


class EvaluateProgress(Frame, frozen=True):
    """How much of the current chunk has been read, in tokens; by both models, if there is a reference."""

    id: int
    done: Whole


class Evaluated(Frame, frozen=True):
    """One chunk: something for each of its tokens that counts, as little-endian numbers."""

    id: int
    chunk: Whole
    nll: bytes
    """float32: minus the natural logarithm of the probability that the model gave to the token."""
    reference_nll: bytes = b""
    """The same of the reference; empty without one, as what follows."""
    kl: bytes = b""
    """float32: the KL divergence of the model's probabilities from the reference's, in nats."""
    same: bytes = b""
    """One byte: 1 if both think that the same token is the most likely, else 0."""
    left: Whole = 0
    """How many chunks follow."""
    memory: Whole = 0
    """Bytes of memory that the process occupies."""


class WriteProgress(Frame, frozen=True):
    """How much has been written, prompts included, in tokens."""

    id: int
    done: Whole
    total: Whole


class Written(Frame, frozen=True):
    """A prompt and the reply to it, as the model read and wrote them.

    In the order of the conversations. Read with markers as markers, one behind the other, they are the same
    tokens, unless a reply spells something otherwise than the tokenizer does.
    """

    id: int
    text: str
    tokens: Whole
    left: Whole
    """How many follow."""
