"""The context as a budget: what can be done when a conversation no longer fits.

Nothing is ever cut silently: `offers` says what would help, and only what the user takes is done, by
`without` or `summary_request` and `begun_anew`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from itertools import accumulate

import msgspec

from localai.chat.clean import clean_line
from localai.chat.messages import FILE_END, ChatMessage

_LEAST_ROOM, _MOST_ROOM = 256, 4_096
"""Tokens: an answer with little thinking; and more than most replies have."""
_LEAST_REPLY = 32
"""Tokens: with fewer, hardly a sentence comes, and of an R1 not even its thinking."""
_MOST_SHORTENED = 3
"""So many long messages are named at most."""
_QUOTED = 40
"""Characters of a message that are quoted."""

SUMMARY_REQUEST = (
    "Summarize our conversation so that it can be continued from your summary alone: what I wanted, what was "
    "found or decided and why, the facts, names, numbers and passages of code that matter, and what is still "
    "open. Write at most 300 words, without an introduction."
)


class DropOldest(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Leave out the oldest turns; the system prompt stays."""

    messages: tuple[int, ...]
    """Indices into the request's messages."""
    tokens: int
    """What that frees."""


class Shorten(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Shorten one long message, such as one with a file in it."""

    message: int
    """Index into the request's messages."""
    tokens: int
    """What it has now."""
    by: int
    """How many tokens too many that is."""


class Enlarge(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Load the model again with more context; memory allows it."""

    context: int


class StartAnew(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Begin a new conversation with a summary of this one."""


Offer = DropOldest | Shorten | Enlarge | StartAnew


def sound(offers: Iterable[Offer], messages: int) -> tuple[Offer, ...]:
    """Those of `offers` that name what is among so many messages, and do not drop the last of them.

    Who made them has read a stranger's model.
    """

    def is_sound(offer: Offer) -> bool:
        match offer:
            case DropOldest(messages=indices):
                return all(0 <= index < messages - 1 for index in indices)
            case Shorten(message=index):
                return 0 <= index < messages
        return True

    return tuple(filter(is_sound, offers))


def room_for_reply(context: int) -> int:
    """Tokens of a context that a prompt must leave to the beginning of a reply.

    An eighth, at least 256 and at most 4,096 tokens; but a quarter is enough in a tiny context.
    """
    return min(max(_LEAST_ROOM, context // 8), _MOST_ROOM, context // 4)


def fits(total: int, context: int, max_tokens: int | None = None) -> bool:
    """Whether a prompt of `total` tokens leaves enough for any reply: 32 tokens, or all of `max_tokens`.

    Less than `room_for_reply` may be enough, so that nobody is refused who is told later that it was cut.
    """
    least = min(_LEAST_REPLY, room_for_reply(context))
    return context - total >= max(1, least if max_tokens is None else min(least, max_tokens))


def over(total: int, context: int, max_tokens: int | None = None) -> int:
    """Tokens of a prompt of `total` tokens that must go; 0 if it fits.

    A reply of at most `max_tokens` is left no more room than it can use.
    """
    room = room_for_reply(context)
    return max(0, total - context + (room if max_tokens is None else min(room, max_tokens)))


def offers(
    tokens_per_message: Sequence[int],
    messages: Sequence[ChatMessage],
    total: int,
    context: int,
    enlarged: int | None,
    max_tokens: int | None = None,
) -> tuple[Offer, ...]:
    """What can be done about a prompt of `total` tokens that does not fit, the least harmful first.

    `tokens_per_message` are those of `messages`; `enlarged` is the largest context that the model supports
    and memory allows, None if that is not known. Empty if the prompt fits.
    """
    excess = over(total, context, max_tokens)
    if not excess:
        return ()
    found: list[Offer] = []
    if larger := _enough(total, context, enlarged or 0, max_tokens):
        found.append(Enlarge(larger))
    found += _long_messages(tokens_per_message, messages, excess, room_for_reply(context))
    if oldest := _oldest(tokens_per_message, messages, excess):
        found.append(oldest)
    if len(_turns(messages)) > 1:
        found.append(StartAnew())
    return tuple(found)


def _enough(total: int, context: int, most: int, max_tokens: int | None) -> int:
    """The smallest doubling of `context`, at most `most`, that holds the prompt; 0 if none does."""
    larger = context
    while over(total, larger, max_tokens) and larger < most:
        larger = min(2 * larger, most)
    return 0 if over(total, larger, max_tokens) else larger


def _long_messages(
    tokens: Sequence[int], messages: Sequence[ChatMessage], excess: int, long: int
) -> Iterator[Shorten]:
    """What the user wrote or attached: messages of `long` tokens that hold more than half of the excess."""
    worth = [
        index
        for index, message in enumerate(messages)
        if message.role != "assistant" and tokens[index] >= long and 2 * tokens[index] > excess
    ]
    for index in sorted(worth, key=lambda index: -tokens[index])[:_MOST_SHORTENED]:
        yield Shorten(index, tokens[index], min(excess, tokens[index]))


def _oldest(tokens: Sequence[int], messages: Sequence[ChatMessage], excess: int) -> DropOldest | None:
    """The fewest oldest turns that have `excess` tokens; never the last, which is not answered yet."""
    turns = _turns(messages)[:-1]
    freed = accumulate(sum(tokens[index] for index in turn) for turn in turns)
    for count, tokens_freed in enumerate(freed, 1):
        if tokens_freed >= excess:
            return DropOldest(tuple(index for turn in turns[:count] for index in turn), tokens_freed)
    return None


def _turns(messages: Sequence[ChatMessage]) -> list[list[int]]:
    """The indices of each question with its replies; system prompts belong to none."""
    turns: list[list[int]] = []
    for index, message in enumerate(messages):
        if message.role == "user" or (message.role == "assistant" and not turns):
            turns.append([])
        if message.role != "system":
            turns[-1].append(index)
    return turns


def without(messages: Sequence[ChatMessage], indices: Collection[int]) -> list[ChatMessage]:
    """`messages` but those at `indices`."""
    return [message for index, message in enumerate(messages) if index not in indices]


def summary_request(messages: Sequence[ChatMessage]) -> list[ChatMessage]:
    """The conversation so far with the request to summarize it; a question without a reply is left out.

    Where it was full already when the last reply ended, this does not fit either: ask for the cost first.
    """
    answered = list(messages)
    while answered and answered[-1].role != "assistant":
        answered.pop()
    return [*answered, ChatMessage("user", SUMMARY_REQUEST)]


def begun_anew(messages: Sequence[ChatMessage], summary: str) -> list[ChatMessage]:
    """A new conversation: the system prompts, the summary of `messages`, and the question without a reply."""
    system = [message for message in messages if message.role == "system"]
    question = messages[-1].content if messages and messages[-1].role == "user" else ""
    parts = (f"A summary of our conversation so far:\n\n{summary.strip()}", question)
    return [*system, ChatMessage("user", "\n\n".join(part for part in parts if part))]


def describe(offer: Offer, messages: Sequence[ChatMessage]) -> str:
    """What the offer does, for people: a short sentence without its period, to follow "You can"."""
    match offer:
        case DropOldest():
            return f"leave out {_named(offer, messages)} ({offer.tokens:,} tokens)"
        case Shorten():
            quoted = _quoted(messages[offer.message])
            if offer.by == offer.tokens:  # it is not all that is too much
                return f"leave out the message {quoted} ({offer.tokens:,} tokens), or most of it"
            return f"shorten the message {quoted} by {offer.by:,} of its {offer.tokens:,} tokens"
        case Enlarge():
            return f"enlarge the context to {offer.context:,} tokens"
        case StartAnew():
            return "begin a new conversation with a summary of this one"


def _named(offer: DropOldest, messages: Sequence[ChatMessage]) -> str:
    dropped = [messages[index] for index in offer.messages]
    questions = [message for message in dropped if message.role == "user"] or dropped
    if len(questions) == 1:
        return f"the oldest question and its reply, {_quoted(questions[0])}"
    return (
        f"the {len(questions)} oldest questions and their replies, "
        f"from {_quoted(questions[0])} to {_quoted(questions[-1])}"
    )


def _quoted(message: ChatMessage) -> str:
    # What the user wrote stands behind the files.
    said = message.content.rpartition(FILE_END)[2] or message.content
    line = clean_line(said[: 4 * _QUOTED])
    return f"“{line}”" if len(line) <= _QUOTED else f"“{line[: _QUOTED - 1].rstrip()}…”"
