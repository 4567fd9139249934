"""The files of a transfer, beside the one that it makes."""

from __future__ import annotations

from pathlib import Path

from models import files


class Places:
    """Where what comes is, what of it can be trusted, and who fetches it."""

    def __init__(self, target: Path) -> None:
        self.target = target
        self.partial = target.with_name(f"{target.name}.partial")
        self.journal = target.with_name(f"{target.name}.journal")
        self.lock = target.with_name(f"{target.name}.lock")

    def forget(self) -> None:
        """Throw away what came: first what claims that it is there."""
        for path in (self.journal, self.journal.with_name(f"{self.journal.name}.new"), self.partial):
            files.discard(path)
