"""How a reply ended: as the words that are stored with it, and as sentences for the reader.

The store has one text for it, `Message.finish_reason`: of a reply that failed the error's line, of any other
the engine's reason and, as `name=value`, what else a reader must know when the reply is shown again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Literal

import msgspec

from localai.chat import budget
from localai.chat.budget import DropOldest, Enlarge, describe
from localai.chat.conversation import Message
from localai.chat.messages import ChatMessage
from localai.engine.protocol import Begun, Looping, Overflow
from tui.format import count

LOOP_QUOTED: Final = 40
"""Characters of a passage that comes again and again which are enough to know it by."""

AnswerKind = Literal["text", "empty", "none"]
ClosedBy = Literal["", "user", "budget"]


class Outcome(msgspec.Struct, frozen=True):
    """What is stored of the end of a reply that did not fail."""

    reason: str = ""
    """The engine's: "stop", "length", "context" or "cancelled"."""
    answer: AnswerKind = "text"
    """"empty": not a word after the thinking; "none": the thinking never ended."""
    closed: ClosedBy = ""
    """Who closed the thinking; "": the model, or there was none."""
    left_out: int = 0
    """Messages of the conversation that the model was not shown."""

    def words(self) -> str:
        """The text to store."""
        fields = msgspec.structs.asdict(self)
        reason, default = fields.pop("reason"), msgspec.structs.asdict(Outcome())
        return " ".join([reason, *(f"{k}={v}" for k, v in fields.items() if v != default[k])])


def outcome_of(message: Message) -> Outcome:
    """What was stored of the end of a reply; text that is none of ours counts as nothing known."""
    if message.state == "failed":
        return Outcome()
    reason, *rest = message.finish_reason.split(" ")
    try:
        known = dict(word.split("=", 1) for word in rest)
        return msgspec.convert({"reason": reason, **known}, Outcome, strict=False)
    except (ValueError, msgspec.ValidationError):
        return Outcome(reason)


def sound(overflow: Overflow, prompt: Sequence[ChatMessage]) -> Overflow:
    """`overflow` without offers that name messages which `prompt` has not, or would drop its question."""
    return msgspec.structs.replace(overflow, offers=budget.sound(overflow.offers, len(prompt)))


Remedy = DropOldest | Enlarge
"""An offer that needs nothing but the user's word."""


def remedy_of(overflow: Overflow) -> Remedy | None:
    """The first offer that is only to be taken."""
    found = [offer for offer in overflow.offers if isinstance(offer, Remedy)]
    return found[0] if found else None


def overflow_words(overflow: Overflow, prompt: Sequence[ChatMessage]) -> str:
    """By how much `prompt` does not fit, and what can be done about it, each with its number."""
    too_long = (
        f"This does not fit: the conversation has {count(overflow.prompt_tokens)} tokens, the context "
        f"{count(overflow.context)}, and a reply needs room. {count(overflow.over)} tokens must go"
    )
    ways = [describe(offer, prompt) for offer in overflow.offers]
    if len(ways) < 2:
        return f"{too_long}. You can {ways[0]}" if ways else too_long
    numbered = [f"({number}) {way}" for number, way in enumerate(ways, 1)]
    return f"{too_long}. You can {', '.join(numbered[:-1])} or {numbered[-1]}"


def remedy_words(overflow: Overflow) -> str:
    """What Ctrl+R does about it; empty if nothing can be done that easily."""
    if (remedy := remedy_of(overflow)) is None:
        return ""
    which = f"({overflow.offers.index(remedy) + 1})" if len(overflow.offers) > 1 else "that"
    return f"Ctrl+R does {which}"


def loop_words(looping: Looping) -> str:
    """That the reply repeats itself, and the keys that end it."""
    passage = " ".join(looping.text.split())
    if len(passage) > LOOP_QUOTED:
        passage = f"{passage[:LOOP_QUOTED].rstrip()}…"
    return f"It repeats itself: “{passage}” ({count(looping.times)} times). {loop_keys(looping)}"


def loop_keys(looping: Looping) -> str:
    """The keys that end it."""
    return "Ctrl+G answer now · Esc stop" if looping.proposal == "answer-now" else "Esc stop"


def unfinished(message: Message) -> bool:
    """Whether a reply ended before the model was done with it, so that it can be gone on with."""
    if message.role != "assistant" or not (message.content or message.thinking):
        return False
    if message.state == "complete":
        return outcome_of(message).reason in ("length", "context")
    return message.state in ("stopped", "failed")


def begun_of(message: Message) -> Begun:
    """What was written of a reply, for the engine to go on with."""
    answering = bool(message.content) or outcome_of(message).answer == "empty"
    return Begun(message.thinking, message.content, answering)
