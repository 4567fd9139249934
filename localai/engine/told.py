"""What the app makes of a worker's words, which a model may have taken over: what it can vouch for."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final

import msgspec

from localai.chat import budget
from localai.engine import protocol

LONGEST_WORDS: Final = 4096
"""Characters of each thing that a model says of itself."""
MOST_NOTES: Final = 64


def bound(model: protocol.Loaded, request: protocol.Load) -> protocol.Loaded:
    """`model` with a fingerprint that is that file's alone, and with words that people can be shown.

    A model that has taken its worker over can call itself another: what it saves must not be given to that.
    """
    file = request.sha256 or request.path
    found = hashlib.sha256("\0".join((file, model.fingerprint)).encode(errors="surrogateescape"))
    words = {name: value[:LONGEST_WORDS] for name, value in _texts(model)}
    notes = tuple(note[:LONGEST_WORDS] for note in model.notes[:MOST_NOTES])
    return msgspec.structs.replace(model, **{**words, "notes": notes, "fingerprint": found.hexdigest()})


def _texts(model: protocol.Loaded) -> Iterator[tuple[str, str]]:
    fields = msgspec.structs.asdict(model).items()
    return ((name, value) for name, value in fields if isinstance(value, str))


def sound(event: protocol.Event, request: protocol.Generate | protocol.Continue) -> protocol.Event:
    """`event` without offers about messages that are not in `request`."""
    if not isinstance(event, protocol.Overflow):
        return event
    messages = request.messages if isinstance(request, protocol.Generate) else ()
    return msgspec.structs.replace(event, offers=budget.sound(event.offers, len(messages)))
