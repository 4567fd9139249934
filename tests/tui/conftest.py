"""Fixtures of the chat's tests."""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from textual.pilot import Pilot

from localai.history import History

sys.path.insert(0, str(Path(__file__).parent))

from chat_fakes import NANO, R1, STARTER, Clock, FakeEngine, FakeShelf, QuietJobs

from tui.app import ChatApp

NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC


@pytest.fixture(autouse=True)
def _utc(monkeypatch: pytest.MonkeyPatch):
    """Dates on the screen are local: let local be the same everywhere."""
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    yield
    monkeypatch.undo()
    time.tzset()


@pytest.fixture
def history(tmp_path: Path):
    with History(tmp_path / "conversations.sqlite") as opened:
        yield opened


@pytest.fixture
def engine() -> FakeEngine:
    return FakeEngine()


@pytest.fixture
def shelf() -> FakeShelf:
    return FakeShelf(R1, NANO, STARTER)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def make_app(engine: FakeEngine, history: History, shelf: FakeShelf, clock: Clock):
    def make(**changes: object) -> ChatApp:
        settings: dict[str, object] = {
            "model": R1.name,
            "jobs": QuietJobs(),
            "clock": clock,
            "now": lambda: NOON,
        }
        return ChatApp(engine, history, shelf, **(settings | changes))

    return make


async def wait_until(pilot: Pilot[None], condition: Callable[[], object], seconds: float = 20.0) -> None:
    """Let the application run until `condition` holds. Waits for what is wanted, never for a time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "the condition did not come true"
        await asyncio.sleep(0.005)
        await pilot.pause()
