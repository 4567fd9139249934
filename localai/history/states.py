"""The engine's states of conversations, kept over a restart.

Contract: the same as `localai.engine.states.StateCache`, in one file that is encrypted with the key of the
conversations. It is a cache: what is damaged, foreign or under another key is dropped and made anew, and
where nothing can be written nothing is kept; no method raises for the file. It may be used from any thread,
and two programs may use the same file.
"""

from __future__ import annotations

import contextlib
import shutil
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final, TypeVar

from sqlcipher3 import dbapi2 as sqlite

from localai.engine.states import MAX_CACHE_BYTES, State
from localai.errors import HistoryError
from localai.history import database, managed
from localai.paths import data_dir

_T = TypeVar("_T")

DISK_SHARE: Final = 10
"""States may take one part in so many of the disk space that is free."""
_APPLICATION_ID: Final = 0x4C414353
"""SQLite's `application_id` of our files, "LACS"."""
_VERSION: Final = 1
_PASSING: Final = {
    sqlite.SQLITE_BUSY,
    sqlite.SQLITE_LOCKED,
    sqlite.SQLITE_FULL,
    sqlite.SQLITE_READONLY,
    sqlite.SQLITE_CONSTRAINT,
}
"""Errors that say nothing about the file; the last: another program has dropped what is being written."""

# A state that is only partly written has `whole = 0`. Part by part, each in a transaction of its own, the log
# stays short and other programs wait for no more than one.
_SCHEMA: Final = """
CREATE TABLE states (
    id INTEGER PRIMARY KEY, conversation TEXT NOT NULL, fingerprint TEXT NOT NULL,
    size INTEGER NOT NULL, used INTEGER NOT NULL, whole INTEGER NOT NULL
);
CREATE TABLE parts (
    state INTEGER NOT NULL REFERENCES states(id) ON DELETE CASCADE,
    number INTEGER NOT NULL, data BLOB NOT NULL, UNIQUE (state, number)
);
"""
_LAST: Final = "(SELECT coalesce(max(used), 0) FROM states)"
# What a power cut takes of a cache is no loss, so nothing waits for the disk.
_SETTINGS: Final = (
    "journal_mode = WAL",
    "synchronous = OFF",
    "foreign_keys = ON",
    "temp_store = MEMORY",
)


def states_path() -> Path:
    """The user's file of states."""
    return data_dir() / "states.sqlite"


def forget(key: bytes | None, names: Sequence[str]) -> None:
    """Forget the states of these conversations, if any states are kept. `key` as in `StateStore`."""
    if names and states_path().exists():
        states = StateStore(key)
        for name in names:
            states.discard(name)
        states.close()


class StateStore:
    """States in a file, by conversation and fingerprint; what was not used for longest goes first."""

    def __init__(self, key: bytes | None, path: Path | None = None, limit: int | None = None) -> None:
        """`key`: of the conversations; None: they are plain, and so is this.

        `limit` in bytes; None: a tenth of the disk space that is free or taken by states, at most 2 GiB.
        """
        self.path = path or states_path()
        self._key = key
        self._lock = threading.RLock()
        self._raw: Any = None
        self._open()
        self.limit = self._default_limit() if limit is None else limit
        self._try(self._evict, None)

    @property
    def bytes(self) -> int:
        """What all states together occupy."""
        return self._try(lambda: int(self._rows("SELECT coalesce(sum(size), 0) FROM states")[0][0]), 0)

    def size(self) -> int:
        """What all states together occupy, in bytes."""
        return self.bytes

    def put(self, key: str, state: State) -> None:
        """Keep `state` for the conversation `key`; one that is larger than the limit is not kept."""
        if state.size <= self.limit and managed.is_state_kept(self._key):
            self._try(lambda: self._put(key, state), None)

    def get(self, key: str, fingerprint: str | None = None) -> State | None:
        """The state of a conversation for a model; without `fingerprint`, the last used for any."""
        return self._try(lambda: self._get(key, fingerprint), None)

    def discard(self, key: str) -> None:
        """Forget the states of a conversation."""
        self._try(lambda: self._delete("conversation = ?", key), None)

    def clear(self) -> None:
        """Forget all."""
        self._try(lambda: self._delete("TRUE"), None)

    def close(self) -> None:
        """Close the file; from then on nothing is kept or found."""
        with self._lock, contextlib.suppress(sqlite.Error):
            raw, self._raw = self._raw, None
            if raw is not None:
                raw.close()

    # ------------------------------------------------------------------------------------------- the limit

    def _default_limit(self) -> int:
        try:
            free = shutil.disk_usage(self.path.parent).free + self.bytes
        except OSError:
            return 0
        return min(MAX_CACHE_BYTES, free // DISK_SHARE)

    def _evict(self, coming: int = 0) -> None:
        """Make room for `coming` bytes."""
        room = self.limit - coming
        for number, size in self._rows("SELECT id, size FROM states ORDER BY used DESC"):
            room -= size
            if room < 0:
                self._do("DELETE FROM states WHERE id = ?", (number,))

    # ------------------------------------------------------------------------------------------ statements

    def _put(self, key: str, state: State) -> None:
        about = (key, state.fingerprint)
        self._do("DELETE FROM states WHERE conversation = ? AND fingerprint = ?", about)
        self._evict(state.size)
        number = self._raw.execute(
            "INSERT INTO states (conversation, fingerprint, size, used, whole)"
            f" VALUES (?, ?, ?, {_LAST} + 1, 0)",
            (*about, state.size),
        ).lastrowid
        for index, piece in enumerate(state.pieces()):
            self._do("INSERT INTO parts VALUES (?, ?, ?)", (number, index, piece))
        self._do("UPDATE states SET whole = 1 WHERE id = ?", (number,))
        self._shrink()

    def _get(self, key: str, fingerprint: str | None) -> State | None:
        found = self._rows(
            "SELECT id, fingerprint, size FROM states WHERE whole AND conversation = ?1"
            " AND (?2 IS NULL OR fingerprint = ?2) ORDER BY used DESC LIMIT 1",
            (key, fingerprint),
        )
        if not found:
            return None
        number, kept_for, size = found[0]
        rows = self._rows("SELECT data FROM parts WHERE state = ? ORDER BY number", (number,))
        state = State(kept_for, [data for (data,) in rows])
        if state.size != size:
            self._do("DELETE FROM states WHERE id = ?", (number,))
            return None
        self._do(f"UPDATE states SET used = {_LAST} + 1 WHERE id = ?", (number,))
        return state

    def _delete(self, which: str, *values: str) -> None:
        self._do(f"DELETE FROM states WHERE {which}", values)
        self._shrink()

    def _shrink(self) -> None:
        """Give the space of what was deleted back to the disk."""
        self._do("PRAGMA incremental_vacuum")
        self._do("PRAGMA wal_checkpoint(TRUNCATE)")

    def _rows(self, statement: str, values: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        return database.tuples(self._raw, statement, values)

    def _do(self, statement: str, values: tuple[Any, ...] = ()) -> None:
        self._raw.execute(statement, values).fetchall()

    # -------------------------------------------------------------------------------------------- the file

    def _open(self) -> None:
        with self._lock:
            for _ in range(2):
                try:
                    self._raw = self._opened()
                    return
                except (sqlite.Error, HistoryError, OSError) as error:
                    self.close()
                    if not self._is_bad(error) or not self._drop():
                        return

    def _opened(self) -> Any:
        database.create_private(self.path)
        raw = database.connect(self.path, self._key, any_thread=True)
        try:
            tables = database.tuples(raw, "SELECT count(*) FROM sqlite_master")[0][0]
            about = [database.tuples(raw, f"PRAGMA {n}")[0][0] for n in ("application_id", "user_version")]
            if tables and about != [_APPLICATION_ID, _VERSION]:
                raise HistoryError(f"{self.path} has no states of this version")
            if not tables:
                raw.execute("PRAGMA auto_vacuum = INCREMENTAL")
            # What is encrypted need not be overwritten as well: a state has hundreds of megabytes.
            for setting in (*_SETTINGS, f"secure_delete = {'OFF' if self._key else 'ON'}"):
                raw.execute(f"PRAGMA {setting}").fetchall()
            raw.execute("BEGIN IMMEDIATE")
            if not database.tuples(raw, "SELECT count(*) FROM sqlite_master")[0][0]:
                for statement in database.statements(_SCHEMA):
                    raw.execute(statement)
                raw.execute(f"PRAGMA application_id = {_APPLICATION_ID}")
                raw.execute(f"PRAGMA user_version = {_VERSION}")
            # What a crash left; if another program is writing it right now, its state is lost, no more.
            raw.execute("DELETE FROM states WHERE NOT whole")
            raw.execute("COMMIT")
        except BaseException:
            raw.close()
            raise
        return raw

    def _is_bad(self, error: Exception) -> bool:
        """Whether the error says that the file itself is no good."""
        if isinstance(error, OSError):
            return False
        return getattr(error, "sqlite_errorcode", 0) & 0xFF not in _PASSING

    def _drop(self) -> bool:
        try:
            for end in ("", "-wal", "-shm"):
                self.path.with_name(self.path.name + end).unlink(missing_ok=True)
        except OSError:
            return False
        return True

    def _try(self, task: Callable[[], _T], otherwise: _T) -> _T:
        """What the task gives, or `otherwise` if it fails; a file that is no good is made anew."""
        with self._lock:
            if self._raw is None:
                return otherwise
            try:
                return task()
            except sqlite.Error as error:
                if not self._is_bad(error):
                    with contextlib.suppress(sqlite.Error):
                        self._do("DELETE FROM states WHERE NOT whole")
                    return otherwise
                self.close()
                if self._drop():
                    self._open()
                return otherwise
