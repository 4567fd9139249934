"""What a hub tells about one revision of a repository."""

from __future__ import annotations

from dataclasses import dataclass

from models.fetch.protocol import Listed


@dataclass(frozen=True)
class Listing:
    """A revision of a repository."""

    repository: str
    commit: str
    """40 hexadecimal digits, or "" if the hub tells none."""
    files: dict[str, Listed]
    """By their paths, which are untrusted."""
