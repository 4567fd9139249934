"""Find the texts that end an answer while it streams.

The answer arrives in pieces of any size. `feed` gives back what is safe to show and holds back only what may
still become a stop. However the text is cut, the outcome is that of a search in the whole of it: the match
that begins earliest wins, at the same place the longest. So a stop that is complete is not reported while a
longer one that begins no later may still come; `finish` settles what is open when the text ends.
"""

from __future__ import annotations

import re
from collections.abc import Sequence


class StopStrings:
    """One answer. `stop`: the texts that end it; empty ones and duplicates are ignored."""

    def __init__(self, stop: Sequence[str]) -> None:
        self._stops = sorted({text for text in stop if text}, key=lambda text: (-len(text), text))
        self._longest = len(self._stops[0]) if self._stops else 0
        self._firsts = frozenset(text[0] for text in self._stops)
        # Of the alternatives the first that matches is taken, so the longest comes first.
        self._any = re.compile("|".join(map(re.escape, self._stops)))
        self._held = ""
        self.found: str | None = None
        """The stop that ended the answer, once there is one. What comes after it is dropped."""

    def feed(self, piece: str) -> tuple[str, str | None]:
        """Take the next piece; the text that is safe to show now, and the stop if one was found.

        The stop itself is never shown.
        """
        if not self._stops:
            return piece, None
        if self.found is not None:
            return "", self.found
        self._held += piece
        match = self._any.search(self._held)
        open_at = self._open(match)
        if match is None or open_at <= match.start():
            shown, self._held = self._held[:open_at], self._held[open_at:]
            return shown, None
        return self._end(match), self.found

    def finish(self) -> str:
        """The text ends here: release what was held back, up to a stop in it (then `found` tells which)."""
        match = self._any.search(self._held) if self._held else None
        if match is not None:
            return self._end(match)
        shown, self._held = self._held, ""
        return shown

    def _open(self, match: re.Match[str] | None) -> int:
        """Where a stop that begins no later than `match` may still be coming; the held length if nowhere."""
        text = self._held
        end = len(text) if match is None else match.start() + 1
        for start in range(max(0, len(text) - self._longest + 1), end):
            if text[start] in self._firsts:
                rest = text[start:]
                if any(len(stop) > len(rest) and stop.startswith(rest) for stop in self._stops):
                    return start
        return len(text)

    def _end(self, match: re.Match[str]) -> str:
        """The text before the stop that was found."""
        shown, self._held = self._held[: match.start()], ""
        self.found = match.group()
        return shown
