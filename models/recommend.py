"""Which model suits a machine, and why: from what the catalogue tells, before a byte is fetched."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from models.catalog import Entry
from models.fit import usable_memory
from models.ggml_types import TENSOR_TYPES
from models.origins import Builtin, PackageIndex

GOOD_TOKENS_PER_S: Final = 5.0
"""About as fast as one reads. A reasoning model that is slower lets one wait for minutes."""

_BYTES_PER_S_AND_CORE, _MOST_BYTES_PER_S = 6e9, 40e9
"""What processors read of weights: a core alone about so much, all together no more than memory gives. Rough
figures for desktops and laptops; each token reads all weights once."""
_OVERHEAD, _ROOM = 1.25, 256 << 20
"""Beside the weights: some 8,000 tokens of context, a quarter of the weights in the R1 models at 4 bits; and
the vocabulary, the buffers and the process."""
_USUAL_BITS: Final = 5.0
"""Of types that are not known here."""


class Machine(msgspec.Struct, frozen=True):
    """What a model would run on."""

    memory: int
    """Bytes of memory in the machine, or that this container may use."""
    cores: int
    """Physical cores that may be used."""
    gpu_memory: int = 0
    """Bytes of the largest graphics card that the engine can use; 0: none."""


class Recommendation(msgspec.Struct, frozen=True):
    """The model to begin with."""

    name: str
    why: str
    """One sentence."""


def recommend(entries: Sequence[Entry], machine: Machine) -> Recommendation | None:
    """The best of `entries` for `machine`; None without entries.

    That is the largest model that reasons, fits and is not too slow; else the quickest of those that reason
    and fit; else the largest other one that fits. What is shipped with the program is a toy: it comes last.
    """
    real = [entry for entry in entries if not isinstance(entry.source, Builtin)]
    thinkers = [entry for entry in real if entry.reasoning]
    if found := _best_thinker(thinkers, machine):
        return found
    others = [entry for entry in real if not entry.reasoning and _fits(entry, machine)]
    if others:
        best = max(others, key=lambda entry: entry.parameters)
        more = f"the reasoning models need more than {_gigabytes(machine.memory)} of memory"
        why = f"It is quick here, and {more if thinkers else 'no reasoning model can be had by name yet'}."
        return Recommendation(best.name, why)
    if not entries:
        return None
    return Recommendation(min(entries, key=weight_bytes).name, "It is the one that needs the least memory.")


def weight_bytes(entry: Entry) -> int:
    """Bytes of the model's file: those of the catalogue, or an estimate from its parameters and its type."""
    if isinstance(entry.source, PackageIndex):
        return entry.source.size
    return round(entry.parameters * _bits(entry.type) / 8)


def _best_thinker(thinkers: Sequence[Entry], machine: Machine) -> Recommendation | None:
    on_card = [entry for entry in thinkers if _needed(entry) <= machine.gpu_memory]
    fitting = [entry for entry in thinkers if _fits(entry, machine)]
    quick = [entry for entry in fitting if _tokens_per_s(entry, machine) >= GOOD_TOKENS_PER_S]
    memory, cores = _gigabytes(machine.memory), _cores(machine.cores)
    if on_card:
        best = max(on_card, key=lambda entry: entry.parameters)
        held = _gigabytes(machine.gpu_memory)
        why = f"It is the largest reasoning model that fits into the {held} of the graphics card."
    elif quick:
        best = max(quick, key=lambda entry: entry.parameters)
        why = f"It is the largest reasoning model that fits into {memory} of memory and is quick on {cores}."
    elif fitting:
        best = min(fitting, key=weight_bytes)
        why = f"It is the smallest reasoning model: on {cores} any other would be slower still."
    else:
        return None
    return Recommendation(best.name, why)


def _fits(entry: Entry, machine: Machine) -> bool:
    return _needed(entry) <= usable_memory(machine.memory)


def _needed(entry: Entry) -> int:
    return round(weight_bytes(entry) * _OVERHEAD) + _ROOM


def _tokens_per_s(entry: Entry, machine: Machine) -> float:
    return min(machine.cores * _BYTES_PER_S_AND_CORE, _MOST_BYTES_PER_S) / max(1, weight_bytes(entry))


def _bits(file_type: str) -> float:
    """Bits of a weight: most have the type's own, such as Q4_K in Q4_K_M."""
    for block in TENSOR_TYPES.values():
        if file_type == block.name or file_type.rpartition("_")[0] == block.name:
            return block.size * 8 / block.elements * (1.08 if file_type != block.name else 1)
    return _USUAL_BITS


def _gigabytes(count: int) -> str:
    """Memory as its sellers count it."""
    return f"{max(1, round(count / 2**30))} GB"


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"
