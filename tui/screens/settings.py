"""The settings of the program: each line is one, and Enter goes to its next value."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import ClassVar, Final, TypeVar

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.widgets import OptionList, Static
from textual.widgets.option_list import Option

from localai import policy
from localai.chat.clean import clean_line
from localai.errors import LocalAIError
from tui.format import count
from tui.preferences import KEEP_DAYS, SEND_KEYS, THINKING_MODES, Preferences
from tui.screens.modal import Modal
from tui.screens.question import QuestionScreen
from tui.theme import CONTRAST, DARK, LIGHT

THINKING_WORDS: Final = {
    "open": "always open",
    "folded": "folded when the answer starts",
    "hidden": "hidden",
}
SEND_WORDS: Final = {"enter": "Enter", "ctrl+enter": "Ctrl+Enter or Ctrl+S"}
THEME_WORDS: Final = {DARK.name: "dark", LIGHT: "light", CONTRAST.name: "high contrast"}
KEEP_WORDS: Final = {
    0: "for ever",
    **{days: f"{days} days after their last change" for days in KEEP_DAYS[1:]},
}
MANAGED: Final = "as your organization wants it"
_COLUMN: Final = 12
T = TypeVar("T")


class SettingsScreen(Modal[None]):
    """Changes hold at once and are stored. `on_change` is told after each.

    How long conversations are kept holds when the screen closes; if that deletes some, the user is asked.
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape,f2,q", "close", "Close", show=False),
        Binding("right,space", "turn(1)", "Next value", show=False),
        Binding("left", "turn(-1)", "Value before", show=False),
    ]

    def __init__(self, preferences: Preferences, on_change: Callable[[], None]) -> None:
        super().__init__(classes="modal")
        self._preferences = preferences
        self._on_change = on_change
        self._list = OptionList(markup=False)
        self._keep_days = preferences.keep_days
        """What is shown."""
        self._goes = Static("", classes="text", markup=False)

    def compose(self) -> ComposeResult:
        with Vertical(classes="box") as box:
            box.border_title = "Settings"
            box.border_subtitle = "Enter changes · Esc closes"
            yield Static("", classes="title", markup=False)
            yield self._list
            yield self._goes
            hint = "F3 sets this conversation's system prompt and sampling. Ctrl+P has more themes."
            yield Static(Content(hint), classes="hint", markup=False)
            if managed := [text for text, _ in policy.describe()]:
                text = f"Managed by your organization, which F6 tells more of: {'; '.join(managed)}."
                yield Static(Content(clean_line(text)), classes="hint", markup=False)

    def on_mount(self) -> None:
        self._show(0)
        self._list.focus()

    def _show(self, highlighted: int | None) -> None:
        theme = self.app.theme
        lines = {
            "thinking": ("Thinking", THINKING_WORDS[self._preferences.thinking]),
            "theme": ("Theme", THEME_WORDS.get(theme, clean_line(theme))),
            "send_key": ("Send with", SEND_WORDS[self._preferences.send_key]),
            "keep_days": ("Keep chats", self._keep_words()),
        }
        self._list.set_options([Option(_line(*line), id=name) for name, line in lines.items()])
        self._list.highlighted = highlighted

    @on(OptionList.OptionSelected)
    def _selected(self) -> None:
        self.action_turn(1)

    def action_turn(self, step: int) -> None:
        """The highlighted setting's next value, or the one before."""
        option, preferences = self._list.highlighted_option, self._preferences
        try:
            match option.id if option is not None else None:
                case "thinking":
                    preferences.set_thinking(_turned(THINKING_MODES, preferences.thinking, step))
                case "send_key":
                    preferences.set_send_key(_turned(SEND_KEYS, preferences.send_key, step))
                case "keep_days" if not policy.current().has("require.incognito"):
                    self._keep(_turned(preferences.keep_choices, self._keep_days, step))
                case "theme":
                    self.app.theme = _turned(tuple(THEME_WORDS), self.app.theme, step)
        except LocalAIError as error:
            self.notify(clean_line(str(error)), severity="error", markup=False)
        self._on_change()
        self._show(self._list.highlighted)

    def _keep_words(self) -> str:
        most = self._preferences.most_days
        if policy.current().has("require.incognito"):
            return f"never, {MANAGED}"
        if most is not None and self._keep_days == 0:
            return f"{policy.in_days(most)} after their last change, {MANAGED}"
        return KEEP_WORDS[self._keep_days]

    def _keep(self, days: int) -> None:
        """Show that conversations are kept so long; it holds when the screen closes."""
        self._keep_days = days
        goes = self._going
        self._goes.update(
            f"  {_older(goes)} older and would be deleted. You are asked when this closes." if goes else ""
        )

    @property
    def _going(self) -> int:
        """How many conversations the shown time deletes, beside those that go anyway."""
        if self._keep_days == self._preferences.keep_days:
            return 0
        return len(self._preferences.old(self._keep_days))

    @work(group="close", exclusive=True)
    async def action_close(self) -> None:
        """Close; first ask if that deletes conversations."""
        if goes := self._going:
            text = f"{_older(goes)} older than {self._keep_days} days and will be gone for good."
            question = QuestionScreen("Delete old conversations?", text, yes="Delete", no="Keep")
            if not await self.app.push_screen_wait(question):
                self._keep_days = self._preferences.keep_days
        if self._keep_days != self._preferences.keep_days:
            try:
                self._preferences.set_keep_days(self._keep_days)
            except LocalAIError as error:
                self.notify(clean_line(str(error)), severity="error", markup=False)
            self._on_change()
        self.dismiss()


def _older(number: int) -> str:
    return "1 conversation is" if number == 1 else f"{count(number)} conversations are"


def _line(name: str, value: str) -> Content:
    return Content(f"  {name:<{_COLUMN}}") + Content.styled(f"‹ {value} ›", "$primary")


def _turned(values: Sequence[T], value: T, step: int) -> T:
    return values[(values.index(value) + step) % len(values)] if value in values else values[0]
