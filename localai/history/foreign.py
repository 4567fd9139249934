"""The conversations.json that ChatGPT and DeepSeek export, one conversation at a time.

Both keep a `mapping` of nodes with `parent`, `children` and a `message`. What is not part of the talk, such
as system messages, calls of tools and their results, is left out, and what follows it hangs on what was
before. Several messages of one reply become one. Identifiers are derived from those in the file, so the same
file always gives the same ones. What is wrong raises HistoryError, in words that follow the file's name.
Formats as found in public exports of 2023 to 2026; neither is documented.
"""

from __future__ import annotations

import math
import re
import uuid
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from localai.chat.conversation import Attachment, Conversation, Message, title_of
from localai.errors import HistoryError

Convert = Callable[[Any], Conversation]
_SURROGATES: Final = dict.fromkeys(range(0xD800, 0xE000))
MAX_CHARACTERS: Final = 256 * 1024 * 1024
"""Of all messages of one conversation."""
MAX_PIECES: Final = 1000
"""Of one reply."""
_CITATION: Final = re.compile("\ue200[^\ue201]*\ue201")
"""ChatGPT's marks for sources, which mean nothing outside of it."""


class _Piece(msgspec.Struct, frozen=True, kw_only=True):
    """What one node says."""

    role: Literal["user", "assistant"]
    content: str = ""
    thinking: str = ""
    thinking_s: float = 0.0
    created: float = 0.0
    model: str = ""
    attachments: tuple[Attachment, ...] = ()


class _Node(msgspec.Struct):
    """A place in the tree; `piece` is None where nothing is said."""

    id: str
    parent: str | None
    message: dict[str, Any] | None
    children: list[str] = msgspec.field(default_factory=list)


_Said = tuple[str, _Piece]
"""A node's id, and what it says."""
Reader = Callable[[_Node, str], "_Piece | None"]
"""Reads a node; its other argument is the role of what was said before, or ""."""


def derived(*words: str) -> str:
    """An identifier made of words: the same from the same."""
    text = "\0".join(words).translate(_SURROGATES)
    return uuid.uuid5(uuid.NAMESPACE_URL, f"localai:{text}").hex


def kind_of(items: Sequence[Any]) -> tuple[str, Convert]:
    """Whose export it is, and what converts one of its conversations. Raises HistoryError."""
    first = next((i for i in items if isinstance(i, dict) and isinstance(i.get("mapping"), dict)), None)
    if first is None:
        raise HistoryError("it is no export of localai, ChatGPT or DeepSeek that this program knows")
    if "inserted_at" in first or "updated_at" in first:
        return "DeepSeek", deepseek
    messages = [n.get("message") for n in first["mapping"].values() if isinstance(n, dict)]
    if any(isinstance(m, dict) and "author" not in m for m in messages):
        return "DeepSeek", deepseek
    return "ChatGPT", chatgpt


# ---------------------------------------------------------------------------------------------- ChatGPT


def chatgpt(item: Any) -> Conversation:
    """One conversation of ChatGPT's export. Raises HistoryError."""
    fields = _dict(item, "it")
    nodes = _nodes(fields)
    created = _seconds(fields.get("create_time"))
    instructions = [text for node in nodes.values() if (text := _instructions(node))]
    return _conversation(
        "ChatGPT",
        _name(fields, nodes),
        nodes,
        lambda node, before: _chatgpt_piece(node.message or {}),
        title=_text(fields.get("title")),
        system=instructions[0] if instructions else "",
        created=created,
        updated=_seconds(fields.get("update_time")) or created,
        current=_text(fields.get("current_node")),
    )


def _chatgpt_piece(message: dict[str, Any]) -> _Piece | None:
    role = _inner(message, "author").get("role")
    meta, content = _inner(message, "metadata"), _inner(message, "content")
    kind = content.get("content_type")
    hidden = meta.get("is_visually_hidden_from_conversation") or meta.get("is_user_system_message")
    if role not in ("user", "assistant") or hidden:
        return None
    created, model = _seconds(message.get("create_time")), _text(meta.get("model_slug"))
    if role == "user":
        if kind == "user_editable_context":
            return None
        names = [_text(_item(file).get("name")) for file in _list(meta.get("attachments"))]
        notes = [f"[attached, but not in the export: {name}]" for name in names if name]
        return _Piece(role="user", content="\n\n".join([*notes, _parts(content)]).strip(), created=created)
    if kind == "thoughts":
        return _Piece(role="assistant", thinking=_thoughts(content), created=created, model=model)
    if kind == "reasoning_recap":
        seconds = _number(meta.get("finished_duration_sec"))
        return _Piece(role="assistant", thinking_s=seconds, created=created, model=model)
    if message.get("recipient") not in (None, "all"):
        return None  # the call of a tool
    text = _parts(content)
    if kind == "code" and text:
        text = f"```\n{text}\n```"
    return _Piece(role="assistant", content=text, created=created, model=model) if text else None


def _parts(content: dict[str, Any]) -> str:
    found = []
    for part in _list(content.get("parts")) or [content.get("text")]:
        if isinstance(part, str):
            found.append(_text(part))
        elif isinstance(part, dict):
            pointer = str(part.get("content_type")).endswith("asset_pointer")
            found.append("[an image or sound, not in the export]" if pointer else _text(part.get("text")))
    return _CITATION.sub("", "\n\n".join(text for text in found if text))


def _thoughts(content: dict[str, Any]) -> str:
    found = []
    for thought in map(_item, _list(content.get("thoughts"))):
        words = [_text(thought.get("summary")), _text(thought.get("content"))]
        found.append("\n\n".join(word for word in words if word))
    return "\n\n".join(text for text in found if text)


def _instructions(node: _Node) -> str:
    """What the user told ChatGPT once for all conversations."""
    if node.message is None:
        return ""
    data = _inner(_inner(node.message, "metadata"), "user_context_message_data")
    words = [_text(data.get("about_user_message")), _text(data.get("about_model_message"))]
    return "\n\n".join(word for word in words if word.strip())


# --------------------------------------------------------------------------------------------- DeepSeek


def deepseek(item: Any) -> Conversation:
    """One conversation of DeepSeek's export. Raises HistoryError."""
    fields = _dict(item, "it")
    nodes = _nodes(fields)
    created = _seconds(fields.get("inserted_at"))
    return _conversation(
        "DeepSeek",
        _name(fields, nodes),
        nodes,
        lambda node, before: _deepseek_piece(node.message or {}, before),
        title=_text(fields.get("title")),
        system="",
        created=created,
        updated=_seconds(fields.get("updated_at")) or created,
        current=_text(fields.get("current_message_id")),
    )


def _deepseek_piece(message: dict[str, Any], before: str) -> _Piece | None:
    fragments = [_item(fragment) for fragment in _list(message.get("fragments"))]

    def of(*kinds: str) -> str:
        texts = [_text(f.get("content")) for f in fragments if f.get("type") in kinds]
        return "\n\n".join(text for text in texts if text)

    # Older exports do not say who speaks: they take turns.
    role = _text(message.get("role")).lower() or ("assistant" if before == "user" else "user")
    if fragments:
        role = "user" if any(f.get("type") == "REQUEST" for f in fragments) else "assistant"
    if role not in ("user", "assistant"):
        return None
    created = _seconds(message.get("inserted_at"))
    if role == "user":
        files, notes = _files(message)
        content = "\n\n".join([*notes, of("REQUEST") or _text(message.get("content"))])
        return _Piece(role="user", content=content.strip(), created=created, attachments=files)
    thinking = _text(message.get("thinking_content")) or _text(message.get("reasoning_content"))
    elapsed = [f.get("elapsed_secs") for f in fragments] + [message.get("thinking_elapsed_secs")]
    return _Piece(
        role="assistant",
        content=of("RESPONSE", "TEMPLATE_RESPONSE") or _text(message.get("content")),
        thinking=of("THINK") or thinking,
        thinking_s=sum(_number(seconds) for seconds in elapsed),
        created=created,
        model=_text(message.get("model")),
    )


def _files(message: dict[str, Any]) -> tuple[tuple[Attachment, ...], list[str]]:
    """The files whose text is in the export, and words for the others."""
    found, notes = [], []
    for file in map(_item, _list(message.get("files"))):
        name = _text(file.get("file_name")) or _text(file.get("name")) or "file"
        if text := _text(file.get("content")):
            found.append(Attachment(name=name, text=text))
        else:
            notes.append(f"[attached, but not in the export: {name}]")
    return tuple(found), notes


# --------------------------------------------------------------------------------------------- the tree


def _nodes(fields: dict[str, Any]) -> dict[str, _Node]:
    """The nodes by id; a parent that is missing makes a node one of the first."""
    nodes: dict[str, _Node] = {}
    mapping = _dict(fields.get("mapping"), "its mapping")
    claimed = {
        _text(child): name
        for name, node in mapping.items()
        for child in _list(_dict(node, f"node {name}").get("children"))
    }
    for name, value in mapping.items():
        parent = value.get("parent", claimed.get(name))
        message = value.get("message")
        node = _Node(name, _text(parent) or None, message if isinstance(message, dict) else None)
        node.parent = node.parent if node.parent in mapping else None
        nodes[name] = node
    order = {_text(c): i for node in mapping.values() for i, c in enumerate(_list(node.get("children")))}
    for node in sorted(nodes.values(), key=lambda one: order.get(one.id, 0)):
        if node.parent is not None:
            nodes[node.parent].children.append(node.id)
    return nodes


def _conversation(
    source: str,
    name: str,
    nodes: dict[str, _Node],
    reader: Reader,
    *,
    title: str,
    system: str,
    created: float,
    updated: float,
    current: str,
) -> Conversation:
    made = Conversation(
        id=derived(source, name), title=title, system=system, created=created, updated=updated
    )
    tree = _Tree(made)
    tree.grow(nodes, reader)
    _show(made, tree.holders.get(current, ""))
    if not made.title and made.messages:
        made.title = title_of(next(iter(made.messages.values())).content)
    return made


class _Tree:
    """Messages made of nodes, each after the one that it follows."""

    def __init__(self, made: Conversation) -> None:
        self.made = made
        self.holders: dict[str, str] = {}
        """By node: the message that has what it says, or else the one before it."""
        self.room = MAX_CHARACTERS

    def grow(self, nodes: dict[str, _Node], reader: Reader) -> None:
        """Go through all nodes, along with what is said of a reply that is not complete yet."""
        todo: list[tuple[_Node, str | None, list[_Said]]]
        todo = [(node, None, []) for node in reversed(nodes.values()) if node.parent is None]
        visited = 0
        while todo:
            node, parent, reply = todo.pop()
            visited += 1
            before = "assistant" if reply else self.made.messages[parent].role if parent else ""
            piece = reader(node, before) if node.message is not None else None
            if piece is not None and piece.role == "assistant":
                reply = [*reply[-MAX_PIECES:], (node.id, piece)]
            is_question = piece is not None and piece.role == "user"
            if reply and (is_question or not node.children):
                parent, reply = self._add(parent, reply), []
            if piece is not None and is_question:
                parent = self._add(parent, [(node.id, piece)])
            self.holders.setdefault(node.id, parent or "")
            todo += [(nodes[child], parent, reply) for child in reversed(node.children)]
        if visited < len(nodes):
            raise HistoryError("some of its messages follow each other in a circle")

    def _add(self, parent: str | None, pieces: list[_Said]) -> str:
        """One message of pieces; the same pieces are one message however often they come."""
        message_id = derived(self.made.id, pieces[-1][0])
        if message_id in self.made.messages:
            return message_id
        self.holders.update({node_id: message_id for node_id, _ in pieces})
        said = [piece for _, piece in pieces]
        # Branches within a reply share its beginning, so a small file could otherwise fill the memory.
        self.room -= sum(len(piece.content) + len(piece.thinking) for piece in said)
        if self.room < 0 or len(said) > MAX_PIECES:
            raise HistoryError("its replies are too large")
        times = [piece.created for piece in said if piece.created]
        self.made.messages[message_id] = Message(
            id=message_id,
            parent=parent,
            role=said[0].role,
            content="\n\n".join(piece.content for piece in said if piece.content),
            thinking="\n\n".join(piece.thinking for piece in said if piece.thinking),
            thinking_s=sum(piece.thinking_s for piece in said),
            created=times[0] if times else self.made.created,
            model=next((piece.model for piece in reversed(said) if piece.model), ""),
            attachments=said[0].attachments,
        )
        return message_id


def _show(made: Conversation, current: str) -> None:
    """Show the branch that the export shows; where it does not say, the one that was written to last."""
    if current in made.messages:
        made.head = current
    elif made.messages:
        made.show(max(made.messages.values(), key=lambda message: message.created).id)


# ------------------------------------------------------------------------------------ values of any kind


def _name(fields: dict[str, Any], nodes: dict[str, _Node]) -> str:
    given = _text(fields.get("conversation_id")) or _text(fields.get("id"))
    return given or "\0".join([_text(fields.get("title")), *nodes])


def _dict(value: Any, what: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise HistoryError(f"{what} is not an object")
    return value


def _item(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _inner(value: dict[str, Any], name: str) -> dict[str, Any]:
    return _item(value.get(name))


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    return value.translate(_SURROGATES) if isinstance(value, str) else ""


def _number(value: Any) -> float:
    """A plausible number of seconds; 0 for anything else."""
    if isinstance(value, int | float) and math.isfinite(value) and 0 <= value < 1e11:
        return float(value)
    return 0.0


def _seconds(value: Any) -> float:
    """A time since the epoch, given as a number or by ISO 8601; 0 for anything else."""
    if isinstance(value, str):
        try:
            return _number(datetime.fromisoformat(value).timestamp())
        except (ValueError, OverflowError):
            return 0.0
    return _number(value)
