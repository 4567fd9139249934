"""What goes wrong around the chat, on a real terminal: each is said in plain words, and nothing is lost."""

from __future__ import annotations

import os
import random
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.terminal import Terminal
from localai.chat.conversation import Conversation, Message
from localai.history import History, key
from localai.history.database import Database

COMMAND = [sys.executable, "-P", "-m", "localai"]
PASSPHRASE = "correct horse battery"
QUIT, SIDEBAR, ESC, SELECT, DETACH = "\x11", "\x02", "\x1b", "\x1b[1;5A", "\x02d"
OPENS = b"\x1b[?1049h"
ENDLESS = ["--logit-bias", "<｜end▁of▁sentence｜>=-inf", "--threads", "1"]
"""The model can't end its reply: there is time to do something to it."""
SUM = "What is 47 + 85?"

Start = Callable[..., Terminal]
Spoil = Callable[[Path], object]


@pytest.fixture
def start(nano: Path, home: Path) -> Iterator[Start]:
    """Runs the chat with r1-nano in the test's home; `before` is a command that runs it."""
    keys = {"LOCALAI_HOME": str(home), "LOCALAI_PASSPHRASE": PASSPHRASE}
    with ExitStack() as opened:

        def begin(*words: str, before: tuple[str, ...] = (), **changes: Any) -> Terminal:
            environment = keys | {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
            environment |= changes.pop("environment", {})
            command = [*before, *COMMAND, "chat", str(nano), "--temperature", "0", *words]
            return opened.enter_context(Terminal(command, environment=environment, **changes))

        yield begin


@pytest.fixture
def stored(home: Path) -> Path:
    """An encrypted file with a conversation."""
    with History(key=key.create(("passphrase",), PASSPHRASE)) as history:
        talk = Conversation(id="c")
        for number in range(40):
            talk.append(Message(parent=talk.head, role="user", content=f"Question {number} " * 100))
        history.save(talk)
    return history.path


def ends(chat: Terminal) -> None:
    chat.type(QUIT)
    assert chat.wait_for_end() == 0
    assert b"Traceback" not in chat.raw


def refused(chat: Terminal) -> str:
    """What was said, in place of a screen."""
    assert chat.wait_for_end() == 1
    assert OPENS not in chat.raw
    assert "Traceback" not in chat.text
    assert chat.text.count("error:") == 1
    return " ".join(chat.text.replace("\r\n", "").split())


# ------------------------------------------------------------------------------------------------- the file


def write_over(at: int) -> Spoil:
    def spoil(path: Path) -> None:
        content = bytearray(path.read_bytes())
        content[at : at + 100] = b"x" * 100
        path.write_bytes(content)

    return spoil


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def replace(path: Path) -> None:
    path.write_bytes(b"A letter to my sister. " * 1000)


@pytest.mark.parametrize("spoil", [write_over(100), cut, replace], ids=["overwritten", "cut", "replaced"])
def test_a_damaged_file(start: Start, stored: Path, spoil: Spoil) -> None:
    spoil(stored)
    before = stored.read_bytes()
    said = refused(start())
    assert "damaged" in said
    assert "It is left as it is" in said
    assert stored.read_bytes() == before


def test_a_wrong_key(start: Start, stored: Path) -> None:
    before = stored.read_bytes()
    assert "not the passphrase" in refused(start(environment={"LOCALAI_PASSPHRASE": "something else"}))
    assert stored.read_bytes() == before


def test_a_file_of_a_newer_version(start: Start) -> None:
    key.create(())
    with History() as history:
        pass
    newer = Database(history.path)
    newer.execute("PRAGMA user_version = 999")
    newer.close()
    before = history.path.read_bytes()
    said = refused(start("--plain-history"))
    assert "written by a newer version" in said
    assert history.path.read_bytes() == before


def test_a_folder_that_cannot_be_written(start: Start, stored: Path) -> None:
    before: tuple[str, ...] = ()
    if os.geteuid() == 0:  # who may do everything gives that up
        before = ("setpriv", "--bounding-set=-dac_override,-dac_read_search")
        if shutil.which("setpriv") is None or subprocess.run([*before, "true"], check=False).returncode:
            pytest.skip("an administrator may write everywhere")
    for path in stored.parent.iterdir():
        path.chmod(0o400)
    stored.parent.chmod(0o500)
    try:
        assert f"{stored} cannot be written" in refused(start(before=before))
    finally:
        stored.parent.chmod(0o700)


def test_a_full_disk(start: Start, home: Path) -> None:
    mount = f'mount -t tmpfs -o size=500k tmpfs "{home}" && exec "$@"'
    alone = ("unshare", "-rm", "sh", "-c", mount, "sh")
    if shutil.which("unshare") is None or subprocess.run([*alone, "true"], check=False).returncode:
        pytest.skip("a small disk cannot be mounted")
    chat = start(before=alone)
    chat.sees("ready")
    chat.paste("word " * 100_000)
    chat.sees("pasted text 1")
    chat.type("What are these?\r")
    chat.sees(
        "The disk is full", "pasted text 1", "│ What are these?"
    )  # it can be sent again when there is space
    ends(chat)


# ---------------------------------------------------------------------------------------------- the terminal


@pytest.mark.parametrize("size", [(20, 24), (10, 3)], ids=["20x24", "10x3"])
def test_a_tiny_terminal(start: Start, size: tuple[int, int]) -> None:
    chat = start(size=size)
    chat.sees("ready")
    chat.type("What is 1 + 2?\r")
    chat.sees("3")
    chat.resize(100, 30)
    chat.sees("▌ What is 1 + 2?", "1 + 2 = 3")
    ends(chat)


def test_a_new_size_in_the_middle_of_a_reply(start: Start) -> None:
    chat, sizes = start(*ENDLESS), random.Random(5)
    chat.sees("ready")
    chat.type(f"{SUM}\r")
    chat.wait_for("answering")
    for _ in range(40):
        chat.resize(sizes.randrange(4, 220), sizes.randrange(2, 70))
        chat.read(0.02)
    chat.resize(100, 30)
    chat.type(ESC)
    chat.sees("Ask anything", "ready")
    ends(chat)


def test_a_closed_window_loses_neither_question_nor_reply_nor_draft(start: Start) -> None:
    chat = start(*ENDLESS)
    chat.sees("ready")
    chat.type(f"{SUM}\r")
    chat.wait_for("answering")
    chat.type("half a thought")
    chat.sees("│ half a thought")
    chat.hang_up()
    assert chat.process.wait(30) == 129
    with History(key=key.unlock(PASSPHRASE)) as history:
        (summary,) = history.summaries()
        question, reply = history.load(summary.id).branch()
    assert question.content == SUM
    assert reply.thinking.startswith("7 + 5 + 0 = 12")
    assert reply.content.startswith("47 + 85 = **132**")
    again = start()
    again.sees("ready")
    again.type(SIDEBAR)
    again.sees("^F searches")
    again.type("\r")
    again.sees("■ Stopped", "│ half a thought")  # the question may stand above the screen
    ends(again)


@pytest.mark.parametrize(
    "environment",
    [{"TERM": "dumb"}, {"TERM": "linux"}, {"TERM": "screen-256color"}, {"NO_COLOR": "1"}, {"LC_ALL": "C"}],
    ids=str,
)
def test_other_terminals(start: Start, environment: dict[str, str]) -> None:
    chat = start(environment={"COLORTERM": ""} | environment)
    chat.sees("ready")
    chat.type("What is 1 + 2?\r")
    chat.sees("1 + 2 = 3")
    ends(chat)
    if "NO_COLOR" in environment:
        colors = set(re.findall(rb"[34]8;2;(\d+);(\d+);(\d+)", chat.raw))
        assert all(len(set(color)) == 1 for color in colors)  # greys


def test_in_tmux(start: Start, tmp_path: Path) -> None:
    if shutil.which("tmux") is None:
        pytest.skip("there is no tmux here")
    tmux = ("tmux", "-S", str(tmp_path / "socket"), "-f", os.devnull)
    run = ("new-session", ";", "set", "-g", "set-clipboard", "on", ";", "respawn-pane", "-k")
    chat = start(before=(*tmux, *run))
    try:
        chat.sees("ready")
        chat.type(f"{SUM}\r")
        chat.sees("47 + 85 = 132")
        chat.type(SELECT)
        chat.sees("R try again")
        chat.type("c")
        chat.sees("The reply is copied.")
        chat.until(lambda: b"\x1b]52;" in chat.raw, "the copied reply")
        chat.type(DETACH)
        assert chat.wait_for_end() == 0
        copied = subprocess.run([*tmux, "show-buffer"], check=True, capture_output=True, text=True).stdout
        assert copied == "47 + 85 = **132**"
        with Terminal([*tmux, "attach"], (80, 24)) as again:
            again.sees("47 + 85 = 132")
            again.type(QUIT)
            assert again.wait_for_end() == 0
    finally:
        subprocess.run([*tmux, "kill-server"], check=False, capture_output=True)


# ------------------------------------------------------------------------------------- what is put into it


def test_a_paste_of_a_book(start: Start) -> None:
    chat = start()
    chat.sees("ready")
    chat.paste("All work and no play makes Jack a dull boy.\n" * 120_000)
    chat.sees("pasted text 1", "5,280,000 characters")
    chat.type("Is he?\r")
    chat.sees("This does not fit", "No room for a reply")
    chat.type(ESC)
    chat.misses("No room for a reply")
    ends(chat)


def test_a_file_that_vanishes(start: Start, tmp_path: Path) -> None:
    note = tmp_path / "note.txt"
    note.write_text("the word is lighthouse")
    chat = start()
    chat.sees("ready")
    chat.paste(str(note))
    chat.sees("note.txt", "22 characters")
    note.unlink()  # what was attached stays attached
    chat.type("Hello\r")
    chat.sees("▌ + note.txt", "▌ Hello", "tok/s")
    ends(chat)
    with History(key=key.unlock(PASSPHRASE)) as history:
        (summary,) = history.summaries()
        question = history.load(summary.id).branch()[0]
    assert [file.text for file in question.attachments] == ["the word is lighthouse"]
