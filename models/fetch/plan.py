"""What one fetch will do: the files to transfer, in order, and what is made of them at the end."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias

from models.fetch.protocol import FetchedFile, Listed, Resolved
from models.fetch.wanted import Wanted
from models.progress import Progress

Finish: TypeAlias = Callable[[Path, Sequence[FetchedFile], Progress], tuple[FetchedFile, ...]]
"""Makes in a folder, out of what has come there, what was wanted."""


@dataclass(frozen=True)
class Item:
    """One file to transfer."""

    listed: Listed
    name: str
    """Of the file below the folder: one of our own, or one that `models.remote_names` has checked."""
    wanted: Wanted | None
    """How it is had over the network; None: it is the file `local` on this machine."""
    local: Path | None = None


@dataclass(frozen=True)
class Plan:
    """What a source means, and how it is had."""

    resolved: Resolved
    items: tuple[Item, ...]
    header_first: bool = True
    """Whether the first file is a GGUF file, whose header tells early whether it can be used."""
    finish: Finish | None = None
    """None: what has come is what was wanted."""
    present: Callable[[Path, Progress], tuple[FetchedFile, ...]] | None = None
    """What `finish` has made in a folder already, verified; empty if it is not there."""
