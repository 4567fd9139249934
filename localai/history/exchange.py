"""Conversations as text that leaves the program: JSON that can be read again, and Markdown.

Contract: all messages of the tree are in it, with thinking, attachments and settings. Markdown has the shown
branch first and the others behind it. No character that commands a terminal is in any of it: Markdown leaves
them out, JSON has them as escapes, so that nothing is lost. The JSON is described in docs/history-format.md.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
import tempfile
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from localai.characters import escaped
from localai.chat.clean import clean, clean_line
from localai.chat.conversation import Conversation, Message
from localai.errors import HistoryError, LocalAIError, NoSpace

FORMAT: Final = "localai conversations"
VERSION: Final = 1
MOST_VERSIONS: Final = 50
"""Of one message, so many alternatives are looked at and linked to."""


class Branch(msgspec.Struct, frozen=True):
    """Messages that follow each other, and where they leave what was listed before them."""

    after: str | None
    """Id of the message they follow; None: they begin the conversation."""
    messages: list[Message]


def branches(conversation: Conversation) -> list[Branch]:
    """All messages, each once: the shown branch first, then the others from where they leave a listed one."""
    shown = conversation.branch()
    found = [Branch(None, shown)] if shown else []
    listed = {message.id for message in shown}
    below: dict[str | None, list[Message]] = {}
    for message in conversation.messages.values():
        below.setdefault(message.parent, []).append(message)
    for message in conversation.messages.values():
        if message.id in listed:
            continue
        chain = [message]
        while following := [m for m in below.get(chain[-1].id, []) if m.id not in listed]:
            chain.append(following[0])
            listed.add(following[0].id)
        listed.add(message.id)
        found.append(Branch(message.parent, chain))
    return found


# ----------------------------------------------------------------------------------------------------- JSON


def as_json(conversations: Iterable[Conversation]) -> str:
    """The document that `localai.history.imports` reads again without loss.

    Texts must be without lone surrogates, as all are that come from the store.
    """
    document = {
        "format": FORMAT,
        "version": VERSION,
        "conversations": [as_data(conversation) for conversation in conversations],
    }
    return escaped(msgspec.json.format(msgspec.json.encode(document), indent=1).decode()) + "\n"


def as_data(conversation: Conversation) -> dict[str, Any]:
    """One conversation as in the JSON document: its messages are a list, in the order they were made."""
    data = msgspec.structs.asdict(conversation)
    return data | {"messages": [*conversation.messages.values()]}


# ------------------------------------------------------------------------------------------------- Markdown


def as_markdown(conversations: Sequence[Conversation]) -> str:
    """One document for all of them; texts of messages stand in it as the Markdown that they are."""
    parts = [part for conversation in conversations for part in _conversation(conversation)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _conversation(conversation: Conversation) -> list[str]:
    parts = [f"# {inline(conversation.title) or 'Conversation'}", _about(conversation)]
    if conversation.system.strip():
        parts += ["**System prompt**", fenced(conversation.system)]
    numbers, others = numbered(conversation), versions(conversation)
    for number, branch in enumerate(branches(conversation), 1):
        if number > 1:
            parts += ["---", f"## Branch {number}: {origin(branch, numbers, others)}"]
        for message in branch.messages:
            parts += _message(message, numbers[message.id])
    return parts


def numbered(conversation: Conversation) -> dict[str, int]:
    """The number of each message by its id, from 1, in the order of `branches`."""
    all_of_them = [message for branch in branches(conversation) for message in branch.messages]
    return {message.id: number for number, message in enumerate(all_of_them, 1)}


Versions = dict[tuple[str | None, str], list[str]]
"""By parent and role: the ids of the messages that are alternatives to each other."""


def versions(conversation: Conversation) -> Versions:
    """As `Conversation.siblings`, of all messages at once."""
    found: Versions = {}
    for message in conversation.messages.values():
        found.setdefault((message.parent, message.role), []).append(message.id)
    return found


def origin(branch: Branch, numbers: dict[str, int], others: Versions) -> str:
    """Words for where a branch leaves the others: by the version of its first message that comes first."""
    first = branch.messages[0]
    earliest = min(numbers[message_id] for message_id in others[first.parent, first.role][:MOST_VERSIONS])
    if earliest < numbers[first.id]:
        return f"instead of message {earliest}"
    return f"after message {numbers[branch.after]}" if branch.after in numbers else "another beginning"


def _about(conversation: Conversation) -> str:
    facts = [f"Begun {when(conversation.created)}", f"last changed {when(conversation.updated)}"]
    facts += [f"model {inline(conversation.model)}"] if conversation.model else []
    facts += [f"{inline(name)} {inline(value)}" for name, value in settings_of(conversation)]
    return f"*{' · '.join(facts)}*"


def settings_of(conversation: Conversation) -> list[tuple[str, str]]:
    """What the conversation sets otherwise, as text."""
    return [(k, v if isinstance(v, str) else _compact(v)) for k, v in conversation.settings.items()]


def _compact(value: object) -> str:
    return msgspec.json.encode(value).decode()


def _message(message: Message, number: int) -> list[str]:
    who = "You" if message.role == "user" else inline(message.model) or "Reply"
    parts = [f"### {number}. {who}", f"*{inline(' · '.join(facts_of(message)))}*"]
    if message.thinking.strip():
        text = _closed(clean(message.thinking).strip())
        parts += [f"<details><summary>{thought(message)}</summary>", _no_end(text), "</details>"]
    for file in message.attachments:
        summary = f"File: {inline(file.name)} ({len(file.text):,} characters)"
        parts += [f"<details><summary>{summary}</summary>", fenced(file.text), "</details>"]
    return [*parts, _closed(clean(message.content).strip())]


def _no_end(text: str) -> str:
    """What a model says of `</details>` must not end ours."""
    return re.sub(r"<(?=/?(?:details|summary))", "&lt;", text, flags=re.IGNORECASE)


def thought(message: Message) -> str:
    """The heading of a message's thinking."""
    words = "Thinking"
    if message.thinking_s > 0:
        words = f"Thought for {message.thinking_s:.0f} s" if message.thinking_s >= 1 else "Thought for < 1 s"
    return words + (f", {message.thinking_tokens:,} tokens" if message.thinking_tokens else "")


def facts_of(message: Message) -> list[str]:
    """When the message was made and, of a reply, how it went; not cleaned."""
    facts = [when(message.created)]
    if message.role == "assistant":
        facts += [f"{message.completion_tokens:,} tokens"] if message.completion_tokens else []
        facts += [f"{message.tokens_per_s:.1f} tokens/s"] if message.tokens_per_s else []
        facts += [message.state] if message.state != "complete" else []
        facts += [message.finish_reason] if message.state == "failed" and message.finish_reason else []
    return facts


def when(seconds: float) -> str:
    """A time in UTC, to the minute."""
    try:
        return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M UTC")
    except (OverflowError, ValueError, OSError):
        return "at an unknown time"


def one_line(text: str) -> str:
    """Clean text on one line."""
    return clean_line(text)


def inline(text: str) -> str:
    """A name or title inside a line of Markdown, none of its characters with a meaning."""
    return re.sub(r"([\\`*_\[\]<>#|~&])", r"\\\1", one_line(text))


def fenced(text: str) -> str:
    """Text as it stands, in a block of code that it cannot end."""
    longest = max((len(run) for run in re.findall("`+", text)), default=0)
    fence = "`" * max(3, longest + 1)
    return f"{fence}\n{clean(text)}\n{fence}"


_FENCE: Final = re.compile(r" {0,3}(`{3,}|~{3,})(.*)")


def _closed(text: str) -> str:
    """Markdown whose last block of code is closed, so that it does not swallow what follows."""
    fence = ""
    for line in text.split("\n"):
        if not (match := _FENCE.fullmatch(line)):
            continue
        marks, rest = match.groups()
        if not fence and not (marks[0] == "`" and "`" in rest):
            fence = marks
        elif fence and marks.startswith(fence) and not rest.strip():
            fence = ""
    return f"{text}\n{fence}" if fence else text


# --------------------------------------------------------------------------------------------------- writing


def write(path: Path, text: str, *, force: bool = False) -> None:
    """A new file that only the user can read: all of it is there, or nothing is.

    Raises HistoryError for a file that exists already (`force` replaces it) or cannot be written; NoSpace.
    """
    fresh: Path | None = None
    try:
        # mkstemp makes files of mode 0600.
        descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name[:64]}.", suffix=".new")
        fresh = Path(name)
        with os.fdopen(descriptor, "wb") as file:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        _place(fresh, path, force=force)
    except FileExistsError as error:
        raise HistoryError(f"{path} exists already", "Choose another name, or add --force") from error
    except OSError as error:
        raise _unwritten(path, error) from error
    finally:
        if fresh is not None:
            with contextlib.suppress(OSError):
                fresh.unlink()


def _unwritten(path: Path, error: OSError) -> LocalAIError:
    match error.errno:
        case errno.ENOSPC | errno.EDQUOT | errno.EFBIG:
            return NoSpace(
                f"{path} cannot be written: the disk is full", "Free some space, or choose another disk"
            )
        case errno.ENOENT | errno.ENOTDIR:
            return HistoryError(f"{path} cannot be written: there is no such folder", "Choose another folder")
        case errno.EACCES | errno.EPERM | errno.EROFS:
            return HistoryError(f"{path} cannot be written: you may not write there", "Choose another folder")
    return HistoryError(f"{path} cannot be written: {error.strerror}", "Choose another name or folder")


def _place(fresh: Path, path: Path, *, force: bool) -> None:
    if force:
        fresh.replace(path)
        return
    try:
        # Unlike a rename, this fails if there is something of that name.
        os.link(fresh, path)
    except FileExistsError:
        raise
    except OSError:  # a file system without second names
        if path.exists():
            raise FileExistsError from None
        fresh.replace(path)
