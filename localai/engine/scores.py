"""What logits say of the tokens that really came, and how far those of two models are apart.

The definitions are those of llama-perplexity (tools/perplexity/perplexity.cpp of the llama.cpp tree inside
llama-cpp-python), which also leaves out of the divergence what the reference gives less than exp(-16): some
thousandths of it. But it packs the reference's logarithms of probabilities into 16 bits, where we take them
as they are. Logits are float32 and so are their exponentials; sums are float64. The difference of two logits
is taken before anything else is done to them, so that a divergence that is much smaller than the logits is
not lost in their last bits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

Logits = NDArray[np.float32]
"""One row for each position, one column for each token."""
Numbers = NDArray[np.float64]

_LEAST = math.exp(-16)
"""Tokens that the reference gives less do not count for the divergence."""
_BLOCK = 1 << 17
"""About so many logits are worked on at once: what is made of them stays in the processor's cache."""


class Scores(NamedTuple):
    """One number for each position."""

    nll: Numbers
    """Minus the natural logarithm of the probability of the token that came."""
    reference_nll: Numbers
    """The same of the reference; empty without one, as what follows."""
    kl: Numbers
    """The KL divergence from the reference, in nats."""
    same: NDArray[np.bool_]
    """Whether both think that the same token is the most likely."""

    @property
    def finite(self) -> bool:
        """Whether all of it are numbers: weights that are damaged give others."""
        return all(bool(np.isfinite(values).all()) for values in (self.nll, self.reference_nll, self.kl))


def alone(logits: Logits, tokens: NDArray[np.int64]) -> Scores:
    """The scores of a model for the tokens that came after each position."""
    parts = [_alone(logits[rows], tokens[rows]) for rows in _blocks(logits)]
    none = np.zeros(0)
    return Scores(np.concatenate(parts), none, none, np.zeros(0, np.bool_))


def compared(logits: Logits, reference: Logits, tokens: NDArray[np.int64]) -> Scores:
    """The scores of a model and of its reference."""
    parts = [_compared(logits[rows], reference[rows], tokens[rows]) for rows in _blocks(logits)]
    return Scores(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def _blocks(logits: Logits) -> list[slice]:
    count, size = logits.shape
    step = max(1, _BLOCK // size)
    return [slice(start, start + step) for start in range(0, count, step)]


def _alone(logits: Logits, tokens: NDArray[np.int64]) -> Numbers:
    _, total, highest = _exponentials(logits)
    return np.log(total) + (highest - _of(logits, tokens))


def _compared(logits: Logits, reference: Logits, tokens: NDArray[np.int64]) -> Scores:
    _, total, highest = _exponentials(logits)
    weights, weight, peak = _exponentials(reference)
    np.multiply(weights, weights > (weight * _LEAST)[:, None].astype(np.float32), out=weights)
    share = weights.sum(axis=1, dtype=np.float64) / weight
    apart = np.subtract(reference, logits)
    np.multiply(apart, weights, out=apart)
    mean = apart.sum(axis=1, dtype=np.float64) / weight
    kl = mean + share * ((np.log(total) - np.log(weight)) + (highest - peak))
    return Scores(
        nll=np.log(total) + (highest - _of(logits, tokens)),
        reference_nll=np.log(weight) + (peak - _of(reference, tokens)),
        kl=np.maximum(kl, 0.0),  # what is below comes of what does not count
        same=logits.argmax(axis=1) == reference.argmax(axis=1),
    )


def _exponentials(logits: Logits) -> tuple[Logits, Numbers, Numbers]:
    """(exp(logit - highest), their sums, the highest logits)."""
    highest = logits.max(axis=1)
    made = np.subtract(logits, highest[:, None])
    np.exp(made, out=made)
    return made, made.sum(axis=1, dtype=np.float64), highest.astype(np.float64)


def _of(logits: Logits, tokens: NDArray[np.int64]) -> Numbers:
    return logits[np.arange(len(tokens)), tokens].astype(np.float64)
