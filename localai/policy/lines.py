"""In which line of a TOML file a key stands: the parser tells that only of what it cannot parse.

Good enough for a message: a key that is written in an unusual way is said to be in the line of its table, or
in the first one.
"""

from __future__ import annotations

import re
from typing import Final

_TABLE: Final = re.compile(r"\s*\[+\s*([^\]]*?)\s*\]+")
_QUOTES: Final = str.maketrans("", "", "\"' \t")


def line_of(text: str, key: str) -> int:
    """The line, counted from 1, of `key` with its table, such as "require.sandbox"."""
    table, nearest = "", 1
    for number, line in enumerate(text.splitlines(), 1):
        if found := _TABLE.match(line):
            table = found[1].translate(_QUOTES)
            if table == key or key.startswith(f"{table}."):
                nearest = number
            if table == key:
                return number
        elif "=" in line:
            name = line.partition("=")[0].translate(_QUOTES)
            whole = f"{table}.{name}" if table else name
            if whole == key or whole.startswith(f"{key}."):
                return number
            if key.startswith(f"{whole}."):  # an inline table
                nearest = number
    return nearest


def part_with(text: str, value: str, otherwise: int) -> int:
    """The line in which the text `value` stands; `otherwise` if none has it as it is."""
    lines = text.splitlines()
    return next(
        (n for n, line in enumerate(lines, 1) if f'"{value}"' in line or f"'{value}'" in line), otherwise
    )
