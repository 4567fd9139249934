"""What was measured of model files: how much they lost, how fast they are here, what they got right.

The figures are numbers, and are found by the SHA-256 of the file that they are about: also when that file is
made or fetched only later.
"""

from __future__ import annotations

from typing import Annotated

import msgspec

from models.origins import Count, MaybeSha256, Sha256

Number = Annotated[float, msgspec.Meta(ge=-1e15, le=1e15)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
Share = Annotated[float, msgspec.Meta(ge=0, le=1)]


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
    measured: str = ""
    """When, in UTC, as ISO 8601."""
