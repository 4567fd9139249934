"""The answer as a widget: painting, selecting, clicking; and grounds that are painted as one."""

from __future__ import annotations

import pytest
from conftest import wait_until
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.pilot import Pilot
from textual.widget import Widget
from textual.widgets import Static

from tui.theme import DARK, LIGHT, PALE
from tui.widgets.answer import Answer
from tui.widgets.ground import Column, Ground

CODE = "See this:\n\n```python\nx = 1\ny = 2\n```\n\nand [the page](https://example.org/it's)."


class Host(App[None]):
    """A column with one widget that scrolls."""

    ENABLE_COMMAND_PALETTE = False

    def __init__(self, widget: Widget) -> None:
        super().__init__()
        self.register_theme(DARK)
        self.register_theme(PALE)
        self.theme = DARK.name
        self.widget = widget
        self.told: list[str] = []

    def compose(self) -> ComposeResult:
        with VerticalScroll():
            yield self.widget

    def rows(self) -> list[str]:
        return [strip.text.rstrip() for strip in self.screen._compositor.render_strips()]

    def colours(self) -> set[str]:
        strips = self.screen._compositor.render_strips()
        return {str(s.style.bgcolor.name) for strip in strips for s in strip if s.style and s.style.bgcolor}

    def notify(self, message: str, **_: object) -> None:
        self.told.append(message)


async def drag(pilot: Pilot[None], start: tuple[int, int], end: tuple[int, int]) -> None:
    await pilot.mouse_down(offset=start)
    await pilot.hover(offset=end)
    await pilot.mouse_up(offset=end)
    await pilot.pause()


async def test_the_row_above_code_copies_it():
    host = Host(Answer(CODE))
    async with host.run_test(size=(40, 12)) as pilot:
        assert host.rows()[2].split() == ["python", "copy"]
        await pilot.click(Answer, offset=(37, 2))
        assert host.clipboard == "x = 1\ny = 2\n"
        assert host.told == ["The code is copied."]
        await pilot.click(Answer, offset=(3, 3))
        assert len(host.told) == 1


async def test_a_link_shows_its_address():
    host = Host(Answer(CODE))
    async with host.run_test(size=(40, 12)) as pilot:
        await pilot.click(Answer, offset=(6, 6))
        await wait_until(pilot, lambda: bool(host.told))
        assert host.told == ["https://example.org/it's"]


async def test_the_mouse_selects_text_and_not_what_is_around_it():
    text = "- an item that is longer than a row\n- another\n\n```\ncode\n```"
    host = Host(Answer(text))
    async with host.run_test(size=(24, 14)) as pilot:
        assert host.rows()[:3] == ["• an item that is longer", "  than a row", "• another"]
        await drag(pilot, (0, 0), (9, 2))
        assert host.screen.get_selected_text() == "an item that is longer than a row\nanother"
        await drag(pilot, (0, 5), (20, 5))
        assert host.screen.get_selected_text() == "code"


async def test_what_is_selected_is_marked_and_then_no_longer():
    host = Host(Answer("some words"))
    async with host.run_test(size=(24, 4)) as pilot:
        before = host.colours()
        await drag(pilot, (0, 0), (6, 0))
        assert len(host.colours()) > len(before)
        host.screen.clear_selection()
        await pilot.pause()
        assert host.colours() == before


async def test_another_theme_paints_all_anew():
    host = Host(Answer(CODE))
    async with host.run_test(size=(40, 12)) as pilot:
        dark = host.colours()
        host.theme = LIGHT
        await pilot.pause()
        assert not dark & host.colours()


async def test_another_width_lays_it_out_anew():
    host = Host(Answer("one two three four five six"))
    async with host.run_test(size=(24, 8)) as pilot:
        assert host.rows()[:2] == ["one two three four five", "six"]
        await pilot.resize_terminal(14, 8)
        await wait_until(pilot, lambda: host.rows()[:2] == ["one two three", "four five six"])
        answer = host.widget
        assert isinstance(answer, Answer)
        answer.append(" seven eight")
        await wait_until(pilot, lambda: host.rows()[2] == "seven eight")


async def test_going_back_to_a_width_costs_nothing(monkeypatch: pytest.MonkeyPatch):
    host = Host(Answer("one two three four five six"))
    async with host.run_test(size=(24, 8)) as pilot:
        await pilot.resize_terminal(14, 8)
        await wait_until(pilot, lambda: host.rows()[:2] == ["one two three", "four five six"])
        monkeypatch.setattr("tui.widgets.answer.lay_out", lambda text, width: pytest.fail("laid out anew"))
        await pilot.resize_terminal(24, 8)
        await wait_until(pilot, lambda: host.rows()[:2] == ["one two three four five", "six"])


@pytest.mark.parametrize("finished", [False, True])
async def test_rows_that_go_leave_nothing_behind(finished: bool):
    text = "Intro\n\n$$\na = 1\n+ 2\n+ 3\n$$\n\nEnd."
    answer = Answer()
    host = Host(answer)
    async with host.run_test(size=(40, 14)) as pilot:
        for character in text:
            answer.append(character)
            await pilot.pause()
        if finished:
            await answer.finish(text)
        await wait_until(pilot, lambda: "End." in host.rows())
        shown = host.rows()
    whole = Host(Answer(text))
    async with whole.run_test(size=(40, 14)):
        assert whole.rows() == shown


async def test_a_click_copies_also_code_that_still_comes():
    code = "".join(f"line {i}\n" for i in range(100))
    answer = Answer()
    host = Host(answer)
    async with host.run_test(size=(40, 120)) as pilot:
        answer.append("```\n")
        for line in code.splitlines(keepends=True):
            answer.append(line)
        await pilot.pause()
        await pilot.click(Answer, offset=(37, 0))
        assert host.clipboard == code


async def test_text_that_comes_before_there_is_a_screen_is_shown():
    answer = Answer()
    answer.append("early, ")
    host = Host(answer)
    async with host.run_test(size=(24, 4)) as pilot:
        answer.append("late")
        await wait_until(pilot, lambda: host.rows()[0] == "early, late")
        await answer.finish("early, late, *done*")
        await wait_until(pilot, lambda: host.rows()[0] == "early, late, done")
    assert answer.source == "early, late, *done*"


@pytest.mark.parametrize("colour", [True, False])
async def test_a_ground_looks_as_any_container(monkeypatch: pytest.MonkeyPatch, colour: bool):
    if not colour:
        monkeypatch.setenv("NO_COLOR", "1")
    looks = []
    for kind in (Column, VerticalScroll):
        column = kind(Static("text"))
        column.styles.background = "red"
        column.styles.padding = (1, 2)
        host = Host(column)
        async with host.run_test(size=(20, 6)):
            looks.append((host.rows(), host.colours()))
    assert looks[0] == looks[1]


async def test_a_ground_with_an_edge_shows_it():
    class Edged(VerticalScroll, Ground):
        DEFAULT_CSS = "Edged { border-left: outer red; }"

    host = Host(Edged(Static("text")))
    async with host.run_test(size=(20, 4)):
        assert host.rows()[0] == "▌text"
