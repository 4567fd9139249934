"""The store of conversations: one SQLite file, and the only place with SQL.

Contract: what a method has written when it returns survives a kill of the process at any later moment (WAL,
one transaction for each method). Two programs may use the same file. Deleted text is overwritten
(`secure_delete`). A file that is damaged or foreign is refused and left as it is, never deleted or repaired.
Every error is a `HistoryError` (or `NoSpace`) that names the file and says what to do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final, Self

import msgspec

from localai.chat.conversation import Conversation, Message
from localai.errors import HistoryError, LocalAIError, NoSpace
from localai.paths import history_path, private_dir

APPLICATION_ID: Final = 0x4C414348
"""SQLite's `application_id` of our files, "LACH"."""

BUSY_TIMEOUT_S: Final = 3.0
"""How long a write waits for another program before it fails."""

# One tuple of statements for each version; PRAGMA user_version counts those that a file has seen.
# `head` and `parent` are checked at commit (deferred), so rows may come in any order. `parent` does not
# cascade: a conversation's messages all go at once, and a chain of cascades would hit SQLite's depth limit.
MIGRATIONS: Final[tuple[tuple[str, ...], ...]] = (
    (
        """
        CREATE TABLE conversations (
            id TEXT PRIMARY KEY,
            title TEXT NOT NULL,
            system TEXT NOT NULL,
            model TEXT NOT NULL,
            created REAL NOT NULL,
            updated REAL NOT NULL,
            head TEXT REFERENCES messages(id) DEFERRABLE INITIALLY DEFERRED
        )
        """,
        """
        CREATE TABLE messages (
            seq INTEGER PRIMARY KEY,
            id TEXT NOT NULL UNIQUE,
            conversation TEXT NOT NULL REFERENCES conversations(id) ON DELETE CASCADE,
            parent TEXT REFERENCES messages(id) DEFERRABLE INITIALLY DEFERRED,
            role TEXT NOT NULL,
            content TEXT NOT NULL,
            thinking TEXT NOT NULL,
            state TEXT NOT NULL,
            created REAL NOT NULL,
            model TEXT NOT NULL,
            finish_reason TEXT NOT NULL,
            thinking_s REAL NOT NULL,
            thinking_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL,
            prompt_tokens INTEGER NOT NULL,
            tokens_per_s REAL NOT NULL
        )
        """,
        "CREATE INDEX messages_of ON messages (conversation, seq)",
        "CREATE INDEX messages_below ON messages (parent)",
        "CREATE INDEX conversations_by_time ON conversations (updated)",
    ),
)

_CONVERSATION_FIELDS: Final = ("id", "title", "system", "model", "created", "updated", "head")
_MESSAGE_FIELDS: Final = tuple(f.name for f in msgspec.structs.fields(Message))


def _upsert(table: str, fields: tuple[str, ...]) -> str:
    """The statement that writes all `fields`, given by name, over the row of the same id."""
    names = ", ".join(fields)
    values = ", ".join(f":{f}" for f in fields)
    changes = ", ".join(f"{f} = excluded.{f}" for f in fields if f != "id")
    return f"INSERT INTO {table} ({names}) VALUES ({values}) ON CONFLICT (id) DO UPDATE SET {changes}"


_PUT_CONVERSATION: Final = _upsert("conversations", _CONVERSATION_FIELDS)
_PUT_MESSAGE: Final = _upsert("messages", (*_MESSAGE_FIELDS, "conversation"))
_SUMMARIES: Final = """
    SELECT c.id, c.title, c.model, c.updated, count(*) AS message_count
    FROM conversations c JOIN messages m ON m.conversation = c.id
    GROUP BY c.id ORDER BY c.updated DESC, max(m.seq) DESC
"""


class Summary(msgspec.Struct, frozen=True):
    """One line of the list of conversations."""

    id: str
    title: str
    model: str
    updated: float
    """Seconds since the epoch."""
    message_count: int
    """All messages of the tree, not only those of the shown branch."""


class History:
    """The conversations in one file. To be used from the thread that made it."""

    def __init__(self, path: Path | None = None) -> None:
        """Open or create the file, by default the user's; bring an older schema up to date."""
        self.path = path or history_path()
        with self._errors():
            _create_private(self.path)
            self._db = sqlite3.connect(self.path, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        try:
            self._open()
        except LocalAIError:
            self._db.close()
            raise

    def summaries(self) -> list[Summary]:
        """All conversations that have a message, the latest first."""
        with self._errors():
            return [Summary(**row) for row in self._db.execute(_SUMMARIES)]

    def load(self, conversation_id: str) -> Conversation:
        """The conversation and all its messages, in the order they were stored.

        A reply that a crash left "streaming" is "stopped" from now on.
        """
        with self._transaction():
            self._db.execute(
                "UPDATE messages SET state = 'stopped' WHERE conversation = ? AND state = 'streaming'",
                (conversation_id,),
            )
            row = self._db.execute("SELECT * FROM conversations WHERE id = ?", (conversation_id,)).fetchone()
            found = self._db.execute(
                f"SELECT {', '.join(_MESSAGE_FIELDS)} FROM messages WHERE conversation = ? ORDER BY seq",
                (conversation_id,),
            ).fetchall()
        if row is None:
            raise HistoryError(f"There is no conversation {conversation_id} in {self.path}")
        return self._conversation(row, found)

    def save(self, conversation: Conversation) -> None:
        """Store the conversation's row and all its messages, all or nothing.

        A conversation without a message is not stored.
        """
        if not conversation.messages:
            return
        with self._transaction():
            row = {f: getattr(conversation, f) for f in _CONVERSATION_FIELDS}
            self._db.execute(_PUT_CONVERSATION, row)
            self._db.executemany(
                _PUT_MESSAGE,
                [self._row(conversation.id, message) for message in conversation.messages.values()],
            )

    def put(self, conversation_id: str, message: Message) -> None:
        """Store one message, new or changed, as the head of a stored conversation."""
        with self._transaction():
            self._db.execute(_PUT_MESSAGE, self._row(conversation_id, message))
            self._db.execute(
                "UPDATE conversations SET head = ?, updated = max(updated, ?) WHERE id = ?",
                (message.id, message.created, conversation_id),
            )

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another title."""
        with self._transaction():
            self._db.execute("UPDATE conversations SET title = ? WHERE id = ?", (title, conversation_id))

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation and all its messages; nothing happens if it is not there."""
        with self._transaction():
            self._db.execute("DELETE FROM conversations WHERE id = ?", (conversation_id,))
        with self._errors():
            # The log still has the text; another program that reads the file right now may keep it there.
            self._db.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def close(self) -> None:
        """Close the file; a closed store can no longer be used."""
        with self._errors():
            self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc: object) -> None:
        self.close()

    # -------------------------------------------------------------------------------------------- opening

    def _open(self) -> None:
        with self._errors():
            self._db.row_factory = _as_dict
            version = self._pragma("user_version")
            self._check_ours(version)
            self._db.execute("PRAGMA journal_mode = WAL")
            for setting in ("synchronous = NORMAL", "foreign_keys = ON", "secure_delete = ON"):
                self._db.execute(f"PRAGMA {setting}")
        if version < len(MIGRATIONS):
            self._migrate()

    def _check_ours(self, version: int) -> None:
        """Refuse another program's database, and one from the future."""
        tables = self._db.execute("SELECT count(*) AS n FROM sqlite_master").fetchone()["n"]
        if tables and self._pragma("application_id") != APPLICATION_ID:
            raise HistoryError(
                f"{self.path} is a database, but not one of conversations",
                "Move the file away; a new one is then made",
            )
        if version > len(MIGRATIONS):
            raise HistoryError(
                f"The conversations in {self.path} were written by a newer version of this program",
                "Use that version; the file is unchanged",
            )

    def _migrate(self) -> None:
        with self._transaction():
            # Read again: another program may have been faster.
            for number in range(self._pragma("user_version"), len(MIGRATIONS)):
                for statement in MIGRATIONS[number]:
                    self._db.execute(statement)
                self._db.execute(f"PRAGMA user_version = {number + 1}")
            self._db.execute(f"PRAGMA application_id = {APPLICATION_ID}")

    def _pragma(self, name: str) -> int:
        return int(self._db.execute(f"PRAGMA {name}").fetchone()[name])

    # ----------------------------------------------------------------------------------------------- rows

    def _row(self, conversation_id: str, message: Message) -> dict[str, Any]:
        return {f: getattr(message, f) for f in _MESSAGE_FIELDS} | {"conversation": conversation_id}

    def _conversation(self, row: dict[str, Any], found: list[dict[str, Any]]) -> Conversation:
        try:
            messages = {m["id"]: msgspec.convert(m, Message) for m in found}
            return msgspec.convert(row | {"messages": messages}, Conversation)
        except msgspec.ValidationError as error:
            raise HistoryError(f"A conversation in {self.path} is damaged ({error})", _DAMAGED) from error

    # --------------------------------------------------------------------------------------------- errors

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[None]:
        with self._errors():
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            finally:
                # After an error, SQLite's own rollback (disk full) included.
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        """Map what sqlite3 and the system raise to our errors."""
        try:
            yield
        except sqlite3.Error as error:
            raise _mapped(error, self.path) from error
        except OSError as error:
            raise HistoryError(f"{self.path} cannot be opened: {error.strerror}", _ACCESS) from error


_LEAST_FREE: Final = 64 * 1024
"""Bytes below which SQLite's errors in reading and writing are taken for a full disk."""
_DAMAGED: Final = "It is left as it is: restore it from a backup, or move it away to start anew"
_ACCESS: Final = "See that the folder exists and that you may write to it"

_BY_CODE: Final[dict[int, tuple[type[LocalAIError], str, str]]] = {
    sqlite3.SQLITE_BUSY: (HistoryError, "{} is in use by another program", "Try again in a moment"),
    sqlite3.SQLITE_LOCKED: (HistoryError, "{} is in use by another program", "Try again in a moment"),
    sqlite3.SQLITE_FULL: (
        NoSpace,
        "The disk is full: {} could not be written",
        "Free some space, then go on",
    ),
    sqlite3.SQLITE_CORRUPT: (HistoryError, "{} is damaged", _DAMAGED),
    sqlite3.SQLITE_NOTADB: (HistoryError, "{} is not a database, or is damaged", _DAMAGED),
    sqlite3.SQLITE_READONLY: (HistoryError, "{} cannot be written", _ACCESS),
    sqlite3.SQLITE_CANTOPEN: (HistoryError, "{} cannot be opened", _ACCESS),
    sqlite3.SQLITE_CONSTRAINT: (
        HistoryError,
        "The conversation is no longer in {}",
        "It was probably deleted in another window",
    ),
}


def _mapped(error: sqlite3.Error, path: Path) -> LocalAIError:
    """Our error for SQLite's; extended codes (such as READONLY_DIRECTORY) count as their primary one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code in _BY_CODE:
        kind, message, hint = _BY_CODE[code]
        return kind(message.format(path), hint)
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < _LEAST_FREE:
            return NoSpace(f"The disk of {path} is full", "Free some space, then go on")
    return HistoryError(f"{path} cannot be used: {error}", "See that it is a plain file on a healthy disk")


def _create_private(path: Path) -> None:
    """Make file and folder readable by the user alone; SQLite gives -wal and -shm the file's mode."""
    private_dir(path.parent)
    os.close(os.open(path, os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o600))
    path.chmod(0o600)


def _as_dict(cursor: sqlite3.Cursor, values: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}
