"""The user's hand on the engine, on the screen: answer now, loops, no room, notes, drafts."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from chat_fakes import FakeEngine, answer, done, loaded, looping, overflow, prefill, thinking
from conftest import wait_until
from textual import events
from textual.pilot import Pilot
from textual.widgets import Static

from localai.chat.budget import DropOldest, StartAnew
from localai.chat.conversation import Conversation, Message
from localai.history import History
from tui.app import ChatApp
from tui.widgets.answer import Answer
from tui.widgets.assistant_message import AssistantMessage
from tui.widgets.composer import Composer
from tui.widgets.status_line import StatusLine, status_content
from tui.widgets.thinking import ThinkingHeader
from tui.widgets.user_message import UserMessage

MakeApp = Callable[..., ChatApp]
DRAFT = "What is the best way to learn to play the piano?"


def note(app: ChatApp) -> str:
    return str(app.query(".note").last(Static).visual)


def header(app: ChatApp) -> str:
    return str(app.query(ThinkingHeader).last().visual)


def notices(app: ChatApp) -> list[str]:
    return [n.message for n in app._notifications]


def status(app: ChatApp) -> str:
    return status_content(app.query_one(StatusLine).status, 200).plain


async def say(pilot: Pilot[None], text: str) -> None:
    pilot.app.query_one(Composer).put(text)
    await pilot.press("enter")


async def ended(pilot: Pilot[None], replies: int = 1) -> None:
    """Wait until that many replies are on the screen, the last of them whole."""
    app = pilot.app

    def over() -> bool:
        working = [w for w in app.workers if w.group in ("reply", "navigate") and not w.is_finished]
        return len(app.query(AssistantMessage)) == replies and not app.session.busy and not working

    await wait_until(pilot, over)


async def ready(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")


# ---------------------------------------------------------------------------------------------- answer now


async def test_ctrl_g_closes_the_thinking(make_app: MakeApp, engine: FakeEngine, history: History):
    engine.script(thinking("hm", 7), engine.answer_wanted, answer("4"), done(thought=7, think_closed=True))
    async with make_app().run_test(size=(160, 40)) as pilot:
        app = pilot.app
        await say(pilot, "2+2?")
        await wait_until(pilot, lambda: "^G answer now" in status(app))
        await wait_until(pilot, lambda: header(app) == "▾ Thinking… 0 s · Ctrl+G answer now")
        await pilot.press("ctrl+g")
        await ended(pilot)
        assert header(app) == "▸ Thought for under 1 s · 7 tokens · closed by you"
        assert app.query_one(Answer).source == "4"
        assert "answer now" not in status(app)
        # The same, when it is opened again.
        await pilot.press("ctrl+n")
        await wait_until(pilot, lambda: not app.query(AssistantMessage))
        app.screen.open_conversation(history.summaries()[0].id)
        await wait_until(pilot, lambda: app.query(AssistantMessage))
        assert header(app) == "▸ Thought for under 1 s · 7 tokens · closed by you"


async def test_ctrl_g_does_nothing_when_nobody_thinks(make_app: MakeApp, engine: FakeEngine):
    gate = asyncio.Event()
    engine.script(prefill(1, 9), gate, answer("4"), done())
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+g")
        await say(pilot, "2+2?")
        await wait_until(pilot, lambda: pilot.app.session.busy)
        await pilot.press("ctrl+g")
        gate.set()
        await ended(pilot)
        await pilot.press("ctrl+g")
        assert "answer_now" not in engine.calls


async def test_the_budget_closed_it(make_app: MakeApp, engine: FakeEngine):
    engine.script(thinking("hm", 7), answer("4"), done(thought=7, think_closed=True))
    async with make_app().run_test() as pilot:
        await say(pilot, "2+2?")
        await ended(pilot)
        assert header(pilot.app).endswith("closed by the budget")


async def test_the_palette_can_answer_now(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        commands = {c.title: c.callback for c in pilot.app.get_system_commands(pilot.app.screen)}
        assert commands["Answer now"] == pilot.app.screen.action_answer_now


# ---------------------------------------------------------------------------------------------------- loops


async def test_a_loop_is_said_at_the_reply_and_once_beside_it(make_app: MakeApp, engine: FakeEngine):
    more = asyncio.Event()
    engine.script(
        thinking("wait "), looping("wait\x1b[2J wait"), thinking("wait"), more, answer("4"), asyncio.Event()
    )
    said = "It repeats itself: “wait[2J wait” (5 times). Ctrl+G answer now · Esc stop"
    async with make_app().run_test(size=(160, 40)) as pilot:
        app = pilot.app
        await say(pilot, "2+2?")
        await wait_until(pilot, lambda: note(app) == f"▲ {said}")
        app.session.turn.changed.set()  # one more look at it
        await wait_until(pilot, lambda: not app.session.turn.changed.is_set())
        assert notices(app) == ["The reply repeats itself. Ctrl+G answer now · Esc stop"]
        more.set()
        await wait_until(pilot, lambda: note(app) == "")
        await pilot.press("escape")
        await ended(pilot)
        assert note(app) == "■ Stopped"


# -------------------------------------------------------------------------------------------------- answers


async def test_no_answer_is_not_an_empty_answer(make_app: MakeApp, engine: FakeEngine):
    engine.script(thinking("hm"), done(answer="none"))
    engine.script(thinking("hm"), done(answer="empty"))
    async with make_app().run_test(size=(200, 40)) as pilot:
        await say(pilot, "one")
        await ended(pilot)
        never = note(pilot.app)
        assert "never ended its thinking" in never
        assert "Ctrl+R" in never
        await say(pilot, "two")
        await ended(pilot, 2)
        assert "The answer is empty" in note(pilot.app)


# -------------------------------------------------------------------------------------------------- no room


async def test_no_room_keeps_the_question_and_ctrl_r_makes_room(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    engine.scripts += [[answer("1"), done()], [overflow(StartAnew(), DropOldest((0, 1), 2000), over=432)]]
    async with make_app().run_test(size=(200, 40)) as pilot:
        app = pilot.app
        await say(pilot, "one")
        await ended(pilot)
        await say(pilot, "two")
        await ended(pilot, 2)
        assert "432" in note(app)
        assert note(app).endswith("Ctrl+R does (2)")
        assert app.query(UserMessage).last().text == "two"
        assert [m.state for m in history.load(history.summaries()[0].id).branch()][2:] == [
            "complete",
            "failed",
        ]
        await pilot.press("escape")  # the choices
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: len(engine.prompts) == 3)
        await ended(pilot, 2)
        assert [m.content for m in engine.prompts[-1]] == ["two"]
        assert note(app) == "▲ 2 of the oldest messages were left out."


async def test_no_room_and_nothing_to_do_at_once(make_app: MakeApp, engine: FakeEngine):
    engine.script(overflow(StartAnew()))
    async with make_app().run_test(size=(200, 40)) as pilot:
        await say(pilot, "one")
        await ended(pilot)
        assert note(pilot.app).endswith("press Ctrl+R to try again")


# --------------------------------------------------------------------------------------------------- loading


async def test_what_was_loaded_otherwise_is_said_once(make_app: MakeApp, engine: FakeEngine):
    engine.default = loaded(notes=("All 28 layers fit, not 99.", "No GPU\x1b is there."))
    async with make_app().run_test() as pilot:
        await ready(pilot)
        pilot.app.session.choose("r1-nano")
        await wait_until(pilot, lambda: len(engine.loads) == 2)
        await ready(pilot)
        assert notices(pilot.app) == ["All 28 layers fit, not 99.", "No GPU is there."]


# ---------------------------------------------------------------------------------------------------- drafts


@pytest.fixture
def _quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tui.widgets.composer.PAUSE_S", 0.05)


@pytest.mark.usefixtures("_quick")
async def test_what_is_typed_is_read_beforehand(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        pilot.app.query_one(Composer).put(f"  {DRAFT}\n")
        await wait_until(pilot, lambda: engine.prefills)
        assert [m.content for m in engine.prefills[0]] == [DRAFT]


async def test_what_is_pasted_is_read_at_once(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        pilot.app.post_message(events.Paste(DRAFT))
        await wait_until(pilot, lambda: engine.prefills)


async def test_what_was_typed_while_the_model_loaded_is_read_then(make_app: MakeApp, engine: FakeEngine):
    engine.load_gate = asyncio.Event()
    async with make_app().run_test() as pilot:
        pilot.app.post_message(events.Paste(DRAFT))
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text)
        await wait_until(pilot, lambda: engine.loads)
        assert engine.prefills == []
        engine.load_gate.set()
        await wait_until(pilot, lambda: engine.prefills)


async def test_what_was_typed_while_the_reply_came_is_read_then(make_app: MakeApp, engine: FakeEngine):
    gate = asyncio.Event()
    engine.script(answer("4"), gate, done())
    async with make_app().run_test() as pilot:
        await say(pilot, "2+2?")
        await wait_until(pilot, lambda: pilot.app.query(Answer))
        pilot.app.post_message(events.Paste(DRAFT))
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text)
        assert engine.prefills == []
        gate.set()
        await wait_until(pilot, lambda: engine.prefills)
        assert [m.content for m in engine.prefills[0]] == ["2+2?", "4", DRAFT]


async def test_an_opened_conversation_is_read_beforehand(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    stored = Conversation()
    for role, text in (("user", "old question"), ("assistant", "old answer")):
        stored.append(Message(parent=stored.head, role=role, content=text))
    history.save(stored)
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+b", "enter")
        await wait_until(pilot, lambda: engine.prefills)
        assert [m.content for m in engine.prefills[0]] == ["old question", "old answer", ""]
