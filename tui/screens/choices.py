"""What a user chooses for the chat: its model, its settings, and what to do where there is no room.

The screens that ask are read when they are asked for: the chat starts sooner without them.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Final

import msgspec
from textual import on, work

from localai.chat.budget import DropOldest, Enlarge, Offer, Shorten, StartAnew
from localai.chat.clean import clean_line
from localai.chat.conversation import Attachment, prompt_of
from localai.errors import LocalAIError, UnsupportedModel
from tui.preferences import THINKING_MODES
from tui.screens.messages import MessageActions
from tui.turn import Turn
from tui.widgets.composer import Composer
from tui.widgets.welcome import Welcome

if TYPE_CHECKING:
    from tui.jobs import Jobs

SYSTEM_ROLE_NOTICE: Final = (
    "This model has no system role: your system prompt is put at the start of your first message."
)


class ChoiceActions(MessageActions):
    """The part of the chat's screen that works on the model and the settings."""

    jobs: Jobs
    """What goes on beside the conversation. The application has them, and sets this."""

    def action_settings(self) -> None:
        """Show the settings of the program."""
        from tui.screens.settings import SettingsScreen

        self.app.push_screen(SettingsScreen(self.preferences, self._apply_preferences))

    def action_thinking_mode(self) -> None:
        """Show thoughts the next way: folded, hidden, always open."""
        from tui.screens.settings import THINKING_WORDS

        modes = THINKING_MODES
        try:
            self.preferences.set_thinking(modes[(modes.index(self.preferences.thinking) + 1) % len(modes)])
        except LocalAIError as error:
            self._tell(error)
        self._apply_preferences()
        self._say(f"Thinking: {THINKING_WORDS[self.preferences.thinking]}")

    def _apply_preferences(self) -> None:
        self._view.show_thoughts(self.preferences.thinking)
        self._composer.send_on = self.preferences.send_key

    @work(group="settings", exclusive=True)
    async def action_conversation_settings(self) -> None:
        """Set this conversation's system prompt and sampling; it holds from the next reply on."""
        from tui.screens.conversation_settings import ConversationSettings

        session = self.session
        conversation, loaded = session.conversation, session.loader.loaded
        usual = msgspec.structs.asdict(loaded.sampling) if loaded is not None else {}
        screen = ConversationSettings(session.history, conversation.system, conversation.settings, usual)
        setup = await self.app.push_screen_wait(screen)
        if setup is None or conversation is not session.conversation:
            return
        try:
            session.set_up(*setup)
        except LocalAIError as error:
            self._tell(error)
            return
        self._say("Set from the next reply on.")
        self._notice_system_role()

    # -------------------------------------------------------------------------------------- the context

    @work(group="context", exclusive=True)
    async def action_context(self) -> None:
        """Show what the context is spent on."""
        from tui.screens.context import ContextScreen

        try:
            shares = await self.session.shares()
        except LocalAIError as error:
            self._tell(error)
            return
        if shares is None:
            self._say("There is no context before a model is loaded.")
            return
        replies = [m for m in self.session.conversation.branch() if m.role == "assistant"]
        await self.app.push_screen(ContextScreen(shares, replies[-1].tokens_per_s if replies else 0.0))

    @on(Composer.DraftChanged)
    def _count_draft(self, event: Composer.DraftChanged) -> None:
        if event.text or event.attachments:
            self._show_cost(event.text, event.attachments)

    @work(group="cost", exclusive=True)
    async def _show_cost(self, text: str, attachments: tuple[Attachment, ...]) -> None:
        try:
            cost = await self.session.draft_cost(text, attachments, self._edit_notice.message_id or "")
        except LocalAIError:
            return  # who sends it will be told
        if cost is not None:
            self._composer.show_cost(cost.tokens, cost.room, cost.files)

    def _reply_shown(self, turn: Turn) -> None:
        super()._reply_shown(turn)
        overflow = turn.overflow
        # Who is typing already must not choose by accident: Ctrl+R and the line at the reply are left.
        if overflow and overflow.offers and self.is_current and not self._composer.text:
            from tui.screens.overflow import OverflowScreen

            screen = OverflowScreen(overflow, turn.prompt)
            self.app.push_screen(screen, lambda offer: self._make_room(turn, offer))

    def _make_room(self, turn: Turn, offer: Offer | None) -> None:
        if offer is None or turn is not self.session.turn or self._going:
            return
        match offer:
            case StartAnew():
                self._begin_anew(turn)
            case Shorten(message=index):
                self._shorten(turn.prompt[index].content)
            case DropOldest() | Enlarge():
                self.try_again(offer=offer)

    def _shorten(self, content: str) -> None:
        for message in reversed(self.session.conversation.branch()):
            if message.role == "user" and prompt_of(message.content, message.attachments) in content:
                self.edit(message)
                return
        self.action_conversation_settings()  # it is the system prompt

    @work(group="navigate", exclusive=True)
    async def _begin_anew(self, turn: Turn) -> None:
        self._say("The model summarizes the conversation…")
        try:
            work = asyncio.create_task(self.session.begin_anew(turn))
            await asyncio.sleep(0)
            self._refresh_status()
            begun = await work
        except LocalAIError as error:
            self._tell(error)
            begun = None
        self._refresh_status()
        if begun is None:
            return
        await self._view.show(self.session.conversation.branch()[:-1])
        self._remember_prompts()
        self._refresh_list()
        self._follow(begun)

    # ---------------------------------------------------------------------------------------- the model

    @work(group="model", exclusive=True)
    async def action_choose_model(self) -> None:
        """Show the models. The conversation goes on with the one that is chosen, if one is."""
        from tui.screens.models import ModelsScreen

        loader = self.session.loader
        screen = ModelsScreen(
            self.session.models,
            self.jobs,
            in_use=lambda: loader.entry.name if loader.entry else "",
            given_back=loader.loaded.context * loader.loaded.kv_bytes_per_token if loader.loaded else 0,
            gpu=loader.loaded is not None and loader.loaded.gpu_layers > 0,
            now=self.session.now,
        )
        name = await self.app.push_screen_wait(screen)
        current = loader.entry.name if loader.entry else ""
        if name is None or (name == current and loader.state in ("loading", "ready")):
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
        if isinstance(loader.error, UnsupportedModel):
            self._show_template(loader.error)
        if loader.loaded is None:
            return
        for note in loader.loaded.notes:
            self._notice(f"note {note}", clean_line(note))
        self._notice_system_role()
        if loader.state == "ready":
            self._composer.tell_draft()  # it may have been written while the model was loaded

    @work(group="template", exclusive=True)
    async def _show_template(self, error: UnsupportedModel) -> None:
        """If a model did not load because nobody has read its template: show it, and ask."""
        from tui.screens.template import TemplateScreen

        loader, models = self.session.loader, self.session.models
        try:
            template = await asyncio.to_thread(models.unread_template, loader.name)
            if not template or loader.error is not error or not self.is_current:
                return  # the line above the composer says what can be done
            screen = TemplateScreen(loader.entry.name if loader.entry else loader.name, template)
            if await self.app.push_screen_wait(screen) and loader.error is error:
                await asyncio.to_thread(models.accept_template, template)
                loader.start(loader.name)
        except LocalAIError as problem:
            self._tell(problem)

    def _notice_system_role(self) -> None:
        loaded = self.session.loader.loaded
        if loaded is not None and self.session.conversation.system and not loaded.system_role:
            self._notice("system", SYSTEM_ROLE_NOTICE)
