"""Take docs/screenshot.svg anew: the real chat, the real engine, and r1-nano, which is part of the program.

Usage: python docs/screenshot.py [OUTPUT.svg]
"""

from __future__ import annotations

import asyncio
import os
import re
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

OUTPUT = Path(__file__).with_name("screenshot.svg")
SIZE = (124, 32)
FONT_FROM_AFAR = re.compile(r"@font-face \{.*?\}\s*", re.DOTALL)
"""Textual's pictures load their font from a public server; ours ask nobody."""
EARLIER = ("Add 305 and 470.", "Hello!")
QUESTIONS = ("What is 47 + 85?", "And how much is 1234 plus 877?")


async def take() -> str:
    """The picture, as SVG."""
    from localai.engine.client import Engine
    from localai.engine.protocol import Sampling
    from localai.history import History
    from models.store import Store
    from tui.app import ChatApp
    from tui.shelf import StoreShelf

    greedy = Sampling(temperature=0)
    app = ChatApp(Engine(), History(), StoreShelf(Store()), model="r1-nano", sampling=greedy)
    async with app.run_test(size=SIZE) as pilot:
        for question in EARLIER:
            await ask(pilot, app, question)
            await pilot.press("ctrl+n")
        for question in QUESTIONS:
            await ask(pilot, app, question)
        await pilot.press("ctrl+t")
        await pilot.pause(0.5)
        picture = app.export_screenshot(title="localai chat")
        await app.session.close()
    return FONT_FROM_AFAR.sub("", picture)


async def ask(pilot, app, question: str) -> None:  # type: ignore[no-untyped-def]
    """Type a question, send it, and wait for the end of the reply."""
    await pilot.press(*question)
    await pilot.press("enter")
    await until(lambda: app.session.turn is not None and not app.session.busy)
    await pilot.pause(0.2)


async def until(condition: Callable[[], bool]) -> None:
    """Wait for a condition, at most a minute."""
    async with asyncio.timeout(60):
        while not condition():  # noqa: ASYNC110 - the screen has no event for it
            await asyncio.sleep(0.02)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as home:
        os.environ["LOCALAI_HOME"] = home
        from localai.cli.commands import program

        program()(["models", "pull", "r1-nano"], standalone_mode=False)
        output = Path(sys.argv[1]) if len(sys.argv) > 1 else OUTPUT
        output.write_text(asyncio.run(take()), encoding="utf-8")
