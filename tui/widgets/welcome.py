"""What an empty conversation shows: which model this is, something to ask, and the keys."""

from __future__ import annotations

from typing import ClassVar, Final

from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.widgets import Static

from localai.chat.clean import clean_line
from tui.format import size
from tui.shelf import ModelEntry

EXAMPLES: Final = (
    "How many prime numbers are there below 30?",
    "Explain a hash table to a twelve-year-old.",
    "Write a haiku about a library at night.",
)
KEYS: Final = (
    ("Enter", "send"),
    ("Ctrl+J", "new line"),
    ("Esc", "stop"),
    ("Ctrl+O", "model"),
    ("F1", "help"),
)
NO_MODEL: Final = "No model is chosen. Ctrl+O shows those that are here, and gets others."
NOT_REASONING: Final = "This is not a reasoning model: it answers without thinking first."


class Example(Static, can_focus=True):
    """A prompt to begin with; click or Enter puts it into the composer."""

    BINDINGS: ClassVar[list[BindingType]] = [Binding("enter,space", "pick", "Use", show=False)]

    text = ""

    def say(self, text: str) -> None:
        """Offer `text`; nothing is shown for none."""
        self.text = text
        self.display = bool(text)
        self.update(Content(f"› {text}"))

    def on_click(self) -> None:
        self.action_pick()

    def action_pick(self) -> None:
        self.post_message(Welcome.Picked(self.text))


class Welcome(Vertical):
    """The page of a conversation that has not begun."""

    DEFAULT_CSS = """
    Welcome {
        height: auto;
        padding: 1 0;
        .name { text-style: bold; color: $primary; }
        .promise { color: $text-muted; margin: 0 0 1 0; }
        .model { color: $foreground; }
        .about { color: $text-muted; max-width: 72; margin: 0; }
        .about.-note { color: $text-accent; }
        .examples {
            width: auto;
            height: auto;
            margin: 1 0;
        }
        Example {
            width: auto;
            padding: 0 1 0 0;
            color: $text-muted;
            pointer: pointer;
            &:hover { color: $foreground; background: $surface; }
            &:focus { color: $foreground; background: $panel; }
        }
        .keys { color: $text-muted; }
    }
    """

    class Picked(Message):
        """The user wants to begin with `text`."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self, entry: ModelEntry | None) -> None:
        super().__init__()
        self._model = Static(markup=False, classes="model")
        self._about = Static(markup=False, classes="about")
        self._examples = [Example(markup=False) for _ in EXAMPLES]
        self._entry = entry

    def compose(self) -> ComposeResult:
        yield Static("localai", classes="name", markup=False)
        yield Static("A private chat: model and words stay on this machine.", classes="promise", markup=False)
        yield self._model
        yield self._about
        with Vertical(classes="examples"):
            yield from self._examples
        yield Static(_keys(), classes="keys", markup=False)

    def on_mount(self) -> None:
        self.show(self._entry)

    def show(self, entry: ModelEntry | None) -> None:
        """Name the model, what one should know about it, and what to ask it."""
        texts = (entry.examples if entry else ()) or EXAMPLES
        for index, example in enumerate(self._examples):
            example.say(clean_line(texts[index]) if index < len(texts) else "")
        if entry is None:
            self._model.update("No model")
            self._about.update(NO_MODEL)
            return
        facts = [clean_line(entry.title), clean_line(entry.file_type), size(entry.size) if entry.size else ""]
        self._model.update(Content(" · ".join(f for f in facts if f)))
        note = clean_line(entry.note) or ("" if entry.reasoning else NOT_REASONING)
        self._about.update(Content(note or "It thinks before it answers; Ctrl+T opens its thoughts."))
        self._about.set_class(bool(note), "-note")


def _keys() -> Content:
    return Content("   ").join([Content.styled(key, "$primary") + Content(f" {word}") for key, word in KEYS])
