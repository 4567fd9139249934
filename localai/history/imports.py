"""Conversations from files: our own JSON, and the conversations.json that ChatGPT and DeepSeek export.

Contract: a file is read and checked as a whole before anything is stored, so one that is broken anywhere
changes nothing; the error says which conversation is wrong and how. Nothing that is stored already is
overwritten or stored twice: the same identifier with the same content is left as it is, and with other
content becomes a conversation of its own. Of the texts, lone surrogates are left out: no database holds them.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import re
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Final

import msgspec

from localai.chat.conversation import Conversation, Message
from localai.errors import HistoryError, LocalAIError
from localai.history import foreign, managed
from localai.history.exchange import FORMAT, VERSION, one_line
from localai.history.foreign import derived
from localai.history.store import History

MAX_BYTES: Final = 512 * 1024 * 1024
"""Of one file."""
MAX_CONVERSATIONS: Final = 100_000
MAX_MESSAGES: Final = 100_000
"""Of one conversation."""
MAX_TEXT: Final = 16 * 1024 * 1024
"""Characters of one text."""
MAX_SETTINGS: Final = 64 * 1024
"""Bytes of a conversation's settings as JSON."""
_ID: Final = re.compile(r"[0-9A-Za-z_-]{1,64}")
_NOTHING: Final = "Nothing was imported"
_SURROGATES: Final = dict.fromkeys(range(0xD800, 0xE000))
_LARGEST: Final = 2**62
"""Numbers beyond do not fit into the database."""
_LATEST: Final = 250_000_000_000
"""Seconds since the epoch: the end of the calendar is near."""


class _Document(msgspec.Struct, forbid_unknown_fields=True):
    format: str
    version: int
    conversations: list[Any]


class _Ours(msgspec.Struct, forbid_unknown_fields=True):
    """A conversation in our JSON: as `Conversation`, but its messages are a list."""

    id: str
    messages: list[Message]
    title: str = ""
    system: str = ""
    model: str = ""
    created: float = 0.0
    updated: float = 0.0
    pinned: bool = False
    settings: dict[str, Any] = msgspec.field(default_factory=dict)
    head: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """What an import did."""

    source: str
    """Who wrote the file: "localai", "ChatGPT" or "DeepSeek"."""
    imported: list[str]
    """Identifiers of the conversations that are new in the store."""
    present: int
    """How many were there already."""
    empty: int
    """How many had no message."""
    outlived: int = 0
    """How many are older than the organization lets them be kept."""


def import_file(history: History, path: Path, now: float | None = None) -> Outcome:
    """Store the conversations of a file. Raises HistoryError and NoSpace, and has then changed nothing.

    However old they are: as long as the user keeps conversations, these are, counted from `now` (seconds
    since the epoch). As long as the organization lets them be kept counts from their last message, and
    PolicyError is raised where it lets nothing be kept.
    """
    if not history.in_memory:
        managed.check_keeping()
    source, conversations = read(path)
    now = time.time() if now is None else now
    with_messages = [conversation for conversation in conversations if conversation.messages]
    filled = [one for one in with_messages if managed.take_over(one, now)]
    known = {summary.id for summary in history.summaries()}
    new: list[Conversation] = []
    for conversation in filled:
        if (fitted := _fitted(history, conversation, known)) is not None:
            new.append(fitted)
            known.add(fitted.id)
    _save(history, new, now)
    present, empty = len(filled) - len(new), len(conversations) - len(with_messages)
    outlived = len(with_messages) - len(filled)
    return Outcome(source, [conversation.id for conversation in new], present, empty, outlived)


def _save(history: History, conversations: Sequence[Conversation], now: float) -> None:
    done: list[str] = []
    try:
        for conversation in conversations:
            history.save(conversation, kept_from=now)
            done.append(conversation.id)
    except BaseException:
        for conversation_id in done:
            with contextlib.suppress(LocalAIError):
                history.delete(conversation_id)
        raise


# ------------------------------------------------------------------------------- what is stored already


def _fitted(history: History, conversation: Conversation, known: set[str]) -> Conversation | None:
    """The conversation under identifiers that nothing has; None if it is stored already."""
    if conversation.id not in known:
        # To store a message of the same identifier would take it away from another conversation.
        taken = history.has_any([*conversation.messages])
        return _renamed(conversation, conversation.id) if taken else conversation
    if _same(history.load(conversation.id), conversation):
        return None
    copy = _renamed(conversation, derived("copy", _digest(conversation)))
    return None if copy.id in known else copy


def _same(stored: Conversation, conversation: Conversation) -> bool:
    """Whether the store lacks nothing of it; a title, or messages, that came later are no difference."""
    return all(
        stored.messages.get(message_id) == message for message_id, message in conversation.messages.items()
    ) or _digest(stored) == _digest(conversation)


def _renamed(conversation: Conversation, new_id: str) -> Conversation:
    """The same under another identifier, its messages too; from the same comes the same."""
    names = {message_id: derived("copy", new_id, message_id) for message_id in conversation.messages}
    messages = [
        msgspec.structs.replace(m, id=names[m.id], parent=names.get(m.parent or ""))
        for m in conversation.messages.values()
    ]
    return msgspec.structs.replace(
        conversation,
        id=new_id,
        head=names.get(conversation.head or ""),
        messages={message.id: message for message in messages},
    )


def _digest(conversation: Conversation) -> str:
    """Of the messages and how they hang together, whatever their identifiers are."""
    places = {message_id: str(place) for place, message_id in enumerate(conversation.messages)}
    rows = [
        msgspec.structs.replace(m, id=places[m.id], parent=places.get(m.parent or ""))
        for m in conversation.messages.values()
    ]
    return hashlib.sha256(msgspec.json.encode([conversation.system, rows])).hexdigest()


# ---------------------------------------------------------------------------------------------- reading


def read(path: Path) -> tuple[str, list[Conversation]]:
    """Who wrote a file, and its conversations, checked. Raises HistoryError."""
    document = _decoded(path, _bytes(path))
    try:
        if isinstance(document, dict) and "format" in document:
            return "localai", list(_each(_ours_of(document), _ours))
        items = document if isinstance(document, list) else [document]
        if not items:
            raise HistoryError("it has no conversation")
        source, convert = foreign.kind_of(items)
        return source, list(_each(items, convert))
    except HistoryError as error:
        reason = one_line(error.message)
        raise HistoryError(f"{path} cannot be imported: {reason}", _NOTHING) from error


def _bytes(path: Path) -> bytes:
    try:
        # Before opening: to open a named pipe would wait for a writer, and a device may never end.
        if not stat.S_ISREG((status := path.stat()).st_mode):
            raise HistoryError(f"{path} is not a file", "Give the exported file itself")
        too_large = status.st_size > MAX_BYTES
        with path.open("rb") as file:
            data = b"" if too_large else file.read(MAX_BYTES + 1)
    except OSError as error:
        raise HistoryError(f"{path} cannot be read: {error.strerror}", "See that you may read it") from error
    if too_large or len(data) > MAX_BYTES:
        raise HistoryError(
            f"{path} cannot be imported: it is larger than {MAX_BYTES // 2**20} MiB", "Split it into several"
        )
    if data.startswith(b"PK\x03\x04"):
        raise HistoryError(
            f"{path} is a ZIP archive", "Unpack it, then import the conversations.json that is in it"
        )
    return data


def _decoded(path: Path, data: bytes) -> Any:
    data = data.removeprefix(b"\xef\xbb\xbf")
    try:
        try:
            return msgspec.json.decode(data)
        except msgspec.DecodeError as error:
            if "surrogate" not in str(error):
                raise
            # Exports of others have half characters, where a text was cut; this is slower and takes them.
            return json.loads(data)
    except RecursionError as error:
        raise HistoryError(f"{path} cannot be imported: it is nested too deeply", _NOTHING) from error
    except ValueError as error:  # msgspec's, json's and the one of bytes that are not UTF-8
        raise HistoryError(f"{path} cannot be imported: not JSON ({error})", _NOTHING) from error


def _each(items: Sequence[Any], convert: foreign.Convert) -> Iterator[Conversation]:
    """Each converted and checked; what is wrong with one says which one it is."""
    if len(items) > MAX_CONVERSATIONS:
        raise HistoryError(f"it has more than {MAX_CONVERSATIONS:,} conversations")
    seen_conversations: set[str] = set()
    seen_messages: set[str] = set()
    for number, item in enumerate(items, 1):
        title = item.get("title") if isinstance(item, dict) else None
        name = f' ("{title[:60]}")' if isinstance(title, str) and title else ""
        where = f"conversation {number} of {len(items)}{name}"
        try:
            conversation = convert(item)
            check(conversation)
        except (msgspec.ValidationError, RecursionError) as error:
            raise HistoryError(f"{where}: {error}") from error
        except HistoryError as error:
            raise HistoryError(f"{where}: {error.message}") from error
        if conversation.id in seen_conversations or not seen_messages.isdisjoint(conversation.messages):
            raise HistoryError(f"{where}: another one before it has the same identifiers")
        seen_conversations.add(conversation.id)
        seen_messages.update(conversation.messages)
        yield conversation


def _ours_of(document: dict[str, Any]) -> list[Any]:
    if document["format"] != FORMAT:
        raise HistoryError(f'its format is not "{FORMAT}"')
    version = document.get("version")
    if isinstance(version, int) and version > VERSION:
        raise HistoryError("it was written by a newer version of this program")
    try:
        return msgspec.convert(document, _Document).conversations
    except msgspec.ValidationError as error:
        raise HistoryError(str(error)) from error


def _ours(item: Any) -> Conversation:
    found = msgspec.convert(_whole(item), _Ours)
    fields = {name: getattr(found, name) for name in _Ours.__struct_fields__ if name != "messages"}
    messages = {message.id: message for message in found.messages}
    if len(messages) < len(found.messages):
        raise HistoryError("two of its messages have the same identifier")
    for message in messages.values():
        if message.state == "streaming":
            message.state = "stopped"
    return Conversation(messages=messages, **fields)


def _whole(value: Any) -> Any:
    """The same without half characters."""
    if isinstance(value, str):
        return value if value.isascii() else value.translate(_SURROGATES)
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(name): _whole(item) for name, item in value.items()}
    return value


# --------------------------------------------------------------------------------------------- checking


def check(conversation: Conversation) -> None:
    """Raises HistoryError for what the store or the program could not live with."""
    _check_id(conversation.id)
    if len(conversation.messages) > MAX_MESSAGES:
        raise HistoryError(f"it has more than {MAX_MESSAGES:,} messages")
    if len(msgspec.json.encode(conversation.settings)) > MAX_SETTINGS:
        raise HistoryError("its settings are too large")
    _check_fields(conversation)
    for message in conversation.messages.values():
        _check_id(message.id)
        _check_fields(message)
        for text in (part for file in message.attachments for part in (file.name, file.text)):
            _check_text(text)
    if conversation.head is not None and conversation.head not in conversation.messages:
        raise HistoryError("the message that it shows last is missing")
    _check_tree(conversation)


def _check_fields(one: Conversation | Message) -> None:
    for name, value in msgspec.structs.asdict(one).items():
        if isinstance(value, str):
            _check_text(value)
            continue
        most = _LATEST if name in ("created", "updated") else _LARGEST
        if isinstance(value, int | float) and not (math.isfinite(value) and 0 <= value <= most):
            raise HistoryError(f"{name} is {value}")


def _check_text(text: str) -> None:
    if len(text) > MAX_TEXT:
        raise HistoryError(f"a text is longer than {MAX_TEXT:,} characters")


def _check_id(identifier: str) -> None:
    if not _ID.fullmatch(identifier):
        raise HistoryError(f'"{identifier[:64]}" is no identifier')


def _check_tree(conversation: Conversation) -> None:
    """Every message hangs, over messages that are there, on one that begins the conversation."""
    rooted: set[str] = set()
    for message in conversation.messages.values():
        path: list[str] = []
        at: str | None = message.id
        while at is not None and at not in rooted:
            if at not in conversation.messages:
                raise HistoryError(f"message {path[-1]} follows one that is missing")
            if len(path) > len(conversation.messages):
                raise HistoryError(f"message {message.id} follows itself")
            path.append(at)
            at = conversation.messages[at].parent
        rooted.update(path)
