"""What `localai quantize --compare` prints: what it will do; tables, pictures and advice of what it found."""

from __future__ import annotations

import math
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any

from localai.cli import output
from localai.comparison import selection, words
from quantize.protocol import Candidate, Forecast

if TYPE_CHECKING:
    from localai.comparison.estimate import Estimate
    from localai.comparison.found import Asked
    from localai.comparison.result import Comparison, Row
    from localai.comparison.selection import Reference, Selection
    from models.figures import Rate

_WIDTH = 80
"""Columns that text and tables take at most."""
_RIGHT = " RIGHT: questions of a small set that it answered rightly."


# ------------------------------------------------------------------------------------------ before it starts


def forecast(
    asked: Asked, known: Forecast, chosen: Selection, reference: Reference, free: int, json: bool
) -> None:
    """Which types will be compared, what that takes, and how long about."""
    about = _estimate(asked, known, chosen)
    needed = [
        selection.disk_needed(group, reference) for group in selection.groups(chosen.types, reference, free)
    ]
    if json:
        output.print_json({"comparison": _as_data(chosen, reference, needed, free, about)})
        return
    print(f"{known.architecture}, {output.count(known.weights)} parameters in {known.source_type}")
    print()
    rows = [_memory_row(one, asked.memory) for one in chosen.types]
    contexts = [f"MEM {words.context(c)}" for c in selection.shown_memory(chosen.types[0])]
    output.print_table(["TYPE", "SIZE", *contexts], rows)
    print()
    for note in (*chosen.notes, *reference.notes):
        _say(f"{note}.")
    made = "is made, too" if reference.made else "is there"
    _say(f"All are compared with {reference.file_type}, {output.size(reference.size)}, which {made}.")
    times = "" if len(needed) == 1 else f", in {len(needed)} groups with a reading each"
    _say(f"Disk: {output.size(max(needed))} meanwhile{times}; {output.size(free)} free.")
    _say(f"Time: very roughly {output.duration(about.total)}, and more if questions are asked.")


def begin(asked: Asked, known: Forecast, chosen: Selection, reference: Reference) -> None:
    """What is going on, in one line."""
    about = output.duration(_estimate(asked, known, chosen).total)
    output.note(
        f"compares {_types(len(chosen.types))} with {reference.file_type}, very roughly {about}"
        f"{'' if asked.questions == 0 else ', and more if questions are asked'}; "
        "Ctrl+C shows what is known by then"
    )


def _types(count: int) -> str:
    return "1 type" if count == 1 else f"{count} types"


def _estimate(asked: Asked, known: Forecast, chosen: Selection) -> Estimate:
    from localai.comparison.estimate import estimate
    from models import bandwidth

    reading = asked.reading
    machine = bandwidth.measured()
    return estimate(known, chosen.types, asked.rounds, reading.chunks, reading.context, machine)


def _memory_row(one: Candidate, memory: int) -> list[str]:
    return [one.file_type, output.size(one.size), *_memory(selection.shown_memory(one), memory)]


def _memory(needed: dict[int, int], usable: int) -> list[str]:
    """What does not fit is marked."""
    return [output.size(each) + ("" if each <= usable else " *") for each in needed.values()]


def _as_data(
    chosen: Selection, reference: Reference, needed: list[int], free: int, about: Estimate
) -> dict[str, Any]:
    return {
        "types": [
            {"type": one.file_type, "size": one.size, "bits_per_weight": one.bits_per_weight}
            for one in chosen.types
        ],
        "reference": reference.file_type,
        "reference_size": reference.size,
        "disk_needed": max(needed),
        "disk_free": free,
        "readings": len(needed),
        "seconds": round(about.total),
        "notes": [*chosen.notes, *reference.notes],
    }


# --------------------------------------------------------------------------------------------- what it found


def show(found: Comparison, complete: bool, kept: str, reported: str, json: bool) -> None:
    """All that is known. `complete`: nothing is missing. `kept` and `reported`: what was written, or ""."""
    advised = found.advice.file_type if found.advice is not None else ""
    command = words.command(found, advised) if advised else ""
    if json:
        import msgspec

        more = {"complete": complete, "command": command, "kept": kept, "report": reported}
        output.print_json({**msgspec.structs.asdict(found), **more})
        return
    _heading(found)
    _takes(found, advised)
    _costs(found, advised)
    _pictures(found)
    _advice(found, complete, kept, reported, command)


def _heading(found: Comparison) -> None:
    called = output.one_line(found.name or found.source)
    print(
        f"{called}: {output.count(found.weights)} parameters; {found.reference} takes "
        f"{output.size(found.reference_size)}"
    )
    print()


def _takes(found: Comparison, advised: str) -> None:
    contexts = sorted({context for row in found.rows for context in row.memory})
    headers = ["", "TYPE", "SIZE", *(f"MEM {words.context(c)}" for c in contexts), "READS/s", "WRITES/s"]
    output.print_table(headers, [_takes_row(row, found.memory_usable, advised) for row in found.rows])
    most = max(max(row.memory.values()) for row in found.rows)
    star = "" if most <= found.memory_usable else "; *: more than a model may take here"
    _say(f"MEM: memory to run, by tokens of context{star}. READS, WRITES: tokens a second, measured here.")
    print()


def _takes_row(row: Row, usable: int, advised: str) -> list[str]:
    speed = row.speed
    rates = ["", ""] if speed is None else [_rate(speed.prompt), _rate(speed.generate)]
    return [*_called(row, advised), output.size(row.size), *_memory(row.memory, usable), *rates]


def _costs(found: Comparison, advised: str) -> None:
    if all(row.loss is None and row.answers is None for row in found.rows):
        return
    asked = max((row.answers.asked for row in found.rows if row.answers is not None), default=0)
    right = [f"RIGHT OF {asked}"] if asked else []
    headers = ["", "TYPE", "SAME WORD", "KL", "PERPLEXITY", *right]
    rows = [[*_called(row, advised), *_loss(row), *(_right(row) if asked else [])] for row in found.rows]
    output.print_table(headers, rows)
    _say(
        f"Compared with {found.reference} on {found.chunks} chunks of text. SAME WORD: how often both go on "
        f"with the same word. KL: how far the chances of all words are from those of {found.reference}; 0 is "
        "the same. PERPLEXITY: how surprised it is by the text, and how many times as much as "
        f"{found.reference}; below x1 is no better, only otherwise.{_RIGHT if asked else ''} "
        "+-: the standard error; what is closer than twice that may be the same."
    )
    print()


def _loss(row: Row) -> list[str]:
    loss = row.loss
    if loss is None:
        return ["", "", ""]
    same = _figure(loss.top1 * 100, loss.top1_stderr * 100)
    ratio = _figure(loss.perplexity_ratio, loss.perplexity_ratio_stderr)
    return [f"{same} %", _figure(loss.kl, loss.kl_stderr), f"{words.surprise(loss.perplexity)}, x{ratio}"]


def _right(row: Row) -> list[str]:
    from localai.evaluation.tasks.shares import share

    if row.answers is None:
        return [""]
    error = share(row.answers.right, row.answers.asked).stderr * row.answers.asked
    return [f"{row.answers.right}+-{max(error, 1):.0f}"]


def _called(row: Row, advised: str) -> list[str]:
    """Its name, with a mark before the one to take."""
    return [">" if row.file_type == advised else "", row.file_type]


def _figure(value: float, error: float) -> str:
    """A figure with the digits that its error leaves: one of the error, or two if it begins with 1 or 2."""
    if not error > 0:
        return f"{value:.4g}"
    size = math.floor(math.log10(error))
    digits = max(0, -size + (error / 10.0**size < 3))
    return f"{value:,.{digits}f}+-{error:,.{digits}f}"


def _rate(one: Rate) -> str:
    """Without an error where there is none: of what was measured only once."""
    return output.rate(one.median) + (f"+-{output.rate(one.stderr)}" if one.stderr > 0 else "")


def _pictures(found: Comparison) -> None:
    from localai.comparison import plot

    columns = shutil.get_terminal_size((_WIDTH, 24)).columns
    color = sys.stdout.isatty() and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
    for line in plot.lines(found, columns, color=color, plain=not plot.shows(sys.stdout.encoding)):
        print(line)


def _advice(found: Comparison, complete: bool, kept: str, reported: str, command: str) -> None:
    for note in found.notes:
        _say(f"- {note}")
    print()
    if not complete:
        _say(
            "It was stopped before all was measured, so nothing is advised or reported yet. The "
            "same command goes on with the losses and the answers from here; --tasks 0 asks no questions."
        )
        return
    if found.advice is None:
        _say("Too little could be measured for advice.")
        return
    for line in (found.advice.sentence, *found.advice.remarks):
        _say(line)
    if kept:
        _say(f"It is kept as {kept}.")
    if reported:
        _say(f"The report is in {reported}.")
    if command:
        print("To make it:" if not kept else "To make it again:")
        print(f"  {output.one_line(command)}")


def _say(text: str) -> None:
    """A sentence in lines that fit."""
    width = min(shutil.get_terminal_size((_WIDTH, 24)).columns, 100)
    indent = "  " if text.startswith("- ") else ""
    for line in textwrap.wrap(output.one_line(text), max(width, 40), subsequent_indent=indent):
        print(line)
