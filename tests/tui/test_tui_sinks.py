"""Every way to the screen of the chat: what is painted commands nothing and hides nothing."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest
from chat_fakes import R1, FakeEngine, FakeShelf, answer, done, looping, thinking
from conftest import wait_until
from hypothesis import given, settings
from hypothesis import strategies as st
from textual import events
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Select

from benchmarks.terminal import CONTROL, Terminal
from localai.chat.clean import clean
from localai.chat.conversation import Attachment, Conversation, Message
from localai.errors import LoadError
from localai.history import History, Preset
from tests.hostile_texts import LONG, TEXTS, harmful
from tui.app import ChatApp
from tui.growing import Growing
from tui.markdown import lay_out
from tui.screens.conversation_settings import ConversationSettings
from tui.screens.models import ModelsScreen
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import ConversationList
from tui.widgets.status_line import Status, status_content

MakeApp = Callable[..., ChatApp]
KEYS = [*TEXTS]
GROUPS = [KEYS[start::6] for start in range(6)]
"""One application for several texts: to start one takes longer than to show a text."""

ASKS = re.compile(rb"\x1b\[\?(?:2026|2048)\$p")
"""How Textual asks a terminal what it can do."""


def painted(app: App[object]) -> list[str]:
    """The rows of the screen, each checked."""
    rows = []
    for strip in app.screen._compositor.render_strips():
        for segment in strip:
            if not segment.control:
                assert harmful(segment.text) == []
                assert not set(segment.text) & set("\n\t\r")
        assert strip.cell_length == app.size.width  # nothing stands out over the edge
        rows.append(strip.text)
    return rows


def hostile(text: str) -> Conversation:
    whole = text.encode("utf-8", "replace").decode()
    found = Conversation(title=whole, system=whole)
    file = Attachment(name=whole, text=whole)
    found.append(Message(parent=None, role="user", content=whole, attachments=(file,)))
    found.append(
        Message(
            parent=found.head,
            role="assistant",
            content=whole,
            thinking=whole,
            model=whole,
            finish_reason=whole,
        )
    )
    found.append(Message(parent=found.head, role="user", content=whole))
    found.append(Message(parent=found.head, role="assistant", state="failed", finish_reason=whole))
    return found


# ---------------------------------------------------------------------------------------- without a screen


@pytest.mark.parametrize("name", TEXTS)
def test_rows_of_markdown(name: str) -> None:
    text = clean(TEXTS[name])
    for width in (20, 80):
        for made in (text, f"- {text}\n\n> {text}", f"```\n{text}\n```", f"|{text}|b|\n|-|-|\n|c|{text}|"):
            assert harmful("".join(line.content.plain for line in lay_out(made, width))) == []


@settings(max_examples=200)
@given(st.text(st.one_of(st.characters(codec=None), st.sampled_from("\x1b[]`&#x202e;|<>\u200b\n"))))
def test_rows_of_any_text(text: str) -> None:
    assert harmful("".join(line.content.plain for line in lay_out(clean(text), 40))) == []
    growing = Growing(40)
    for start in range(0, len(text), 7):
        growing.add(clean(text[start : start + 7]))
    assert harmful("".join(line.content.plain for line in growing.lines)) == []


@given(st.text(st.characters(codec=None)), st.integers(10, 120))
def test_the_status_line_of_any_text(text: str, width: int) -> None:
    status = Status(model=text, file_type=text, state=text, context=4096)
    assert harmful(status_content(status, width).plain, line=True) == []


# ------------------------------------------------------------------------------------------------- screens


async def ready(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")


async def open_conversation(pilot: Pilot[None], conversation_id: str) -> None:
    app = pilot.app
    app.screen.open_conversation(conversation_id)

    def there() -> bool:
        workers = [w for w in app.workers if w.group in ("reply", "navigate") and not w.is_finished]
        return app.session.conversation.id == conversation_id and not workers

    await wait_until(pilot, there)
    await pilot.pause()


@pytest.mark.parametrize("names", GROUPS)
async def test_stored_conversations(make_app: MakeApp, history: History, names: list[str]) -> None:
    stored = [hostile(TEXTS[name]) for name in names]
    for conversation in stored:
        history.save(conversation)
    app = make_app()
    async with app.run_test(size=(120, 40)) as pilot:
        await ready(pilot)
        for conversation in stored:
            await open_conversation(pilot, conversation.id)
            painted(app)
            await pilot.press("ctrl+t")
            painted(app)
        app.screen.delete_conversation(stored[0].id, stored[0].title)
        await wait_until(pilot, lambda: app._notifications)
        await pilot.pause()
        painted(app)
        app.screen.query_one(ConversationList).query_one(Input).value = "red"
        await pilot.pause()
        painted(app)


async def test_replies_as_they_come(make_app: MakeApp, engine: FakeEngine) -> None:
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        for text in TEXTS.values():
            half = len(text) // 2
            reached, gate = asyncio.Event(), asyncio.Event()
            engine.script(
                thinking(text[:half]),
                thinking(text[half:]),
                looping(text),
                answer(text[:half]),
                answer(text[half:]),
                reached.set,
                gate,
                done(),
            )
            turn = app.session.ask("hello")
            app.screen._follow(turn)
            await wait_until(pilot, reached.is_set)
            await pilot.pause()
            painted(app)
            gate.set()
            await turn.ended()
            await pilot.pause()
            painted(app)
            await app.session.new()


async def test_failures(make_app: MakeApp, engine: FakeEngine) -> None:
    for text in ("colour", "clipboard", "8-bit CSI", "tags", "Textual broken", "Zalgo", "many lines"):
        engine.will_load = [LoadError(TEXTS[text], TEXTS[text])]
        app = make_app()
        async with app.run_test(size=(80, 30)) as pilot:
            await wait_until(pilot, lambda app=app: app.session.loader.state == "failed")
            await pilot.pause()
            painted(app)
            app.screen._tell(LoadError(TEXTS[text], TEXTS[text]))
            app.screen._notice(text, TEXTS[text])
            await pilot.pause()
            painted(app)


@pytest.mark.parametrize("size", [(60, 24), (140, 50)])
async def test_models(make_app: MakeApp, shelf: FakeShelf, size: tuple[int, int]) -> None:
    found = []
    for text in TEXTS.values():
        entry = msgspec.structs.replace(
            R1,
            name=text,
            title=text,
            file_type=text,
            note=text,
            license=text,
            base_license=text,
            program=text,
        )
        found.append(entry)
        found.append(msgspec.structs.replace(entry, name=f"{text}2", place="found", fault=text))
    app = make_app()
    async with app.run_test(size=size) as pilot:
        await ready(pilot)
        shelf.all_of_them = found
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        options = app.screen.query_one(OptionList)
        await wait_until(pilot, lambda: options.option_count > len(TEXTS))
        for number in range(0, options.option_count, 5):
            options.highlighted = number
            await pilot.pause()
            painted(app)


async def test_what_is_written_attached_and_set(make_app: MakeApp, history: History) -> None:
    for name, text in TEXTS.items():
        history.save_preset(Preset(f"{name} {text.encode('utf-8', 'replace').decode()}", text[:1]))
    app = make_app()
    async with app.run_test(size=(100, 40)) as pilot:
        await ready(pilot)
        composer = app.query_one(Composer)
        for text in TEXTS.values():
            app.post_message(events.Paste(text))
            await pilot.pause()
            painted(app)
            assert harmful(composer.text) == []
            composer.put(text)
            composer.row.replace([Attachment(name=text, text=text)])
            await pilot.pause()
            painted(app)
            composer.put("")
            composer.row.replace([])
        app.session.conversation.system = TEXTS["8-bit CSI"] + TEXTS["tags"]
        app.session.conversation.settings = {"temperature": TEXTS["colour"]}
        app.screen.action_conversation_settings()
        await wait_until(pilot, lambda: isinstance(app.screen, ConversationSettings))
        select = app.screen.query_one(Select)
        for value in [value for _, value in select._options][:: len(TEXTS) // 8]:
            select.value = value
            await pilot.pause()
            painted(app)
        select.expanded = True
        await pilot.pause()
        painted(app)
        select.expanded = False
        for field in app.screen.query("Input, TextArea"):
            field.focus()
            app.post_message(events.Paste(TEXTS["colour"] + TEXTS["no width"] + TEXTS["8-bit OSC"]))
            await pilot.pause()
            assert app.focused is field
            painted(app)


async def test_a_line_without_end(make_app: MakeApp, history: History) -> None:
    conversation = hostile(LONG)
    history.save(conversation)
    app = make_app()
    async with app.run_test(size=(80, 30)) as pilot:
        await ready(pilot)
        await open_conversation(pilot, conversation.id)
        painted(app)


# ---------------------------------------------------------------------------------------- a real terminal


def test_what_a_terminal_gets(nano: Path) -> None:
    """The bytes: without the sequences that Textual has of its own, there is none that commands anything."""
    names = (
        "colour",
        "title",
        "clipboard",
        "link",
        "8-bit OSC",
        "DCS",
        "reversed name",
        "tags",
        "Zalgo words",
    )
    made = hostile("first " + " ".join(TEXTS[name] for name in names) + " last")
    with History() as history:
        history.save(made)
    command = [sys.executable, "-P", "-m", "localai", "chat", "--plain-history", str(nano)]
    with Terminal(command, size=(140, 40)) as chat:
        chat.sees("Ask anything")
        chat.type("\x02")
        chat.sees("Conversations", "first [31mred")
        chat.type("\r")
        chat.sees("52;c;ZXZpbA==", "last")
        chat.type("\x11")
        assert chat.wait_for_end() == 0
        left = ASKS.sub(b"", CONTROL.sub(b"", chat.raw)).decode()
        assert "\x1b" not in left
        assert harmful(left.replace("\r", "")) == []
        said = re.findall(rb"\x1b\](\d+)", chat.raw)
        assert not {b"0", b"2", b"8", b"9", b"52", b"777", b"1337"} & set(said)
