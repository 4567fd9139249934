"""The first run's question for a model: those of the catalogue, one of them recommended for this machine."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean
from models.catalog import Entry
from models.origins import HubFile, PackageIndex, UrlFile, download_bytes
from models.recommend import Recommendation, weight_bytes
from tui.format import size

NAME_CELLS: Final = 20
LINES: Final = 8
"""Of the list: the rest of the page then fits into 24 lines."""
RECOMMENDED: Final = "recommended"


class ModelQuestion(Vertical):
    """A list, and below it what one should know about the highlighted model."""

    DEFAULT_CSS = """
    ModelQuestion {
        height: auto;
        padding: 0 0 1 0;
        .about { color: $text-muted; margin: 1 0 0 0; }
        .why { color: $text-accent; margin: 1 0 0 0; }
    }
    """

    class Chosen(Message):
        """The user wants the model called `model`."""

        def __init__(self, model: str) -> None:
            super().__init__()
            self.model = model

    def __init__(self, entries: Sequence[Entry], recommended: Recommendation | None) -> None:
        super().__init__()
        self._entries = {entry.name: entry for entry in entries}
        self._recommended = recommended
        self._list = OptionList(markup=False)
        self._about = Static(markup=False, classes="about")
        self._why = Static(markup=False, classes="why")

    def compose(self) -> ComposeResult:
        yield self._list
        yield self._about
        yield self._why

    def on_mount(self) -> None:
        self._list.styles.max_height = LINES
        best = self._recommended.name if self._recommended else ""
        self._list.set_options([Option(_line(e, e.name == best), id=e.name) for e in self._entries.values()])
        self._list.highlighted = self._list.get_option_index(best) if best in self._entries else 0

    def take_focus(self) -> None:
        """Let the keys choose here."""
        self._list.focus()

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        entry = self._entries[event.option.id or ""]
        text = f"{clean(entry.title)}. {clean(entry.note)}".rstrip()
        self._about.update(Content(f"{text}\n{_coming_from(entry)}"))
        best = self._recommended
        self._why.display = best is not None and best.name == entry.name
        if best is not None:
            self._why.update(Content(f"Recommended for this machine: {best.why[:1].lower()}{best.why[1:]}"))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(event.option.id or ""))


def _line(entry: Entry, recommended: bool) -> Content:
    name = Content(f" {clean(entry.name)}").truncate(NAME_CELLS, ellipsis=True, pad=True)
    facts = f" {clean(entry.type):<8} {size(weight_bytes(entry)):>7}  "
    kind = f"{'reasoning' if entry.reasoning else 'plain':<11}"
    tone = "$text-primary" if entry.reasoning else "dim"
    line = name + Content.styled(facts, "dim") + Content.styled(kind, tone)
    return line + Content.styled(RECOMMENDED, "$text-accent") if recommended else line


def _coming_from(entry: Entry) -> str:
    if entry.is_builtin:
        return "It is shipped with the program: no network is needed."
    ready = entry.ready(entry.type)
    if not ready:
        return "Its publisher's weights are fetched and quantized here."
    source = ready[0].source
    where = {PackageIndex: "the Python package index", HubFile: "the hub", UrlFile: "the network"}
    come = download_bytes(source) or entry.weights.get(entry.type, 0)
    return f"{size(come) if come else 'It'} {'are' if come else 'is'} fetched from {where[type(source)]}."
