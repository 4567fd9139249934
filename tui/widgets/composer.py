"""Where the user types: one line that grows to eight. Above it stands what is attached, and files to choose.

Messages go up, methods come down: the screen answers `Submitted` with `sent` or `refused`, and may answer
`DraftChanged` with `show_cost`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import ClassVar, Final, Literal

from textual import events, on
from textual.binding import Binding, BindingType
from textual.message import Message
from textual.reactive import var
from textual.timer import Timer
from textual.widget import Widget
from textual.widgets import TextArea

from localai.chat.attachments import paste_is_big, paths_in
from localai.chat.clean import clean, clean_line
from localai.chat.conversation import Attachment
from localai.errors import LocalAIError
from tui.widgets.attachments import AttachmentRow, cost_content
from tui.widgets.path_completion import PathCompletion, mention_at
from tui.widgets.recall import RecallingTextArea

PAUSE_S: Final = 0.7
"""Who types nothing for so long may be about to send."""
DRAFT_LEAST: Final = 40
"""Characters of a draft that are worth reading beforehand."""
CHANGE_S: Final = 0.25
"""`DraftChanged` comes when nothing has changed for so long."""

SendKey = Literal["enter", "ctrl+enter"]
PLACEHOLDERS: Final[dict[SendKey, str]] = {
    "enter": "Ask anything. Enter sends, Ctrl+J begins a new line.",
    "ctrl+enter": "Ask anything. Ctrl+Enter or Ctrl+S sends, Enter begins a new line.",
}
# Many terminals send the same for Ctrl+Enter as for Enter, some send Ctrl+J: Ctrl+S arrives everywhere.
SENDING: Final[dict[SendKey, frozenset[str]]] = {
    "enter": frozenset({"enter"}),
    "ctrl+enter": frozenset({"ctrl+enter", "alt+enter", "ctrl+j", "ctrl+s"}),
}

Draft = tuple[str, tuple[Attachment, ...]]


class Composer(RecallingTextArea):
    """Enter sends, Ctrl+J or Shift+Enter begin a line, Up in an empty composer recalls prompts.

    `@` offers files, F4 opens the user's editor, Backspace in an empty composer removes the last attachment.
    Pasted paths and long pastes become attachments. What is being written is told as `Drafted`, when the
    user pauses or has pasted.
    """

    DEFAULT_CSS = """
    Composer {
        height: auto;
        min-height: 3;
        max-height: 10;
        width: 100%;
        min-width: 6;  /* without room for text, Textual fails to wrap the placeholder */
        padding: 0 1;
        border: round $border-blurred;
        border-subtitle-color: $text-muted;
        background: $background;
        scrollbar-size-vertical: 1;
        &:focus { border: round $border; }
        & .text-area--cursor-line { background: transparent; }
        & .text-area--placeholder { color: $text-disabled; }
    }
    """

    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("ctrl+j,shift+enter,alt+enter,ctrl+enter", "newline", "New line", show=False),
        Binding("f4", "edit_outside", "Write in your editor", show=False),
        Binding("pageup", "screen.scroll_view(-1)", "Scroll up", show=False),
        Binding("pagedown", "screen.scroll_view(1)", "Scroll down", show=False),
    ]

    send_on: var[SendKey] = var[SendKey]("enter")
    """Which key sends; the other one begins a line."""

    class Submitted(Message):
        """The user wants to send this. Whoever takes it answers with `sent` or `refused`.

        `text` may be empty if something is attached.
        """

        def __init__(self, text: str, attachments: tuple[Attachment, ...] = ()) -> None:
            super().__init__()
            self.text = text
            self.attachments = attachments

    class Drafted(Message):
        """The user may send this next."""

        def __init__(self, text: str, attachments: tuple[Attachment, ...] = ()) -> None:
            super().__init__()
            self.text = text
            self.attachments = attachments

    class DraftChanged(Message):
        """Text or attachments are now these: what would that cost? Comes when the changes pause."""

        def __init__(self, text: str, attachments: tuple[Attachment, ...]) -> None:
            super().__init__()
            self.text = text
            self.attachments = attachments

    class Problem(Message):
        """Something that the user wanted cannot be done; `text` is one line that says why."""

        def __init__(self, text: str) -> None:
            super().__init__()
            self.text = text

    def __init__(self) -> None:
        super().__init__(placeholder=PLACEHOLDERS["enter"], highlight_cursor_line=False)
        self.cursor_blink = False
        self.memory_only = False
        """Whether nothing may touch a disk: then there must be a folder in memory for the editor."""
        self.row = AttachmentRow(self._attachments_changed)
        self.completion = PathCompletion(self._take)
        self._submitted: Draft | None = None
        """What Enter took out and nobody has answered for yet."""
        self._waiting = False
        """Whether what was submitted waits for files that are still being read."""
        self._pasted = False
        self._pause: Timer | None = None
        self._change: Timer | None = None
        self._cost: tuple[int | None, int | None] = (None, None)

    def on_mount(self) -> None:
        """What belongs to the composer stands above it, wherever a screen puts it."""
        if isinstance(self.parent, Widget):
            self.parent.mount(self.row, self.completion, before=self)

    def watch_send_on(self, send_on: SendKey) -> None:
        self.placeholder = PLACEHOLDERS[send_on]

    # ------------------------------------------------------------------------------- for the screen to say

    @property
    def draft(self) -> Draft:
        """What is being written, and what waits for files to be read."""
        if self._submitted is not None and self._waiting:
            texts = [self._submitted[0], self.text]
            return "\n".join(text for text in texts if text), self.row.attachments
        return self.text, self.row.attachments

    def restore(self, text: str, attachments: Sequence[Attachment] = ()) -> None:
        """Go on with that draft instead of the present one."""
        if self._waiting:
            self._submitted, self._waiting = None, False
        self.forget_recalled()
        self.row.replace(attachments)
        self.completion.stop()
        self.load_text(clean(text))
        self.move_cursor(self.document.end)
        self._draft_changed()

    def sent(self) -> None:
        """What was submitted has been taken over: remember it as a prompt."""
        if self._submitted is not None and (text := clean(self._submitted[0]).strip()):
            self.prompts.append(text)
        self._submitted = None
        self.forget_recalled()

    def refused(self) -> None:
        """What was submitted stays here: put it back, before whatever has been typed since."""
        text, attachments = self._submitted or ("", ())
        self._submitted, self._waiting = None, False
        if attachments:
            self.row.put_back(attachments)
        if self.text:
            self.insert(f"{text}\n", (0, 0))
        else:
            self.insert(text)
            self.move_cursor(self.document.end)
        self._draft_changed()

    def attach(self, paths: Iterable[Path]) -> None:
        """Read these files and add them to the draft; a `Problem` tells of each that cannot be read."""
        self.row.attach(paths)

    def show_cost(
        self, tokens: int | None, room: int | None = None, files: Mapping[str, int] | None = None
    ) -> None:
        """Say what the draft costs; `room`: tokens that are free, `files`: costs by attachments' names.

        None: not known. Said of a draft that is gone meanwhile, nothing is shown.
        """
        is_gone = not self.text and self.row.is_empty
        self._cost = (None, None) if is_gone else (tokens, room)
        if files:
            self.row.show_costs(files)
        self._show_cost()

    def _show_cost(self) -> None:
        cost = cost_content(*self._cost, width=self.outer_size.width - 6)
        bordered = self.styles.border_bottom[0] not in ("", "none")
        self.border_subtitle = cost if bordered else None
        tokens, room = self._cost
        fits = tokens is None or room is None or tokens <= room
        self.row.show_total(None if bordered or (fits and self.row.is_empty) else cost)

    @on(events.Resize)
    def _fit_cost(self) -> None:
        self.call_after_refresh(self._show_cost)

    # ---------------------------------------------------------------------------------------------- keys
    # Textual calls the handlers of all classes, this one first: what is not prevented, TextArea does.

    async def _on_key(self, event: events.Key) -> None:
        key = event.key.replace("\r", "enter")  # so Textual calls it where a terminal tells modifiers
        if not self._steer(key):
            if key in SENDING[self.send_on]:
                self._submit()
            elif key == "enter":
                self.action_newline()
            elif not await self._act(key):
                return
        event.stop()
        event.prevent_default()

    def _steer(self, key: str) -> bool:
        """Do what the key means to the open list of files, if there is one."""
        row, column = self.cursor_location
        chosen = self.completion.chosen(mention_at(self.document.get_line(row), column))
        if chosen is None:
            return False
        if key in ("up", "down"):
            self.completion.move(-1 if key == "up" else 1)
        elif key in ("tab", "enter"):
            self._take(chosen)
        elif key == "escape":
            self.completion.close()
        else:
            return False
        return True

    def _submit(self) -> None:
        """The text leaves at once, so that what is typed next is a text of its own.

        Until it is answered for, the key begins a line: the lines of a paste stay together, in their order.
        """
        if not clean(self.text).strip() and self.row.is_empty:
            return
        if self._submitted is not None:
            self.action_newline()
            return
        self._submitted = (self.text, ())
        self._waiting = True
        self.clear()
        self._post_when_read()

    def _post_when_read(self) -> None:
        if self._submitted is None or not self._waiting or self.row.busy:
            return
        text, attachments = self._submitted[0], self.row.attachments
        self._submitted, self._waiting = (text, attachments), False
        self.row.replace(())
        if not clean(text).strip() and not attachments:  # they were removed meanwhile
            self._submitted = None
            return
        self.show_cost(None)
        self._draft_changed()
        self.post_message(self.Submitted(clean(text).strip(), attachments))

    async def _act(self, key: str) -> bool:
        """Do what the key is bound to here, if anything.

        Left to Textual, a binding waits until the key has gone up to the application: characters that come
        fast overtake it.
        """
        bindings = self._bindings.key_to_bindings.get(key, [])
        return any([await self.app.run_action(binding.action, self) for binding in bindings])

    def action_newline(self) -> None:
        self.insert("\n")
        self.scroll_cursor_visible()

    def action_delete_left(self) -> None:
        """Backspace: in an empty composer it takes the last attachment."""
        if self.text or self.row.is_empty:
            super().action_delete_left()
        else:
            self.row.drop(-1)

    # ------------------------------------------------------------------------------- files, pastes, editor

    async def _on_paste(self, event: events.Paste) -> None:
        if self._attach_pasted(event.text):
            event.stop()
            event.prevent_default()
        else:
            event.text = clean(event.text)
            self._pasted = True

    def action_paste(self) -> None:
        """Ctrl+V: what was copied in this program, by the same rules."""
        if not self._attach_pasted(self.app.clipboard):
            self._pasted = True
            super().action_paste()

    def _attach_pasted(self, text: str) -> bool:
        """Attach what a paste stands for, if it is more than some words."""
        if paths := paths_in(text):
            self.row.attach(paths)
        elif paste_is_big(text):
            self.row.attach_paste(text)
        else:
            return False
        self.focus()
        return True

    def _attachments_changed(self, problem: str) -> None:
        if problem:
            self.post_message(self.Problem(problem))
        if problem and self._waiting:
            self.refused()
        self._post_when_read()
        self._draft_changed()
        if not self.row.busy:
            self.tell_draft()

    def _take(self, path: str) -> None:
        """A path of the list was chosen: attach it and leave its name; a folder is gone into."""
        row, column = self.cursor_location
        if (mention := mention_at(self.document.get_line(row), column)) is None:
            return
        text = f"@{path}"
        if not path.endswith("/"):
            file = self.completion.path_of(path)
            text = f"@{clean_line(file.name)} "
            self.row.attach([file])
        result = self.replace(text, (row, mention.column), (row, column), maintain_selection_offset=False)
        self.move_cursor(result.end_location)

    @on(TextArea.SelectionChanged)
    def _complete(self) -> None:
        row, column = self.cursor_location
        if self.has_focus and self.selection.is_empty:
            self.completion.follow(self.document.get_line(row), column)
        else:
            self.completion.stop()

    @on(events.Blur)
    def _stop_completing(self) -> None:
        self.completion.stop()

    def action_edit_outside(self) -> None:
        """F4: write on in the user's own editor."""
        self.run_worker(self._edit_outside(), group="editor", exclusive=True)

    async def _edit_outside(self) -> None:
        from tui.external_editor import edit_outside

        try:
            self.put(await edit_outside(self.app, self.text, memory_only=self.memory_only))
        except LocalAIError as error:
            self.post_message(self.Problem(clean_line(str(error))))

    # ------------------------------------------------------------------------------------------- the draft

    @on(TextArea.Changed)
    def _text_changed(self) -> None:
        """Tell the draft when nothing more is typed, a paste at once."""
        self._draft_changed()
        if self._pause is not None:
            self._pause.stop()
            self._pause = None
        if self._pasted:
            self._pasted = False
            self.tell_draft(least=1)
        elif len(self.text) >= DRAFT_LEAST or self.row.attachments:
            self._pause = self.set_timer(PAUSE_S, self.tell_draft)

    def tell_draft(self, least: int = DRAFT_LEAST) -> None:
        """Post what is written so far as a draft, if it has `least` characters or something is attached."""
        text, attachments = clean(self.text).strip(), self.row.attachments
        if len(text) >= least or attachments:
            self.post_message(self.Drafted(text, attachments))

    def _draft_changed(self) -> None:
        if self._change is not None:
            self._change.stop()
        self._change = self.set_timer(CHANGE_S, self._tell_change)

    def _tell_change(self) -> None:
        self._change = None
        text, attachments = clean(self.text).strip(), self.row.attachments
        if not text and not attachments:
            self.show_cost(None)
        self.post_message(self.DraftChanged(text, attachments))
