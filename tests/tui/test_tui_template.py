"""A model that brings a template which nobody has read: it is shown, and runs once the user says so."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from chat_fakes import NANO, FakeEngine, FakeShelf
from conftest import wait_until
from textual.pilot import Pilot
from textual.widgets import Button, Static

from localai.errors import LoadError, StoreError, UnsupportedModel
from tui.app import ChatApp
from tui.screens.chat import ChatScreen
from tui.screens.template import TemplateScreen
from tui.widgets.load_failure import LoadFailure

MakeApp = Callable[..., ChatApp]
TEMPLATE = "{% for m in messages %}\x1b[2J{{ m.content }}\n" + "line\n" * 60
REFUSED = UnsupportedModel("It brings its own chat template, which nobody here has read", "See it: show")


@pytest.fixture
def app(make_app: MakeApp, engine: FakeEngine, shelf: FakeShelf) -> ChatApp:
    shelf.template = TEMPLATE
    engine.will_load = [REFUSED]
    return make_app()


async def asked(pilot: Pilot[None]) -> TemplateScreen:
    await wait_until(
        pilot, lambda: isinstance(pilot.app.screen, TemplateScreen) and pilot.app.screen.is_mounted
    )
    screen = pilot.app.screen
    assert isinstance(screen, TemplateScreen)
    return screen


async def back(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, ChatScreen))


def failure(app: ChatApp) -> str:
    line = app.screen_stack[0].query_one(LoadFailure)
    return str(line.visual) if line.display else ""


async def test_it_is_shown_and_accepted(app: ChatApp, engine: FakeEngine, shelf: FakeShelf) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        screen = await asked(pilot)
        shown = "\n".join(str(static.visual) for static in screen.query(Static))
        assert "deepseek-r1:7b brings its own chat template" in shown
        assert "{% for m in messages %}\\u001b[2J{{ m.content }}" in shown
        assert "\x1b" not in shown
        await pilot.press("enter", "pagedown")
        await wait_until(pilot, lambda: screen.query_one(".template").scroll_y)
        assert shelf.accepted == []
        await pilot.press("y")
        await wait_until(pilot, lambda: app.session.loader.state == "ready")
        assert shelf.accepted == [TEMPLATE]
        assert engine.calls.count("load") == 2
        assert failure(app) == ""


@pytest.mark.parametrize("key", ["escape", "n"])
async def test_it_may_be_left(app: ChatApp, engine: FakeEngine, shelf: FakeShelf, key: str) -> None:
    async with app.run_test(size=(80, 24)) as pilot:
        await asked(pilot)
        await pilot.press(key)
        await back(pilot)
        assert "nobody here has read. See it: show" in failure(app)
        assert (shelf.accepted, engine.calls) == ([], ["load"])


async def test_who_asks_something_is_asked_again(app: ChatApp, engine: FakeEngine, shelf: FakeShelf) -> None:
    engine.will_load.append(REFUSED)
    async with app.run_test(size=(80, 24)) as pilot:
        await asked(pilot)
        await pilot.press("escape")
        await back(pilot)
        await pilot.press(*"hi", "enter")
        screen = await asked(pilot)
        screen.query_one("#yes", Button).press()
        await wait_until(pilot, lambda: app.session.loader.state == "ready")
        assert shelf.accepted == [TEMPLATE]


async def test_a_model_that_fails_for_another_reason_is_not_asked_about(
    app: ChatApp, engine: FakeEngine, shelf: FakeShelf
) -> None:
    shelf.accepted = [TEMPLATE]
    engine.will_load = [REFUSED, LoadError("Not enough memory")]
    async with app.run_test(size=(80, 24)) as pilot:
        await wait_until(pilot, lambda: "nobody here has read" in failure(app))
        await wait_until(pilot, lambda: all(w.is_finished for w in app.workers if w.group == "template"))
        app.session.choose(NANO.name)
        await wait_until(pilot, lambda: "Not enough memory" in failure(app))
        assert isinstance(app.screen, ChatScreen)


async def test_an_answer_that_cannot_be_kept_is_said(app: ChatApp, shelf: FakeShelf) -> None:
    shelf.will_change = StoreError("The folder cannot be written", "Check its rights")
    async with app.run_test(size=(80, 24)) as pilot:
        await asked(pilot)
        await pilot.press("y")
        await back(pilot)
        told = "The folder cannot be written. Check its rights"
        await wait_until(pilot, lambda: told in [one.message for one in app._notifications])
        assert "nobody here has read" in failure(app)


def test_how_it_looks(snap_compare, app: ChatApp) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await asked(pilot)

    assert snap_compare(app, terminal_size=(80, 24), run_before=script)
