"""A list of models: its lines, and what a click does there."""

from __future__ import annotations

from typing import Final

from textual.content import Content
from textual.events import Click
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from localai.chat.clean import clean
from tui.fitting import Fit
from tui.format import gauge, size
from tui.jobs import Job
from tui.shelf import ModelEntry

LEAST_NAME: Final = 14
"""Cells."""
_KIND: Final = 9 + 2
"""Cells of "reasoning", and the gap behind it: left out where there is no room."""
_BESIDE: Final = 2 + 2 + 8 + 1 + 8 + 2 + _KIND + 9
"""Cells of a line that are not the name."""
_TONES: Final = {"fits": "$text-success", "tight": "$text-warning", "too large": "$text-error", "": ""}


class ModelList(OptionList):
    """A click chooses a line, a second one does what Enter does: nothing is fetched by a slip."""

    def __init__(self) -> None:
        super().__init__(markup=False)

    async def _on_click(self, event: Click) -> None:
        event.prevent_default()
        clicked = event.style.meta.get("option")
        if clicked is None or self.options[clicked].disabled:
            return
        if clicked == self.highlighted:
            self.action_select()
        else:
            self.highlighted = clicked


def heading(text: str) -> Option:
    """A line over others, which cannot be chosen."""
    return Option(Content.styled(text, "bold $text-muted"), disabled=True)


def line(entry: ModelEntry, fit: Fit | None, job: Job | None, in_use: bool, cells: int) -> Content:
    """A model in `cells` cells; `job` makes it just now; `fit` None: nobody has looked yet."""
    is_wide = cells >= LEAST_NAME + _BESIDE
    room = max(LEAST_NAME, cells - _BESIDE + (0 if is_wide else _KIND))
    sign = Content.styled("● " if in_use else "  ", "$success")
    name = Content(clean(entry.name)).truncate(room, ellipsis=True, pad=True)
    if job is not None:
        return sign + name + Content.styled(f"  {progress(job)}", "$text-accent")
    kind = _kind(entry) if is_wide else Content("")
    return sign + name + _facts(entry) + kind + _verdict(entry, fit)


def progress(job: Job) -> str:
    """How far a job is: a bar, and a few words such as "Downloading 45%"."""
    share = job.done / job.total if job.total else 0.0
    words = f"{job.stage} {share:.0%}" if job.total else f"{job.stage or 'Starting'}…"
    return f"{gauge(share)} {words}"


def searched(entry: ModelEntry) -> str:
    """The words that the filter looks at, in lower case."""
    kind = "reasoning" if entry.reasoning else "plain"
    place = "installed" if entry.installed else "available"
    return " ".join((entry.name, entry.title, entry.file_type, kind, place)).lower()


def _facts(entry: ModelEntry) -> Content:
    known = size(entry.size) if entry.size else ""
    return Content.styled(f"  {clean(entry.file_type):<8} {known:>8}  ", "dim")


def _kind(entry: ModelEntry) -> Content:
    kind = "reasoning" if entry.reasoning else "plain"
    return Content.styled(f"{kind:<9}  ", "$text-primary" if entry.reasoning else "dim")


def _verdict(entry: ModelEntry, fit: Fit | None) -> Content:
    if entry.fault:
        return Content.styled("damaged", "$text-error")
    return Content.styled(fit.verdict, _TONES[fit.verdict]) if fit else Content("")
