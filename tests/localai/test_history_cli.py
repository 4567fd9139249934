"""`localai history` as a process of its own, on a real store that a passphrase or a keyring protects."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import pexpect
import pytest

from localai import paths
from localai.chat.conversation import Attachment, Conversation, Message
from localai.history import History, key

COMMAND = [sys.executable, "-P", "-m", "localai", "history"]
PASSPHRASE = "correct horse battery"
KEYRING = """
import json, os, pathlib
from keyring.backend import KeyringBackend

class Keyring(KeyringBackend):
    priority = 9
    _file = pathlib.Path(os.environ["LOCALAI_HOME"]) / "keyring.json"

    def _all(self):
        return json.loads(self._file.read_text()) if self._file.exists() else {}

    def get_password(self, service, name):
        return self._all().get(service + name)

    def set_password(self, service, name, password):
        self._file.write_text(json.dumps(self._all() | {service + name: password}))

    def delete_password(self, service, name):
        kept = self._all()
        del kept[service + name]
        self._file.write_text(json.dumps(kept))
"""


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keyring of whoever runs the tests is not touched."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setenv("LOCALAI_PASSPHRASE", PASSPHRASE)


@pytest.fixture
def with_keyring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file_keyring.py").write_text(KEYRING)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "file_keyring.Keyring")


def run(*words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def output(*words: str, **environment: str) -> str:
    done = run(*words, **environment)
    assert (done.returncode, done.stderr) == (0, ""), done.stderr
    return done.stdout


def error_line(done: subprocess.CompletedProcess[str], code: int = 1) -> str:
    assert done.returncode == code, done.stderr
    lines = done.stderr.strip().splitlines()
    assert len(lines) == 1, done.stderr
    assert lines[0].startswith("localai: error: ")
    return lines[0]


def talk(title: str, *texts: str, days: float = 0) -> Conversation:
    made = Conversation(title=title)
    for number, text in enumerate(texts):
        role, thinking = ("assistant", "hidden thought") if number % 2 else ("user", "")
        made.append(Message(parent=made.head, role=role, content=text, thinking=thinking))
    made.updated = time.time() - days * 86_400
    return made


def opened(passphrase: str = PASSPHRASE) -> History:
    return History(key=key.unlock(passphrase))


@pytest.fixture
def stored() -> list[Conversation]:
    """Two conversations, a passphrase protects them; the second is the later one."""
    made = [talk("About lamps", "lighthouse keeper?", "A \x1b[31mlamp"), talk("Sums", "six plus seven", "13")]
    made[0].updated -= 400 * 86_400
    file = Attachment(name="a.txt", text="x" * 1234)
    made[1].append(Message(parent=made[1].head, role="user", content="and this", attachments=(file,)))
    with History(key=key.create(("passphrase",), PASSPHRASE)) as history:
        for one in made:
            history.save(one)
    return made


@pytest.mark.parametrize(
    "command", ["", "list", "search", "show", "export", "import", "delete", "status", "lock", "rekey"]
)
def test_help(command: str) -> None:
    assert "Usage:" in output(*command.split(), "--help")


def test_reading_makes_nothing_where_nothing_was_stored(home: Path) -> None:
    assert output("list") == "No conversation is stored.\n"
    assert json.loads(output("status", "--json"))["protection"] is None
    assert not paths.history_path().exists()
    assert key.protection() is None


def test_list(stored: list[Conversation]) -> None:
    lines = output("list").splitlines()
    assert lines[0].split() == ["ID", "CHANGED", "MESSAGES", "TITLE"]
    assert [line.split()[0] for line in lines[1:]] == [stored[1].id[:8], stored[0].id[:8]]
    assert lines[2].endswith("2         About lamps")
    found = json.loads(output("list", "--json"))["conversations"]
    assert [one["id"] for one in found] == [stored[1].id, stored[0].id]
    assert {*found[0]} == {"id", "title", "model", "updated", "message_count", "pinned"}


def test_search(stored: list[Conversation]) -> None:
    lines = output("search", "lightho").splitlines()
    assert lines[0].startswith(stored[0].id[:8])
    assert lines[1] == "    lighthouse keeper?"
    (hit,) = json.loads(output("search", "six plus", "--json"))["hits"]
    assert (hit["conversation"], hit["match"]) == (stored[1].id, "six plus")
    assert json.loads(output("search", "plus six", "--json"))["hits"] == []
    assert output("search", "nowhere") == "Nothing was found.\n"


def test_show(stored: list[Conversation]) -> None:
    shown = output("show", stored[0].id[:6])
    assert shown == "About lamps\n\nYou:\nlighthouse keeper?\n\nReply:\nA [31mlamp\n"
    assert "<think>\nhidden thought\n</think>" in output("show", stored[0].id, "--thinking")
    assert "[file: a.txt, 1,234 characters]\nand this" in output("show", stored[1].id)
    found = json.loads(output("show", stored[0].id, "--json"))
    assert [message["content"] for message in found["messages"]] == ["lighthouse keeper?", "A \x1b[31mlamp"]


def test_an_id_must_be_known_and_unambiguous(stored: list[Conversation]) -> None:
    assert 'no conversation "zz"' in error_line(run("show", "zz"))
    with opened() as history:
        for name in ("twin-a", "twin-b"):
            one = talk("t", "q")
            one.id = name
            history.save(one)
    assert '2 conversations begin with "twin"' in error_line(run("show", "twin"), 2)
    assert output("show", "twin-a").startswith("t\n")


def test_export_and_import(stored: list[Conversation], tmp_path: Path, home: Path) -> None:
    file = tmp_path / "all.json"
    done = run("export", "--all", "--format", "json", "--output", str(file))
    assert (done.returncode, done.stdout) == (0, "")
    assert done.stderr == f"localai: 2 conversations written to {file}, which is not encrypted\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert "exists already" in error_line(run("export", "--all", "-o", str(file)))
    assert (
        output("import", str(file))
        == "Imported 0 conversations from localai\n2 conversations were here already\n"
    )
    for one in stored:
        output("delete", one.id, "--yes")
    found = json.loads(output("import", str(file), "--json"))
    others = {"present": 0, "empty": 0, "outlived": 0}
    assert found == {"source": "localai", "imported": [s.id for s in stored[::-1]], **others}
    with opened() as history:
        assert [history.load(one.id) for one in stored] == stored


@pytest.mark.parametrize(
    ("form", "begin"), [("markdown", "# Sums\n"), ("html", "<!DOCTYPE html>\n"), ("json", "{\n")]
)
def test_export_to_stdout(stored: list[Conversation], form: str, begin: str) -> None:
    text = output("export", stored[1].id, "--format", form)
    assert text.startswith(begin)
    assert "six plus seven" in text
    assert "lighthouse" not in text


def test_wrong_usage(stored: list[Conversation], tmp_path: Path) -> None:
    for words in (["export"], ["export", "x", "--all"], ["delete"], ["delete", "x", "--older-than", "3"]):
        error_line(run(*words), 2)
    assert "--yes" in error_line(run("delete", stored[0].id), 2)
    assert "cannot be read" in error_line(run("import", str(tmp_path / "none")))
    with opened() as history:
        assert history.count()[0] == 2


def test_delete_older_than(stored: list[Conversation]) -> None:
    old = talk("kept", "old but pinned", days=500)
    old.pinned = True
    with opened() as history:
        history.save(old)
    assert json.loads(output("delete", "--older-than", "365", "--yes", "--json")) == {
        "deleted": [stored[0].id]
    }
    with opened() as history:
        assert {one.id for one in history.summaries()} == {stored[1].id, old.id}


# ------------------------------------------------------------------------------------------- protection


def test_status(stored: list[Conversation]) -> None:
    found = json.loads(output("status", "--check", "--json"))
    assert found.pop("bytes") > 4096
    assert found == {
        "path": str(paths.history_path()),
        "protection": ["passphrase"],
        "locked": False,
        "conversations": 2,
        "messages": 5,
        "states_bytes": 0,
        "sound": "ok",
    }
    assert "protected by    a passphrase\n" in output("status")


def test_status_of_conversations_of_an_earlier_version(home: Path) -> None:
    with History(paths.history_path()) as history:
        history.save(Conversation(title="old"))
    assert "protected by    nothing yet: the chat asks at its next start\n" in output(
        "status", LOCALAI_PASSPHRASE=""
    )


def test_status_of_what_is_locked(stored: list[Conversation]) -> None:
    found = json.loads(output("status", "--json", LOCALAI_PASSPHRASE=""))
    assert (found["locked"], found["conversations"]) == (True, None)
    assert "locked" in error_line(run("list", LOCALAI_PASSPHRASE=""))
    assert "not the passphrase" in error_line(run("list", LOCALAI_PASSPHRASE="something else"))


def test_states_are_emptied_and_go_with_their_conversation(stored: list[Conversation]) -> None:
    from localai.engine.states import State
    from localai.history import StateStore

    def kept() -> int:
        states = StateStore(key.unlock(PASSPHRASE))
        size = states.size()
        states.close()
        return size

    def keep() -> None:
        states = StateStore(key.unlock(PASSPHRASE), limit=2**20)
        for one in stored:
            states.put(one.id, State("model", [b"x" * 1000]))
        states.close()

    keep()
    assert kept() == 2000
    output("delete", stored[0].id, "--yes")
    assert kept() == 1000
    assert json.loads(output("status", "--json"))["states_bytes"] > 1000
    output("status", "--clear-states")
    assert kept() == 0


def test_another_passphrase(stored: list[Conversation], tmp_path: Path) -> None:
    assert "--passphrase-file" in error_line(run("lock"), 2)
    file = tmp_path / "new.txt"
    file.write_text("short\n")
    assert "fewer than 8" in error_line(run("lock", "--passphrase-file", str(file)), 2)
    file.write_text("a new passphrase\n")
    output("lock", "--passphrase-file", str(file))
    assert "not the passphrase" in error_line(run("list"))
    assert "Sums" in output("list", LOCALAI_PASSPHRASE="a new passphrase")


@pytest.mark.usefixtures("with_keyring")
def test_into_the_keyring_and_out_of_it(stored: list[Conversation], home: Path) -> None:
    output("lock", "--keyring")
    assert "Sums" in output("list", LOCALAI_PASSPHRASE="")
    assert json.loads((home / "keyring.json").read_text())
    assert json.loads(output("lock", "--json")) == {"protection": ["passphrase"]}
    assert json.loads((home / "keyring.json").read_text()) == {}
    assert "locked" in error_line(run("list", LOCALAI_PASSPHRASE=""))
    assert "Sums" in output("list")


def test_without_a_keyring_the_passphrase_stays(stored: list[Conversation]) -> None:
    assert "keyring" in error_line(run("lock", "--keyring"))
    assert "Sums" in output("list")


def test_lock_encrypts_what_was_plain() -> None:
    key.create(())
    with History() as history:
        history.save(talk("Plain", "canary in the mine"))
    assert "nothing: it is not encrypted" in output("status")
    assert "are not encrypted" in error_line(run("rekey"))
    output("lock")
    assert b"canary" not in paths.history_path().read_bytes()
    assert "Plain" in output("list")


def test_rekey(stored: list[Conversation]) -> None:
    old = key.unlock(PASSPHRASE)
    assert "not the passphrase" in error_line(run("rekey", LOCALAI_PASSPHRASE="something else"))
    assert "locked" in error_line(run("rekey", LOCALAI_PASSPHRASE=""))
    assert key.unlock(PASSPHRASE) == old
    output("rekey")
    assert key.unlock(PASSPHRASE) != old
    with opened() as history:
        assert [history.load(one.id) for one in stored] == stored
        assert history.check() == "ok"


# --------------------------------------------------------------------------------------- on a terminal


def terminal(*words: str) -> pexpect.spawn:
    environment = {**os.environ, "TERM": "xterm"}
    del environment["LOCALAI_PASSPHRASE"]
    return pexpect.spawn(COMMAND[0], [*COMMAND[1:], *words], env=environment, encoding="utf-8", timeout=60)


def test_the_passphrase_is_asked_for_without_echo(stored: list[Conversation]) -> None:
    screen = terminal("lock")
    screen.expect_exact("Passphrase of your conversations: ")
    screen.sendline(PASSPHRASE)
    screen.expect_exact("New passphrase: ")
    screen.sendline("another passphrase")
    screen.expect_exact("Once more: ")
    assert "another" not in screen.before
    screen.sendline("anotter passphrase")
    screen.expect_exact("the two are not the same")
    for question in ("New passphrase: ", "Once more: "):
        screen.expect_exact(question)
        screen.sendline("another passphrase")
    screen.expect_exact("A passphrase protects your conversations")
    screen.expect(pexpect.EOF)
    screen.close()
    assert screen.exitstatus == 0
    assert "Sums" in output("list", LOCALAI_PASSPHRASE="another passphrase")


@pytest.mark.parametrize(("answer", "left", "code"), [("n", 2, 1), ("y", 1, 0)])
def test_deleting_asks(stored: list[Conversation], answer: str, left: int, code: int) -> None:
    screen = terminal("delete", stored[0].id)
    screen.expect_exact("Passphrase of your conversations: ")
    screen.sendline(PASSPHRASE)
    screen.expect_exact("Delete 1 conversation for good? [y/N]: ")
    screen.sendline(answer)
    screen.expect(pexpect.EOF)
    screen.close()
    assert screen.exitstatus == code
    with opened() as history:
        assert history.count()[0] == left


def test_a_rekey_that_fails_keeps_the_key(stored: list[Conversation]) -> None:
    before = key.unlock(PASSPHRASE)
    with opened() as history, history._db.transaction():
        assert "keep their key" in error_line(run("rekey"))
    assert key.unlock(PASSPHRASE) == before
    assert "Sums" in output("list")
    output("rekey")
    assert key.unlock(PASSPHRASE) != before
