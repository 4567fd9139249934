"""Figures to test with."""

from __future__ import annotations

import msgspec

from models.figures import Figures, Loss, Rate, Speed
from models.machine import machine_id

ORIGINAL = "a" * 64
"""The digest of what all of them are compared with."""


def loss(
    kl: float = 0.07,
    *,
    top1: float = 0.842,
    tokens: int = 10_000,
    reference: str = "F16",
    original: str = ORIGINAL,
) -> Loss:
    return Loss(
        reference=reference,
        reference_sha256=original,
        text="built-in evaluation.txt",
        text_sha256="b" * 64,
        context=512,
        tokens=tokens,
        kl=kl,
        kl_stderr=0.004,
        perplexity=18.2,
        perplexity_stderr=1.6,
        perplexity_ratio=1.081,
        perplexity_ratio_stderr=0.015,
        top1=top1,
        top1_stderr=0.011,
    )


def speed(rate: float, *, machine: str | None = None) -> Speed:
    return Speed(
        machine=machine_id() if machine is None else machine,
        backend="CPU",
        threads=2,
        prompt=Rate(median=10 * rate, stderr=1.0),
        generate=Rate(median=rate, stderr=1.0),
    )


def known(sha256: str = "1" * 64, **more: object) -> Figures:
    return msgspec.structs.replace(Figures(sha256=sha256, file_type="Q4_K_M", size=1000), **more)
