"""Keys that were pressed faster than a screen closes."""

from __future__ import annotations

from collections.abc import Callable

from chat_fakes import FakeEngine, answer, done, overflow
from conftest import wait_until
from textual import events
from textual.app import App

from localai.chat.budget import DropOldest
from tui.app import ChatApp
from tui.screens.chat import ChatScreen
from tui.screens.modal import Modal
from tui.screens.overflow import OverflowScreen
from tui.screens.question import QuestionScreen
from tui.widgets.composer import Composer

MakeApp = Callable[..., ChatApp]


async def test_a_choice_is_taken_once(make_app: MakeApp, engine: FakeEngine) -> None:
    engine.script(answer("1"), done())
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
        pilot.app.query_one(Composer).put("one")
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(engine.prompts) == 1 and not pilot.app.session.busy)
        engine.script(overflow(DropOldest((0, 1), 40)))
        pilot.app.query_one(Composer).put("two")
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, OverflowScreen))
        await pilot.pause()
        engine.script(answer("2"), done())
        for _ in range(3):  # at once, as a terminal sends what was pressed while the program was busy
            pilot.app.post_message(events.Key("enter", None))
        await wait_until(pilot, lambda: len(engine.prompts) == 3)
        await wait_until(pilot, lambda: not pilot.app.session.busy)
        assert isinstance(pilot.app.screen, ChatScreen)


class Stacked(App[None]):
    """A question above another screen."""

    def on_mount(self) -> None:
        self.push_screen(Modal[None]())
        self.push_screen(QuestionScreen("Really?", "All of it goes.", yes="Yes", no="No"))


async def test_what_lies_below_another_screen_does_not_close_that() -> None:
    async with Stacked().run_test() as pilot:
        await pilot.pause()
        question, below = pilot.app.screen, pilot.app.screen_stack[-2]
        await below.dismiss()
        assert pilot.app.screen is question


async def test_a_screen_that_is_dismissed_below_another_one_closes_when_it_is_on_top() -> None:
    app: App[None] = App()
    async with app.run_test() as pilot:
        told: list[bool | None] = []
        below = QuestionScreen("A", "text", yes="Yes", no="No")
        app.push_screen(below, told.append)
        await pilot.pause()
        app.push_screen(QuestionScreen("B", "text", yes="Yes", no="No"))
        await pilot.pause()
        below.dismiss(True)
        await pilot.pause()
        assert told == []
        assert len(app.screen_stack) == 3
        app.screen.dismiss()
        await wait_until(pilot, lambda: len(app.screen_stack) == 1)
        assert told == [True]
