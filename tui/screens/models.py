"""The models: use one, get another, quantize, remove; and whether each fits this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.style import Style
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean
from localai.errors import LocalAIError
from models.local_path import is_path
from tui.fitting import Fit
from tui.format import duration, size
from tui.jobs import Job, Jobs
from tui.screens.modal import Modal
from tui.screens.quantize import QuantizeScreen
from tui.screens.question import QuestionScreen
from tui.shelf import ModelEntry, ModelShelf
from tui.widgets.model_list import ModelList, heading, line, searched

WIDTH: Final = 78
"""Cells of the box at most, as app.tcss has it."""
PATH: Final = "/"
"""The identity of the line for a path that is typed: no model has such a name."""
FRAME: Final = 7
"""Cells of its width that are border, padding and scrollbar."""

Hint = tuple[str, str, str]
"""A key, what it does, and the action."""
CLOSE: Final[Hint] = ("Esc", "closes", "screen.dismiss(None)")


class ModelsScreen(Modal[str | None]):
    """Gives the name or the path of the model to use, or None. Typing filters; Up and Down move."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+o", "dismiss(None)", "Close", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("pagedown", "move('page_down')", "Page down", show=False),
        Binding("pageup", "move('page_up')", "Page up", show=False),
        Binding("delete", "remove", "Remove, or stop", show=False, priority=True),
        Binding("f6", "quantize", "Quantize", show=False),
    ]

    def __init__(
        self,
        models: ModelShelf,
        jobs: Jobs,
        *,
        in_use: Callable[[], str] = lambda: "",
        given_back: int = 0,
        gpu: bool = False,
    ) -> None:
        """`in_use` tells the name of the chosen model; `given_back`: see `ModelShelf.fit`.

        `gpu`: whether a GPU computes here. What fits is reckoned for main memory alone.
        """
        super().__init__(classes="modal")
        self._models = models
        self._jobs = jobs
        self._in_use = in_use
        self._given_back = 0 if gpu else given_back  # then it is the GPU's
        self._gpu = gpu
        self._entries: dict[str, ModelEntry] = {}
        self._fits: dict[str, Fit] = {}
        self._coming: set[str] = set()
        self._list = ModelList()
        self._list.can_focus = False
        self._filter = Input(placeholder="Type to filter, or a path", compact=True, select_on_focus=False)
        self._note = Static(markup=False, classes="hint")
        self._box = Vertical(self._filter, self._list, self._note, classes="box")

    def compose(self) -> ComposeResult:
        self._box.border_title = "Models"
        yield self._box

    def on_mount(self) -> None:
        self._filter.cursor_blink = False
        self._filter.focus()
        self._jobs.on_change = self._job_changed
        self._load(self._in_use())

    def on_unmount(self) -> None:
        self._jobs.on_change = lambda: None

    def on_resize(self) -> None:
        self._show(self._chosen)

    # ------------------------------------------------------------------------------------------ the list

    @property
    def _chosen(self) -> str:
        """The identity of the highlighted line."""
        option = self._list.highlighted_option
        return option.id or "" if option else ""

    @property
    def _path(self) -> Path | None:
        """What was typed, if it is the path of something that is there."""
        typed = self._filter.value.strip()
        if not typed or "\0" in typed or not is_path(typed):
            return None
        try:
            path = Path(typed).expanduser().absolute()
            return path if path.exists() else None
        except (OSError, RuntimeError):
            return None

    def _load(self, chosen: str) -> None:
        """Read anew what there is, and what comes; highlight the model called `chosen`."""
        try:
            found = [*self._models.entries(), *self._models.damaged(), *self._models.available()]
        except LocalAIError as error:
            self._say(str(error))
            return
        self._entries = {entry.name: entry for entry in found}
        self._coming = {job.name for job in self._jobs.running}
        for name in self._coming - set(self._entries):
            self._entries[name] = ModelEntry(name=name, title=name, installed=False)
        self._show(chosen)
        self._judge()

    def _show(self, chosen: str = "") -> None:
        words = self._filter.value.lower().split()
        found = [e for e in self._entries.values() if all(word in searched(e) for word in words)]
        here = [entry for entry in found if entry.installed or not entry.fetchable]
        there = [entry for entry in found if not entry.installed and entry.fetchable]
        options = self._options(here) + self._options(there)
        if there:
            options[len(here) : len(here)] = [heading("Available")]
            options = [heading("Installed"), *options] if here else options
        if path := self._path:
            options.append(Option(Content(clean(str(path))), id=PATH))
        self._list.set_options(options)
        names = [option.id for option in options]
        wanted = [names.index(chosen)] if chosen in names else [i for i, name in enumerate(names) if name]
        if wanted:
            self._list.highlighted = wanted[0]
        else:
            self._note.update("Nothing matches." if self._entries else "There is no model.")
            self._hint(CLOSE)

    def _options(self, entries: Sequence[ModelEntry]) -> list[Option]:
        return [Option(self._line(entry), id=entry.name) for entry in entries]

    def _line(self, entry: ModelEntry) -> Content:
        cells = min(WIDTH, self.app.size.width * 96 // 100) - FRAME
        job, fit = self._jobs.of(entry.name), self._fits.get(entry.name)
        return line(entry, fit, job, entry.name == self._in_use(), cells)

    def _redraw(self, name: str) -> None:
        if any(option.id == name for option in self._list.options):
            self._list.replace_option_prompt(name, self._line(self._entries[name]))
        if name == self._chosen:
            self._explain()

    @work(group="fits", exclusive=True)
    async def _judge(self) -> None:
        """Find out what fits. The headers are read elsewhere, one after another, the chosen one first."""
        names = [entry.name for entry in self._entries.values() if not entry.fault]
        for name in sorted(names, key=lambda name: name != self._chosen):
            entry = self._entries[name]
            if self._jobs.of(name) is None and name not in self._fits:
                try:
                    fit = await asyncio.to_thread(self._models.fit, entry, self._given_back)
                except LocalAIError as error:
                    fit = Fit("", clean(str(error)))
                self._fits[name] = fit
                self._redraw(name)

    # ------------------------------------------------------------------------------ what is said of a line

    @on(Input.Changed)
    def _filtered(self) -> None:
        self._show()

    @on(OptionList.OptionHighlighted)
    def _highlighted(self) -> None:
        self._explain()

    def _explain(self) -> None:
        """What the highlighted line is, and what can be done with it."""
        if self._chosen == PATH:
            self._explain_path()
        elif entry := self._entries.get(self._chosen):
            self._note.update(Content(" ".join(self._sentences(entry))))
            self._hint(*self._hints(entry), CLOSE)

    def _sentences(self, entry: ModelEntry) -> list[str]:
        if job := self._jobs.of(entry.name):
            return [f"{_told(job)}. You can close this: it goes on."]
        if entry.fault:
            return [f"It cannot be used. {clean(entry.fault)}"]
        thinks = "Thinks before it answers." if entry.reasoning else "Does not think before it answers."
        sentences = [clean(entry.note) or thinks]
        if fit := self._fits.get(entry.name):
            sentences.append(fit.why)
            if self._gpu and fit.verdict:
                sentences.append("The memory of the GPU is not counted here.")
        if not entry.installed:
            come = (
                f"{size(entry.download)} will be downloaded."
                if entry.download
                else "It is made here, offline."
            )
            sentences.append(come)
        failed = [job.error for job in self._jobs.all if job.name == entry.name and job.state == "failed"]
        return sentences + [f"The last attempt failed: {error}" for error in failed]

    def _hints(self, entry: ModelEntry) -> list[Hint]:
        if self._jobs.of(entry.name):
            return [("Del", "stops it", "screen.remove")]
        remove = ("Del", "removes", "screen.remove")
        if entry.fault:
            return [("Enter", "fetches again", "screen.enter"), remove] if entry.fetchable else [remove]
        if not entry.installed:
            return [("Enter", "fetches it", "screen.enter")]
        return [("Enter", "uses it", "screen.enter"), ("F6", "quantizes", "screen.quantize"), remove]

    def _explain_path(self) -> None:
        path = self._path
        if path is None:
            return
        what, does = "A file.", "uses it"
        if path.is_dir():
            what, does = "A folder: a checkpoint in it can be quantized.", "quantizes it"
        self._note.update(what)
        more: list[Hint] = [] if path.is_dir() else [("F6", "quantizes", "screen.quantize")]
        self._hint(("Enter", does, "screen.enter"), *more, CLOSE)

    def _hint(self, *hints: Hint) -> None:
        parts = [
            Content(f"{key} {does}").stylize(Style.from_meta({"@click": act})) for key, does, act in hints
        ]
        self._box.border_subtitle = Content(" · ").join(parts)

    def _say(self, text: str) -> None:
        self._note.update(Content(clean(text)))

    # -------------------------------------------------------------------------------------- what is done

    def action_move(self, action: str) -> None:
        """Move in the list while the filter has the focus."""
        getattr(self._list, f"action_{action}")()

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def action_enter(self) -> None:
        """Use the highlighted model; fetch it, if it is not here."""
        entry, path = self._entries.get(self._chosen), self._path
        if self._chosen == PATH and path is not None:
            self._quantize() if path.is_dir() else self.dismiss(str(path))
        elif entry is None or self._jobs.of(entry.name):
            return
        elif entry.installed and not entry.fault:
            self.dismiss(entry.name)
        elif entry.fetchable:
            self._jobs.pull(entry.name)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Delete is the filter's own as long as there is something to delete."""
        field = self._filter
        return action != "remove" or (field.cursor_at_end and field.selection.is_empty)

    @work(group="remove", exclusive=True)
    async def action_remove(self) -> None:
        """Remove the highlighted model after a question; stop it, if it is still coming."""
        entry = self._entries.get(self._chosen)
        if entry is None:
            return
        if job := self._jobs.of(entry.name):
            await job.stop()
        elif entry.name == self._in_use() and not entry.fault:
            self._say(f"{entry.name} is in use. Choose another model first, then it can be removed.")
        elif entry.installed and await self.app.push_screen_wait(_question(entry)):
            await self._remove(entry)

    async def _remove(self, entry: ModelEntry) -> None:
        below = self._list.highlighted
        try:
            freed = await asyncio.to_thread(self._models.remove, entry.name)
        except LocalAIError as error:
            self._say(str(error))
            return
        self._fits.pop(entry.name, None)
        self.notify(f"Removed {clean(entry.name)}: {size(freed)} are free.", timeout=4, markup=False)
        self._load("")
        self._list.highlighted = below
        if not self._chosen:
            self._list.action_cursor_up()

    def action_quantize(self) -> None:
        """Make another type of the highlighted model."""
        self._quantize()

    @work(group="quantize", exclusive=True)
    async def _quantize(self) -> None:
        entry, path = self._entries.get(self._chosen), self._path
        if self._chosen == PATH and path is not None:
            title, stem, source = path.name, path.stem if path.is_file() else path.name, str(path)
        elif entry is not None and entry.installed and not entry.fault:
            title, stem = entry.name, entry.name.replace(":", "-")
            try:
                source = self._models.source(entry.name)
            except LocalAIError as error:
                self._say(str(error))
                return
        else:
            return
        taken = {*self._entries, *self._coming}
        chosen = await self.app.push_screen_wait(QuantizeScreen(self._jobs, title, source, stem, taken))
        if chosen is not None:
            file_type, name = chosen
            self._jobs.quantize(source, file_type, name)
            with self.prevent(Input.Changed):
                self._filter.value = ""
            self._load(name)

    def _job_changed(self) -> None:
        running = {job.name for job in self._jobs.running}
        if running != self._coming:
            for name in running ^ self._coming:
                self._fits.pop(name, None)
            self._load(self._chosen)
        for name in running:
            self._redraw(name)


def _told(job: Job) -> str:
    if not job.stage:
        return "It begins"
    left = f", about {duration(job.left_s)} left" if job.left_s >= 1 else ""
    return f"{job.stage}: {size(job.done)}" + (f" of {size(job.total)}" if job.total else "") + left


def _question(entry: ModelEntry) -> QuestionScreen:
    freed = (
        f"{size(entry.frees)} become free." if entry.frees else "Another model has the same file: it stays."
    )
    more = " It can be fetched again." if entry.fetchable else " It cannot be undone."
    text = f"{clean(entry.name)} is removed from the disk. {freed}{more}"
    return QuestionScreen("Remove a model", text, yes="Remove", no="Keep")
