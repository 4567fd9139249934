"""The first run's question how the conversations are protected."""

from __future__ import annotations

from typing import ClassVar, Final, Literal

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean_line
from tui.passphrase import strength

Choice = Literal["keyring", "passphrase", "memory", "plain"]
"""What the user chose: encrypted, with the key in either place; nothing kept; unencrypted."""

WORDS: Final[dict[Choice, str]] = {
    "keyring": "Encrypted, with the key in the system's keyring",
    "passphrase": "Encrypted, with a passphrase",
    "memory": "Keep nothing this time",
    "plain": "Not encrypted",
}
MEANING: Final[dict[Choice, str]] = {
    "keyring": "You are asked nothing at the start. Whoever is logged in as you can read them.",
    "passphrase": "You are asked for it at each start. Nobody can recover it.",
    "memory": "They stay in memory and are gone when the chat ends. You are asked again next time.",
    "plain": "Whoever gets at your files, a backup or the disk can read every word.",
}


class ProtectionQuestion(Vertical):
    """A list, what the highlighted choice means, and two fields where it is a passphrase."""

    DEFAULT_CSS = """
    ProtectionQuestion {
        height: auto;
        padding: 0 0 1 0;
        .meaning { color: $text-muted; margin: 1 0 0 0; }
        .passphrase { height: auto; margin: 1 0 0 0; }
        .told { color: $text-muted; height: auto; }
        .told.-wrong { color: $text-error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("up", "leave_up", "Up", show=False),
        Binding("down", "leave_down", "Down", show=False),
    ]

    class Chosen(Message):
        """The user wants them kept so."""

        def __init__(self, choice: Choice, passphrase: str) -> None:
            super().__init__()
            self.choice = choice
            self.passphrase = passphrase

    def __init__(self, keyring_problem: str, least_letters: int, *, plain: bool = True) -> None:
        """`keyring_problem`: why there is no keyring to choose; empty if there is one.

        `plain`: whether not to encrypt can be chosen.
        """
        super().__init__()
        self._keyring_problem = clean_line(keyring_problem)
        self._least = least_letters
        out = {"keyring" if keyring_problem else "", "" if plain else "plain"}
        self._choices = [kept for kept in WORDS if kept not in out]
        self._list = OptionList(markup=False)
        self._meaning = Static(markup=False, classes="meaning")
        self._first, self._second = _field("Passphrase"), _field("Once more")
        self._fields = Vertical(classes="row passphrase")
        self._told = Static(markup=False, classes="told")

    def compose(self) -> ComposeResult:
        yield self._list
        yield self._meaning
        with self._fields:
            yield self._first
            yield self._second
        yield self._told

    def on_mount(self) -> None:
        self._first.cursor_blink = self._second.cursor_blink = False
        self._list.set_options([Option(f" {WORDS[kept]}", id=kept) for kept in self._choices])
        self._list.highlighted = 0

    def take_focus(self) -> None:
        """Let the keys choose here."""
        self._list.focus()

    def tell(self, problem: str) -> None:
        """Say why the choice could not be followed."""
        self._say(problem, wrong=True)

    @property
    def _highlighted(self) -> Choice:
        return self._choices[self._list.highlighted or 0]

    @on(OptionList.OptionHighlighted)
    def _explain(self) -> None:
        kept = self._highlighted
        meaning = MEANING[kept]
        if kept == "passphrase" and self._keyring_problem:
            meaning = f"{meaning} No keyring can keep a key here: {self._keyring_problem}."
        self._meaning.update(Content(meaning))
        self._fields.display = kept == "passphrase"
        self._say(strength(self._first.value, self._least) if kept == "passphrase" else "")

    @on(OptionList.OptionSelected)
    def _selected(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        if self._highlighted == "passphrase":
            self._first.focus()
        else:
            self.post_message(self.Chosen(self._highlighted, ""))

    def on_key(self, event: events.Key) -> None:
        """Who begins to type a passphrase at once means the field."""
        letter = event.character if event.is_printable else None
        if letter and self._list.has_focus and self._highlighted == "passphrase":
            event.stop()
            self._first.focus()
            self._first.insert_text_at_cursor(letter)

    @on(Input.Changed)
    def _typed(self, event: Input.Changed) -> None:
        if event.input is self._first:
            self._say(strength(self._first.value, self._least))

    @on(Input.Submitted)
    def _entered(self, event: Input.Submitted) -> None:
        event.stop()
        if len(self._first.value) < self._least:
            self._first.focus()
            self._say(strength(self._first.value, self._least) or "A passphrase is needed.", wrong=True)
        elif event.input is self._first:
            self._second.focus()
            self._say(f"{strength(self._first.value, self._least)} Now the same once more.")
        elif self._first.value != self._second.value:
            self._second.clear()
            self._say("The two are not the same. Type the second again, or both.", wrong=True)
        else:
            self.post_message(self.Chosen("passphrase", self._first.value))

    def action_leave_up(self) -> None:
        """From a field to the one above it, and to the list."""
        (self._first if self._second.has_focus else self._list).focus()

    def action_leave_down(self) -> None:
        """From the upper field to the lower."""
        self._second.focus()

    def _say(self, text: str, *, wrong: bool = False) -> None:
        self._told.display = bool(text)
        self._told.set_class(wrong, "-wrong")
        self._told.update(Content(clean_line(text)))


def _field(placeholder: str) -> Input:
    # Selected on focus, the letter that brought the focus would be replaced by the next.
    return Input(placeholder=placeholder, password=True, compact=True, select_on_focus=False)
