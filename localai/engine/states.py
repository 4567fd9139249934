"""What the engine's cache held of a conversation, as bytes that the app keeps for it.

A state is worth seconds to minutes of reading the conversation again. What is in it is the worker's business;
it fits only a model that was loaded with the same fingerprint.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator

import msgspec

from localai import hardware

PART_BYTES = 1024 * 1024
"""A state passes the pipe quickest in parts of this size; a quarter or 16 times of it halve the speed."""
MEMORY_SHARE = 8
"""States may take one part in so many of the memory that is available at the start."""
MAX_CACHE_BYTES = 2 * 1024**3


class State(msgspec.Struct, frozen=True):
    """The cache state of one conversation."""

    fingerprint: str
    """Of the `protocol.Loaded` that it was saved from."""
    parts: list[bytes]

    @property
    def size(self) -> int:
        """Bytes."""
        return sum(len(part) for part in self.parts)

    def pieces(self) -> Iterator[bytes]:
        """Its bytes in order, in pieces of at most `PART_BYTES`."""
        for part in self.parts:
            if len(part) <= PART_BYTES:
                yield part
            else:
                for begin in range(0, len(part), PART_BYTES):
                    yield part[begin : begin + PART_BYTES]


class StateCache:
    """States in memory, by conversation and fingerprint; what was not used for longest goes first."""

    def __init__(self, limit: int | None = None) -> None:
        """`limit` in bytes; None: an eighth of the memory that is available now, at most 2 GiB."""
        if limit is None:
            limit = min(hardware.available_memory() // MEMORY_SHARE, MAX_CACHE_BYTES)
        self.limit = limit
        self._states: OrderedDict[tuple[str, str], State] = OrderedDict()
        """The least recently used first."""
        self._bytes = 0

    @property
    def bytes(self) -> int:
        """What all states together occupy."""
        return self._bytes

    def put(self, key: str, state: State) -> None:
        """Keep `state` for the conversation `key`; one that is larger than the limit is not kept."""
        if state.size > self.limit:
            return
        self._remove((key, state.fingerprint))
        self._states[key, state.fingerprint] = state
        self._bytes += state.size
        while self._bytes > self.limit:
            self._remove(next(iter(self._states)))

    def get(self, key: str, fingerprint: str | None = None) -> State | None:
        """The state of a conversation for a model; without `fingerprint`, the last used for any."""
        for entry in reversed(self._states):
            if entry[0] == key and fingerprint in (None, entry[1]):
                self._states.move_to_end(entry)
                return self._states[entry]
        return None

    def discard(self, key: str) -> None:
        """Forget the states of a conversation."""
        for entry in [entry for entry in self._states if entry[0] == key]:
            self._remove(entry)

    def clear(self) -> None:
        """Forget all."""
        self._states.clear()
        self._bytes = 0

    def _remove(self, entry: tuple[str, str]) -> None:
        state = self._states.pop(entry, None)
        if state is not None:
            self._bytes -= state.size
