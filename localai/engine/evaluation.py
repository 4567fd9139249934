"""How well a model foretells a text, and how far it is from its reference: one chunk of text after the other.

As llama-perplexity does it: each chunk is read for itself and begins with the token that begins texts, where
the model wants one (in the place of the chunk's first token); what counts is how likely the model found each
token of the second half, given all that is before it in the chunk. A reference reads the same tokens in step,
so that no more logits are held than those of a few positions.

Source: tools/perplexity/perplexity.cpp of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from itertools import pairwise
from typing import Any, Final, NamedTuple

import msgspec
import numpy as np
import psutil

from localai.engine import protocol, scores
from localai.engine.context import Aborted, AbortFlag, Context, ContextSettings
from localai.engine.llama import Model
from localai.engine.threads import ThreadGovernor
from localai.errors import EngineError, UsageError

LEAST_CHUNK: Final = 32
"""Tokens."""
LOGITS_BYTES: Final = 64 << 20
"""Of the logits of one model that are held at once."""
STEP: Final = 32
"""Batches are multiples of it: llama.cpp rounds what is left over of a batch in another way."""
_FLOAT = 4


class Piece(NamedTuple):
    """A part of a chunk, read in one batch."""

    start: int
    end: int
    counts: bool
    """Whether what comes after its tokens counts."""


def evaluate(
    models: Sequence[Model],
    request: protocol.Evaluate,
    settings: ContextSettings,
    abort: AbortFlag,
    *,
    pinned: bool,
) -> Iterator[protocol.Evaluating | protocol.EvaluateProgress | protocol.Evaluated]:
    """Answer `request`; `models` are the one to evaluate and, if there is one, its reference.

    `pinned`: compute with the threads of `settings`, also where other programs want the cores.
    UsageError if the text is too short, LoadError without memory, EngineError for what computes no numbers.
    """
    size = request.chunk
    tokens = _tokens(models[0], request)
    there = len(tokens) // size
    end = min(request.chunks or there, there)
    left = max(0, end - request.first)
    yield protocol.Evaluating(request.id, len(tokens), end, left)
    settings = msgspec.structs.replace(
        settings, size=size, sequences=1, outputs=most_outputs(models[0], settings.batch)
    )
    with ExitStack() as resources:
        readers = []
        for model in models:
            context = resources.enter_context(Context(model, settings, abort))
            governor = ThreadGovernor(settings.threads, context.set_threads, fixed=pinned)
            readers.append(Reader(model, context, governor))
        for number in range(request.first, end):
            parts = []
            chunk = tokens[number * size : (number + 1) * size]
            for piece in pieces(size, settings.batch, settings.outputs):
                parts += _scores(readers, chunk, piece)
                yield protocol.EvaluateProgress(request.id, piece.end)
            yield _evaluated(request.id, number, parts, end - number - 1)


def _tokens(model: Model, request: protocol.Evaluate) -> list[int]:
    size = request.chunk
    if size < LEAST_CHUNK:
        raise UsageError(f"chunks of {size} tokens are too short", f"Take {LEAST_CHUNK} or more")
    tokens = model.tokenize_document(request.text)
    if len(tokens) < 2 * size:
        raise UsageError(
            f"the text has {len(tokens):,} tokens, and this needs {2 * size:,}: two chunks of {size:,}",
            "Give a longer text, or a smaller --context",
        )
    return tokens


def most_outputs(model: Model, batch: int) -> int:
    most = min(batch, LOGITS_BYTES // (_FLOAT * model.vocabulary))
    return most // STEP * STEP or max(most, 1)


def pieces(size: int, batch: int, outputs: int) -> Iterator[Piece]:
    """The parts of a chunk, those of each half in steps of `batch` and of `outputs`."""
    half = size // 2
    yield from (Piece(start, end, False) for start, end in pairwise([*range(0, half, batch), half]))
    yield from (Piece(start, end, True) for start, end in pairwise([*range(half, size, outputs), size]))


def _scores(readers: Sequence[Reader], chunk: list[int], piece: Piece) -> list[scores.Scores]:
    logits = [reader.read(chunk, piece) for reader in readers]
    came = np.array(chunk[piece.start + 1 : piece.end + 1], np.int64)
    if not piece.counts or not len(came):
        return []
    logits = [rows[: len(came)] for rows in logits]  # what comes after the last of a chunk is not known
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        found = (
            scores.compared(logits[0], logits[1], came) if len(readers) > 1 else scores.alone(logits[0], came)
        )
    if not found.finite:
        raise EngineError(
            "what the model computes is too large or no number",
            "Its weights are damaged, or those of its reference: fetch or make the file again",
        )
    return [found]


def _evaluated(request: int, number: int, parts: Sequence[scores.Scores], left: int) -> protocol.Evaluated:
    nll, reference, kl, same = (np.concatenate(values) for values in zip(*parts, strict=True))
    return protocol.Evaluated(
        request,
        number,
        nll=_packed(nll),
        reference_nll=_packed(reference),
        kl=_packed(kl),
        same=same.astype(np.uint8).tobytes(),
        left=left,
        memory=int(psutil.Process().memory_info().rss),
    )


def _packed(values: scores.Numbers) -> bytes:
    return values.astype("<f4").tobytes()


class Reader:
    """A model that reads chunks."""

    def __init__(self, model: Model, context: Context, governor: ThreadGovernor) -> None:
        self._context, self._governor = context, governor
        self._vocabulary = model.vocabulary
        self._begin = model.tokenize_document("") if model.adds_bos else []

    def read(self, chunk: list[int], piece: Piece) -> Any:
        """The logits after each token of `piece`, until more is read; nothing where none count."""
        start, end, counts = piece
        tokens = chunk[start:end]
        if not start:
            self._context.truncate(0, 0)
            tokens[: len(self._begin)] = self._begin
        index = self._context.add(0, start, tokens, len(tokens) if counts else 0)
        self._governor.begin(float(len(tokens)))
        try:
            self._context.evaluate()
        except Aborted:
            raise EngineError("the evaluation was stopped") from None
        self._governor.end()
        return self._logits(index, len(tokens)) if counts else None

    def _logits(self, index: int, count: int) -> Any:
        """`count` rows from the one of `index` on, which llama.cpp keeps one after the other."""
        row = _FLOAT * self._vocabulary
        address = self._context.logits(index)
        if self._context.logits(index + count - 1) != address + (count - 1) * row:
            raise EngineError("llama.cpp kept the logits of a batch in another order")
        data: Any = (ctypes.c_char * (count * row)).from_address(address)
        return np.frombuffer(data, np.float32).reshape(count, self._vocabulary)
