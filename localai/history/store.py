"""The store of conversations: one file, and what is read from it and written to it.

An organization's policy binds here, whoever opens the file: it may want no plain one, nothing kept, or
nothing that is older than so many days.

Contract: what a method has written when it returns survives a kill of the process at any later moment, and
each method is one short transaction, so two programs may use the same file. Deleted text is overwritten. With
a key the file is encrypted; a plain file that is opened with a key is encrypted first. Every error is a
`HistoryError` (or `NoSpace`) that names the file and says what to do: see `localai.history.database`; or a
PolicyError.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final, Literal, Self

import msgspec

from localai.chat.conversation import Attachment, Conversation, Message
from localai.errors import HistoryError
from localai.history import convert, managed, search
from localai.history.database import DAMAGED, MEMORY, Database
from localai.history.search import Hit
from localai.history.values import as_json
from localai.paths import history_path

Kept = Literal["encrypted", "plain", "memory"]
"""How conversations are kept."""
DAY_S: Final = 86_400
SEARCHED_LETTERS: Final = 20_000
"""Of an attachment, so much of its beginning is searched."""

_CONVERSATION_FIELDS: Final = tuple(
    f.name for f in msgspec.structs.fields(Conversation) if f.name != "messages"
)
_MESSAGE_FIELDS: Final = tuple(f.name for f in msgspec.structs.fields(Message))


def _upsert(table: str, fields: Sequence[str], key: str = "id") -> str:
    """The statement that writes all `fields`, given by name, over the row of the same key."""
    names = ", ".join(fields)
    values = ", ".join(f":{f}" for f in fields)
    changes = ", ".join(f"{f} = excluded.{f}" for f in fields if f != key)
    return f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT ({key}) DO UPDATE SET {changes}"


_PUT_CONVERSATION: Final = _upsert("conversations", _CONVERSATION_FIELDS)
_PUT_MESSAGE: Final = _upsert("messages", (*_MESSAGE_FIELDS, "conversation", "attached"))
_PUT_PRESET: Final = _upsert("presets", ("name", "system", "settings"), "name")
_PUT_DRAFT: Final = _upsert("drafts", ("conversation", "text"), "conversation")
_PUT_DRAFT_FILES: Final = _upsert("draft_files", ("conversation", "files", "digest"), "conversation")
_PUT_SETTING: Final = _upsert("settings", ("name", "value"), "name")
_KEEP: Final = "UPDATE conversations SET kept_from = max(kept_from, ?) WHERE id = ?"
_GET_CONVERSATION: Final = f"SELECT {', '.join(_CONVERSATION_FIELDS)} FROM conversations WHERE id = ?"
_GET_MESSAGES: Final = (
    f"SELECT {', '.join(_MESSAGE_FIELDS)} FROM messages WHERE conversation = ? ORDER BY seq"
)


class Summary(msgspec.Struct, frozen=True):
    """One line of the list of conversations."""

    id: str
    title: str
    model: str
    updated: float
    """Seconds since the epoch."""
    message_count: int
    """All messages of the tree, not only those of the shown branch."""
    pinned: bool = False


class Preset(msgspec.Struct, frozen=True):
    """A way to begin a conversation that the user has given a name."""

    name: str
    system: str = ""
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    """As `Conversation.settings`."""


class Draft(msgspec.Struct, frozen=True):
    """What was being written and is not sent."""

    text: str = ""
    attachments: tuple[Attachment, ...] = ()


class History:
    """The conversations in one file. To be used from the thread that made it."""

    def __init__(self, path: Path | None = None, key: bytes | None = None, *, memory: bool = False) -> None:
        """Open or create the file, by default the user's; bring an older schema up to date.

        `key`: 32 bytes; None: the file is plain. `memory`: all is in memory only, nothing touches the disk.
        What the organization lets nobody keep any longer is deleted; `outlived` has its identifiers.
        """
        self.path = MEMORY if memory else path or history_path()
        self.in_memory = memory
        self.encrypted = key is not None and not memory
        if key is None and not memory:
            managed.check_plain(self.path)
        if key is not None and not memory:
            convert.encrypt(self.path, key)
        self._db = Database(self.path, key)
        self.outlived = [] if memory else managed.delete_outlived(self._db)
        self._draft_files: tuple[tuple[Attachment, ...], str] = ((), "")
        """What was stored last with a draft, and its digest: it may be large, and seldom changes."""

    # -------------------------------------------------------------------------------------- conversations

    def summaries(self, limit: int | None = None) -> list[Summary]:
        """The conversations that have a message: the pinned first, of each kind the latest first.

        `limit`: so many at most; the first of many thousands are read at once, all of them take a while.
        """
        with self._db.errors():
            rows = self._db.tuples(
                "SELECT id, title, model, updated, message_count, pinned FROM conversations"
                " WHERE message_count > 0 ORDER BY pinned DESC, updated DESC, rowid DESC LIMIT ?",
                (-1 if limit is None else limit,),
            )
        return [Summary(a, b, c, d, n, bool(pinned)) for a, b, c, d, n, pinned in rows]

    def count(self) -> tuple[int, int]:
        """How many conversations and messages are stored."""
        with self._db.errors():
            conversations, messages = self._db.tuples(
                "SELECT count(*), coalesce(sum(message_count), 0) FROM conversations"
            )[0]
        return conversations, messages

    def load(self, conversation_id: str) -> Conversation:
        """The conversation and all its messages, in the order they were stored.

        A reply that a crash left "streaming" is "stopped" from now on.
        """
        with self._db.reading():
            row = self._db.execute(_GET_CONVERSATION, (conversation_id,)).fetchone()
            found = self._db.execute(_GET_MESSAGES, (conversation_id,)).fetchall()
        if row is None:
            raise HistoryError(f"There is no conversation {conversation_id} in {self.path}")
        cut_off = [message for message in found if message["state"] == "streaming"]
        if cut_off:
            self._stop(conversation_id)
            for message in cut_off:
                message["state"] = "stopped"
        return self._conversation(row, found)

    def save(self, conversation: Conversation, *, kept_from: float = 0.0) -> None:
        """Store the conversation's row and all its messages, all or nothing.

        A conversation without a message is not stored. `kept_from`: when an old one was brought here, in
        seconds since the epoch; see `expired`.
        """
        if not conversation.messages:
            return
        self._check_keeping()
        row = {f: getattr(conversation, f) for f in _CONVERSATION_FIELDS}
        row["settings"] = as_json(conversation.settings)
        with self._db.transaction():
            self._db.execute(_PUT_CONVERSATION, row)
            for message in conversation.messages.values():
                self._db.execute(_PUT_MESSAGE, self._row(conversation.id, message))
            if kept_from:
                self._db.execute(_KEEP, (kept_from, conversation.id))

    def put(self, conversation_id: str, message: Message) -> None:
        """Store one message, new or changed, as the head of a stored conversation."""
        self._check_keeping()
        with self._db.transaction():
            self._db.execute(_PUT_MESSAGE, self._row(conversation_id, message))
            self._db.execute(
                "UPDATE conversations SET head = ?, updated = max(updated, ?) WHERE id = ?",
                (message.id, message.created, conversation_id),
            )

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title."""
        self._write("UPDATE conversations SET title = ? WHERE id = ?", (title, conversation_id))

    def pin(self, conversation_id: str, pinned: bool, now: float | None = None) -> None:
        """Keep a conversation above the others, or no longer. `now`: seconds since the epoch."""
        with self._db.transaction():
            self._db.execute(
                "UPDATE conversations SET pinned = ? WHERE id = ?", (int(pinned), conversation_id)
            )
            if not pinned:
                self._db.execute(_KEEP, (time.time() if now is None else now, conversation_id))

    def set_head(self, conversation_id: str, head: str | None) -> None:
        """Which branch is shown: the one that ends in the message `head`."""
        self._write("UPDATE conversations SET head = ? WHERE id = ?", (head, conversation_id))

    def save_settings(self, conversation_id: str, system: str, settings: dict[str, Any]) -> None:
        """Give a conversation another system prompt and other settings."""
        self._check_keeping()
        self._write(
            "UPDATE conversations SET system = ?, settings = ? WHERE id = ?",
            (system, as_json(settings), conversation_id),
        )

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation and all its messages; nothing happens if it is not there."""
        self._write("DELETE FROM conversations WHERE id = ?", (conversation_id,))
        self._flush()

    def expired(self, days: float, now: float) -> list[str]:
        """What was not changed in the `days` before `now` (seconds since the epoch).

        Neither the pinned, nor what was imported, brought back or unpinned in these days.
        """
        with self._db.errors():
            rows = self._db.tuples(
                "SELECT id FROM conversations WHERE pinned = 0 AND updated < :then AND kept_from < :then",
                {"then": now - days * DAY_S},
            )
        return [conversation_id for (conversation_id,) in rows]

    def has_any(self, message_ids: Sequence[str]) -> bool:
        """Whether a message of one of these identifiers is stored."""
        some = as_json(message_ids)
        with self._db.errors():
            return bool(
                self._db.tuples(
                    "SELECT 1 FROM messages WHERE id IN (SELECT value FROM json_each(?)) LIMIT 1", (some,)
                )
            )

    def search(self, query: str, limit: int = 50) -> list[Hit]:
        """The messages that have all words of `query`: see `localai.history.search`."""
        with self._db.reading():
            return search.search(self._db, query, limit)

    # ------------------------------------------------------------------------------- drafts and settings

    def draft(self, conversation_id: str = "") -> Draft:
        """What was written and not sent in a conversation, or before there was one."""
        with self._db.errors():
            rows = self._db.tuples(
                "SELECT text, files FROM drafts LEFT JOIN draft_files USING (conversation)"
                " WHERE conversation = ?",
                (conversation_id,),
            )
        if not rows:
            return Draft()
        text, files = rows[0]
        try:
            return Draft(text, _attachments(files or "[]"))
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise self._senseless("draft", error) from error

    def put_draft(self, conversation_id: str, text: str, attachments: tuple[Attachment, ...] = ()) -> None:
        """Store what is written; without text and attachments, delete it."""
        key = {"conversation": conversation_id}
        if text or attachments:
            self._check_keeping()
        with self._db.transaction():
            if not text and not attachments:
                self._db.execute("DELETE FROM drafts WHERE conversation = :conversation", key)
                return
            self._db.execute(_PUT_DRAFT, key | {"text": text})
            if not attachments:
                self._db.execute("DELETE FROM draft_files WHERE conversation = :conversation", key)
            elif not self._has_draft_files(conversation_id, attachments):
                files = as_json(attachments)
                digest = hashlib.sha256(files.encode()).hexdigest()
                self._db.execute(_PUT_DRAFT_FILES, key | {"files": files, "digest": digest})
                self._draft_files = (attachments, digest)

    def _has_draft_files(self, conversation_id: str, attachments: tuple[Attachment, ...]) -> bool:
        """Whether these are stored: another window may have stored its own meanwhile, or deleted them."""
        stored, digest = self._draft_files
        found = "SELECT 1 FROM draft_files WHERE conversation = ? AND digest = ?"
        return stored == attachments and bool(self._db.tuples(found, (conversation_id, digest)))

    def presets(self) -> list[Preset]:
        """All presets, by name."""
        with self._db.errors():
            rows = self._db.execute("SELECT name, system, settings FROM presets ORDER BY name").fetchall()
        try:
            return [Preset(r["name"], r["system"], _settings(r["settings"])) for r in rows]
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise self._senseless("preset", error) from error

    def save_preset(self, preset: Preset) -> None:
        """Store a preset, over the one of the same name."""
        self._check_keeping()
        self._write(_PUT_PRESET, msgspec.structs.asdict(preset) | {"settings": as_json(preset.settings)})

    def delete_preset(self, name: str) -> None:
        """Delete a preset; nothing happens if it is not there."""
        self._write("DELETE FROM presets WHERE name = ?", (name,))

    def setting(self, name: str) -> str | None:
        """A value that was stored under that name."""
        return self._value("SELECT value FROM settings WHERE name = ?", name)

    def set_setting(self, name: str, value: str | None) -> None:
        """Store a value under a name; None deletes it."""
        if value is None:
            self._write("DELETE FROM settings WHERE name = ?", (name,))
        else:
            self._write(_PUT_SETTING, {"name": name, "value": value})

    # ------------------------------------------------------------------------------------------- the file

    def check(self) -> str:
        """The word ok, or what is wrong with the file."""
        return self._db.check()

    def rekey(self, key: bytes) -> None:
        """Encrypt the file with another key (32 bytes), all or nothing. Others must have closed it."""
        if not self.encrypted:
            raise HistoryError(f"{self.path} is not encrypted, so its key cannot be changed")
        self._db.rekey(key)

    @property
    def kept(self) -> Kept:
        """How what it holds is kept."""
        if self.in_memory:
            return "memory"
        return "encrypted" if self.encrypted else "plain"

    @property
    def key(self) -> bytes | None:
        """What the file is encrypted with; None: it is not."""
        return self._db.key

    def close(self) -> None:
        """Close the file; a closed store can no longer be used."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # ----------------------------------------------------------------------------------------------- rows

    def _check_keeping(self) -> None:
        if not self.in_memory:
            managed.check_keeping()

    def _write(self, statement: str, values: Sequence[Any] | dict[str, Any]) -> int:
        """One statement; how many rows it changed."""
        with self._db.transaction():
            return int(self._db.execute(statement, values).rowcount)

    def _flush(self) -> None:
        """The log still has what was deleted; another program that reads right now may keep it there."""
        with self._db.errors():
            self._db.flush()

    def _value(self, statement: str, name: str) -> str | None:
        with self._db.errors():
            rows = self._db.tuples(statement, (name,))
        return str(rows[0][0]) if rows else None

    def _stop(self, conversation_id: str) -> None:
        self._write(
            "UPDATE messages SET state = 'stopped' WHERE conversation = ? AND state = 'streaming'",
            (conversation_id,),
        )

    def _row(self, conversation_id: str, message: Message) -> dict[str, Any]:
        row = {f: getattr(message, f) for f in _MESSAGE_FIELDS}
        row["attachments"] = as_json(message.attachments)
        attached = (f"{file.name}\n{file.text[:SEARCHED_LETTERS]}" for file in message.attachments)
        return row | {"conversation": conversation_id, "attached": "\n".join(attached)}

    def _conversation(self, row: dict[str, Any], found: list[dict[str, Any]]) -> Conversation:
        try:
            for message in found:
                message["attachments"] = _attachments(message["attachments"])
            row["pinned"] = bool(row["pinned"])
            row["settings"] = _settings(row["settings"])
            messages = {m["id"]: msgspec.convert(m, Message) for m in found}
            return msgspec.convert(row | {"messages": messages}, Conversation)
        except (msgspec.DecodeError, msgspec.ValidationError) as error:
            raise self._senseless("conversation", error) from error

    def _senseless(self, what: str, error: Exception) -> HistoryError:
        return HistoryError(f"A {what} in {self.path} is damaged ({error})", DAMAGED)


def _attachments(text: str) -> tuple[Attachment, ...]:
    return msgspec.json.decode(text, type=tuple[Attachment, ...])


def _settings(text: str) -> dict[str, Any]:
    return msgspec.json.decode(text, type=dict[str, Any])
