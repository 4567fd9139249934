"""Which matrices are measured together: those that do the same in neighbouring layers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Final, NamedTuple

_BLOCK: Final = re.compile(r"blk\.(\d+)\.(.+)")
LEAST_BANDS: Final = 3
"""Of layers: the first and the last one are unlike all others."""


class Group(NamedTuple):
    """Matrices that are measured together."""

    name: str
    """For people, such as "ffn_down 3-5"."""
    tensors: tuple[str, ...]


def groups(tensors: Iterable[str], most: int) -> list[Group]:
    """All of `tensors` in about `most` groups, in the order in which their first ones come.

    Each group has one kind of matrix, of a band of layers that follow each other. The first and the last
    layer are bands of their own. There are never fewer than `LEAST_BANDS`.
    """
    kinds: dict[str, list[str]] = {}
    for name in tensors:
        match = _BLOCK.fullmatch(name)
        kinds.setdefault(match[2] if match else name, []).append(name)
    alone = [kind for kind, names in kinds.items() if len(names) == 1]
    bands = max(LEAST_BANDS, (most - len(alone)) // max(1, len(kinds) - len(alone)))
    return [
        Group(_called(kind, band), tuple(band))
        for kind, names in kinds.items()
        for band in _bands(sorted(names, key=_layer), bands)
    ]


def _bands(names: Sequence[str], count: int) -> list[Sequence[str]]:
    """`names` in at most `count` parts: the first, the last, and between them parts of about one length."""
    if len(names) <= count:
        return [[name] for name in names]
    inner, parts = names[1:-1], count - 2
    ends = [len(inner) * number // parts for number in range(parts + 1)]
    return [names[:1], *(inner[a:b] for a, b in pairwise(ends)), names[-1:]]


def _layer(name: str) -> int:
    match = _BLOCK.fullmatch(name)
    return int(match[1]) if match else -1


def _called(kind: str, names: Sequence[str]) -> str:
    first, last = _layer(names[0]), _layer(names[-1])
    short = kind.removesuffix(".weight")
    if first < 0:
        return short
    return f"{short} {first}" if first == last else f"{short} {first}-{last}"
