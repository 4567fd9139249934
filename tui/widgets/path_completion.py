"""Files to choose from while one types `@` and a part of a name."""

from __future__ import annotations

import asyncio
import os
import re
import time
from collections import deque
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final, NamedTuple

from textual.app import RenderResult
from textual.content import Content
from textual.geometry import Size
from textual.style import Style
from textual.widget import Widget

from localai.chat.clean import clean_line

MOST_FILES: Final = 5000
"""Files of the working folder that are looked at, those nearest to it first."""
MOST_SECONDS: Final = 1.0
"""For looking: a folder may lie on a slow network."""
MOST_OFFERED: Final = 50
ROWS: Final = 6
"""Of the list, on a screen that is tall enough."""

_MENTION: Final = re.compile(r"(?:^|(?<=[\s(\[{\"']))@([^\s@]*)$")
_OUTSIDE: Final = ("/", "~", "./", "../")
_DULL: Final = frozenset({"node_modules", "__pycache__", "site-packages"})
"""Folders, besides hidden ones, whose files nobody asks about."""


class Mention(NamedTuple):
    """An `@` and what is typed behind it."""

    column: int
    """Where the `@` stands in its line."""
    query: str


def mention_at(line: str, column: int) -> Mention | None:
    """The mention that is being typed at that column of a line; an address such as a@b is none."""
    match = _MENTION.search(line[:column])
    return Mention(match.start(), match[1]) if match else None


def files_below(folder: Path, most: int = MOST_FILES, seconds: float = MOST_SECONDS) -> list[str]:
    """Files below `folder`, as paths from there with "/", nearer ones first.

    Without hidden files and folders; links to folders are not followed. Folders that cannot be read are
    left out. Stops at `most` files or after `seconds`.
    """
    end = time.monotonic() + seconds
    found: list[str] = []
    waiting = deque([""])
    while waiting and len(found) < most and time.monotonic() < end:
        below = waiting.popleft()
        for name, is_folder in _entries(folder / below):
            if is_folder and name not in _DULL:
                waiting.append(f"{below}{name}/")
            elif not is_folder:
                found.append(f"{below}{name}")
    return found[:most]


def paths_from(query: str, folder: Path) -> list[str]:
    """What a query that begins as a path ("/", "~", "./", "../") may go on to; folders end with "/"."""
    if query in ("~", ".", ".."):
        return [f"{query}/"]
    start, slash, part = query.rpartition("/")
    start += slash
    try:
        entries = _entries(folder / Path(start).expanduser(), hidden=part.startswith("."), links=True)
    except RuntimeError:  # ~name of nobody
        return []
    names = [f"{name}/" if is_folder else name for name, is_folder in entries]
    return [f"{start}{name}" for name in ranked(names, part)]


def _entries(folder: Path, *, hidden: bool = False, links: bool = False) -> list[tuple[str, bool]]:
    """Names in a folder, and whether each is a folder, sorted. What is neither file nor folder is left out.

    `hidden`: only hidden ones, else none of them; `links`: whether a link to a folder is one.
    """
    entries: list[tuple[str, bool]] = []
    try:
        with os.scandir(folder) as scan:
            for entry in scan:
                if len(entries) >= MOST_FILES:
                    break
                if entry.name.startswith(".") != hidden:
                    continue
                if entry.is_dir(follow_symlinks=links) or entry.is_file():
                    entries.append((entry.name, entry.is_dir()))
    except (OSError, ValueError):
        return []
    return sorted(entries)


def ranked(paths: Iterable[str], query: str) -> list[str]:
    """The paths that fit, best first: by the beginning of the name, then by a part of the path, then loosely.

    Loosely: the name has the letters of the query in their order. Case plays no part.
    """
    wanted = query.lower()
    loose = re.compile(".*?".join(map(re.escape, wanted)))
    fitting: list[tuple[int, int, str]] = []
    for path in paths:
        low = path.lower()
        name = low.rstrip("/").rpartition("/")[2]
        if name.startswith(wanted) or low.startswith(wanted):
            rank = 0
        elif wanted in name:
            rank = 1
        elif wanted in low:
            rank = 2
        elif len(wanted) > 1 and loose.search(name):
            rank = 3
        else:
            continue
        fitting.append((rank, path.rstrip("/").count("/"), path))
    return [path for _, _, path in sorted(fitting)[:MOST_OFFERED]]


class PathCompletion(Widget):
    """The list; the composer that it stands above keeps the keyboard and steers it.

    `taken` is called with the path that was chosen by a click.
    """

    DEFAULT_CSS = """
    PathCompletion {
        display: none;
        width: 100%;
        max-width: 97;
        height: auto;
        padding: 0 1;
        color: $text-muted;
        background: $surface;
    }
    """

    auto_links = False

    def __init__(self, taken: Callable[[str], None]) -> None:
        super().__init__()
        self._taken = taken
        self._paths: list[str] = []
        self._index = 0
        self._mention: Mention | None = None
        self._listing: asyncio.Task[list[str]] | None = None
        self._closed_at: int | None = None
        """Column of the mention whose list was closed by hand: it stays closed."""
        self.folder: Path | None = None
        """Where paths begin; None: the folder that the program works in."""

    def chosen(self, mention: Mention | None) -> str | None:
        """The path that stands out, if the list is open and for that mention."""
        is_open = self.display and bool(self._paths)
        return self._paths[self._index] if is_open and mention == self._mention else None

    def follow(self, line: str, column: int) -> None:
        """The cursor is at that column of that line: offer what fits there, or nothing."""
        mention = mention_at(line, column)
        if mention is None:
            self.stop()
        elif mention != self._mention:
            self._mention = mention
            if self._closed_at != mention.column:
                self._closed_at = None
                self.run_worker(self._look(mention), group="look", exclusive=True)

    def stop(self) -> None:
        """There is nothing to complete."""
        self._mention = self._listing = self._closed_at = None
        self._offer([])

    def close(self) -> None:
        """The user does not want this one completed."""
        self._closed_at = self._mention.column if self._mention else None
        self._offer([])

    def move(self, step: int) -> None:
        """Choose the next path, or the one before for -1; from the last to the first."""
        self._index = (self._index + step) % max(1, len(self._paths))
        self.refresh()

    def path_of(self, path: str) -> Path:
        """The file that an offered path means."""
        return (self.folder or Path()) / Path(path).expanduser()

    async def _look(self, mention: Mention) -> None:
        folder = self.folder or Path()
        if mention.query.startswith(_OUTSIDE) or mention.query in (".", ".."):
            paths = await asyncio.to_thread(paths_from, mention.query, folder)
        else:
            if self._listing is None:
                # Once for each mention, however many letters it gets.
                self._listing = asyncio.create_task(asyncio.to_thread(files_below, folder))
            paths = ranked(await asyncio.shield(self._listing), mention.query)
        if mention == self._mention and self._closed_at is None:
            self._offer(paths)

    def _offer(self, paths: list[str]) -> None:
        self._paths, self._index = paths, 0
        self.display = bool(paths)
        self.refresh(layout=True)

    # ------------------------------------------------------------------------------------------- showing

    def action_take(self, index: int) -> None:
        """A path was clicked."""
        if index < len(self._paths):
            self._taken(self._paths[index])

    def get_content_height(self, container: Size, viewport: Size, width: int) -> int:
        return len(self._rows())

    def _rows(self) -> range:
        """Numbers of the paths that are shown; the chosen one is among them."""
        most = min(ROWS, max(1, self.app.size.height // 4), len(self._paths))
        first = min(max(0, self._index - most // 2), len(self._paths) - most)
        return range(first, first + most)

    def render(self) -> RenderResult:
        return Content("\n").join([self._row(index) for index in self._rows()])

    def _row(self, index: int) -> Content:
        width = max(1, self.content_size.width)
        path = clean_line(self._paths[index])
        if len(path) > width - 2:
            path = "…" + path[-(width - 3) :]  # its end says more than its beginning
        chosen = index == self._index
        row = Content(f"{'›' if chosen else ' '} {path}").truncate(width, ellipsis=True, pad=True)
        row = row.stylize(Style.from_meta({"@click": f"take({index})"}))
        return row.stylize("$foreground bold" if chosen else "$text-muted")
