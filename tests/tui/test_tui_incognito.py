"""Incognito by a key: nothing of it touches the disk, and nothing of it stays."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from chat_fakes import R1, Clock, FakeEngine, FakeShelf, answer, done
from conftest import NOON, wait_until
from textual.pilot import Pilot
from textual.widgets import OptionList

from localai.chat.conversation import Attachment, Conversation, Message
from localai.chat.messages import ChatMessage
from localai.engine.states import State
from localai.errors import HistoryError
from localai.history import History, Preset, StateStore
from tui.app import ChatApp
from tui.incognito import Incognito
from tui.screens.question import QuestionScreen
from tui.session import Session
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import ConversationList

MakeApp = Callable[..., ChatApp]
CANARY = "xylophone7482"


class SavingEngine(FakeEngine):
    """The state of a conversation has its words in it, as a real one has."""

    async def save(self, messages: Sequence[ChatMessage], *, limit: int | None = None) -> State | None:
        await super().save(messages, limit=limit)
        return State("r1-7b", ["\n".join(message.content for message in messages).encode()])


def store(history: History, *texts: str) -> Conversation:
    conversation = Conversation(created=NOON, updated=NOON)
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        conversation.append(Message(parent=conversation.head, role=role, content=text, created=NOON))
    history.save(conversation)
    return conversation


async def switched(pilot: Pilot[None], kept: str) -> None:
    await wait_until(pilot, lambda: pilot.app.session.kept == kept and not busy(pilot))


def busy(pilot: Pilot[None]) -> bool:
    workers = [w for w in pilot.app.workers if w.group in ("reply", "navigate") and not w.is_finished]
    return pilot.app.session.busy or bool(workers)


async def go_incognito(pilot: Pilot[None]) -> None:
    await pilot.press("f7")
    await switched(pilot, "memory")


async def say(pilot: Pilot[None], text: str) -> None:
    before = len(pilot.app.session.conversation.messages)
    pilot.app.query_one(Composer).put(text)
    await pilot.press("enter")
    await wait_until(pilot, lambda: len(pilot.app.session.conversation.messages) > before)
    await wait_until(pilot, lambda: not busy(pilot))


def titles(app: ChatApp) -> list[str]:
    listed = app.query_one(ConversationList).query_one(OptionList)
    return [str(option.prompt) for option in listed.options if not option.disabled]


def recalled(app: ChatApp) -> list[str]:
    return app.query_one(Composer).prompts


async def test_nothing_of_it_is_in_any_file(shelf: FakeShelf, tmp_path: Path):
    folder, engine = tmp_path / "data", SavingEngine()
    with History(folder / "plain.sqlite") as history:
        states = StateStore(None, folder / "states.sqlite", limit=1000)
        history.save_preset(Preset("Poet", "Write verse."))
        app = ChatApp(engine, history, shelf, model=R1.name, states=states, kept="plain")
        async with app.run_test() as pilot:
            await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
            await say(pilot, "kept question")
            await go_incognito(pilot)
            session, screen = pilot.app.session, pilot.app.screen
            for _ in range(2):
                engine.script(answer(f"{CANARY} indeed"), done())
                await say(pilot, f"Tell me of {CANARY}")
                pilot.app.query_one(Composer).restore(CANARY, (Attachment(name=CANARY, text=CANARY),))
                screen.store_draft()
                await pilot.press("ctrl+n")
                await wait_until(pilot, lambda: not session.conversation.messages and not busy(pilot))
            await wait_until(pilot, lambda: session.states.bytes > 0)
            assert [preset.name for preset in session.history.presets()] == ["Poet"]
            session.history.save_preset(Preset(CANARY, CANARY))
            session.rename(session.history.summaries()[0].id, CANARY)
            pilot.app.query_one(Composer).put(CANARY)
            await pilot.press("f7")
            await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuestionScreen))
            await pilot.press("y")
            await switched(pilot, "plain")
            await pilot.press("ctrl+q")
        states.close()
        assert [s.title for s in history.summaries()] == ["kept question"]
    found = {path.name: path.read_bytes() for path in folder.rglob("*")}
    assert [name for name, data in found.items() if CANARY.encode() in data] == []
    assert any(b"kept question" in data for data in found.values())  # it would have been found


async def test_quitting_throws_it_away(make_app: MakeApp, history: History, tmp_path: Path):
    async with make_app(kept="plain").run_test() as pilot:
        await go_incognito(pilot)
        await say(pilot, f"of {CANARY}")
        pilot.app.query_one(Composer).put(f"more of {CANARY}")
        await pilot.press("ctrl+q")
    assert history.summaries() == []
    assert [p for p in tmp_path.iterdir() if CANARY.encode() in p.read_bytes()] == []


async def test_the_screen_says_so_and_goes_back_to_where_it_was(make_app: MakeApp, history: History):
    kept = store(history, "kept question", "kept answer")
    async with make_app(kept="plain").run_test(size=(120, 40)) as pilot:
        app = pilot.app
        app.screen.open_conversation(kept.id)
        await wait_until(pilot, lambda: app.session.conversation.id == kept.id and not busy(pilot))
        await go_incognito(pilot)
        assert app.screen._status.status.notice == "incognito"
        assert titles(app) == []
        assert app.query_one(Composer).memory_only
        await say(pilot, "secret question")
        assert titles(app) == ["secret question"]
        await pilot.press("f7")
        await wait_until(pilot, lambda: isinstance(app.screen, QuestionScreen))
        await pilot.press("enter")  # the careful answer
        await wait_until(pilot, lambda: not isinstance(app.screen, QuestionScreen))
        assert app.session.kept == "memory"
        await pilot.press("f7")
        await wait_until(pilot, lambda: isinstance(app.screen, QuestionScreen))
        await pilot.press("left", "enter")
        await switched(pilot, "plain")
        assert app.session.conversation.id == kept.id
        assert titles(app) == ["kept question"]
        assert app.screen._status.status.notice == "not encrypted"
        assert not app.query_one(Composer).memory_only


async def test_without_a_message_nobody_is_asked(make_app: MakeApp):
    async with make_app(kept="plain").run_test() as pilot:
        await go_incognito(pilot)
        await pilot.press("f7")
        await switched(pilot, "plain")


async def test_drafts_and_recalled_prompts_stay_on_their_side(make_app: MakeApp, history: History):
    async with make_app(kept="plain").run_test() as pilot:
        composer = pilot.app.query_one(Composer)
        await say(pilot, "kept question")
        composer.restore("kept draft", (Attachment(name="a.py", text="pass"),))
        await go_incognito(pilot)
        assert composer.draft == ("", ())
        assert recalled(pilot.app) == []
        await say(pilot, "secret question")
        composer.put("secret draft")
        await pilot.press("f7")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuestionScreen))
        await pilot.press("y")
        await switched(pilot, "plain")
        assert composer.draft == ("kept draft", (Attachment(name="a.py", text="pass"),))
        assert recalled(pilot.app) == ["kept question"]
        await pilot.press("ctrl+z", "ctrl+z")
        assert "secret" not in composer.text


async def test_what_was_deleted_comes_back_only_where_it_was(make_app: MakeApp, history: History):
    kept = store(history, "kept question")
    async with make_app(kept="plain").run_test() as pilot:
        screen = pilot.app.screen
        screen.delete_conversation(kept.id, kept.title)
        await wait_until(pilot, lambda: screen._deleted)
        await go_incognito(pilot)
        screen.action_undo_delete()
        assert pilot.app.session.history.summaries() == []
        await say(pilot, "secret question")
        secret = pilot.app.session.conversation
        screen.delete_conversation(secret.id, secret.title)
        await wait_until(pilot, lambda: not pilot.app.session.history.summaries() and not busy(pilot))
        await pilot.press("f7")
        await switched(pilot, "plain")
        screen.action_undo_delete()
        assert history.summaries() == []


async def test_what_was_deleted_there_leaves_ctrl_z_to_the_composer_here(make_app: MakeApp, history: History):
    kept = store(history, "kept question")
    async with make_app(kept="plain").run_test() as pilot:
        pilot.app.screen.delete_conversation(kept.id, kept.title)
        await wait_until(pilot, lambda: pilot.app.screen._deleted)
        await go_incognito(pilot)
        await pilot.press("a", "b", "ctrl+z")
        assert pilot.app.query_one(Composer).text != "ab"


class Unhurried(FakeEngine):
    """Stops a reply only when `may_stop` is set."""

    def __init__(self) -> None:
        super().__init__()
        self.may_stop = asyncio.Event()

    async def cancel(self) -> None:
        await self.may_stop.wait()
        await super().cancel()


async def test_to_stay_does_not_keep_one_on_the_way_for_ever(shelf: FakeShelf, history: History):
    engine = Unhurried()
    app = ChatApp(engine, history, shelf, model=R1.name, kept="plain")
    async with app.run_test() as pilot:
        await go_incognito(pilot)
        engine.script(answer("half"), asyncio.Event(), done())
        app.query_one(Composer).put("secret question")
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.turn and app.session.turn.phase == "answering")
        await pilot.press("ctrl+n", "f7")
        await wait_until(pilot, lambda: isinstance(app.screen, QuestionScreen))
        await pilot.press("n")
        await wait_until(pilot, lambda: not isinstance(app.screen, QuestionScreen))
        engine.may_stop.set()
        await wait_until(pilot, lambda: not app.screen._going)
        assert not app.session.conversation.messages
        assert app.session.kept == "memory"


async def test_a_search_does_not_show_the_other_side(make_app: MakeApp, history: History):
    store(history, "kept question", "of lighthouses")
    async with make_app(kept="plain").run_test(size=(120, 40)) as pilot:
        await pilot.press("ctrl+f", *"lighthouse")
        await wait_until(pilot, lambda: any("of lighthouses" in title for title in titles(pilot.app)))
        await go_incognito(pilot)
        assert titles(pilot.app) == []


async def test_a_chat_that_began_incognito_stays_so(engine: FakeEngine, shelf: FakeShelf):
    with History(memory=True) as memory:
        async with ChatApp(engine, memory, shelf, model=R1.name, kept="memory").run_test() as pilot:
            await say(pilot, "question")
            await pilot.press("f7")
            await wait_until(
                pilot, lambda: any("from its start" in n.message for n in pilot.app._notifications)
            )
            assert pilot.app.session.history is memory


def test_how_it_looks(snap_compare, make_app: MakeApp, history: History):
    store(history, "kept question", "kept answer")

    async def leaving(pilot: Pilot[None]) -> None:
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
        await go_incognito(pilot)
        await say(pilot, "secret question")
        pilot.app.clear_notifications()
        await pilot.press("f7")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuestionScreen))

    assert snap_compare(make_app(kept="plain"), terminal_size=(120, 40), run_before=leaving)


# ---------------------------------------------------------------------------------------- without a screen


@pytest.fixture
async def session(history: History, shelf: FakeShelf, clock: Clock):
    made = Session(SavingEngine(), history, shelf, kept="plain", clock=clock, now=clock)
    yield made
    await made.close()


async def test_a_state_goes_where_its_conversation_was(session: Session):
    incognito = Incognito(session)
    session.choose(R1.name)
    await session.loader.ready()
    await session.ask("kept").ended()
    kept_id, kept_states = session.conversation.id, session.states
    await incognito.begin()
    await session.ask("secret").ended()
    secret_id, secret_states = session.conversation.id, session.states
    await session.new()
    await incognito.end()
    await asyncio.wait({*session._warmer._tasks})
    kept, secret = kept_states.get(kept_id), secret_states.get(secret_id)
    assert kept is not None
    assert b"kept" in kept.parts[0]
    assert kept_states.get(secret_id) is None
    assert secret is not None
    assert secret_states.get(kept_id) is None


async def test_the_conversation_that_was_left_may_be_gone(session: Session, history: History):
    incognito = Incognito(session)
    await session.ask("kept").ended()
    await incognito.begin()
    history.delete(history.summaries()[0].id)
    with pytest.raises(HistoryError, match="no conversation"):
        await incognito.end()
    assert session.history is history
    assert not session.conversation.messages
    await incognito.end()  # once more is no harm
    assert session.history is history


async def test_beginning_twice_keeps_the_way_back(session: Session, history: History):
    incognito = Incognito(session)
    await incognito.begin()
    await incognito.begin()
    await incognito.end()
    assert session.history is history
