"""`localai models fit`: does a model fit this machine, how fast will it be, what to take instead."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from localai.cli import options, output

if TYPE_CHECKING:
    from models.catalog import Entry
    from models.header import Header
    from models.machine import Machine
    from models.verdict import Verdict

_SMALL = 256 << 20
"""Bytes of weights up to which nobody waits for half a second to hear how fast it is."""


def fit(
    name: Annotated[
        str | None,
        typer.Argument(
            help="An installed model, NAME or NAME:TYPE of the catalogue, or a GGUF file. Default: all.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
    context: options.Context = None,
    kv_type: options.KvType = None,
    measure: Annotated[bool, typer.Option("--measure", help="Measure this machine's memory anew.")] = False,
) -> None:
    """Tell whether a model fits this machine and how fast it may be, before it is fetched.

    Nothing is loaded and nothing fetched: the header of the file or the catalogue tells enough. How fast
    memory is read is measured once. Speed is an estimate, with the range that it will most likely be in,
    until it was measured with `localai bench`.
    """
    from localai.cli import fit_output, fit_rows
    from models.alternatives import Asked
    from models.fit import check_context
    from models.known import Known
    from models.store import Store

    store = Store()
    subjects = fit_rows.everything(store) if name is None else fit_rows.subjects(name, store)
    machine = _machine(again=measure)
    asked = Asked(context=context, kv_type=kv_type or "f16")
    known = Known()
    rows = [fit_rows.Row(one, machine, asked, known) for one in subjects]
    if name is not None and rows[0].header is not None:
        check_context(rows[0].header, context)
    if json:
        output.print_json({"machine": _facts(machine), "models": [row.data() for row in rows]})
    elif name is None:
        fit_output.table(rows, machine, context)
    else:
        fit_output.one(rows, machine)


def judge_entry(entry: Entry, file_type: str) -> Verdict | None:
    """The verdict on a model of the catalogue, on this machine as it is; None: too little is known."""
    from models.alternatives import of_entry
    from models.sketch import weight_bytes

    machine = _machine_for(weight_bytes(entry, file_type))
    found = of_entry(entry, file_type, machine)
    if found.kind in ("tight", "too large") and (with_gpu := _with_gpus(machine)):
        found = of_entry(entry, file_type, with_gpu)
    return None if found.kind == "unknown" else found


def judge_header(header: Header) -> Verdict:
    """The verdict on a file with `header`, on this machine as it is."""
    from models.alternatives import of_header

    machine = _machine_for(header.tensor_bytes)
    found = of_header(header, machine)
    if found.kind in ("tight", "too large") and (with_gpu := _with_gpus(machine)):
        found = of_header(header, with_gpu)
    return found


def _machine(*, again: bool = False) -> Machine:
    """This machine: its GPUs, and how fast it reads memory."""
    import asyncio

    from localai.cli import first_run
    from models import bandwidth

    if again:
        bandwidth.measured(again=True)
    return asyncio.run(first_run.machine())


def _machine_for(weights: int) -> Machine:
    """This machine without its GPUs; its speed is measured only for a model that is worth it."""
    from models.machine import this_machine

    return this_machine(measure=weights > _SMALL)


def _with_gpus(machine: Machine) -> Machine | None:
    """`machine` with what the engine finds beside the processor; None: nothing."""
    import asyncio

    import msgspec

    from localai.cli import first_run

    found = asyncio.run(first_run.gpus())
    if not found.devices:
        return None
    return msgspec.structs.replace(machine, gpus=found.devices, shared=found.shared)


def _facts(machine: Machine) -> dict[str, Any]:
    """For programs."""
    speed = machine.measured
    return {
        "memory_total": machine.memory,
        "memory_available": machine.free,
        "cores": machine.cores,
        "gpus": machine.gpus,
        "bandwidth_bytes_per_s": speed.bytes_per_s if speed else None,
        "measured": speed.date if speed else None,
    }
