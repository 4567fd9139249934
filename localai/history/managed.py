"""What an organization demands of stored conversations: `localai.policy`, where they are opened and written.

What is called a check raises PolicyError; all do where the policy itself cannot be read.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Final

from localai import policy
from localai.chat.conversation import Conversation
from localai.history import database
from localai.history.database import Database

DAY_S: Final = 86_400
_LOCK: Final = "`localai history lock` encrypts them"


def may_be_plain() -> bool:
    """Whether conversations may be plain from now on."""
    return not policy.current().has("require.encryption", "forbid.plain_history")


def check_may_be_plain() -> None:
    """PolicyError unless conversations may be plain from now on."""
    what = "new conversations cannot be stored in plain text"
    for key in ("require.encryption", "forbid.plain_history"):
        policy.current().check(key, what, _LOCK)


def check_plain(path: Path) -> None:
    """PolicyError unless the plain file `path`, which may have to be made, may be used."""
    if may_be_plain():
        return
    with database.mapped(path, encrypted=False):
        fresh = database.is_new(path)
    if fresh:
        check_may_be_plain()
    policy.current().check("require.encryption", f"the conversations in {path} are not encrypted", _LOCK)


def is_state_kept(key: bytes | None) -> bool:
    """Whether the engine's states may be kept under that key."""
    wanted = policy.current()
    return not wanted.has("require.incognito") and not (key is None and wanted.has("require.encryption"))


def check_keeping() -> None:
    """PolicyError unless what is said may be written to the disk."""
    policy.current().check("require.incognito", "nothing that is said can be kept")


def take_over(conversation: Conversation, now: float) -> bool:
    """Whether a conversation from a file may still be kept; it is then dated by its latest message.

    What the file says of its last change counts no more than that, and no date is later than `now`, in
    seconds since the epoch: else whoever writes the file would decide how long it is kept.
    """
    days = policy.current().retention_days
    if days is not None:
        dates = [message.created for message in conversation.messages.values()]
        conversation.updated = min(now, max(dates, default=0.0) or conversation.updated)
    return days is None or conversation.updated >= now - days * DAY_S


def delete_outlived(db: Database, now: float | None = None) -> list[str]:
    """Delete what may no longer be kept, pinned or not; its identifiers.

    A date in the future is one of a clock that was wrong, or made up: it becomes `now`, so that it ages.
    """
    days = policy.current().retention_days
    if days is None:
        return []
    now = time.time() if now is None else now
    with db.errors():
        ahead = db.tuples("SELECT 1 FROM conversations WHERE updated > ? LIMIT 1", (now,))
        old = "SELECT id FROM conversations WHERE updated < ?"
        gone = [str(one) for (one,) in db.tuples(old, (now - days * DAY_S,))]
    if ahead or gone:  # else nothing is written: another program may be writing right now
        with db.transaction():
            db.execute("UPDATE conversations SET updated = ? WHERE updated > ?", (now, now))
            for one in gone:
                db.execute("DELETE FROM conversations WHERE id = ?", (one,))
        with db.errors():
            db.flush()
    return gone
