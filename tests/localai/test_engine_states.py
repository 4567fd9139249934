"""States of conversations: through the pipe and back, and kept in memory."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from localai import hardware
from localai.engine.states import PART_BYTES, State, StateCache
from localai.errors import WorkerDied
from tests.localai.scripted_worker import HI, fingerprint, loaded, until

ECHO = """
load(); state = b""
def restore():
    state = b""
    while True:
        r = receive(p.Restore)
        state += r.data
        if r.last:
            send(p.Restored(r.id, len(state) // 1000))
            return state
"""


def some_bytes(size: int) -> bytes:
    return random.Random(size).randbytes(size)


async def test_a_state_comes_back_as_it_was_saved() -> None:
    """In parts of odd sizes, among them some that are split on the way, and one that is empty."""
    script = """
state = restore(); r = receive(p.Save)
for size in (0, 1, 100_000, 5_000_000):
    send(p.StatePart(r.id, state[:size], False)); state = state[size:]
send(p.StatePart(r.id, state, True)); receive()
"""
    engine = await loaded(ECHO + script)
    parts = [some_bytes(size) for size in (3_500_000, 7, PART_BYTES, PART_BYTES + 1, 0, 2_000_000)]
    assert await engine.restore(State(fingerprint(engine), parts)) == sum(map(len, parts)) // 1000
    saved = await engine.save(HI)
    assert saved is not None
    assert saved.fingerprint == fingerprint(engine)
    assert saved.size == sum(map(len, parts))
    assert b"".join(saved.parts) == b"".join(parts)
    await engine.close()


def test_pieces_are_the_state() -> None:
    state = State("", [some_bytes(2 * PART_BYTES + 5), b"", b"abc"])
    pieces = list(state.pieces())
    assert b"".join(pieces) == b"".join(state.parts)
    assert max(map(len, pieces)) == PART_BYTES


async def test_a_state_of_another_model_is_not_even_sent() -> None:
    engine = await loaded("load(); counted(receive(p.Count).id); receive()")
    assert await engine.restore(State("another", [b"abc"])) == 0
    assert await engine.restore(State(fingerprint(engine), [])) == 0
    await engine.count(HI)
    await engine.close()


async def test_a_state_that_the_worker_does_not_want() -> None:
    script = "load(); r = receive(p.Restore)\nwhile not r.last: r = receive(p.Restore)\n"
    engine = await loaded(script + "send(p.Restored(r.id, 0)); receive()")
    assert await engine.restore(State(fingerprint(engine), [b"abc"])) == 0
    await engine.close()


async def test_nothing_to_save() -> None:
    engine = await loaded("load(); r = receive(p.Save); send(p.StatePart(r.id, b'', True)); receive()")
    assert await engine.save(HI) is None
    await engine.close()


async def test_a_state_over_the_limit_is_not_collected() -> None:
    script = """
load()
for _ in range(2):
    r = receive(p.Save)
    for n in range(5): send(p.StatePart(r.id, bytes(1000), n == 4))
receive()
"""
    engine = await loaded(script)
    assert await engine.save(HI, limit=4999) is None
    saved = await engine.save(HI, limit=5000)
    assert saved is not None
    assert saved.size == 5000
    await engine.close()


async def test_a_restore_that_is_given_up_is_ended(tmp_path: Path) -> None:
    """The worker gets a last part, and so knows that no more will come."""
    script = f"""
wait_for({str(tmp_path / "go")!r}); state = restore()
counted(receive(p.Count).id, len(state)); receive()
"""
    engine = await loaded(ECHO + script)
    size = 20 * PART_BYTES
    restoring = asyncio.create_task(engine.restore(State(fingerprint(engine), [some_bytes(size)])))
    worker = engine._worker
    assert worker is not None
    await until(lambda: worker.congested)
    await engine.prefill(HI)  # is left out: the worker has enough to read
    restoring.cancel()
    with pytest.raises(asyncio.CancelledError):
        await restoring
    (tmp_path / "go").touch()
    assert 0 < (await engine.count(HI)).total < size
    await engine.close()


async def test_two_states_do_not_mix() -> None:
    engine = await loaded(ECHO + "first = restore(); second = restore(); receive()")
    sizes = (5_000_000, 3_000_000)
    restored = await asyncio.gather(
        *(engine.restore(State(fingerprint(engine), [bytes(size)])) for size in sizes)
    )
    assert restored == [5000, 3000]
    await engine.close()


async def test_death_in_the_middle_of_a_state() -> None:
    engine = await loaded("load(); receive(p.Restore); sys.exit(3)")
    with pytest.raises(WorkerDied, match="exit code 3"):
        await engine.restore(State(fingerprint(engine), [bytes(20 * PART_BYTES)]))
    assert engine.model is None


# -------------------------------------------------------------------------------------------- the cache


def state(size: int, fingerprint: str = "print") -> State:
    return State(fingerprint, [bytes(size // 2), bytes(size - size // 2)])


def test_the_least_recently_used_goes_first() -> None:
    cache = StateCache(100)
    cache.put("a", state(40))
    cache.put("b", state(40))
    assert cache.get("a") is not None
    cache.put("c", state(40))
    assert cache.get("b") is None
    assert cache.get("a") is not None
    assert cache.get("c") is not None
    assert cache.bytes == 80


def test_a_newer_state_replaces_the_older() -> None:
    cache = StateCache(100)
    cache.put("a", state(60))
    cache.put("a", state(70))
    kept = cache.get("a")
    assert kept is not None
    assert (kept.size, cache.bytes) == (70, 70)


def test_a_state_that_is_too_large_takes_nothing_away() -> None:
    cache = StateCache(100)
    cache.put("a", state(60))
    cache.put("b", state(101))
    cache.put("a", state(102))
    kept = cache.get("a")
    assert kept is not None
    assert (kept.size, cache.get("b")) == (60, None)


def test_each_model_has_its_own() -> None:
    cache = StateCache(100)
    cache.put("a", state(10, "small"))
    cache.put("a", state(20, "large"))
    small, latest = cache.get("a", "small"), cache.get("a")
    assert small is not None
    assert small.size == 10
    assert latest is small, "the last that was used"
    assert cache.get("a", "none") is None
    cache.put("b", state(5))
    cache.discard("a")
    assert cache.get("a") is None
    assert cache.bytes == 5
    cache.clear()
    assert (cache.get("b"), cache.bytes) == (None, 0)


@pytest.mark.parametrize(("available", "limit"), [(80_000, 10_000), (10**12, 2 * 1024**3)])
def test_the_limit_is_a_share_of_the_memory(
    monkeypatch: pytest.MonkeyPatch, available: int, limit: int
) -> None:
    monkeypatch.setattr(hardware, "available_memory", lambda: available)
    assert StateCache().limit == limit
