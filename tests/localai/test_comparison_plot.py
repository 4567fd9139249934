"""The pictures of a comparison: axes, names without overlaps, and what a terminal gets to see."""

from __future__ import annotations

import itertools
import math
import re

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai.comparison import axes, placing, plot
from localai.comparison.pictures import edge, pictures
from localai.comparison.placing import Box
from localai.comparison.result import Comparison, Row
from models.figures import Rate
from tests.localai.comparisons import SMALL, USUAL, comparison, row

_SGR = re.compile("\x1b\\[[0-9;]*m")


# ----------------------------------------------------------------------------------------------------- axes


@settings(deadline=None)
@given(st.lists(st.floats(0, 1e12), min_size=1, max_size=8), st.booleans())
def test_every_value_has_a_place_on_its_axis(values: list[float], log: bool) -> None:
    axis = axes.logarithmic(values) if log else axes.linear(values)
    places = [axis.place(value) for value in values]
    assert all(0 <= place <= 1 for place in places)
    assert sorted(places) == [axis.place(value) for value in sorted(values)]
    ticks = axis.ticks(7)
    assert len(ticks) <= 7
    assert ticks == sorted(set(ticks))


def test_ticks_are_round_numbers_in_the_range() -> None:
    assert axes.linear([3.0, 8.1]).ticks(7) == [3, 4, 5, 6, 7, 8]
    assert axes.logarithmic([0.005, 0.9]).ticks(9) == [0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0]
    assert axes.logarithmic([0.005, 0.9]).ticks(5) == [0.01, 0.03, 0.1, 0.3, 1.0]
    assert [axes.label(tick) for tick in (0.005, 0.30000000000000004, 120.0, 15000.0)] == [
        "0.005",
        "0.3",
        "120",
        "15,000",
    ]


# ---------------------------------------------------------------------------------------------------- names


@settings(deadline=None, max_examples=150)
@given(
    st.lists(st.tuples(st.integers(0, 59), st.integers(0, 13)), min_size=1, max_size=12, unique=True),
    st.integers(1, 9),
)
def test_no_name_hides_a_point_or_another_name(cells: list[tuple[int, int]], width: int) -> None:
    area, points = Box(0, 0, 60, 14), [Box(x, y, x + 1, y + 1) for x, y in cells]
    found = placing.place(points, [width] * len(points), 1, area, gap=1)
    names = [box for box in found if box is not None]
    assert all(box.within(area) for box in names)
    assert not any(name.overlap(point) for name in names for point in points)
    assert not any(one.overlap(other) for one, other in itertools.combinations(names, 2))
    assert found[0] is not None or len(points) > 1


def test_a_name_stands_beside_its_point_if_there_is_room() -> None:
    area = Box(0, 0, 20, 5)
    assert placing.place([Box(5, 2, 6, 3)], [4], 1, area, gap=1) == [Box(7, 2, 11, 3)]
    assert placing.place([Box(18, 2, 19, 3)], [4], 1, area, gap=1) == [Box(13, 2, 17, 3)]
    # Beside another point it would be taken for the name of that one.
    near = placing.place([Box(5, 2, 6, 3), Box(12, 2, 13, 3)], [4, 4], 1, area, gap=1)
    assert near[0] is not None
    assert near[0].right <= 10


def test_without_room_there_is_no_name() -> None:
    assert placing.place([Box(1, 0, 2, 1)], [4], 1, Box(0, 0, 3, 1), gap=1) == [None]


# ------------------------------------------------------------------------------------------------- pictures


def test_the_edge_has_the_least_loss_for_each_size_and_speed() -> None:
    size, speed = pictures(comparison(SMALL))
    assert [point.label for point in edge(size)] == [
        "Q2_K",
        "Q4_0",
        "IQ4_XS",
        "Q3_K_M",
        "Q4_K_M",
        "Q6_K",
        "Q8_0",
    ]
    assert [point.label for point in edge(speed)] == ["IQ4_XS", "Q4_K_M", "Q6_K", "Q8_0"]


def test_pictures_need_two_types_and_two_speeds() -> None:
    assert pictures(comparison(())) == []
    assert plot.lines(comparison(SMALL[:1]), 80) == []
    assert plot.lines(comparison((row("Q8_0", 1e8), row("Q4_0", 9e7))), 80) == []
    slow = tuple(msgspec.structs.replace(one, speed=None) for one in SMALL)
    assert len(pictures(comparison(slow))) == 1
    text = "\n".join(plot.lines(comparison((*slow[:3], SMALL[4])), 80))
    assert "Loss against size" in text
    assert "speed" not in text


GOLDEN = """\
Loss against size (best: bottom left)

    1 ┤       │
      │       ● Q2_K
      │        ···
  0.3 ┤           ○ Q4_0 │
      │    IQ4_XS ●·●··· ○ Q4_1
      │             │ Q3_K_M
  0.1 ┤                  Q4_K_M ●···· ○ Q5_K_M
      │                         │    ········
 0.03 ┤                                      ·········
      │ - - - - - - - - - - - - - - - - - - - - - - - ········- - - - - - - - -
      │                                                       ····● Q6_K
 0.01 ┤                                                             ···
      │                                                                ·◆ Q8_0
      │                                                                 │
      └─┬───────────────────┬────────────────────┬───────────────────┬──────────
       80                  100                  120                 140
       size in MB
"""


def test_what_a_terminal_of_80_columns_gets() -> None:
    assert "\n".join(plot.lines(comparison(SMALL), 80)).startswith(GOLDEN)


@pytest.mark.parametrize("width", [1, 40, 60, 80, 100, 120, 500])
@pytest.mark.parametrize("rows", [SMALL, USUAL, SMALL[:2]], ids=["small", "usual", "two"])
@pytest.mark.parametrize("plain", [False, True], ids=["signs", "ascii"])
def test_pictures_fit_the_width_and_name_the_advised_type(width: int, rows: tuple, plain: bool) -> None:
    found = comparison(rows)
    shown = plot.lines(found, width, plain=plain)
    assert max(map(len, shown)) <= min(max(width, 40), 120)
    text = "\n".join(shown)
    assert text.count("#" if plain else "◆") == 3  # in two pictures, and where it is explained
    assert found.advice is not None
    assert text.count(found.advice.file_type) >= 2
    assert text.isascii() == plain


@pytest.mark.parametrize("width", [60, 80, 120])
@pytest.mark.parametrize("rows", [SMALL, USUAL], ids=["small", "usual"])
def test_each_type_is_named_in_both_pictures(width: int, rows: tuple) -> None:
    names = re.findall(r"[A-Z][A-Z0-9_]*_[A-Z0-9_]+", "\n".join(plot.lines(comparison(rows), width)))
    assert {name: names.count(name) for name in names} == {one.file_type: 2 for one in rows}


def test_the_last_number_of_an_axis_is_whole() -> None:
    rows = tuple(row(f"T_{pace}", 1e8 + pace, 0.1, pace=pace) for pace in (600, 1137))
    found = "\n".join(plot.lines(comparison(rows), 80))
    assert re.search(r" 1,200\n", found)


def test_colours_change_nothing_but_colours() -> None:
    plain, colored = (plot.lines(comparison(SMALL), 80, color=color) for color in (False, True))
    assert not any("\x1b" in line for line in plain)
    assert [_SGR.sub("", line) for line in colored] == plain
    # Each line ends as it began.
    assert all(line.count("\x1b[0m") == len(_SGR.findall(line)) / 2 for line in colored)
    assert "\x1b[1;32m◆" in "\n".join(colored)


def test_errors_show_as_bars() -> None:
    def cells(error: float) -> int:
        rows = (row("A_1", 1e8, 0.1, error=error), row("B_1", 2e8, 0.01, error=0.0))
        return "\n".join(plot.lines(comparison(rows), 80)).count("│")

    assert cells(0.4) > cells(0.0) + 3


def test_what_does_not_fit_has_a_star() -> None:
    rows = (msgspec.structs.replace(SMALL[0], fits=False), *SMALL[1:])
    text = "\n".join(plot.lines(comparison(rows), 80))
    assert "Q8_0*" in text
    assert "* needs more memory than there is here" in text


def test_names_of_others_cannot_command_a_terminal_or_bend_a_picture() -> None:
    rows = (
        row("\x1b[2J\nevil\u202e", 1e8, 0.1),
        row("大きい", 2e8, 0.01),
        row("e\u0301" * 3, 3e8, 0.005),
        row("x" * 500, 4e8, 0.002),
    )
    shown = plot.lines(comparison(rows), 80)
    assert max(map(len, shown)) <= 80
    text = "".join(shown)
    assert not any(sign in text for sign in "\x1b\u202e\u0301大")
    assert "[2J evil" in text
    assert "???" in text
    assert "".join(plot.lines(comparison(rows), 80, plain=True)).isascii()


def test_losses_of_nothing_and_of_everything_have_a_place() -> None:
    rows = (
        row("F16", 2e8, 0.0, 1.0),
        row("Q8_0", 1e8, 0.001),
        row("IQ1_S", 5e7, 1e9),
        row("TQ1_0", 4e7, 1e-9),
    )
    text = "\n".join(plot.lines(comparison(rows), 80))
    assert all(one.file_type in text for one in rows)
    same = (row("Q8_0", 1e8, 0.0), row("F16", 1e8, 0.0))
    assert "Q8_0" in "\n".join(plot.lines(comparison(same), 80))


def test_which_encodings_can_have_the_signs() -> None:
    assert plot.shows("utf-8")
    assert plot.shows("UTF8")
    assert not any(plot.shows(other) for other in (None, "", "ascii", "latin-1", "no-such-encoding"))


@settings(deadline=None, max_examples=100)
@given(
    st.lists(
        st.tuples(
            st.floats(1e3, 1e12),
            st.floats(0, 20),
            st.none() | st.floats(0, 1e6),
            st.floats(0, 2),
        ),
        max_size=14,
    ),
    st.integers(0, 200),
    st.booleans(),
)
def test_any_figures_make_a_picture(figures: list, width: int, plain: bool) -> None:
    rows = tuple(
        row(f"T_{number}", size, kl, 0.5, pace, error=error)
        for number, (size, kl, pace, error) in enumerate(figures)
    )
    found: Comparison = comparison(rows)
    shown = plot.lines(found, width, plain=plain)
    assert bool(shown) == (len(rows) > 1)
    assert all(len(line) <= min(max(width, 40), 120) for line in shown)
    assert not any(math.isnan(point.y) for picture in pictures(found) for point in picture.points)


def test_long_errors_of_a_busy_machine_leave_each_name_beside_its_point() -> None:
    def noisy(number: int, pace: int) -> Row:
        one = row(f"T_{pace}", 1e8 + pace, 2.0 / 3**number, pace=pace)
        rate = Rate(median=pace, stderr=300)
        return msgspec.structs.replace(one, speed=msgspec.structs.replace(one.speed, generate=rate))

    paces = (753, 1003, 1079, 940, 1160, 1627)
    wide = tuple(noisy(number, pace) for number, pace in enumerate(paces))
    text = "\n".join(plot.lines(comparison(wide), 80)).partition("against speed")[2]
    for pace in paces:
        assert re.search(rf"[●◆○] T_{pace} |  T_{pace} [●◆○]", text)
