"""The models: use one, get another, quantize, remove, bring back; and whether each fits this machine."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import ClassVar

import msgspec
from textual import on, work
from textual.binding import Binding, BindingType
from textual.widgets import Input, OptionList

from localai.chat.clean import clean_line
from localai.errors import LocalAIError
from models.figures import Figures
from tui.format import size
from tui.model_entry import ModelEntry
from tui.screens.models_page import PATH, ModelsPage
from tui.screens.quantize import QuantizeScreen
from tui.screens.question import QuestionScreen
from tui.screens.types import TypesScreen
from tui.shelf import Freed


class ModelsScreen(ModelsPage):
    """Gives the name or the path of the model to use, or None. Typing filters; Up and Down move.

    What can be undone is done at once: only what cannot is asked about.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,ctrl+o", "dismiss(None)", "Close", show=False),
        Binding("down", "move('cursor_down')", "Down", show=False),
        Binding("up", "move('cursor_up')", "Up", show=False),
        Binding("pagedown", "move('page_down')", "Page down", show=False),
        Binding("pageup", "move('page_up')", "Page up", show=False),
        Binding("delete", "remove", "Remove, or stop", show=False, priority=True),
        Binding("ctrl+c", "stop", "Stop", show=False, priority=True),
        Binding("ctrl+z", "restore", "Bring back", show=False, priority=True),
        Binding("f1", "help", "Keys", show=False),
        Binding("f6", "types", "Other types", show=False),
        Binding("f8", "free", "Free the disk space", show=False),
    ]

    def action_move(self, action: str) -> None:
        """Move in the list while the filter has the focus."""
        self._aim = ""
        getattr(self._list, f"action_{action}")()

    def action_help(self) -> None:
        """Show the keys of this screen."""
        from tui.screens.help import MODEL_KEYS, KeysScreen

        self.app.push_screen(KeysScreen(MODEL_KEYS))

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def action_enter(self) -> None:
        """Use the highlighted model; get it, if it is not here."""
        entry, path = self._entries.get(self._chosen), self._path
        if self._chosen == PATH and path is not None:
            self._quantize() if path.is_dir() else self.dismiss(str(path))
        elif entry is None or self._jobs.of(entry.name):
            return
        elif entry.place == "removed":
            self._restore(entry.name)
        elif entry.place == "found":
            self._take(entry)
        elif entry.installed and not entry.fault:
            self.dismiss(entry.name)
        elif entry.words:
            self._jobs.go_on(entry.name, entry.words)
        elif entry.fetchable:
            self._jobs.pull(entry.name, from_source=entry.from_source)

    def _take(self, entry: ModelEntry) -> None:
        if entry.path:
            self._quantize()
        elif not entry.fault:
            self._jobs.add(entry.name)

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Delete is the filter's own as long as there is something to delete; so is Ctrl+C, to copy."""
        field = self._filter
        if action == "remove":
            return field.cursor_at_end and field.selection.is_empty
        if action == "stop":
            entry = self._entries.get(self._chosen)
            return field.selection.is_empty and entry is not None and self._jobs.of(entry.name) is not None
        return True

    @work(group="change")
    async def action_stop(self) -> None:
        """Stop what is done for the highlighted model. What has come of a fetch is kept."""
        entry = self._entries.get(self._chosen)
        if entry is not None and (job := self._jobs.of(entry.name)):
            await job.stop()

    @work(group="change")
    async def action_remove(self) -> None:
        """Remove the highlighted model; stop it, if it is still coming."""
        entry = self._entries.get(self._chosen)
        if entry is None:
            return
        if job := self._jobs.of(entry.name):
            await job.stop()
        elif not entry.installed:
            return
        elif entry.name == self._in_use() and not entry.fault:
            self._say(f"{entry.name} is in use. Choose another model first, then it can be removed.")
        elif entry.shared:
            self._say(f"{entry.name} is in a shared store: whoever keeps that can remove it.")
        elif entry.undoable or await self.app.push_screen_wait(_last_question(entry)):
            await self._remove(entry)

    async def _remove(self, entry: ModelEntry) -> None:
        below = self._list.highlighted
        if not await self._done(self._models.remove, entry.name):
            return
        if entry.undoable:
            freed = f"; its {size(entry.frees)} are freed by F8" if entry.frees else ""
            self._tell(f"Removed {entry.name}. Ctrl+Z brings it back{freed}.")
        await self._look()
        self._list.highlighted = below
        if not self._chosen:
            self._list.action_cursor_up()

    def action_restore(self) -> None:
        """Bring back the model that was removed last."""
        self._restore("")

    @work(group="change")
    async def _restore(self, name: str) -> None:
        """Bring back the model `name`; "": what was removed last."""
        if not name:
            name = await asyncio.to_thread(self._models.last_removed)
        if name and await self._done(self._models.restore, name):
            self._tell(f"{name} is back.")
            await self._look(name)

    @work(group="free", exclusive=True)
    async def action_free(self) -> None:
        """Free what removed models and interrupted fetches take, after a question."""
        freed = await asyncio.to_thread(self._models.prunable)
        removed = [entry.name for entry in self._entries.values() if entry.place == "removed"]
        if not (removed or freed.unfinished):
            self._say("There is nothing to free: no model was removed, and no fetch was interrupted.")
        elif await self.app.push_screen_wait(_question_to_free(removed, freed)) and await self._done(
            self._models.prune
        ):
            self._tell(f"{size(freed.removed + freed.unfinished)} are free.")
            await self._look()

    async def _done(self, change: Callable[..., object], *words: str) -> bool:
        """Change the store, in a thread; False, and the user knows why, if that failed."""
        try:
            await asyncio.to_thread(change, *words)
        except LocalAIError as error:
            self._say(str(error))
            return False
        self._fits.clear()
        return True

    def _tell(self, text: str) -> None:
        self.notify(clean_line(text), timeout=6, markup=False)

    @work(group="types", exclusive=True)
    async def action_types(self) -> None:
        """Get the highlighted model in another type; quantize what is not of the catalogue."""
        entry = self._entries.get(self._chosen)
        if self._chosen == PATH or entry is None or not entry.base:
            self._quantize()
            return
        types = await asyncio.to_thread(self._models.types, entry.base)
        if len(types) < 2 and entry.installed:
            self._quantize()
            return
        usual = next((one.file_type for one in types if one.name == entry.base), types[0].file_type)
        taken = {one.name for one in self._entries.values() if one.installed} | self._coming
        screen = TypesScreen(types, usual, taken, lambda one: self._models.fit(one, self._given_back))
        if (chosen := await self.app.push_screen_wait(screen)) is not None:
            wanted, from_source = chosen
            self._asked[wanted.name] = msgspec.structs.replace(wanted, from_source=from_source)
            self._jobs.pull(wanted.name, from_source=from_source)
            self._clear_filter()
            await self._look(wanted.name)

    def _clear_filter(self) -> None:
        with self.prevent(Input.Changed):
            self._filter.value = ""

    @work(group="quantize", exclusive=True)
    async def _quantize(self) -> None:
        entry, path, figures = self._entries.get(self._chosen), self._path, dict[str, Figures]()
        if self._chosen == PATH and path is not None:
            title, stem, source = path.name, path.stem if path.is_file() else path.name, str(path)
        elif entry is not None and entry.place == "found" and entry.path:
            title, stem, source = entry.title, entry.name.replace(":", "-"), entry.path
        elif entry is not None and entry.installed and not entry.fault:
            title, stem = entry.name, entry.name.replace(":", "-")
            try:
                source = await asyncio.to_thread(self._models.source, entry.name)
                figures.update(await asyncio.to_thread(self._models.measured_types, entry.name))
            except LocalAIError as error:
                self._say(str(error))
                return
        else:
            return
        taken = {*(one.name for one in self._entries.values()), *self._coming}
        screen = QuantizeScreen(self._jobs, title, source, stem, taken, figures)
        chosen = await self.app.push_screen_wait(screen)
        if chosen is not None:
            file_type, name = chosen
            self._jobs.quantize(source, file_type, name)
            self._clear_filter()
            await self._look(name)


def _last_question(entry: ModelEntry) -> QuestionScreen:
    name = clean_line(entry.name)
    text = f"What is known of {name} is damaged: if it is removed, it cannot be brought back."
    return QuestionScreen("Remove a model", text, yes="Remove", no="Keep")


def _question_to_free(removed: Sequence[str], freed: Freed) -> QuestionScreen:
    said = []
    if removed:
        names = clean_line(", ".join(removed))
        said.append(f"{names} cannot be brought back afterwards: {size(freed.removed)} become free.")
    if freed.unfinished:
        said.append(f"What has come of interrupted fetches is thrown away: {size(freed.unfinished)}.")
    return QuestionScreen("Free disk space", " ".join(said), yes="Free it", no="Keep")
