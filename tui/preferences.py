"""What the user has set for the program itself. Stored with the conversations, each value under its name."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Literal, get_args

from localai import policy
from localai.errors import LocalAIError
from localai.history import History

ThinkingMode = Literal["open", "folded", "hidden"]
"""How thoughts are shown: always open; open until the answer starts; only that the model thinks."""
SendKey = Literal["enter", "ctrl+enter"]
"""What sends a message. With "ctrl+enter", Enter begins a new line; Ctrl+S sends too."""

THINKING_MODES: Final[tuple[ThinkingMode, ...]] = get_args(ThinkingMode)
SEND_KEYS: Final[tuple[SendKey, ...]] = get_args(SendKey)
KEEP_DAYS: Final = (0, 365, 90, 30, 7)
"""How long a conversation may be left alone before it is deleted; 0: for ever."""


class Preferences:
    """The settings, read once. What cannot be stored holds until the program ends."""

    def __init__(self, history: History, now: Callable[[], float] = time.time) -> None:
        """`now`: seconds since the epoch."""
        self._history = history
        self._now = now
        found = {name: self._read(name) for name in ("thinking", "theme", "send_key", "keep_days")}
        self.most_days = policy.current().retention_days
        """For how long the organization lets conversations be kept; None: for ever."""
        self.keep_choices = tuple(days for days in KEEP_DAYS if days <= (self.most_days or days))
        """What the user can choose; 0: for as long as the organization lets them be kept."""
        self.keep_days = next((days for days in self.keep_choices if str(days) == found["keep_days"]), 0)
        self.thinking: ThinkingMode = next((m for m in THINKING_MODES if m == found["thinking"]), "folded")
        self.send_key: SendKey = next((k for k in SEND_KEYS if k == found["send_key"]), "enter")
        self.theme = found["theme"]
        """Name of a theme; empty: the program's own."""

    def set_thinking(self, mode: ThinkingMode) -> None:
        """How thoughts are shown from now on; raises `HistoryError` if it cannot be stored."""
        self.thinking = mode
        self._history.set_setting("thinking", mode)

    def set_send_key(self, key: SendKey) -> None:
        """What sends a message from now on; raises `HistoryError` if it cannot be stored."""
        self.send_key = key
        self._history.set_setting("send_key", key)

    def set_theme(self, name: str) -> None:
        """The theme from now on; raises `HistoryError` if it cannot be stored."""
        self.theme = name
        self._history.set_setting("theme", name)

    def set_keep_days(self, days: int) -> None:
        """How long conversations are kept from now on; raises `HistoryError` if it cannot be stored.

        PolicyError for a time that is none of `keep_choices`.
        """
        if days not in self.keep_choices:
            raise policy.current().error("require.retention_days", f"{days} days are too long")
        self._history.set_setting("keep_days", str(days))
        self.keep_days = days

    def old(self, days: int | None = None) -> list[str]:
        """Conversations that were not changed for `days`, by default for as long as they are kept.

        None of them is pinned. What cannot be read is nothing.
        """
        wanted = self.keep_days if days is None else days
        try:
            return self._history.expired(wanted, self._now()) if wanted else []
        except LocalAIError:
            return []

    def _read(self, name: str) -> str:
        try:
            return self._history.setting(name) or ""
        except LocalAIError:
            return ""  # the conversations will say what is wrong
