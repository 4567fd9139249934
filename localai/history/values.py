"""Values as the database can hold them.

A lone surrogate, half of a character, is in no UTF-8: it becomes U+FFFD. JSON has no numbers that are not
finite: they are refused.
"""

from __future__ import annotations

import math
from typing import Any, Final

import msgspec

from localai.errors import HistoryError

_SURROGATES: Final = dict.fromkeys(range(0xD800, 0xE000), "\ufffd")


def whole(value: Any) -> Any:
    """The same, and all that is in it, without lone surrogates."""
    if isinstance(value, str):
        return value.translate(_SURROGATES)
    if isinstance(value, list | tuple):
        return [whole(item) for item in value]
    if isinstance(value, dict):
        return {whole(name): whole(item) for name, item in value.items()}
    return value


def as_json(value: object) -> str:
    """`value` as JSON. Raises HistoryError for a number that is not finite: it would come back as nothing."""
    plain = msgspec.to_builtins(value)
    _check(plain)
    try:
        return msgspec.json.encode(plain).decode()
    except UnicodeEncodeError:
        return msgspec.json.encode(whole(plain)).decode()


def _check(value: Any) -> None:
    if isinstance(value, float) and not math.isfinite(value):
        raise HistoryError(f"A setting is {value}, which cannot be stored", "Choose a number, such as -100")
    for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
        _check(item)
