"""The first run: which model, and how the conversations are protected; then the chat can begin.

A model that is not there is fetched while the second question is answered. Nothing is made before all is
answered but the model that the user chose.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from typing import ClassVar, Final

import msgspec
from textual import on, work
from textual.app import ComposeResult
from textual.binding import Binding, BindingType
from textual.containers import VerticalScroll
from textual.content import Content
from textual.screen import Screen
from textual.widgets import Static

from localai.chat.clean import clean_line
from localai.errors import LocalAIError
from models.recommend import Recommendation
from tui.fitting import Fit
from tui.format import gauge, left, size
from tui.jobs import Job
from tui.model_entry import ModelEntry
from tui.widgets.model_question import ModelQuestion
from tui.widgets.protection_question import Choice, ProtectionQuestion

PROMISE: Final = "A private chat: model and words stay on this machine."
_BAR: Final = 12
"""Cells."""


class Questions(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be asked."""

    models: Sequence[ModelEntry] = ()
    """To choose from; none: a model is there."""
    fits: Mapping[str, Fit] = {}
    """Whether they fit this machine, by their names, as far as that is known."""
    recommended: Recommendation | None = None
    protection: bool = True
    """Whether it is open how the conversations are protected."""
    keyring_problem: str = ""
    """Why there is no keyring; empty if there is one."""
    least_letters: int = 8
    """Of a passphrase."""
    may_be_plain: bool = True
    """Whether the conversations need not be encrypted."""
    note: str = ""
    """What the organization forbids, in a sentence; empty: nothing that concerns the questions."""


class Begun(msgspec.Struct, frozen=True, kw_only=True):
    """What the user chose; None for what was not asked."""

    model: str | None = None
    """It is installed."""
    choice: Choice | None = None
    key: bytes | None = None
    """Of the conversations, where they are encrypted."""


Protect = Callable[[Choice, str], bytes | None]
"""Makes the key for a choice and its passphrase, and keeps it; raises from the error tree."""


class FirstRunScreen(Screen[Begun]):
    """Two pages. Calls `on_end` with what was chosen, or with None to end the program."""

    DEFAULT_CSS = """
    FirstRunScreen {
        .state { color: $text-muted; margin: 0 0 1 0; height: auto; }
        .state.-wrong { color: $text-error; }
    }
    """
    BINDINGS: ClassVar[list[BindingType]] = [Binding("escape", "back", "Back", show=False)]

    def __init__(
        self,
        questions: Questions,
        pull: Callable[[str], Job],
        protect: Protect,
        on_end: Callable[[Begun | None], None],
    ) -> None:
        super().__init__(classes="modal")
        self._questions = questions
        self._pull, self._protect, self._on_end = pull, protect, on_end
        self._model = ModelQuestion(questions.models, questions.fits, questions.recommended)
        self._protection = ProtectionQuestion(
            questions.keyring_problem, questions.least_letters, plain=questions.may_be_plain
        )
        self._box = VerticalScroll(classes="box", can_focus=False)
        self._title = Static(markup=False, classes="title")
        self._state = Static(markup=False, classes="state")
        self._job: Job | None = None
        self._chosen: Choice | None = None
        self._passphrase = ""
        self._waiting = self._ending = False
        """All is answered: for the model, for the key."""

    def compose(self) -> ComposeResult:
        with self._box as box:
            box.border_title = "localai"
            yield Static(PROMISE, markup=False, classes="text")
            if self._questions.note:
                yield Static(Content(clean_line(self._questions.note)), classes="text")
            yield self._title
            yield Static(markup=False)
            yield self._model
            yield self._protection
            yield self._state

    def on_mount(self) -> None:
        if self._questions.models:
            self._ask_model()
        else:
            self._ask_protection()

    async def stop(self) -> None:
        """End a model that is on its way, as the program ends."""
        if self._job is not None:
            await self._job.stop()

    # ---------------------------------------------------------------------------------------- the pages

    def _ask_model(self) -> None:
        self._waiting = False
        self._show(self._model, 1, "Choose a model", "Enter chooses · Esc quits")
        self._model.take_focus()

    def _ask_protection(self) -> None:
        self._waiting = False
        last = "goes back" if self._questions.models else "quits"
        self._show(self._protection, 2, "Protect your conversations", f"Enter chooses · Esc {last}")
        self._protection.take_focus()

    def _wait(self) -> None:
        self._waiting = True
        self._show(None, 0, "The chat opens when the model is there", "Esc stops it and goes back")

    def _show(
        self, page: ModelQuestion | ProtectionQuestion | None, number: int, title: str, keys: str
    ) -> None:
        both = self._questions.models and self._questions.protection
        self._title.update(Content(f"{number} of 2  {title}" if both and not self._waiting else title))
        self._box.border_subtitle = keys
        for other in (self._model, self._protection):
            other.disabled = False
            other.display = other is page
        self._tell_state()

    def action_back(self) -> None:
        """One page back; from the first, end the program."""
        if self._ending:
            return
        if self._waiting:
            self._stop_waiting()
        elif self._questions.models and self._protection.display:
            self._ask_model()
        else:
            self._on_end(None)

    @work(group="fetch", exclusive=True)
    async def _stop_waiting(self) -> None:
        self._chosen = None  # who goes back may answer all anew
        await self.stop()
        self._ask_model()

    # -------------------------------------------------------------------------------------- the answers

    @on(ModelQuestion.Chosen)
    def _model_chosen(self, event: ModelQuestion.Chosen) -> None:
        job = self._job
        if job is None or job.name != event.model or job.state in ("failed", "stopped"):
            self._fetch(event.model)
        if self._questions.protection and self._chosen is None:
            self._ask_protection()
        else:
            self._go_on()

    @on(ProtectionQuestion.Chosen)
    def _protection_chosen(self, event: ProtectionQuestion.Chosen) -> None:
        self._chosen, self._passphrase = event.choice, event.passphrase
        self._go_on()

    def _go_on(self) -> None:
        job = self._job
        if job is None or job.state == "done":
            self._end()
        elif job.state == "running":
            self._wait()
        else:
            self._ask_model()

    @work(group="end", exclusive=True)
    async def _end(self) -> None:
        """Make the key, which takes a moment, and give what was chosen."""
        self._ending, self._waiting = True, False
        key, choice = None, self._chosen
        if choice is not None:
            self._protection.disabled = True
            try:
                key = await asyncio.to_thread(self._protect, choice, self._passphrase)
            except LocalAIError as error:
                self._ending, self._chosen = False, None
                self._ask_protection()
                self._protection.tell(str(error))
                return
        self._on_end(Begun(model=self._job.name if self._job else None, choice=choice, key=key))

    # ---------------------------------------------------------------------------------------- the model

    def _fetch(self, name: str) -> None:
        before, self._job = self._job, self._pull(name)
        self._job.on_change = self._job_changed
        self._work(self._job, before)
        self._tell_state()

    @work(group="job")
    async def _work(self, job: Job, before: Job | None) -> None:
        if before is not None:
            before.on_change = lambda: None
            await before.stop()
        await job.run()

    def _job_changed(self) -> None:
        if not self.is_mounted or self._job is None:
            return
        self._tell_state()
        if self._waiting and self._job.state != "running":
            self._go_on()

    def _tell_state(self) -> None:
        job = self._job
        text = "" if job is None else clean_line(self._state_of(job))
        failed = job is not None and job.state == "failed"
        self._state.set_class(failed, "-wrong")
        self._state.display = bool(text)
        self._state.update(Content(text))
        if failed:
            self.call_after_refresh(self._state.scroll_visible, animate=False)

    def _state_of(self, job: Job) -> str:
        match job.state:
            case "done":
                return f"✓ {job.name} is there."
            case "failed":
                other = "" if self._model.display else " Esc: choose another model."
                return f"✗ {job.name} could not be fetched. {job.error.rstrip('.')}.{other}"
            case "stopped":
                return f"{job.name} was stopped."
        bar = f" {gauge(job.done / job.total, _BAR)}" if job.total else ""
        share = f" {size(job.done)} of {size(job.total)}" if job.total else ""
        speed = f", {size(job.rate)}/s" if job.rate else ""
        rest = f", {left(job.left_s)} left" if job.left_s >= 1 else ""
        return f"{job.name}: {job.stage.lower() or 'starting'}{bar}{share}{speed}{rest}"
