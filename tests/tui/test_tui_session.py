"""The session, without a screen: conversations, loading, the end."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from chat_fakes import NANO, R1, Clock, FakeEngine, FakeShelf, answer, done, loaded, overflow, thinking

from localai.chat.budget import DropOldest, Enlarge, Offer, StartAnew
from localai.engine import protocol
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import HistoryError, LoadError, ModelNotFound
from localai.history import History
from tui import session as session_module
from tui.session import Session


@pytest.fixture
async def session(engine: FakeEngine, history: History, shelf: FakeShelf, clock: Clock):
    made = Session(
        engine,
        history,
        shelf,
        load_options=LoadOptions(context=4096),
        sampling=Sampling(temperature=0.1),
        limits=Limits(max_tokens=77, think_budget=50),
        clock=clock,
        now=clock,
    )
    yield made
    engine.deaf = False
    await made.close()


async def finish(session: Session) -> None:
    assert session.turn is not None
    await session.turn.ended()


async def test_ask_stores_the_question_before_anything_runs(session: Session, history: History):
    session.choose(R1.name)
    turn = session.ask("hello")
    stored = history.load(session.conversation.id)
    assert stored.branch()[0].content == "hello"
    assert stored.title == "hello"
    assert session.busy
    await turn.ended()
    assert not session.busy


async def test_sampling_is_the_models_with_the_users_changes(session: Session, engine: FakeEngine):
    session.choose(R1.name)
    session.ask("hello")
    await finish(session)
    assert engine.samplings == [Sampling(temperature=0.1, top_p=0.95)]
    assert engine.options == [LoadOptions(context=4096)]
    assert engine.limits == [Limits(max_tokens=77, think_budget=50)]
    assert engine.loads == [Path("/models/deepseek-r1:7b")]
    assert engine.digests == ["d" * 64]


async def test_a_question_that_cannot_be_stored_has_not_been_asked(session: Session, history: History):
    session.choose(R1.name)
    history._db.execute("PRAGMA query_only = ON")
    with pytest.raises(HistoryError):
        session.ask("hello")
    assert session.conversation.messages == {}
    assert (session.conversation.head, session.conversation.title, session.busy) == (None, "", False)
    history._db.execute("PRAGMA query_only = OFF")
    session.ask("hello")
    await finish(session)


async def test_a_reply_that_was_cut_goes_on_in_a_branch_beside_it(
    session: Session, engine: FakeEngine, history: History
):
    engine.script(thinking("Hmm."), answer("The cat"), done("length", completion=5, thought=2, prompt=10))
    engine.script(answer(" sat."), done(completion=3, thought=0, prompt=15))
    session.choose(R1.name)
    session.ask("hello")
    await finish(session)
    cut = session.conversation.branch()[-1]
    turn = session.go_on()
    assert turn is not None
    await finish(session)
    assert engine.begun == protocol.Begun("Hmm.", "The cat", answering=True)
    assert engine.prompts[-1] == engine.prompts[0]
    stored = history.load(session.conversation.id)
    assert [(m.thinking, m.content) for m in stored.branch()[1:]] == [("Hmm.", "The cat sat.")]
    assert stored.messages[cut.id].content == "The cat"
    assert len(stored.siblings(cut.id)) == 2
    last = stored.branch()[-1]
    assert (last.prompt_tokens, last.thinking_tokens, last.completion_tokens) == (10, 2, 8)
    assert session.go_on() is None, "it came to its end"


async def test_a_reply_that_was_stopped_while_it_thought_goes_on_thinking(
    session: Session, engine: FakeEngine
):
    engine.script(thinking("One"), asyncio.Event())
    engine.script(thinking(" two."), answer("Yes."), done())
    session.choose(R1.name)
    turn = session.ask("hello")
    while not turn.message.thinking_tokens:
        await turn.changed.wait()
        turn.changed.clear()
    await session.stop()
    again = session.go_on()
    assert again is not None
    await finish(session)
    assert engine.begun == protocol.Begun("One", "", answering=False)
    assert (again.message.thinking, again.message.content) == ("One two.", "Yes.")


async def test_retry_is_a_sibling(session: Session, engine: FakeEngine, history: History):
    engine.script(answer("one"), done())
    engine.script(answer("two"), done())
    assert session.retry() is None
    session.choose(R1.name)
    first = session.ask("hello").message
    await finish(session)
    again = session.retry()
    assert again is not None
    await again.ended()
    assert first.parent == again.message.parent
    assert [m.content for m in history.load(session.conversation.id).branch()] == ["hello", "two"]
    assert len(session.conversation.messages) == 3
    assert [[m.content for m in p] for p in engine.prompts] == [["hello"], ["hello"]]


async def no_room(session: Session, engine: FakeEngine, *offers: Offer) -> None:
    """Two questions with replies, and one that there is no room for."""
    session.choose(R1.name)
    for text in ("one", "two"):
        session.ask(text)
        await finish(session)
    engine.script(overflow(*offers))
    session.ask("three")
    await finish(session)
    assert session.turn.message.state == "failed"


async def test_without_room_the_oldest_messages_are_left_out_when_the_user_agrees(
    session: Session, engine: FakeEngine, history: History
):
    await no_room(session, engine, StartAnew(), DropOldest((0, 1), 2000))
    session.retry()
    await finish(session)
    assert [m.content for m in engine.prompts[-1]] == ["two", "OK", "three"]
    assert session.turn.message.finish_reason == "stop left_out=2"
    stored = history.load(session.conversation.id)
    assert [m.content for m in stored.branch()] == ["one", "OK", "two", "OK", "three", "OK"]
    session.draft("and so on")
    while not engine.prefills:
        await asyncio.sleep(0)
    assert [m.content for m in engine.prefills[-1]] == ["two", "OK", "three", "OK", "and so on"]


async def test_what_is_left_out_stays_left_out_and_can_become_more(session: Session, engine: FakeEngine):
    await no_room(session, engine, DropOldest((0, 1), 2000))
    session.retry()
    await finish(session)
    engine.script(overflow(DropOldest((0, 1), 2000)))
    session.ask("four")
    await finish(session)
    assert [m.content for m in engine.prompts[-1]] == ["two", "OK", "three", "OK", "four"]
    session.retry()
    await finish(session)
    assert [m.content for m in engine.prompts[-1]] == ["three", "OK", "four"]
    await session.open(session.conversation.id)
    session.ask("five")
    await finish(session)
    assert [m.content for m in engine.prompts[-1]][:2] == ["one", "OK"]


async def test_without_room_the_model_is_loaded_with_more_context(session: Session, engine: FakeEngine):
    await no_room(session, engine, Enlarge(16_384), DropOldest((0, 1), 2000))
    session.retry()
    await finish(session)
    assert [o.context for o in engine.options] == [4096, 16_384]
    assert [m.content for m in engine.prompts[-1]] == ["one", "OK", "two", "OK", "three"]
    assert session.turn.message.content == "OK"
    session.choose(NANO.name)
    await session.loader.ready()
    assert engine.options[-1].context == 4096


async def test_another_model_is_offered_all_of_the_conversation(session: Session, engine: FakeEngine):
    await no_room(session, engine, DropOldest((0, 1), 2000))
    session.choose(NANO.name)
    session.retry()
    await finish(session)
    assert [m.content for m in engine.prompts[-1]] == ["one", "OK", "two", "OK", "three"]


async def test_a_message_sent_while_loading_waits(session: Session, engine: FakeEngine):
    engine.load_gate = asyncio.Event()
    session.choose(R1.name)
    turn = session.ask("hello")
    await asyncio.sleep(0)
    assert (turn.phase, engine.prompts) == ("waiting", [])
    engine.load_gate.set()
    await finish(session)
    assert turn.message.content == "OK"


async def test_a_change_of_model_while_a_message_waits(session: Session, engine: FakeEngine):
    engine.load_gate = asyncio.Event()
    session.choose(R1.name)
    turn = session.ask("hello")
    await asyncio.sleep(0)
    session.choose(NANO.name)
    engine.load_gate.set()
    await turn.ended()
    assert turn.message.model == NANO.name
    assert session.loader.entry == NANO


async def test_after_a_failed_load_the_next_message_tries_again(session: Session, engine: FakeEngine):
    engine.will_load = [LoadError("Not enough memory", "Choose a smaller model"), loaded()]
    engine.load_gate = asyncio.Event()
    session.choose(R1.name)
    first = session.ask("hello")
    await asyncio.sleep(0)
    engine.load_gate.set()
    await first.ended()
    assert (first.message.state, session.loader.state) == ("failed", "failed")
    again = session.retry()
    assert again is not None
    await again.ended()
    assert (again.message.content, session.loader.state) == ("OK", "ready")


async def test_no_model(session: Session):
    turn = session.ask("hello")
    await turn.ended()
    assert turn.message.state == "failed"
    assert "No model is chosen" in turn.message.finish_reason


async def test_an_unknown_model(session: Session):
    session.choose("nonsense")
    with pytest.raises(ModelNotFound):
        await session.loader.ready()
    assert session.loader.state == "failed"


async def test_another_conversation_stops_the_reply(session: Session, engine: FakeEngine, history: History):
    engine.script(answer("half"), asyncio.Event())
    session.choose(R1.name)
    turn = session.ask("first")
    while not turn._answer:
        await asyncio.sleep(0)
    first = session.conversation.id
    await session.new()
    assert session.conversation.id != first
    assert history.load(first).branch()[-1].state == "stopped"
    await session.open(first)
    assert [m.content for m in session.conversation.branch()] == ["first", "half"]


async def test_delete_the_open_conversation(session: Session, history: History):
    session.choose(R1.name)
    session.ask("first")
    await finish(session)
    gone = session.conversation.id
    await session.delete(gone)
    assert session.conversation.id != gone
    assert history.summaries() == []


async def test_the_models_name_goes_with_the_conversation(session: Session, history: History):
    session.choose(R1.name)
    session.ask("first")
    await finish(session)
    session.choose(NANO.name)
    await session.loader.ready()
    assert history.summaries()[0].model == NANO.name


async def test_close_stops_stores_and_ends_the_worker(session: Session, engine: FakeEngine, history: History):
    engine.script(answer("half"), asyncio.Event())
    session.choose(R1.name)
    turn = session.ask("first")
    while not turn._answer:
        await asyncio.sleep(0)
    await session.close()
    assert history.load(session.conversation.id).branch()[-1].state == "stopped"
    assert (engine.cancels, engine.closed) == (1, 1)


async def test_close_does_not_hang_with_an_engine_that_does(
    session: Session, engine: FakeEngine, history: History, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(session_module, "PATIENCE_S", 0.05)
    engine.deaf = True
    engine.script(answer("half"), asyncio.Event())
    session.choose(R1.name)
    turn = session.ask("first")
    while not turn._answer:
        await asyncio.sleep(0)
    await asyncio.wait_for(session.close(), 5)
    assert history.load(session.conversation.id).branch()[-1].content == "half"
    assert history.load(session.conversation.id).branch()[-1].state == "stopped"


async def test_when_a_model_was_last_used_is_taken_down(session: Session, shelf: FakeShelf):
    session.choose(R1.name)
    await session.loader.ready()
    assert shelf.used_now == ["d" * 64]
    session.ask("hello")
    await finish(session)
    assert shelf.used_now == ["d" * 64] * 2


async def test_a_conversation_that_is_not_kept_leaves_no_trace(
    engine: FakeEngine, shelf: FakeShelf, clock: Clock
):
    with History(memory=True) as history:
        session = Session(engine, history, shelf, kept="memory", clock=clock, now=clock)
        session.choose(R1.name)
        session.ask("hello")
        await finish(session)
        await session.close()
    assert shelf.used_now == []
