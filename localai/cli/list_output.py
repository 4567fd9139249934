"""What `localai models list` prints of installed models: a table, with figures where there are any."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

from localai.cli import output

if TYPE_CHECKING:
    from models.known import Known
    from models.manifest import Manifest

_SPEED, _LIKE, _RIGHT = "TOKENS/S", "AS ORIGINAL", "RIGHT"
_WORDS: Final = {
    _SPEED: "measured here",
    _LIKE: "share of the places in a text at which it goes on as what it was made of would",
    _RIGHT: "of questions that were asked",
}
_TO_SPARE: Final = ("CONTEXT", "PARAMETERS", "REASONING", "ON DISK", "LAST USED")
"""What a narrow terminal does not show, if there are figures in its place, the first one first."""


def installed(rows: Sequence[dict[str, str]], manifests: Sequence[Manifest], known: Known) -> None:
    """Print `rows`, which have the same columns, and figures behind the size if any are known."""
    figures = [_figures(manifest, known) for manifest in manifests]
    shown = [name for name in _WORDS if any(name in one for one in figures)]
    filled = [{name: one.get(name, "") for name in shown} for one in figures]
    whole = [_behind_size(row, more) for row, more in zip(rows, filled, strict=True)]
    whole = _narrowed(whole) if shown else whole
    output.print_table(*_table(whole))
    if shown:
        print(f"{'; '.join(f'{name}: {_WORDS[name]}' for name in shown)}.")


def note_damaged(known: Known) -> None:
    """Say which figures were left out, if any were."""
    if known.damaged:
        more = f" and {len(known.damaged) - 1} more" if known.damaged[1:] else ""
        again = "`localai bench` and `localai evaluate` measure again"
        output.note(f"left out: {known.damaged[0]}{more}, which cannot be read; {again}")


def _table(rows: Sequence[dict[str, str]]) -> tuple[list[str], list[list[str]]]:
    return list(rows[0]), [list(row.values()) for row in rows]


def _figures(manifest: Manifest, known: Known) -> dict[str, str]:
    from models import figure_words

    found, cells = known.of(manifest.sha256), {}
    if found is not None and found.speed is not None:
        cells[_SPEED] = figure_words.tokens(found.speed.generate.median)
    if found is not None and found.loss is not None:
        cells[_LIKE] = figure_words.percent(found.loss.top1)
    if found is not None and found.answers is not None:
        cells[_RIGHT] = f"{found.answers.right} of {found.answers.asked} {found.answers.set}"
    return cells


def _behind_size(row: dict[str, str], figures: dict[str, str]) -> dict[str, str]:
    names = list(row)
    at = names.index("SIZE") + 1
    return {name: {**row, **figures}[name] for name in [*names[:at], *figures, *names[at:]]}


def _narrowed(rows: list[dict[str, str]]) -> list[dict[str, str]]:
    """Without what the terminal has no room for; a file gets all."""
    if not sys.stdout.isatty():
        return rows
    columns = shutil.get_terminal_size().columns
    for name in _TO_SPARE:
        if output.table_width(*_table(rows)) <= columns:
            break
        rows = [{key: value for key, value in row.items() if key != name} for row in rows]
    return rows
