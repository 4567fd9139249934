"""Settings, presets, the context and its choices when it is full."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from chat_fakes import R1, FakeEngine, answer, done, overflow, thinking
from conftest import NOON, wait_until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Select, Static, TextArea

from localai.chat.budget import DropOldest, Enlarge, Shorten, StartAnew
from localai.chat.conversation import Attachment, Conversation, Message
from localai.errors import UsageError
from localai.history import Draft, History, Preset
from tui.app import ChatApp
from tui.costs import Shares
from tui.sampling import parse, sampling_of
from tui.screens.context import ContextScreen, shares_content
from tui.screens.conversation_settings import ConversationSettings
from tui.screens.overflow import OverflowScreen
from tui.screens.question import QuestionScreen
from tui.screens.settings import SettingsScreen
from tui.theme import CONTRAST, LIGHT
from tui.widgets.assistant_message import AssistantMessage
from tui.widgets.composer import Composer
from tui.widgets.conversation_view import ConversationView
from tui.widgets.edit_notice import EditNotice
from tui.widgets.thinking import Tail, ThinkingBlock
from tui.widgets.thought import Thought

MakeApp = Callable[..., ChatApp]


async def settled(pilot: Pilot[None]) -> None:
    app = pilot.app

    def over() -> bool:
        workers = [w for w in app.workers if w.group in ("reply", "navigate") and not w.is_finished]
        return not app.session.busy and not workers

    await pilot.pause()
    await wait_until(pilot, over)


async def say(pilot: Pilot[None], text: str) -> None:
    before = len(pilot.app.session.conversation.messages)
    pilot.app.query_one(Composer).put(text)
    await pilot.press("enter")
    await wait_until(pilot, lambda: len(pilot.app.session.conversation.messages) > before)
    await settled(pilot)


async def opened(pilot: Pilot[None], kind: type) -> None:
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, kind))
    await pilot.pause()


async def ready(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")


def shown(app: ChatApp) -> list[bool]:
    """Which parts of the only thinking block are to be seen: the line, the last lines, all of it."""
    block = app.query_one(ThinkingBlock)
    return [block.display, block.query_one(Tail).display, block.query_one(Thought).display]


# ----------------------------------------------------------------------------------------------- thinking


@pytest.mark.parametrize(
    ("mode", "live", "settled_as"),
    [
        ("open", [True, False, True], [True, False, True]),
        ("folded", [True, True, False], [True, False, False]),
        ("hidden", [True, False, False], [False, False, False]),
    ],
)
async def test_how_thoughts_are_shown(
    make_app: MakeApp, engine: FakeEngine, history: History, mode: str, live: list, settled_as: list
):
    history.set_setting("thinking", mode)
    gate = asyncio.Event()
    engine.script(thinking("Let me see", 3), gate, answer("4"), done(thought=3))
    async with make_app().run_test() as pilot:
        pilot.app.query_one(Composer).put("2+2?")
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.query(".-some"))
        assert shown(pilot.app) == live
        gate.set()
        await settled(pilot)
        assert shown(pilot.app) == settled_as
        await pilot.press("ctrl+t")
        assert shown(pilot.app)[2] == (mode != "open")


async def test_thinking_is_changed_for_what_is_on_the_screen(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    engine.script(thinking("Let me see", 3), answer("4"), done(thought=3))
    async with make_app().run_test() as pilot:
        await say(pilot, "2+2?")
        assert shown(pilot.app) == [True, False, False]
        pilot.app.screen.action_thinking_mode()
        assert shown(pilot.app) == [False, False, False]
        assert history.setting("thinking") == "hidden"
        pilot.app.screen.action_thinking_mode()
        assert shown(pilot.app) == [True, False, True]


# ---------------------------------------------------------------------------------------- settings screen


async def test_settings_are_kept(make_app: MakeApp, history: History):
    async with make_app().run_test() as pilot:
        await pilot.press("f2")
        await opened(pilot, SettingsScreen)
        await pilot.press("enter")
        await pilot.press("down", "right")
        assert pilot.app.theme == LIGHT
        await pilot.press("right")
        assert pilot.app.theme == CONTRAST.name
        await pilot.press("down", "space", "escape")
        await pilot.pause()
        assert pilot.app.query_one(Composer).send_on == "ctrl+enter"
    async with make_app().run_test() as pilot:
        assert pilot.app.theme == CONTRAST.name
        assert pilot.app.preferences.thinking == "hidden"
        assert pilot.app.query_one(Composer).send_on == "ctrl+enter"


async def test_what_is_stored_but_not_known_is_the_usual(make_app: MakeApp, history: History):
    for name in ("thinking", "theme", "send_key"):
        history.set_setting(name, "nonsense")
    async with make_app().run_test() as pilot:
        assert pilot.app.theme == "localai-dark"
        assert pilot.app.preferences.thinking == "folded"
        assert pilot.app.query_one(Composer).send_on == "enter"


# -------------------------------------------------------------------------------- how long they are kept

DAY_S = 86_400


def store_of(history: History, name: str, days: float, *, pinned: bool = False) -> Conversation:
    conversation = Conversation(id=name, created=NOON - days * DAY_S, pinned=pinned)
    conversation.append(Message(parent=None, role="user", content=name, created=NOON - days * DAY_S))
    history.save(conversation)
    return conversation


def names(history: History) -> set[str]:
    return {summary.id for summary in history.summaries()}


async def keep_less(pilot: Pilot[None], *keys: str) -> SettingsScreen:
    await pilot.press("f2")
    await opened(pilot, SettingsScreen)
    await pilot.press("down", "down", "down", *keys)
    return pilot.app.screen


async def test_to_keep_less_deletes_what_the_user_agrees_to(make_app: MakeApp, history: History):
    for name, days in [("new", 1), ("older", 40), ("old", 100)]:
        store_of(history, name, days)
    store_of(history, "pinned", 100, pinned=True)
    async with make_app().run_test() as pilot:
        screen = await keep_less(pilot, "right", "right", "right")
        assert "2 conversations are older and would" in str(screen._goes.visual)
        assert names(history) == {"new", "older", "old", "pinned"}
        await pilot.press("escape")
        await opened(pilot, QuestionScreen)
        await pilot.press("enter")  # the careful answer
        await wait_until(pilot, lambda: len(pilot.app.screen_stack) == 1)
        assert names(history) == {"new", "older", "old", "pinned"}
        assert history.setting("keep_days") is None
        await keep_less(pilot, "right", "right", "right", "escape")
        await opened(pilot, QuestionScreen)
        await pilot.press("y")
        await wait_until(pilot, lambda: names(history) == {"new", "pinned"})
        assert history.setting("keep_days") == "30"


async def test_to_keep_less_where_nothing_goes_needs_no_question(make_app: MakeApp, history: History):
    store_of(history, "new", 1)
    async with make_app().run_test() as pilot:
        await keep_less(pilot, "left", "escape")
        await wait_until(pilot, lambda: len(pilot.app.screen_stack) == 1)
        assert history.setting("keep_days") == "7"
        assert names(history) == {"new"}


async def test_what_is_too_old_goes_at_the_start(make_app: MakeApp, history: History):
    for name, days in [("new", 1), ("old", 8)]:
        store_of(history, name, days)
    history.put_draft("old", "draft")
    history.set_setting("keep_days", "7")
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: names(history) == {"new"})
        assert history.draft("old") == Draft()


async def test_the_open_conversation_goes_too(make_app: MakeApp, history: History):
    store_of(history, "old", 8)
    async with make_app().run_test() as pilot:
        pilot.app.screen.open_conversation("old")
        await wait_until(pilot, lambda: pilot.app.session.conversation.id == "old")
        await settled(pilot)
        await keep_less(pilot, "left", "escape")
        await opened(pilot, QuestionScreen)
        await pilot.press("y")
        await wait_until(pilot, lambda: not history.summaries())
        await wait_until(pilot, lambda: not pilot.app.session.conversation.messages)


# ------------------------------------------------------------------------------- one conversation's own


async def test_a_conversation_has_its_own_prompt_and_sampling(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await say(pilot, "one")
        await pilot.press("f3")
        await opened(pilot, ConversationSettings)
        screen = pilot.app.screen
        screen.query_one(TextArea).text = "Be brief."
        screen.query(Input)[0].value = "0,2"
        await pilot.press("ctrl+s")
        await wait_until(pilot, lambda: pilot.app.session.conversation.system)
        await say(pilot, "two")
        assert engine.prompts[-1][0].content == "Be brief."
        assert engine.samplings[-1].temperature == 0.2
        assert engine.samplings[-1].top_p == 0.95  # the model's own
        stored = history.load(pilot.app.session.conversation.id)
        assert (stored.system, stored.settings) == ("Be brief.", {"temperature": 0.2})


async def test_what_makes_no_sense_is_said(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await opened(pilot, ConversationSettings)
        pilot.app.screen.query(Input)[1].value = "2"
        await pilot.press("ctrl+s")
        assert "Top-p" in str(pilot.app.screen.query_one(".problem", Static).visual)
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(pilot.app.screen, ConversationSettings))
        assert pilot.app.session.conversation.settings == {}


async def test_presets(make_app: MakeApp, history: History):
    history.save_preset(Preset("Poet", "Write verse.", {"temperature": 1.5}))
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await pilot.press("f3")
        await opened(pilot, ConversationSettings)
        screen = pilot.app.screen
        screen.query_one(Select).value = "Poet"
        await wait_until(pilot, lambda: screen.query_one(TextArea).text == "Write verse.")
        assert screen.query(Input)[0].value == "1.5"
        screen.query(Input).last().value = "Bard"
        screen.query(Input).last().focus()
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(history.presets()) == 2)
        assert history.presets()[0] == Preset("Bard", "Write verse.", {"temperature": 1.5})
        await pilot.click("#delete")
        await wait_until(pilot, lambda: len(history.presets()) == 1)
        await pilot.click("#use")
        await wait_until(pilot, lambda: pilot.app.session.conversation.settings == {"temperature": 1.5})


def test_sampling_that_is_typed():
    assert parse({"temperature": " 0,5 ", "top_p": "", "top_k": "40"}) == {"temperature": 0.5, "top_k": 40}
    for wrong in ({"top_k": "1.5"}, {"top_p": "2"}, {"temperature": "nan"}, {"seed": "-1"}, {"min_p": "x"}):
        with pytest.raises(UsageError):
            parse(wrong)


def test_stored_settings_that_are_not_understood_are_left_out():
    sampling = sampling_of({"temperature": 0.5, "top_k": "many", "magic": 1})
    assert sampling.temperature == 0.5
    assert sampling.top_k is None


# -------------------------------------------------------------------------------------------- the context


async def test_what_the_context_is_spent_on(make_app: MakeApp, engine: FakeEngine):
    engine.script(thinking("hm", 7), answer("one two three"), done(thought=7))
    async with make_app().run_test() as pilot:
        await ready(pilot)
        turn = pilot.app.session.ask("a question", [Attachment(name="f", text="w " * 50)])
        await turn.ended()
        await pilot.press("f5")
        await opened(pilot, ContextScreen)
        shares = await pilot.app.session.shares()
        assert shares.answers == 3 + 2
        assert shares.questions == 2 + 2
        assert shares.files > 50
        assert shares.thinking == 7
        assert shares.free == 8192 - shares.answers - shares.questions - shares.files - 7
        assert "Thinking" in str(pilot.app.screen.query_one(".hint", Static).visual)


def test_the_bar_has_always_its_length():
    for shares in (Shares(100, 0, 0, 0, 0), Shares(100, 1, 1, 1, 1), Shares(100, 90, 90, 90, 90)):
        assert len(shares_content(shares, 40).plain.split("\n")[0]) == 40


async def test_the_cost_of_a_draft_is_shown(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await pilot.press(*"two words")
        await wait_until(pilot, lambda: pilot.app.query_one(Composer)._cost == (4, 8192))


async def test_the_cost_of_an_edit_is_that_of_the_conversation_after_it(
    make_app: MakeApp, engine: FakeEngine
):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        engine.script(answer("first"), done())
        await say(pilot, "one")
        engine.script(answer("second"), done())
        await say(pilot, "two words")
        await pilot.press("ctrl+up", "e")
        await wait_until(pilot, lambda: pilot.app.query_one(Composer)._cost == (4, 8192 - 3 - 3))


# --------------------------------------------------------------------------------------------- no room


async def full(pilot: Pilot[None], engine: FakeEngine, *offers: object) -> OptionList:
    """One question with its reply, and one that there is no room for; the list of choices."""
    await ready(pilot)
    engine.script(answer("first"), done())
    await say(pilot, "one")
    engine.script(overflow(*offers))
    await say(pilot, "two words")
    await opened(pilot, OverflowScreen)
    return pilot.app.screen.query_one(OptionList)


async def test_leave_out_the_oldest(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        choices = await full(pilot, engine, Enlarge(16_384), DropOldest((0, 1), 40))
        assert str(choices.options[0].prompt).startswith("Enlarge the context to 16,384")
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: len(engine.prompts) == 3)
        await settled(pilot)
        assert [m.content for m in engine.prompts[-1]] == ["two words"]


async def test_enlarge(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await full(pilot, engine, DropOldest((0, 1), 40), Enlarge(16_384))
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: len(engine.prompts) == 3)
        await settled(pilot)
        assert engine.options[-1].context == 16_384
        assert len(engine.prompts[-1]) == 3


async def test_shorten_the_message(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await full(pilot, engine, Shorten(message=2, tokens=4000, by=1000))
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.query_one(EditNotice).display)
        assert pilot.app.query_one(Composer).text == "two words"


async def test_begin_anew_with_a_summary(make_app: MakeApp, engine: FakeEngine, history: History):
    async with make_app().run_test() as pilot:
        await full(pilot, engine, StartAnew())
        old = pilot.app.session.conversation.id
        engine.script(thinking("hm"), answer("We spoke of one."), done())
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(engine.prompts) == 4)
        await settled(pilot)
        assert "Summarize" in engine.prompts[2][-1].content
        assert "We spoke of one." in engine.prompts[3][0].content
        assert engine.prompts[3][0].content.endswith("two words")
        assert pilot.app.session.conversation.id != old
        assert len(pilot.app.query_one(ConversationView).messages) == 2
        assert len(history.summaries()) == 2


async def test_a_summary_that_is_stopped_changes_nothing(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await full(pilot, engine, StartAnew())
        old = pilot.app.session.conversation.id
        engine.script(answer("We spoke"), asyncio.Event())
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(engine.prompts) == 3)
        assert pilot.app.session.busy
        await pilot.press("escape")
        await settled(pilot)
        assert pilot.app.session.conversation.id == old


async def test_no_room_for_a_summary_either(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await full(pilot, engine, StartAnew())
        engine.script(overflow())
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(engine.prompts) == 3)
        await settled(pilot)
        assert any("no room for a summary" in n.message for n in pilot.app._notifications)


async def test_who_leaves_it_can_still_try_again(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await full(pilot, engine, DropOldest((0, 1), 40))
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(pilot.app.screen, OverflowScreen))
        assert len(engine.prompts) == 2
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: len(engine.prompts) == 3)
        await settled(pilot)


async def test_who_is_typing_is_not_interrupted(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        gate = asyncio.Event()
        engine.script(gate, overflow(StartAnew()))
        pilot.app.query_one(Composer).put("one")
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.query(AssistantMessage))
        await pilot.press("x")
        gate.set()
        await settled(pilot)
        assert not isinstance(pilot.app.screen, OverflowScreen)


async def test_the_conversation_of_a_restart_knows_its_settings(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        pilot.app.session.set_up("Be brief.", {"top_k": 7})
        await say(pilot, "one")
    stored = history.summaries()[0].id
    async with make_app(model=R1.name).run_test() as pilot:
        await ready(pilot)
        await pilot.app.session.open(stored)
        turn = pilot.app.session.retry()
        await turn.ended()
        assert engine.samplings[-1].top_k == 7
        assert engine.prompts[-1][0].content == "Be brief."
