"""The store of conversations, its search, and the engine's states that belong to them."""

from __future__ import annotations

from localai.history.search import Hit
from localai.history.states import StateStore
from localai.history.store import Draft, History, Kept, Preset, Summary

__all__ = ["Draft", "History", "Hit", "Kept", "Preset", "StateStore", "Summary"]
