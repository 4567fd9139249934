"""The application around the screens: what it says when something fails that nobody waits for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from chat_fakes import NANO, FakeEngine, FakeShelf
from conftest import wait_until

from localai.chat.conversation import Conversation, Message
from localai.errors import HistoryError, StoreError
from localai.history import History
from tui.app import ChatApp
from tui.jobs import Job, Jobs
from tui.shelf import ModelEntry
from tui.theme import LIGHT

MakeApp = Callable[..., ChatApp]
SAID = "The disk of [31mred is full. Free some space"


class FullHistory(History):
    """Nothing more can be written to it."""

    def save(self, conversation: Conversation, **more: float) -> None:
        raise HistoryError("The disk of \x1b[31mred is full", "Free some space")

    def set_setting(self, name: str, value: str | None) -> None:
        raise HistoryError("The disk of \x1b[31mred is full", "Free some space")


class QuickJobs(Jobs):
    """What is fetched is here at once, as what the test says."""

    def __init__(self, state: str, error: str = "") -> None:
        super().__init__()
        self.state, self.error = state, error

    def pull(self, name: str) -> None:
        self.start(EndedJob(name, self.state, self.error))


class EndedJob(Job):
    def __init__(self, name: str, state: str, error: str) -> None:
        super().__init__(name, "fetching", [])
        self.will = (state, error)

    async def run(self) -> None:
        self.state, self.error = self.will


@pytest.fixture
def history(tmp_path: Path):
    with FullHistory(tmp_path / "conversations.sqlite") as opened:
        yield opened


def told(app: ChatApp) -> list[tuple[str, str]]:
    return [(notification.severity, notification.message) for notification in app._notifications]


async def test_a_model_comes_while_nothing_can_be_stored(make_app: MakeApp, shelf: FakeShelf):
    jobs = QuickJobs("done")
    async with make_app(model=None, jobs=jobs).run_test() as pilot:
        app = pilot.app
        app.session.conversation.append(Message(parent=None, role="user", content="first"))
        jobs.pull(NANO.name)
        await wait_until(pilot, lambda: app.session.loader.state == "ready")
        assert app.session.loader.entry == NANO
        assert told(app) == [("information", "r1-nano is here, and loads."), ("error", SAID)]


async def test_why_a_model_does_not_come(make_app: MakeApp):
    jobs = QuickJobs("failed", "It is \x1b[31mfull.")
    async with make_app(jobs=jobs).run_test() as pilot:
        jobs.pull(NANO.name)
        await wait_until(pilot, lambda: told(pilot.app))
        assert told(pilot.app) == [("error", "r1-nano: It is [31mfull.")]


async def test_a_theme_that_cannot_be_stored(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        pilot.app.action_toggle_dark()
        await wait_until(pilot, lambda: told(pilot.app))
        assert (pilot.app.theme, told(pilot.app)) == (LIGHT, [("error", SAID)])


class DamagedShelf(FakeShelf):
    """Its folder cannot be read."""

    def entries(self) -> Sequence[ModelEntry]:
        raise StoreError("The folder \x1b[31mred cannot be read", "See its rights")


async def test_a_store_that_cannot_be_read(engine: FakeEngine):
    async with ChatApp(engine, History(memory=True), DamagedShelf(), model=None).run_test() as pilot:
        await wait_until(pilot, lambda: told(pilot.app))
        assert told(pilot.app) == [("error", "The folder [31mred cannot be read. See its rights")]
