"""What the engine is given beforehand: drafts, and states of the cache that a change of model would lose."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_fakes import NANO, R1, Clock, FakeEngine, FakeShelf, answer, done, loaded

from localai.chat.conversation import Conversation, Message
from localai.engine.states import State, StateCache
from localai.errors import EngineError, WorkerDied
from localai.history import History, StateStore
from tui.session import Session
from tui.warmer import WORTH_READING

DRAFT = "What is the best way to learn the piano"
STATE = State("r1-7b", [b"cache"])


@pytest.fixture
async def session(engine: FakeEngine, history: History, shelf: FakeShelf, clock: Clock):
    made = Session(engine, history, shelf, clock=clock, now=clock)
    yield made
    await made.close()


async def until(condition: Callable[[], object]) -> None:
    """Let the loop run until `condition` holds; states come from a thread, all else needs only turns."""
    for _ in range(5000):
        if condition():
            return
        await asyncio.sleep(0.001)
    raise AssertionError("the condition did not come true")


async def idle(session: Session) -> None:
    """Let all that was begun in the background end."""
    await until(lambda: not session._warmer._tasks)


async def talk(session: Session, text: str = "hello") -> None:
    await session.ask(text).ended()


def store(history: History, *texts: str) -> Conversation:
    conversation = Conversation()
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        conversation.append(Message(parent=conversation.head, role=role, content=text))
    history.save(conversation)
    return conversation


def contents(prompt: list) -> list[tuple[str, str]]:
    return [(m.role, m.content) for m in prompt]


# -------------------------------------------------------------------------------------------------- drafts


async def test_a_draft_is_read_behind_the_conversation(session: Session, engine: FakeEngine):
    session.choose(R1.name)
    await talk(session)
    session.draft(DRAFT)
    await idle(session)
    assert contents(engine.prefills[-1]) == [("user", "hello"), ("assistant", "OK"), ("user", DRAFT)]
    assert len(session.conversation.messages) == 2
    assert session.conversation.head == session.turn.message.id


async def test_a_draft_is_read_again_when_it_has_grown(session: Session, engine: FakeEngine):
    session.choose(R1.name)
    await session.loader.ready()
    for text in (DRAFT, DRAFT + "x" * (WORTH_READING - 1), DRAFT[:10], DRAFT):
        session.draft(text)
        await idle(session)
    assert [p[-1].content for p in engine.prefills] == [DRAFT]
    for text in (DRAFT + "x" * WORTH_READING, "y" + DRAFT):
        session.draft(text)
        await idle(session)
    assert [p[-1].content for p in engine.prefills[1:]] == [DRAFT + "x" * WORTH_READING, "y" + DRAFT]


async def test_after_a_reply_the_same_draft_is_news(session: Session, engine: FakeEngine):
    session.choose(R1.name)
    await session.loader.ready()
    session.draft(DRAFT)
    await idle(session)
    await talk(session)
    session.draft(DRAFT)
    await idle(session)
    assert [len(p) for p in engine.prefills] == [1, 3]


async def test_a_draft_joins_a_question_that_has_no_reply(session: Session, engine: FakeEngine):
    engine.script(WorkerDied("gone"))
    session.choose(R1.name)
    await talk(session, "first")
    session.draft(DRAFT)
    await idle(session)
    assert contents(engine.prefills[-1]) == [("user", f"first\n\n{DRAFT}")]


async def test_no_draft_without_a_model_or_while_busy(session: Session, engine: FakeEngine):
    session.draft(DRAFT)
    await idle(session)
    gate = asyncio.Event()
    engine.script(answer("a"), gate, done())
    session.choose(R1.name)
    turn = session.ask("hello")
    await until(lambda: turn.phase == "answering")
    session.draft(DRAFT)
    await idle(session)
    assert engine.prefills == []
    gate.set()
    await turn.ended()


async def test_a_draft_that_a_question_overtakes_is_not_read(session: Session, engine: FakeEngine):
    session.choose(R1.name)
    await session.loader.ready()
    session.draft(DRAFT)
    turn = session.ask(DRAFT)
    await turn.ended()
    assert "prefill" not in engine.calls


async def test_an_opened_conversation_is_read(session: Session, engine: FakeEngine, history: History):
    stored = store(history, "old question", "old answer")
    session.choose(R1.name)
    await session.loader.ready()
    assert engine.prefills == []
    await session.open(stored.id)
    await idle(session)
    assert contents(engine.prefills[0]) == [
        ("user", "old question"),
        ("assistant", "old answer"),
        ("user", ""),
    ]


async def test_a_conversation_opened_while_the_model_loads_is_read_then(
    session: Session, engine: FakeEngine, history: History
):
    stored = store(history, "old question", "old answer")
    engine.load_gate = asyncio.Event()
    session.choose(R1.name)
    await session.open(stored.id)
    assert engine.prefills == []
    engine.load_gate.set()
    await session.loader.ready()
    assert [p[0].content for p in engine.prefills] == ["old question"]


# -------------------------------------------------------------------------------------------------- states


async def test_a_state_is_saved_before_the_model_goes_and_given_back_when_it_returns(
    session: Session, engine: FakeEngine
):
    state = State(engine.default.fingerprint, [b"cache"])
    engine.will_save = [state]
    session.choose(R1.name)
    await talk(session)
    engine.will_load = [loaded(fingerprint="nano")]
    session.choose(NANO.name)
    await session.loader.ready()
    assert contents(engine.saves[0]) == [("user", "hello"), ("assistant", "OK")]
    assert engine.restores == []
    session.choose(R1.name)
    await session.loader.ready()
    assert engine.restores == [state]
    assert engine.calls == [
        "load",
        "generate",
        "save",
        "load",
        "prefill",
        "save",
        "load",
        "restore",
        "prefill",
    ]


async def test_a_state_is_given_back_to_each_model_once(
    session: Session, engine: FakeEngine, history: History
):
    stored = store(history, "old question", "old answer")
    state = State(engine.default.fingerprint, [b"cache"])
    session.states.put(stored.id, state)
    session.choose(R1.name)
    await session.loader.ready()
    for _ in range(2):
        await session.open(stored.id)
        await idle(session)
        await session.new()
    assert engine.restores == [state]


async def test_without_a_complete_reply_nothing_is_saved(session: Session, engine: FakeEngine):
    engine.script(answer("half"), WorkerDied("gone"))
    session.choose(R1.name)
    await talk(session)
    session.choose(NANO.name)
    await session.loader.ready()
    assert "save" not in engine.calls


async def test_a_question_waits_for_the_state(session: Session, engine: FakeEngine, history: History):
    stored = store(history, "old question", "old answer")
    session.states.put(stored.id, State(engine.default.fingerprint, [b"cache"]))
    engine.restore_gate = asyncio.Event()
    session.choose(R1.name)
    await session.loader.ready()
    await session.open(stored.id)
    assert session.conversation.id == stored.id
    turn = session.ask("more")
    await until(lambda: "restore" in engine.calls)
    for _ in range(20):
        await asyncio.sleep(0)
    assert (engine.prompts, turn.phase) == ([], "waiting")
    engine.restore_gate.set()
    await turn.ended()
    assert engine.calls == ["load", "restore", "generate"]


async def test_errors_of_states_are_nobodys_business(session: Session, engine: FakeEngine):
    engine.will_save = [State(engine.default.fingerprint, [b"cache"]), EngineError("no")]
    engine.restore_error = WorkerDied("gone")
    engine.will_load = [loaded(), loaded(fingerprint="nano")]
    session.choose(R1.name)
    await talk(session)
    for name in (NANO.name, R1.name):
        session.choose(name)
        await session.loader.ready()
    assert engine.calls.count("save") == 2
    assert engine.calls.count("restore") == 1
    await talk(session, "again")
    assert session.turn.message.state == "complete"


async def test_a_deleted_conversation_leaves_no_state(session: Session, engine: FakeEngine, history: History):
    stored = store(history, "old question", "old answer")
    session.states.put(stored.id, State(engine.default.fingerprint, [b"cache"]))
    await session.delete(stored.id)
    assert session.states.get(stored.id) is None


async def test_close_does_not_wait_for_a_state(session: Session, engine: FakeEngine, history: History):
    stored = store(history, "old question", "old answer")
    session.states.put(stored.id, State(engine.default.fingerprint, [b"cache"]))
    engine.restore_gate = asyncio.Event()
    session.choose(R1.name)
    await session.loader.ready()
    await session.open(stored.id)
    await until(lambda: "restore" in engine.calls)
    await session.close()
    assert not session._warmer._tasks


# ------------------------------------------------------------------------------------------------- the file


async def test_what_was_read_is_kept_when_a_conversation_is_left_and_there_after_a_restart(
    engine: FakeEngine, history: History, shelf: FakeShelf, clock: Clock, tmp_path: Path
):
    states = StateStore(b"k" * 32, tmp_path / "states.sqlite")
    session = Session(engine, history, shelf, states=states, clock=clock, now=clock)
    session.choose(R1.name)
    await session.loader.ready()
    await talk(session)
    left = session.conversation.id
    engine.will_save = [STATE]
    await session.new()
    await until(lambda: states.get(left) is not None)
    await session.close()
    states.close()

    again = StateStore(b"k" * 32, tmp_path / "states.sqlite")
    session = Session(FakeEngine(), history, shelf, states=again, clock=clock, now=clock)
    session.choose(R1.name)
    await session.loader.ready()
    await session.open(left)
    await until(lambda: "restore" in session.engine.calls)
    await session.close()
    again.close()


async def test_what_was_read_is_kept_at_the_end_of_the_program(
    engine: FakeEngine, history: History, shelf: FakeShelf, clock: Clock
):
    session = Session(engine, history, shelf, clock=clock, now=clock)
    session.choose(R1.name)
    await session.loader.ready()
    await talk(session)
    engine.will_save = [STATE]
    await session.close()
    assert session.states.get(session.conversation.id) is STATE


async def test_a_state_is_looked_for_where_its_conversation_was(
    session: Session, engine: FakeEngine, history: History
):
    fingerprint = engine.default.fingerprint
    one, two = store(history, "one", "answer"), store(history, "two", "answer")
    first, second = State(fingerprint, [b"one"]), State(fingerprint, [b"two"])
    session.states.put(one.id, first)
    session.states.put(two.id, second)
    engine.restore_gate = asyncio.Event()
    session.choose(R1.name)
    await session.loader.ready()
    await session.open(one.id)
    await until(lambda: "restore" in engine.calls)
    await session.open(two.id)
    for _ in range(20):  # it waits for its turn
        await asyncio.sleep(0)
    await session.move(History(memory=True), StateCache(), "memory")
    engine.restore_gate.set()
    await idle(session)
    assert engine.restores == [first, second]
