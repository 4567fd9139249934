"""The store of conversations."""

from __future__ import annotations

from localai.history.store import History, Summary

__all__ = ["History", "Summary"]
