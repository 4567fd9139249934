"""Choosing the type of a model to fetch, or to make here of its publisher's own weights."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from typing import ClassVar, Final

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean_line
from localai.errors import LocalAIError
from models.figure_words import advantage
from models.figures import better
from tui.fitting import Fit
from tui.format import size
from tui.model_entry import ModelEntry
from tui.model_words import licence, measured
from tui.screens.modal import Modal
from tui.widgets.model_list import facts, likeness, pace, verdict

BESIDE_LIST: Final = 17
"""Lines of the box that are not the list, where note and licence are long."""
LEAST_LIST: Final = 3
Choice = tuple[ModelEntry, bool]
"""The model in the chosen type, and whether it is to be made of its publisher's weights."""


class TypesScreen(Modal[Choice | None]):
    """Gives what the user has chosen; None: nothing."""

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "dismiss(None)", "Close", show=False),
        Binding("f6", "make", "Make it here", show=False),
    ]

    def __init__(
        self,
        types: Sequence[ModelEntry],
        usual: str,
        taken: Collection[str],
        fit: Callable[[ModelEntry], Fit],
    ) -> None:
        """`types`: at least one; `usual`: the one for who does not care; `taken`: names that are installed.

        `fit` is called in a thread.
        """
        super().__init__(classes="modal")
        self._types = {entry.file_type: entry for entry in types}
        self._usual, self._taken, self._fit = usual, taken, fit
        self._fits: dict[str, Fit] = {}
        self._alike = any(entry.likeness is not None for entry in types)
        self._list = OptionList(markup=False)
        self._note = Static(markup=False, classes="hint")
        self._licence = Static(markup=False, classes="licence")
        self._box = Vertical(self._list, self._note, self._licence, classes="box")

    def compose(self) -> ComposeResult:
        first = next(iter(self._types.values()))
        self._box.border_title = Content(f"Types of {clean_line(first.base)}, {clean_line(first.title)}")
        self._licence.update(Content(clean_line(licence(first))))
        yield self._box

    def on_mount(self) -> None:
        self._list.set_options([Option(self._line(one), id=one.file_type) for one in self._types.values()])
        self._list.highlighted = list(self._types).index(self._usual) if self._usual in self._types else 0
        self._list.focus()
        self._judge()

    def on_resize(self) -> None:
        self._list.styles.max_height = max(LEAST_LIST, self.app.size.height - BESIDE_LIST)

    @property
    def recommended(self) -> str:
        """The usual type if it fits, else the best that does; "" as long as that is not known.

        Where one that fits was measured to be smaller, faster and no less exact than that, it is this one.
        """
        if not self._fitting or (self._usual not in self._fitting and len(self._fits) < len(self._types)):
            return ""
        first = self._usual if self._usual in self._fitting else self._fitting[0]
        return self._better(first) or first

    @property
    def _fitting(self) -> list[str]:
        return [name for name in self._types if name in self._fits and self._fits[name].verdict == "fits"]

    def _better(self, name: str) -> str:
        """Of the types that fit and that nobody would give away for this one, the most exact; "": none."""
        known = {other: self._types[other].figures for other in self._fitting}
        return better(self._types[name].figures, known)

    @work(group="fits", exclusive=True)
    async def _judge(self) -> None:
        for name in sorted(self._types, key=lambda name: name != self._usual):
            try:
                self._fits[name] = await asyncio.to_thread(self._fit, self._types[name])
            except LocalAIError as error:
                self._fits[name] = Fit("", clean_line(str(error)))
        for name, entry in self._types.items():
            self._list.replace_option_prompt(name, self._line(entry))
        self._explain()

    @on(OptionList.OptionHighlighted)
    def _explain(self) -> None:
        if (entry := self._chosen) is None:
            return
        self._note.update(Content(clean_line(" ".join(self._sentences(entry)))))
        free = entry.name not in self._taken
        does = f"Enter {'fetches it' if entry.ready else 'makes it here'} · " if free else ""
        make = "F6 makes it here · " if entry.ready and entry.publisher_bytes and self._named(entry) else ""
        self._box.border_subtitle = f"{does}{make}Esc closes"

    def _sentences(self, entry: ModelEntry) -> list[str]:
        fit = self._fits.get(entry.file_type)
        said = [fit.why] if fit else []
        said.append(measured(entry))
        one = self._types[name].figures if (name := self._better(entry.file_type)) else None
        if one is not None and entry.figures is not None:
            said.append(advantage(name, one, entry.figures))
        if entry.name in self._taken:
            said.append(f"{entry.name} is installed.")
        elif entry.ready:
            said.append(f"{size(entry.download)} from {entry.origin}.")
        if entry.publisher_bytes:
            made = f"of its publisher's own weights, {size(entry.publisher_bytes)}"
            said.append(
                f"F6 makes it here {made}: no other's file is trusted."
                if entry.ready
                else f"Made here {made}."
            )
        return [one for one in said if one]

    @on(OptionList.OptionSelected)
    def _take(self) -> None:
        entry = self._chosen
        if entry is not None and entry.name not in self._taken:
            self.dismiss((entry, not entry.ready))

    def action_make(self) -> None:
        """Have it made here, under a name that tells its type."""
        entry = self._chosen
        if entry is not None and entry.publisher_bytes and (name := self._named(entry)):
            self.dismiss((msgspec.structs.replace(entry, name=name), True))

    def _named(self, entry: ModelEntry) -> str:
        """What it is called if it is made here; "" if there is one of that name."""
        name = f"{entry.base}:{entry.file_type.lower()}"
        return "" if name in self._taken else name

    @property
    def _chosen(self) -> ModelEntry | None:
        option = self._list.highlighted_option
        return self._types.get(option.id or "") if option else None

    def _line(self, entry: ModelEntry) -> Content:
        fit = self._fits.get(entry.file_type)
        mark = "recommended" if entry.file_type == self.recommended else ""
        if entry.name in self._taken:
            mark = "installed"
        elif not mark and not entry.ready:
            mark = "made here"
        return (
            facts(entry.file_type, entry.size)
            + verdict(fit)
            + pace(entry, fit, 11)
            + likeness(entry, self._alike)
            + Content.styled(f"  {mark}", "$text-success")
        )
