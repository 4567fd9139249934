"""Names of files that a hub, an index or an archive tells: data, refused unless they are harmless everywhere.

A name passes only if it is one and the same relative path under the rules of POSIX and of Windows at once,
also on disks that ignore case or rewrite Unicode, and if it looks like what it is. What passes is still only
used where a name is needed: models get names of our own.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import Final

from localai.errors import FetchError
from models.header import is_seen, printable

MAX_PART: Final = 240
"""Bytes of one part of a path; 255 are the most anywhere, and ends such as ".partial" must fit, too."""
MAX_PATH: Final = 1024
"""Bytes of a whole path."""
_FORBIDDEN: Final = frozenset('\\:*?"<>|')
"""Separators, drives, streams and wildcards of Windows."""
_DEVICE = re.compile(
    r"(con|prn|aux|nul|conin\$|conout\$|clock\$|(com|lpt)[0-9\u00b9\u00b2\u00b3])\s*(\..*)?", re.I
)
"""Names that Windows gives to devices, in any folder and with any ending."""
_SHORT = re.compile(r".{1,6}~[0-9]{1,6}(\..{0,3})?")
"""A name in the form 8.3, which Windows would take for another file."""
_INVISIBLE: Final = frozenset({"Cc", "Cf", "Cs", "Co", "Cn", "Zl", "Zp"})
"""Categories of what is not seen: controls, marks of direction and of width, halves of characters."""


def checked(name: str) -> PurePosixPath:
    """`name` as a relative path. FetchError, which shows it safely, if it is not harmless on every system."""
    if fault := _fault(name):
        raise FetchError(
            f"The source names a file {_shown(name)}, which {fault}: it is refused",
            "Do not use this source: an honest one has no such names",
        )
    return PurePosixPath(name)


def checked_all(names: Iterable[str]) -> list[PurePosixPath]:
    """All `names` as paths. FetchError, too, if two of them would be one, or one a folder of another."""
    paths = [checked(name) for name in names]
    seen: dict[str, PurePosixPath] = {}
    for path in paths:
        other = seen.setdefault(folded(str(path)), path)
        if other is not path:
            raise _clash(other, path)
    for path in paths:
        for folder in path.parents[:-1]:
            if file := seen.get(folded(str(folder))):
                raise _clash(file, path)
    return paths


def _clash(one: PurePosixPath, other: PurePosixPath) -> FetchError:
    return FetchError(
        f"The source names two files, {_shown(str(one))} and {_shown(str(other))}, "
        "that would be in each other's place on some disks: they are refused",
        "Do not use this source: an honest one has no such names",
    )


def folded(name: str) -> str:
    """What two names share that are one on a disk that ignores case, or that rewrites Unicode."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def _fault(name: str) -> str:
    """What is wrong with `name`, as the end of a sentence; "" if nothing is."""
    if not name:
        return "is empty"
    if any(unicodedata.category(char) in _INVISIBLE for char in name):
        return "has characters in it that are not seen"
    if len(name.encode()) > MAX_PATH:
        return "is too long"
    if name.startswith("/"):
        return "is absolute"
    if found := next((char for char in name if char in _FORBIDDEN), ""):
        return f"has {found!r} in it"
    if unicodedata.normalize("NFKC", name) != name:
        return "could be written in another way"
    return next(filter(None, map(_fault_of_part, name.split("/"))), "")


def _fault_of_part(part: str) -> str:
    if not part:
        return "has an empty part"
    if part.strip(". ") == "":
        return f"has the part {part!r}"
    if len(part.encode()) > MAX_PART:
        return "has a part that is too long"
    if part.endswith((".", " ")) or part.startswith(" "):
        return "has a part that begins with a space, or ends with a dot or a space"
    if any(char.isspace() and char != " " for char in part):
        return "has a space in it that is none"
    if part.startswith(("~", "-")):
        return f"has a part that begins with {part[0]!r}"
    if _DEVICE.fullmatch(part):
        return "is the name of a device on Windows"
    if _SHORT.fullmatch(part):
        return "is a short name on Windows"
    return ""


def _shown(name: str) -> str:
    """`name` between quotes, as one line; what is not seen is written as an escape."""
    escaped = "".join(
        char if is_seen(char) else char.encode("unicode_escape").decode() for char in name[:200]
    )
    return f'"{printable(escaped, 100)}"'
