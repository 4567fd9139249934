"""How the stored conversations are opened: the first run, the passphrase, and what is refused."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import keyring
import pytest
from keyring.backend import KeyringBackend

from localai import hardware
from localai.chat.conversation import Conversation, Message
from localai.cli import first_run, unlock
from localai.errors import HistoryError, HistoryLocked, UsageError
from localai.history import History, key

PASSPHRASE = "correct horse battery"


class Ring(KeyringBackend):
    """A keyring in this process."""

    priority = 5  # type: ignore[assignment]

    def __init__(self) -> None:
        super().__init__()
        self.kept: dict[tuple[str, str], str] = {}

    def get_password(self, service: str, username: str) -> str | None:
        return self.kept.get((service, username))

    def set_password(self, service: str, username: str, password: str) -> None:
        self.kept[service, username] = password

    def delete_password(self, service: str, username: str) -> None:
        del self.kept[service, username]


@pytest.fixture(autouse=True)
def _home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("LOCALAI_HOME", str(tmp_path))
    monkeypatch.delenv(unlock.PASSPHRASE, raising=False)
    monkeypatch.delenv(unlock.PASSPHRASE_FILE, raising=False)
    before = keyring.get_keyring()
    from keyring.backends import fail

    keyring.set_keyring(fail.Keyring())
    yield
    keyring.set_keyring(before)


@pytest.fixture
def terminal(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What the user will type, one after the other."""
    typed: list[str] = []
    monkeypatch.setattr(unlock, "_terminal", lambda: True)
    monkeypatch.setattr(unlock, "_secret", lambda prompt: typed.pop(0))
    return typed


def talk() -> Conversation:
    found = Conversation(id="c")
    found.append(Message(parent=None, role="user", content="the quick brown fox"))
    return found


def test_a_keyring_is_used_without_a_question(tmp_path: Path) -> None:
    keyring.set_keyring(Ring())
    with unlock.open_history(ask=False) as history:
        history.save(talk())
        assert history.kept == "encrypted"
    assert b"quick brown" not in history.path.read_bytes()
    with unlock.open_history(ask=False) as again:
        assert again.load("c").title == "the quick brown fox"


def test_without_a_keyring_a_passphrase_is_asked_twice(terminal: list[str]) -> None:
    terminal += ["short", PASSPHRASE, "something else", PASSPHRASE, PASSPHRASE]
    with unlock.open_history() as history:
        history.save(talk())
    assert key.protection() == key.Protection(("passphrase",))
    terminal += ["wrong, I think", PASSPHRASE]
    with unlock.open_history() as again:
        assert again.load("c").title == "the quick brown fox"
    assert not terminal


def test_three_wrong_passphrases_are_enough(terminal: list[str]) -> None:
    terminal += [PASSPHRASE, PASSPHRASE]
    unlock.open_history().close()
    terminal += ["wrong one", "wrong two", "wrong three"]
    with pytest.raises(HistoryLocked):
        unlock.open_history()
    assert not terminal


def test_no_passphrase_at_all_keeps_nothing_this_time(terminal: list[str], tmp_path: Path) -> None:
    terminal += [""]
    with unlock.open_history() as history:
        history.save(talk())
        assert history.kept == "memory"
    assert key.protection() is None
    assert not [path for path in tmp_path.rglob("*") if path.is_file()]


def test_where_nobody_can_be_asked_the_first_run_is_refused() -> None:
    with pytest.raises(HistoryLocked) as error:
        unlock.open_history(ask=False)
    assert "--incognito" in error.value.hint
    assert unlock.PASSPHRASE in error.value.hint


def test_the_environment_gives_the_passphrase(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(unlock.PASSPHRASE, PASSPHRASE)
    with unlock.open_history(ask=False) as history:
        history.save(talk())
    monkeypatch.delenv(unlock.PASSPHRASE)
    (tmp_path / "secret").write_text(PASSPHRASE + "\n")
    monkeypatch.setenv(unlock.PASSPHRASE_FILE, str(tmp_path / "secret"))
    with unlock.open_history(ask=False) as again:
        assert again.load("c").title == "the quick brown fox"
    monkeypatch.setenv(unlock.PASSPHRASE, "wrong")
    with pytest.raises(HistoryLocked):
        unlock.open_history(ask=False)
    monkeypatch.delenv(unlock.PASSPHRASE)
    monkeypatch.setenv(unlock.PASSPHRASE_FILE, str(tmp_path / "nothing"))
    with pytest.raises(UsageError, match="nothing"):
        unlock.open_history(ask=False)


def test_plain_is_the_users_choice_and_stays_it() -> None:
    with unlock.open_history(ask=False, plain=True) as history:
        history.save(talk())
        assert history.kept == "plain"
    with unlock.open_history(ask=False) as again:
        assert again.kept == "plain"
        assert again.load("c").title == "the quick brown fox"


def test_what_is_encrypted_does_not_become_plain_by_an_option(terminal: list[str]) -> None:
    terminal += [PASSPHRASE, PASSPHRASE]
    unlock.open_history().close()
    with pytest.raises(UsageError, match="--plain-history"):
        unlock.open_history(plain=True)


def test_conversations_of_earlier_versions_are_encrypted_when_they_are_opened(terminal: list[str]) -> None:
    with History() as old:
        old.save(talk())
    assert b"quick brown" in b"".join(p.read_bytes() for p in old.path.parent.glob("conversations*"))
    terminal += [PASSPHRASE, PASSPHRASE]
    with unlock.open_history() as history:
        assert history.load("c").title == "the quick brown fox"
    assert b"quick brown" not in b"".join(p.read_bytes() for p in old.path.parent.glob("conversations*"))


def test_a_lost_key_is_said_and_the_file_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(unlock.PASSPHRASE, PASSPHRASE)
    with unlock.open_history() as history:
        history.save(talk())
    before = history.path.read_bytes()
    key.key_path().unlink()
    with pytest.raises(HistoryError):
        unlock.open_history()
    assert history.path.read_bytes() == before


# -------------------------------------------------------------------------------- what the first run does


def test_a_passphrase_in_the_environment_wins_over_a_keyring(monkeypatch: pytest.MonkeyPatch) -> None:
    keyring.set_keyring(Ring())
    monkeypatch.setenv(unlock.PASSPHRASE, PASSPHRASE)
    unlock.open_history(ask=False).close()
    assert key.protection() == key.Protection(("passphrase",))


def test_it_is_the_first_run_until_somebody_says_how(monkeypatch: pytest.MonkeyPatch) -> None:
    assert unlock.is_first_run()
    monkeypatch.setenv(unlock.PASSPHRASE, PASSPHRASE)
    assert not unlock.is_first_run()
    monkeypatch.delenv(unlock.PASSPHRASE)
    first_run.protect("plain", "")
    assert not unlock.is_first_run()


def test_what_is_chosen_on_the_screen_is_done(tmp_path: Path) -> None:
    made = first_run.protect("passphrase", PASSPHRASE)
    assert key.protection() == key.Protection(("passphrase",))
    with History(key=made) as history:
        history.save(talk())
    assert key.unlock(PASSPHRASE) == made


def test_the_keyring_that_is_chosen_gets_the_key() -> None:
    ring = Ring()
    keyring.set_keyring(ring)
    made = first_run.protect("keyring", "")
    assert made is not None
    assert list(ring.kept.values()) == [made.hex()]


def test_who_keeps_nothing_decides_nothing(tmp_path: Path) -> None:
    assert first_run.protect("memory", "") is None
    assert first_run.protect("plain", "") is None
    assert key.protection() == key.Protection(())


def test_memory_only_leaves_no_file(tmp_path: Path) -> None:
    first_run.protect("memory", "")
    assert unlock.is_first_run()
    assert not list(tmp_path.rglob("*"))


def test_nothing_is_asked_where_nothing_is_open() -> None:
    assert first_run.ask(model=False, protection=False, starter=False) is None


def test_only_what_is_open_is_asked() -> None:
    asked = first_run.questions(model=False, protection=True, starter=False)
    assert not asked.models
    assert asked.recommended is None
    assert asked.keyring_problem
    asked = first_run.questions(model=True, protection=False, starter=True)
    assert asked.recommended is not None
    assert asked.recommended.name == first_run.STARTER
    assert not asked.protection
    assert asked.keyring_problem == ""


async def test_the_machine_is_this_one() -> None:
    machine = await first_run.machine()
    assert machine.memory == hardware.total_memory()
    assert machine.cores == hardware.physical_cores()
    assert machine.gpu_memory >= 0
