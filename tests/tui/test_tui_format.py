"""Numbers, durations and dates as people read them."""

from __future__ import annotations

import pytest

from tui import format as f

NOON = 1_767_268_800.0  # 2026-01-01 12:00 UTC
DAY = 86_400.0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "under 1 s"),
        (0.42, "under 1 s"),
        (1, "1 s"),
        (59.4, "59 s"),
        (59.6, "1 min 0 s"),
        (3725, "62 min 5 s"),
    ],
)
def test_duration(seconds: float, text: str) -> None:
    assert f.duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1 kB"),
        (999_600, "1 MB"),
        (98_362_432, "98 MB"),
        (4_683_073_536, "4.7 GB"),
    ],
)
def test_size(number: int, text: str) -> None:
    assert f.size(number) == text


@pytest.mark.parametrize(
    ("share", "bar"), [(0, "▱▱▱▱"), (0.01, "▰▱▱▱"), (0.5, "▰▰▱▱"), (1, "▰▰▰▰"), (1.2, "▰▰▰▰")]
)
def test_gauge(share: float, bar: str) -> None:
    assert f.gauge(share, 4) == bar


@pytest.mark.parametrize(
    ("days", "heading"),
    [
        (-1, "Today"),
        (0, "Today"),
        (1, "Yesterday"),
        (6, "This week"),
        (7, "December 2025"),
        (400, "November 2024"),
    ],
)
def test_day(days: int, heading: str) -> None:
    assert f.day(NOON - days * DAY, NOON) == heading


def test_count() -> None:
    assert f.count(1234567) == "1,234,567"


def test_a_month_of_this_year() -> None:
    assert f.day(NOON - 20 * DAY, NOON - 1 * DAY) == "December"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "1 s"), (40.4, "40 s"), (125, "2 min"), (5970, "1 h 40 min"), (11_100, "3 h 5 min")],
)
def test_what_is_left(seconds: float, text: str) -> None:
    assert f.left(seconds) == text


@pytest.mark.parametrize(
    ("days", "text"),
    [(-1, "today"), (0, "today"), (1, "yesterday"), (2, "on 30 December 2025"), (400, "on 27 November 2024")],
)
def test_when(days: int, text: str) -> None:
    assert f.when(NOON - days * DAY, NOON) == text


def test_when_in_this_year() -> None:
    assert f.when(NOON, NOON + 20 * DAY) == "on 1 January"
