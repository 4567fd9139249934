"""Which types are compared, with what, and how many at a time: all that is decided before any is made.

A comparison needs files: one of each type, and the reference if the source is no GGUF itself. They lie on the
disk as long as they are measured. Where it cannot take all, they are made in groups, with one reading each.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from localai.errors import NoSpace, UsageError
from models.files import megabytes
from quantize.advice import sensible
from quantize.protocol import Candidate, Forecast

USEFUL: Final = (
    *("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q4_K_S", "IQ4_XS", "Q4_1", "Q4_0"),
    *("Q3_K_M", "IQ3_M", "IQ3_XXS", "Q2_K", "IQ2_M"),
)
"""The types that somebody may want, unless named otherwise: each is smaller, faster or better than others."""
NEED_IMATRIX: Final = ("IQ3_M", "IQ3_XXS", "IQ2_M")
"""Those of them that are of no use without an importance matrix, also where llama.cpp makes them."""
PLAIN: Final = ("F32", "BF16", "F16")
"""Types of weights that nothing was taken from."""
CLOSEST: Final = "Q8_0"
"""What stands for the source where memory cannot hold that beside another file."""


class Selection(msgspec.Struct, frozen=True):
    """The types to compare, the largest file first, and what to know of those that are left out."""

    types: tuple[Candidate, ...]
    notes: tuple[str, ...] = ()


class Reference(msgspec.Struct, frozen=True):
    """What all types are compared with."""

    file_type: str
    size: int
    """Bytes of the file."""
    made: bool
    """Whether it is made, too. Otherwise it is the source itself."""
    exact: bool
    """Whether it is as the source, and not only close to it."""
    notes: tuple[str, ...] = ()


def select(known: Forecast, named: Sequence[str], memory: int) -> Selection:
    """The `named` types, or if none is, the useful ones that run in `memory` bytes.

    Of useful ones that would only differ in their names, the first is taken. UsageError if none is left.
    """
    if named:
        return Selection(_by_size([one for one in known.candidates if one.file_type in named]))
    useful = [one for one in sensible(known) if one.file_type in USEFUL and not _weak(one, known)]
    taken: list[Candidate] = []
    notes: list[str] = []
    for one in useful:
        same = next((other for other in taken if other.layout and other.layout == one.layout), None)
        if same is None:
            taken.append(one)
        else:
            notes.append(f"{one.file_type} is left out: for this model it is the same as {same.file_type}")
    fitting = [one for one in taken if least_memory(one) <= memory]
    if not fitting and taken:
        fitting = [min(taken, key=lambda one: one.size)]
    if large := [one.file_type for one in taken if one not in fitting]:
        notes.append(f"{listed(large)} would not run in the {megabytes(memory)} that a model may take here")
    if not fitting:
        raise UsageError("none of the useful types is smaller than the source", "Name types with --type")
    return Selection(_by_size(fitting), tuple(notes))


def _weak(one: Candidate, known: Forecast) -> bool:
    """Whether a type needs an importance matrix, to be made or to be of use, and there is none.

    With one, no type is in want of it any more, and without one some always are.
    """
    lacking = any(other.needs_imatrix for other in known.candidates)
    return one.needs_imatrix or (lacking and one.file_type in NEED_IMATRIX)


def reference(known: Forecast, types: Sequence[Candidate], memory: int, *, gguf: bool) -> Reference:
    """What the `types` are compared with where a model may take `memory` bytes.

    That is the source's own precision if two files fit into memory, or else Q8_0. `gguf`: the source is a
    GGUF file, which need not be made.
    """
    named = {one.file_type: one for one in known.candidates}
    own, close = named.get(known.source_type), named[CLOSEST]
    if known.source_type not in PLAIN or own is None:
        return Reference(known.source_type, known.source_bytes, made=False, exact=True)
    beside = max(least_memory(one) for one in types)
    if least_memory(own) + beside <= memory:
        size = known.source_bytes if gguf else known.plain.get(own.file_type, own.size)
        return Reference(own.file_type, size, made=not gguf, exact=True)
    notes = [
        f"compared with {CLOSEST}, because {megabytes(memory)} of memory cannot hold "
        f"{own.file_type} beside another file: the losses are a little too small, and that of {CLOSEST} "
        "is not known"
    ]
    if least_memory(close) + beside > memory:
        notes.append("two files do not fit into memory: they are read from the disk again and again, slowly")
    return Reference(
        CLOSEST, known.plain.get(CLOSEST, close.size), made=True, exact=False, notes=tuple(notes)
    )


def groups(types: Sequence[Candidate], reference: Reference, free: int) -> list[list[Candidate]]:
    """The types to make in one reading each, beside the reference, on a disk with `free` bytes; NoSpace."""
    held = reference.size if reference.made else 0
    found: list[list[Candidate]] = []
    room = -1
    for one in types:
        size = 0 if reference.made and one.file_type == reference.file_type else one.size
        if held + size > free:
            raise NoSpace(
                f"there is room for {megabytes(free)} on the disk, and to compare {one.file_type} takes "
                f"{megabytes(held + size)} meanwhile",
                "Free some space, name smaller types with --type, or another disk with --output",
            )
        if room < size:
            found.append([])
            room = free - held
        found[-1].append(one)
        room -= size
    return found


def disk_needed(group: Sequence[Candidate], reference: Reference) -> int:
    """Bytes of disk that one group takes, with the reference."""
    sizes = {one.file_type: one.size for one in group}
    if reference.made:
        sizes[reference.file_type] = reference.size
    return sum(sizes.values())


def shown_memory(one: Candidate) -> dict[int, int]:
    """Of what it needs to run: for 4k and 16k tokens of context, as far as it was trained for so many."""
    return {c: needed for c, needed in one.memory.items() if c <= 16_384 or len(one.memory) == 1}


def least_memory(one: Candidate) -> int:
    """Bytes that it needs to run with the smallest context that the forecast tells."""
    return min(one.memory.values())


def listed(words: Sequence[str]) -> str:
    """ "A, B and C"."""
    return " and ".join(part for part in (", ".join(words[:-1]), *words[-1:]) if part)


def _by_size(types: Sequence[Candidate]) -> tuple[Candidate, ...]:
    return tuple(sorted(types, key=lambda one: (-one.size, one.file_type)))
