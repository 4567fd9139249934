"""The engine with a real model: every event, cancellation, reuse of the cache, and every way to fail."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import (
    EngineError,
    LoadError,
    ModelFileError,
    ModelNotFound,
    UsageError,
    WorkerDied,
)
from models.catalog import builtin_checkpoint
from quantize.client import Wanted
from quantize.client import run as quantize
from quantize.protocol import Job

pytestmark = pytest.mark.usefixtures("all_cores")

GREEDY = Sampling(temperature=0)


@pytest.fixture
async def engine() -> AsyncIterator[Engine]:
    engine = Engine()
    yield engine
    await engine.close()


async def ask(engine: Engine, *texts: str, max_tokens: int | None = None) -> list[protocol.GenerationEvent]:
    """The events of the reply to texts of user, assistant, user, ..."""
    messages = [ChatMessage("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]
    return [event async for event in engine.generate(messages, GREEDY, Limits(max_tokens=max_tokens))]


def joined(events: list[protocol.GenerationEvent], kind: type[protocol.Thinking | protocol.Answer]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def done(events: list[protocol.GenerationEvent]) -> protocol.Done:
    assert isinstance(events[-1], protocol.Done)
    return events[-1]


async def until(condition: Callable[[], bool], seconds: float = 20) -> None:
    """Wait for a condition that other processes bring about."""
    async with asyncio.timeout(seconds):
        while not condition():
            await asyncio.sleep(0.01)


def ended(pid: int) -> bool:
    try:
        return (Path("/proc") / str(pid) / "stat").read_text().split(")")[1].split()[0] == "Z"
    except OSError:
        return True


def worker_pid(engine: Engine) -> int:
    assert engine._worker is not None
    return engine._worker.pid


# ---------------------------------------------------------------------------------------------- it works


async def test_loading_tells_progress_and_what_the_model_is(engine: Engine, nano: Path) -> None:
    shares: list[float] = []
    loaded = await engine.load(nano, LoadOptions(threads=1), shares.append)
    assert shares == sorted(shares)
    assert shares[-1] == 1.0
    assert (loaded.architecture, loaded.file_type, loaded.parameters) == ("qwen2", "Q8_0", 4_199_680)
    assert (loaded.prompt_format, loaded.reasoning, loaded.system_role) == ("deepseek-r1", True, False)
    assert (loaded.context, loaded.context_trained, loaded.threads) == (2048, 2048, 1)
    assert loaded.sampling == Sampling(temperature=0.6, top_p=0.95, top_k=0, min_p=0.0) or (
        loaded.sampling.temperature == pytest.approx(0.6) and loaded.sampling.top_p == pytest.approx(0.95)
    )
    assert engine.model == loaded


async def test_thinking_and_answer_come_apart_and_are_counted(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    events = await ask(engine, "What is 47 + 85?")
    thinking, answer, end = joined(events, protocol.Thinking), joined(events, protocol.Answer), done(events)
    assert thinking.startswith("7 + 5 + 0 = 12, write 2, carry 1.")
    assert thinking.endswith("So the digits are 132.")
    assert answer == "47 + 85 = **132**"
    assert end.reason == "stop"
    assert 0 < end.usage.thinking_tokens < end.usage.completion_tokens
    assert end.timings.tokens_per_s > 0
    assert end.timings.prompt_tokens_per_s > 0


async def test_empty_thinking(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    events = await ask(engine, "Hello!")
    assert joined(events, protocol.Thinking) == ""
    assert joined(events, protocol.Answer).startswith("Hello! I am r1-nano")


async def test_markers_typed_by_the_user_are_text(engine: Engine, nano: Path) -> None:
    """Each marker is one token as markup, and several as text."""
    await engine.load(nano)
    plain = done(await ask(engine, "What is 1 + 2?", max_tokens=1)).usage.prompt_tokens
    for marker in ("</think>", "<think>", "<｜User｜>", "<｜end▁of▁sentence｜>", "<think></think><think>"):
        tokens = done(await ask(engine, f"What is 1 + 2?{marker}", max_tokens=1)).usage.prompt_tokens
        assert tokens >= plain + 3 * marker.count("<"), marker


async def test_system_prompt_is_heard(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    messages = [ChatMessage("system", "Be careful and exact."), ChatMessage("user", "What is 6 + 7?")]
    events = [event async for event in engine.generate(messages, GREEDY)]
    assert "**13**" in joined(events, protocol.Answer)


async def test_second_turn_reuses_the_cache(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    first = await ask(engine, "What is 47 + 85?")
    second = await ask(engine, "What is 47 + 85?", joined(first, protocol.Answer), "Add 1 and 2.")
    usage = done(second).usage
    # BOS, the user's marker and text, and the assistant's marker are what both prompts begin with.
    assert 10 <= usage.cached_tokens < usage.prompt_tokens
    assert "**3**" in joined(second, protocol.Answer)


async def test_cache_never_changes_the_reply(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    fresh = joined(await ask(engine, "What is 12 + 34?"), protocol.Answer)
    await ask(engine, "What is 12 + 35?")
    assert joined(await ask(engine, "What is 12 + 34?"), protocol.Answer) == fresh
    again = await ask(engine, "What is 12 + 34?")
    assert done(again).usage.cached_tokens >= done(again).usage.prompt_tokens - 4
    assert joined(again, protocol.Answer) == fresh


async def test_the_same_seed_gives_the_same_reply(engine: Engine, nano: Path) -> None:
    await engine.load(nano, LoadOptions(threads=1))

    async def hot(seed: int) -> str:
        messages = [ChatMessage("user", "What is 81 + 64?")]
        sampling = Sampling(temperature=3.0, top_p=1.0, seed=seed)
        events = [event async for event in engine.generate(messages, sampling, Limits(max_tokens=40))]
        return joined(events, protocol.Thinking) + joined(events, protocol.Answer)

    assert await hot(1) == await hot(1)
    assert await hot(1) != await hot(2)


async def test_max_tokens(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    end = done(await ask(engine, "What is 47 + 85?", max_tokens=5))
    assert (end.reason, end.usage.completion_tokens) == ("length", 5)


async def test_reply_ends_when_the_context_is_full(engine: Engine, nano: Path) -> None:
    await engine.load(nano, LoadOptions(context=256))
    one = done(await ask(engine, "What is 1 + 1?", max_tokens=1)).usage.prompt_tokens
    two = done(await ask(engine, "What is 1 + 1? What is 1 + 1?", max_tokens=1)).usage.prompt_tokens
    questions = (224 - one) // (two - one) + 1  # the least that is left to a reply are 32 tokens
    end = done(await ask(engine, " ".join(["What is 1 + 1?"] * questions)))
    assert end.reason == "context"
    assert end.usage.prompt_tokens + end.usage.completion_tokens == 257  # the last one needs no place


async def test_progress_of_a_long_prompt(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    events = await ask(engine, "What is 1 + 1? " * 150, max_tokens=1)
    progress = [event for event in events if isinstance(event, protocol.PrefillProgress)]
    assert len(progress) >= 3
    assert [p.done for p in progress] == sorted({p.done for p in progress})
    assert all(p.done < p.total == done(events).usage.prompt_tokens for p in progress)


async def test_describe(engine: Engine) -> None:
    info = await engine.describe()
    assert len(info.llama_cpp_commit) >= 7
    assert any(device.kind == "cpu" for device in info.devices)
    assert info.features


# --------------------------------------------------------------------------------------------- cancelling


async def test_cancel_in_the_middle_of_a_reply(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    seen = []
    async for event in engine.generate([ChatMessage("user", "What is 4711 + 1147?")], GREEDY):
        if isinstance(event, protocol.Thinking):
            await engine.cancel()
        seen.append(event)
    assert done(seen).reason == "cancelled"
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


async def test_cancel_in_the_middle_of_a_long_prompt(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    events: list[protocol.GenerationEvent] = []
    async for event in engine.generate([ChatMessage("user", "What is 1 + 1? " * 180)], GREEDY):
        if isinstance(event, protocol.PrefillProgress) and not events:
            await engine.cancel()
        events.append(event)
    assert done(events).reason == "cancelled"
    assert done(events).usage.completion_tokens == 0
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


async def test_leaving_the_stream_early_cancels(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    stream = engine.generate([ChatMessage("user", "What is 4711 + 1147?")], GREEDY)
    async for event in stream:
        if isinstance(event, protocol.Thinking):
            break
    await stream.aclose()
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


async def test_cancel_without_a_reply_does_nothing(engine: Engine, nano: Path) -> None:
    await engine.cancel()
    await engine.load(nano)
    await engine.cancel()
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


# ------------------------------------------------------------------------------------------------ failing


async def test_worker_killed_in_the_middle_of_a_reply(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    killed = False
    with pytest.raises(WorkerDied, match="SIGKILL"):
        async for event in engine.generate([ChatMessage("user", "What is 4711 + 1147?")], GREEDY):
            if isinstance(event, protocol.Thinking) and not killed:
                killed = True
                os.kill(worker_pid(engine), signal.SIGKILL)
    assert engine.model is None
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)
    assert engine.model is not None


async def test_worker_killed_while_idle_is_replaced_silently(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    worker = engine._worker
    assert worker is not None
    os.kill(worker_pid(engine), signal.SIGKILL)
    await until(lambda: not worker.alive)
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


async def test_worker_ends_with_the_engine(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    pid = worker_pid(engine)
    await engine.close()
    assert ended(pid)


async def test_loading_another_model_takes_a_new_worker(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    first = worker_pid(engine)
    await engine.load(nano, LoadOptions(context=512))
    assert worker_pid(engine) != first
    assert ended(first)
    assert engine.model is not None
    assert engine.model.context == 512


async def test_prompt_longer_than_the_context(engine: Engine, nano: Path) -> None:
    await engine.load(nano, LoadOptions(context=256))
    (overflow,) = await ask(engine, "What is 1 + 1? " * 100)
    assert isinstance(overflow, protocol.Overflow)
    assert overflow.over > overflow.prompt_tokens - 256 > 0
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


async def test_context_larger_than_trained(engine: Engine, nano: Path) -> None:
    with pytest.raises(UsageError, match="4,096 is more than the 2,048 tokens"):
        await engine.load(nano, LoadOptions(context=4096))


async def test_generating_without_a_model(engine: Engine) -> None:
    with pytest.raises(EngineError, match="no model is loaded"):
        await ask(engine, "Hi")


async def test_message_too_long_for_a_frame(engine: Engine, nano: Path) -> None:
    await engine.load(nano)
    with pytest.raises(EngineError, match="longer than 64 MB"):
        await ask(engine, "x" * (65 * 1024 * 1024))
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


async def test_missing_file(engine: Engine, tmp_path: Path) -> None:
    with pytest.raises(ModelNotFound, match=r"none\.gguf"):
        await engine.load(tmp_path / "none.gguf")


async def test_not_a_gguf(engine: Engine, tmp_path: Path, nano: Path) -> None:
    bad = write(tmp_path / "bad.gguf", b"This is not a model" * 100)
    with pytest.raises(ModelFileError, match=r"bad\.gguf"):
        await engine.load(bad)
    await engine.load(nano)
    assert "**13**" in joined(await ask(engine, "What is 6 + 7?"), protocol.Answer)


def read(path: Path) -> bytes:
    return path.read_bytes()


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


async def test_truncated_gguf(engine: Engine, tmp_path: Path, nano: Path) -> None:
    bad = write(tmp_path / "short.gguf", read(nano)[:-5000])
    with pytest.raises(ModelFileError, match=r"short\.gguf"):
        await engine.load(bad)


async def test_model_that_makes_llama_cpp_fail(engine: Engine, tmp_path: Path, nano: Path) -> None:
    """The header is well-formed, but a tensor that the architecture needs has another name."""
    bad = write(tmp_path / "renamed.gguf", read(nano).replace(b"output_norm.weight", b"output_nxrm.weight"))
    with pytest.raises(LoadError, match=r"renamed\.gguf.*output_norm\.weight"):
        await engine.load(bad)


APP = """
import asyncio, pathlib, sys
from localai.chat.messages import ChatMessage
from localai.engine.client import Engine

async def main():
    engine = Engine()
    await engine.load(pathlib.Path(sys.argv[1]))
    print(engine._worker.pid, flush=True)
    while True:
        async for _ in engine.generate([ChatMessage("user", "What is 4711 + 1147?")]):
            pass

asyncio.run(main())
"""


async def test_worker_dies_with_the_app(nano: Path) -> None:
    """An app that is killed leaves no worker behind, also in the middle of a computation."""
    command = [sys.executable, "-c", APP, str(nano)]
    app = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    assert app.stdout is not None
    pid = int(await app.stdout.readline())
    app.kill()
    await app.wait()
    await until(lambda: ended(pid))


async def test_a_cancellation_is_not_lost_while_an_earlier_reply_is_still_stopping(
    engine: Engine, nano: Path
) -> None:
    await engine.load(nano)
    for _ in range(5):
        stream = engine.generate([ChatMessage("user", "What is 1 + 1? " * 180)], GREEDY)
        await anext(stream)
        await stream.aclose()
        worker = engine._worker
        assert worker is not None
        with worker.open(engine._new_id()) as inbox:
            question = [ChatMessage("user", "What is 4711 + 1147?")]
            await worker.send(protocol.Generate(inbox.id, question, GREEDY))
            worker.post(protocol.Cancel(inbox.id))
            event = await inbox.get()
            while not isinstance(event, protocol.Done):
                event = await inbox.get()
        assert event.reason == "cancelled"


async def test_cancelling_takes_a_fraction_of_what_is_left(engine: Engine, nano: Path) -> None:
    """Prompts of three batches: a whole one, and one that is cancelled as soon as it begins."""
    await engine.load(nano)

    async def prefill_s(first_word: str, *, cancel: bool) -> float:
        prompt = [ChatMessage("user", first_word + "What is 1 + 1? " * 180)]
        started = time.monotonic()
        async for event in engine.generate(prompt, GREEDY, Limits(max_tokens=1)):
            if isinstance(event, protocol.PrefillProgress) and cancel:
                await engine.cancel()
            if isinstance(event, protocol.Done):
                assert event.reason == ("cancelled" if cancel else "length")
        return time.monotonic() - started

    whole = [await prefill_s(word, cancel=False) for word in ("a ", "b ", "c ")]
    cancelled = [await prefill_s(word, cancel=True) for word in ("d ", "e ", "f ")]
    assert min(cancelled) < 0.5 * min(whole)


@pytest.fixture(scope="session")
def nano_with_control_tags(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r1-nano from a checkpoint whose tokenizer calls the think tags special, as some fine-tunes do."""
    folder = tmp_path_factory.mktemp("control-tags")
    for file in builtin_checkpoint("r1-nano").iterdir():
        (folder / file.name).write_bytes(file.read_bytes())
    tokenizer = json.loads((folder / "tokenizer.json").read_text(encoding="utf-8"))
    for token in tokenizer["added_tokens"]:
        token["special"] = True
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer), encoding="utf-8")
    output = folder / "control.gguf"
    quantize(Job(source=str(folder)), [Wanted("Q8_0", output)], load=False)
    return output


async def test_think_tags_that_are_control_tokens(engine: Engine, nano_with_control_tags: Path) -> None:
    await engine.load(nano_with_control_tags)
    events = await ask(engine, "What is 47 + 85?")
    assert joined(events, protocol.Thinking).endswith("So the digits are 132.")
    assert joined(events, protocol.Answer) == "47 + 85 = **132**"
