"""The list of models and what is said of each: installed, to be had, found elsewhere, removed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Final

from textual import on, work
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.style import Style
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localai import policy
from localai.chat.clean import clean_line
from localai.errors import LocalAIError
from models.local_path import is_path
from tui.fitting import Fit
from tui.jobs import Job, Jobs
from tui.model_entry import ModelEntry
from tui.model_words import CLOSE, ENTER, STOP, Hint, hints, paragraphs, told, unmatched
from tui.screens.modal import Modal
from tui.shelf import ModelShelf
from tui.widgets.model_list import ModelList, group_of, heading, headings, line, searched

WIDTH: Final = 96
"""Cells of the box at most, as app.tcss has it."""
PATH: Final = "/"
"""The identity of the line for a path that is typed: no model has such a name."""
FRAME: Final = 7
"""Cells of its width that are border, padding and scrollbar."""
BESIDE_LIST: Final = 7
"""Lines of the box that are neither list nor note: border, filter, and the room around them."""
NOTE: Final = (4, 8)
"""Lines of the note in a low and in a high terminal."""
LEAST_LIST: Final = 4
JUDGED: Final = ("installed", "available", "found")
"""Where the models are of whom it is told whether they fit."""
NOT_FETCHED: Final = "Your organization lets no model be fetched. A path adds one that is here."
HIGH: Final = 24
"""Lines from which on a terminal is not low."""


class ModelsPage(Modal[str | None]):
    """The part of the models screen that shows: what there is, what is known of it, and how far jobs are."""

    def __init__(
        self,
        models: ModelShelf,
        jobs: Jobs,
        *,
        in_use: Callable[[], str] = lambda: "",
        given_back: int = 0,
        gpu: bool = False,
        now: Callable[[], float] = time.time,
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
        self._now = now
        self._read: Sequence[ModelEntry] | None = None
        """What the shelf has told; None: not yet."""
        self._asked: dict[str, ModelEntry] = {}
        """What was chosen among the types of a model, by its name."""
        self._entries: dict[str, ModelEntry] = {}
        """What there is, by its key, in the order of the list."""
        self._fits: dict[str, Fit] = {}
        self._alike = False
        """Whether it is known of one of them how much it is like what it was made of."""
        self._coming: set[str] = set()
        self._aim = ""
        """The key of the model to highlight as soon as it is there; "": the one that is highlighted."""
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
        self._jobs.is_told = self._tells
        self._say("Looking what there is…")
        self._load(self._in_use())
        self._discover()

    def on_unmount(self) -> None:
        self._jobs.on_change = lambda: None
        self._jobs.is_told = lambda job: False

    def on_resize(self) -> None:
        note = NOTE[self.app.size.height >= HIGH]
        self._note.styles.min_height = note
        self._list.styles.max_height = max(LEAST_LIST, self.app.size.height - BESIDE_LIST - note)
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

    @work(group="load", exclusive=True)
    async def _load(self, chosen: str = "") -> None:
        """Read anew what there is, and what comes; highlight the model with the key `chosen`, if given."""
        await self._look(chosen)

    async def _look(self, chosen: str = "") -> None:
        self._aim = chosen or self._aim
        try:
            self._read = await asyncio.to_thread(self._models.all)
        except LocalAIError as error:
            self._say(str(error))
            return
        self._arrange()
        self._judge()

    @work(group="discover", exclusive=True)
    async def _discover(self) -> None:
        """Look for what other programs hold. Who cannot be asked is no reason to bother anybody."""
        with suppress(LocalAIError):
            await self._jobs.discover()
            if self._read is not None:
                self._arrange()
                self._judge()

    def _arrange(self) -> None:
        """Bring what is known into one order."""
        found = list(self._read or ())
        taken = {entry.name for entry in found if entry.place != "available"}
        others = [entry for entry in self._jobs.found if entry.name not in taken]
        names = {entry.name for entry in others if not entry.fault}
        known = [e for e in found if e.place != "available" or e.name not in names] + others
        self._coming = {job.name for job in self._jobs.running}
        asked = {name for name in self._asked if self._jobs.failed(name)}
        for name in sorted((self._coming | asked) - {entry.name for entry in known}):
            coming = ModelEntry(name=name, title=name, place="coming")
            known.append(self._asked.get(name, coming))
        self._entries = {entry.key: entry for entry in sorted(known, key=group_of)}
        self._alike = any(entry.likeness is not None for entry in known)
        self._show(self._aim or self._chosen)
        if self._chosen in _like(self._aim):
            self._aim = ""

    def _show(self, chosen: str = "") -> None:
        if self._read is None:
            return
        words = self._filter.value.lower().split()
        found = [e for e in self._entries.values() if all(word in searched(e) for word in words)]
        options = self._options(found)
        if path := self._path:
            options.append(Option(Content(clean_line(str(path))), id=PATH))
        self._list.set_options(options)
        names = [option.id for option in options]
        like = [names.index(name) for name in _like(chosen) if name in names]
        wanted = like or [i for i, name in enumerate(names) if name]
        if wanted:
            self._list.highlighted = wanted[0]
        else:
            typed = self._filter.value
            is_fetched = not policy.current().has("forbid.pull")
            nothing = unmatched(typed) if is_fetched else NOT_FETCHED
            self._say(nothing if self._entries or typed else "There is no model.")
            self._hint(CLOSE)

    def _options(self, entries: Sequence[ModelEntry]) -> list[Option]:
        options: list[Option] = []
        texts, above = headings(entries), None
        for entry in entries:
            group = group_of(entry)
            if group != above and group in texts:
                options.append(heading(texts[group]))
            above = group
            options.append(Option(self._line(entry), id=entry.key))
        if policy.current().has("forbid.pull"):
            options.append(heading(NOT_FETCHED))
        return options

    def _line(self, entry: ModelEntry) -> Content:
        cells = min(WIDTH, self.app.size.width * 96 // 100) - FRAME
        in_use = entry.installed and entry.name == self._in_use()
        job = self._jobs.of(entry.name) or self._jobs.failed(entry.name)
        return line(entry, self._fits.get(entry.key), job, in_use, cells, alike=self._alike)

    def _redraw(self, key: str) -> None:
        if key in self._entries and any(option.id == key for option in self._list.options):
            self._list.replace_option_prompt(key, self._line(self._entries[key]))
        if key == self._chosen:
            self._explain()

    @work(group="fits", exclusive=True)
    async def _judge(self) -> None:
        """Find out what fits. The headers are read elsewhere, one after another, the chosen one first."""
        judged = [e for e in self._entries.values() if e.place in JUDGED and not (e.fault or e.path)]
        for entry in sorted(judged, key=lambda entry: entry.key != self._chosen):
            if self._jobs.of(entry.name) is None and entry.key not in self._fits:
                try:
                    fit = await asyncio.to_thread(self._models.fit, entry, self._given_back)
                except LocalAIError as error:
                    fit = Fit("", clean_line(str(error)))
                self._fits[entry.key] = fit
                self._redraw(entry.key)

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
            job = self._jobs.of(entry.name)
            self._note.update(Content("\n".join([told(job)] if job else self._said(entry))))
            self._hint(*([STOP] if job else hints(entry)), CLOSE)

    def _said(self, entry: ModelEntry) -> list[str]:
        said = paragraphs(entry, self._fits.get(entry.key), self._gpu, self._now())
        failed = self._jobs.failed(entry.name)
        return [*said, f"The last attempt failed: {failed.error}"] if failed else said

    def _tells(self, job: Job) -> bool:
        """Whether a line in the list tells what became of `job`: what was to be made may have none."""
        shown = {option.id for option in self._list.options}
        lines = [entry for entry in self._entries.values() if entry.key in shown and entry.place != "coming"]
        return self.is_active and any(entry.name == job.name for entry in lines)

    def _explain_path(self) -> None:
        path = self._path
        if path is None:
            return
        what, does = "A file.", "uses it"
        if path.is_dir():
            what, does = "A folder: a checkpoint in it can be quantized.", "quantizes it"
        self._note.update(what)
        more: list[Hint] = [] if path.is_dir() else [("F6", "quantizes", "screen.types")]
        self._hint(("Enter", does, ENTER), *more, CLOSE)

    def _hint(self, *hints: Hint) -> None:
        parts = [
            Content(f"{key} {does}").stylize(Style.from_meta({"@click": act})) for key, does, act in hints
        ]
        self._box.border_subtitle = Content(" · ").join(parts)

    def _say(self, text: str) -> None:
        self._note.update(Content(clean_line(text)))

    def _job_changed(self) -> None:
        running = {job.name for job in self._jobs.running}
        if running != self._coming:
            for name in running ^ self._coming:
                self._fits.pop(name, None)
            self._coming = running
            self._load()
        for key in [key for key, entry in self._entries.items() if entry.name in running]:
            self._redraw(key)


def _like(key: str) -> tuple[str, ...]:
    """The keys that a model may have which had `key` and was removed, brought back or added since."""
    name = key.rpartition("/")[2]
    return (key, name, f"found/{name}", f"removed/{name}")
