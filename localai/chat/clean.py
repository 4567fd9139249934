"""Text that is safe to show: without the characters that command a terminal or reorder a line.

Everything that comes from a model or a user passes through `clean` before it reaches a screen or an export.
"""

from __future__ import annotations

from typing import Final

_C0: Final = [c for c in range(0x20) if chr(c) not in "\n\t"]
_DEL_AND_C1: Final = range(0x7F, 0xA0)
_BIDI: Final = [*range(0x202A, 0x202F), *range(0x2066, 0x206A)]
# A lone surrogate is no character: no terminal shows it, no file and no database can hold it.
_SURROGATES: Final = range(0xD800, 0xE000)

_REMOVED: Final = dict.fromkeys([*_C0, *_DEL_AND_C1, *_BIDI, *_SURROGATES])


def clean(text: str) -> str:
    """`text` without C0 (newline and tab stay), DEL, C1, bidi overrides and isolates, and lone surrogates.

    Stateless, so pieces of a stream may be cleaned one by one: clean(a + b) == clean(a) + clean(b).
    What follows an escape character stays as the plain text that it then is.
    """
    return text.translate(_REMOVED)
