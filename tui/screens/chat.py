"""The chat: the keys, the layout, and a message from the composer to the reply."""

from __future__ import annotations

from typing import ClassVar, Final

from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import Center, Horizontal, Vertical

from localai.errors import LocalAIError
from tui.screens.choices import ChoiceActions
from tui.screens.conversations import ConversationActions
from tui.screens.parts import WIDE
from tui.turn import Turn
from tui.widgets.composer import Composer
from tui.widgets.welcome import Welcome

TALL: Final = 12
"""Rows from which on the composer has a border and room for more than a line."""


class ChatScreen(ConversationActions, ChoiceActions):
    """Conversations at the left, the conversation above the composer, the status below all."""

    AUTO_FOCUS = "Composer"
    HORIZONTAL_BREAKPOINTS = [(0, "-narrow"), (WIDE, "-wide")]  # noqa: RUF012 - as Textual declares it
    VERTICAL_BREAKPOINTS = [(0, "-short"), (TALL, "-tall")]  # noqa: RUF012 - as Textual declares it
    BINDINGS: ClassVar[list[BindingType]] = [
        Binding("escape", "stop", "Stop the reply"),
        Binding("ctrl+n", "new_conversation", "New conversation"),
        Binding("ctrl+o", "choose_model", "Models"),
        Binding("ctrl+b", "toggle_sidebar", "Conversations", priority=True),
        Binding("ctrl+f", "search_conversations", "Search", priority=True),
        Binding("ctrl+t", "toggle_thinking", "Open or fold the thoughts"),
        Binding("ctrl+g", "answer_now", "Answer now"),
        Binding("ctrl+r", "regenerate", "Try again"),
        Binding("ctrl+up,alt+up", "select_message(-1)", "Select a message"),
        Binding("ctrl+z", "undo_delete", "Bring back what was deleted", priority=True),
        Binding("f2", "settings", "Settings"),
        Binding("f3", "conversation_settings", "This conversation"),
        Binding("f5", "context", "Context"),
        Binding("f6", "about", "About", priority=True),
        Binding("f7", "incognito", "Incognito", priority=True),
        Binding("f1,question_mark", "help", "Keys"),
    ]

    def compose(self) -> ComposeResult:
        with Horizontal(id="body"):
            yield self._sidebar
            with Vertical(id="main"):
                yield self._view
                with Center(id="dock"):
                    yield self._failure
                    yield self._edit_notice
                    yield self._composer
        yield self._status

    async def on_mount(self) -> None:
        self.session.loader.on_change = self._model_changed
        self.session.on_unstored = self._tell
        self._apply_preferences()
        self._composer.memory_only = self.session.history.in_memory
        await self._show_conversation()
        self._refresh_list()
        self._model_changed()  # it may have failed before there was a screen to say so
        self.restore_draft()

    def _apply_preferences(self) -> None:
        super()._apply_preferences()
        self.delete_old()

    def on_resize(self) -> None:
        self._place_sidebar()

    def check_action(self, action: str, parameters: tuple[object, ...]) -> bool | None:
        """Ctrl+Z is the composer's own as long as there is nothing to bring back."""
        return action != "undo_delete" or self._can_undo

    # ----------------------------------------------------------------------------------------- a message

    @on(Composer.Submitted)
    async def _send(self, event: Composer.Submitted) -> None:
        if self._going:
            self._composer.refused()
            self._say("The conversation is not open yet: press Enter again in a moment.")
            return
        edited, before = self._edit_notice.message_id, self.session.conversation.messages
        draft_key = self.draft_key
        if edited is not None and edited in before:
            turn = await self._send_edited(edited, event.text, event.attachments)
        else:
            turn = self._ask(event)
        if turn is None:
            self._composer.refused()
            return
        self._composer.sent()
        if edited is None:
            self._put_draft(draft_key, "")  # the conversation may have become a stored one
        if edited is not None:
            self._end_edit()
        else:
            await self._view.ask(self.session.conversation.messages[turn.message.parent or ""])
        self._refresh_list()
        self._follow(turn)

    def _ask(self, event: Composer.Submitted) -> Turn | None:
        """The reply that begins; None, and the user knows why, if it cannot."""
        if self.session.busy:
            self.notify("The reply is still coming: Esc stops it.", markup=False)
        elif self.session.loader.state == "none":
            self.action_choose_model()
        else:
            try:
                return self.session.ask(event.text, event.attachments)
            except LocalAIError as error:
                self._tell(error)
        return None

    @on(Composer.Drafted)
    def _hand_over_draft(self, event: Composer.Drafted) -> None:
        if self._edit_notice.message_id is None:
            self.session.draft(event.text, event.attachments)

    @on(Composer.Problem)
    def _tell_problem(self, event: Composer.Problem) -> None:
        self.notify(event.text, severity="error", timeout=12, markup=False)

    @on(Welcome.Picked)
    def _use_example(self, event: Welcome.Picked) -> None:
        self._composer.put(event.text)

    @work(group="stop", exclusive=True)
    async def action_stop(self) -> None:
        """Esc, one step at a time: from elsewhere back to the composer, out of an edit, stop the reply."""
        if self._sidebar.has_focus_within and self._sidebar.leave():
            return
        composing = self._composer.has_focus
        self._composer.focus()
        if not self._is_wide and self._sidebar.display:
            self._sidebar_wanted = None
            self._place_sidebar()
        elif self._view.selected is not None and not composing:
            return
        elif self._edit_notice.message_id is not None:
            self._end_edit()
        else:
            await self.session.stop()

    async def action_answer_now(self) -> None:
        """Ctrl+G: while the model thinks, close its thinking and let the answer come."""
        await self.session.answer_now()

    def action_about(self) -> None:
        """Tell what the program, its engine and the model are."""
        from tui.screens.about import AboutScreen

        self.app.push_screen(AboutScreen(self.session))

    def action_help(self) -> None:
        """Show the keys."""
        from tui.screens.help import HelpScreen

        self.app.push_screen(HelpScreen(self.preferences.send_key))
