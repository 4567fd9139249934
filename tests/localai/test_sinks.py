"""Every way out of the command line: what is written commands nothing and hides nothing."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.mutants import Pair, read, renamed, text
from benchmarks.terminal import Terminal
from localai.characters import LINE
from localai.chat.budget import Shorten, describe
from localai.chat.conversation import Attachment, Conversation, Message
from localai.chat.maths import readable
from localai.chat.messages import ChatMessage
from localai.cli import output
from localai.cli.ask_report import TextReport
from localai.engine.protocol import Looping
from localai.history import History, exchange, key
from localai.history.page import as_page
from models import templates
from models.header import printable
from tests.hostile_texts import LONG, TEXTS, harmful, without_our_own

Captured = pytest.CaptureFixture[str]
ANY_TEXT = st.text(st.one_of(st.characters(codec=None), st.sampled_from([*map(chr, LINE), "\x1b", "["])))


def conversation(hostile: str) -> Conversation:
    """The text wherever a conversation has one."""
    found = Conversation(title=hostile, system=hostile, model=hostile, settings={"preset": hostile})
    file = Attachment(name=hostile, text=hostile)
    found.append(Message(parent=None, role="user", content=hostile, attachments=(file,)))
    found.append(
        Message(
            parent=found.head,
            role="assistant",
            content=hostile,
            thinking=hostile,
            model=hostile,
            finish_reason=hostile,
        )
    )
    return found


def _table(hostile: str) -> None:
    output.print_table(["NAME", "ABOUT"], [[hostile, "x"], ["y", hostile]])


def _report(hostile: str) -> None:
    report = TextReport()
    for piece in (hostile[: len(hostile) // 2], hostile[len(hostile) // 2 :]):
        report.thinking(piece)
    report.looping(Looping(id=1, part="thinking", text=hostile, times=5, proposal="stop"))
    report.answer(hostile)
    report.broken_off()


def _progress(hostile: str) -> None:
    with output.progress() as progress:
        progress(hostile, 1, 2, hostile)


PRINTERS: dict[str, Callable[[str], object]] = {
    "error": lambda text: output.error(text, text),
    "note": output.note,
    "table": _table,
    "reply": _report,
    "progress": _progress,
}
MAKERS: dict[str, Callable[[str], str]] = {
    "one_line": output.one_line,
    "printable": printable,
    "template": templates.shown,
    "offer": lambda text: describe(Shorten(0, 9, 1), [ChatMessage("user", text)]),
    "maths": lambda text: readable(text, display=False) + readable(text, display=True),
    "Markdown": lambda text: exchange.as_markdown([conversation(text)]),
    "page": lambda text: as_page([conversation(text)]),
    "JSON": lambda text: exchange.as_json([conversation(text.encode("utf-8", "replace").decode())]),
}
"""The last is for texts of the store, which has no lone surrogates."""


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("sink", PRINTERS)
def test_what_is_printed(capsys: Captured, sink: str, name: str) -> None:
    PRINTERS[sink](TEXTS[name])
    out, err = capsys.readouterr()
    assert harmful(out + err, line=sink != "reply") == []


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize("sink", MAKERS)
def test_what_is_made(sink: str, name: str) -> None:
    assert harmful(MAKERS[sink](TEXTS[name]), line=sink in ("one_line", "printable", "offer")) == []


@given(text=ANY_TEXT)
@pytest.mark.parametrize("sink", MAKERS)
def test_whatever_text_it_is(sink: str, text: str) -> None:
    assert harmful(MAKERS[sink](text)) == []


@pytest.mark.parametrize("sink", MAKERS)
def test_a_line_without_end_takes_no_time(sink: str) -> None:
    assert harmful(MAKERS[sink](LONG)) == []


def test_json_is_the_same_text_again(capsys: Captured) -> None:
    for hostile in TEXTS.values():
        whole = hostile.encode("utf-8", "replace").decode()
        output.print_json({"text": whole})
        out = capsys.readouterr().out
        assert json.loads(out) == {"text": whole}
        assert harmful(out) == []


def test_the_table_would_show_what_is_let_through() -> None:
    """The control: nearly every text of the table is found harmful as it is."""
    assert len(TEXTS) >= 60
    assert sum(bool(harmful(text, line=True)) for text in TEXTS.values()) >= 55


# ------------------------------------------------------------------------------------------------ processes


def run(*words: str, terminal: bool = False) -> str:
    """All that a command writes, to a pipe or to a terminal."""
    command = [sys.executable, "-P", "-m", "localai", *words]
    if not terminal:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, timeout=120, check=False
        )
        assert b"Traceback" not in done.stderr
        return (done.stdout + done.stderr).decode()
    with Terminal(command, environment={"LOCALAI_HOME": os.environ["LOCALAI_HOME"]}) as opened:
        opened.wait_for_end(60)
        return opened.raw.decode()


@pytest.fixture
def stored(monkeypatch: pytest.MonkeyPatch) -> list[Conversation]:
    """All texts in a store, in every field."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    found = [conversation(text.encode("utf-8", "replace").decode()) for text in TEXTS.values()]
    monkeypatch.setenv("LOCALAI_PASSPHRASE", "correct horse")
    with History(key=key.create(("passphrase",), "correct horse")) as history:
        for one in found:
            history.save(one)
    return found


@pytest.mark.parametrize("terminal", [False, True])
def test_history(stored: list[Conversation], terminal: bool) -> None:
    for words in (
        ("list",),
        ("list", "--json"),
        ("search", "red"),
        ("search", "red", "--json"),
        ("show", stored[0].id),
        ("show", stored[0].id, "--thinking"),
        ("show", stored[0].id, "--json"),
        *(("export", "--all", "--format", form) for form in ("markdown", "json", "html")),
    ):
        out = run("history", *words, terminal=terminal)
        assert "red" in out, words
        assert harmful(without_our_own(out)) == [], words


EVERYTHING = " ".join(
    TEXTS[name]
    for name in (
        "colour",
        "clipboard",
        "title",
        "8-bit CSI",
        "reversed name",
        "tags",
        "Hangul fillers",
        "no width",
    )
)
"""Some of everything, as long as a file's name may be."""


@pytest.mark.usefixtures("stored")
def test_imports_that_fail(tmp_path: Path) -> None:
    path = tmp_path / "evil.json"
    for document in (
        {"format": EVERYTHING},
        [
            {
                "title": EVERYTHING,
                "mapping": {EVERYTHING: {"id": EVERYTHING, "message": {"author": EVERYTHING}}},
            }
        ],
        {"format": "localai", "version": 1, "conversations": [{"id": EVERYTHING, EVERYTHING: EVERYTHING}]},
    ):
        path.write_text(json.dumps(document))
        out = run("history", "import", str(path))
        assert "import" in out.lower()
        assert harmful(out, line=True) == []


def test_a_model_whose_metadata_is_hostile(nano: Path, tmp_path: Path) -> None:
    path = tmp_path / "model.gguf"
    file = read(nano)
    for entry in (b"general.name", b"general.license", b"tokenizer.chat_template", EVERYTHING.encode()):
        file.pairs = [pair for pair in file.pairs if pair.key != entry]
        file.pairs.append(Pair(entry, 8, text(EVERYTHING.encode())))
    path.write_bytes(file.head() + file.body())
    for words in (("--metadata",), ("--template",), ("--json",)):
        out = run("models", "show", str(path), *words)
        assert "[31m" in out
        assert harmful(out) == [], words
    strange = renamed(read(nano), EVERYTHING.encode())
    path.write_bytes(strange.head() + strange.body())
    assert harmful(run("models", "show", str(path))) == []


@pytest.mark.usefixtures("stored")
def test_files_of_hostile_names(nano: Path, tmp_path: Path) -> None:
    folder = tmp_path / EVERYTHING.replace("/", "_")
    folder.mkdir()
    shutil.copy(nano, folder / "model.gguf")
    (folder / "broken.gguf").write_bytes(b"GGUF")
    for words in (
        ("models", "show", str(folder / "model.gguf")),
        ("ask", str(folder / "broken.gguf"), "Hi"),
        ("quantize", str(folder)),
        ("history", "import", str(folder / "gone.json")),
        ("bench", str(folder / "gone.gguf")),
        (str(folder),),
    ):
        out = run(*words)
        assert "31m" in out, words
        assert harmful(out) == [], words
