"""What a user does with a message: select, edit, try again, copy, walk its branches."""

from __future__ import annotations

from collections.abc import Sequence

from textual import work

from localai.chat.clean import clean
from localai.chat.conversation import Attachment, Message
from localai.errors import LocalAIError
from tui.clipboard import as_markdown, code_blocks
from tui.outcome import Remedy
from tui.preferences import Preferences
from tui.screens.parts import ChatParts
from tui.session import Session
from tui.turn import Turn


class MessageActions(ChatParts):
    """The part of the chat's screen that works on single messages.

    Nothing is lost: an edit and another reply are branches beside the old ones, and a reply in the making is
    stopped and kept first. Who is on the way to another conversation has left the messages of this one: there
    is then nothing to do with them.
    """

    def __init__(self, session: Session, preferences: Preferences) -> None:
        super().__init__(session, preferences)
        self._copied: tuple[str, int] = ("", -1)
        """The message and the number of the code block that was copied last."""

    async def action_select_message(self, step: int) -> None:
        """Go from message to message; below the last one is the composer."""
        if not await self._view.select(step):
            self._composer.focus()

    def _selected(self, role: str = "") -> Message | None:
        """The selected message, or a reply's question, a question's reply; if none is, the last one."""
        branch = self.session.conversation.branch()
        if (widget := self._view.selected) is None:
            found = [m for m in branch if role in ("", m.role)]
            return found[-1] if found else None
        chosen = widget.message
        if role in ("", chosen.role):
            return chosen
        if role == "user":
            return next((m for m in branch if m.id == chosen.parent), None)
        return next((m for m in branch if m.parent == chosen.id), None)

    # ---------------------------------------------------------------------------------------------- edit

    def action_edit_message(self) -> None:
        """Bring the selected or the last question into the composer; sending it makes a branch."""
        if (message := self._selected("user")) is not None:
            self.edit(message)

    def edit(self, message: Message) -> None:
        """Bring a question into the composer; sending it makes a branch."""
        if self._going:
            return
        if self._edit_notice.message_id is None:
            self._set_aside = self._composer.draft
        self._edit_notice.show(message.id)
        self._composer.restore(message.content, message.attachments)
        self._composer.focus()

    def _end_edit(self) -> None:
        """Go back to what was being written before."""
        self._edit_notice.show(None)
        self._composer.restore(*self._set_aside)
        self._set_aside = ("", ())

    async def _send_edited(
        self, message_id: str, text: str, attachments: Sequence[Attachment]
    ) -> Turn | None:
        """Begin the reply to an edited question; None, and the user knows why, if it cannot."""
        await self._settle()
        try:
            turn = self.session.edit(message_id, text, attachments)
        except LocalAIError as error:
            self._tell(error)
            return None
        await self._view.change(self.session.conversation.branch()[:-1])
        self._view.anchor()
        return turn

    # ------------------------------------------------------------------------------------- another reply

    def action_try_again(self) -> None:
        """Another reply in place of the selected one."""
        message = self._selected("assistant")
        self.try_again(message.id if message is not None and self._view.selected is not None else None)

    def action_regenerate(self) -> None:
        """Another reply to the last question; if there was no room for one, with room made."""
        self.try_again()

    def try_again(self, message_id: str | None = None, offer: Remedy | None = None) -> None:
        """Another reply beside that one, by default the last; `offer`: see `Session.retry`."""
        if not self._going:
            self._try_again(message_id, offer)

    @work(group="navigate", exclusive=True)
    async def _try_again(self, message_id: str | None, offer: Remedy | None) -> None:
        await self._settle()
        selected = self._view.selected is not None
        try:
            turn = self.session.retry(message_id, offer)
        except LocalAIError as error:
            self._tell(error)
            return
        if turn is None:
            return
        await self._view.change(self.session.conversation.branch()[:-1])
        self._view.anchor()
        if selected:
            self._composer.focus()  # the selected message may be gone
        self._follow(turn)

    def action_go_on(self) -> None:
        """Let a reply that was stopped or cut go on, in a branch beside it."""
        if not self._going:
            self._go_on()

    @work(group="navigate", exclusive=True)
    async def _go_on(self) -> None:
        selected = self._view.selected
        await self._settle()
        try:
            turn = self.session.go_on(selected.message.id if selected is not None else None)
        except LocalAIError as error:
            self._tell(error)
            return
        if turn is None:
            self._say("That reply had come to its end.")
            return
        await self._view.change(self.session.conversation.branch()[:-1])
        self._view.anchor()
        if selected is not None:
            self._composer.focus()  # the selected message is gone
        self._follow(turn)

    # ------------------------------------------------------------------------------------------ branches

    def action_branch(self, step: int) -> None:
        """Show the branch beside the selected message; without one, beside the last that has some."""
        if not self._going:
            self._walk(step)

    @work(group="navigate", exclusive=True)
    async def _walk(self, step: int) -> None:
        message = self._view.selected.message if self._view.selected else self._last_with_branches()
        if message is None or not await self._has_branch(message, step):
            return
        selected = self._view.selected is not None
        await self._settle()
        try:
            shown = await self.session.walk(message.id, step)
        except LocalAIError as error:
            self._tell(error)
            return
        if shown is None:
            return
        self._view.anchor(False)
        await self._view.change(self.session.conversation.branch())
        self._remember_prompts()
        self._refresh_status()
        for widget in self._view.messages:
            if selected and widget.message.id == shown.id:
                widget.focus()

    async def _has_branch(self, message: Message, step: int) -> bool:
        at, of = self.session.place_of(message)
        return 1 <= at + step <= of

    def _last_with_branches(self) -> Message | None:
        branch = self.session.conversation.branch()
        found = [m for m in branch if self.session.place_of(m)[1] > 1]
        return found[-1] if found else None

    # ---------------------------------------------------------------------------------------------- copy

    def action_copy_message(self) -> None:
        """Copy the selected message, or the last reply."""
        message = self._view.selected.message if self._view.selected else self._selected("assistant")
        if message is None or not message.content.strip():
            self._say("There is nothing to copy.")
            return
        self.app.copy_to_clipboard(clean(message.content).strip())
        self._say("The reply is copied." if message.role == "assistant" else "The message is copied.")

    def action_copy_code(self) -> None:
        """Copy a block of code of the selected message or the last reply: the first, then the next ones."""
        message = self._view.selected.message if self._view.selected else self._selected("assistant")
        blocks = code_blocks(message.content) if message is not None else []
        if message is None or not blocks:
            self._say("There is no code to copy.")
            return
        last_of, last = self._copied
        number = (last + 1) % len(blocks) if last_of == message.id else 0
        self._copied = (message.id, number)
        self.app.copy_to_clipboard(blocks[number])
        again = f" B again copies the next of {len(blocks)}." if len(blocks) > 1 else ""
        first = " ".join(blocks[number].split("\n", 1)[0].split())[:40]
        self._say(f"Code block {number + 1} is copied: {first}{again and ' ·'}{again}")

    def action_copy_conversation(self) -> None:
        """Copy the shown branch as Markdown."""
        if not self.session.conversation.messages:
            self._say("There is nothing to copy.")
            return
        self.app.copy_to_clipboard(as_markdown(self.session.conversation))
        self._say("The conversation is copied as Markdown.")

    # ------------------------------------------------------------------------------------------ thoughts

    def action_toggle_thinking(self) -> None:
        """Open or fold the thoughts of the selected reply, or the last ones."""
        if (block := self._view.last_thinking()) is not None:
            block.toggle()

    def action_scroll_view(self, direction: int) -> None:
        """Scroll the conversation by a page, up for -1."""
        if direction < 0:
            self._view.action_page_up()
        else:
            self._view.action_page_down()
