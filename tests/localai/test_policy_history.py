"""What the policy binds of conversations; no flag, variable, edited file or import gets around it."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from benchmarks.terminal import Terminal
from localai import paths
from localai.chat.conversation import Attachment, Conversation, Message
from localai.engine.states import State
from localai.errors import PolicyError
from localai.history import History, Preset, StateStore, database, exchange, export, key
from localai.history.imports import import_file
from tests.localai.policies import COMMAND, CONTACT, enforce, refused, run

PASSPHRASE = "correct horse battery"
DAY = 86_400.0
CANARY = "xylophone7482"
Start = Callable[..., Terminal]

ENCRYPTION = "[require]\nencryption = true\n"
NO_PLAIN = "[forbid]\nplain_history = true\n"
INCOGNITO = "[require]\nincognito = true\n"
RETENTION = "[require]\nretention_days = 30\n"
NO_EXPORT = "[forbid]\nexport = true\n"


@pytest.fixture(autouse=True)
def _no_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    """The keyring of whoever runs the tests is not touched."""
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    monkeypatch.setenv("LOCALAI_PASSPHRASE", PASSPHRASE)


@pytest.fixture
def start() -> Iterator[Start]:
    with ExitStack() as opened:

        def begin(*words: str | Path, **changes: Any) -> Terminal:
            return opened.enter_context(Terminal([*COMMAND, *map(str, words)], **changes))

        yield begin


def talk(title: str = "About lamps", *, days: float = 0, pinned: bool = False) -> Conversation:
    then = time.time() - days * DAY
    made = Conversation(title=title, created=then, pinned=pinned)
    made.append(Message(parent=None, role="user", content=f"{CANARY} {title}", created=then))
    made.updated = then
    return made


def keep(*conversations: Conversation, plain: bool = False) -> list[str]:
    """Store them, as an earlier run did, before there was a policy. Their identifiers."""
    made = key.create(() if plain else ("passphrase",), PASSPHRASE)
    with History(key=made) as history:
        for one in conversations:
            history.save(one)
    return [one.id for one in conversations]


def opened() -> History:
    return History(key=key.unlock(PASSPHRASE))


# --------------------------------------------------------------------------------- require.encryption


@pytest.mark.parametrize("text", [ENCRYPTION, NO_PLAIN])
def test_no_new_plain_history(text: str, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce(tmp_path, monkeypatch, text)
    with pytest.raises(PolicyError, match="plain text"):
        key.create(())
    with pytest.raises(PolicyError, match="plain text"):
        History()
    assert not any(home.rglob("*"))
    with History(key=key.create(("passphrase",), PASSPHRASE)) as history:
        history.save(talk())
    assert not database.is_plain(paths.history_path())


@pytest.mark.parametrize("text", [ENCRYPTION, NO_PLAIN])
def test_no_flag_has_a_plain_history(
    text: str, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    enforce(tmp_path, monkeypatch, text)
    chat = start("chat", "--plain-history", nano)
    chat.wait_for("plain text")
    chat.wait_for(CONTACT)
    assert chat.wait_for_end() == 1
    assert not paths.history_path().exists()


def test_an_existing_plain_history_has_to_be_encrypted(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    (name,) = keep(talk(), plain=True)
    enforce(tmp_path, monkeypatch, ENCRYPTION)
    for words in (("list",), ("show", name), ("search", "lamps"), ("export", "--all"), ("status",)):
        refused(run("history", *words), "require.encryption", "not encrypted", "localai history lock")
    chat = start("chat", nano)
    chat.wait_for("localai history lock")
    assert chat.wait_for_end() == 1
    locked = run("history", "lock")
    assert locked.returncode == 0, locked.stderr
    assert CANARY.encode() not in paths.history_path().read_bytes()
    assert CANARY in run("history", "show", name).stdout


def test_an_existing_plain_history_stays_usable_where_only_new_ones_are_forbidden(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = keep(talk(), plain=True)
    enforce(tmp_path, monkeypatch, NO_PLAIN)
    assert CANARY in run("history", "show", name).stdout


@pytest.mark.parametrize("text", [ENCRYPTION, NO_PLAIN])
def test_an_edited_key_file_has_no_plain_history(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (name,) = keep(talk())
    key.key_path().write_text('{"key":{},"version":1}')
    enforce(tmp_path, monkeypatch, text)
    done = run("history", "show", name)
    assert done.returncode == 1
    assert CANARY not in done.stdout + done.stderr
    paths.history_path().unlink()  # so that a new one would be made
    file = tmp_path / "some.json"
    file.write_text(exchange.as_json([talk("Sums")]))
    refused(run("history", "import", file), "policy")
    assert not paths.history_path().exists()


def test_a_history_of_an_earlier_version_is_encrypted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with History() as history:  # there was no file that said how it is protected
        history.save(talk())
    assert database.is_plain(paths.history_path())
    enforce(tmp_path, monkeypatch, ENCRYPTION)
    listed = run("history", "list")
    assert "About lamps" in listed.stdout, listed.stderr
    assert not database.is_plain(paths.history_path())


def test_no_state_is_kept_in_plain_text(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    state = State("model", [CANARY.encode()])
    states = StateStore(None)
    states.put("before", state)
    assert states.get("before") is not None
    states.close()
    enforce(tmp_path, monkeypatch, ENCRYPTION)
    states = StateStore(None)
    states.put("after", state)
    assert states.get("after") is None
    states.close()
    states = StateStore(os.urandom(32), tmp_path / "encrypted.sqlite")
    states.put("after", state)
    assert states.get("after") is not None
    states.close()


# ---------------------------------------------------------------------------------- require.incognito


def writings(history: History, name: str) -> dict[str, Callable[[], object]]:
    message = Message(parent=None, role="user", content=CANARY)
    return {
        "a conversation": lambda: history.save(talk("Another")),
        "a message": lambda: history.put(name, message),
        "a draft": lambda: history.put_draft("", CANARY),
        "a draft with a file": lambda: history.put_draft("", "", (Attachment(name="a", text=CANARY),)),
        "a preset": lambda: history.save_preset(Preset("one", CANARY)),
        "a system prompt": lambda: history.save_settings(name, CANARY, {}),
    }


def test_nothing_is_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = keep(talk())
    enforce(tmp_path, monkeypatch, INCOGNITO)
    with opened() as history:
        for what, write in writings(history, name).items():
            with pytest.raises(PolicyError, match=r"require\.incognito"):
                write()
            assert history.count() == (1, 1), what
        assert (history.draft().text, history.presets()) == ("", [])
        history.delete(name)  # whoever wants less kept may have that
    with History(memory=True) as history:
        made = talk()
        history.save(made)
        for write in writings(history, made.id).values():
            write()
        assert history.count() == (2, 3)


def test_no_state_is_kept_in_incognito(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce(tmp_path, monkeypatch, INCOGNITO)
    states = StateStore(os.urandom(32))
    states.put("one", State("model", [b"state"]))
    assert states.get("one") is None
    states.close()


def test_nothing_is_imported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "some.json"
    file.write_text(exchange.as_json([talk()]))
    enforce(tmp_path, monkeypatch, INCOGNITO)
    refused(run("history", "import", file), "require.incognito", CONTACT)


def test_what_was_kept_before_can_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = keep(talk())
    enforce(tmp_path, monkeypatch, INCOGNITO)
    assert CANARY in run("history", "show", name).stdout
    assert run("history", "delete", name, "--yes").returncode == 0


def test_the_chat_keeps_nothing(
    nano: Path, home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    enforce(tmp_path, monkeypatch, INCOGNITO)
    chat = start("chat", nano, "--temperature", "0")
    chat.sees("ready")
    chat.type(f"\x1b[18~What is 47 + 85? {CANARY}\r")  # F7 first
    chat.wait_for("as your organization wants it")
    chat.sees(CANARY)
    chat.type("\x11")
    assert chat.wait_for_end() == 0
    files = [path for path in home.rglob("*") if path.is_file()]
    assert not [path for path in files if path.suffix == ".sqlite" or CANARY.encode() in path.read_bytes()]


def test_no_flag_keeps_anything(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start):
    enforce(tmp_path, monkeypatch, INCOGNITO)
    chat = start("chat", "--plain-history", nano)
    chat.wait_for("require.incognito")
    assert chat.wait_for_end() == 1


# ------------------------------------------------------------------------------ require.retention_days


def names(history: History) -> set[str]:
    return {one.title for one in history.summaries()}


def test_what_is_too_old_goes_when_the_file_is_opened(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, pinned, young = talk("old", days=31), talk("pinned", days=40, pinned=True), talk("young", days=29)
    keep(old, pinned, young)
    with opened() as history:
        assert names(history) == {"old", "pinned", "young"}
    enforce(tmp_path, monkeypatch, RETENTION)
    with opened() as history:
        assert names(history) == {"young"}
        assert set(history.outlived) == {old.id, pinned.id}
        assert history.search("pinned") == []
    with opened() as history:
        assert history.outlived == []


def test_it_also_goes_of_a_file_that_is_opened_by_a_command(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old, young = keep(talk("old", days=31), talk("young"))
    states = StateStore(key.unlock(PASSPHRASE))
    for name in (old, young):
        states.put(name, State("model", [b"state"]))
    states.close()
    enforce(tmp_path, monkeypatch, RETENTION)
    listed = json.loads(run("history", "list", "--json").stdout)
    assert [one["id"] for one in listed["conversations"]] == [young]
    states = StateStore(key.unlock(PASSPHRASE))
    assert (states.get(old), states.get(young) is not None) == (None, True)
    states.close()


def test_it_goes_as_the_chat_starts(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start
) -> None:
    keep(talk("old lamps", days=31, pinned=True), talk("young lamps"))
    enforce(tmp_path, monkeypatch, RETENTION)
    chat = start("chat", nano)
    chat.sees("ready")
    chat.type("\x02")  # Ctrl+B: the sidebar
    chat.sees("young lamps")
    assert "old lamps" not in chat.text
    chat.type("\x11")
    assert chat.wait_for_end() == 0
    monkeypatch.delenv("LOCALAI_POLICY")
    with opened() as history:
        assert names(history) == {"young lamps"}


def test_no_setting_keeps_it_longer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(talk("old", days=31))
    with opened() as history:
        history.set_setting("keep_days", "365")
    enforce(tmp_path, monkeypatch, RETENTION)
    with opened() as history:
        assert names(history) == set()


def test_a_date_in_the_future_does_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keep(talk("from the future", days=-4000))
    enforce(tmp_path, monkeypatch, RETENTION)
    with opened() as history:
        (one,) = history.summaries()
        assert one.updated <= time.time()
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + 31 * DAY)
    with opened() as history:
        assert names(history) == set()


def test_unpinning_and_bringing_back_do_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    old = talk("old", days=31, pinned=True)
    (name,) = keep(old)
    with opened() as history:
        history.pin(name, pinned=False)
        history.save(old, kept_from=time.time())
    enforce(tmp_path, monkeypatch, RETENTION)
    with opened() as history:
        assert names(history) == set()


def test_an_import_does_not_keep_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor do the dates that its file gives itself."""
    kept = talk("young", days=10)
    old, pinned, touched, ahead = (talk(name, days=31) for name in ("old", "pinned", "touched", "ahead"))
    pinned.pinned, touched.updated, ahead.updated = True, time.time(), time.time() + 4000 * DAY
    new = talk("new")
    new.updated = new.messages[new.head or ""].created = time.time() + 4000 * DAY
    file = tmp_path / "some.json"
    file.write_text(exchange.as_json([kept, old, pinned, touched, ahead, new]))
    keep()
    enforce(tmp_path, monkeypatch, RETENTION)
    with opened() as history:
        done = import_file(history, file)
        assert (len(done.imported), done.outlived) == (2, 4)
        dates = {one.title: one.updated for one in history.summaries()}
    assert set(dates) == {"young", "new"}
    assert dates["young"] == pytest.approx(time.time() - 10 * DAY, abs=600)
    assert dates["new"] <= time.time()
    told = run("history", "import", file)
    assert "4 conversations left out: older than your organization lets them be kept" in told.stdout


def test_without_the_key_old_conversations_are_imported_and_kept(tmp_path: Path) -> None:
    file = tmp_path / "some.json"
    file.write_text(exchange.as_json([talk("old", days=4000)]))
    keep()
    with opened() as history:
        assert import_file(history, file).outlived == 0
    with opened() as history:
        assert names(history) == {"old"}


# --------------------------------------------------------------------------------------- forbid.export


def test_nothing_is_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = keep(talk())
    enforce(tmp_path, monkeypatch, NO_EXPORT)
    target = tmp_path / "out"
    for form in export.FORMS:
        for words in (["--all"], [name], [name, "-o", target], ["--all", "-o", target, "--force"]):
            done = run("history", "export", *words, "--format", form)
            refused(done, "forbid.export", CONTACT)
            assert done.stdout == ""
    assert not target.exists()
    with pytest.raises(PolicyError):
        export.render("json", [talk()])


def test_no_program_reads_them_either(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (name,) = keep(talk())
    enforce(tmp_path, monkeypatch, NO_EXPORT)
    for words in (["list"], ["list", "--json"], ["show", name], ["show", name, "--json"]):
        assert CANARY not in refused(run("history", *words), "forbid.export", "A terminal shows them")
    for words in (["search", "lamps"], ["search", "lamps", "--json"]):
        refused(run("history", *words), "forbid.export")


def test_a_terminal_still_shows_them(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, start: Start) -> None:
    (name,) = keep(talk())
    enforce(tmp_path, monkeypatch, NO_EXPORT)
    shown = start("history", "show", name)
    shown.wait_for(CANARY)
    assert shown.wait_for_end() == 0
    as_json = start("history", "show", name, "--json")
    as_json.wait_for("forbid.export")
    assert as_json.wait_for_end() == 1
    assert CANARY not in as_json.text


# ----------------------------------------------------------------------------------- around all of them


def test_another_home_has_the_same_policy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce(tmp_path, monkeypatch, ENCRYPTION + NO_EXPORT)
    other = tmp_path / "other"
    refused(run("history", "export", "--all", LOCALAI_HOME=str(other)), "forbid.export")
    monkeypatch.setenv("LOCALAI_HOME", str(other))
    with pytest.raises(PolicyError):
        History()
    with pytest.raises(PolicyError):
        History(tmp_path / "elsewhere.sqlite")
