"""A list of models: its lines, and what a click does there."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from textual.content import Content
from textual.events import Click
from textual.widgets import OptionList
from textual.widgets.option_list import Option

from localai.chat.clean import clean_line
from models.figure_words import percent
from tui.fitting import Fit
from tui.format import gauge, rate_sign, size
from tui.jobs import Job
from tui.model_entry import ModelEntry

LEAST_NAME: Final = 14
"""Cells."""
EASY_NAME: Final = 24
"""Cells of a name that are enough to give some of the others to what is nice to know."""
_KIND: Final = 9 + 2
"""Cells of "reasoning", and the gap behind it: left out where there is no room."""
_SPEED: Final = 2 + 10
"""Cells of "~12 tok/s": there only where there is much room."""
_LIKE: Final = 2 + 10
"""Cells of "95 % alike": the same, and only if it is known of one of the models."""
GOOD_NAME: Final = 20
"""Cells of a name that are enough where that is told."""
_VERDICT: Final = 9
_BESIDE: Final = 2 + 2 + 8 + 1 + 8 + 2 + _KIND + _VERDICT
"""Cells of a line that are not the name."""
TONES: Final = {"fits": "$text-success", "tight": "$text-warning", "too large": "$text-error", "": ""}
INSTALLED, SHARED, FOUND, AVAILABLE, REMOVED, USELESS = range(6)
HEADINGS: Final = (
    "Installed",
    "Installed, in a shared store",
    "Found on this machine",
    "Available",
    "Removed",
    "Found, but cannot be used here",
)


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


def group_of(entry: ModelEntry) -> int:
    """Which heading a model stands below."""
    match entry.place:
        case "found":
            return USELESS if entry.fault else FOUND
        case "available":
            return AVAILABLE
        case "removed":
            return REMOVED
    return SHARED if entry.shared else INSTALLED


def heading(text: str) -> Option:
    """A line over others, which cannot be chosen."""
    return Option(Content.styled(text, "bold $text-muted"), disabled=True)


def headings(entries: Iterable[ModelEntry]) -> dict[int, str]:
    """The text over each group; none where all that there is is installed."""
    found = list(entries)
    groups = {group_of(entry) for entry in found}
    held = sum({e.sha256 or e.key: e.frees for e in found if e.place == "removed"}.values())
    texts = {group: HEADINGS[group] for group in groups}
    if held:
        texts[REMOVED] = f"{HEADINGS[REMOVED]}: {size(held)} until F8 frees them"
    return {} if groups == {INSTALLED} else texts


def line(
    entry: ModelEntry, fit: Fit | None, job: Job | None, in_use: bool, cells: int, *, alike: bool = False
) -> Content:
    """A model in `cells` cells; `job` makes it just now, or has failed; `fit` None: nobody has looked yet.

    `alike`: it is known of one of the models how much it is like what it was made of.
    """
    is_wide = cells >= LEAST_NAME + _BESIDE
    has_speed = cells >= EASY_NAME + _BESIDE + _SPEED
    alike = alike and cells >= GOOD_NAME + _BESIDE + _SPEED + _LIKE
    taken = _BESIDE - (0 if is_wide else _KIND) + (_SPEED if has_speed else 0) + (_LIKE if alike else 0)
    room = max(LEAST_NAME, cells - taken)
    sign = Content.styled("● " if in_use else "  ", "$success")
    name = Content(clean_line(entry.name)).truncate(room, ellipsis=True, pad=True)
    if job is not None and job.state == "running":
        return sign + name + Content.styled(f"  {progress(job)}", "$text-accent")
    kind = _kind(entry) if is_wide else Content("")
    state = _state(entry, fit) if job is None else Content.styled(f"{'failed':<{_VERDICT}}", "$text-error")
    speed = pace(entry, fit) if has_speed else Content("")
    return sign + name + facts(entry.file_type, entry.size) + kind + state + speed + likeness(entry, alike)


def facts(file_type: str, bytes_: int) -> Content:
    """Type and size, in columns."""
    return Content.styled(f"  {clean_line(file_type):<8} {size(bytes_) if bytes_ else '':>8}  ", "dim")


def verdict(fit: Fit | None) -> Content:
    """Whether it fits, in a column."""
    return Content.styled(f"{fit.verdict:<{_VERDICT}}", TONES[fit.verdict]) if fit else Content("")


def pace(entry: ModelEntry, fit: Fit | None, cells: int = 10) -> Content:
    """How fast it is, in a column: as measured here, else "~" and an estimate."""
    if rate := entry.tokens_per_s:
        return Content(f" {rate_sign(rate, measured=True):>{cells + 1}}")
    rate = fit.tokens_per_s if fit else 0.0
    return Content.styled(f" {rate_sign(rate) if rate else '':>{cells + 1}}", "dim")


def likeness(entry: ModelEntry, shown: bool) -> Content:
    """How much it is like what it was made of, in a column, if that is `shown`."""
    if not shown:
        return Content("")
    share = entry.likeness
    return Content(f"  {'' if share is None else f'{percent(share)} alike':>10}")


def progress(job: Job) -> str:
    """How far a job is: a bar, and a few words such as "Downloading 45%"."""
    share = job.done / job.total if job.total else 0.0
    words = f"{job.stage} {share:.0%}" if job.total else f"{job.stage or 'Starting'}…"
    return f"{gauge(share)} {words}"


def searched(entry: ModelEntry) -> str:
    """The words that the filter looks at, in lower case."""
    kind = "reasoning" if entry.reasoning else "plain"
    place = f"{entry.place} shared" if entry.shared else entry.place
    return " ".join((entry.name, entry.title, entry.file_type, kind, place, entry.program)).lower()


def _kind(entry: ModelEntry) -> Content:
    if entry.place == "found":
        return Content(clean_line(entry.program)).truncate(_KIND - 2, ellipsis=True, pad=True) + Content("  ")
    kind = "reasoning" if entry.reasoning else "plain"
    return Content.styled(f"{kind:<9}  ", "$text-primary" if entry.reasoning else "dim")


def _state(entry: ModelEntry, fit: Fit | None) -> Content:
    if entry.place == "removed":
        return Content.styled("removed", "dim")
    if entry.fault:
        return Content.styled("" if entry.place == "found" else "damaged", "$text-error")
    if entry.elsewhere:
        return Content.styled("comes now", "$text-accent")
    if entry.arrived:
        here = f"{entry.arrived / entry.download:.0%} here" if entry.download else f"{size(entry.arrived)}"
        return Content.styled(f"{here:<{_VERDICT}}", "$text-accent")
    return verdict(fit)
