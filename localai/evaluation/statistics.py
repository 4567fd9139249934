"""Figures for a model from what was measured token by token, each with its standard error.

Means, their errors and percentiles are those of llama-perplexity (tools/perplexity/perplexity.cpp): the
standard error of a mean is the standard deviation over the root of n - 1, as if the tokens did not depend on
each other; those of quotients and roots follow from it in first order. For percentiles, of which it gives
none, the error is half the distance of the two values whose ranks are one standard deviation away.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

Numbers = NDArray[np.float64]


class Figure(NamedTuple):
    """A number and its standard error."""

    value: float
    stderr: float


class Tokens(NamedTuple):
    """One number for each token that counts; see `localai.engine.scores.Scores`."""

    nll: Numbers
    reference_nll: Numbers
    kl: Numbers
    same: NDArray[np.bool_]

    @staticmethod
    def joined(parts: Sequence[Tokens]) -> Tokens:
        """All of several chunks."""
        return Tokens(*(np.concatenate(values) for values in zip(*parts, strict=True)))


class Divergence(msgspec.Struct, frozen=True, kw_only=True):
    """The KL divergence from the reference over all tokens, in nats."""

    mean: float
    mean_stderr: float
    median: float
    median_stderr: float
    p90: float
    p90_stderr: float
    p99: float
    p99_stderr: float
    p999: float
    p999_stderr: float
    max: float


def mean(values: Numbers) -> Figure:
    """The mean."""
    if len(values) < 2:
        return Figure(float(values.mean()) if len(values) else math.nan, 0.0)
    return Figure(float(values.mean()), float(values.std() / math.sqrt(len(values) - 1)))


class Running:
    """The mean of numbers that come in parts, known after each without another look at those before."""

    def __init__(self) -> None:
        self._count, self._sum, self._squares = 0, 0.0, 0.0

    def add(self, values: Numbers) -> None:
        """Some more."""
        self._count += len(values)
        self._sum += float(values.sum())
        self._squares += float((values**2).sum())

    @property
    def mean(self) -> Figure | None:
        """The mean of all; None if there are none."""
        if not self._count:
            return None
        found = self._sum / self._count
        variance = max(self._squares / self._count - found**2, 0.0)
        return Figure(found, math.sqrt(variance / max(self._count - 1, 1)))


def perplexity(nll: Numbers) -> Figure:
    """The exponential of the mean."""
    return exponential(mean(nll))


def exponential(found: Figure) -> Figure:
    """The exponential of a figure."""
    value = math.exp(min(found.value, 700.0))  # beyond that floats end: such a model knows nothing
    return Figure(value, value * found.stderr)


def ratio(tokens: Tokens) -> Figure:
    """The model's perplexity over its reference's, much more exact than either: the tokens are the same."""
    return perplexity(tokens.nll - tokens.reference_nll)


def agreement(same: NDArray[np.bool_]) -> Figure:
    """The share of tokens for which both think that the same one is the most likely."""
    share = float(same.mean())
    return Figure(share, math.sqrt(share * (1 - share) / max(len(same) - 1, 1)))


def probability_change(tokens: Tokens) -> tuple[Figure, Figure]:
    """By how much the right token became likelier: on average, and the root of the mean square."""
    change = np.exp(-tokens.nll) - np.exp(-tokens.reference_nll)
    square = mean(change**2)
    root = math.sqrt(square.value)
    return mean(change), Figure(root, 0.5 * square.stderr / root if root else 0.0)


def divergence(kl: Numbers) -> Divergence:
    """Mean, percentiles and maximum."""
    found, ordered = mean(kl), np.sort(kl)
    median, p90, p99, p999 = (percentile(ordered, share) for share in (0.5, 0.9, 0.99, 0.999))
    return Divergence(
        mean=found.value,
        mean_stderr=found.stderr,
        median=median.value,
        median_stderr=median.stderr,
        p90=p90.value,
        p90_stderr=p90.stderr,
        p99=p99.value,
        p99_stderr=p99.stderr,
        p999=p999.value,
        p999_stderr=p999.stderr,
        max=float(ordered[-1]),
    )


def percentile(ordered: Numbers, share: float) -> Figure:
    """The value below which that share of the `ordered` ones lies, between two of them in proportion."""
    last, spread = len(ordered) - 1, math.sqrt(len(ordered) * share * (1 - share))
    ranks = np.clip([share * last - spread, share * last, share * last + spread], 0, last)
    low, value, high = np.interp(ranks, np.arange(len(ordered)), ordered)
    return Figure(float(value), float(high - low) / 2)
