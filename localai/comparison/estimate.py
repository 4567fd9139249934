"""About how long a comparison takes, before any file is made: rough, so that one knows whether to wait.

reading and writing text    by what this machine computes and reads from memory (`models.bandwidth`)
quantizing                  by the core hours in docs/quantize.md, on the processor that they are from
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from localai import hardware
from localai.comparison import losses, speeds
from models.bandwidth import Measured
from quantize.protocol import Candidate, Forecast

_PER_WEIGHT_S: Final = 6e-8
"""Seconds of one core to quantize a weight, as the mean of the usual types."""
_SEARCHED_S: Final = 2.2e-7
"""The same where values are looked for in tables: the IQ types."""
_DISK: Final = 500e6
"""Bytes per second that a disk reads."""
_SHARE: Final = 0.7
"""Of what memory can give, that writing text takes."""


class Estimate(NamedTuple):
    """Seconds."""

    quantize: float
    speed: float
    loss: float

    @property
    def total(self) -> float:
        """All of it, but for questions, which depend on what the model says."""
        return sum(self)


def estimate(
    known: Forecast, types: Sequence[Candidate], rounds: int, chunks: int, context: int, machine: Measured
) -> Estimate:
    """For `types`, each measured in so many `rounds` and on so many `chunks`, 0: as time allows."""
    reads = machine.flops * machine.cores / max(2 * known.weights, 1)
    writes = [_SHARE * machine.bytes_per_s / one.size for one in types]
    slowest = min(writes)
    lengths = speeds.lengths(reads, slowest, rounds * len(types), known.context_trained)
    chunk_s = losses.slower(context / reads)
    many = chunks or losses.chunks(chunk_s, len(types))
    return Estimate(
        quantize=_quantizing(known, types),
        speed=rounds * sum(speeds.seconds(lengths, reads, rate) for rate in writes),
        loss=many * len(types) * chunk_s,
    )


def _quantizing(known: Forecast, types: Sequence[Candidate]) -> float:
    each = [_SEARCHED_S if one.file_type.startswith("IQ") else _PER_WEIGHT_S for one in types]
    return max(known.source_bytes / _DISK, known.weights * sum(each) / hardware.usable_cores())
