"""Where conversations are to be written as a file that others can read, and in which form."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean, clean_line
from localai.chat.conversation import Conversation
from localai.errors import LocalAIError
from localai.history import exchange, export
from localai.history.export import FORMS, SUFFIXES, Form
from tui.format import count
from tui.screens.modal import Modal

WORDS: Final[dict[Form, tuple[str, str]]] = {
    "markdown": ("Markdown", "text that reads well everywhere"),
    "json": ("JSON", "can be imported again, without loss"),
    "html": ("Web page", "opens in any browser, without a network"),
}
EACH: Final = 20
"""After so many conversations are read, the screen has its turn."""
_COLUMN: Final = 10


class ExportScreen(Modal[Path | None]):
    """Gives the file that was written; None: none was."""

    DEFAULT_CSS = """
    ExportScreen {
        .told { color: $text-muted; height: auto; margin: 0 0 1 0; }
        .told.-wrong { color: $text-error; }
        OptionList { margin: 1 0 0 0; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "leave", "Leave it", show=False)]

    def __init__(self, name: str, ids: Sequence[str], load: Callable[[str], Conversation]) -> None:
        """`name`: what the file is called if the user does not say otherwise. `load` reads one of `ids`."""
        super().__init__(classes="modal")
        self._name = export.name_of(name)
        self._ids = ids
        self._load = load
        self._forms = OptionList(markup=False)
        self._path = Input(compact=True, select_on_focus=False)
        self._told = Static("", markup=False, classes="told")
        self._agreed: Path | None = None
        """The file that the user has been told would be replaced."""
        self._writing = False
        """Whether the file is being written: a thread does it, which nothing stops."""

    def compose(self) -> ComposeResult:
        what = "This conversation" if len(self._ids) == 1 else f"{count(len(self._ids))} conversations"
        with Vertical(classes="box") as box:
            box.border_title = "Export"
            box.border_subtitle = "Enter writes it · Tab: the file · Esc leaves it"
            yield self._forms
            yield self._path
            yield Static(
                f"{what} with all branches, thinking and attachments. The file is not encrypted.",
                markup=False,
                classes="text",
            )
            yield self._told

    def on_mount(self) -> None:
        self._path.cursor_blink = False
        self._path.value = _short(export.unused(export.folder() / f"{self._name}{SUFFIXES[FORMS[0]]}"))
        lines = [Content(f"{WORDS[form][0]:<{_COLUMN}}") + _dim(WORDS[form][1]) for form in FORMS]
        self._forms.set_options([Option(line, id=form) for line, form in zip(lines, FORMS, strict=True)])
        self._forms.highlighted = 0
        self._forms.focus()

    @property
    def _form(self) -> Form:
        return FORMS[self._forms.highlighted or 0]

    @on(OptionList.OptionHighlighted)
    def _rename(self) -> None:
        """The file's suffix follows the form, unless the user has given it one of their own."""
        path = _expanded(self._path.value)
        if path.suffix in SUFFIXES.values() and path.suffix != SUFFIXES[self._form]:
            self._path.value = _short(export.unused(path.with_suffix(SUFFIXES[self._form])))

    @on(Input.Changed)
    def _changed(self) -> None:
        self._tell("")

    @on(Input.Submitted)
    @on(OptionList.OptionSelected)
    def _enter(self) -> None:
        if any(worker.group == "export" and worker.is_running for worker in self.workers):
            return
        if (path := self._wanted()) is not None:
            self._write(path, self._form)

    def _wanted(self) -> Path | None:
        """The file to write; None, and the user knows why, if there is a question."""
        if not clean(self._path.value).strip():
            self._tell("The file needs a name.", wrong=True)
            return None
        path = _expanded(self._path.value)
        if os.path.isdir(path):  # noqa: PTH112 - Path's own raises for a folder that may not be looked into
            path /= f"{self._name}{SUFFIXES[self._form]}"
        if os.path.lexists(path) and path != self._agreed:
            self._agreed = path
            self._tell(f"{clean_line(path.name)} is there already. Enter again replaces it.", wrong=True)
            return None
        return path

    @work(group="export")
    async def _write(self, path: Path, form: Form) -> None:
        try:
            conversations = await self._read()
            self._tell("Writing…")
            text = await asyncio.to_thread(export.render, form, conversations)
            self._writing = True
            await asyncio.to_thread(exchange.write, path, text, force=path == self._agreed)
        except LocalAIError as error:
            self._tell(clean_line(str(error)), wrong=True)
        else:
            self.dismiss(path)
        finally:
            self._writing = False

    def action_leave(self) -> None:
        """Esc: nothing is written. Once the file is being written, its end is near and is told."""
        if not self._writing:
            self.workers.cancel_group(self, "export")
            self.dismiss(None)

    async def _read(self) -> list[Conversation]:
        found: list[Conversation] = []
        for conversation_id in self._ids:
            found.append(self._load(conversation_id))
            if len(found) % EACH == 0:
                self._tell(f"Reading {count(len(found))} of {count(len(self._ids))}…")
                await asyncio.sleep(0)
        return found

    def _tell(self, text: str, *, wrong: bool = False) -> None:
        self._told.update(Content(text))
        self._told.set_class(wrong, "-wrong")


def _expanded(typed: str) -> Path:
    """A path as people write it, in full."""
    path = Path(clean(typed).strip())
    try:
        return path.expanduser()
    except RuntimeError:  # ~ of nobody
        return path


def _short(path: Path) -> str:
    """A path as people write it."""
    try:
        return f"~/{path.relative_to(Path.home())}"
    except (ValueError, RuntimeError):
        return str(path)


def _dim(text: str) -> Content:
    return Content.styled(text, "dim")


def exported(path: Path) -> str:
    """One line that says where an export is."""
    return f"Exported to {clean_line(_short(path.absolute()))}. It is not encrypted."
