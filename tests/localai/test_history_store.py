"""The store: what goes in comes out, and bad files are refused without harm."""

from __future__ import annotations

import math
import os
import signal
import sqlite3
import stat
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlcipher3 import dbapi2 as sqlcipher

from localai.chat.conversation import Attachment, Conversation, Message
from localai.errors import HistoryError, NoSpace
from localai.history import convert, database
from localai.history.store import Draft, History, Preset

KEY, OTHER_KEY = b"k" * 32, b"o" * 32
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
        title=draw(TEXT),
        system=draw(TEXT),
        model=draw(TEXT),
        created=draw(SECONDS),
        updated=draw(SECONDS),
        pinned=draw(st.booleans()),
        settings=draw(
            st.dictionaries(TEXT, st.none() | st.booleans() | st.integers(-9, 9) | TEXT, max_size=3)
        ),
    )
    for _ in range(draw(st.integers(1, 6))):
        parents = [None, *conversation.messages]
        message = Message(
            parent=draw(st.sampled_from(parents)),
            role=draw(st.sampled_from(["user", "assistant"])),
            content=draw(TEXT),
            attachments=tuple(draw(st.lists(st.builds(Attachment, name=TEXT, text=TEXT), max_size=2))),
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
        assert history.count() == (1, len(conversation.messages))
        assert history.summaries()[0].message_count == len(conversation.messages)
        assert history.check() == "ok"
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
        pinned=conversation.pinned,
        settings=conversation.settings,
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


def test_the_first_summaries_are_read_without_the_others(history: History) -> None:
    for number in range(5):
        conversation = said(Conversation(pinned=number == 1), "x")
        conversation.updated = float(number)
        history.save(conversation)
    assert [s.updated for s in history.summaries(3)] == [1.0, 4.0, 3.0]
    assert history.summaries(0) == []
    plan = history._db.tuples(
        "EXPLAIN QUERY PLAN SELECT id FROM conversations WHERE message_count > 0"
        " ORDER BY pinned DESC, updated DESC, rowid DESC LIMIT 3"
    )
    assert any("conversations_listed" in str(step) for step in plan)


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
    damaged = whole[:8192] + b"\xff" * (len(whole) - 8192)
    path.write_bytes(damaged)
    with pytest.raises(HistoryError, match="damaged"), History(path) as history:
        history.summaries()
    assert path.read_bytes() == damaged


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


def test_locked_by_another_program(history: History) -> None:
    other = sqlcipher.connect(str(history.path), isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    history._db.execute("PRAGMA busy_timeout = 10")
    with pytest.raises(HistoryError, match="in use by another program"):
        history.save(said(Conversation(), "x"))
    other.close()
    history.save(said(Conversation(), "x"))


def test_disk_full(history: History) -> None:
    pages = history._db.pragma("page_count")
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
    for code, (kind, _, hint) in database.BY_CODE.items():
        error = sqlcipher.OperationalError("x")
        error.sqlite_errorcode = code | (3 << 8)
        mapped = database.error_of(error, tmp_path)
        assert type(mapped) is kind
        assert str(tmp_path) in mapped.message
        assert mapped.hint == hint
    assert type(database.error_of(sqlcipher.Error("odd"), tmp_path)) is HistoryError


def test_half_characters_are_stored_as_a_mark(history: History) -> None:
    conversation = Conversation(title="a\ud800b", system="\udc00")
    file = Attachment(name="\ud83d", text="x\udfff")
    conversation.append(Message(parent=None, role="user", content="\ud800", attachments=(file,)))
    history.save(conversation)
    history.put(conversation.id, Message(parent=conversation.head, role="assistant", content="y\udfff"))
    history.put_draft("", "z\ud800", (file,))
    history.set_setting("\ud800", "1")
    history.save_settings(conversation.id, "s\ud800", {"k\ud800": ["v\ud800"]})
    loaded = history.load(conversation.id)
    assert (loaded.title, loaded.system, loaded.settings) == ("a\ufffdb", "s\ufffd", {"k\ufffd": ["v\ufffd"]})
    assert [m.content for m in loaded.branch()] == ["\ufffd", "y\ufffd"]
    whole = Attachment(name="\ufffd", text="x\ufffd")
    assert loaded.branch()[0].attachments == (whole,)
    assert history.draft() == Draft("z\ufffd", (whole,))
    assert history.search("\ud800") == []
    assert len(history.search("y\ud800")) == 1


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
def test_a_setting_that_json_does_not_have_is_refused(history: History, value: float) -> None:
    conversation = said(Conversation(settings={"temperature": 0.5}), "x")
    history.save(conversation)
    bias = {"logit_bias": [{"token": 5, "bias": value}]}
    with pytest.raises(HistoryError, match="cannot be stored"):
        history.save_settings(conversation.id, "", bias)
    with pytest.raises(HistoryError, match="cannot be stored"):
        history.save_preset(Preset("p", "", bias))
    assert history.load(conversation.id).settings == {"temperature": 0.5}


def test_has_any(history: History) -> None:
    conversation = said(Conversation(), "x", "y")
    history.save(conversation)
    assert history.has_any(["nothing", conversation.head])
    assert not history.has_any(["nothing"])
    assert not history.has_any([])


# ------------------------------------------------------------------------------------- what the user sets


def test_pinned_come_first(history: History) -> None:
    for title, updated in [("old", 1.0), ("new", 2.0)]:
        history.save(said(Conversation(id=title, title=title), "x"))
        history._db.execute("UPDATE conversations SET updated = ? WHERE id = ?", (updated, title))
    history.pin("old", True)
    assert [(s.title, s.pinned) for s in history.summaries()] == [("old", True), ("new", False)]
    assert history.load("old").pinned
    history.pin("old", False)
    assert [s.title for s in history.summaries()] == ["new", "old"]


def test_another_branch_and_other_settings(history: History) -> None:
    conversation = said(Conversation(), "a", "b", "c")
    history.save(conversation)
    first = conversation.branch()[0].id
    history.set_head(conversation.id, first)
    history.save_settings(conversation.id, "be brief", {"temperature": 0.5})
    loaded = history.load(conversation.id)
    assert (loaded.head, loaded.system, loaded.settings) == (first, "be brief", {"temperature": 0.5})
    with pytest.raises(HistoryError, match="no longer in"):
        history.set_head(conversation.id, "nowhere")


def test_expired_are_neither_the_new_nor_the_pinned(history: History) -> None:
    day = 86_400.0
    for name, updated in [("old", 1 * day), ("new", 9 * day), ("pinned", 1 * day)]:
        conversation = said(Conversation(id=name), name)
        conversation.updated, conversation.pinned = updated, name == "pinned"
        history.save(conversation)
    assert history.expired(5, 10 * day) == ["old"]
    assert history.expired(50, 10 * day) == []


def test_what_the_user_has_just_brought_here_or_unpinned_is_not_expired(tmp_path: Path) -> None:
    day = 86_400.0
    path = tmp_path / "h.sqlite"
    with History(path) as history:
        for name in ("made here", "imported", "unpinned"):
            conversation = said(Conversation(id=name), name)
            conversation.updated, conversation.pinned = 1 * day, name == "unpinned"
            history.save(conversation, kept_from=400 * day if name == "imported" else 0.0)
        history.pin("unpinned", False, 400 * day)
        history.save(history.load("imported"))
    with History(path) as history:
        assert history.expired(30, 430 * day) == ["made here"]
        assert history.expired(30, 431 * day) == ["made here", "imported", "unpinned"]
        history.pin("unpinned", True, 999 * day)
        history.pin("imported", False, 2 * day)
        assert history.expired(30, 431 * day) == ["made here", "imported"]


def test_drafts_presets_and_settings(tmp_path: Path) -> None:
    conversation = said(Conversation(), "x")
    with History(tmp_path / "h.sqlite", KEY) as history:
        history.save(conversation)
        assert (history.draft(), history.setting("theme"), history.presets()) == (Draft(), None, [])
        history.put_draft("", "not begun")
        history.put_draft(conversation.id, "half")
        history.put_draft(conversation.id, "half a sentence")
        history.save_preset(Preset("b", "old", {}))
        history.save_preset(Preset("b", "translate", {"temperature": 0.1}))
        history.save_preset(Preset("a"))
        history.set_setting("theme", "dark")
        history.set_setting("theme", "light")
    with History(tmp_path / "h.sqlite", KEY) as history:
        assert (history.draft().text, history.draft(conversation.id).text) == ("not begun", "half a sentence")
        assert history.presets() == [Preset("a"), Preset("b", "translate", {"temperature": 0.1})]
        assert history.setting("theme") == "light"
        history.put_draft("", "")
        history.delete_preset("b")
        history.set_setting("theme", None)
        history.delete(conversation.id)
        assert (history.draft(), history.draft(conversation.id)) == (Draft(), Draft())
        assert (history.presets(), history.setting("theme")) == ([Preset("a")], None)


def test_a_draft_has_its_attachments(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    files = (Attachment(name="a", text="text " * 1000), Attachment(name="b", text="more"))
    conversation = said(Conversation(), "x")
    with History(path, KEY) as history:
        history.save(conversation)
        history.put_draft("", "t", files)
        history.put_draft("", "text", files)
        history.put_draft(conversation.id, "", files[:1])
    with History(path, KEY) as history, History(path, KEY) as other:
        assert (history.draft(), history.draft(conversation.id)) == (
            Draft("text", files),
            Draft("", files[:1]),
        )
        history.put_draft("", "text", files[1:])
        other.put_draft("", "")
        history.put_draft("", "text", files[1:])
        assert other.draft() == Draft("text", files[1:])
        history.put_draft("", "text")
        assert other.draft() == Draft("text")
        history.delete(conversation.id)
        assert history._db.tuples("SELECT count(*) FROM draft_files") == [(0,)]


def test_files_of_a_draft_are_written_once(history: History) -> None:
    files = (Attachment(name="a", text="text " * 100_000),)
    history.put_draft("", "t", files)
    written = history._db.raw.total_changes
    history.put_draft("", "te", files)
    assert history._db.raw.total_changes == written + 1


def test_two_windows_do_not_mix_their_drafts(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    mine, yours = (Attachment(name="a", text="mine"),), (Attachment(name="a", text="yours"),)
    with History(path) as one, History(path) as other:
        one.put_draft("", "m", mine)
        other.put_draft("", "y", yours)
        one.put_draft("", "my", mine)
        assert other.draft() == one.draft() == Draft("my", mine)
        other.put_draft("", "yours", yours)
        assert one.draft() == Draft("yours", yours)


def test_a_draft_that_makes_no_sense(history: History) -> None:
    history.put_draft("", "t", (Attachment(name="a", text="b"),))
    history._db.execute("UPDATE draft_files SET files = '[1]'")
    with pytest.raises(HistoryError, match=r"draft in .* is damaged"):
        history.draft()


# --------------------------------------------------------------------------------------------- encryption


def test_an_encrypted_file_needs_its_key(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "h.sqlite"
    conversation = said(Conversation(), "hello", "hi")
    with History(path, KEY) as history:
        history.save(conversation)
        assert history.encrypted
        assert not history.in_memory
    whole = path.read_bytes()
    with pytest.raises(HistoryError, match="either the key is another file's, or the file is damaged"):
        History(path, OTHER_KEY)
    with pytest.raises(HistoryError, match="is encrypted, or not a database"):
        History(path)
    assert path.read_bytes() == whole
    assert database.opens(path, KEY)
    assert not database.opens(path, OTHER_KEY)
    with History(path, KEY) as history:
        assert history.load(conversation.id) == conversation
    assert capfd.readouterr() == ("", "")


def test_a_damaged_encrypted_file(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path, KEY) as history:
        history.save(said(Conversation(id="c"), *["long text " * 200] * 50))
        assert history.check() == "ok"
    whole = bytearray(path.read_bytes())
    whole[-4096 * 8 + 100] ^= 1
    path.write_bytes(whole)
    with History(path, KEY) as history:
        assert "HMAC" in history.check()
    whole[100] ^= 1
    path.write_bytes(whole)
    with pytest.raises(HistoryError, match="or the file is damaged"):
        History(path, KEY)
    assert path.read_bytes() == whole


def test_a_newer_schema_under_a_key(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    for key in (None, KEY):
        with History(path, key) as history:
            history._db.execute("PRAGMA user_version = 99")
        with pytest.raises(HistoryError, match="newer version"):
            History(path, KEY)
        assert database.is_plain(path) is (key is None)
        path.unlink()


def test_rekey(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    conversation = said(Conversation(), *["text " * 500] * 40)
    with History(path, KEY) as history:
        history.save(conversation)
        history.rekey(OTHER_KEY)
        history.rename(conversation.id, "still open")
        assert history.check() == "ok"
    assert not database.opens(path, KEY)
    with History(path, OTHER_KEY) as history:
        assert history.load(conversation.id).title == "still open"
    with History(memory=True) as history, pytest.raises(HistoryError, match="not encrypted"):
        history.rekey(KEY)


def test_rekey_while_another_window_is_open(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    with History(path, KEY) as history:
        history.save(said(Conversation(), "x"))
        history._db.execute("PRAGMA busy_timeout = 10")
        with History(path, KEY) as other:
            assert other.count() == (1, 1)
            with pytest.raises(HistoryError, match="open in another window"):
                history.rekey(OTHER_KEY)
            other.save(said(Conversation(), "y"))
        assert history.count() == (2, 2)
        assert history._db.tuples("PRAGMA journal_mode") == [("wal",)]
        history.rekey(OTHER_KEY)
    with History(path, OTHER_KEY) as history:
        assert history.count() == (2, 2)


def test_in_memory_nothing_touches_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    with History(memory=True) as history:
        conversation = said(Conversation(), *["text " * 5000] * 40)
        history.save(conversation)
        history.delete(conversation.id)
        history.save(conversation)
        assert history.load(conversation.id) == conversation
        assert len(history.search("text")) == 40
        assert (history.in_memory, history.encrypted) == (True, False)
    assert [*tmp_path.iterdir()] == []


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    with History(folder / "h.sqlite", KEY) as history:
        history.save(said(Conversation(), "x"))
    whole = (folder / "h.sqlite").read_bytes()
    folder.chmod(0o500)
    try:
        with pytest.raises(HistoryError, match=r"h\.sqlite cannot be"):
            History(folder / "h.sqlite", KEY).save(said(Conversation(), "y"))
    finally:
        folder.chmod(0o700)
    assert (folder / "h.sqlite").read_bytes() == whole


def test_a_log_that_cannot_be_made(tmp_path: Path) -> None:
    """As in a folder that is read-only, but also for an administrator."""
    path = tmp_path / "h.sqlite"
    with History(path, KEY) as history:
        history.save(said(Conversation(), "x"))
    path.with_name("h.sqlite-wal").mkdir()
    with pytest.raises(HistoryError, match=r"h\.sqlite cannot be"):
        History(path, KEY)


# --------------------------------------------------------------------------- a plain file becomes encrypted


def first_version(path: Path) -> Conversation:
    """A plain file as the first version of this program wrote it."""
    conversation = said(Conversation(title="old"), "the canary sings", "yes " * 3000)
    old = sqlite3.connect(path, isolation_level=None)
    for statement in database.statements(database.migrations()[0].read_text("utf-8")):
        old.execute(statement)
    old.execute("PRAGMA user_version = 1")
    old.execute(f"PRAGMA application_id = {database.APPLICATION_ID}")
    old.execute("PRAGMA journal_mode = WAL")
    rows = {"conversations": [conversation], "messages": conversation.branch()}
    old.execute("BEGIN")
    for table, things in rows.items():
        names = [row[1] for row in old.execute(f"PRAGMA table_info({table})")]
        for thing in things:
            row = {n: getattr(thing, n) for n in names if hasattr(thing, n)}
            if table == "messages":
                row["conversation"] = conversation.id
            marks = ", ".join("?" for _ in row)
            old.execute(f"INSERT INTO {table} ({', '.join(row)}) VALUES ({marks})", [*row.values()])
    old.execute("COMMIT")
    old.close()
    return conversation


def test_an_old_plain_file_is_encrypted(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    conversation = first_version(path)
    with path.open("rb") as plain:
        with History(path, KEY) as history:
            assert history.load(conversation.id) == conversation
            assert history.summaries()[0].message_count == 2
            assert len(history.search("canary")) == 1
            assert history.check() == "ok"
        # The old bytes, which no name leads to any more.
        assert plain.read().strip(b"\0") == b""
    assert [file.name for file in tmp_path.iterdir()] == ["h.sqlite"]
    assert b"canary" not in path.read_bytes()
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_an_old_plain_file_may_stay_plain(tmp_path: Path) -> None:
    conversation = first_version(tmp_path / "h.sqlite")
    with History(tmp_path / "h.sqlite") as history:
        assert history.load(conversation.id) == conversation
        assert len(history.search("canary")) == 1


CONVERT = """
import os, signal, sys
from pathlib import Path
from localai.history import History

left = int(sys.argv[2])
def watch(event, _):
    global left
    if event in ("open", "os.remove", "os.rename", "os.link", "sqlite3.connect"):
        left -= 1
        if left < 0:
            os.kill(os.getpid(), signal.SIGKILL)
sys.addaudithook(watch)
History(Path(sys.argv[1]), b"k" * 32).close()
"""


def test_a_kill_during_the_conversion_loses_nothing(tmp_path: Path) -> None:
    """Killed before each step that the conversion takes on the disk."""
    original = tmp_path / "original.sqlite"
    conversation = first_version(original)
    for steps in range(60):
        folder = tmp_path / str(steps)
        folder.mkdir()
        path = folder / "h.sqlite"
        path.write_bytes(original.read_bytes())
        killed = subprocess.run([sys.executable, "-c", CONVERT, path, str(steps)], check=False).returncode
        with History(path, KEY) as history:
            assert history.load(conversation.id) == conversation
        assert [file.name for file in folder.iterdir()] == ["h.sqlite"]
        assert not database.is_plain(path)
        if killed == 0:
            break
        assert killed == -signal.SIGKILL
    assert steps > 8


def test_what_a_crash_left_of_the_plain_file_is_overwritten(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    History(path, KEY).close()
    left = convert.plain_path(path)
    left.write_bytes(b"the canary sings")
    with left.open("rb") as plain:
        History(path, KEY).close()
        assert plain.read() == bytes(16)
    assert not left.exists()


def test_a_plain_file_in_use_is_not_converted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(database, "BUSY_TIMEOUT_S", 0.01)
    path = tmp_path / "h.sqlite"
    conversation = said(Conversation(), "x")
    with History(path) as plain:
        plain.save(conversation)
        with pytest.raises(HistoryError, match="in use by another program"):
            History(path, KEY)
        assert plain.load(conversation.id) == conversation
    with History(path, KEY) as history:
        assert history.load(conversation.id) == conversation
        assert len(history.search("x")) == 1
        assert history.check() == "ok"


def test_a_damaged_plain_file_is_not_converted(tmp_path: Path) -> None:
    path = tmp_path / "h.sqlite"
    first_version(path)
    whole = path.read_bytes()
    path.write_bytes(whole[:8192] + b"\xff" * (len(whole) - 8192))
    with pytest.raises(HistoryError, match="damaged"):
        History(path, KEY)
    assert database.is_plain(path)
    assert path.read_bytes()[8192:].strip(b"\xff") == b""


def test_a_copy_that_is_not_right_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "h.sqlite"
    conversation = first_version(path)
    real = database.connect

    def spoiled(path: Path, key: bytes | None, **more: bool) -> object:
        if path == convert.copy_path(tmp_path / "h.sqlite"):
            whole = bytearray(path.read_bytes())
            whole[-100] ^= 1
            path.write_bytes(whole)
        return real(path, key, **more)

    monkeypatch.setattr(database, "connect", spoiled)
    with pytest.raises(HistoryError, match="could not be encrypted"):
        History(path, KEY)
    monkeypatch.undo()
    assert [file.name for file in tmp_path.iterdir()] == ["h.sqlite"]
    assert database.is_plain(path)
    with History(path, KEY) as history:
        assert history.load(conversation.id) == conversation
