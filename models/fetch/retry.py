"""What went wrong on the way and may be tried again, and how long to wait before that."""

from __future__ import annotations

import random
import re
from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_LONGEST: Final = 999_999_999.0
"""Seconds."""


class Broken(Exception):
    """A request or its answer failed in a way that another try may mend."""

    def __init__(
        self,
        reason: str,
        *,
        wait: float | None = None,
        crowded: bool = False,
        attempts: int = 1000,
        expired: bool = False,
        host: str = "",
    ) -> None:
        """`reason`: for people; "it" is the server, `host`.

        `wait`: the seconds that the server asks for. `crowded`: it has too much to do. `attempts`: how often
        in a row it may happen at most. `expired`: the address it was redirected to is no longer good.
        """
        super().__init__(reason)
        self.reason, self.wait, self.crowded, self.attempts = reason, wait, crowded, attempts
        self.expired, self.host = expired, host


class Changed(Exception):
    """The file at the source is another one than that of which something has come."""


def back_off(failures: int, first: float, longest: float) -> float:
    """Seconds to wait after so many failures in a row: twice as long each time, and never the same twice."""
    return min(longest, first * 2.0 ** min(failures - 1, 30)) * random.uniform(0.5, 1.0)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> float | None:
    """The seconds that Retry-After asks for, as a number or a date; None if it is not there, or wrong."""
    text = headers.get("Retry-After", "").strip()
    if re.fullmatch(r"[0-9]{1,9}", text):
        return float(text)
    try:
        date = parsedate_to_datetime(text)
        if date.tzinfo is None:
            date = date.replace(tzinfo=UTC)
        seconds = (date - (now or datetime.now(UTC))).total_seconds()
    except (ValueError, OverflowError):  # Also of a zone that is further away than a day
        return None
    return min(max(0.0, seconds), _LONGEST)
