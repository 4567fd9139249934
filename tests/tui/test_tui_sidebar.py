"""The sidebar: search, pin, rename, delete and bring back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_fakes import R1, Clock, FakeEngine, FakeShelf, answer, done
from conftest import NOON, wait_until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from localai.chat.conversation import Attachment, Conversation, Message
from localai.history import History, Summary
from tui.app import ChatApp
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import AT_MOST, ConversationList
from tui.widgets.conversation_view import AT_ONCE, ConversationView
from tui.widgets.welcome import Welcome

MakeApp = Callable[..., ChatApp]


def store(history: History, *texts: str, age: float = 60.0) -> Conversation:
    when = NOON - age
    conversation = Conversation(created=when, updated=when, model=R1.name)
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        conversation.append(Message(parent=conversation.head, role=role, content=text, created=when))
    history.save(conversation)
    return conversation


def lines(app: ChatApp) -> list[str]:
    """What the list shows, without empty lines."""
    options = app.query_one(ConversationList).query_one(OptionList).options
    return [text for option in options if (text := str(option.prompt))]


def notices(app: ChatApp) -> list[str]:
    return [n.message for n in app._notifications]


async def listed(pilot: Pilot[None], *expected: str) -> None:
    await wait_until(pilot, lambda: lines(pilot.app) == list(expected))


# ------------------------------------------------------------------------------------------------- search


async def test_titles_are_found_as_one_types(make_app: MakeApp, history: History):
    store(history, "How to bake bread", "Slowly.")
    store(history, "Why is the sky blue?", "Scattering.", age=120)
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+f", "s", "k", "y")
        await wait_until(pilot, lambda: lines(pilot.app)[0] == "Why is the sky blue?")
        assert "How to bake bread" not in lines(pilot.app)
        await pilot.press("ctrl+f", *"bread")  # instead of what was looked for before
        await wait_until(pilot, lambda: lines(pilot.app)[0] == "How to bake bread")
        await pilot.press("escape")
        await listed(pilot, "Today", "How to bake bread", "Why is the sky blue?")


async def test_messages_are_found_and_opened_where_they_are(make_app: MakeApp, history: History):
    texts = [f"m{i}" for i in range(3 * AT_ONCE)]
    texts[3] = "The flour must be sieved twice before it is used."
    long = store(history, *texts)
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+f", *"sieved")
        await wait_until(pilot, lambda: "In messages" in lines(pilot.app))
        assert "sieved" in lines(pilot.app)[1]
        await pilot.press("enter")
        view = pilot.app.query_one(ConversationView)
        await wait_until(pilot, lambda: view.selected is not None)
        assert pilot.app.session.conversation.id == long.id
        assert view.selected.message.content == texts[3]
        await wait_until(pilot, lambda: view.region.contains_region(view.selected.region))


async def test_a_match_on_another_branch_is_shown(make_app: MakeApp, history: History):
    both = store(history, "question", "walnut")
    both.head = next(iter(both.messages))
    both.append(Message(parent=both.head, role="assistant", content="almond", created=NOON))
    history.save(both)
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+f", *"walnut")
        await wait_until(pilot, lambda: "In messages" in lines(pilot.app))
        await pilot.press("enter")
        view = pilot.app.query_one(ConversationView)
        await wait_until(pilot, lambda: view.selected is not None)
        assert [w.message.content for w in view.messages] == ["question", "walnut"]


async def test_nothing_found(make_app: MakeApp, history: History):
    store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+f", *"xyz")
        await listed(pilot, "Nothing found")


async def test_down_goes_from_the_search_to_the_list(make_app: MakeApp, history: History):
    store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+f", "down")
        assert pilot.app.query_one(ConversationList).query_one(OptionList).has_focus
        await pilot.press("slash")
        assert pilot.app.query_one(".search", Input).has_focus


async def test_a_long_list_is_cut_and_says_so(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        many = [
            Summary(id=f"{i}", title=f"t{i}", model="", updated=NOON - i, message_count=1)
            for i in range(AT_MOST + 7)
        ]
        sidebar = pilot.app.query_one(ConversationList)
        sidebar.show(many, "", NOON)
        assert lines(pilot.app)[-1] == "7 older: search"
        sidebar.show(many[:AT_MOST], "", NOON, 1234)
        assert lines(pilot.app)[-1] == f"{1234 - AT_MOST:,} older: search"


# ------------------------------------------------------------------------------------------ pin and rename


async def test_pin(make_app: MakeApp, history: History):
    store(history, "new one", "a", age=60)
    store(history, "old one", "a", age=90_000)
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "down", "p")
        await listed(pilot, "Pinned", "old one", "Today", "new one")
        assert history.summaries()[0].pinned
        await pilot.press("p")
        await listed(pilot, "Today", "new one", "Yesterday", "old one")


async def test_rename(make_app: MakeApp, history: History):
    one = store(history, "question", "a")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "r")
        rename = pilot.app.query_one(".rename", Input)
        assert rename.value == "question"
        rename.value = "  Better \x1b[31m name "
        await pilot.press("enter")
        await wait_until(pilot, lambda: history.load(one.id).title != "question")
        assert "\x1b" not in history.load(one.id).title
        assert history.load(one.id).title.startswith("Better")
        assert not pilot.app.query_one(ConversationList).has_class("-renaming")
        await pilot.press("r", "x", "escape")
        await pilot.pause()
        assert history.load(one.id).title.startswith("Better")
        assert not pilot.app.query_one(ConversationList).has_class("-renaming")


async def test_a_new_title_of_the_open_conversation_stays(
    make_app: MakeApp, history: History, engine: FakeEngine
):
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.query_one(Composer).put("question")
        await pilot.press("enter")
        await wait_until(pilot, lambda: history.summaries() and not pilot.app.session.busy)
        await pilot.press("ctrl+b", "r")
        pilot.app.query_one(".rename", Input).value = "Better"
        await pilot.press("enter")
        await listed(pilot, "Today", "Better")
        pilot.app.session.choose(R1.name)  # this stores the whole conversation
        assert history.summaries()[0].title == "Better"


# ------------------------------------------------------------------------------------- delete, bring back


async def test_delete_and_bring_back(make_app: MakeApp, history: History):
    one = store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "d")
        await wait_until(pilot, lambda: not history.summaries())
        await listed(pilot, "None yet")
        assert "Deleted “question” · Ctrl+Z brings it back" in notices(pilot.app)
        await pilot.press("ctrl+z")
        await listed(pilot, "Today", "question")
        assert history.load(one.id).messages == one.messages


async def test_delete_the_open_conversation_and_bring_it_back(make_app: MakeApp, history: History):
    async with make_app().run_test(size=(120, 40)) as pilot:
        pilot.app.query_one(Composer).put("question")
        await pilot.press("enter")
        await wait_until(pilot, lambda: history.summaries() and not pilot.app.session.busy)
        await pilot.press("ctrl+b", "delete")
        await wait_until(pilot, lambda: pilot.app.screen.query(Welcome))
        assert history.summaries() == []
        await pilot.press("ctrl+z")
        view = pilot.app.query_one(ConversationView)
        await wait_until(pilot, lambda: [w.message.content for w in view.messages] == ["question", "OK"])


async def test_delete_while_its_reply_streams(make_app: MakeApp, history: History, engine: FakeEngine):
    async with make_app().run_test(size=(120, 40)) as pilot:
        engine.script(answer("half"), asyncio.Event(), done())
        pilot.app.query_one(Composer).put("question")
        await pilot.press("enter")
        await wait_until(
            pilot, lambda: pilot.app.session.turn and pilot.app.session.turn.phase == "answering"
        )
        await pilot.press("ctrl+b", "delete")
        await wait_until(pilot, lambda: not history.summaries())
        await pilot.press("ctrl+z")
        await wait_until(pilot, lambda: history.summaries())
        assert [m.content for m in history.load(history.summaries()[0].id).branch()] == ["question", "half"]


async def test_ctrl_z_is_the_composers_own_otherwise(make_app: MakeApp):
    async with make_app().run_test() as pilot:
        await pilot.press("a", "b")
        await pilot.press("ctrl+z")
        assert pilot.app.query_one(Composer).text != "ab"


async def test_a_title_beyond_the_list_is_found(
    make_app: MakeApp, history: History, monkeypatch: pytest.MonkeyPatch
):
    for module in ("tui.widgets.conversation_list", "tui.screens.parts"):
        monkeypatch.setattr(f"{module}.AT_MOST", 2)
    for number, title in enumerate(["newest", "newer", "lighthouse"]):
        conversation = store(history, "question", age=60.0 * number)
        history.rename(conversation.id, title)
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b")
        await listed(pilot, "Today", "newest", "newer", "1 older: search")
        await pilot.press("ctrl+f", *"light")
        await listed(pilot, "lighthouse")
        await pilot.press("escape")
        await listed(pilot, "Today", "newest", "newer", "1 older: search")


# -------------------------------------------------------------------------------------------------- draft


async def test_what_was_being_written_is_there_after_a_restart(make_app: MakeApp, history: History):
    async with make_app().run_test() as pilot:
        await pilot.press(*"half a th")
        await pilot.press("ctrl+q")
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text == "half a th")


async def test_attached_files_are_there_after_a_restart(make_app: MakeApp, history: History):
    file = Attachment(name="a.py", text="pass")
    async with make_app().run_test() as pilot:
        pilot.app.query_one(Composer).row.put_back([file])
        await pilot.press("ctrl+q")
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).draft == ("", (file,)))
        await pilot.press("backspace", "ctrl+q")
    async with make_app().run_test() as pilot:
        await pilot.pause()
        assert pilot.app.query_one(Composer).draft == ("", ())


async def test_an_attached_file_is_stored_without_a_word_typed(
    make_app: MakeApp, history: History, tmp_path: Path
):
    (tmp_path / "a.py").write_text("pass")
    async with make_app().run_test() as pilot:
        pilot.app.query_one(Composer).attach([tmp_path / "a.py"])
        await wait_until(pilot, lambda: history.draft().attachments)
        pilot.app.screen.action_new_conversation()
        await wait_until(pilot, lambda: not pilot.app.screen._going)
        assert [file.name for file in pilot.app.query_one(Composer).draft[1]] == ["a.py"]


async def test_a_draft_that_cannot_be_stored_is_not_lost(make_app: MakeApp, history: History):
    one = store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        composer, screen = pilot.app.query_one(Composer), pilot.app.screen
        history._db.execute(f"PRAGMA max_page_count = {history._db.pragma('page_count')}")
        composer.put("word " * 20_000)
        screen.open_conversation(one.id)
        await wait_until(pilot, lambda: pilot.app.session.conversation.id == one.id and not screen._going)
        assert composer.text == ""
        await pilot.press("ctrl+n")
        await wait_until(pilot, lambda: composer.text == "word " * 20_000)
        assert any("disk is full" in notice for notice in notices(pilot.app))
        history._db.execute("PRAGMA max_page_count = 100000")
        screen.store_draft()
        assert history.draft().text == "word " * 20_000


async def test_every_conversation_has_its_own_draft(make_app: MakeApp, history: History):
    one = store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        pilot.app.query_one(Composer).put("for a new one")
        pilot.app.screen.open_conversation(one.id)
        await wait_until(pilot, lambda: pilot.app.session.conversation.id == one.id)
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text == "")
        pilot.app.query_one(Composer).put("for this one")
        await pilot.press("ctrl+n")
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text == "for a new one")
        assert history.draft(one.id).text == "for this one"


async def test_a_question_that_was_sent_is_no_draft(make_app: MakeApp, history: History):
    async with make_app().run_test() as pilot:
        await pilot.press(*"question")
        pilot.app.screen.store_draft()  # as after a pause
        assert history.draft("").text == "question"
        await pilot.press("enter")
        await wait_until(pilot, lambda: history.summaries() and not pilot.app.session.busy)
        await pilot.press("ctrl+q")
    assert history.draft("").text == ""
    assert history.draft(history.summaries()[0].id).text == ""


async def test_an_edit_is_no_draft(make_app: MakeApp, history: History):
    async with make_app().run_test() as pilot:
        pilot.app.query_one(Composer).put("question")
        await pilot.press("enter")
        await wait_until(pilot, lambda: history.summaries() and not pilot.app.session.busy)
        pilot.app.query_one(Composer).put("what I was at")
        await pilot.press("ctrl+up", "up", "e")
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).text == "question")
        await pilot.press("ctrl+q")
    assert history.draft(history.summaries()[0].id).text == "what I was at"


async def test_what_is_typed_on_the_way_to_another_conversation_is_not_lost(
    make_app: MakeApp, engine: FakeEngine, history: History
):
    app = make_app()
    async with app.run_test() as pilot:
        composer = app.query_one(Composer)
        composer.put("old draft")
        await pilot.press("ctrl+n", *"Hello")
        await wait_until(pilot, lambda: composer.text == "old draftHello")
        engine.script(answer("Hi."), done())
        composer.put("A question")
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.conversation.messages and not app.session.busy)
        first = app.session.conversation.id
        composer.put("unfinished")
        await pilot.press("ctrl+n", *"Hello")
        await wait_until(pilot, lambda: composer.text == "Hello" and app.session.conversation.id != first)
        assert history.draft(first).text == "unfinished"
        app.screen.open_conversation(first)
        await wait_until(pilot, lambda: composer.text == "unfinished")


# ------------------------------------------------------------------------------------ on the way elsewhere


class Unhurried(FakeEngine):
    """Stops a reply only when `may_stop` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may_stop = asyncio.Event()

    async def cancel(self) -> None:
        await self.may_stop.wait()
        await super().cancel()


@pytest.fixture
def slow(history: History, shelf: FakeShelf, clock: Clock) -> ChatApp:
    """A chat in which one is on the way to another conversation until the engine has stopped."""
    return ChatApp(Unhurried(), history, shelf, model=R1.name, clock=clock, now=lambda: NOON)


async def streaming(pilot: Pilot[None]) -> str:
    """A conversation whose reply streams; with an idea for a new one beside it."""
    app = pilot.app
    app.session.engine.script(answer("half"), asyncio.Event(), done())
    app.query_one(Composer).put("question")
    await pilot.press("enter")
    await wait_until(pilot, lambda: app.session.turn and app.session.turn.phase == "answering")
    app.session.history.put_draft("", "idea ")
    return app.session.conversation.id


async def arrived(pilot: Pilot[None]) -> None:
    pilot.app.session.engine.may_stop.set()
    await wait_until(pilot, lambda: not pilot.app.screen._going)


async def test_what_is_done_on_the_way_does_not_end_it(slow: ChatApp, history: History):
    other = store(history, "other", "answer")
    async with slow.run_test(size=(120, 40)) as pilot:
        left = await streaming(pilot)
        screen, composer = slow.screen, slow.query_one(Composer)
        await pilot.press("ctrl+n", *"abc")
        screen.delete_conversation(other.id, other.title)
        await wait_until(pilot, lambda: [s.id for s in history.summaries()] == [left])
        screen.action_regenerate()
        screen.action_go_on()
        screen.action_branch(-1)
        screen.action_edit_message()
        assert screen._going
        await arrived(pilot)
        assert not slow.session.conversation.messages
        assert composer.text == "idea abc"
        assert len(slow.session.engine.prompts) == 1
        assert len(history.load(left).messages) == 2
        composer.put("idea abc and more")
        await pilot.press("ctrl+q")
    assert history.draft("").text == "idea abc and more"


@pytest.mark.parametrize("to_new", [True, False])
async def test_what_was_typed_on_the_way_is_there_after_a_restart(
    slow: ChatApp, history: History, to_new: bool
):
    other = store(history, "other", "answer")
    history.put_draft(other.id, "idea ")
    async with slow.run_test() as pilot:
        await streaming(pilot)
        if to_new:
            slow.screen.action_new_conversation()
        else:
            slow.screen.open_conversation(other.id)
        await pilot.press(*"abc", "ctrl+q")
        slow.session.engine.may_stop.set()
    assert history.draft("" if to_new else other.id).text == "idea abc"


async def test_who_changes_their_mind_on_the_way_loses_nothing(slow: ChatApp, history: History):
    other = store(history, "other", "answer")
    async with slow.run_test() as pilot:
        left = await streaming(pilot)
        slow.query_one(Composer).put("unsent")
        await pilot.press("ctrl+n", *"abc")
        slow.screen.open_conversation(other.id)
        await arrived(pilot)
        assert slow.session.conversation.id == other.id
        assert slow.query_one(Composer).text == "abc"
        assert (history.draft(left).text, history.draft("").text) == ("unsent", "idea ")


async def test_a_message_sent_on_the_way_waits_for_its_conversation(slow: ChatApp, history: History):
    async with slow.run_test() as pilot:
        left = await streaming(pilot)
        history.put_draft("", "")
        await pilot.press("ctrl+n", *"next", "enter")
        await wait_until(pilot, lambda: any("not open yet" in notice for notice in notices(slow)))
        await arrived(pilot)
        assert slow.query_one(Composer).text == "next"
        assert len(history.load(left).messages) == 2
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(slow.session.engine.prompts) == 2)
        assert [message.content for message in slow.session.engine.prompts[-1]] == ["next"]


async def test_to_go_on_does_not_save_a_conversation_from_its_deletion(slow: ChatApp, history: History):
    async with slow.run_test() as pilot:
        left = await streaming(pilot)
        slow.screen.delete_conversation(left, "question")
        await pilot.press("ctrl+r", "ctrl+n", *"abc")
        slow.session.engine.may_stop.set()
        await wait_until(pilot, lambda: not history.summaries() and not slow.screen._going)
        await wait_until(pilot, lambda: slow.query_one(Composer).text == "idea abc")


async def test_a_draft_goes_and_comes_back_with_its_conversation(make_app: MakeApp, history: History):
    one = store(history, "question", "answer")
    async with make_app().run_test(size=(120, 40)) as pilot:
        composer, screen = pilot.app.query_one(Composer), pilot.app.screen
        history.put_draft("", "idea")
        composer.restore("")
        screen.open_conversation(one.id)
        await wait_until(pilot, lambda: pilot.app.session.conversation.id == one.id and not screen._going)
        history.put_draft("", "idea")
        composer.put("unsent")
        screen.delete_conversation(one.id, one.title)
        await wait_until(pilot, lambda: not history.summaries() and composer.text == "idea")
        await pilot.press("ctrl+z")
        await wait_until(pilot, lambda: composer.text == "unsent")
        assert pilot.app.session.conversation.id == one.id
        assert history.draft("").text == "idea"


# ----------------------------------------------------------------------------------------- what is too old


async def settled(pilot: Pilot[None]) -> None:
    await pilot.pause()
    await wait_until(pilot, lambda: all(worker.is_finished for worker in pilot.app.workers))


async def test_old_ones_go_only_at_the_start_and_when_that_is_changed(make_app: MakeApp, history: History):
    history.set_setting("keep_days", "7")
    async with make_app().run_test() as pilot:
        await settled(pilot)
        old = store(history, "question", "answer", age=8 * 86_400)
        pilot.app.screen.action_thinking_mode()
        await settled(pilot)
        assert [s.id for s in history.summaries()] == [old.id]


async def test_who_writes_when_an_old_conversation_goes_can_go_on(make_app: MakeApp, history: History):
    old = store(history, "question", "answer", age=8 * 86_400)
    async with make_app().run_test() as pilot:
        composer, screen = pilot.app.query_one(Composer), pilot.app.screen
        screen.open_conversation(old.id)
        await wait_until(pilot, lambda: pilot.app.session.conversation.id == old.id and not screen._going)
        composer.put("unsent")
        pilot.app.preferences.set_keep_days(7)
        screen._apply_preferences()
        await wait_until(pilot, lambda: not history.summaries() and not screen._going)
        await wait_until(pilot, lambda: not pilot.app.session.conversation.messages)
        await wait_until(pilot, lambda: composer.text == "unsent")


async def test_what_was_just_unpinned_or_brought_back_stays_a_while(make_app: MakeApp, history: History):
    old = store(history, "question", "answer", age=40 * 86_400)
    old.pinned = True
    history.save(old)
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "p")
        await wait_until(pilot, lambda: not history.summaries()[0].pinned)
        assert pilot.app.preferences.old(30) == []
        history.delete(old.id)
        history.save(old)
        history.pin(old.id, False, 1)
        assert pilot.app.preferences.old(30) == [old.id]
        pilot.app.screen.delete_conversation(old.id, old.title)
        await wait_until(pilot, lambda: not history.summaries())
        await pilot.press("ctrl+z")
        await wait_until(pilot, lambda: history.summaries())
        assert pilot.app.preferences.old(30) == []
