"""Numbers, durations and dates as people read them."""

from __future__ import annotations

from datetime import date, datetime
from typing import Final

GAUGE: Final = "▰▱"


def count(number: int) -> str:
    """1234 -> "1,234"."""
    return f"{number:,}"


def duration(seconds: float) -> str:
    """0.42 -> "under 1 s", 12.3 -> "12 s", 125 -> "2 min 5 s"."""
    if seconds < 1:
        return "under 1 s"
    whole = round(seconds)
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def left(seconds: float) -> str:
    """What is still to be waited for, no more exactly than it can be known: "40 s", "12 min", "3 h 5 min"."""
    if seconds < 100:
        return f"{max(1, round(seconds))} s"
    minutes = round(seconds / 60)
    return f"{minutes} min" if minutes < 100 else f"{minutes // 60} h {minutes % 60} min"


def size(number: int) -> str:
    """Bytes in the units of disks: 98362432 -> "98 MB", 4683073536 -> "4.7 GB"."""
    value = float(number)
    for unit in ("B", "kB", "MB"):
        if value < 999.5:
            return f"{value:.0f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"


def rate_words(tokens_per_s: float) -> str:
    """A speed that is only estimated: "7 tokens/s", "0.4 tokens/s"."""
    return f"{_rate(tokens_per_s)} tokens/s"


def rate_sign(tokens_per_s: float, *, measured: bool = False) -> str:
    """The same where there is little room: "~7 tok/s", or as measured: "7 tok/s"."""
    return f"{'' if measured else '~'}{_rate(tokens_per_s)} tok/s"


def _rate(tokens_per_s: float) -> str:
    return f"{tokens_per_s:.0f}" if tokens_per_s >= 3 else f"{tokens_per_s:.1f}"


def gauge(share: float, cells: int = 8) -> str:
    """A bar of `cells` characters, filled to `share` (0 to 1); anything above 0 fills at least one."""
    full = min(cells, max(0, round(share * cells)))
    if share > 0:
        full = max(full, 1)
    return GAUGE[0] * full + GAUGE[1] * (cells - full)


def day(then: float, now: float) -> str:
    """The heading for a conversation of `then`, seen at `now`; both in seconds since the epoch."""
    at, today = datetime.fromtimestamp(then).date(), datetime.fromtimestamp(now).date()
    days = (today - at).days
    if days <= 0:
        return "Today"
    if days == 1:
        return "Yesterday"
    return "This week" if days < 7 else _month(at, today)


def when(then: float, now: float) -> str:
    """The day of `then` in a sentence, seen at `now`: "today", "yesterday", "on 3 March 2025"."""
    at, today = datetime.fromtimestamp(then).date(), datetime.fromtimestamp(now).date()
    days = (today - at).days
    if days < 2:
        return "yesterday" if days == 1 else "today"
    return f"on {at.day} {at:%B}" if at.year == today.year else f"on {at.day} {at:%B %Y}"


def _month(at: date, today: date) -> str:
    return f"{at:%B}" if at.year == today.year else f"{at:%B %Y}"
