"""What the user has set for the program itself. Stored with the conversations, each value under its name."""

from __future__ import annotations

from typing import Final, Literal, get_args

from localai.errors import LocalAIError
from localai.history import History

ThinkingMode = Literal["open", "folded", "hidden"]
"""How thoughts are shown: always open; open until the answer starts; only that the model thinks."""
SendKey = Literal["enter", "ctrl+enter"]
"""What sends a message. With "ctrl+enter", Enter begins a new line; Ctrl+S sends too."""

THINKING_MODES: Final[tuple[ThinkingMode, ...]] = get_args(ThinkingMode)
SEND_KEYS: Final[tuple[SendKey, ...]] = get_args(SendKey)


class Preferences:
    """The settings, read once. What cannot be stored holds until the program ends."""

    def __init__(self, history: History) -> None:
        self._history = history
        found = {name: self._read(name) for name in ("thinking", "theme", "send_key")}
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

    def _read(self, name: str) -> str:
        try:
            return self._history.setting(name) or ""
        except LocalAIError:
            return ""  # the conversations will say what is wrong
