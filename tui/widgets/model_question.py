"""The first run's question for a model: those of the catalogue, one of them recommended for this machine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

from textual import on
from textual.app import ComposeResult
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean, clean_line
from models.recommend import Recommendation
from tui.fitting import Fit
from tui.model_entry import ModelEntry
from tui.model_words import licence, measured, source
from tui.widgets.model_list import facts, pace, verdict

NAME_CELLS: Final = 14
LEAST_LINES: Final = 5
BESIDE_LIST: Final = 18
"""Lines of the page that are not the list."""
RECOMMENDED: Final = "recommended"


class ModelQuestion(Vertical):
    """A list, and below it what one should know about the highlighted model."""

    DEFAULT_CSS = """
    ModelQuestion {
        height: auto;
        padding: 0 0 1 0;
        .about { color: $text-muted; margin: 1 0 0 0; }
        .why { color: $text-accent; margin: 1 0 0 0; }
        .why.-wrong { color: $text-warning; }
    }
    """

    class Chosen(Message):
        """The user wants the model called `model`."""

        def __init__(self, model: str) -> None:
            super().__init__()
            self.model = model

    def __init__(
        self, entries: Sequence[ModelEntry], fits: Mapping[str, Fit], recommended: Recommendation | None
    ) -> None:
        """`fits`: whether they fit this machine, by their names, as far as that is known."""
        super().__init__()
        best = recommended.name if recommended else ""
        self._entries = {entry.name: entry for entry in sorted(entries, key=lambda one: one.name != best)}
        self._fits = fits
        self._recommended = recommended
        self._list = OptionList(markup=False)
        self._about = Static(markup=False, classes="about")
        self._why = Static(markup=False, classes="why")

    def compose(self) -> ComposeResult:
        yield self._list
        yield self._about
        yield self._why

    def on_mount(self) -> None:
        self._list.set_options([Option(self._line(entry), id=name) for name, entry in self._entries.items()])
        self._list.highlighted = 0 if self._entries else None

    def on_resize(self) -> None:
        self._list.styles.max_height = max(LEAST_LINES, self.app.size.height - BESIDE_LIST)

    def take_focus(self) -> None:
        """Let the keys choose here."""
        self._list.focus()

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        entry = self._entries[event.option.id or ""]
        title = f"{entry.title}. {entry.note}".rstrip()
        about = [title, measured(entry, short=True), source(entry), licence(entry, short=True)]
        self._about.update(Content(clean("\n".join(filter(None, about)))))
        fit, best = self._fits.get(entry.name), self._recommended
        text = fit.why if fit and fit.verdict != "fits" else ""
        if best is not None and self._is_best(entry):
            text = f"Recommended for this machine: {best.why[:1].lower()}{best.why[1:]}"
        self._why.set_class(not self._is_best(entry), "-wrong")
        self._why.display = bool(text)
        self._why.update(Content(clean_line(text)))

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        self.post_message(self.Chosen(event.option.id or ""))

    def _is_best(self, entry: ModelEntry) -> bool:
        return self._recommended is not None and self._recommended.name == entry.name

    def _line(self, entry: ModelEntry) -> Content:
        fit = self._fits.get(entry.name)
        name = Content(f" {clean_line(entry.name)}").truncate(NAME_CELLS, ellipsis=True, pad=True)
        more = pace(entry, fit, 9) if entry.download else Content.styled(f" {'offline':>10}", "dim")
        line = name + facts(entry.file_type, entry.size) + verdict(fit) + more
        return line + Content.styled(f"  {RECOMMENDED}", "$text-accent") if self._is_best(entry) else line
