"""Stop texts are found as in the whole text, however it is cut, and no more than needed is held back."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai.engine.stops import StopStrings


def stream(stop: list[str], pieces: list[str]) -> tuple[str, str | None]:
    """What is shown of the pieces, and the stop that ended them."""
    stops = StopStrings(stop)
    shown = ""
    for piece in pieces:
        text, found = stops.feed(piece)
        shown += text
        if found is not None:
            assert found == stops.found
            return shown, found
    return shown + stops.finish(), stops.found


def search(stop: list[str], text: str) -> tuple[str, str | None]:
    """The plainest search in the whole text."""
    for start in range(len(text)):
        here = [s for s in stop if s and text.startswith(s, start)]
        if here:
            return text[:start], max(here, key=len)
    return text, None


@st.composite
def cut_texts(draw: st.DrawFn) -> list[str]:
    return draw(st.lists(st.text("ab.", max_size=6), max_size=12))


@settings(deadline=None)
@given(st.lists(st.text("ab.", max_size=5), max_size=5), cut_texts())
def test_equals_a_search_in_the_whole_text(stop: list[str], pieces: list[str]) -> None:
    assert stream(stop, pieces) == search(stop, "".join(pieces))


@settings(deadline=None)
@given(st.lists(st.text("ab.", min_size=1, max_size=5), min_size=1, max_size=5), cut_texts())
def test_holds_back_only_what_may_be_the_beginning_of_a_stop(stop: list[str], pieces: list[str]) -> None:
    stops = StopStrings(stop)
    fed = shown = ""
    for piece in pieces:
        text, found = stops.feed(piece)
        fed, shown = fed + piece, shown + text
        if found is not None:
            assert fed.startswith(shown + found)
            return
        held = fed.removeprefix(shown)
        assert fed == shown + held
        assert held == "" or any(s.startswith(held) and s != held for s in stop)


@pytest.mark.parametrize("size", [1, 2, 3, 100])
def test_a_stop_across_pieces_is_not_shown(size: int) -> None:
    text = "One. Two.\n\nUser: three"
    pieces = [text[i : i + size] for i in range(0, len(text), size)]
    assert stream(["\n\nUser:", "\n\nSystem:"], pieces) == ("One. Two.", "\n\nUser:")


def test_what_only_looked_like_a_stop_is_released() -> None:
    stops = StopStrings(["END."])
    assert stops.feed("The EN") == ("The ", None)
    assert stops.feed("ERGY") == ("ENERGY", None)
    assert stops.feed(" EN") == (" ", None)
    assert stops.finish() == "EN"
    assert stops.found is None


def test_an_earlier_beginning_wins_over_an_earlier_end() -> None:
    stops = StopStrings(["bc", "abcd"])
    assert stops.feed("xabc") == ("x", None)
    assert stops.feed("d") == ("", "abcd")


def test_a_complete_stop_counts_when_the_longer_one_does_not_come() -> None:
    stops = StopStrings(["ab", "abcd"])
    assert stops.feed("xabc") == ("x", None)
    assert stops.feed("?") == ("", "ab")
    waiting = StopStrings(["ab", "abcd"])
    assert waiting.feed("xab") == ("x", None)
    assert waiting.finish() == ""
    assert waiting.found == "ab"


def test_nothing_is_shown_after_a_stop() -> None:
    stops = StopStrings(["#"])
    assert stops.feed("a#b") == ("a", "#")
    assert stops.feed("c") == ("", "#")
    assert stops.finish() == ""


@pytest.mark.parametrize("stop", [[], ["", ""]])
def test_without_stops_every_piece_passes(stop: list[str]) -> None:
    assert stream(stop, ["a", "", "b"]) == ("ab", None)
    assert StopStrings(stop).feed("piece") == ("piece", None)


def test_characters_of_patterns_are_only_characters() -> None:
    assert stream([".*", "[a"], ["x y [", "b] .", "* z"]) == ("x y [b] ", ".*")
