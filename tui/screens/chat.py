"""The chat: wires the widgets to the session."""

from __future__ import annotations

import asyncio
from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Center, Horizontal, Vertical
from textual.screen import Screen

from localai.chat.clean import clean
from localai.errors import LocalAIError
from tui.outcome import loop_keys
from tui.screens.confirm import ConfirmScreen
from tui.screens.help import HelpScreen
from tui.screens.model_picker import ModelPicker
from tui.session import Session
from tui.status import status_of
from tui.turn import Turn
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import ConversationList
from tui.widgets.conversation_view import ConversationView
from tui.widgets.load_failure import LoadFailure
from tui.widgets.status_line import NEARLY_FULL, StatusLine
from tui.widgets.welcome import Welcome

WIDE: Final = 110
"""Cells from which on the conversations have a place of their own."""
TALL: Final = 12
"""Rows from which on the composer has a border and room for more than a line."""

SYSTEM_ROLE_NOTICE: Final = (
    "This model has no system role: your system prompt is put at the start of your first message."
)


class ChatScreen(Screen[None]):
    """Conversations at the left, the conversation above the composer, the status below all."""

    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL, "-tall")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop the reply"),
        Binding("ctrl+n", "new_conversation", "New conversation"),
        Binding("ctrl+o", "choose_model", "Choose a model"),
        Binding("ctrl+b", "toggle_sidebar", "Conversations"),
        Binding("ctrl+t", "toggle_thinking", "Open or fold the last thoughts"),
        Binding("ctrl+g", "answer_now", "Answer now"),
        Binding("ctrl+r", "regenerate", "Try again"),
        Binding("f1,question_mark", "help", "Keys"),
    ]

    def __init__(self, session: Session) -> None:
        super().__init__()
        self.session = session
        self._view = ConversationView()
        self._failure = LoadFailure()
        self._composer = Composer()
        self._sidebar = ConversationList()
        self._status = StatusLine()
        self._shown: asyncio.Event | None = None
        """Set when the latest reply is on the screen to its end."""
        self._sidebar_wanted: bool | None = None
        """What the user chose; None: shown where there is room."""
        self._noticed: set[str] = set()
        """Notices that were given and need no repetition."""

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            yield self._sidebar
            with Vertical(id="main"):
                yield self._view
                with Center(id="dock"):
                    yield self._failure
                    yield self._composer
        yield self._status

    async def on_mount(self) -> None:
        self.session.loader.on_change = self._model_changed
        self.session.on_unstored = self._tell
        await self._show_conversation()
        self._refresh_list()
        self._model_changed()  # it may have failed before there was a screen to say so
        self._composer.focus()

    def on_resize(self) -> None:
        self._place_sidebar()

    # ----------------------------------------------------------------------------------------- a message

    @on(Composer.Submitted)
    async def _send(self, event: Composer.Submitted) -> None:
        turn = self._ask(event.text)
        if turn is None:
            self._composer.refused()
            return
        self._composer.sent()
        await self._view.ask(self.session.conversation.messages[turn.message.parent or ""])
        self._refresh_list()
        self._follow(turn)

    def _ask(self, text: str) -> Turn | None:
        """The reply that begins; None, and the user knows why, if it cannot."""
        if self.session.busy:
            self.notify("The reply is still coming: Esc stops it.", markup=False)
        elif self.session.loader.state == "none":
            self.action_choose_model()
        else:
            try:
                return self.session.ask(text)
            except LocalAIError as error:
                self._tell(error)
        return None

    def _follow(self, turn: Turn) -> None:
        before, self._shown = self._shown, asyncio.Event()
        self.run_worker(self._show_reply(turn, before, self._shown), group="reply")

    async def _show_reply(self, turn: Turn, before: asyncio.Event | None, shown: asyncio.Event) -> None:
        """Show a reply as it comes, after the one before it has been shown to its end.

        Events and not Textual's workers say when: waiting for a worker cancels it when the waiter is.
        """
        try:
            if before is not None:
                await before.wait()
            await self._view.reply(turn, lambda: self._painted(turn))
            self._refresh_status()
            self._warn_if_full(turn)
            self._composer.tell_draft()  # it may have been written while the reply came
        finally:
            shown.set()

    def _painted(self, turn: Turn) -> None:
        self._refresh_status()
        if turn.looping is not None:
            text = f"The reply repeats itself. {loop_keys(turn.looping)}"
            self._notice(f"loop {turn.message.id} {turn.looping.part}", text)

    async def _settle(self) -> None:
        """Stop the reply and wait until the screen shows its end."""
        await self.session.stop()
        if self._shown is not None:
            await self._shown.wait()

    @work(group="stop", exclusive=True)
    async def action_stop(self) -> None:
        """Esc: close the overlay, or stop the reply; the composer has the keyboard again."""
        self._composer.focus()
        if not self._is_wide and self._sidebar.display:
            self._sidebar_wanted = None
            self._place_sidebar()
            return
        await self.session.stop()

    async def action_answer_now(self) -> None:
        """Ctrl+G: while the model thinks, close its thinking and let the answer come."""
        await self.session.answer_now()

    @work(group="navigate", exclusive=True)
    async def action_regenerate(self) -> None:
        """Another reply to the last question; if there was no room for one, with room made."""
        await self._settle()
        if (turn := self.session.retry()) is None:
            return
        await self._view.drop_last_reply()
        self._follow(turn)

    # ------------------------------------------------------------------------------------ conversations

    @work(group="navigate", exclusive=True)
    async def action_new_conversation(self) -> None:
        """Begin anew; a reply in the making is stopped."""
        await self._settle()
        await self.session.new()
        await self._conversation_changed()

    @on(ConversationList.Opened)
    def _open(self, event: ConversationList.Opened) -> None:
        self.open_conversation(event.conversation_id)

    @work(group="navigate", exclusive=True)
    async def open_conversation(self, conversation_id: str) -> None:
        """Show a stored conversation and go on with it."""
        if conversation_id != self.session.conversation.id:
            await self._settle()
            try:
                await self.session.open(conversation_id)
            except LocalAIError as error:
                self._tell(error)
        await self._conversation_changed()

    @on(ConversationList.DeleteWanted)
    def _confirm_delete(self, event: ConversationList.DeleteWanted) -> None:
        self.delete_conversation(event.conversation_id, event.title)

    @work(group="navigate", exclusive=True)
    async def delete_conversation(self, conversation_id: str, title: str) -> None:
        """Ask, then delete for good."""
        question = ConfirmScreen(f"Delete “{title}”?", "Its messages are erased from the disk.", "Delete")
        if not await self.app.push_screen_wait(question):
            return
        is_open = conversation_id == self.session.conversation.id
        if is_open:
            await self._settle()
        try:
            await self.session.delete(conversation_id)
        except LocalAIError as error:
            self._tell(error)
        if is_open:
            await self._show_conversation()
        self._refresh_list()
        self._refresh_status()

    async def _conversation_changed(self) -> None:
        if not self._is_wide:
            self._sidebar_wanted = None
        self._place_sidebar()
        await self._show_conversation()
        self._refresh_list()
        self._refresh_status()
        self._composer.focus()

    async def _show_conversation(self) -> None:
        branch = self.session.conversation.branch()
        self._composer.prompts = [clean(m.content) for m in branch if m.role == "user"]
        await self._view.show(branch, Welcome(self.session.loader.entry))

    @on(Composer.Drafted)
    def _hand_over_draft(self, event: Composer.Drafted) -> None:
        self.session.draft(event.text)

    @on(Welcome.Picked)
    def _use_example(self, event: Welcome.Picked) -> None:
        self._composer.put(event.text)

    # --------------------------------------------------------------------------------------- the sidebar

    @property
    def _is_wide(self) -> bool:
        return self.size.width >= WIDE

    def _place_sidebar(self) -> None:
        wanted = self._is_wide if self._sidebar_wanted is None else self._sidebar_wanted
        self._sidebar.display = wanted

    def action_toggle_sidebar(self) -> None:
        """Show the conversations and go to them; from there, hide them."""
        if self._sidebar.display and self._sidebar.has_focus_within:
            self._sidebar_wanted = False
            self._composer.focus()
        else:
            self._sidebar_wanted = True
            self._refresh_list()
        self._place_sidebar()
        if self._sidebar.display:
            self._sidebar.focus_list()

    def _refresh_list(self) -> None:
        try:
            summaries = self.session.history.summaries()
        except LocalAIError as error:
            self._tell(error)
            return
        self._sidebar.show(summaries, self.session.conversation.id, self.session.now())

    # ----------------------------------------------------------------------------------------- the model

    @work(group="model", exclusive=True)
    async def action_choose_model(self) -> None:
        """Pick another model; the conversation goes on with it."""
        loader = self.session.loader
        current = loader.entry.name if loader.entry else ""
        try:
            picker = ModelPicker(self.session.models.entries(), current)
        except LocalAIError as error:
            self._tell(error)
            return
        name = await self.app.push_screen_wait(picker)
        if name is None or (name == current and loader.state == "ready"):
            return
        await self._settle()
        try:
            self.session.choose(name)
        except LocalAIError as error:
            self._tell(error)

    def _model_changed(self) -> None:
        loader = self.session.loader
        self._refresh_status()
        for welcome in self.query(Welcome):
            welcome.show(loader.entry)
        self._failure.show(loader.error)
        if loader.loaded is None:
            return
        for note in loader.loaded.notes:
            self._notice(f"note {note}", clean(note))
        if self.session.system and not loader.loaded.system_role:
            self._notice("system", SYSTEM_ROLE_NOTICE)
        if loader.state == "ready":
            self._composer.tell_draft()  # it may have been written while the model was loaded

    # -------------------------------------------------------------------------------------- small things

    def action_toggle_thinking(self) -> None:
        """Open or fold the last thoughts."""
        if (block := self._view.last_thinking()) is not None:
            block.toggle()

    def action_scroll_view(self, direction: int) -> None:
        """Scroll the conversation by a page, up for -1."""
        if direction < 0:
            self._view.action_page_up()
        else:
            self._view.action_page_down()

    def action_help(self) -> None:
        """Show the keys."""
        self.app.push_screen(HelpScreen())

    def _refresh_status(self) -> None:
        self._status.status = status_of(self.session)

    def _warn_if_full(self, turn: Turn) -> None:
        loaded = self.session.loader.loaded
        if loaded and turn.context_used > NEARLY_FULL * loaded.context:
            text = "The context is nearly full. Ctrl+N begins a new conversation."
            self._notice(f"context {self.session.conversation.id}", text)

    def _notice(self, key: str, text: str) -> None:
        if key not in self._noticed:
            self._noticed.add(key)
            self.notify(text, severity="warning", timeout=10, markup=False)

    def _tell(self, error: LocalAIError) -> None:
        self.notify(clean(str(error)), severity="error", timeout=12, markup=False)
