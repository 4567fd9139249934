"""Choosing the type that a model is quantized to."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean_line
from localai.errors import LocalAIError
from models import figure_words
from models.figure_words import advantage
from models.figures import Figures, better
from models.names import suggested
from tui.asking import Forecast, Recommended, TypeForecast
from tui.format import count, rate_sign, size
from tui.jobs import Jobs
from tui.screens.modal import Modal

OFFERED: Final = ("F16", "BF16", "Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q3_K_M", "Q2_K")
"""A choice that is quickly made. `localai quantize` knows all the others."""
_TOLD: Final = 1 + 11 + 2 + 10
"""Cells of what was measured."""
Choice = tuple[str, str]
"""The type, and the name of the model that comes."""


class QuantizeScreen(Modal[Choice | None]):
    """Gives what the user has chosen; None: nothing. Says why, if the model cannot be quantized."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "dismiss(None)", "Close", show=False)]

    def __init__(
        self,
        jobs: Jobs,
        title: str,
        source: str,
        stem: str,
        taken: Collection[str],
        figures: Mapping[str, Figures] = MappingProxyType({}),
    ) -> None:
        """`source`: what is read; `stem`: the new name but for its type; `taken`: names that there are.

        `figures`: what was measured of types that come of it.
        """
        super().__init__(classes="modal")
        self._jobs = jobs
        self._model = title
        self._source = source
        self._stem = stem
        self._taken = taken
        self._figures = figures
        self._types: dict[str, TypeForecast] = {}
        self._recommended = ("", "")
        self._list = OptionList(markup=False)
        self._note = Static("Reading what it is made from…", markup=False, classes="hint")
        self._box = Vertical(self._list, self._note, classes="box")

    def compose(self) -> ComposeResult:
        self._box.border_title = Content(f"Quantize {clean_line(self._model)}")
        self._box.border_subtitle = "Esc closes"
        yield self._box

    def on_mount(self) -> None:
        self._list.display = False
        self._list.focus()
        self._read()

    @work(exclusive=True)
    async def _read(self) -> None:
        try:
            known = await self._jobs.forecast(self._source)
        except LocalAIError as error:
            self._note.update(Content(clean_line(str(error))))
            return
        self._show(known)

    def _show(self, known: Forecast) -> None:
        usual = known.recommended.type
        self._types = {
            one.type: one
            for one in known.types
            if one.type in (usual, *self._figures) or (one.sensible and one.type in OFFERED)
        }
        self._recommended = best, _ = self._best(known.recommended)
        self._list.set_options([Option(self._line(one), id=one.type) for one in self._types.values()])
        self._list.highlighted = list(self._types).index(best) if best in self._types else 0
        self._list.display = True
        self._box.border_subtitle = "Enter quantizes · Esc closes"
        self._list.focus()

    def _best(self, usual: Recommended) -> tuple[str, str]:
        """The type that is recommended, and why: not one that was measured to be worse than another."""
        fitting = {name: self._figures.get(name) for name, one in self._types.items() if _fits(one)}
        own = self._figures.get(usual.type)
        name = better(own, fitting)
        one = fitting[name] if name else None
        if own is None or one is None:
            return usual.type, usual.reason
        return name, advantage(name, one, own).rstrip(".")

    @on(OptionList.OptionHighlighted)
    def _highlighted(self, event: OptionList.OptionHighlighted) -> None:
        one = self._types[event.option.id or ""]
        sentences = [f"Becomes {self._name_of(one.type)}."]
        if self._name_of(one.type) in self._taken:
            sentences = [f"{self._name_of(one.type)} is installed already."]
        sentences.append(_room(one))
        if one.type in self._figures:
            sentences.append(clean_line(figure_words.sentences(self._figures[one.type])))
        if one.type == self._recommended[0]:
            sentences.append(f"Recommended: {clean_line(self._recommended[1])}.")
        self._note.update(Content(" ".join(sentences)))

    @on(OptionList.OptionSelected)
    def _chosen(self, event: OptionList.OptionSelected) -> None:
        chosen = event.option.id or ""
        if (name := self._name_of(chosen)) not in self._taken:
            self.dismiss((chosen, name))

    def _name_of(self, file_type: str) -> str:
        return suggested(f"{self._stem}:{file_type}")

    def _line(self, one: TypeForecast) -> Content:
        best = one.type == self._recommended[0]
        bits = "" if self._figures else f"{one.bits_per_weight:>5.1f} bits  "  # there is room for one of them
        facts = Content.styled(f"{size(one.size):>9}  {bits}", "dim")
        verdict = Content.styled("fits     ", "dim")
        if not _fits(one):
            verdict = Content.styled("too large", "$text-error")
        mark = Content.styled("  recommended", "$text-success") if best else Content("")
        return Content(f"{one.type:<8}") + facts + verdict + self._told(one.type) + mark

    def _told(self, file_type: str) -> Content:
        """What was measured of a type, in columns; nothing if nothing was of any."""
        found = self._figures.get(file_type)
        if not self._figures or found is None:
            return Content(" " * _TOLD if self._figures else "")
        pace = rate_sign(found.speed.generate.median, measured=True) if found.speed else ""
        alike = f"{figure_words.percent(found.loss.top1)} alike" if found.loss else ""
        return Content(f" {pace:>11}  {alike:>10}")


def _fits(one: TypeForecast) -> bool:
    return any(need.fits for need in one.memory)


def _room(one: TypeForecast) -> str:
    fitting = [need.context for need in one.memory if need.fits]
    if fitting:
        return f"Runs here with {count(max(fitting))} tokens of context."
    least = min((need.bytes for need in one.memory), default=0)
    return f"Needs {size(least)} of memory to run, more than a model may take here."
