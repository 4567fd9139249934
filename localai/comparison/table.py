"""The table of a report: all figures of all types, and what its columns mean. As HTML, all texts escaped."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from html import escape
from typing import NamedTuple

from localai.comparison import front, words
from localai.comparison.choice import needed
from localai.comparison.result import Comparison, Row
from localai.comparison.words import name, with_error


class Column(NamedTuple):
    """One column. `head`, `cell` and `meaning` give text, not HTML."""

    head: str
    unit: str
    cell: Callable[[Row], str]
    """"" where nothing is known; a column of these is left out."""
    meaning: str


def columns(comparison: Comparison) -> list[Column]:
    """Those of which at least one row knows something, but for the first and the last, which are words."""
    contexts = sorted({tokens for row in comparison.rows for tokens in row.memory})
    found = [
        Column("Size", "on disk", lambda row: words.size(row.size), _SIZE),
        Column("Bits", "a weight", lambda row: f"{row.bits_per_weight:.2f}", _BITS),
        *(_memory(tokens) for tokens in contexts),
        Column("Writes", "tokens/s", _writes, _WRITES),
        Column("Reads", "tokens/s", _reads, _READS),
        Column("Same word", "of 100", _same, _SAME.format(reference=name(comparison.reference))),
        Column("Right", "answers", _right, _RIGHT),
        Column("Loss", "KL divergence", _loss, _LOSS),
        Column("Worst 1 %", "KL divergence", _worst, _WORST),
        Column("Perplexity", "× original", _perplexity, _PERPLEXITY),
    ]
    return [column for column in found if any(column.cell(row) for row in comparison.rows)]


_SIZE = "The size of the file."
_BITS = "Bits for each weight on average, all the rest of the file included."
_WRITES = "How fast it writes an answer here. People read about five tokens a second."
_READS = "How fast it reads your question, and the texts that you give it."
_SAME = """\
In so many places of the text, of 100, this type and {reference} think the same token the most likely to
come next. The easiest figure to grasp."""
_LOSS = f"""\
How far all probabilities for the next token are from the original’s, on average; 0 is no loss. The finest
figure, and the one that the pictures show. Up to {words.HARDLY:g} it is hardly noticeable: of ten tokens,
at least nine are then drawn just as before. Up to {words.AT_TIMES:g} it is noticeable at times, up to
{words.MUCH:g} clearly; beyond that the model is damaged."""
_WORST = "The divergence that one token of 100 exceeds: how bad the bad places are."
_PERPLEXITY = """\
By how much more the text surprises it than the original: 1.02 is 2 % more surprise. Where it is below 1, the
text happens to suit what the type has lost; that makes it no better than the original."""
_RIGHT = "Questions of a small set that it answered rightly. A few more or less are chance."


def _memory(tokens: int) -> Column:
    meaning = f"What it takes to run, with a conversation of up to {tokens:,} tokens in mind."

    def cell(row: Row) -> str:
        return words.size(needed(row, tokens)) if tokens in row.memory else ""

    return Column("Memory", f"{words.context(tokens)} tokens", cell, meaning)


def _writes(row: Row) -> str:
    return _rate(row.speed.generate.median, row.speed.generate.stderr) if row.speed else ""


def _reads(row: Row) -> str:
    return _rate(row.speed.prompt.median, row.speed.prompt.stderr) if row.speed else ""


def _rate(median: float, error: float) -> str:
    return f"{words.pace(median)} ± {words.pace(error)}" if error >= 0.005 else words.pace(median)


def _same(row: Row) -> str:
    return with_error(row.loss.top1 * 100, row.loss.top1_stderr * 100) if row.loss else ""


def _loss(row: Row) -> str:
    return with_error(row.loss.kl, row.loss.kl_stderr) if row.loss else ""


def _worst(row: Row) -> str:
    return f"{row.loss.kl_p99:.3g}" if row.loss and row.loss.kl_p99 else ""


def _perplexity(row: Row) -> str:
    return with_error(row.loss.perplexity_ratio, row.loss.perplexity_ratio_stderr) if row.loss else ""


def _right(row: Row) -> str:
    return f"{row.answers.right} of {row.answers.asked}" if row.answers and row.answers.asked else ""


def html(comparison: Comparison) -> str:
    """The table, in a box that scrolls where the screen is narrow."""
    shown = columns(comparison)
    heads = "".join(f'<th scope="col">{_head(column)}</th>' for column in shown)
    standings = [(row, str(standing)) for row, standing in front.standings(comparison)]
    unknown = [(row, "unknown") for row in comparison.rows if row.loss is None]
    rows = sorted([*standings, *unknown], key=lambda one: (-one[0].size, one[0].file_type))
    parts = [
        '<div class="scroll" role="region" aria-labelledby="figures" tabindex="0"><table>',
        "<caption>The largest first. ± is the standard error.</caption>",
        f'<thead><tr><th scope="col">Type</th><th scope="col" class="words">Verdict</th>{heads}</tr></thead>',
        "<tbody>",
        *(_row(row, standing, shown, comparison.rows) for row, standing in rows),
    ]
    return "\n".join([*parts, "</tbody></table></div>"])


def _head(column: Column) -> str:
    return escape(column.head) + (f"<br><small>{escape(column.unit)}</small>" if column.unit else "")


def _cell(text: str) -> str:
    """The error below its figure."""
    value, _, error = escape(text or "–").partition(" ± ")
    return value + (f"<br><small>± {error}</small>" if error else "")


def _row(row: Row, standing: str, shown: Sequence[Column], rows: Sequence[Row]) -> str:
    cells = "".join(f"<td>{_cell(column.cell(row))}</td>" for column in shown)
    return (
        f'<tr class="{standing}"><th scope="row">{escape(name(row.file_type))}</th>'
        f'<td class="words">{_verdict(row, standing, rows)}</td>{cells}</tr>'
    )


def _verdict(row: Row, standing: str, rows: Sequence[Row]) -> str:
    """What is to be thought of it, and how much its loss matters."""
    more = [] if row.fits else ["too large for here"]
    if row.loss is None:
        return "not measured" + "".join(f"<br><small>{part}</small>" for part in more)
    more = [f"loss {words.grade(row.loss)}", *more]
    better = front.dominator(row, rows) if standing == "dominated" else None
    by = f" by {name(better.file_type)}" if better else ""
    thought = "● worth a thought" if row.loss.kl <= words.MUCH else "● if nothing else fits"
    said = {"advised": "◆ take this", "front": thought}.get(standing, f"○ dominated{by}")
    return escape(said) + "".join(f"<br><small>{part}</small>" for part in more)


def meanings(comparison: Comparison) -> str:
    """What each column means."""
    said = "\n".join(
        f"<dt>{escape(column.head)}{escape(f', {column.unit}' if column.unit else '')}</dt>"
        f"<dd>{escape(column.meaning)}</dd>"
        for column in columns(comparison)
    )
    return f"<dl>\n{said}\n</dl>"
