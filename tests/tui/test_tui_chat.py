"""The whole chat under a pilot: what a user does, and what is then on the screen and in the store."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from chat_fakes import (
    NANO,
    R1,
    STARTER,
    Clock,
    FakeEngine,
    FakeShelf,
    answer,
    done,
    loaded,
    prefill,
    thinking,
)
from conftest import wait_until
from textual import events
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from localai.chat.conversation import Conversation, Message
from localai.errors import HistoryError, LoadError, WorkerDied
from localai.history import History
from tui.app import ChatApp
from tui.screens.help import HelpScreen
from tui.screens.models import ModelsScreen
from tui.widgets.answer import Answer
from tui.widgets.assistant_message import AssistantMessage
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import ConversationList
from tui.widgets.conversation_view import ConversationView, Earlier
from tui.widgets.load_failure import LoadFailure
from tui.widgets.status_line import StatusLine, status_content
from tui.widgets.thinking import ThinkingBlock, ThinkingHeader
from tui.widgets.thought import Thought
from tui.widgets.user_message import UserMessage
from tui.widgets.welcome import Example, Welcome

MakeApp = Callable[..., ChatApp]


def status(app: ChatApp, width: int = 200) -> str:
    return status_content(app.query_one(StatusLine).status, width).plain


def note(app: ChatApp) -> str:
    return str(app.query(".note").last(Static).visual)


def notices(app: ChatApp) -> list[str]:
    return [n.message for n in app._notifications]


async def say(pilot: Pilot[None], text: str) -> None:
    """Put the text into the composer and send it."""
    pilot.app.query_one(Composer).put(text)
    await pilot.press("enter")


async def ended(pilot: Pilot[None], replies: int = 1) -> None:
    """Wait until that many replies are on the screen, the last of them whole."""
    app = pilot.app

    def over() -> bool:
        workers = [w for w in app.workers if w.group in ("reply", "navigate") and not w.is_finished]
        return len(app.query(AssistantMessage)) == replies and not app.session.busy and not workers

    await wait_until(pilot, over)


async def ready(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")


def store(history: History, *texts: str, when: float = 1_767_200_000.0, **reply: object) -> Conversation:
    conversation = Conversation(created=when, updated=when, model=R1.name)
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        message = Message(parent=conversation.head, role=role, content=text, created=when)
        if role == "assistant":
            for name, value in reply.items():
                setattr(message, name, value)
        conversation.append(message)
    history.save(conversation)
    return conversation


# ------------------------------------------------------------------------------------------- a first chat


async def test_one_question(make_app: MakeApp, engine: FakeEngine, history: History, clock: Clock):
    engine.script(
        prefill(20, 20),
        thinking("Let me see", 340),
        clock.forward(12),
        answer("It is **4**.", 5),
        done(prompt=20, completion=345, thought=340),
    )
    async with make_app().run_test() as pilot:
        assert pilot.app.query_one(Welcome).display
        await say(pilot, "2+2?")
        await ended(pilot)
        app = pilot.app
        assert not app.query(Welcome)
        assert app.query_one(UserMessage).text == "2+2?"
        assert str(app.query_one(ThinkingHeader).visual) == "▸ Thought for 12 s · 340 tokens"
        assert app.query_one(ThinkingBlock).folded
        assert app.query_one(Answer).source == "It is **4**."
        assert app.query_one(Composer).text == ""
        assert "365 / 8,192" in status(app)
        assert "12.5 tok/s" in status(app)
        assert "ready" in status(app)
    assert [m.content for m in history.load(history.summaries()[0].id).branch()] == ["2+2?", "It is **4**."]


async def test_typing_and_sending_while_the_model_loads(make_app: MakeApp, engine: FakeEngine):
    engine.load_gate, engine.load_steps = asyncio.Event(), [0.2, 0.431]
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: "loading 43%" in status(pilot.app))
        await say(pilot, "hello")
        await wait_until(pilot, lambda: pilot.app.query(AssistantMessage))
        assert "loading 43%" in status(pilot.app)
        assert not engine.prompts
        engine.load_gate.set()
        await ended(pilot)
        assert pilot.app.query_one(Answer).source == "OK"


async def test_states_of_a_reply(make_app: MakeApp, engine: FakeEngine, clock: Clock):
    reading, thinks, says = asyncio.Event(), asyncio.Event(), asyncio.Event()
    engine.script(
        prefill(512, 2048),
        reading,
        thinking("Hm.", 3),
        clock.forward(4),
        thinks,
        answer("4", 1),
        says,
        done(),
    )
    async with make_app().run_test() as pilot:
        app = pilot.app
        await say(pilot, "2+2?")
        await wait_until(pilot, lambda: "reading prompt 512/2,048" in status(app))
        assert "Esc stop" in status(app)
        reading.set()
        await wait_until(pilot, lambda: "thinking" in status(app))
        block = app.query_one(ThinkingBlock)
        await wait_until(pilot, lambda: "▾ Thinking… 4 s" in str(app.query_one(ThinkingHeader).visual))
        assert block.live
        assert not block.folded
        thinks.set()
        await wait_until(pilot, lambda: "answering" in status(app))
        assert block.folded
        says.set()
        await ended(pilot)
        assert "ready" in status(app)


async def test_no_thinking_shows_no_block(make_app: MakeApp, engine: FakeEngine):
    engine.script(thinking("\n"), thinking("\n"), answer("4"), done())
    async with make_app().run_test() as pilot:
        await say(pilot, "2+2?")
        await ended(pilot)
        assert not pilot.app.query_one(ThinkingBlock).display


@pytest.mark.parametrize("key", ["escape", "ctrl+c"])
async def test_esc_stops_and_keeps(make_app: MakeApp, engine: FakeEngine, history: History, key: str):
    engine.script(answer("half a sen"), asyncio.Event())
    async with make_app().run_test() as pilot:
        await say(pilot, "talk")
        await wait_until(pilot, lambda: pilot.app.query(Answer) and pilot.app.query_one(Answer).source)
        await pilot.press(key)
        await ended(pilot)
        assert note(pilot.app) == "■ Stopped"
        await say(pilot, "and again")
        await ended(pilot, 2)
        assert pilot.app.query(Answer).last().source == "OK"
    stored = history.load(history.summaries()[0].id).branch()
    assert (stored[1].content, stored[1].state) == ("half a sen", "stopped")


async def test_ctrl_c_tells_how_to_quit(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+c")
        assert [n.message for n in pilot.app._notifications] == ["Ctrl+Q quits."]


async def test_enter_during_a_reply_keeps_the_text(make_app: MakeApp, engine: FakeEngine):
    engine.script(answer("half"), asyncio.Event())
    async with make_app().run_test() as pilot:
        await say(pilot, "talk")
        await wait_until(pilot, lambda: pilot.app.session.busy)
        await say(pilot, "too early")
        await wait_until(pilot, lambda: notices(pilot.app))
        assert pilot.app.query_one(Composer).text == "too early"
        await pilot.press("escape")
        await ended(pilot)


async def test_text_typed_right_behind_enter_is_the_next_one(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        type_fast(pilot, "What is 2 + 2?\rtyped fast")
        await ended(pilot)
        composer = pilot.app.query_one(Composer)
        assert (composer.text, composer.prompts) == ("typed fast", ["What is 2 + 2?"])
        assert [m.content for m in engine.prompts[0]] == ["What is 2 + 2?"]


async def test_an_unbracketed_paste_loses_nothing(make_app: MakeApp, engine: FakeEngine):
    gate = asyncio.Event()
    engine.script(gate, done())
    async with make_app().run_test() as pilot:
        await ready(pilot)
        type_fast(pilot, "first line\rsecond line\rthird line\rfourth line\rfifth line.")
        composer = pilot.app.query_one(Composer)
        await wait_until(pilot, lambda: composer.text.endswith("."))
        await wait_until(pilot, lambda: pilot.app.session.busy)
        await pilot.press("enter")
        await wait_until(pilot, lambda: composer.text)
        lines = ["first line", "second line", "third line", "fourth line", "fifth line."]
        asked = pilot.app.query_one(UserMessage).message.content
        assert "".join([asked, composer.text]).replace("\n", "") == "".join(lines)
        gate.set()
        await ended(pilot)


def type_fast(pilot: Pilot[None], text: str) -> None:
    """Type without waiting for what comes of it."""
    for character in text:
        key = "enter" if character == "\r" else character
        pilot.app.post_message(events.Key(key, character))


@pytest.mark.parametrize("rows", [5, 11, 12])
async def test_the_conversation_has_most_of_a_small_screen(make_app: MakeApp, rows: int):
    async with make_app().run_test(size=(20, rows)) as pilot:
        await say(pilot, "Hi")
        await ended(pilot)
        composer, view = pilot.app.query_one(Composer), pilot.app.query_one(ConversationView)
        await wait_until(pilot, lambda: composer.outer_size.height == (1 if rows < 12 else 3))
        await wait_until(pilot, lambda: view.size.height == rows - 1 - composer.outer_size.height)
        for _ in range(4):
            await pilot.press("ctrl+j")
        await pilot.pause()
        assert composer.outer_size.height == {5: 1, 11: 2, 12: 7}[rows]


async def test_no_terminal_is_too_narrow(make_app: MakeApp):
    async with make_app().run_test(size=(80, 24)) as pilot:
        for columns in range(20, 0, -1):
            await pilot.resize_terminal(columns, 24)
            await pilot.pause()
        await pilot.resize_terminal(80, 24)
        await say(pilot, "Hi")
        await ended(pilot)


async def test_an_engine_error_is_one_line_and_the_chat_goes_on(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    error = WorkerDied("The engine ended by itself (SIGKILL)", "The next message starts a new one")
    engine.script(answer("so far"), error)
    async with make_app().run_test(size=(160, 40)) as pilot:
        await say(pilot, "talk")
        await ended(pilot)
        assert note(pilot.app) == f"✗ {error} · press Ctrl+R to try again"
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: len(engine.prompts) == 2)
        await ended(pilot)
        assert pilot.app.query_one(Answer).source == "OK"
        assert note(pilot.app) == ""
    branch = history.load(history.summaries()[0].id)
    assert len(branch.messages) == 3
    assert [m.content for m in branch.branch()] == ["talk", "OK"]


async def test_a_model_that_does_not_load(make_app: MakeApp, engine: FakeEngine):
    engine.will_load = [LoadError("Not enough memory", "Choose a smaller model"), loaded()]
    async with make_app().run_test() as pilot:
        failure = pilot.app.query_one(LoadFailure)
        await wait_until(pilot, lambda: failure.display)
        reason = "✗ Not enough memory. Choose a smaller model · Ctrl+O chooses another model"
        assert str(failure.visual) == reason
        assert failure.region.height
        assert "not loaded" in status(pilot.app)
        await say(pilot, "try anyway")
        await ended(pilot)
        assert pilot.app.query_one(Answer).source == "OK"
        assert not failure.display


async def test_a_model_that_cannot_be_opened_is_named(make_app: MakeApp):
    async with make_app(model="/somewhere/trunc.gguf").run_test() as pilot:
        failure = pilot.app.query_one(LoadFailure)
        await wait_until(pilot, lambda: failure.display)
        assert "is installed" in str(failure.visual)
        assert "trunc.gguf · not loaded" in status(pilot.app).replace(" · ▱▱▱▱▱▱▱▱", "")
        assert str(pilot.app.query_one(".about", Static).visual) == "It could not be opened."


async def test_length_and_full_context_are_said(make_app: MakeApp, engine: FakeEngine):
    engine.script(answer("a"), done("length", completion=100))
    engine.script(answer("b"), done("context", prompt=8000, completion=192))
    async with make_app().run_test() as pilot:
        await say(pilot, "one")
        await ended(pilot)
        assert "Cut at the limit of 100 tokens" in note(pilot.app)
        await say(pilot, "two")
        await ended(pilot, 2)
        assert "The context is full" in note(pilot.app)
        assert [n for n in notices(pilot.app) if "nearly full" in n]


async def test_a_system_prompt_without_system_role_is_told_once(make_app: MakeApp):
    async with make_app(system="Be brief.").run_test() as pilot:
        await ready(pilot)
        pilot.app.session.choose(R1.name)
        await ready(pilot)
        assert len([n for n in notices(pilot.app) if "no system role" in n]) == 1


async def test_a_question_that_cannot_be_stored_stays_in_the_composer(make_app: MakeApp, history: History):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        history._db.execute("PRAGMA query_only = ON")
        await say(pilot, "keep me")
        await wait_until(pilot, lambda: notices(pilot.app))
        assert "cannot be written" in notices(pilot.app)[0]
        assert pilot.app.query_one(Composer).text == "keep me"
        assert pilot.app.query(Welcome)
        history._db.execute("PRAGMA query_only = OFF")


# ------------------------------------------------------------------------------------------ conversations


async def test_after_a_restart_conversations_are_listed_and_reopened(make_app: MakeApp, history: History):
    reply = {"model": R1.name, "thinking": "hm", "thinking_s": 3.0, "thinking_tokens": 7, "prompt_tokens": 30}
    store(history, "old question", "old answer", when=1_700_000_000.0)
    store(history, "new question", "new answer", **reply, completion_tokens=12)
    async with make_app().run_test(size=(200, 60)) as pilot:
        app = pilot.app
        listed = [str(o.prompt) for o in app.query_one(ConversationList).query_one(OptionList).options]
        assert listed == ["Yesterday", "new question", "", "November 2023", "old question"]
        await pilot.press("ctrl+b", "enter")
        await wait_until(pilot, lambda: app.query(Answer))
        await ended(pilot)
        assert app.query_one(Answer).source == "new answer"
        assert str(app.query_one(ThinkingHeader).visual) == "▸ Thought for 3 s · 7 tokens"
        assert app.query_one(ThinkingBlock).folded
        await ready(pilot)
        assert "42 / 8,192" in status(app)
        await say(pilot, "go on")
        await ended(pilot, 2)
        assert len(history.summaries()) == 2


async def test_new_conversation_stops_the_reply(make_app: MakeApp, engine: FakeEngine, history: History):
    engine.script(answer("half"), asyncio.Event())
    async with make_app().run_test() as pilot:
        await say(pilot, "first")
        await wait_until(pilot, lambda: pilot.app.query(Answer) and pilot.app.query_one(Answer).source)
        await pilot.press("ctrl+n")
        await wait_until(pilot, lambda: pilot.app.query(Welcome))
        await say(pilot, "second")
        await ended(pilot)
        assert engine.cancels == 1
    assert {s.title for s in history.summaries()} == {"first", "second"}


async def test_the_sidebar_is_there_when_wide_and_an_overlay_when_narrow(make_app: MakeApp, history: History):
    store(history, "question", "answer")
    async with make_app().run_test(size=(109, 30)) as pilot:
        sidebar, view = pilot.app.query_one(ConversationList), pilot.app.query_one(ConversationView)
        await pilot.pause()
        assert not sidebar.display
        width = view.size.width
        await pilot.press("ctrl+b")
        await pilot.pause()
        assert sidebar.display
        assert view.size.width == width
        await pilot.press("escape")
        await wait_until(pilot, lambda: not sidebar.display)
        assert pilot.app.query_one(Composer).has_focus
        await pilot.resize_terminal(110, 30)
        await wait_until(pilot, lambda: sidebar.display)
        await wait_until(pilot, lambda: view.size.width == 110 - 32)
        await pilot.press("ctrl+b")
        assert sidebar.has_focus_within
        await pilot.press("ctrl+b")
        assert not sidebar.display


async def test_a_conversation_that_is_gone(make_app: MakeApp, history: History):
    gone = store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b")
        history.delete(gone.id)
        await pilot.press("enter")
        await wait_until(pilot, lambda: [n for n in notices(pilot.app) if "no conversation" in n])
        assert pilot.app.query(Welcome)


async def test_a_long_conversation_shows_its_end_first(make_app: MakeApp, history: History):
    store(history, *[f"m{i}" for i in range(70)])
    async with make_app().run_test() as pilot:
        view = pilot.app.query_one(ConversationView)
        await pilot.press("ctrl+b", "enter")
        await wait_until(pilot, lambda: len(view.query(AssistantMessage)) == 8)
        assert str(view.query_one(Earlier).visual) == "▴ Show earlier messages (54)"
        view.scroll_home(animate=False)
        await pilot.pause()
        await pilot.click(Earlier)
        await wait_until(pilot, lambda: len(view.query(AssistantMessage)) == 16)
        assert len(view.query_one(Earlier).messages) == 38
        assert view.query(UserMessage).first().text == "m38"


async def test_a_conversation_that_grows_lets_go_of_its_beginning(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        view = pilot.app.query_one(ConversationView)
        for number in range(1, 18):
            await say(pilot, f"m{number}")
            await wait_until(pilot, lambda n=number: len(pilot.app.session.conversation.messages) == 2 * n)
            await wait_until(pilot, lambda: not pilot.app.session.busy)
        await wait_until(pilot, lambda: view.query(Earlier))
        assert [m.content for m in view.query_one(Earlier).messages][:3] == ["m1", "OK", "m2"]
        assert len(view.query_one(Earlier).messages) + len(view.column.children) - 1 == 34


# ----------------------------------------------------------------------------------------------- scrolling


async def test_the_end_stays_in_view_unless_the_reader_scrolls_up(make_app: MakeApp, engine: FakeEngine):
    more, end = asyncio.Event(), asyncio.Event()
    engine.script(
        *[answer(f"line {i}\n\n") for i in range(40)],
        more,
        *[answer(f"line {i}\n\n") for i in range(40, 60)],
        end,
        done(),
    )
    async with make_app().run_test() as pilot:
        view = pilot.app.query_one(ConversationView)
        await say(pilot, "count")
        await wait_until(pilot, lambda: view.max_scroll_y > 50 and view.scroll_y == view.max_scroll_y)
        await pilot.press("pageup", "pageup")
        await wait_until(
            pilot, lambda: view.scroll_y < view.max_scroll_y - 10 and not pilot.app.animator._animations
        )
        before, height = view.scroll_y, view.max_scroll_y
        more.set()
        await wait_until(pilot, lambda: view.max_scroll_y > height + 20)
        assert view.scroll_y == before
        end.set()
        await ended(pilot)
        assert view.scroll_y == before


# --------------------------------------------------------------------------------------------- the model


async def test_the_picker_loads_another_model_in_mid_conversation(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        app = pilot.app
        await say(pilot, "one")
        await ended(pilot)
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        await pilot.press(*"nano", "enter")
        await wait_until(pilot, lambda: len(engine.loads) == 2)
        await ready(pilot)
        assert "r1-nano · Q4_K_M · sandbox full · context 8,192 · ready" in status(app)
        await say(pilot, "two")
        await ended(pilot, 2)
        assert [m.content for m in engine.prompts[1]] == ["one", "OK", "two"]
        assert app.session.conversation.branch()[-1].model == NANO.name
        assert "25 / 8,192 · 12.5 tok/s" in status(app)


async def test_the_picker_can_be_left(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen))
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(pilot.app.screen, ModelsScreen))
        assert len(engine.loads) == 1


async def test_without_a_choice_the_only_model_is_loaded(engine: FakeEngine, history: History):
    app = ChatApp(engine, history, FakeShelf(STARTER), model=None)
    async with app.run_test() as pilot:
        await ready(pilot)
        about = str(pilot.app.query_one(".about", Static).visual)
        assert about.startswith("Not a reasoning model")


async def test_without_a_choice_among_several_the_picker_opens(make_app: MakeApp, engine: FakeEngine):
    async with make_app(model=None).run_test() as pilot:
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen))
        await pilot.press("down", "enter")
        await ready(pilot)
        assert pilot.app.session.loader.entry == NANO


async def test_without_any_model_it_says_what_to_do(engine: FakeEngine, history: History):
    app = ChatApp(engine, history, FakeShelf(), model=None)
    async with app.run_test() as pilot:
        assert "Ctrl+O" in str(app.query_one(".about", Static).visual)
        await say(pilot, "hello")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        assert "There is no model" in str(app.screen.query_one(".hint", Static).visual)
        assert history.summaries() == []


# ------------------------------------------------------------------------------------------------ the rest


async def test_thinking_unfolds_by_key_by_click_and_by_enter(make_app: MakeApp, engine: FakeEngine):
    engine.script(thinking("deep thought", 3), answer("42"), done())
    async with make_app().run_test() as pilot:
        await say(pilot, "?")
        await ended(pilot)
        block = pilot.app.query_one(ThinkingBlock)
        await pilot.press("ctrl+t")
        assert not block.folded
        await pilot.click(ThinkingHeader)
        await wait_until(pilot, lambda: block.folded)
        pilot.app.query_one(ThinkingHeader).focus()
        await pilot.press("enter")
        await wait_until(pilot, lambda: not block.folded)
        assert [thought.source for thought in block.query(Thought)] == ["deep thought"]
        assert block.query_one(Thought).display


async def test_help_and_the_palette_know_the_keys(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        app = pilot.app
        names = {c.title for c in app.get_system_commands(app.screen)}
        assert {"New conversation", "Models", "Conversations", "Stop", "Try again", "Quit"} <= names
        assert "Screenshot" not in names
        await pilot.press("f1")
        await wait_until(pilot, lambda: isinstance(app.screen, HelpScreen))
        await pilot.press("escape")
        await wait_until(pilot, lambda: not isinstance(app.screen, HelpScreen))


@pytest.mark.parametrize("send_key", ["enter", "ctrl+enter"])
async def test_help_tells_what_sends(make_app: MakeApp, send_key: str):
    async with make_app().run_test() as pilot:
        pilot.app.preferences.set_send_key(send_key)
        await pilot.press("f1")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))
        await pilot.pause()
        shown = str(pilot.app.screen.query_one(".text", Static).visual).splitlines()
        (sends,) = [line.split("  ")[1] for line in shown if line.endswith("  send")]
        (begins,) = [line.split("  ")[1] for line in shown if line.endswith("  new line")]
        assert "how long chats are kept" in "\n".join(shown)
    if send_key == "enter":
        assert (sends, begins) == ("Enter", "Ctrl+J, Shift+Enter")
    else:
        assert (sends, begins) == ("Ctrl+S, Ctrl+Enter", "Enter")


async def test_the_hints_of_the_status_line_can_be_clicked(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await pilot.pause()
        line = pilot.app.query_one(StatusLine)
        at = status_content(line.status, line.content_size.width).plain.index("F1")
        await pilot.click(StatusLine, offset=(at + 2, 0))
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))


async def test_an_example_goes_into_the_composer(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        await pilot.pause()
        await pilot.click(pilot.app.query(Example).first())
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text)
        assert pilot.app.query_one(Composer).has_focus


async def test_up_recalls_the_prompts_of_the_conversation(make_app: MakeApp, history: History):
    store(history, "first prompt", "a", "second prompt", "b")
    async with make_app().run_test() as pilot:
        composer = pilot.app.query_one(Composer)
        await pilot.press("ctrl+b", "enter")
        await wait_until(pilot, lambda: composer.prompts)
        await wait_until(pilot, lambda: composer.has_focus)
        await pilot.press("up")
        assert composer.text == "second prompt"
        await pilot.press("up")
        assert composer.text == "first prompt"
        await pilot.press("down", "down")
        assert composer.text == ""


async def test_light_and_dark(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        pilot.app.action_toggle_dark()
        await pilot.pause()
        assert pilot.app.theme == "localai-light"
        pilot.app.action_toggle_dark()
        assert pilot.app.theme == "localai-dark"


async def test_hostile_text_is_only_text(make_app: MakeApp, engine: FakeEngine):
    bad = (
        "[@click=app.quit]x[/] [/oops] \x1b[31m\x1b]0;t\x07 \u202eabc &#x202e; <b>tag</b> [l](javascript:x())"
    )
    table = "\n\n| [/a] | b |\n|--|--|\n| [@click=app.quit]c[/] | d |\n"
    engine.script(thinking(bad), answer(bad + table), WorkerDied(bad))
    async with make_app().run_test(size=(160, 40)) as pilot:
        await say(pilot, bad)
        await ended(pilot)
        await pilot.press("ctrl+t")
        await pilot.pause()
        shown = "\n".join(strip.text for strip in pilot.app.screen._compositor.render_strips())
        # In the list, the question, the thoughts, the answer and the error.
        assert shown.count("[@click=app.quit]x[/]") == 5
        assert "<b>tag</b>" in shown
        assert not {c for c in shown if c in "\x1b\x07\u202e"}
        assert [s.title for s in pilot.app.session.history.summaries()]


async def test_a_link_opens_nothing(make_app: MakeApp, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch):
    opened = []
    monkeypatch.setattr(ChatApp, "open_url", lambda self, url, **_: opened.append(url))
    engine.script(answer("[here](https://example.org/x)"), done())
    async with make_app().run_test() as pilot:
        await say(pilot, "a link")
        await ended(pilot)
        await pilot.pause()
        await pilot.click("Answer", offset=(1, 0))
        await wait_until(pilot, lambda: "https://example.org/x" in notices(pilot.app))
        assert opened == []


async def test_quit_in_the_middle_of_a_reply(make_app: MakeApp, engine: FakeEngine, history: History):
    engine.script(answer("half"), asyncio.Event())
    async with make_app().run_test() as pilot:
        await say(pilot, "talk")
        await wait_until(pilot, lambda: pilot.app.query(Answer) and pilot.app.query_one(Answer).source)
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: not pilot.app.is_running)
    assert (engine.cancels, engine.closed) == (1, 1)
    last = history.load(history.summaries()[0].id).branch()[-1]
    assert (last.content, last.state) == ("half", "stopped")


async def test_quit_while_loading(make_app: MakeApp, engine: FakeEngine):
    engine.load_gate = asyncio.Event()
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: engine.loads)
        await pilot.press("ctrl+q")
        await wait_until(pilot, lambda: not pilot.app.is_running)
    assert engine.closed == 1


async def test_a_list_that_cannot_be_read(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch):
    def broken(self: History, limit: int | None = None) -> list[object]:
        raise HistoryError("The file is damaged", "Restore it")

    monkeypatch.setattr(History, "summaries", broken)
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: "The file is damaged. Restore it" in notices(pilot.app))


async def test_the_filter_of_the_picker(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen))
        options = pilot.app.screen.query_one(OptionList)
        assert options.option_count == 3
        pilot.app.screen.query_one(Input).value = "reasoning q8"
        await wait_until(pilot, lambda: options.option_count == 1)
        pilot.app.screen.query_one(Input).value = "nothing like it"
        await wait_until(pilot, lambda: options.option_count == 0)
        assert "Nothing matches" in str(pilot.app.screen.query_one(".hint", Static).visual)
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, ModelsScreen)


# ---------------------------------------------------------------------------------------- impatient users


@pytest.mark.parametrize("keys", [("ctrl+n", "ctrl+n"), ("ctrl+r", "ctrl+r"), ("ctrl+n", "ctrl+r", "ctrl+n")])
async def test_keys_pressed_again_while_a_reply_is_still_being_stopped(
    make_app: MakeApp, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, ...]
):
    """A slow screen, and keys that do not wait for it, as a pilot would."""
    monkeypatch.setattr("tui.widgets.assistant_message.pause_after", lambda spent: 0.3)
    engine.script(answer("so"), asyncio.Event(), done())
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await wait_until(pilot, lambda: pilot.app.session.busy and "so" in pilot.app.query_one(Answer).source)
        for key in keys:
            pilot.app.post_message(events.Key(key, None))
            await asyncio.sleep(0)
        await wait_until(pilot, lambda: not pilot.app.session.busy and not pending(pilot.app))
        await say(pilot, "Again")
        await wait_until(pilot, lambda: "OK" in "".join(a.source for a in pilot.app.query(Answer)))


def pending(app: ChatApp) -> list[str]:
    """The work that the screen has not finished."""
    return [w.group for w in app.workers if w.group in ("reply", "navigate", "stop") and not w.is_finished]


async def test_a_question_right_behind_a_reply_does_not_cut_its_end(
    make_app: MakeApp, engine: FakeEngine, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tui.widgets.assistant_message.pause_after", lambda spent: 0.3)
    gate = asyncio.Event()
    engine.script(answer("be"), gate, answer("ginning and end"), done())
    async with make_app().run_test() as pilot:
        await ready(pilot)
        await say(pilot, "Hi")
        await wait_until(pilot, lambda: "be" in pilot.app.query_one(Answer).source)
        gate.set()
        while pilot.app.session.busy:
            await asyncio.sleep(0)
        pilot.app.query_one(Composer).put("Next")
        pilot.app.query_one(Composer).post_message(Composer.Submitted("Next"))
        await ended(pilot, replies=2)
        assert pilot.app.query(Answer).first().source == "beginning and end"
