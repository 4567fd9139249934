"""One reply, without a screen: what is stored when, and how it ends."""

from __future__ import annotations

import asyncio
import itertools
from pathlib import Path

import pytest
from chat_fakes import R1, Clock, FakeEngine, answer, done, looping, overflow, prefill, thinking

from localai.chat.budget import DropOldest, describe
from localai.chat.conversation import Conversation, Message
from localai.engine.settings import Limits, Sampling
from localai.errors import HistoryError, LoadError, WorkerDied
from localai.history import History
from tui.outcome import Outcome, outcome_of
from tui.shelf import ResolvedModel
from tui.turn import Turn

MODEL = ResolvedModel(entry=R1, path=Path("/models/r1"), sampling=Sampling(temperature=0.6))


class SpyHistory:
    """The real store, with a note of each message that went in."""

    def __init__(self, history: History, clock: Clock) -> None:
        self._history = history
        self._clock = clock
        self.puts: list[tuple[float, str, str]] = []
        self.error: HistoryError | None = None

    def put(self, conversation_id: str, message: Message) -> None:
        if self.error:
            raise self.error
        self.puts.append((self._clock(), message.state, message.content))
        self._history.put(conversation_id, message)


@pytest.fixture
def spy(history: History, clock: Clock) -> SpyHistory:
    return SpyHistory(history, clock)


@pytest.fixture
def turn(engine: FakeEngine, history: History, spy: SpyHistory, clock: Clock) -> Turn:
    conversation = Conversation(system="be brief")
    conversation.append(Message(parent=None, role="user", content="2+2?"))
    history.save(conversation)
    reply = Message(parent=conversation.head, role="assistant", state="streaming")
    conversation.append(reply)
    return Turn(conversation, reply, engine, spy, clock=clock)


async def ready() -> ResolvedModel:
    return MODEL


async def test_events_become_the_message(turn: Turn, engine: FakeEngine, clock: Clock, history: History):
    engine.script(
        prefill(5, 20),
        prefill(20, 20),
        thinking("two ", 1),
        clock.forward(3),
        thinking("and two", 2),
        clock.forward(1),
        answer("4", 1),
        clock.forward(0.5),
        answer("!", 1),
        done(prompt=20, completion=6, thought=4, rate=9.5),
    )
    turn.start(ready)
    await turn.ended()
    message = turn.message
    assert (message.thinking, message.content, message.state) == ("two and two", "4!", "complete")
    assert (message.prompt_tokens, message.completion_tokens, message.thinking_tokens) == (20, 6, 4)
    assert (message.thinking_s, message.tokens_per_s, message.model) == (4.0, 9.5, R1.name)
    assert history.load(turn.conversation.id).messages[message.id] == message
    assert turn.context_used == 26


async def test_the_prompt_is_the_branch_without_the_reply(turn: Turn, engine: FakeEngine):
    turn.start(ready, Limits(max_tokens=77))
    await turn.ended()
    assert [(m.role, m.content) for m in engine.prompts[0]] == [("system", "be brief"), ("user", "2+2?")]
    assert engine.samplings == [Sampling(temperature=0.6)]
    assert engine.limits == [Limits(max_tokens=77)]


async def test_stored_at_the_begin_once_a_second_and_at_the_end(
    turn: Turn, engine: FakeEngine, clock: Clock, spy: SpyHistory
):
    steps = []
    for _ in range(30):
        steps += [answer("x"), clock.forward(0.1)]
    engine.script(*steps, done())
    turn.start(ready)
    await turn.ended()
    assert spy.puts[0][1:] == ("streaming", "")
    assert spy.puts[-1][1:] == ("complete", "x" * 30)
    between = spy.puts[:-1]
    assert len(between) in (3, 4)
    assert all(b[0] - a[0] >= 1.0 for a, b in itertools.pairwise(between))


async def test_an_error_is_the_end_of_the_reply_not_of_the_program(turn: Turn, engine: FakeEngine):
    engine.script(answer("so far"), WorkerDied("The engine died", "Try again"))
    turn.start(ready)
    await turn.ended()
    assert (turn.message.state, turn.message.content) == ("failed", "so far")
    assert turn.message.finish_reason == "The engine died. Try again"


async def test_a_model_that_does_not_load_fails_the_reply(turn: Turn):
    async def not_ready() -> ResolvedModel:
        raise LoadError("Not enough memory")

    turn.start(not_ready)
    await turn.ended()
    assert (turn.message.state, turn.message.finish_reason) == ("failed", "Not enough memory")


async def test_stop_keeps_what_has_come(turn: Turn, engine: FakeEngine):
    came, never = asyncio.Event(), asyncio.Event()
    engine.script(answer("half"), came.set, never)
    turn.start(ready)
    await came.wait()
    await turn.stop()
    await turn.ended()
    assert (turn.message.state, turn.message.content) == ("stopped", "half")
    assert engine.cancels == 1


async def test_stop_while_the_model_loads_does_not_ask_the_engine(turn: Turn, engine: FakeEngine):
    async def never_ready() -> ResolvedModel:
        await asyncio.Event().wait()
        raise AssertionError

    turn.start(never_ready)
    await asyncio.sleep(0)
    await turn.stop()
    await turn.ended()
    assert (turn.message.state, engine.cancels, engine.prompts) == ("stopped", 0, [])


async def test_answer_now_asks_the_engine_only_while_the_model_thinks(turn: Turn, engine: FakeEngine):
    reading, says = asyncio.Event(), asyncio.Event()
    engine.script(prefill(1, 9), reading, thinking("hm"), engine.answer_wanted, answer("4"), says)
    engine.scripts[0] += [done(think_closed=True)]
    await turn.answer_now()
    turn.start(ready)
    while turn.phase != "reading":
        await asyncio.sleep(0)
    await turn.answer_now()
    assert "answer_now" not in engine.calls
    reading.set()
    while turn.phase != "thinking":
        await asyncio.sleep(0)
    await turn.answer_now()
    while turn.phase != "answering":
        await asyncio.sleep(0)
    await turn.answer_now()
    says.set()
    await turn.ended()
    assert engine.calls.count("answer_now") == 1
    assert outcome_of(turn.message) == Outcome("stop", closed="user")


@pytest.mark.parametrize("closed", [True, False])
async def test_a_budget_closes_the_thinking_too(turn: Turn, engine: FakeEngine, closed: bool):
    engine.script(thinking("hm"), answer("4"), done("length", think_closed=closed))
    turn.start(ready)
    await turn.ended()
    assert outcome_of(turn.message) == Outcome("length", closed="budget" if closed else "")


async def test_a_model_that_was_quicker_than_the_user_has_closed_the_thinking_itself(
    turn: Turn, engine: FakeEngine
):
    engine.script(thinking("hm"), engine.answer_wanted, answer("4"), done())
    turn.start(ready)
    while turn.phase != "thinking":
        await asyncio.sleep(0)
    await turn.answer_now()
    await turn.ended()
    assert outcome_of(turn.message) == Outcome("stop")


@pytest.mark.parametrize("kind", ["none", "empty"])
async def test_no_answer_and_an_empty_one_are_told_apart(turn: Turn, engine: FakeEngine, kind: str):
    engine.script(thinking("hm"), done(answer=kind))
    turn.start(ready)
    await turn.ended()
    assert outcome_of(turn.message).answer == kind


async def test_a_loop_counts_as_long_as_its_part(turn: Turn, engine: FakeEngine):
    thinks, says = asyncio.Event(), asyncio.Event()
    loop = looping("hm")
    engine.script(thinking("hm"), loop, thinks, answer("4"), says, looping("4", part="answer"), done())
    turn.start(ready)
    while turn.looping is None:
        await asyncio.sleep(0)
    assert turn.looping == loop
    thinks.set()
    while turn.phase != "answering":
        await asyncio.sleep(0)
    assert turn.looping is None
    says.set()
    await turn.ended()
    assert turn.looping is None


async def test_no_room_is_a_failed_reply_that_says_by_how_much(turn: Turn, engine: FakeEngine):
    event = overflow(DropOldest((0,), 500), prompt=9000, over=432)
    engine.script(event)
    turn.start(ready)
    await turn.ended()
    assert (turn.message.state, turn.message.content, turn.overflow) == ("failed", "", event)
    assert "432" in turn.message.finish_reason
    assert describe(event.offers[0], engine.prompts[0]) in turn.message.finish_reason


async def test_what_is_left_out_is_not_sent_and_noted(
    engine: FakeEngine, history: History, clock: Clock, turn: Turn
):
    shorter = Turn(turn.conversation, turn.message, engine, history, left_out=[0], clock=clock)
    shorter.start(ready)
    await shorter.ended()
    assert [m.role for m in engine.prompts[0]] == ["user"]
    assert outcome_of(turn.message).left_out == 1


async def test_stop_before_the_first_step(turn: Turn, history: History):
    turn.start(ready)
    turn.abandon()
    await turn.ended()
    assert history.load(turn.conversation.id).messages[turn.message.id].state == "stopped"


async def test_a_bug_is_an_ended_reply_that_says_so(turn: Turn, engine: FakeEngine):
    def bug() -> None:
        raise ZeroDivisionError("oops")

    engine.script(bug)
    turn.start(ready)
    await turn.ended()
    assert turn.message.state == "failed"
    assert "Internal error" in turn.message.finish_reason


async def test_a_store_that_fails_is_told_once_and_the_reply_goes_on(
    turn: Turn, engine: FakeEngine, spy: SpyHistory, clock: Clock
):
    told = []
    turn._on_unstored = told.append
    spy.error = HistoryError("locked")
    engine.script(answer("a"), clock.forward(2), answer("b"), clock.forward(2), answer("c"), done())
    turn.start(ready)
    await turn.ended()
    assert (turn.message.content, turn.message.state) == ("abc", "complete")
    assert told == [spy.error]


async def test_take_gives_each_piece_once(turn: Turn, engine: FakeEngine):
    first, second = asyncio.Event(), asyncio.Event()
    engine.script(thinking("t1 "), thinking("t2"), first, answer("a1 "), answer("a2"), second, done())
    turn.start(ready)
    while not turn._thinking[1:]:
        await asyncio.sleep(0)
    assert turn.take().thinking == "t1 t2"
    first.set()
    while not turn._answer[1:]:
        await asyncio.sleep(0)
    assert (turn.take().thinking, turn.take().answer) == ("", "")
    second.set()
    await turn.ended()


async def test_live_numbers(turn: Turn, engine: FakeEngine, clock: Clock):
    reading, thinks, says = asyncio.Event(), asyncio.Event(), asyncio.Event()
    engine.script(
        prefill(512, 2048), reading, prefill(2048, 2048), thinking("a", 1), clock.forward(4), thinks
    )
    engine.scripts[0] += [thinking("b", 7), clock.forward(1), answer("c", 1), says, done()]
    turn.start(ready)
    while turn.prefill == (0, 0):
        await asyncio.sleep(0)
    assert (turn.phase, turn.prefill, turn.context_used, turn.tokens_per_s) == (
        "reading",
        (512, 2048),
        512,
        0,
    )
    reading.set()
    while clock() < 1004:
        await asyncio.sleep(0)
    assert (turn.phase, turn.thinking_s) == ("thinking", 4.0)
    thinks.set()
    while turn.phase != "answering":
        await asyncio.sleep(0)
    assert (turn.thinking_s, turn.tokens_per_s, turn.context_used) == (5.0, 8 / 5, 2048 + 9)
    says.set()
    await turn.ended()
