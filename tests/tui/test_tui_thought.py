"""Thoughts as they are thought: all of them or their last lines, folded and unfolded at any time."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st
from textual.app import App, ComposeResult
from textual.containers import VerticalScroll
from textual.content import Content
from textual.geometry import Size
from textual.widget import Widget

from tui.lines import wrapped
from tui.widgets.thinking import TAIL_LINES, ThinkingBlock
from tui.widgets.thought import Thought


class Host(App[None]):
    def __init__(self, widget: Widget) -> None:
        super().__init__()
        self.widget = widget

    def compose(self) -> ComposeResult:
        yield VerticalScroll(self.widget)

    def shown(self) -> list[str]:
        lines = [strip.text.strip(" ▌▁▂▃▄▅▆▇█") for strip in self.screen._compositor.render_strips()]
        return [line for line in lines if line]


def rows(thought: Thought) -> list[str]:
    return [line.content.plain.rstrip() for line in thought._rows]


async def live(block: ThinkingBlock, host: Host, pilot) -> list[str]:
    for number in range(12):
        block.feed(f"line {number}\n", number)
        await pilot.pause()
    return host.shown()[1:]


ALL = [f"line {number}" for number in range(12)]


@pytest.mark.parametrize(
    ("mode", "running", "toggled"),
    [("open", ALL, []), ("folded", ALL[-TAIL_LINES:], []), ("hidden", [], ALL[-TAIL_LINES:])],
)
async def test_while_it_runs(mode: str, running: list[str], toggled: list[str]):
    block = ThinkingBlock(elapsed=lambda: 1.0, mode=mode)
    host = Host(block)
    async with host.run_test(size=(60, 24)) as pilot:
        assert await live(block, host, pilot) == running
        assert block.folded == (not running)
        block.toggle()
        await pilot.pause()
        assert host.shown()[1:] == toggled
        assert block.folded == (not toggled)
        block.toggle()
        await pilot.pause()
        assert host.shown()[1:] == ([] if mode == "hidden" else running)


@pytest.mark.parametrize(("mode", "after"), [("open", ALL), ("folded", []), ("hidden", [])])
async def test_when_it_has_run(mode: str, after: list[str]):
    block = ThinkingBlock(elapsed=lambda: 1.0, mode=mode)
    host = Host(block)
    async with host.run_test(size=(60, 24)) as pilot:
        await live(block, host, pilot)
        block.settle(2.0, 12)
        await pilot.pause()
        assert host.shown()[1:] == after
        if mode != "open":
            block.toggle()
            await pilot.pause()
            assert host.shown()[1:] == ALL


async def test_the_mode_is_changed_while_it_runs():
    block = ThinkingBlock(elapsed=lambda: 1.0)
    host = Host(block)
    async with host.run_test(size=(60, 24)) as pilot:
        await live(block, host, pilot)
        block.show_as("open")
        await pilot.pause()
        assert host.shown()[1:] == ALL
        block.show_as("folded")
        await pilot.pause()
        assert host.shown()[1:] == ALL[-TAIL_LINES:]


async def test_what_was_folded_by_hand_stays_folded():
    block = ThinkingBlock(elapsed=lambda: 1.0, mode="open")
    host = Host(block)
    async with host.run_test(size=(60, 24)) as pilot:
        await live(block, host, pilot)
        block.toggle()
        block.settle(2.0, 12)
        await pilot.pause()
        assert block.folded
        assert host.shown() == ["▸ Thought for 2 s · 12 tokens"]


async def test_only_the_last_row_is_laid_out_anew():
    thought = Thought()
    async with Host(thought).run_test(size=(40, 24)) as pilot:
        thought.add("word " * 400)
        await pilot.pause()
        before = thought._rows[:]
        thought.add("more")
        assert all(new is old for new, old in zip(thought._rows[:-1], before[:-1], strict=True))
        assert len(thought._end) <= 40


async def test_a_thought_follows_the_width_and_ends_without_empty_rows():
    thought = Thought("\n\none two three\n\nfour\n\n")
    async with Host(thought).run_test(size=(40, 24)) as pilot:
        await pilot.pause()
        assert thought.size.height == 3
        await pilot.resize_terminal(10, 24)
        await pilot.pause()
        assert rows(thought)[:4] == ["one two", "three", "", "four"]


async def test_a_thought_can_be_selected():
    thought = Thought("one two three four\nfive")
    async with Host(thought).run_test(size=(12, 24)) as pilot:
        await pilot.pause()
        thought.text_select_all()
        await pilot.pause()
        assert pilot.app.screen.get_selected_text() == "one two three four\nfive"


_WORDS = st.lists(
    st.sampled_from(["a", "word", "longerword", "averyveryverylongword", " ", " ", "\n"]), max_size=60
)


@given(_WORDS.map("".join), st.lists(st.integers(0, 400), max_size=20), st.integers(3, 30))
def test_piece_by_piece_it_comes_out_the_same(text: str, cuts: list[int], width: int):
    text = "x" + text
    thought, edges = Thought(), sorted({0, len(text), *(min(cut, len(text)) for cut in cuts)})
    thought.get_content_height(Size(width, 9), Size(width, 9), width)
    for start, end in pairwise(edges):
        thought._lay_out(text[start:end])
    wanted = [line.content.plain.rstrip() for line in wrapped(Content(text), width)]
    while rows(thought) and not rows(thought)[-1]:
        thought._rows.pop()
    while wanted and not wanted[-1]:
        wanted.pop()
    assert rows(thought) == wanted
