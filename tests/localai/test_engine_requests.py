"""Several requests at once: who gets which event, who waits, and what one does to the others."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import Limits
from localai.errors import EngineError, WorkerDied, WorkerHung
from tests.localai.scripted_worker import HI, ask, loaded, scripted, text, until


def asking(engine: Engine) -> asyncio.Task[list[protocol.GenerationEvent]]:
    return asyncio.create_task(ask(engine))


async def under_way(engine: Engine, replies: int) -> None:
    await until(lambda: len(engine._running) == replies)


async def test_two_replies_at_once_get_what_is_theirs() -> None:
    script = """
load(parallel=2); a = receive(p.Generate); b = receive(p.Generate)
answer(a.id, "a1 "); answer(b.id, "b1 "); answer(b.id, "b2"); answer(a.id, "a2"); done(b.id); done(a.id)
receive()
"""
    engine = await loaded(script)
    first, second = asking(engine), asking(engine)
    assert (text(await first), text(await second)) == ("a1 a2", "b1 b2")
    await engine.close()


async def test_more_replies_than_the_model_was_loaded_for_wait() -> None:
    """The worker fails if it gets a third `Generate` before it has ended another."""
    script = """
load(parallel=2); a = receive(p.Generate); b = receive(p.Generate)
counted(receive(p.Count).id); done(b.id)
c = receive(p.Generate); counted(receive(p.Count).id); done(a.id); done(c.id); receive()
"""
    engine = await loaded(script)
    replies = [asking(engine) for _ in range(3)]
    for _ in range(2):
        await under_way(engine, 2)
        await engine.count(HI)
        await until(lambda: any(reply.done() for reply in replies))
    for events in await asyncio.gather(*replies):
        assert isinstance(events[-1], protocol.Done)
    await engine.close()


async def test_questions_are_answered_while_a_reply_is_under_way() -> None:
    script = """
load(); r = receive(p.Generate); answer(r.id, "one ")
status = receive(p.Status); count = receive(p.Count)
counted(count.id, 7); send(p.StatusReport(status.id, 1000, 2048, (5,), (), 0, 2))
receive(p.Prefill); receive(p.AnswerNow)
answer(r.id, "two"); done(r.id); receive()
"""
    engine = await loaded(script)
    reply = asking(engine)
    await under_way(engine, 1)
    status = asyncio.create_task(engine.status())
    await asyncio.sleep(0)
    assert (await engine.count(HI)).total == 7
    assert (await status).memory == 1000
    await engine.prefill(HI)
    await engine.answer_now()
    assert text(await reply) == "one two"
    await engine.close()


async def test_cancel_and_answer_now_reach_all_replies() -> None:
    script = """
load(parallel=2); ids = {receive(p.Generate).id, receive(p.Generate).id}
assert {receive(p.AnswerNow).id, receive(p.AnswerNow).id} == ids
assert {receive(p.Cancel).id, receive(p.Cancel).id} == ids
for id in ids: done(id, "cancelled")
receive()
"""
    engine = await loaded(script)
    replies = [asking(engine), asking(engine)]
    await under_way(engine, 2)
    await engine.answer_now()
    await engine.cancel()
    for events in await asyncio.gather(*replies):
        assert isinstance(events[-1], protocol.Done)
        assert events[-1].reason == "cancelled"
    await engine.close()


async def test_leaving_one_stream_cancels_only_that() -> None:
    script = """
load(parallel=2); a = receive(p.Generate); b = receive(p.Generate)
answer(a.id, "a"); answer(b.id, "b1 ")
assert receive(p.Cancel).id == a.id
done(a.id, "cancelled"); answer(b.id, "b2"); done(b.id); receive()
"""
    engine = await loaded(script)
    stream = engine.generate(HI)
    first = asyncio.create_task(anext(stream))
    await under_way(engine, 1)
    second = asking(engine)
    await first
    await stream.aclose()
    assert text(await second) == "b1 b2"
    await engine.close()


async def test_a_conversation_that_does_not_fit_ends_its_stream() -> None:
    script = """
load(); r = receive(p.Generate); send(p.Overflow(r.id, 3000, 2048, 1000, ()))
r = receive(p.Generate); done(r.id); receive()
"""
    engine = await loaded(script)
    (event,) = await ask(engine)
    assert isinstance(event, protocol.Overflow)
    assert event.over == 1000
    assert isinstance((await ask(engine))[-1], protocol.Done)
    await engine.close()


async def test_continuing_tokens() -> None:
    script = """
load(); r = receive(p.Continue); answer(r.id, f"{r.tokens} {r.limits.max_tokens} {r.ignore_end}"); done(r.id)
receive()
"""
    engine = await loaded(script)
    limits = Limits(max_tokens=9)
    events = [event async for event in engine.continue_tokens([1, 2], limits=limits, ignore_end=True)]
    assert text(events) == "[1, 2] 9 True"
    await engine.close()


# ---------------------------------------------------------------------------------------------- failing


async def test_death_ends_every_request(tmp_path: Path) -> None:
    script = f"""
load(parallel=2)
if first_time({str(tmp_path / "first")!r}):
    receive(p.Generate); receive(p.Generate); receive(p.Count)
    print("GGML_ASSERT(a) failed", file=sys.stderr); os.abort()
r = receive(p.Generate); answer(r.id, "alive"); done(r.id); receive()
"""
    engine = await loaded(script)
    replies = [asking(engine), asking(engine)]
    await under_way(engine, 2)
    results = await asyncio.gather(*replies, engine.count(HI), return_exceptions=True)
    assert [type(result) for result in results] == [WorkerDied] * 3
    assert all("GGML_ASSERT(a) failed" in str(result) for result in results)
    assert engine.model is None
    assert text(await ask(engine)) == "alive"
    await engine.close()


async def test_a_hung_worker_ends_every_request() -> None:
    engine = await loaded("load(parallel=2); time.sleep(1000)", silence_s=0.3)
    results = await asyncio.gather(asking(engine), asking(engine), return_exceptions=True)
    assert [type(result) for result in results] == [WorkerHung] * 2
    assert results[0] is not results[1], "a shared one would collect the tracebacks of all"
    await engine.close()


async def test_who_waited_for_a_dead_worker_gets_a_fresh_one(tmp_path: Path) -> None:
    script = f"""
load()
if first_time({str(tmp_path / "first")!r}): receive(p.Generate); receive(p.Count); sys.exit(3)
for _ in range(2): r = receive(p.Generate); answer(r.id, "alive"); done(r.id)
receive()
"""
    engine = await loaded(script)
    replies = [asking(engine) for _ in range(3)]
    await under_way(engine, 1)
    with pytest.raises(WorkerDied):
        await engine.count(HI)
    with pytest.raises(WorkerDied):
        await replies[0]
    assert [text(await reply) for reply in replies[1:]] == ["alive", "alive"]
    await engine.close()


async def test_a_worker_that_breaks_as_soon_as_it_has_loaded_is_not_started_for_ever(tmp_path: Path) -> None:
    log = tmp_path / "starts"
    script = f"""
open({str(log)!r}, 'a').write('x')
sent = []; send = lambda event: sent.append(p.encode(event)); load()
os.write(writer.fileno(), sent[0] + bytes([255] * 4)); receive()
"""
    engine = scripted(script)
    await engine.load(Path("model.gguf"))
    async with asyncio.timeout(20):
        with pytest.raises(EngineError, match="not a message"):
            await ask(engine)
    assert log.read_text() == "xx"


async def test_a_worker_that_died_while_idle_is_replaced(tmp_path: Path) -> None:
    engine = await loaded("load(); counted(receive(p.Count).id); receive()")
    assert engine._worker is not None
    os.kill(engine._worker.pid, signal.SIGKILL)
    await until(lambda: engine.model is None)
    await engine.prefill(HI)
    assert await engine.save(HI) is None
    assert engine.model is None, "a draft or a state that is gone is no reason to load the model"
    assert (await engine.count(HI)).total == 5
    await engine.close()


# --------------------------------------------------------------------------------- waiting and closing


async def test_closing_ends_replies_and_those_that_wait() -> None:
    engine = await loaded("load(); receive(p.Generate); receive(p.Shutdown)")
    reply = asking(engine)
    await under_way(engine, 1)
    waiting = asking(engine)
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(WorkerDied, match="exit code 0"):
        await reply
    with pytest.raises(EngineError, match="was closed"):
        await waiting
    assert engine._worker is None
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_closed_engine_loads_its_model_again() -> None:
    engine = await loaded("load(); r = receive(p.Generate, p.Shutdown); done(r.id); receive()")
    await engine.close()
    assert isinstance((await ask(engine))[-1], protocol.Done)
    await engine.close()


async def test_who_is_cancelled_while_waiting_takes_no_turn() -> None:
    script = """
load(); r = receive(p.Generate); counted(receive(p.Count).id); done(r.id)
r = receive(p.Generate); answer(r.id, "third"); done(r.id); receive()
"""
    engine = await loaded(script)
    first = asking(engine)
    await under_way(engine, 1)
    second, third = asking(engine), asking(engine)
    await asyncio.sleep(0)
    second.cancel()
    await asyncio.wait({second})
    await engine.count(HI)
    await first
    assert text(await third) == "third"
    await engine.close()


async def test_loading_another_model_waits_for_all_replies(tmp_path: Path) -> None:
    script = f"""
load(parallel=2)
if first_time({str(tmp_path / "first")!r}):
    a = receive(p.Generate); b = receive(p.Generate)
    receive(p.AnswerNow); receive(p.AnswerNow); done(a.id)
    answer(b.id, "one "); receive(p.AnswerNow); answer(b.id, "two"); done(b.id)
else:
    r = receive(p.Generate); answer(r.id, "other"); done(r.id)
receive()
"""
    engine = await loaded(script)
    short, long = asking(engine), asking(engine)
    await under_way(engine, 2)
    loading = asyncio.create_task(engine.load(Path("other.gguf")))
    later = asking(engine)
    await engine.answer_now()
    await short
    await engine.answer_now()
    assert text(await long) == "one two"
    await loading
    assert text(await later) == "other"
    await engine.close()
