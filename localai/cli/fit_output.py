"""What `localai models fit` prints for people: a table of all models, or what is to be said of one."""

from __future__ import annotations

from typing import TYPE_CHECKING

from localai.cli import output
from localai.cli.fit_rows import CONTEXTS
from models import figure_words

if TYPE_CHECKING:
    from localai.cli.fit_rows import Row
    from models.machine import Machine
    from models.verdict import Verdict


def table(rows: list[Row], machine: Machine, context: int | None) -> None:
    """All models, and below it what was reckoned with."""
    _rows(rows, (context,) if context else CONTEXTS)
    print()
    print(f"This machine: {_machine(machine)}.")
    measured = any(row.figures and row.figures.speed for row in rows)
    estimate = "an estimate" + (", unless it says measured" if measured else "")
    print(f"MEMORY: with so many tokens of context; -: it was trained for fewer. TOKENS/S: {estimate}.")
    for row in rows:
        if row.error:
            output.note(f"{row.subject.name} cannot be judged: {row.error}")


def _rows(rows: list[Row], contexts: tuple[int, ...]) -> None:
    memory = [f"MEMORY {_tokens(one)}" for one in contexts]
    headers = ["NAME", "TYPE", "WEIGHTS", *memory, "VERDICT", "TOKENS/S"]
    output.print_table(headers, [_cells(row, contexts) for row in rows])


def _cells(row: Row, contexts: tuple[int, ...]) -> list[str]:
    unknown = "-" if row.header else "?"
    sizes = [output.size(found.total) if (found := row.need(one)) else unknown for one in contexts]
    weights = output.size(row.weights) if row.weights else "?"
    kind = row.verdict.kind if row.verdict else "unknown"
    return [row.subject.name, row.subject.file_type, weights, *sizes, kind, _speed(row)]


def _speed(row: Row) -> str:
    """As "8 measured", or as `_range`."""
    if row.figures is not None and row.figures.speed is not None:
        return f"{output.rate(row.figures.speed.generate.median)} measured"
    return _range(row.verdict)


def _range(verdict: Verdict | None) -> str:
    """As "7 (5-8)"; "-" where nothing is known."""
    if verdict is None or not verdict.tokens_per_s:
        return "-"
    speed = verdict.speed
    rate = output.rate
    return f"{rate(speed.tokens_per_s)} ({rate(speed.slowest)}-{rate(speed.fastest)})"


def one(rows: list[Row], machine: Machine) -> None:
    """The first of `rows` in words; then all, if there are more: they are its other types."""
    for label, value in {**_words(rows[0]), "machine": _machine(machine)}.items():
        if value:
            print(f"{label:<10}{output.one_line(value)}")
    if rows[1:]:
        print()
        _rows(rows, CONTEXTS)


def _words(row: Row) -> dict[str, str]:
    verdict, parts = row.verdict, row.need()
    found = {"name": row.subject.name, "type": row.subject.file_type}
    found["weights"] = f"{output.size(row.weights)} ({row.weights:,} bytes)" if row.weights else "not known"
    if verdict is None:
        return found
    if parts is not None:
        found["memory"] = (
            f"{output.size(parts.total)} with {verdict.context:,} tokens of context: "
            f"weights {output.size(parts.weights)}, "
            f"context {output.size(parts.cache)} as {row.asked.kv_type}, "
            f"buffers {output.size(parts.compute)}, program {output.size(parts.process)}"
        )
    speed = f"about {_range(verdict)} tokens/s, an estimate" if verdict.tokens_per_s else ""
    measured = figure_words.sentences(row.figures) if row.figures else ""
    return {
        **found,
        "verdict": f"{verdict.kind}. {verdict.why}",
        "gpu": verdict.gpu,
        "speed": "" if row.figures and row.figures.speed else speed,
        "measured": measured,
        "instead": verdict.alternative,
    }


def _machine(machine: Machine) -> str:
    speed = machine.measured
    pace = f", which is read at {speed.bytes_per_s / 1e9:.0f} GB/s" if speed else ""
    cores = "1 core" if machine.cores == 1 else f"{machine.cores} cores"
    return f"{output.size(machine.free)} of {output.size(machine.memory)} of memory free{pace}; {cores}"


def _tokens(context: int) -> str:
    return f"{context // 1024}k" if context % 1024 == 0 else f"{context:,}"
