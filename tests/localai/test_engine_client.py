"""The client against workers that misbehave: scripted processes on real pipes."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from pathlib import Path

import pytest

from localai.chat.messages import ChatMessage
from localai.engine import client, protocol, settings
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.errors import ContextOverflow, EngineError, LoadError, WorkerDied, WorkerHung
from tests.localai.scripted_worker import HI, ask, loaded, scripted, text, until


async def test_a_silent_worker_is_stopped() -> None:
    engine = await loaded("load(); receive(); time.sleep(1000)", silence_s=0.3)
    with pytest.raises(WorkerHung, match="got stuck"):
        await ask(engine)
    assert engine.model is None


async def test_a_stopped_process_is_noticed() -> None:
    engine = await loaded("load(); receive(); os.kill(os.getpid(), signal.SIGSTOP)", silence_s=0.3)
    with pytest.raises(WorkerHung):
        await ask(engine)


async def test_a_worker_that_does_not_read_is_stopped() -> None:
    """What is sent is more than the pipe holds."""
    engine = await loaded("load(); time.sleep(1000)", silence_s=0.3)
    with pytest.raises(WorkerHung):
        await engine.count([ChatMessage("user", "x" * 20_000_000)])


async def test_a_worker_that_is_alive_but_gets_nowhere_is_stopped() -> None:
    script = "load(); receive()\nwhile True: send(p.Alive(5)); time.sleep(0.02)"
    engine = await loaded(script, stall_beats=30)
    with pytest.raises(WorkerHung):
        await ask(engine)


async def test_a_slow_worker_that_gets_somewhere_is_left_alone() -> None:
    script = (
        "load(); r = receive()\nfor n in range(40): send(p.Alive(n)); time.sleep(0.02)\ndone(r.id); receive()"
    )
    engine = await loaded(script, stall_beats=30)
    assert isinstance((await ask(engine))[-1], protocol.Done)
    await engine.close()


async def test_heartbeats_of_an_idle_worker_do_not_count() -> None:
    """It may read a draft, which nobody waits for."""
    script = """
load()
for n in range(50): send(p.Alive(5))
print("sent", file=sys.stderr)
done(receive(p.Generate).id); receive()
"""
    engine = await loaded(script, stall_beats=30)
    worker = engine._worker
    assert worker is not None
    await until(lambda: worker._stderr)  # the heartbeats were sent, and so are read, before that
    assert isinstance((await ask(engine))[-1], protocol.Done)
    assert engine._worker is worker
    await engine.close()


async def test_each_request_has_the_whole_patience() -> None:
    script = """
load()
for _ in range(2):
    r = receive(p.Generate)
    for n in range(20): send(p.Alive(5))
    done(r.id)
receive()
"""
    engine = await loaded(script, stall_beats=30)
    worker = engine._worker
    assert worker is not None
    for _ in range(2):
        assert isinstance((await ask(engine))[-1], protocol.Done)
        assert worker._timer is None, "nothing is left running for an idle worker"
    await engine.close()


async def test_every_sign_of_life_renews_the_patience(tmp_path: Path) -> None:
    """That is an event, and room in the pipe. Ticks of the clock are made up, enough if not renewed."""
    script = f"""
load(); r = receive(p.Generate); receive(p.AnswerNow); answer(r.id, "A")
wait_for({str(tmp_path / "go")!r}); receive(p.Count); time.sleep(1000)
"""
    engine = await loaded(script, silence_s=30)
    worker = engine._worker
    assert worker is not None

    def time_passes() -> bool:
        return any(worker._patience.tick(awaited=True) for _ in range(20))

    stream = engine.generate(HI)
    first = asyncio.ensure_future(anext(stream))
    await until(lambda: engine._running)
    assert not time_passes()
    await engine.answer_now()
    await first
    assert not time_passes()
    counting = asyncio.create_task(engine.count([ChatMessage("user", "x" * 5_000_000)]))
    await until(lambda: worker.congested)
    (tmp_path / "go").touch()
    await until(lambda: not worker.congested)
    assert not time_passes()
    assert time_passes()
    counting.cancel()
    await asyncio.wait({counting})
    await worker.end(0)
    await stream.aclose()


async def test_silence_does_not_count_while_nobody_waits() -> None:
    """The user of a stream may take its time: the worker has said everything already."""
    engine = await loaded("load(); r = receive(); answer(r.id, 'A'); done(r.id); receive()", silence_s=0.05)
    stream = engine.generate(HI)
    await anext(stream)
    worker = engine._worker
    assert worker is not None
    for _ in range(10):
        tick = worker._timer
        await until(lambda tick=tick: worker._timer is not tick)  # type: ignore[misc]
    assert worker.alive
    assert isinstance(await anext(stream), protocol.Done)
    await stream.aclose()
    await engine.close()


async def test_abort_is_told_with_the_last_words_of_the_worker() -> None:
    script = "load(); receive(); print('ggml.c:42: GGML_ASSERT(a) failed', file=sys.stderr); os.abort()"
    engine = await loaded(script)
    with pytest.raises(WorkerDied, match=r"SIGABRT.*GGML_ASSERT\(a\) failed"):
        await ask(engine)


async def test_only_the_end_of_what_a_worker_prints_is_kept() -> None:
    engine = await loaded(
        "load(); receive(); print('x' * 1_000_000, '\\nlast words', file=sys.stderr); sys.exit(1)"
    )
    worker = engine._worker
    assert worker is not None
    with pytest.raises(WorkerDied, match="last words"):
        await ask(engine)
    assert len(worker._stderr) < 10_000


async def test_an_early_end_is_told_with_its_exit_code() -> None:
    engine = await loaded("load(); receive(); sys.exit(7)")
    with pytest.raises(WorkerDied, match="exit code 7"):
        await ask(engine)


async def test_what_a_worker_said_before_it_died_arrives() -> None:
    engine = await loaded("load(); r = receive(); answer(r.id, 'partial'); sys.exit(7)")
    events: list[protocol.GenerationEvent] = []
    with pytest.raises(WorkerDied):
        async for event in engine.generate(HI):
            events.append(event)
    assert text(events) == "partial"


async def test_errors_call_the_files_by_the_names_that_the_user_knows(tmp_path: Path) -> None:
    blob, small = tmp_path / "sha256-12", tmp_path / "sha256-34"
    script = "r = receive(); send(p.Failed('LoadError', f'bad: {r.path}', r.options.draft)); receive()"
    engine = scripted(script)
    names = {"name": "r1:7b", "draft_name": "r1:1.5b"}
    with pytest.raises(LoadError) as caught:
        await engine.load(blob, LoadOptions(draft=str(small)), **names)
    assert (caught.value.message, caught.value.hint) == ("bad: r1:7b", "r1:1.5b")
    with pytest.raises(LoadError) as caught:  # when it is loaded again for a question, too
        await ask(engine)
    assert caught.value.message == "bad: r1:7b"
    with pytest.raises(LoadError) as caught:
        await engine.load(blob, LoadOptions(draft=str(small)))
    assert (caught.value.message, caught.value.hint) == (f"bad: {blob}", str(small))
    await engine.close()


async def test_death_while_loading_calls_the_model_by_its_name() -> None:
    engine = scripted("receive(); os.abort()")
    with pytest.raises(LoadError, match="the engine could not load r1:7b: "):
        await engine.load(Path("/blobs/sha256-12"), name="r1:7b")


async def test_death_while_loading_names_the_model() -> None:
    engine = scripted("receive(); os.abort()")
    with pytest.raises(LoadError, match=r"model\.gguf.*SIGABRT"):
        await engine.load(Path("model.gguf"))


async def test_a_worker_that_could_not_load_does_not_stay() -> None:
    """Half a model may be in its memory."""
    engine = scripted("receive(); send(p.Failed('LoadError', 'no')); receive()")
    with pytest.raises(LoadError, match="no"):
        await engine.load(Path("model.gguf"))
    assert engine._worker is None


async def test_a_worker_that_cannot_be_started() -> None:
    engine = Engine(["/nonexistent/python"])
    with pytest.raises(EngineError, match="could not be started"):
        await engine.load(Path("model.gguf"))


@pytest.mark.parametrize(
    "garbage",
    [
        "writer.write(b'\\xff\\xff\\xff\\xff')",
        "writer.write(frames.pack(b'garbage'))",
        "writer.write(frames.pack(p._encoder.encode({'type': 'Answer', 'id': 'one'})))",
        "writer.write(frames.pack(p._encoder.encode({'type': 'Pickle'})))",
    ],
)
async def test_garbage_is_one_error(garbage: str) -> None:
    engine = await loaded(f"load(); receive(); {garbage}; receive()")
    with pytest.raises(EngineError, match="not a message"):
        await ask(engine)
    assert engine.model is None


async def test_garbage_of_an_idle_worker_costs_only_a_new_one(tmp_path: Path) -> None:
    script = f"""
load()
if first_time({str(tmp_path / "first")!r}): writer.write(b'\\xff\\xff\\xff\\xff')
else: done(receive(p.Generate).id)
receive()
"""
    engine = await loaded(script)
    worker = engine._worker
    assert worker is not None
    await until(lambda: worker.returncode is not None)  # it is stopped at once
    assert isinstance((await ask(engine))[-1], protocol.Done)
    await engine.close()


async def test_what_a_library_prints_does_not_get_between_the_frames() -> None:
    engine = await loaded("load(); r = receive(); print('noise'); os.write(1, b'more noise'); done(r.id)")
    assert isinstance((await ask(engine))[-1], protocol.Done)
    await engine.close()


async def test_an_error_name_from_outside_the_tree_stays_inside() -> None:
    engine = await loaded("load(); r = receive(); send(p.Failed('SystemExit', 'x', '', r.id)); receive()")
    with pytest.raises(EngineError, match="x"):
        await ask(engine)
    await engine.close()


async def test_an_error_ends_only_its_request() -> None:
    """Nothing has to be cancelled after it."""
    script = """
load(); r = receive(); send(p.Failed('ContextOverflow', 'too long', '', r.id))
r = receive(p.Generate); answer(r.id, "fine"); done(r.id); receive()
"""
    engine = await loaded(script)
    with pytest.raises(ContextOverflow, match="too long"):
        await ask(engine)
    assert text(await ask(engine)) == "fine"
    await engine.close()


async def test_events_of_an_earlier_reply_are_dropped() -> None:
    script = """
load(); r = receive()
answer(r.id, "old")
c = receive(p.Cancel); assert c.id == r.id
answer(r.id, "older"); done(r.id)
r = receive(p.Generate)
answer(r.id, "new"); done(r.id); receive()
"""
    engine = await loaded(script)
    stream = engine.generate(HI)
    async for _ in stream:
        break
    await stream.aclose()
    assert text(await ask(engine)) == "new"
    await engine.close()


async def test_a_cancelled_task_loses_no_bytes_of_the_stream() -> None:
    """The head of a frame is there, its body not yet, when its reader is cancelled."""
    script = """
load(); r = receive()
frame = p.encode(p.Answer(r.id, "half", 1))
writer.write(frame[:7])
receive(p.Cancel)
writer.write(frame[7:]); done(r.id)
r = receive(p.Generate)
answer(r.id, "whole"); done(r.id); receive()
"""
    engine = await loaded(script)
    task = asyncio.create_task(ask(engine))
    assert engine._worker is not None
    await until(lambda: engine._worker is not None and engine._worker._received.partial)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert text(await ask(engine)) == "whole"
    await engine.close()


async def test_cancellation_at_any_point_leaves_the_engine_usable() -> None:
    """After n turns of the loop: while the worker starts, loads, or replies; the next reply is complete."""
    script = """
load()
while True:
    r = receive()
    if isinstance(r, p.Generate):
        answer(r.id, "one "); answer(r.id, "two"); done(r.id)
    if isinstance(r, p.Shutdown):
        break
"""
    engine = scripted(script)
    task: asyncio.Task[object]
    for turns in (0, 1, 2, 3, 5, 8, 50):
        task = asyncio.create_task(engine.load(Path("model.gguf")))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
    await engine.load(Path("model.gguf"))
    for turns in range(12):
        task = asyncio.create_task(ask(engine))
        for _ in range(turns):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        assert text(await ask(engine)) == "one two"
    await engine.close()
    assert asyncio.all_tasks() == {asyncio.current_task()}


async def test_a_worker_does_not_survive_a_cancelled_close() -> None:
    """Someone who has no more patience than the engine leaves no process behind."""
    engine = await loaded("load(); os.kill(os.getpid(), signal.SIGSTOP)")
    worker = engine._worker
    assert worker is not None
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(engine.close(), 0.2)
    await until(lambda: worker.returncode is not None)
    assert worker.returncode == -9


async def test_a_worker_that_ignores_the_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "SHUTDOWN_S", 0.3)
    engine = await loaded("signal.signal(signal.SIGTERM, signal.SIG_IGN); load(); time.sleep(1000)")
    worker = engine._worker
    assert worker is not None
    await engine.close()
    assert worker.returncode == -9


async def test_a_worker_that_was_being_started_does_not_survive_a_close() -> None:
    engine = scripted("load(); receive()")
    loading = asyncio.create_task(engine.load(Path("model.gguf")))
    await asyncio.sleep(0)
    await engine.close()
    with pytest.raises(EngineError, match="was closed"):
        await loading
    assert engine._worker is None


async def test_load_tells_the_worker_everything(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    engine = scripted(
        "r = load(); send(p.Failed('EngineError', repr(r), '', receive(p.Generate).id)); receive()"
    )
    options = client.LoadOptions(context=512, draft="small.gguf")
    await engine.load(Path("model.gguf"), options, sha256="ab" * 32)
    request = protocol.Load(
        str(tmp_path / "model.gguf"),
        settings.LoadOptions(context=512, draft=str(tmp_path / "small.gguf")),
        "ab" * 32,
    )
    with pytest.raises(EngineError) as error:
        await ask(engine)
    assert error.value.message == repr(request)
    await engine.close()


async def test_nothing_is_started_without_a_model() -> None:
    engine = Engine(["/nonexistent/python"])
    stream: AsyncGenerator[protocol.GenerationEvent, None] = engine.generate(HI)
    with pytest.raises(EngineError, match="no model is loaded"):
        await anext(stream)
    await engine.prefill(HI)
    await engine.cancel()
    await engine.answer_now()
    assert await engine.save(HI) is None
    await engine.close()


async def test_a_worker_does_not_learn_what_opens_the_conversations(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_PASSPHRASE", "secret")
    monkeypatch.setenv("LOCALAI_PASSPHRASE_FILE", "/of/secret")
    for name in ("LOCALAI_HOME", "HF_TOKEN", "HTTPS_PROXY", "DBUS_SESSION_BUS_ADDRESS", "SSH_AUTH_SOCK"):
        monkeypatch.setenv(name, "not for a worker")
    names = (
        "sorted(name for name in os.environ if name.startswith(('LOCALAI_', 'HF_', 'HTTP', 'DBUS', 'SSH')))"
    )
    engine = await loaded(f"load(); send(p.Failed('EngineError', str({names}), '', receive().id)); receive()")
    with pytest.raises(EngineError) as error:
        await ask(engine)
    assert error.value.message == "[]"
    await engine.close()


async def test_a_worker_that_aborts_starts_no_debugger(monkeypatch: pytest.MonkeyPatch) -> None:
    """ggml looks for one on PATH, and runs it, unless this variable is there."""
    monkeypatch.delenv("GGML_NO_BACKTRACE", raising=False)
    value = "str(os.environ.get('GGML_NO_BACKTRACE'))"
    engine = await loaded(f"load(); send(p.Failed('EngineError', {value}, '', receive().id)); receive()")
    with pytest.raises(EngineError) as error:
        await ask(engine)
    assert error.value.message == "1"
    await engine.close()
