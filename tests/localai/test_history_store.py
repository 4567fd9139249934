"""The store: what goes in comes out, and bad files are refused without harm."""

from __future__ import annotations

import sqlite3
import stat
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localai.chat.conversation import Conversation, Message
from localai.errors import HistoryError, NoSpace
from localai.history import store
from localai.history.store import History

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SECONDS = st.floats(0, 2e9)
COUNT = st.integers(0, 2**40)


@pytest.fixture
def history(tmp_path: Path):
    with History(tmp_path / "private" / "conversations.sqlite") as opened:
        yield opened


def said(conversation: Conversation, *texts: str) -> Conversation:
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        conversation.append(Message(parent=conversation.head, role=role, content=text))
    return conversation


@st.composite
def conversations(draw) -> Conversation:
    """A tree: each message follows any earlier one, the head is any of them."""
    conversation = Conversation(
        title=draw(TEXT), system=draw(TEXT), model=draw(TEXT), created=draw(SECONDS), updated=draw(SECONDS)
    )
    for _ in range(draw(st.integers(1, 6))):
        parents = [None, *conversation.messages]
        message = Message(
            parent=draw(st.sampled_from(parents)),
            role=draw(st.sampled_from(["user", "assistant"])),
            content=draw(TEXT),
            thinking=draw(TEXT),
            state=draw(st.sampled_from(["complete", "stopped", "failed"])),
            created=draw(SECONDS),
            model=draw(TEXT),
            finish_reason=draw(TEXT),
            thinking_s=draw(SECONDS),
            thinking_tokens=draw(COUNT),
            completion_tokens=draw(COUNT),
            prompt_tokens=draw(COUNT),
            tokens_per_s=draw(SECONDS),
        )
        conversation.messages[message.id] = message
    conversation.head = draw(st.sampled_from([*conversation.messages]))
    return conversation


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conversations())
def test_round_trip(conversation: Conversation) -> None:
    with TemporaryDirectory() as folder, History(Path(folder) / "h.sqlite") as history:
        history.save(conversation)
        loaded = history.load(conversation.id)
        assert loaded == conversation
        assert [*loaded.messages] == [*conversation.messages]
        history.save(loaded)
        assert history.load(conversation.id) == conversation


@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(conversations())
def test_message_by_message_is_the_same(conversation: Conversation) -> None:
    first, *others = conversation.messages.values()
    begun = Conversation(
        id=conversation.id,
        title=conversation.title,
        system=conversation.system,
        model=conversation.model,
        created=conversation.created,
        messages={first.id: first},
        head=first.id,
        updated=first.created,
    )
    with TemporaryDirectory() as folder, History(Path(folder) / "h.sqlite") as history:
        history.save(begun)
        for message in others:
            history.put(conversation.id, message)
        loaded = history.load(conversation.id)
    assert loaded.messages == conversation.messages
    assert loaded.head == [*conversation.messages][-1]
    assert loaded.updated == max(m.created for m in conversation.messages.values())


def test_it_survives_a_restart(tmp_path: Path) -> None:
    conversation = said(Conversation(), "hello", "hi")
    with History(tmp_path / "h.sqlite") as history:
        history.save(conversation)
    with History(tmp_path / "h.sqlite") as history:
        assert history.load(conversation.id) == conversation


def test_nothing_said_is_not_stored(history: History) -> None:
    history.save(Conversation(title="empty"))
    assert history.summaries() == []


def test_summaries_are_newest_first(history: History) -> None:
    for title, updated in [("old", 1.0), ("new", 3.0), ("middle", 2.0)]:
        conversation = said(Conversation(title=title, model="m"), "a", "b")
        conversation.updated = updated
        history.save(conversation)
    found = history.summaries()
    assert [(s.title, s.updated, s.model, s.message_count) for s in found] == [
        ("new", 3.0, "m", 2),
        ("middle", 2.0, "m", 2),
        ("old", 1.0, "m", 2),
    ]


def test_put_again_changes_the_message(history: History) -> None:
    conversation = said(Conversation(), "hello", "")
    history.save(conversation)
    reply = conversation.messages[conversation.head or ""]
    reply.content, reply.state = "hi there", "complete"
    history.put(conversation.id, reply)
    assert history.load(conversation.id).branch()[-1].content == "hi there"
    assert history.summaries()[0].message_count == 2


def test_a_reply_that_a_crash_cut_off_is_stopped(history: History) -> None:
    conversation = said(Conversation(), "hello")
    history.save(conversation)
    history.put(conversation.id, Message(parent=conversation.head, role="assistant", state="streaming"))
    assert history.load(conversation.id).branch()[-1].state == "stopped"
    assert history.load(conversation.id).branch()[-1].state == "stopped"


def test_rename_and_delete(history: History) -> None:
    kept, gone = said(Conversation(), "kept"), said(Conversation(), "gone", "x")
    history.save(kept)
    history.save(gone)
    history.rename(kept.id, "other")
    history.delete(gone.id)
    history.delete(gone.id)
    assert [s.title for s in history.summaries()] == ["other"]
    with pytest.raises(HistoryError, match="no conversation"):
        history.load(gone.id)


def test_a_long_conversation_can_be_deleted(history: History) -> None:
    conversation = said(Conversation(), *[f"message {i}" for i in range(2500)])
    history.save(conversation)
    history.delete(conversation.id)
    assert history.summaries() == []


def test_put_into_a_deleted_conversation_is_refused(history: History) -> None:
    with pytest.raises(HistoryError, match="no longer in"):
        history.put("nowhere", Message(parent=None, role="user"))


def test_a_secret_is_gone_from_the_files_after_delete(tmp_path: Path) -> None:
    conversation = said(Conversation(), "CANARY-7351")
    with History(tmp_path / "h.sqlite") as history:
        history.save(conversation)
        history.delete(conversation.id)
    assert not [f for f in tmp_path.iterdir() if b"CANARY-7351" in f.read_bytes()]


def test_only_the_user_can_read_it(history: History) -> None:
    history.save(said(Conversation(), "private"))
    folder = history.path.parent
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    assert {stat.S_IMODE(f.stat().st_mode) for f in folder.iterdir()} == {0o600}


def test_durability_settings(history: History) -> None:
    db = history._db
    assert db.execute("PRAGMA journal_mode").fetchone() == {"journal_mode": "wal"}
    assert db.execute("PRAGMA synchronous").fetchone() == {"synchronous": 1}
    assert db.execute("PRAGMA foreign_keys").fetchone() == {"foreign_keys": 1}
    assert db.execute("PRAGMA secure_delete").fetchone() == {"secure_delete": 1}


def test_what_is_deleted_is_no_longer_in_any_file(tmp_path: Path) -> None:
    """Also while the store is open."""
    with History(tmp_path / "h.sqlite") as history:
        secret = said(Conversation(), *["the canary sings " * 50] * 20)
        history.save(secret)
        for message in secret.branch():
            history.put(secret.id, message)
        assert any(b"canary" in file.read_bytes() for file in tmp_path.iterdir())
        history.delete(secret.id)
        assert not [file.name for file in tmp_path.iterdir() if b"canary" in file.read_bytes()]


def test_two_programs_at_once(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as one, History(path) as two:
        mine, other = said(Conversation(), "mine"), said(Conversation(), "other")
        one.save(mine)
        two.save(other)
        assert {s.id for s in one.summaries()} == {s.id for s in two.summaries()} == {mine.id, other.id}


# ------------------------------------------------------------------------------------------------ bad files


def test_not_a_database(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    path.write_bytes(b"this is a letter to grandma " * 100)
    with pytest.raises(HistoryError, match="not a database") as caught:
        History(path)
    assert str(path) in str(caught.value)
    assert caught.value.hint
    assert path.read_bytes() == b"this is a letter to grandma " * 100


def test_a_damaged_database_is_kept(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history.save(said(Conversation(), *["long text " * 200] * 50))
    whole = path.read_bytes()
    damaged = whole[:4096] + b"\xff" * (len(whole) - 4096)
    path.write_bytes(damaged)
    with pytest.raises(HistoryError, match="damaged"), History(path) as history:
        history.summaries()
    assert path.read_bytes()[4096:] == damaged[4096:]


def test_another_programs_database(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    foreign = sqlite3.connect(path)
    foreign.execute("CREATE TABLE recipes (name TEXT)")
    foreign.close()
    with pytest.raises(HistoryError, match="not one of conversations"):
        History(path)


def test_a_newer_schema(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        history._db.execute("PRAGMA user_version = 99")
    with pytest.raises(HistoryError, match="newer version"):
        History(path)


def test_a_row_that_makes_no_sense(history: History) -> None:
    conversation = said(Conversation(), "x")
    history.save(conversation)
    history._db.execute("UPDATE messages SET role = 'dragon'")
    with pytest.raises(HistoryError, match="damaged"):
        history.load(conversation.id)


def test_locked_by_another_program(history: History, monkeypatch: pytest.MonkeyPatch) -> None:
    other = sqlite3.connect(history.path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    history._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(HistoryError, match="in use by another program"):
        history.save(said(Conversation(), "x"))
    other.close()
    history.save(said(Conversation(), "x"))


def test_disk_full(history: History) -> None:
    pages = history._pragma("page_count")
    history._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(NoSpace, match="disk is full") as caught:
        history.save(said(Conversation(), "x" * 200_000))
    assert str(history.path) in str(caught.value)
    history._db.execute("PRAGMA max_page_count = 100000")
    history.save(said(Conversation(), "x" * 200_000))
    assert len(history.summaries()) == 1


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match="cannot be opened"):
        History(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("")
    with pytest.raises(HistoryError, match="cannot be opened"):
        History(blocked / "h.sqlite")


def test_every_code_of_the_table_is_mapped(tmp_path: Path) -> None:
    for code, (kind, _, hint) in store._BY_CODE.items():
        error = sqlite3.OperationalError("x")
        error.sqlite_errorcode = code | (3 << 8)
        mapped = store._mapped(error, tmp_path)
        assert type(mapped) is kind
        assert str(tmp_path) in mapped.message
        assert mapped.hint == hint
    assert type(store._mapped(sqlite3.Error("odd"), tmp_path)) is HistoryError
