"""Comparisons to test with: figures as they are measured, of a small model and of a usual one."""

from __future__ import annotations

from localai.comparison.advice import advise
from localai.comparison.result import Comparison, Row
from models.figures import Answers, Loss, Rate, Speed

GB = 1_000_000_000


def loss(kl: float, top1: float, *, error: float = 0.05, reference: str = "F16") -> Loss:
    """A loss with a relative `error` of the divergence."""
    ratio, tokens = 1 + kl, 16_000
    return Loss(
        reference=reference,
        text="built-in evaluation.txt",
        text_sha256="a" * 64,
        context=512,
        tokens=tokens,
        kl=kl,
        kl_stderr=kl * error,
        kl_p99=kl * 7,
        perplexity=16.9 * ratio,
        perplexity_stderr=0.4,
        perplexity_ratio=ratio,
        perplexity_ratio_stderr=0.004,
        top1=top1,
        top1_stderr=(top1 * (1 - top1) / tokens) ** 0.5,
    )


def speed(generate: float, error: float = 0.015) -> Speed:
    """A speed with a relative `error`."""
    return Speed(
        machine="Intel Xeon, 2 cores",
        backend="CPU",
        threads=2,
        prompt=Rate(median=generate * 4, stderr=generate * 4 * error),
        generate=Rate(median=generate, stderr=generate * error),
    )


def row(
    file_type: str,
    size: float,
    kl: float | None = None,
    top1: float = 0.9,
    pace: float | None = None,
    *,
    error: float = 0.05,
    right: int | None = None,
    memory: dict[int, int] | None = None,
) -> Row:
    """One type; `size` in bytes."""
    takes = memory if memory is not None else {4096: int(size * 1.1), 16384: int(size * 1.3)}
    return Row(
        file_type=file_type,
        size=int(size),
        bits_per_weight=size * 8 / (7_615_616_512 if size > GB else 134_515_008),
        memory=takes,
        fits=True,
        loss=None if kl is None else loss(kl, top1, error=error, reference="BF16" if size > GB else "F16"),
        speed=None if pace is None else speed(pace),
        answers=None if right is None else Answers(set="sums", right=right, asked=40),
    )


SMALL = (
    row("Q8_0", 143.0e6, 0.005388, 0.94902, 101),
    row("Q6_K", 137.0e6, 0.013339, 0.93235, 109),
    row("Q5_K_M", 110.0e6, 0.098679, 0.81765, 131),
    row("Q4_K_M", 103.7e6, 0.070185, 0.84216, 144),
    row("Q4_1", 97.0e6, 0.240000, 0.71000, 115),
    row("Q3_K_M", 92.0e6, 0.172213, 0.75098, 120),
    row("IQ4_XS", 90.4e6, 0.218257, 0.72451, 185),
    row("Q4_0", 90.0e6, 0.361888, 0.65000, 177),
    row("Q2_K", 86.0e6, 0.910000, 0.49100, 128),
)
"""SmolLM2-135M, of which many rows fit no K-quant: the order of the types is not the usual one."""

USUAL = (
    row("Q8_0", 8.10 * GB, 0.0011, 0.987, 7.1, right=37),
    row("Q6_K", 6.25 * GB, 0.0042, 0.973, 8.4, right=36),
    row("Q5_K_M", 5.44 * GB, 0.0118, 0.957, 9.9, right=36),
    row("Q4_K_M", 4.68 * GB, 0.0368, 0.926, 11.6, right=35),
    row("Q4_K_S", 4.46 * GB, 0.0455, 0.918, 11.9, right=35),
    row("IQ4_XS", 4.22 * GB, 0.0441, 0.919, 12.8, right=35),
    row("Q3_K_M", 3.81 * GB, 0.1215, 0.868, 11.2, right=30),
    row("IQ3_M", 3.57 * GB, 0.1190, 0.871, 9.2, right=31),
    row("Q2_K", 3.02 * GB, 0.4320, 0.751, 13.9, right=12),
)
"""A model of 7.6 billion weights."""


def comparison(
    rows: tuple[Row, ...] = SMALL,
    *,
    source: str = "smollm2:135m",
    name: str = "SmolLM2 135M Instruct",
    imatrix: str = "",
    memory: int = 6_200_000_000,
    options: tuple[str, ...] = (),
    notes: tuple[str, ...] = (),
) -> Comparison:
    """All of it."""
    return Comparison(
        source=source,
        name=name,
        architecture="llama",
        weights=134_515_008,
        reference="F16",
        reference_size=270_900_000,
        imatrix=imatrix,
        options=options,
        text="built-in evaluation.txt",
        chunks=63,
        context=512,
        machine="Intel Xeon, 2 cores, 8.2 GB of memory",
        memory_usable=memory,
        rows=rows,
        advice=advise(rows, memory_usable=memory),
        program="0.1.0",
        llama_cpp="0123456789abcdef0123456789abcdef01234567",
        made="2026-12-01T05:30:00+00:00",
        notes=notes,
    )
