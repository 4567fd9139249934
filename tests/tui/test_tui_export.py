"""Export from the chat: which conversation, in which form, to which file, and what is said of it."""

from __future__ import annotations

import asyncio
import errno
import os
import stat
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_fakes import FakeEngine, answer, done
from conftest import NOON, wait_until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from localai.chat.conversation import Conversation, Message
from localai.history import History, export
from localai.history.imports import import_file
from tui.app import ChatApp
from tui.screens.export import ExportScreen
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import ConversationList

MakeApp = Callable[..., ChatApp]


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where exports go."""
    made = tmp_path / "downloads"
    made.mkdir()
    monkeypatch.setattr(export, "folder", lambda: made)
    return made


def store(history: History, *texts: str, age: float = 60.0) -> Conversation:
    conversation = Conversation(created=NOON - age, updated=NOON - age)
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        conversation.append(Message(parent=conversation.head, role=role, content=text, created=NOON - age))
    history.save(conversation)
    return conversation


async def opened(pilot: Pilot[None]) -> ExportScreen:
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, ExportScreen))
    await wait_until(pilot, lambda: any(field.value for field in pilot.app.screen.query(Input)))
    return pilot.app.screen


async def closed(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: not isinstance(pilot.app.screen, ExportScreen))


def told(app: ChatApp) -> str:
    return str(app.screen.query_one(".told", Static).visual)


def notices(app: ChatApp) -> list[str]:
    return [notification.message for notification in app._notifications]


async def test_x_exports_the_highlighted_conversation(make_app: MakeApp, history: History, folder: Path):
    store(history, "the older question", "its answer", age=90)
    store(history, "the newer question", "another")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "down", "x")
        await opened(pilot)
        await pilot.press("enter")
        await closed(pilot)
        await wait_until(pilot, lambda: notices(pilot.app))
    (file,) = folder.iterdir()
    assert file.name == "the older question.md"
    assert "its answer" in file.read_text()
    assert "another" not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert str(file) in notices(pilot.app)[-1]
    assert "not encrypted" in notices(pilot.app)[-1]


async def test_shift_x_exports_all_and_they_can_be_imported(
    make_app: MakeApp, history: History, folder: Path
):
    stored = [store(history, f"question {n}", f"answer {n}") for n in range(30)]
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "X")
        screen = await opened(pilot)
        assert "30 conversations" in str(screen.query_one(".text", Static).visual)
        await pilot.press("down", "enter")
        await closed(pilot)
    (file,) = folder.iterdir()
    assert file.name == "localai conversations.json"
    with History(memory=True) as other:
        import_file(other, file)
        assert [other.load(one.id) for one in stored] == stored


async def test_the_suffix_follows_the_form(make_app: MakeApp, history: History, folder: Path):
    store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "x")
        screen = await opened(pilot)
        await pilot.press("down", "down")
        await wait_until(pilot, lambda: screen.query_one(Input).value.endswith("question.html"))
        await pilot.press("up")
        await wait_until(pilot, lambda: screen.query_one(Input).value.endswith("question.json"))
        screen.query_one(Input).value = str(folder / "mine.txt")
        await pilot.press("up", "down", "down", "enter")
        await closed(pilot)
    assert (folder / "mine.txt").read_text().startswith("<!DOCTYPE html>")


async def test_a_file_that_is_there_is_replaced_only_when_the_user_says_so(
    make_app: MakeApp, history: History, folder: Path
):
    store(history, "question", "answer")
    (folder / "question.md").write_text("old")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "x")
        screen = await opened(pilot)
        assert screen.query_one(Input).value.endswith("question (2).md")
        screen.query_one(Input).value = str(folder / "question.md")
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Enter again replaces" in told(pilot.app))
        assert (folder / "question.md").read_text() == "old"
        await pilot.press("enter")
        await closed(pilot)
    assert "answer" in (folder / "question.md").read_text()
    assert len([*folder.iterdir()]) == 1


async def test_a_folder_as_the_file(make_app: MakeApp, history: History, tmp_path: Path):
    store(history, "question", "answer")
    (tmp_path / "other").mkdir()
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "x")
        screen = await opened(pilot)
        screen.query_one(Input).value = f"{tmp_path / 'other'}/"
        screen.query_one(Input).focus()
        await pilot.press("enter")
        await closed(pilot)
    assert (tmp_path / "other" / "question.md").exists()


async def test_what_cannot_be_written_is_said_and_can_be_put_right(
    make_app: MakeApp, history: History, folder: Path
):
    store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "x")
        screen = await opened(pilot)
        for path, words in {
            "": "needs a name",
            str(folder / "none" / "out.md"): "there is no such folder",
            str(folder / ("n" * 300)): "File name too long",
        }.items():
            screen.query_one(Input).value = path
            await pilot.pause()
            await pilot.press("enter")
            await wait_until(pilot, lambda words=words: words in told(pilot.app))
        screen.query_one(Input).value = str(folder / "out.md")
        await pilot.press("enter")
        await closed(pilot)
    assert [file.name for file in folder.iterdir()] == ["out.md"]


@pytest.mark.parametrize(
    ("code", "words"),
    [(errno.ENOSPC, "the disk is full"), (errno.EROFS, "may not write there"), (errno.EIO, "error")],
)
async def test_a_disk_that_fails_leaves_nothing(
    make_app: MakeApp,
    history: History,
    folder: Path,
    monkeypatch: pytest.MonkeyPatch,
    code: int,
    words: str,
):
    store(history, "question", "answer")

    def fail(descriptor: int) -> None:
        raise OSError(code, os.strerror(code))

    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "x")
        await opened(pilot)
        monkeypatch.setattr("localai.history.exchange.os.fsync", fail)
        await pilot.press("enter")
        await wait_until(pilot, lambda: words in told(pilot.app))
    assert [*folder.iterdir()] == []


async def test_a_file_that_is_being_written_cannot_be_left_half_told(
    make_app: MakeApp, history: History, folder: Path, monkeypatch: pytest.MonkeyPatch
):
    store(history, "question", "answer")
    writes, may_end = threading.Event(), threading.Event()

    def wait(descriptor: int) -> None:
        writes.set()
        may_end.wait(10)

    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "x")
        await opened(pilot)
        monkeypatch.setattr("localai.history.exchange.os.fsync", wait)
        await pilot.press("enter")
        await wait_until(pilot, writes.is_set)
        await pilot.press("escape")
        assert isinstance(pilot.app.screen, ExportScreen)
        may_end.set()
        await closed(pilot)
        await wait_until(pilot, lambda: any("Exported to" in notice for notice in notices(pilot.app)))
    assert [file.name for file in folder.iterdir()] == ["question.md"]


async def test_a_folder_of_nobody_takes_another_suffix(make_app: MakeApp, history: History):
    store(history, "question", "answer")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "x")
        screen = await opened(pilot)
        screen.query_one(Input).value = "~nobody-of-that-name/x.md"
        await pilot.press("down")
        await wait_until(pilot, lambda: screen.query_one(Input).value == "~nobody-of-that-name/x.json")


async def test_a_reply_that_streams_is_exported_as_it_is_and_goes_on(
    make_app: MakeApp, history: History, engine: FakeEngine, folder: Path
):
    gate = asyncio.Event()
    engine.script(answer("The first half"), gate, answer(" and the second"), done())
    async with make_app().run_test() as pilot:
        app = pilot.app
        app.query_one(Composer).put("question")
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.turn and app.session.turn.phase == "answering")
        app.screen.action_export()
        await opened(pilot)
        await pilot.press("enter")
        await closed(pilot)
        gate.set()
        await wait_until(pilot, lambda: not app.session.busy)
        assert history.load(app.session.conversation.id).branch()[-1].state == "complete"
    assert "question" in (folder / "question.md").read_text()


async def test_nothing_to_export(make_app: MakeApp, folder: Path):
    async with make_app().run_test() as pilot:
        pilot.app.screen.action_export()
        pilot.app.screen.action_export_all()
        await wait_until(pilot, lambda: len(notices(pilot.app)) == 2)
        assert "nothing to export" in notices(pilot.app)[-1]
        assert not isinstance(pilot.app.screen, ExportScreen)


async def test_the_words_below_the_list_can_be_clicked(make_app: MakeApp, history: History):
    store(history, "question", "answer")
    async with make_app().run_test(size=(120, 40)) as pilot:
        listed = pilot.app.query_one(ConversationList)
        await pilot.press("ctrl+b")
        await wait_until(pilot, lambda: listed.query_one(OptionList).highlighted is not None)
        await pilot.click(listed._hint, offset=(3, 2))
        await opened(pilot)
        await pilot.press("escape")
        await closed(pilot)
        await pilot.click(listed._hint, offset=(3, 1))
        await wait_until(pilot, lambda: history.summaries()[0].pinned)


def test_how_it_looks(snap_compare, make_app: MakeApp, history: History, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(export, "folder", lambda: Path("/home/ada/Downloads"))
    store(history, "How does a lighthouse work?", "It shines.")

    async def dialog(pilot: Pilot[None]) -> None:
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
        await pilot.press("ctrl+b", "x")
        screen = await opened(pilot)
        screen.query_one(Input).value = "/nowhere/at/all.md"
        await pilot.pause()
        await pilot.press("enter")
        await wait_until(pilot, lambda: "no such folder" in told(pilot.app))

    assert snap_compare(make_app(), terminal_size=(80, 24), run_before=dialog)


@pytest.mark.parametrize(
    ("title", "name"),
    [
        ("How many primes?", "How many primes"),
        ("a/b\\c: d\x1b[1m", "a b c d[1m"),
        ("  ..  ", "conversation"),
        ("ü" * 90, "ü" * 40),
        ("", "conversation"),
    ],
)
def test_the_name_of_the_file(title: str, name: str):
    assert export.name_of(title) == name
