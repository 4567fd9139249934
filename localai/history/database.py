"""One SQLite file, through SQLCipher: opening, migrations, transactions, and what errors mean.

Contract: with a key the file is encrypted, all of it, with its log; without one it is plain. Nothing but the
file, its -wal and its -shm touches the disk (temporary tables and sorting stay in memory). What a transaction
has written when it ends survives a kill of the process at any later moment: a log that is synced only now and
then (`synchronous = NORMAL`) is enough for that, for what was written is then the system's; only a power cut
can take the last seconds. A file that is damaged, foreign or from the future is refused and left as it is.
Every error is a `HistoryError` (or `NoSpace`) that names the file and says what to do.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from sqlcipher3 import dbapi2 as sqlite

from localai.errors import HistoryError, LocalAIError, NoSpace
from localai.history.values import whole
from localai.paths import private_dir

APPLICATION_ID: Final = 0x4C414348
"""SQLite's `application_id` of our files, "LACH"."""
BUSY_TIMEOUT_S: Final = 3.0
"""How long a write waits for another program before it fails."""
KEY_BYTES: Final = 32
CACHE_KIB: Final = 32 * 1024
"""Pages that are kept decrypted: to decrypt one takes about 10 µs, and a search reads thousands."""
MEMORY: Final = Path(":memory:")
"""The path of a database that is on no disk."""
_PLAIN: Final = b"SQLite format 3\0"

# cipher_memory_security stays off: it locks and wipes every block that SQLite allocates, which made searching
# and loading 30 times as slow, and what is in those blocks is in Python's strings too, which nobody can wipe.
_SETTINGS: Final = (
    "journal_mode = WAL",
    "synchronous = NORMAL",
    "foreign_keys = ON",
    "secure_delete = ON",
    "temp_store = MEMORY",
    f"cache_size = -{CACHE_KIB}",
)


class Database:
    """An open file. To be used from the thread that made it."""

    def __init__(self, path: Path, key: bytes | None = None) -> None:
        """Open or create the file (`MEMORY`: none); bring an older schema up to date."""
        self.path = path
        self.key = None if path == MEMORY else key
        with self.errors():
            fresh = path != MEMORY and is_new(path)
        try:
            self.raw = self._opened()
        except HistoryError:
            if not fresh:
                raise
            # Another program has made the file at the same time, and drawn another salt for it.
            self.raw = self._opened()

    def execute(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> Any:
        """The cursor of one statement, its rows as dicts; raises SQLite's own errors: see `errors`.

        In a text that no UTF-8 can hold, what is wrong is replaced: see `localai.history.values`.
        """
        try:
            return self.raw.execute(statement, values)
        except UnicodeEncodeError:
            return self.raw.execute(statement, whole(values))

    def tuples(self, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
        """All rows of one statement, as tuples: that is several times as quick. Texts as in `execute`."""
        try:
            return tuples(self.raw, statement, values)
        except UnicodeEncodeError:
            return tuples(self.raw, statement, whole(values))

    def pragma(self, name: str) -> int:
        """A setting that is a number."""
        return int(self.tuples(f"PRAGMA {name}")[0][0])

    def flush(self) -> None:
        """Empty the log into the file; another program that reads the file right now may keep it there."""
        self.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()

    def check(self) -> str:
        """The word ok, or what is wrong with the file (also whether it was tampered with)."""
        with self.errors():
            found = self.tuples("PRAGMA cipher_integrity_check") if self.key else []
            found = found or self.tuples("PRAGMA integrity_check")
            found = [row for row in found if row != ("ok",)] or self.tuples("PRAGMA foreign_key_check")
        return str(found[0][0]).partition("\n")[0] if found else "ok"

    def rekey(self, key: bytes) -> None:
        """Encrypt the file with another key, all or nothing. Raises HistoryError if others have it open."""
        try:
            # Who leaves the log's mode must be alone. Others would not be stopped, and lose their file.
            for mode in ("DELETE", "WAL"):
                self.execute(f"PRAGMA journal_mode = {mode}").fetchall()
        except sqlite.OperationalError as error:
            if error.sqlite_errorcode & 0xFF not in (sqlite.SQLITE_BUSY, sqlite.SQLITE_LOCKED):
                raise error_of(error, self.path) from error
            raise HistoryError(
                f"{self.path} is open in another window, so its key cannot be changed",
                "Close all other windows, then try again",
            ) from error
        with self.errors():
            self.execute(f"PRAGMA rekey = {key_literal(key)}")
            self.key = key
            self.flush()

    def close(self) -> None:
        """Close the file."""
        with self.errors():
            self.raw.close()

    @contextlib.contextmanager
    def reading(self) -> Iterator[None]:
        """What is read within is of one moment."""
        with self._between("BEGIN"):
            yield

    @contextlib.contextmanager
    def transaction(self) -> Iterator[None]:
        """What is written within is written all or not at all."""
        with self._between("BEGIN IMMEDIATE"):
            yield

    @contextlib.contextmanager
    def _between(self, begin: str) -> Iterator[None]:
        with self.errors():
            self.execute(begin)
            try:
                yield
                self.execute("COMMIT")
            finally:
                # After an error, SQLite's own rollback (disk full) included.
                if self.raw.in_transaction:
                    self.execute("ROLLBACK")

    @contextlib.contextmanager
    def errors(self) -> Iterator[None]:
        """Map what SQLite and the system raise to our errors."""
        with mapped(self.path, encrypted=self.key is not None):
            yield

    def _opened(self) -> Any:
        with self.errors():
            if self.path != MEMORY:
                create_private(self.path)
            raw = connect(self.path, self.key)
        try:
            with self.errors():
                check_ours(raw, self.path)
                raw.row_factory = _as_dict
                for setting in _SETTINGS:
                    raw.execute(f"PRAGMA {setting}").fetchall()
            if tuples(raw, "PRAGMA user_version")[0][0] < newest_version():
                self.raw = raw
                self._migrate()
        except LocalAIError:
            raw.close()
            raise
        return raw

    def _migrate(self) -> None:
        with self.transaction():
            # Read again: another program may have been faster.
            for number in range(self.pragma("user_version"), newest_version()):
                for statement in statements(migrations()[number].read_text("utf-8")):
                    self.execute(statement)
                self.execute(f"PRAGMA user_version = {number + 1}")
            self.execute(f"PRAGMA application_id = {APPLICATION_ID}")


# --------------------------------------------------------------------------------------------------- schema


def migrations() -> list[Path]:
    """The files of schema/ in order: PRAGMA user_version counts those that a file has seen."""
    return sorted((Path(__file__).parent / "schema").glob("*.sql"))


def newest_version() -> int:
    """The version of the schema that this program writes."""
    return len(migrations())


def statements(script: str) -> Iterator[str]:
    """The statements of a script (`executescript` would end the transaction)."""
    begun = ""
    for line in script.splitlines(keepends=True):
        begun += line
        if sqlite.complete_statement(begun):
            yield begun
            begun = ""


# -------------------------------------------------------------------------------------------------- opening


def connect(path: Path, key: bytes | None, *, any_thread: bool = False) -> Any:
    """SQLite's connection to a file, which is not read yet."""
    raw = sqlite.connect(
        str(path), timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=not any_thread
    )
    # Else it writes to stderr, over the screen, that a key is wrong.
    raw.execute("PRAGMA cipher_log_level = NONE").fetchall()
    if key is not None:
        raw.execute(f"PRAGMA key = {key_literal(key)}")
    return raw


def tuples(raw: Any, statement: str, values: Sequence[Any] | Mapping[str, Any] = ()) -> list[tuple[Any, ...]]:
    """All rows of one statement on SQLite's connection."""
    cursor = raw.cursor()
    cursor.row_factory = None
    found: list[tuple[Any, ...]] = cursor.execute(statement, values).fetchall()
    return found


def key_literal(key: bytes) -> str:
    """A key as SQLCipher takes one that is no passphrase. Raises ValueError for a wrong length."""
    if len(key) != KEY_BYTES:
        raise ValueError(f"a key has {KEY_BYTES} bytes, not {len(key)}")
    return f"\"x'{key.hex()}'\""


def is_plain(path: Path) -> bool:
    """Whether the file is there and is an SQLite database that is not encrypted. Raises OSError.

    Not for a file that this process may have open: to close it a second time drops SQLite's locks on it
    (sqlite.org/howtocorrupt.html, section 2.2).
    """
    try:
        with path.open("rb") as file:
            return file.read(len(_PLAIN)) == _PLAIN
    except FileNotFoundError:
        return False


def is_new(path: Path) -> bool:
    """Whether the file is not there, or empty. Raises OSError."""
    try:
        return path.stat().st_size == 0
    except FileNotFoundError:
        return True


def opens(path: Path, key: bytes) -> bool:
    """Whether the file is encrypted with that key; nothing is changed. Raises HistoryError otherwise."""
    with mapped(path, encrypted=True):
        if is_new(path):
            return False
        raw = connect(path, key)
        try:
            raw.execute("SELECT count(*) FROM sqlite_master").fetchall()
        except sqlite.DatabaseError as error:
            if error.sqlite_errorcode & 0xFF == sqlite.SQLITE_NOTADB:
                return False
            raise
        finally:
            raw.close()
    return True


def check_ours(raw: Any, path: Path) -> None:
    """Refuse another program's database, and one from the future, with HistoryError."""

    tables = tuples(raw, "SELECT count(*) FROM sqlite_master")[0][0]
    if tables and tuples(raw, "PRAGMA application_id")[0][0] != APPLICATION_ID:
        raise HistoryError(
            f"{path} is a database, but not one of conversations",
            "Move the file away; a new one is then made",
        )
    if tuples(raw, "PRAGMA user_version")[0][0] > newest_version():
        raise HistoryError(
            f"The conversations in {path} were written by a newer version of this program",
            "Use that version; the file is unchanged",
        )


def create_private(path: Path) -> None:
    """Make file and folder readable by the user alone; SQLite gives -wal and -shm the file's mode."""
    private_dir(path.parent)
    if not path.exists():  # else see `is_plain`
        os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
    path.chmod(0o600)


def sync(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _as_dict(cursor: Any, values: tuple[Any, ...]) -> dict[str, Any]:
    return {column[0]: value for column, value in zip(cursor.description, values, strict=True)}


# --------------------------------------------------------------------------------------------------- errors

_LEAST_FREE: Final = 64 * 1024
"""Bytes below which SQLite's errors in reading and writing are taken for a full disk."""
DAMAGED: Final = "It is left as it is: restore it from a backup, or move it away to start anew"
_ACCESS: Final = "See that the folder exists and that you may write to it"
_BUSY: Final = (HistoryError, "{} is in use by another program", "Try again in a moment")

BY_CODE: Final[dict[int, tuple[type[LocalAIError], str, str]]] = {
    sqlite.SQLITE_BUSY: _BUSY,
    sqlite.SQLITE_LOCKED: _BUSY,
    sqlite.SQLITE_FULL: (
        NoSpace,
        "The disk is full: {} could not be written",
        "Free some space, then go on",
    ),
    sqlite.SQLITE_CORRUPT: (HistoryError, "{} is damaged", DAMAGED),
    sqlite.SQLITE_NOTADB: (HistoryError, "{} is encrypted, or not a database, or is damaged", DAMAGED),
    sqlite.SQLITE_READONLY: (HistoryError, "{} cannot be written", _ACCESS),
    sqlite.SQLITE_CANTOPEN: (HistoryError, "{} cannot be opened", _ACCESS),
    sqlite.SQLITE_CONSTRAINT: (
        HistoryError,
        "The conversation is no longer in {}",
        "It was probably deleted in another window",
    ),
}


@contextlib.contextmanager
def mapped(path: Path, *, encrypted: bool) -> Iterator[None]:
    """Map what SQLite and the system raise to our errors."""
    try:
        yield
    except sqlite.Error as error:
        raise error_of(error, path, encrypted=encrypted) from error
    except OSError as error:
        raise HistoryError(f"{path} cannot be opened: {error.strerror}", _ACCESS) from error


def error_of(error: Exception, path: Path, *, encrypted: bool = False) -> LocalAIError:
    """Our error for SQLite's; extended codes (such as READONLY_DIRECTORY) count as their primary one."""
    code = getattr(error, "sqlite_errorcode", 0) & 0xFF
    if code == sqlite.SQLITE_NOTADB and encrypted:
        return HistoryError(
            f"{path} does not open with this key: either the key is another file's, or the file is damaged",
            DAMAGED,
        )
    if code in BY_CODE:
        kind, message, hint = BY_CODE[code]
        return kind(message.format(path), hint)
    with contextlib.suppress(OSError):
        if shutil.disk_usage(path.parent).free < _LEAST_FREE:
            return NoSpace(f"The disk of {path} is full", "Free some space, then go on")
    return HistoryError(f"{path} cannot be used: {error}", "See that it is a plain file on a healthy disk")
