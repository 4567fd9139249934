"""The sidebar: the stored conversations, the pinned ones first, then by day; and a search through them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar, Final

from textual import events, on
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Vertical
from textual.content import Content
from textual.message import Message
from textual.style import Style
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import Input, OptionList, Static
from textual.widgets.option_list import Option

from localai.chat.clean import clean, clean_line
from localai.history import Hit, Summary
from tui.format import day

PAUSE_S: Final = 0.15
"""Who types nothing for so long gets all searched; titles that are listed are searched at once."""
AT_MOST: Final = 100
"""Conversations that are listed at once; a list of thousands would be slow, and nobody reads it."""
HINTS: Final = (
    (("Enter opens", "open"), ("^F searches", "search")),
    (("P pin", "pin"), ("R rename", "rename"), ("D delete", "delete")),
    (("X export", "export"), ("Shift+X all", "export_all")),
)
"""What can be done, line by line, and the actions behind the words."""
RENAME_HINT: Final = "Enter renames · Esc leaves it"
_BEFORE: Final = 16
"""Characters of context before a match: more would push it off the narrow list."""


class _Hint(Static):
    """The keys; a click on one does the same."""

    auto_links = False

    def on_mount(self) -> None:
        self.show_keys()

    def show_keys(self) -> None:
        """Say what can be done with the highlighted conversation."""
        lines = [Content(" · ").join([_clickable(*hint) for hint in line]) for line in HINTS]
        self.update(Content("\n").join(lines))

    async def action_do(self, action: str) -> None:
        """A word was clicked."""
        if isinstance(self.parent, Widget):
            await self.app.run_action(action, self.parent)


class _Choices(OptionList):
    """The lines. Whoever comes here, by whatever way, finds one highlighted."""

    def on_focus(self) -> None:
        if self.highlighted is None:
            self.action_first()


def _clickable(words: str, action: str) -> Content:
    return Content(words).stylize(Style.from_meta({"@click": f"do({action!r})"}))


class ConversationList(Vertical):
    """Lists conversations; says what the user wants to do with one."""

    DEFAULT_CSS = """
    ConversationList {
        width: 32;
        background: $surface;
        padding: 1 0 0 0;
        & > .heading { padding: 0 2; text-style: bold; color: $foreground; height: 2; }
        & > .hint { padding: 0 2; color: $text-muted; height: auto; margin: 1 0 0 0; }
        & > Input { margin: 0 2 1 2; padding: 0; background: $panel; }
        & > .rename { display: none; background-tint: $accent 15%; }
        &.-renaming > .rename { display: block; }
        &.-renaming > .search { display: none; }
        OptionList {
            height: 1fr;
            padding: 0;
            border: none;
            background: transparent;
            scrollbar-size-vertical: 1;
            text-wrap: nowrap;
            text-overflow: ellipsis;
            & > .option-list--option { padding: 0 2; }
            & > .option-list--option-disabled { color: $text-disabled; }
            &:focus { border: none; background-tint: transparent; }
        }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("delete,d", "delete", "Delete", show=False),
        Binding("p", "pin", "Pin", show=False),
        Binding("r,f2", "rename", "Rename", show=False),
        Binding("x", "export", "Export", show=False),
        Binding("X", "export_all", "Export all", show=False),
        Binding("slash,ctrl+f", "search", "Search", show=False),
    ]

    class Opened(Message):
        """The user wants to read a conversation, from the message `message_id` if it is not empty."""

        def __init__(self, conversation_id: str, message_id: str = "") -> None:
            super().__init__()
            self.conversation_id = conversation_id
            self.message_id = message_id

    class DeleteWanted(Message):
        """The user wants to delete a conversation."""

        def __init__(self, conversation_id: str, title: str) -> None:
            super().__init__()
            self.conversation_id = conversation_id
            self.title = title

    class PinWanted(Message):
        """The user wants a conversation to stand above the others, or no longer."""

        def __init__(self, conversation_id: str, pinned: bool) -> None:
            super().__init__()
            self.conversation_id = conversation_id
            self.pinned = pinned

    class Renamed(Message):
        """The user has given a conversation another title."""

        def __init__(self, conversation_id: str, title: str) -> None:
            super().__init__()
            self.conversation_id = conversation_id
            self.title = title

    class ExportWanted(Message):
        """The user wants a conversation in a file; all of them if the identifier is empty."""

        def __init__(self, conversation_id: str = "") -> None:
            super().__init__()
            self.conversation_id = conversation_id

    class SearchWanted(Message):
        """The user looks for `query` in all messages: whoever searches answers with `show_hits`."""

        def __init__(self, query: str) -> None:
            super().__init__()
            self.query = query

    def __init__(self) -> None:
        super().__init__()
        self._search = Input(placeholder="Search", compact=True, select_on_focus=False, classes="search")
        self._rename = Input(compact=True, classes="rename")
        self._list = _Choices(markup=False)
        self._heading = Static("Conversations", classes="heading", markup=False)
        self._hint = _Hint(classes="hint", markup=False)
        self._summaries: dict[str, Summary] = {}
        self._count = 0
        self._current = ""
        self._now = 0.0
        self._hits: list[Hit] = []
        self._renaming = ""
        self._leaving = ""
        """The conversation that was to be deleted last."""
        self._pause: Timer | None = None

    def compose(self) -> ComposeResult:
        yield self._heading
        yield self._search
        yield self._rename
        yield self._list
        yield self._hint

    def on_mount(self) -> None:
        self._search.cursor_blink = self._rename.cursor_blink = False

    @property
    def searching(self) -> bool:
        """Whether the user looks for something; else the first `AT_MOST` conversations are enough."""
        return bool(self._query)

    def show(self, summaries: Sequence[Summary], current: str, now: float, count: int | None = None) -> None:
        """List the conversations, the open one highlighted; `count`: how many there are in all."""
        self._count = len(summaries) if count is None else count
        self._summaries = {s.id: s for s in sorted(summaries, key=lambda s: not s.pinned)}
        self._current, self._now = current, now
        self._refresh()

    def begin_with(self, heading: str) -> None:
        """Other conversations are listed from now on: nothing stays of a search in those so far."""
        self._heading.update(heading)
        self._end_renaming()
        self._hits = []
        with self.prevent(Input.Changed):
            self._search.value = ""

    def show_hits(self, query: str, hits: Sequence[Hit]) -> None:
        """List what was found in messages, below the titles; nothing if `query` is no longer asked."""
        if query == self._query:
            self._hits = list(hits)
            self._refresh()

    @property
    def _query(self) -> str:
        return self._search.value.strip()

    # --------------------------------------------------------------------------------------- the options

    def _refresh(self) -> None:
        chosen = self._list.highlighted_option
        has_keyboard = self._list.has_focus_within  # `has_focus` becomes true some messages later
        kept = chosen.id if chosen is not None and has_keyboard else None
        options = self._found() if self._query else self._by_day()
        self._list.set_options(options)
        ids = [option.id for option in options]
        for wanted in (kept, None if self._query else self._current):
            if wanted is not None and wanted in ids:
                self._list.highlighted = ids.index(wanted)
                return
        # In the place of what was just deleted there is nothing: a key held down would delete one by one.
        if self._query or (has_keyboard and (kept is None or kept != self._leaving)):
            self._list.action_first()

    def _by_day(self) -> list[Option]:
        options: list[Option] = []
        heading = ""
        for summary in list(self._summaries.values())[:AT_MOST]:
            label = "Pinned" if summary.pinned else day(summary.updated, self._now)
            if label != heading:
                # The first heading needs no distance to what stands above it.
                options += [Option("", disabled=True)] if heading else []
                options.append(Option(Content.styled(label, "bold"), disabled=True))
                heading = label
            options.append(Option(Content(_title(summary.title)), id=summary.id))
        if (more := self._count - AT_MOST) > 0:
            options += [Option("", disabled=True), Option(f"{more:,} older: search", disabled=True)]
        return options or [Option("None yet", disabled=True)]

    def _found(self) -> list[Option]:
        words = self._query.lower().split()
        titles = [s for s in self._summaries.values() if all(w in s.title.lower() for w in words)]
        options = [Option(_marked(_title(s.title), words), id=s.id) for s in titles[:AT_MOST]]
        if self._hits:
            options += [Option("", disabled=True)] if options else []
            options.append(Option(Content.styled("In messages", "bold"), disabled=True))
            options += [Option(_excerpt(hit), id=f"hit {n}") for n, hit in enumerate(self._hits)]
        return options or [Option("Nothing found", disabled=True)]

    # ---------------------------------------------------------------------------------------- the keyboard

    def focus_list(self) -> None:
        """Give the keyboard to the list, at once: what is typed right behind is meant for it."""
        self.screen.set_focus(self._list)

    def action_search(self) -> None:
        """Give the keyboard to the search, at once: what is typed right behind is meant for it."""
        self.screen.set_focus(self._search)
        self._search.select_all()  # the first letter takes the place of what was looked for before

    def leave(self) -> bool:
        """Esc: end the renaming, or the search; False if there was nothing to end."""
        if self._renaming:
            self._end_renaming()
        elif self._query:
            with self.prevent(Input.Changed):
                self._search.value = ""
            self._look()  # before the list has the keyboard: what was found first is nobody's choice
        else:
            return False
        self.focus_list()
        return True

    async def on_key(self, event: events.Key) -> None:
        """From the search, Down goes to the list, and Up from its first line back."""
        if event.key == "down" and self._search.has_focus:
            event.stop()
            self.focus_list()

    @on(Input.Changed, ".search")
    def _typed(self, event: Input.Changed) -> None:
        event.stop()
        self._look()

    def _look(self) -> None:
        """List what the words so far find in titles; in messages as soon as no more are typed."""
        self._hits = []
        if self._pause is not None:
            self._pause.stop()
        if query := self._query:
            self._pause = self.set_timer(PAUSE_S, lambda: self.post_message(self.SearchWanted(query)))
        self._refresh()

    @on(Input.Submitted, ".search")
    def _enter(self, event: Input.Submitted) -> None:
        event.stop()
        self._list.action_select()

    @on(OptionList.OptionSelected)
    def _open(self, event: OptionList.OptionSelected) -> None:
        event.stop()
        chosen = event.option.id or ""
        if chosen.startswith("hit "):
            hit = self._hits[int(chosen.removeprefix("hit "))]
            self.post_message(self.Opened(hit.conversation, hit.message))
        elif chosen:
            self.post_message(self.Opened(chosen))

    # ---------------------------------------------------------------------------------- one conversation

    def _highlighted(self) -> Summary | None:
        option = self._list.highlighted_option
        return self._summaries.get(option.id or "") if option is not None else None

    def action_open(self) -> None:
        """Open the highlighted conversation."""
        self._list.action_select()

    def action_export(self) -> None:
        """Say that the highlighted conversation is to be written to a file."""
        if (summary := self._highlighted()) is not None:
            self.post_message(self.ExportWanted(summary.id))

    def action_export_all(self) -> None:
        """Say that all conversations are to be written to a file."""
        self.post_message(self.ExportWanted())

    def action_delete(self) -> None:
        """Say that the highlighted conversation is to go."""
        if (summary := self._highlighted()) is not None:
            self._leaving = summary.id
            self.post_message(self.DeleteWanted(summary.id, _title(summary.title)))

    def action_pin(self) -> None:
        """Say that the highlighted conversation is to be pinned, or no longer."""
        if (summary := self._highlighted()) is not None:
            self.post_message(self.PinWanted(summary.id, not summary.pinned))

    def action_rename(self) -> None:
        """Let the user type another title for the highlighted conversation."""
        if (summary := self._highlighted()) is not None:
            self._renaming = summary.id
            self._rename.value = clean_line(summary.title)
            self._hint.update(RENAME_HINT)
            self.add_class("-renaming")
            self._rename.focus()

    @on(Input.Submitted, ".rename")
    def _rename_done(self, event: Input.Submitted) -> None:
        event.stop()
        if title := clean_line(event.value):
            self.post_message(self.Renamed(self._renaming, title))
        self._end_renaming()
        self.focus_list()

    def _end_renaming(self) -> None:
        self._renaming = ""
        self._hint.show_keys()
        self.remove_class("-renaming")


def _title(title: str) -> str:
    return clean_line(title) or "Untitled"


def _marked(text: str, words: Sequence[str]) -> Content:
    """`text` with the words marked in it."""
    found, low = Content(text), text.lower()
    for word in words:
        if len(low) == len(text) and (at := low.find(word)) >= 0:
            found = found.stylize("bold $accent", at, at + len(word))
    return found


def _excerpt(hit: Hit) -> Content:
    """A title, and below it the match with what stands around it."""
    before, match, after = clean(hit.before).lstrip(), clean(hit.match), clean(hit.after)
    short = f"…{before[-_BEFORE:]}" if len(before) > _BEFORE else before
    line = Content.styled(f"  {short}", "dim") + Content.styled(match, "bold $accent")
    return Content("\n").join([Content(_title(hit.title)), line + Content.styled(after, "dim")])
