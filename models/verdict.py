"""Whether a model fits a machine, why, how fast it will be, and what to take instead: for all who ask.

A file is judged by its header, and what is not here yet by the header that it will have: before a byte is
fetched. What counts is the memory that is free now; beyond it, what could be free with other programs closed.
"""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from models import fit, need, offload, speed
from models.catalog import Entry
from models.files import megabytes
from models.header import Header
from models.machine import Machine
from models.sketch import sketch
from models.speed import GOOD_TOKENS_PER_S, Speed

Kind = Literal["fits", "fits with less context", "tight", "too large", "unknown"]
"""tight: it runs if other programs give memory back, or swaps. unknown: the catalogue tells no size."""

RUNS: Final[frozenset[Kind]] = frozenset({"fits", "fits with less context"})


class Verdict(msgspec.Struct, frozen=True, kw_only=True):
    """What comes of it. Sizes are bytes of main memory; 0 means not known."""

    kind: Kind
    why: str
    """One sentence with the numbers."""
    context: int = 0
    """The tokens of context that were asked about."""
    largest_context: int = 0
    """The most that fit into what is free; 0: not even the least."""
    memory: int = 0
    """What it takes with `context`."""
    free: int = 0
    """What it may take now."""
    gpu_layers: int = 0
    """Of `layers`, as llama.cpp counts them, those that fit into the memory of GPUs."""
    layers: int = 0
    gpu: str = ""
    """One sentence about them; "" without a GPU."""
    speed: Speed = Speed()
    alternative: str = ""
    """One sentence: what to take instead, or what this model would need; "" where nothing is to be said."""
    instead: str = ""
    """What to fetch instead, as `localai models pull` takes it; "": nothing better is known."""

    @property
    def tokens_per_s(self) -> float:
        """What is likely; 0: not known."""
        return self.speed.tokens_per_s

    @property
    def is_slow(self) -> bool:
        """Whether one would wait for it, as far as known."""
        return 0 < self.tokens_per_s < GOOD_TOKENS_PER_S

    @property
    def is_good(self) -> bool:
        """Whether it fits and is not slow."""
        return self.kind == "fits" and not self.is_slow


def judge(
    header: Header, machine: Machine, *, context: int | None = None, kv_type: fit.KvType = "f16"
) -> Verdict:
    """The model of `header` with `context` tokens (default: enough for some answers with their thinking).

    Without an alternative: see `models.alternatives`.
    """
    asked = min(context or need.usual_context(header), need.trained(header))
    moved = _moved(header, asked, kv_type, machine)
    here = 0 if machine.shared else moved
    takes = need.need(header, asked, kv_type, gpu_layers=here).total
    least = need.need(header, min(asked, need.least_context(header)), kv_type, gpu_layers=here).total
    largest = need.largest_context(header, machine.free, kv_type, gpu_layers=here)
    kind = _kind(takes, least, machine)
    pace = speed.estimate(header, asked, kv_type, machine, gpu_layers=moved)
    return Verdict(
        kind=kind,
        why=_why(kind, takes, least, asked, largest, machine),
        context=asked,
        largest_context=largest,
        memory=takes,
        free=machine.free,
        gpu_layers=moved,
        layers=header.block_count + 1,
        gpu=_about_gpu(moved, header.block_count + 1, machine),
        speed=pace if kind != "too large" else Speed(),
    )


def judge_entry(
    entry: Entry,
    file_type: str,
    machine: Machine,
    *,
    context: int | None = None,
    kv_type: fit.KvType = "f16",
) -> Verdict:
    """The model of the catalogue in `file_type`, as `judge` will see its file."""
    header = sketch(entry, file_type)
    if header is None:
        return Verdict(kind="unknown", why="How much memory it takes is known once it is here.")
    return judge(header, machine, context=context, kv_type=kv_type)


def _moved(header: Header, context: int, kv_type: fit.KvType, machine: Machine) -> int:
    """Layers that the GPUs get, as the engine would move them."""
    return offload.plan(header, context, kv_type, None, machine.gpus).layers


def _kind(takes: int, least: int, machine: Machine) -> Kind:
    if takes <= machine.free:
        return "fits"
    if least <= machine.free:
        return "fits with less context"
    return "tight" if least <= machine.memory else "too large"


def _why(kind: Kind, takes: int, least: int, asked: int, largest: int, machine: Machine) -> str:
    free, total = megabytes(machine.free), megabytes(machine.memory)
    full = f"With {asked:,} tokens of context it takes {megabytes(takes)} of memory, and {free} is free"
    begin = f"It takes at least {megabytes(least)} of"
    if kind == "fits":
        return full + (f"; up to {largest:,} tokens fit." if largest > asked else ".")
    if kind == "fits with less context":
        return f"{full}; up to {largest:,} tokens fit."
    if kind == "too large":
        return f"{begin} memory, and this machine has {total}: it would be very slow."
    if least <= machine.usable:
        return f"{begin} memory, and {free} is free: close other programs, or it is slow."
    return f"{begin} the {total} of memory in this machine: it leaves too little to the system, which swaps."


def _about_gpu(moved: int, layers: int, machine: Machine) -> str:
    if not machine.gpus:
        return ""
    owner = "the GPU" if len(machine.gpus) == 1 else f"the {len(machine.gpus)} GPUs"
    if not all(gpu.total for gpu in machine.gpus):
        return f"How much memory {owner} can give is not known: all layers are tried there."
    room = f"the {megabytes(sum(gpu.free for gpu in machine.gpus))} that {owner} can give"
    if moved == layers:
        return f"All {layers} layers fit into {room}: it computes them, and the processor has nothing to do."
    if not moved:
        return f"Not even one layer fits into {room}: the processor computes all."
    return f"{moved} of {layers} layers fit into {room}: the processor computes the rest, and sets the pace."
