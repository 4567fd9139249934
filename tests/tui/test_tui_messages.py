"""What a user does with single messages: select, edit, try again, walk the branches, copy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from chat_fakes import R1, FakeEngine, answer, done, thinking
from conftest import wait_until
from textual.pilot import Pilot

from localai.chat.conversation import Conversation, Message
from localai.history import History
from tui.app import ChatApp
from tui.clipboard import as_markdown, code_blocks, hand_over, tool
from tui.widgets.assistant_message import AssistantMessage
from tui.widgets.composer import Composer
from tui.widgets.conversation_view import AT_ONCE, ConversationView
from tui.widgets.edit_notice import EditNotice
from tui.widgets.message import ActionRow, MessageWidget
from tui.widgets.user_message import UserMessage

MakeApp = Callable[..., ChatApp]
CODE = "One:\n\n```python\nprint(1)\n```\n\nTwo:\n\n```sh\nls\n```\n"


def texts(app: ChatApp) -> list[str]:
    """What the screen shows, message by message."""
    return [w.message.content for w in app.query_one(ConversationView).messages]


def rows(app: ChatApp) -> list[str]:
    """The lines below the messages."""
    return [str(row.render()).strip() for row in app.query(ActionRow)]


def notices(app: ChatApp) -> list[str]:
    return [n.message for n in app._notifications]


def selected(app: ChatApp) -> str:
    widget = app.query_one(ConversationView).selected
    return widget.message.content if widget is not None else ""


async def settled(pilot: Pilot[None]) -> None:
    app = pilot.app

    def over() -> bool:
        workers = [w for w in app.workers if w.group in ("reply", "navigate") and not w.is_finished]
        return not app.session.busy and not workers

    await pilot.pause()
    await wait_until(pilot, over)


async def say(pilot: Pilot[None], text: str) -> None:
    pilot.app.query_one(Composer).put(text)
    await pilot.press("enter")
    await wait_until(pilot, lambda: pilot.app.session.conversation.messages)
    await settled(pilot)


async def chat(pilot: Pilot[None], engine: FakeEngine) -> None:
    """Two questions with their replies: one, first; two, second."""
    engine.script(answer("first"), done())
    engine.script(answer("second"), done())
    await say(pilot, "one")
    await say(pilot, "two")
    assert texts(pilot.app) == ["one", "first", "two", "second"]


def everything(history: History) -> list[str]:
    """All that is stored of the only conversation, the branches that are not shown included."""
    return [m.content for m in history.load(history.summaries()[0].id).messages.values()]


# ------------------------------------------------------------------------------------------------- select


@pytest.mark.parametrize("key", ["ctrl+up", "alt+up", "shift+tab"])
async def test_keys_go_from_message_to_message(make_app: MakeApp, engine: FakeEngine, key: str):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        await pilot.press(key)
        assert selected(pilot.app) == "second"
        await pilot.press("up")
        assert selected(pilot.app) == "two"
        await pilot.press("k", "k", "k", "k")
        assert selected(pilot.app) == "one"
        await pilot.press("down", "j", "down")
        assert selected(pilot.app) == "second"
        await pilot.press("down")
        assert pilot.app.query_one(Composer).has_focus


async def test_only_the_selected_message_says_what_can_be_done(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        assert rows(pilot.app) == ["", "", "", ""]
        await pilot.press("ctrl+up")
        assert rows(pilot.app) == ["", "", "", "R try again  C copy"]
        await pilot.press("up")
        assert rows(pilot.app) == ["", "", "E edit  C copy", ""]
        await pilot.press("escape")
        assert rows(pilot.app) == ["", "", "", ""]
        assert pilot.app.query_one(Composer).has_focus


async def test_selecting_moves_no_text(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        before = [w.region for w in pilot.app.query(MessageWidget)]
        await pilot.press("ctrl+up", "up")
        await pilot.pause()
        assert [w.region for w in pilot.app.query(MessageWidget)] == before


async def test_a_click_selects_and_a_click_on_an_action_does_it(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        await pilot.click(UserMessage)
        assert selected(pilot.app) == "one"
        assert await pilot.click(pilot.app.query(ActionRow).first(), offset=(3, 0))
        await wait_until(pilot, lambda: pilot.app.query_one(EditNotice).display)
        assert pilot.app.query_one(Composer).text == "one"


async def test_escape_first_leaves_the_message_then_stops_the_reply(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        engine.script(answer("slow"), asyncio.Event())
        pilot.app.query_one(Composer).put("one")
        await pilot.press("enter")
        await wait_until(pilot, lambda: pilot.app.query(AssistantMessage))
        await pilot.press("ctrl+up", "escape")
        await pilot.pause()
        assert pilot.app.session.busy
        await pilot.press("escape")
        await settled(pilot)


async def test_going_up_brings_earlier_messages(make_app: MakeApp, history: History):
    conversation = Conversation(model=R1.name)
    for i in range(2 * AT_ONCE):
        role = "assistant" if i % 2 else "user"
        conversation.append(Message(parent=conversation.head, role=role, content=f"m{i}"))
    history.save(conversation)
    async with make_app().run_test() as pilot:
        pilot.app.screen.open_conversation(conversation.id)
        await wait_until(pilot, lambda: len(texts(pilot.app)) == AT_ONCE)
        await pilot.press("ctrl+up", *["up"] * AT_ONCE)
        assert selected(pilot.app) == f"m{AT_ONCE - 1}"


# --------------------------------------------------------------------------------------------------- edit


async def test_an_edit_is_a_branch_and_the_old_one_is_kept(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        pilot.app.query_one(Composer).put("unsent")
        await pilot.press("ctrl+up", "up", "up", "up", "e")
        composer = pilot.app.query_one(Composer)
        assert composer.has_focus
        assert composer.text == "one"
        engine.script(answer("uno"), done())
        await say(pilot, "eins")
        assert texts(pilot.app) == ["eins", "uno"]
        assert rows(pilot.app)[0] == "‹ 2/2 ›"
        assert composer.text == "unsent"
        assert not pilot.app.query_one(EditNotice).display
        assert everything(history) == ["one", "first", "two", "second", "eins", "uno"]
        assert [m.content for m in engine.prompts[-1]] == ["eins"]


async def test_e_on_a_reply_edits_its_question(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        await pilot.press("ctrl+up", "up", "up", "e")
        assert pilot.app.query_one(Composer).text == "one"


async def test_r_on_a_question_is_another_reply_to_it(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        engine.script(answer("premier"), done())
        await pilot.press("ctrl+up", "up", "up", "up", "r")
        await wait_until(pilot, lambda: texts(pilot.app) == ["one", "premier"])
        await settled(pilot)
        assert [m.content for m in engine.prompts[-1]] == ["one"]


async def test_an_edit_that_is_left_changes_nothing(make_app: MakeApp, engine: FakeEngine, history: History):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        pilot.app.query_one(Composer).put("unsent")
        await pilot.press("ctrl+up", "up", "e")
        await pilot.press("escape")
        await wait_until(pilot, lambda: not pilot.app.query_one(EditNotice).display)
        assert pilot.app.query_one(Composer).text == "unsent"
        assert everything(history) == ["one", "first", "two", "second"]


async def test_an_edit_in_the_middle_keeps_what_stands_before(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        first = pilot.app.query(UserMessage).first()
        await pilot.press("ctrl+up", "up", "e")
        engine.script(answer("deux"), done())
        await say(pilot, "zwei")
        assert texts(pilot.app) == ["one", "first", "zwei", "deux"]
        assert pilot.app.query(UserMessage).first() is first  # not even painted anew
        assert [m.content for m in engine.prompts[-1]] == ["one", "first", "zwei"]


async def test_an_edit_while_a_reply_streams_stops_and_keeps_it(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    async with make_app().run_test() as pilot:
        engine.script(thinking("hm"), answer("half an answer"), asyncio.Event())
        pilot.app.query_one(Composer).put("one")
        await pilot.press("enter")
        await wait_until(
            pilot, lambda: pilot.app.session.turn and pilot.app.session.turn.phase == "answering"
        )
        await pilot.press("ctrl+up", "up", "e")
        engine.script(answer("uno"), done())
        await say(pilot, "eins")
        assert texts(pilot.app) == ["eins", "uno"]
        stored = history.load(history.summaries()[0].id)
        assert [(m.content, m.state) for m in stored.messages.values()] == [
            ("one", "complete"),
            ("half an answer", "stopped"),
            ("eins", "complete"),
            ("uno", "complete"),
        ]


async def test_an_edit_that_cannot_be_stored_stays_in_the_composer(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        await pilot.press("ctrl+up", "up", "e")
        history.delete(pilot.app.session.conversation.id)
        await say(pilot, "zwei")
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text == "zwei")
        assert pilot.app.query_one(EditNotice).display
        assert texts(pilot.app) == ["one", "first", "two", "second"]


# ----------------------------------------------------------------------------- another reply, and branches


async def test_try_again_in_the_middle(make_app: MakeApp, engine: FakeEngine, history: History):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        await pilot.press("ctrl+up", "up", "up")
        engine.script(answer("other"), done())
        await pilot.press("r")
        await settled(pilot)
        assert texts(pilot.app) == ["one", "other"]
        assert rows(pilot.app)[1] == "‹ 2/2 ›"
        assert everything(history) == ["one", "first", "two", "second", "other"]
        assert pilot.app.query_one(Composer).has_focus


async def test_walking_the_branches(make_app: MakeApp, engine: FakeEngine, history: History):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        await pilot.press("ctrl+up", "up", "up")
        engine.script(answer("other"), done())
        await pilot.press("r")
        await settled(pilot)
        await pilot.press("ctrl+up", "left")
        await settled(pilot)
        assert texts(pilot.app) == ["one", "first", "two", "second"]
        assert selected(pilot.app) == "first"
        assert rows(pilot.app)[1].startswith("‹ 1/2 ›")
        assert history.load(pilot.app.session.conversation.id).branch()[-1].content == "second"
        await pilot.press("left")  # there is none before the first
        await settled(pilot)
        assert selected(pilot.app) == "first"
        await pilot.press("right")
        await settled(pilot)
        assert texts(pilot.app) == ["one", "other"]
        assert selected(pilot.app) == "other"
        assert history.load(pilot.app.session.conversation.id).branch()[-1].content == "other"


async def test_walking_away_from_a_reply_that_streams_keeps_it(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    async with make_app().run_test() as pilot:
        engine.script(answer("first"), done())
        await say(pilot, "one")
        engine.script(answer("half"), asyncio.Event())
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: pilot.app.session.turn.phase == "answering")
        await pilot.press("ctrl+up", "left")
        await settled(pilot)
        assert texts(pilot.app) == ["one", "first"]
        assert everything(history) == ["one", "first", "half"]


async def test_a_click_walks_the_branches(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        engine.script(answer("first"), done())
        await say(pilot, "one")
        engine.script(answer("other"), done())
        await pilot.press("ctrl+r")
        await settled(pilot)
        assert await pilot.click(pilot.app.query(ActionRow).last(), offset=(0, 0))
        await settled(pilot)
        assert texts(pilot.app) == ["one", "first"]


# --------------------------------------------------------------------------------------------------- copy


async def test_copy_the_selected_message(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        await pilot.press("ctrl+up", "up", "c")
        assert pilot.app.clipboard == "two"
        await pilot.press("down", "c")
        assert pilot.app.clipboard == "second"


async def test_copying_removes_what_acts_on_a_terminal(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        engine.script(answer("a\x1b[31mb\x07"), done())
        await say(pilot, "one")
        await pilot.press("ctrl+up", "c")
        assert "\x1b" not in pilot.app.clipboard
        assert "\x07" not in pilot.app.clipboard


async def test_copy_code_goes_from_block_to_block(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        engine.script(answer(CODE), done())
        await say(pilot, "one")
        await pilot.press("ctrl+up")
        assert "B copy code" in rows(pilot.app)[1]
        copied = []
        for _ in range(3):
            await pilot.press("b")
            copied.append(pilot.app.clipboard)
        assert copied == ["print(1)\n", "ls\n", "print(1)\n"]
        assert "Code block 2 is copied: ls · B again copies the next of 2." in notices(pilot.app)


async def test_copy_the_conversation(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        pilot.app.screen.action_copy_conversation()
        assert pilot.app.clipboard == (
            f"# one\n\n## You\n\none\n\n## {R1.name}\n\nfirst\n\n## You\n\ntwo\n\n## {R1.name}\n\nsecond\n"
        )


async def test_a_selection_of_the_mouse_is_copied(make_app: MakeApp, engine: FakeEngine):
    async with make_app().run_test() as pilot:
        await chat(pilot, engine)
        said = pilot.app.query(".said").first()
        await pilot.mouse_down(said, offset=(1, 0))
        await pilot.hover(said, offset=(4, 0))
        await pilot.mouse_up(said, offset=(4, 0))
        await pilot.pause()
        await pilot.press("ctrl+c")
        assert pilot.app.clipboard == "one"


def test_code_blocks():
    assert code_blocks(CODE) == ["print(1)\n", "ls\n"]
    assert code_blocks("none `here`") == []


def test_markdown_of_a_branch():
    conversation = Conversation(title="t")
    conversation.append(Message(parent=None, role="user", content="q"))
    conversation.append(Message(parent=conversation.head, role="assistant", content="a", thinking="secret"))
    assert as_markdown(conversation) == "# t\n\n## You\n\nq\n\n## Reply\n\na\n"


def test_the_tool_of_the_system(tmp_path):
    for name in ("wl-copy", "xclip", "tmux"):
        (tmp_path / name).write_text("#!/bin/sh\n")
        (tmp_path / name).chmod(0o755)
    path = {"PATH": str(tmp_path)}
    assert tool(path) == ()
    assert tool(path | {"DISPLAY": ":0"})[0] == "xclip"
    assert tool(path | {"DISPLAY": ":0", "WAYLAND_DISPLAY": "w"})[0] == "wl-copy"
    assert tool(path | {"DISPLAY": ":0", "SSH_CONNECTION": "1"}) == ()
    assert tool(path | {"DISPLAY": ":0", "TMUX": "t"})[0] == "xclip"
    assert tool(path | {"DISPLAY": ":0", "TMUX": "t", "SSH_CONNECTION": "1"})[0] == "tmux"


def test_the_tool_gets_the_text_from_its_standard_input(tmp_path):
    taken = tmp_path / "taken"
    assert hand_over("é✓", ["sh", "-c", f"cat > {taken}"])
    assert taken.read_text(encoding="utf-8") == "é✓"
    assert not hand_over("x", ["sh", "-c", "exit 1"])
    assert not hand_over("x", [str(tmp_path / "none")])


# -------------------------------------------------------------------------------------------------- go on


async def test_a_cut_reply_goes_on_by_a_key_in_a_branch_beside_it(make_app: MakeApp, engine: FakeEngine):
    engine.script(answer("The cat"), done("length"))
    engine.script(answer(" sat."), done())
    app = make_app()
    async with app.run_test() as pilot:
        await say(pilot, "Tell me.")
        await pilot.press("ctrl+up")
        assert "G go on" in rows(app)[-1]
        await pilot.press("g")
        await settled(pilot)
        await wait_until(pilot, lambda: texts(app) == ["Tell me.", "The cat sat."])
        assert "‹ 2/2 ›" in rows(app)[-1]
        await pilot.press("ctrl+up")
        assert "go on" not in rows(app)[-1]
        await pilot.press("left")
        await settled(pilot)
        assert texts(app) == ["Tell me.", "The cat"]
