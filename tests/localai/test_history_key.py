"""The key: from where it can be had, and that no interruption loses it."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import keyring as system_keyring
import pytest
from keyring.backend import KeyringBackend
from keyring.backends import fail, null
from keyring.errors import KeyringLocked, PasswordDeleteError

from localai import paths
from localai.chat.conversation import Conversation, Message
from localai.errors import HistoryError, HistoryLocked
from localai.history import History, key, wrap


class InProcess(KeyringBackend):
    """A keyring that lives as long as the test."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        self.kept: dict[tuple[str, str], str] = {}
        self.locked = False

    def get_password(self, service: str, username: str) -> str | None:
        if self.locked:
            raise KeyringLocked("the keyring is locked")
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        if self.locked:
            raise KeyringLocked("the keyring is locked")
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        if (service, username) not in self.kept:
            raise PasswordDeleteError("there is none")
        del self.kept[service, username]


class Weak(InProcess):
    priority = 0.5  # type: ignore[assignment]


@pytest.fixture(autouse=True)
def ring(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[InProcess]:
    """An own home and an own keyring; a passphrase that costs little."""
    monkeypatch.setenv("LOCALAI_HOME", str(tmp_path / "home"))
    cheap = wrap.seal
    monkeypatch.setattr(wrap, "seal", lambda k, p: cheap(k, p, memory_kib=8 * 1024, passes=1))
    before = system_keyring.get_keyring()
    ring = InProcess()
    system_keyring.set_keyring(ring)
    yield ring
    system_keyring.set_keyring(before)


def store_something() -> Conversation:
    conversation = Conversation()
    conversation.append(Message(parent=None, role="user", content="hello"))
    with History(key=key.unlock("secret words")) as history:
        history.save(conversation)
    return conversation


# ------------------------------------------------------------------------------------------------- the ways


def test_nothing_is_chosen_at_first() -> None:
    assert key.protection() is None
    with pytest.raises(HistoryError, match="not chosen yet"):
        key.unlock()


def test_plain_by_choice() -> None:
    assert key.create(()) is None
    assert key.protection() == key.Protection(())
    assert key.unlock() is None
    assert key.unlock("whatever") is None


def test_keyring(ring: InProcess) -> None:
    made = key.create(["keyring"])
    assert made is not None
    assert len(made) == 32
    assert key.protection() == key.Protection(("keyring",))
    assert key.unlock() == key.unlock("ignored") == made
    assert [*ring.kept.values()] == [made.hex()]
    assert made.hex() not in key.key_path().read_text()


def test_passphrase(ring: InProcess) -> None:
    made = key.create(["passphrase"], "secret wörds")
    assert key.protection() == key.Protection(("passphrase",))
    assert key.unlock("secret wörds") == key.unlock("secret wo\u0308rds") == made
    assert ring.kept == {}
    for wrong in ("secret words", "", None):
        with pytest.raises(HistoryLocked):
            key.unlock(wrong)


def test_both_ways(ring: InProcess) -> None:
    made = key.create(["keyring", "passphrase"], "secret words")
    assert key.protection() == key.Protection(("keyring", "passphrase"))
    assert key.unlock() == key.unlock("secret words") == made
    with pytest.raises(HistoryLocked, match="not the passphrase"):
        key.unlock("other words")
    ring.kept.clear()
    with pytest.raises(HistoryLocked):
        key.unlock()
    assert key.unlock("secret words") == made
    system_keyring.set_keyring(fail.Keyring())
    with pytest.raises(HistoryLocked):
        key.unlock()


def test_two_keys_are_never_the_same() -> None:
    first = key.create(["passphrase"], "x")
    key.key_path().unlink()
    assert key.create(["passphrase"], "x") != first


def test_a_way_needs_its_means(ring: InProcess) -> None:
    with pytest.raises(HistoryLocked, match="passphrase is needed"):
        key.create(["passphrase"])
    ring.locked = True
    with pytest.raises(HistoryError, match="the keyring is locked"):
        key.create(["keyring"])
    assert key.protection() is None


def test_a_keyring_that_lost_the_key(ring: InProcess) -> None:
    key.create(["keyring"])
    ring.locked = True
    with pytest.raises(HistoryError, match="the keyring is locked"):
        key.unlock()
    ring.locked = False
    ring.kept.clear()
    with pytest.raises(HistoryError, match="no longer has the key") as caught:
        key.unlock()
    assert not isinstance(caught.value, HistoryLocked)
    assert str(key.key_path()) in caught.value.hint


@pytest.mark.parametrize("backend", [null.Keyring, fail.Keyring, Weak])
def test_keyrings_that_are_none(backend: type[KeyringBackend]) -> None:
    assert key.keyring_problem() == ""
    system_keyring.set_keyring(backend())
    assert key.keyring_problem() == "this system offers no keyring service"
    with pytest.raises(HistoryError, match="no keyring service"):
        key.create(["keyring"])
    assert key.protection() is None


def test_the_keyring_package_is_not_imported_without_need(tmp_path: Path) -> None:
    program = (
        "import sys; from localai.history import key; key.create(()); key.unlock(); print([*sys.modules])"
    )
    environment = os.environ | {"LOCALAI_HOME": str(tmp_path / "other")}
    printed = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    ).stdout
    assert "'localai.history.keyring'" in printed
    assert not {"'keyring'", "'argon2'", "'cryptography'"} & {*printed.replace("[", " ").split(", ")}


# ------------------------------------------------------------------------------------------------- the file


def test_the_file_is_private_and_not_beside_the_data() -> None:
    key.create(["passphrase"], "x")
    path = key.key_path()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert paths.data_dir() not in path.parents
    assert [file.name for file in path.parent.iterdir()] == [path.name]


def test_the_folder_of_settings_is_never_that_of_the_data(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALAI_HOME")
    assert paths.config_dir() != paths.data_dir()
    same = paths.data_dir()
    monkeypatch.setattr(paths.platformdirs, "user_config_path", lambda *_, **__: same)
    assert paths.config_dir() != same
    assert same not in paths.config_dir().parents


def test_the_cost_of_a_passphrase_is_kept_with_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.undo()
    sealed = wrap.seal(b"k" * 32, "x")
    assert (sealed.memory_kib, sealed.passes) == (64 * 1024, 3)
    other = wrap.seal(b"k" * 32, "x", memory_kib=8 * 1024, passes=1)
    assert wrap.unseal(other, "x") == wrap.unseal(sealed, "x") == b"k" * 32
    assert other.salt != sealed.salt


@pytest.mark.parametrize(
    "change",
    [
        lambda file: file["key"]["envelope"].update(memory_kib=2**31),
        lambda file: file["key"]["envelope"].update(salt=""),
        lambda file: file.update(version=2),
        lambda file: file.pop("key"),
    ],
)
def test_a_damaged_file_is_refused_and_kept(change) -> None:
    key.create(["passphrase"], "x")
    file = json.loads(key.key_path().read_text())
    change(file)
    key.key_path().write_text(json.dumps(file))
    for use in (key.protection, key.unlock, lambda: key.create(["passphrase"], "y")):
        with pytest.raises(HistoryError, match="damaged, or of a newer version"):
            use()
    assert json.loads(key.key_path().read_text()) == file


def test_a_changed_envelope_does_not_open() -> None:
    key.create(["passphrase"], "x")
    file = json.loads(key.key_path().read_text())
    sealed = file["key"]["envelope"]["sealed"]
    file["key"]["envelope"]["sealed"] = ("B" if sealed[0] == "A" else "A") + sealed[1:]
    key.key_path().write_text(json.dumps(file))
    with pytest.raises(HistoryLocked):
        key.unlock("x")


def test_a_key_is_never_replaced_by_a_new_one() -> None:
    made = key.create(["keyring"])
    with pytest.raises(HistoryError, match="have a key already"):
        key.create(["passphrase"], "x")
    with pytest.raises(HistoryError, match="have a key already"):
        key.create(())
    assert key.unlock() == made


def test_no_new_key_for_conversations_whose_key_is_lost() -> None:
    key.create(["passphrase"], "secret words")
    store_something()
    key.key_path().unlink()
    with pytest.raises(HistoryError, match="is encrypted, but"):
        key.create(["keyring"])
    assert key.protection() is None


def test_from_plain_to_encrypted() -> None:
    key.create(())
    conversation = store_something()
    made = key.create(["keyring"])
    with History(key=made) as history:
        assert history.load(conversation.id) == conversation


# ------------------------------------------------------------------------------------------------- changes


def test_the_same_key_kept_otherwise(ring: InProcess) -> None:
    made = key.create(["keyring"])
    assert made is not None
    key.protect(made, ["passphrase"], "secret words")
    assert ring.kept == {}
    assert key.protection() == key.Protection(("passphrase",))
    assert key.unlock("secret words") == made
    key.protect(made, ["keyring", "passphrase"], "other words")
    assert len(ring.kept) == 1
    assert key.unlock() == key.unlock("other words") == made
    key.protect(made, ["keyring"])
    assert len(ring.kept) == 1
    assert key.unlock() == made
    with pytest.raises(HistoryError, match="kept somewhere"):
        key.protect(made, ())


def test_a_change_that_fails_changes_nothing(ring: InProcess) -> None:
    made = key.create(["passphrase"], "secret words")
    assert made is not None
    ring.locked = True
    with pytest.raises(HistoryError):
        key.protect(made, ["keyring"])
    assert key.unlock("secret words") == made


@pytest.mark.parametrize("ways", [("keyring",), ("passphrase",), ("keyring", "passphrase")])
@pytest.mark.parametrize("rekeyed", [False, True])
@pytest.mark.parametrize("finished", [False, True])
def test_rekey(ring: InProcess, ways: tuple[key.Way, ...], rekeyed: bool, finished: bool) -> None:
    """Interrupted before or after the database got the new key, or not at all."""
    old = key.create(ways, "secret words")
    conversation = store_something()
    fresh = key.begin_rekey(ways, "secret words")
    assert fresh != old
    if rekeyed:
        with History(key=old) as history:
            history.rekey(fresh)
    if finished:
        (key.finish_rekey if rekeyed else key.cancel_rekey)()
    for _ in range(2):
        found = key.unlock("secret words")
        assert found == (fresh if rekeyed else old)
        with History(key=found) as history:
            assert history.load(conversation.id) == conversation
    assert len(ring.kept) == ways.count("keyring")
    assert "next" not in json.loads(key.key_path().read_text())
    key.finish_rekey()
    key.cancel_rekey()
    assert key.unlock("secret words") == found


def test_an_interrupted_change_of_the_passphrase_too() -> None:
    key.create(["passphrase"], "old words")
    with pytest.raises(HistoryLocked):
        key.begin_rekey(["passphrase"])
    fresh = key.begin_rekey(["passphrase"], "new words")
    asked: list[bytes] = []

    def opens(found: bytes) -> bool:
        asked.append(found)
        return found == fresh

    with pytest.raises(HistoryError, match="was interrupted"):
        key.begin_rekey(["passphrase"], "x")
    with pytest.raises(HistoryLocked):
        key.unlock("old words", opens)
    with pytest.raises(HistoryLocked):
        key.unlock("wrong words", opens)
    assert key.unlock("new words", opens) == fresh
    assert len(asked) == 2
    assert key.unlock("new words") == fresh


def test_neither_key_opens() -> None:
    key.create(["keyring"])
    key.begin_rekey(["keyring"])
    with pytest.raises(HistoryError, match="Neither of the two keys"):
        key.unlock(opens=lambda _: False)


def test_plain_has_no_key_to_change() -> None:
    key.create(())
    with pytest.raises(HistoryError, match="not encrypted"):
        key.begin_rekey(["keyring"])


REKEY = """
import os, signal, sys
from localai.history import History, key, wrap
costly = wrap.seal
wrap.seal = lambda k, p: costly(k, p, memory_kib=8 * 1024, passes=1)
left = int(sys.argv[1])
def watch(event, _):
    global left
    if event in ("open", "os.remove", "os.rename", "sqlite3.connect"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
old = key.unlock("secret words")
import argon2.low_level, cryptography.hazmat.primitives.ciphers.aead
sys.addaudithook(watch)
with History(key=old) as history:
    fresh = key.begin_rekey(["passphrase"], "secret words")
    history.rekey(fresh)
    key.finish_rekey()
"""


def test_a_kill_during_a_rekey_loses_nothing() -> None:
    key.create(["passphrase"], "secret words")
    conversation = store_something()
    for steps in range(40):
        killed = subprocess.run([sys.executable, "-c", REKEY, str(steps)], check=False).returncode
        with History(key=key.unlock("secret words")) as history:
            assert history.load(conversation.id) == conversation
        if killed == 0:
            break
        assert killed == -signal.SIGKILL
    assert steps > 5, "the steps are not seen"
