"""What was measured of model files: how much they lost, how fast they are here, what they got right.

The figures are numbers, and are found by the SHA-256 of the file that they are about: also when that file is
made or fetched only later. `models.measured` keeps them; the catalogue may bring some along.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Annotated, Final

import msgspec

from models.origins import Count, MaybeSha256, Sha256

Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]

_SURE: Final = 2.0
"""Standard errors from which on a difference is believed."""
_SMALLER: Final = 0.99
"""The share of a size that is smaller for anybody to care."""


class Loss(msgspec.Struct, frozen=True, kw_only=True):
    """How far a file is from its reference on one text; errors are standard errors. As `localai evaluate`."""

    reference: str
    """What it was compared with, such as "F16"."""
    reference_sha256: MaybeSha256 = ""
    text: str
    text_sha256: Sha256
    context: Count
    """Tokens of each chunk."""
    tokens: Count
    """Those that count."""
    kl: Amount
    """The mean KL divergence, in nats."""
    kl_stderr: Amount
    kl_p99: Amount = 0.0
    perplexity: Amount
    perplexity_stderr: Amount
    perplexity_ratio: Amount
    perplexity_ratio_stderr: Amount
    top1: Share
    """The share of tokens for which both think that the same one is the most likely."""
    top1_stderr: Amount


class Rate(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second: the median of some measurements, and its standard error."""

    median: Amount
    stderr: Amount


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """How fast it was on one machine."""

    machine: str
    """Which one, as `models.machine` tells them apart."""
    backend: str
    threads: Count
    prompt: Rate
    generate: Rate


class Answers(msgspec.Struct, frozen=True, kw_only=True):
    """How many questions of a set were answered rightly."""

    set: str
    """Its name, such as "sums"."""
    right: Count
    asked: Count


class Figures(msgspec.Struct, frozen=True, kw_only=True):
    """All that is known of one file."""

    sha256: Sha256
    file_type: str
    size: Count
    """Bytes."""
    loss: Loss | None = None
    speed: Speed | None = None
    answers: Answers | None = None
    imatrix: bool = False
    """Whether it was quantized with an importance matrix."""
    measured: str = ""
    """When, in UTC, as ISO 8601."""


def rate(samples: Sequence[float]) -> Rate:
    """The median of tokens per second that were measured one after the other, and its standard error.

    That of a median of many numbers that are spread as usual is 1.25 times that of their mean.
    """
    import statistics  # only here: to read it takes 10 ms

    if not samples:
        return Rate(median=0.0, stderr=0.0)
    spread = statistics.stdev(samples) if len(samples) > 1 else 0.0
    error = math.sqrt(math.pi / 2) * spread / math.sqrt(len(samples))
    return Rate(median=statistics.median(samples), stderr=error)


def comparable(one: Loss, other: Loss) -> bool:
    """Whether both were measured against the same file on the same text."""
    keys = [(loss.reference, loss.reference_sha256, loss.text_sha256, loss.context) for loss in (one, other)]
    return keys[0] == keys[1]


def dominates(one: Figures, other: Figures) -> bool:
    """Whether nobody has a reason to take `other`, because `one` is better in size, speed and loss.

    At most as large, not slower and no more lossy beyond the errors of both, and clearly smaller or faster.
    False as long as one of the figures is not known. They may be of different days: that asks for more than
    `localai.comparison.front.dominates`, whose figures come from the same minutes.
    """
    if one.loss is None or other.loss is None or not comparable(one.loss, other.loss):
        return False
    if one.speed is None or other.speed is None or one.speed.machine != other.speed.machine:
        return False
    mine, its = one.speed.generate, other.speed.generate
    unsure = _SURE * math.hypot(mine.stderr, its.stderr)
    lossier = one.loss.kl - other.loss.kl > _SURE * math.hypot(one.loss.kl_stderr, other.loss.kl_stderr)
    slower, faster = mine.median < its.median - unsure, mine.median > its.median + unsure
    clearly = one.size < other.size * _SMALLER or faster
    return one.size <= other.size and not slower and not lossier and clearly


def better(one: Figures | None, others: Mapping[str, Figures | None]) -> str:
    """The key of the most exact among the `others` that dominate `one`; "": none does."""
    found = [(name, each.loss) for name, each in others.items() if one and each and dominates(each, one)]
    return min(((loss.kl, name) for name, loss in found if loss), default=(0.0, ""))[1]
