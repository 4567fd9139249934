"""How the screens look. To accept a change: look at the report, then `pytest tests/tui --snapshot-update`."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest
from chat_fakes import R1, STARTER, Clock, FakeEngine, answer, done, looping, overflow, prefill, thinking
from conftest import NOON, wait_until
from textual.pilot import Pilot
from textual.widgets import OptionList, Select, TextArea

from localai.chat.budget import DropOldest, StartAnew
from localai.chat.conversation import Attachment, Conversation, Message
from localai.errors import LoadError, WorkerDied
from localai.history import History, Preset
from tui import theme as themes
from tui.screens.context import ContextScreen
from tui.screens.conversation_settings import ConversationSettings
from tui.screens.help import HelpScreen
from tui.screens.settings import SettingsScreen
from tui.widgets.assistant_message import AssistantMessage
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import ConversationList
from tui.widgets.thinking import ThinkingHeader

SMALL, MEDIUM, LARGE, NARROW = (80, 24), (120, 40), (200, 60), (60, 20)
DARK, LIGHT, CONTRAST = themes.DARK.name, themes.LIGHT, themes.CONTRAST.name

THOUGHT = (
    "Okay, the user asks how many primes there are below 30. Let me list them: 2, 3, 5, 7, 11, 13, 17, 19, "
    "23, 29.\n\nLet me count them: 2 is one, 3 is two, 5 is three, 7 is four, 11 is five, 13 is six, 17 is "
    "seven, 19 is eight, 23 is nine, 29 is ten.\n\nWait, is 1 a prime? No, 1 is not a prime number by "
    "definition. So the count is ten. "
)
SHORT_ANSWER = "There are **10** primes below 30:\n\n2, 3, 5, 7, 11, 13, 17, 19, 23 and 29."
LONG_ANSWER = """## Hash tables

A *hash table* keeps pairs of **key** and value. It finds a key in constant time, `O(1)`, as long as the
hash function spreads the keys well. See [the article](https://example.org/hash).

1. Hash the key.
2. Take the bucket.
   - empty: done
   - else: compare

```python
def bucket(key: str, size: int) -> int:
    \"\"\"Which bucket a key belongs to.\"\"\"
    return hash(key) % size
```

| structure | find | insert |
|:--|--:|--:|
| list | O(n) | O(1) |
| hash table | O(1) | O(1) |

> Keep the load below 0.7.

<b>No HTML</b>, [bold]no markup[/bold], and a last sentence.
"""

Script = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(autouse=True)
def _asked_before(history: History) -> None:
    asked = [
        ("How does a hash table work?", 0.0),
        ("Regex for an ISO date", 3600.0),
        ("Plan a week in Lisbon with two children and a dog", 86_500.0),
        ("Summarize the meeting notes", 260_000.0),
        ("Why is the sky blue?", 3_500_000.0),
    ]
    for question, age in asked:
        when = NOON - 60 - age
        conversation = Conversation(model=R1.name, created=when, updated=when)
        conversation.append(Message(parent=None, role="user", content=question, created=when))
        reply = Message(
            parent=conversation.head,
            role="assistant",
            model=R1.name,
            content=LONG_ANSWER,
            thinking=THOUGHT,
            thinking_s=12.3,
            thinking_tokens=340,
            prompt_tokens=200,
            completion_tokens=900,
            created=when,
        )
        conversation.append(reply)
        history.save(conversation)


async def ready(pilot: Pilot[None]) -> None:
    """The screen stands and the model is loaded. (A snapshot's script begins before there is a screen.)"""
    await wait_until(pilot, lambda: [c for c in pilot.app.screen.query(Composer) if c.has_focus])
    await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")


async def ask(pilot: Pilot[None], question: str = "How many primes are there below 30?") -> None:
    await ready(pilot)
    pilot.app.query_one(Composer).put(question)
    await pilot.press("enter")
    await wait_until(pilot, lambda: pilot.app.query(AssistantMessage))


async def over(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: not pilot.app.session.busy)
    await wait_until(pilot, lambda: all(w.is_finished for w in pilot.app.workers if w.group == "reply"))


async def opened(pilot: Pilot[None]) -> None:
    await ready(pilot)
    await pilot.press("ctrl+b")
    pilot.app.query_one(ConversationList).query_one(OptionList).highlighted = 1
    await pilot.press("enter")
    await wait_until(pilot, lambda: pilot.app.query(AssistantMessage))
    await wait_until(pilot, lambda: pilot.app.query_one(Composer).has_focus)


@pytest.fixture
def snap(snap_compare, make_app):
    def compare(script: Script, size: tuple[int, int], **settings: object) -> bool:
        return snap_compare(make_app(**settings), terminal_size=size, run_before=script)

    return compare


# ------------------------------------------------------------------- the main views, in all sizes and themes


@pytest.mark.parametrize(
    ("size", "theme"),
    [(SMALL, DARK), (MEDIUM, LIGHT), (MEDIUM, CONTRAST), (LARGE, DARK)],
    ids=["80x24-dark", "120x40-light", "120x40-contrast", "200x60-dark"],
)
def test_conversation(snap, size, theme: str):
    async def script(pilot: Pilot[None]) -> None:
        pilot.app.theme = theme
        await opened(pilot)
        if size != SMALL:
            await pilot.press("ctrl+t", "ctrl+up")

    assert snap(script, size)


def test_conversation_without_colors(snap, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("NO_COLOR", "1")
    assert snap(opened, SMALL)


@pytest.mark.parametrize(
    ("size", "theme"),
    [(SMALL, DARK), (MEDIUM, LIGHT), (LARGE, CONTRAST)],
    ids=["80x24-dark", "120x40-light", "200x60-contrast"],
)
def test_search(snap, size, theme: str):
    async def script(pilot: Pilot[None]) -> None:
        pilot.app.theme = theme
        await ready(pilot)
        await pilot.press("ctrl+f", *"hash")
        await wait_until(pilot, lambda: pilot.app.query_one(ConversationList)._hits)

    assert snap(script, size)


@pytest.mark.parametrize(
    ("size", "theme"),
    [(SMALL, LIGHT), (MEDIUM, CONTRAST), (LARGE, DARK)],
    ids=["80x24-light", "120x40-contrast", "200x60-dark"],
)
def test_settings(snap, size, theme: str):
    async def script(pilot: Pilot[None]) -> None:
        pilot.app.theme = theme
        await ready(pilot)
        await pilot.press("f2")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen))

    assert snap(script, size)


# ------------------------------------------------------------------------------------------ the other views


@pytest.mark.parametrize("size", [SMALL, NARROW], ids=["80x24", "60x20"])
def test_welcome(snap, size):
    assert snap(ready, size, model=STARTER.name)


def test_thinking(snap, engine: FakeEngine, clock: Clock):
    async def script(pilot: Pilot[None]) -> None:
        engine.script(prefill(24, 24), thinking(THOUGHT, 150), clock.forward(4), asyncio.Event())
        await ask(pilot)
        await wait_until(pilot, lambda: "Thinking… 4 s" in str(pilot.app.query_one(ThinkingHeader).visual))

    assert snap(script, SMALL)


def test_loop(snap, engine: FakeEngine, clock: Clock):
    async def script(pilot: Pilot[None]) -> None:
        engine.script(
            prefill(24, 24),
            thinking(THOUGHT + "Wait, let me check that again. " * 12, 250),
            clock.forward(9),
            looping("Wait, let me check that again. Wait, let me check"),
            asyncio.Event(),
        )
        await ask(pilot)
        await wait_until(pilot, lambda: "Thinking… 9 s" in str(pilot.app.query_one(ThinkingHeader).visual))
        await wait_until(pilot, lambda: pilot.app._notifications)

    assert snap(script, NARROW)


def test_thinking_never_ended(snap, engine: FakeEngine, clock: Clock):
    engine.script(
        thinking(THOUGHT, 340),
        clock.forward(12),
        done("length", prompt=24, completion=340, thought=340, answer="none"),
    )

    async def script(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await over(pilot)

    assert snap(script, SMALL)


def test_no_room(snap, engine: FakeEngine):
    async def script(pilot: Pilot[None]) -> None:
        engine.script(answer(SHORT_ANSWER), done(prompt=24, completion=40))
        engine.script(overflow(DropOldest((0, 1), 4000), StartAnew()))
        await ask(pilot)
        await over(pilot)
        pilot.app.query_one(Composer).put("And below 100?")
        await pilot.press("enter")
        await wait_until(pilot, lambda: len(pilot.app.query(AssistantMessage)) == 2)
        await over(pilot)

    assert snap(script, SMALL)


def test_folded(snap, engine: FakeEngine, clock: Clock):
    engine.script(
        thinking(THOUGHT, 340),
        clock.forward(12),
        answer(SHORT_ANSWER, 40),
        done(prompt=24, completion=380, thought=340),
    )

    async def script(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await over(pilot)

    assert snap(script, SMALL)


def test_stopped(snap, engine: FakeEngine):
    async def script(pilot: Pilot[None]) -> None:
        engine.script(answer("There are some primes, the first ones"), asyncio.Event())
        await ask(pilot)
        await wait_until(pilot, lambda: pilot.app.session.turn.phase == "answering")
        await pilot.press("escape")
        await over(pilot)

    assert snap(script, SMALL)


def test_error(snap, engine: FakeEngine):
    engine.script(
        answer("There are some primes"),
        WorkerDied("The engine ended by itself (SIGKILL)", "The next message starts a new one"),
    )

    async def script(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await over(pilot)

    assert snap(script, SMALL)


def test_a_model_that_does_not_load(snap, engine: FakeEngine):
    engine.will_load = [LoadError("Not enough memory for this model", "Choose a smaller one")]

    async def script(pilot: Pilot[None]) -> None:
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "failed")
        await wait_until(pilot, lambda: [c for c in pilot.app.screen.query(Composer) if c.has_focus])

    assert snap(script, SMALL)


def test_a_very_small_terminal(snap, engine: FakeEngine):
    engine.script(answer("There are some primes."), done(prompt=24, completion=5))

    async def script(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await over(pilot)

    assert snap(script, (20, 5))


def test_sidebar_over_a_narrow_screen(snap):
    async def script(pilot: Pilot[None]) -> None:
        await ready(pilot)
        await pilot.press("ctrl+b")

    assert snap(script, SMALL)


def test_help(snap):
    async def script(pilot: Pilot[None]) -> None:
        await ready(pilot)
        await pilot.press("f1")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, HelpScreen))

    assert snap(script, SMALL)


def test_selected_message_with_branches(snap, engine: FakeEngine):
    async def script(pilot: Pilot[None]) -> None:
        engine.script(answer(SHORT_ANSWER), done(prompt=24, completion=40))
        engine.script(answer("Ten:\n\n```python\nprint(10)\n```"), done(prompt=24, completion=40))
        await ask(pilot)
        await over(pilot)
        await pilot.press("ctrl+r")
        await wait_until(pilot, lambda: len(engine.prompts) == 2)
        await over(pilot)
        await pilot.press("ctrl+up")

    assert snap(script, SMALL)


def test_edit(snap, engine: FakeEngine):
    async def script(pilot: Pilot[None]) -> None:
        await ask(pilot)
        await over(pilot)
        await pilot.press("ctrl+up", "up", "e")
        await wait_until(pilot, lambda: pilot.app.query_one(Composer).border_subtitle)

    assert snap(script, SMALL)


def test_settings_of_a_conversation(snap, history: History):
    history.save_preset(Preset("Brief", "Answer in one sentence.", {"temperature": 0.3}))

    async def script(pilot: Pilot[None]) -> None:
        await ready(pilot)
        await pilot.press("f3")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ConversationSettings))
        pilot.app.screen.query_one(Select).value = "Brief"
        await wait_until(pilot, lambda: pilot.app.screen.query_one(TextArea).text)

    assert snap(script, SMALL)


def test_context(snap, engine: FakeEngine):
    async def script(pilot: Pilot[None]) -> None:
        engine.script(
            thinking(THOUGHT, 1340), answer(LONG_ANSWER * 9), done(prompt=24, completion=1400, thought=1340)
        )
        await ready(pilot)
        file = Attachment(name="notes.txt", text="word " * 2000)
        await pilot.app.session.ask("What is in the notes?", [file]).ended()
        await pilot.press("f5")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ContextScreen))

    assert snap(script, SMALL)
