"""What `localai quantize` shows: the forecast as a table, progress, and what was made."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

from localai.cli import options, output
from quantize.file_types import TERNARY

if TYPE_CHECKING:
    from quantize.advice import Advice
    from quantize.client import Made
    from quantize.protocol import Candidate, Forecast, Progress

_STAGES = {"convert": "Quantize", "measure": "Measure", "hash": "Hash", "check": "Check"}


def memory_here() -> int:
    """Bytes of memory that a model may take on this machine."""
    from localai import hardware
    from models import fit

    return fit.usable_memory(hardware.total_memory())


class Events:
    """Shows the events of one run: what will come of it, once, and how far it is."""

    def __init__(self, progress: output.Progress, types: list[str]) -> None:
        self._progress, self._types = progress, types

    def __call__(self, event: Forecast | Progress) -> None:
        from quantize.protocol import Progress

        if isinstance(event, Progress):
            self._progress(_STAGES[event.stage], event.done_bytes, event.total_bytes, event.tensor)
            return
        for candidate in event.candidates:
            if candidate.file_type in self._types:
                output.note(_verdict(candidate))


def _verdict(one: Candidate) -> str:
    """Size and whether it runs here, on one line."""
    fits = [context for context, needed in one.memory.items() if needed <= memory_here()]
    if fits:
        room = f"runs here with up to {_tokens(max(fits))} tokens of context"
    else:
        least = min(one.memory.values())
        room = f"needs {output.size(least)} of memory to run, more than a model may take here"
    return f"{one.file_type}: {output.size(one.size)}, {one.bits_per_weight:.2f} bits per weight; {room}"


def forecast(known: Forecast, advised: Advice, where: Path | None, json: bool) -> None:
    """All that is known before it starts."""
    if json:
        output.print_json({"forecast": _as_data(known, advised, where)})
        return
    contexts = sorted({context for one in known.candidates for context in one.memory})
    print(
        f"{known.architecture}, {output.count(known.weights)} parameters in {known.source_type}, "
        f"{output.size(known.source_bytes)}"
    )
    print()
    rows = [_row(one, contexts) for one in known.candidates]
    output.print_table(["TYPE", "SIZE", "BITS", *(f"MEM {_tokens(c)}" for c in contexts), ""], rows)
    print()
    marked = "; what needs more is marked with *" if any(" *" in cell for row in rows for cell in row) else ""
    print("MEM: the memory that it takes to run, by tokens of context.")
    print(f"A model may take {output.size(memory_here())} here{marked}.")
    print(f"Disk: {output.size(_disk_free(where))} free; nothing is written but the result.")
    print(f"To quantize takes about {output.size(known.working_memory)} of memory, whatever the type.")
    print(f"Recommended: {advised.file_type}, {advised.reason}.")


def _row(one: Candidate, contexts: list[int]) -> list[str]:
    cells = []
    for context in contexts:
        needed = one.memory.get(context)
        cells.append(
            "" if needed is None else output.size(needed) + ("" if needed <= memory_here() else " *")
        )
    note = "needs --imatrix" if one.needs_imatrix else ""
    note = "ternary only" if one.file_type in TERNARY else note
    return [one.file_type, output.size(one.size), f"{one.bits_per_weight:.2f}", *cells, note]


def _tokens(context: int) -> str:
    return f"{context // 1024}k" if context % 1024 == 0 else f"{context:,}"


def _disk_free(where: Path | None) -> int:
    from localai import paths
    from models.files import free_bytes

    return free_bytes(options.path(where).absolute() if where else paths.models_dir())


def _as_data(known: Forecast, advised: Advice | None, where: Path | None) -> dict[str, Any]:
    from localai import hardware
    from quantize.advice import sensible

    usable = memory_here()
    sensible_types = {one.file_type for one in sensible(known)}
    found: dict[str, Any] = {
        "architecture": known.architecture,
        "tensors": known.tensors,
        "weights": known.weights,
        "source_type": known.source_type,
        "source_bytes": known.source_bytes,
        "context_trained": known.context_trained,
        "disk_free": _disk_free(where),
        "memory_total": hardware.total_memory(),
        "memory_usable": usable,
        "working_memory": known.working_memory,
        "types": [
            {
                "type": one.file_type,
                "size": one.size,
                "bits_per_weight": one.bits_per_weight,
                "needs_imatrix": one.needs_imatrix,
                "sensible": one.file_type in sensible_types,
                "memory": [
                    {"context": context, "bytes": needed, "fits": needed <= usable}
                    for context, needed in one.memory.items()
                ],
            }
            for one in known.candidates
        ],
    }
    if advised is not None:
        found["recommended"] = {"type": advised.file_type, "reason": advised.reason}
    return found


def report(made: Made, kept: list[str], where: Path | None, json: bool) -> None:
    """What was made: `kept` are the paths, or the names in the store, in the order of the outputs."""
    from localai.cli.show import list_note

    for result, written in zip(kept, made.report.outputs, strict=True):
        if note := list_note(result, [written.sha256]):
            output.note(note)
    if json:
        output.print_json(_report_as_data(made, kept, where))
        return
    known = made.report
    for result, written, check in zip(kept, known.outputs, made.checks, strict=True):
        print(
            f"{output.one_line(result)}: {written.file_type}, {known.tensors} tensors, "
            f"{output.size(written.size)} from {output.size(known.source_bytes)}, "
            f"{written.bits_per_weight:.2f} bits per weight"
        )
        print(f"  sha256 {written.sha256}")
        words = "loads and generates" if check.result == "passed" else f"not checked: {check.reason}"
        print(f"  {words}")
    print(f"In {output.duration(known.seconds)}. Try: localai chat {output.one_line(shlex.quote(kept[0]))}")


def _report_as_data(made: Made, kept: list[str], where: Path | None) -> dict[str, Any]:
    from localai import __version__

    known = made.report
    outputs = [
        {
            "result": result,
            "file_type": written.file_type,
            "output_bytes": written.size,
            "sha256": written.sha256,
            "bits_per_weight": written.bits_per_weight,
            "tensor_types": written.types,
            "check": {"result": check.result, "reason": check.reason, "tokens": check.tokens},
        }
        for result, written, check in zip(kept, known.outputs, made.checks, strict=True)
    ]
    return {
        "result": kept[0],
        "report": {
            "architecture": known.architecture,
            "tensors": known.tensors,
            "weights": known.weights,
            "source_bytes": known.source_bytes,
            "seconds": known.seconds,
            "inputs": known.inputs,
            "imatrix_sha256": known.imatrix_sha256,
            "program": __version__,
            "llama_cpp": known.llama_cpp_commit,
            **{key: value for key, value in outputs[0].items() if key != "result"},
            "output": known.outputs[0].path,
        },
        "outputs": outputs,
        "forecast": _as_data(made.forecast, None, where),
    }
