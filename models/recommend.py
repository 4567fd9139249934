"""Which model suits a machine, and why: from what the catalogue tells, before a byte is fetched."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from models.catalog import Entry
from models.machine import Machine
from models.sketch import weight_bytes
from models.verdict import RUNS, Verdict, judge_entry

__all__ = ["Machine", "Recommendation", "recommend", "weight_bytes"]


class Recommendation(msgspec.Struct, frozen=True):
    """The model to begin with."""

    name: str
    why: str
    """One sentence."""


def recommend(entries: Sequence[Entry], machine: Machine) -> Recommendation | None:
    """The best of `entries`, each in its usual type, for `machine`; None without entries.

    That is the largest model that reasons, fits and is not too slow; else the quickest of those that reason
    and fit; else the largest other one that fits. What is shipped with the program is a toy: it comes last.
    What is free at the moment does not count: a machine is chosen for longer than that.
    """
    machine = msgspec.structs.replace(machine, available=None)
    real = [entry for entry in entries if not entry.is_builtin]
    thinkers = [entry for entry in real if entry.reasoning]
    if found := _best_thinker(thinkers, machine):
        return found
    others = [entry for entry in real if not entry.reasoning and _judged(entry, machine).kind in RUNS]
    if others:
        best = max(others, key=lambda entry: entry.parameters)
        more = f"the reasoning models need more than {_gigabytes(machine.memory)} of memory"
        why = f"It is quick here, and {more if thinkers else 'no reasoning model can be had by name yet'}."
        return Recommendation(best.name, why)
    if not entries:
        return None
    return Recommendation(min(entries, key=weight_bytes).name, "It is the one that needs the least memory.")


def _best_thinker(thinkers: Sequence[Entry], machine: Machine) -> Recommendation | None:
    judged = [(entry, _judged(entry, machine)) for entry in thinkers]
    on_card = [entry for entry, found in judged if _is_on_card(found)]
    fitting = [(entry, found) for entry, found in judged if found.kind in RUNS]
    quick = [entry for entry, found in fitting if found.is_good]
    memory, cores = _gigabytes(machine.memory), _cores(machine.cores)
    if on_card:
        best = max(on_card, key=_size)
        held = _gigabytes(sum(gpu.total for gpu in machine.gpus))
        why = f"It is the largest reasoning model that fits into the {held} of the graphics card."
    elif quick:
        best = max(quick, key=_size)
        why = f"It is the largest reasoning model that fits into {memory} of memory and is quick on {cores}."
    elif fitting:
        best = min((entry for entry, _ in fitting), key=weight_bytes)
        why = f"It is the smallest reasoning model: on {cores} any other would be slower still."
    else:
        return None
    return Recommendation(best.name, why)


def _judged(entry: Entry, machine: Machine) -> Verdict:
    return judge_entry(entry, entry.type, machine)


def _is_on_card(found: Verdict) -> bool:
    return found.kind in RUNS and 0 < found.layers == found.gpu_layers


def _size(entry: Entry) -> tuple[int, int]:
    """The larger the better; of equally large ones, the lighter."""
    return entry.parameters, -weight_bytes(entry)


def _gigabytes(count: int) -> str:
    """Memory as its sellers count it."""
    return f"{max(1, round(count / 2**30))} GB"


def _cores(count: int) -> str:
    return "1 core" if count == 1 else f"{count} cores"
