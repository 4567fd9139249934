"""What to take instead of a model that does not fit or is slow: the best quality that fits and is not slow.

First another type of the same model, then a smaller model that reasons if this one does. Where nothing is
better, what this model would need.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from models import catalog, fit, need
from models.catalog import Entry
from models.header import Header
from models.machine import Machine
from models.sketch import sketch, weight_bytes
from models.verdict import RUNS, Verdict, judge, judge_entry

_SOLD: Final = (4, 8, 12, 16, 24, 32, 48, 64, 96, 128, 192, 256, 512)
"""Gigabytes of memory that machines have."""


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What is judged, beside the machine."""

    context: int | None = None
    kv_type: fit.KvType = "f16"


def of_header(
    header: Header, machine: Machine, asked: Asked = Asked(), entry: Entry | None = None
) -> Verdict:
    """The verdict on a file, with an alternative. `entry`: the model of the catalogue, if that is known."""
    found = judge(header, machine, context=asked.context, kv_type=asked.kv_type)
    known = entry or same_model(header)
    return _advised(found, header, known, header.file_type, machine, asked)


def of_entry(entry: Entry, file_type: str, machine: Machine, asked: Asked = Asked()) -> Verdict:
    """The verdict on a model of the catalogue in `file_type`, with an alternative."""
    found = judge_entry(entry, file_type, machine, context=asked.context, kv_type=asked.kv_type)
    return _advised(found, sketch(entry, file_type), entry, file_type, machine, asked)


def same_model(header: Header, entries: Sequence[Entry] | None = None) -> Entry | None:
    """The model of the catalogue that has this shape and as many parameters."""
    shape = fit.Shape.of(header)
    for entry in catalog.entries() if entries is None else entries:
        mine = entry.shape
        if mine and (mine.architecture, mine.layers, mine.embedding_length, mine.vocabulary) == (
            header.architecture,
            shape.layers,
            shape.embedding_length,
            shape.vocabulary,
        ):
            return entry
    return None


def full_name(entry: Entry, file_type: str) -> str:
    """As `localai models pull` takes it: "r1:7b", or "r1:7b:q6_k" where the type is not the entry's own."""
    return entry.name if file_type == entry.type else f"{entry.name}:{file_type.lower()}"


def _advised(
    found: Verdict, header: Header | None, entry: Entry | None, file_type: str, machine: Machine, asked: Asked
) -> Verdict:
    if found.is_good or found.kind == "unknown" or header is None:
        return found
    reasoning = entry.reasoning if entry else header.reasons
    parameters = entry.parameters if entry else header.parameters
    judged = [
        (
            full_name(other, kind),
            judge_entry(other, kind, machine, context=asked.context, kv_type=asked.kv_type),
        )
        for other, kind in _candidates(entry, file_type, header.tensor_bytes, parameters, reasoning)
    ]
    if better := next(((name, one) for name, one in judged if one.is_good), None) or _at_least(found, judged):
        return msgspec.structs.replace(found, instead=better[0], alternative=_instead(*better))
    return msgspec.structs.replace(found, alternative=_would_need(found, header, asked))


def _at_least(found: Verdict, judged: Sequence[tuple[str, Verdict]]) -> tuple[str, Verdict] | None:
    """Where nothing is good: the quickest that runs, if this one does not."""
    running = [pair for pair in judged if pair[1].kind in RUNS]
    if found.kind in RUNS or not running:
        return None
    return max(running, key=lambda pair: pair[1].tokens_per_s)


def _candidates(
    entry: Entry | None, file_type: str, size: int, parameters: int, reasoning: bool
) -> Iterator[tuple[Entry, str]]:
    """Smaller ones, the best first: types of the same model, then other models in their usual type."""
    if entry is not None:
        for kind in _best_first(entry):
            if kind != file_type and weight_bytes(entry, kind) < size:
                yield entry, kind
    others = [e for e in catalog.entries() if e.parameters < parameters and e.reasoning >= reasoning]
    for other in sorted(others, key=lambda e: -e.parameters):
        if not other.is_builtin:
            yield other, other.type


def _best_first(entry: Entry) -> list[str]:
    """The types that are recommended; where none is named, those that can be had."""
    return sorted(entry.types or entry.all_types, key=lambda kind: -weight_bytes(entry, kind))


def _instead(name: str, better: Verdict) -> str:
    pace = f", and writes about {pace_in_words(better.tokens_per_s)}" if better.tokens_per_s else ""
    less = f" with {better.largest_context:,} tokens of context" if better.kind != "fits" else ""
    return f"{name} fits{less}{pace}."


def pace_in_words(tokens_per_s: float) -> str:
    """ "12 tokens/s"; below 10 with a digit behind the point."""
    return f"{tokens_per_s:.0f} tokens/s" if tokens_per_s >= 9.5 else f"{tokens_per_s:.1f} tokens/s"


def _would_need(found: Verdict, header: Header, asked: Asked) -> str:
    """What would make it fit, or quick."""
    if found.kind in RUNS and not found.is_slow:
        return ""
    if found.kind in RUNS:
        return "Faster memory or a GPU would make it quicker; more memory would not."
    takes = need.need(header, found.context, asked.kv_type).total
    sold = next((size for size in _SOLD if fit.usable_memory(size << 30) >= takes), None)
    return f"It needs a machine with {sold} GB of memory." if sold else "No usual machine holds it."
