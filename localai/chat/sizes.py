"""What the data of a chat template weighs, and what an operation would make of it, asked before it is done.

All raise LimitExceeded for too much, and SecurityError for what is not plain data.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from typing import Any, Final

from jinja2 import TemplateError
from jinja2.exceptions import SecurityError
from jinja2.runtime import Undefined

MAX_TEXT: Final = 1 << 19
"""Characters of one text that a template makes."""
ITEM: Final = 32
"""What each item in a list or dictionary weighs, beside its characters: about what it takes of memory."""
MAX_WEIGHT: Final = 4 << 20
"""Of one list or dictionary."""
MAX_DEPTH: Final = 32
"""Of lists in lists."""

_MAX_BITS: Final = 1024
_PER_STEP: Final = 2048
"""The weight that is compared or searched about as fast as a template does one step."""
_MAX_BACKWARDS: Final = 1 << 26
"""Characters that the interpreter may compare in a search that takes one text times the other."""
_SIZED: Final = frozenset({list, tuple, dict, range, type({}.keys()), type({}.values()), type({}.items())})
_MAX_FIELDS: Final = 16
_WIDTH = re.compile(r"\d{3}|\*|\{[^}]*\{")
"""In a pattern to format: a number of three digits, or a width that is given elsewhere."""


class LimitExceeded(TemplateError):
    """The template takes too long, or makes too much."""


def bounded(size: int, limit: int = MAX_TEXT) -> None:
    if size > limit:
        raise LimitExceeded("it makes a text or a list that is too long")


def weight(value: Any) -> int:
    """What `value` holds, each part counted as often as it is in there; TemplateError if that is too much."""
    if isinstance(value, str):
        bounded(len(value))
        return ITEM + len(value)
    total, left = 0, [(value, 0)]
    while left:
        item, depth = left.pop()
        total += _own_weight(item)
        if total > MAX_WEIGHT or depth > MAX_DEPTH:
            raise LimitExceeded("it makes a list that is too long or too deep")
        if isinstance(item, list | tuple):
            left += [(part, depth + 1) for part in item]
        elif isinstance(item, dict):
            left += [(part, depth + 1) for pair in item.items() for part in pair]
    return total


def _own_weight(item: Any) -> int:
    if item is None or isinstance(item, bool | float | Undefined):
        return ITEM
    if isinstance(item, str):
        return ITEM + len(item)
    if isinstance(item, list | tuple | dict):
        return ITEM * (1 + len(item))
    if isinstance(item, int):
        bounded(item.bit_length(), _MAX_BITS)
        return ITEM + item.bit_length()
    if isinstance(item, range):
        return ITEM
    raise SecurityError(f"it uses a {type(item).__name__} as data")


def effort(*values: Any) -> int:
    """The steps that it takes to compare these, or to search one for another.

    What lists hold isn't looked into: that would take longer than to compare them, and MAX_WEIGHT bounds it.
    """
    total = 0
    for value in values:
        if isinstance(value, str):
            total += len(value)
        elif type(value) in _SIZED:
            total += ITEM * len(value)
    return total // _PER_STEP


def effort_of_keys(keys: Iterable[Any]) -> int:
    """The steps that it takes to put these in a dictionary: numbers can be chosen to collide, texts can't."""
    others = sum(not isinstance(key, str) for key in keys)
    return others * others // 2


def check_numbers(*values: Any) -> None:
    """Of what subtracts or divides: the interpreter could subtract sets, too."""
    for value in values:
        if not isinstance(value, int | float | Undefined):
            raise TypeError(f"it calculates with a {type(value).__name__}")


def check_search(text: Any, sought: Any = None, *_: Any, **__: Any) -> None:
    """Of a search backwards, or for any of some characters, which takes one length times the other."""
    if isinstance(text, str) and isinstance(sought, str):
        bounded(len(text) * len(sought), _MAX_BACKWARDS)


def check_power(base: Any, exponent: Any) -> None:
    if isinstance(base, int) and isinstance(exponent, int):
        bounded(base.bit_length() * abs(exponent), _MAX_BITS)


def check_product(left: Any, right: Any) -> None:
    if isinstance(left, int) and isinstance(right, int):
        bounded(left.bit_length() + right.bit_length(), _MAX_BITS)
    elif isinstance(left, int):
        check_product(right, left)
    elif isinstance(left, str) and isinstance(right, int):
        bounded(len(left) * right)
    elif isinstance(left, list | tuple) and isinstance(right, int):
        bounded(weight(left) * right, MAX_WEIGHT)


def check_replacing(text: Any, old: Any, new: Any, *_: Any, **__: Any) -> None:
    if not (isinstance(text, str) and isinstance(old, str) and isinstance(new, str)):
        raise TemplateError("replace is for texts")
    bounded(len(text) + text.count(old) * len(new))


def _check_indent(text: Any, width: Any = 4, *_: Any, **__: Any) -> None:
    size = len(width) if isinstance(width, str) else width
    bounded(len(str(text)) + (str(text).count("\n") + 1) * int(size))


def _check_json(value: Any, indent: Any = None) -> None:
    weight(value)
    if indent not in (None, 0, 1, 2, 3, 4):
        raise LimitExceeded("it makes tojson indent by more than 4 characters")


CHECKS: Final[dict[str, Callable[..., None]]] = {
    "indent": _check_indent,
    "replace": check_replacing,
    "tojson": _check_json,
    "trim": check_search,
}
"""What filters are asked before they run."""


def formatted(pattern: str, values: Any, format_: Callable[[], str]) -> str:
    """What `format_` makes of `pattern`, if it has few fields without large widths."""
    weight(values)
    if pattern.count("%") + pattern.count("{") > _MAX_FIELDS or _WIDTH.search(pattern):
        raise LimitExceeded("it formats a text in a way that could make it very long")
    return format_()
