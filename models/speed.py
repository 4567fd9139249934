"""How many tokens a second a model will write here: an estimate, with a range that says how rough it is.

For each token all weights are read from memory, and each core multiplies its share of them:

    seconds = bytes / bandwidth + bytes / (cores * rate of the type) + attention + a little for each layer

`bandwidth` is measured on this machine (`models.bandwidth`). The rate of a type is how fast one core takes
its blocks apart when memory does not hold it up; it is why Q4_K is slower for each byte than Q4_0. The rates
were found by loading models of the shape of R1-Distill-Qwen-1.5B in each type and measuring with one and
two threads; they are scaled by what a core of this machine can do. `benchmarks/fit.py --speed` compares.
"""

from __future__ import annotations

import sys
from typing import Final

import msgspec

from models import fit
from models.header import Header
from models.machine import Machine
from models.sketch import base_type

GOOD_TOKENS_PER_S: Final = 5.0
"""About as fast as one reads. A reasoning model that is slower lets one wait for minutes."""

_RATES: Final = {
    **{"F32": 72e9, "F16": 72e9, "BF16": 72e9, "Q8_0": 85e9, "Q6_K": 70e9, "Q5_K": 30e9, "Q5_0": 30e9},
    **{"Q5_1": 30e9, "Q4_K": 35e9, "Q4_0": 48e9, "Q4_1": 23e9, "IQ4_NL": 40e9, "IQ4_XS": 20e9},
    **{"Q3_K": 22e9, "Q2_K": 22e9},
}
"""Bytes of weights that one core of the processor that was measured multiplies in a second."""
_USUAL_RATE: Final = 7e9
"""Of other types: tables (IQ3 and below) take long to look up."""
_ATTENTION_RATES: Final[dict[fit.KvType, float]] = {"f16": 11e9, "q8_0": 4.2e9, "q4_0": 2.2e9}
"""Bytes of keys and values that one core goes through in a second, once for each head of the query. Smaller
ones save memory, not time. That of q4_0 is a guess: as many tokens as with q8_0."""
_LAYER_S: Final = 40e-6
"""Seconds for a layer beside its weights: some thirty small operations, after each of which cores wait."""
_FLOPS: Final = 90e9
"""What `bandwidth.measure` finds on the processor with these rates."""
_LEAST_SCALE, _MOST_SCALE = 0.15, 1.5

_CORE_BANDWIDTH, _MOST_BANDWIDTH = 10e9, 40e9
"""Where nothing was measured: what desktops and laptops read with one core, and with all."""
_UNMEASURED_SCALE: Final = 0.6
_MEASURED_RANGE: Final = (0.6, 1.15)
_UNMEASURED_RANGE: Final = (0.5, 2.0)


class Speed(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second; 0: not known."""

    tokens_per_s: float = 0.0
    slowest: float = 0.0
    fastest: float = 0.0


def estimate(
    header: Header, context: int, kv_type: fit.KvType, machine: Machine, *, gpu_layers: int = 0
) -> Speed:
    """For a conversation that fills half of `context`, computed by the processor alone.

    With `gpu_layers` elsewhere, what the processor does of the rest bounds the speed; where it does nothing,
    nothing is known.
    """
    layers = header.block_count
    here = max(0, layers + 1 - gpu_layers)
    if not here or not layers:
        return Speed()
    weights = max(0, fit.weights_here(header, gpu_layers) - fit.embedding_bytes(header))
    share = min(here, layers) / layers
    seconds = _seconds(header, weights, share * context / 2, kv_type, machine) + here * _LAYER_S
    likely = 1 / seconds
    low, high = _MEASURED_RANGE if machine.measured else _UNMEASURED_RANGE
    return Speed(tokens_per_s=likely, slowest=likely * low, fastest=likely * high)


def _seconds(header: Header, weights: int, held: float, kv_type: fit.KvType, machine: Machine) -> float:
    """For the weights, and for attention to `held` tokens."""
    bandwidth, scale = _of(machine)
    rate = _RATES.get(base_type(header.file_type), _USUAL_RATE) * scale * machine.cores
    cache = fit.kv_bytes_per_token(header, kv_type) * held
    looked_at = cache * header.head_count / max(1, header.head_count_kv)
    attention = looked_at / (_ATTENTION_RATES[kv_type] * scale * machine.cores)
    return max(1e-9, weights / bandwidth + weights / rate + cache / bandwidth + attention)


def _of(machine: Machine) -> tuple[float, float]:
    """Bytes per second of memory, and what a core can do beside that of the rates."""
    found = machine.measured
    if found is None:
        return min(machine.cores * _CORE_BANDWIDTH, _MOST_BANDWIDTH), _UNMEASURED_SCALE
    if sys.platform == "darwin":  # its library multiplies matrices on a unit that llama.cpp does not use
        return found.bytes_per_s, 1.0
    return found.bytes_per_s, min(max(found.flops / _FLOPS, _LEAST_SCALE), _MOST_SCALE)
