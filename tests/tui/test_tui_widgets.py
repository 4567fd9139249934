"""Widgets by themselves, in an application that has nothing else."""

from __future__ import annotations

import asyncio
import random

import msgspec
import pytest
from conftest import wait_until
from textual import events
from textual.app import App, ComposeResult
from textual.content import Content
from textual.widget import Widget

from localai.chat.conversation import Message
from tui.shelf import ModelEntry
from tui.widgets.answer import Answer
from tui.widgets.assistant_message import AssistantMessage, note_of, pause_after
from tui.widgets.composer import DRAFT_LEAST, Composer
from tui.widgets.status_line import Status, status_content
from tui.widgets.thinking import TAIL_CHARACTERS, TAIL_LINES, Tail, ThinkingBlock, ThinkingHeader
from tui.widgets.welcome import Welcome

DOCUMENT = """# Title

A *paragraph* with `code`, a [link](https://example.org) and **bold** text,
over two lines.

- one
  - nested
- two

```python
def f(x: int) -> int:
    return x + 1
```

| a | b |
|---|---|
| 1 | 2 |
| 3 | 4 |

> quote

<div>no HTML</div>

    indented code

1. last
"""


class Host(App[None]):
    """Shows one widget and keeps what it posts."""

    def __init__(self, widget: Widget) -> None:
        super().__init__()
        self.widget = widget
        self.submitted: list[str] = []
        self.drafted: list[str] = []

    def compose(self) -> ComposeResult:
        yield self.widget

    def on_composer_submitted(self, event: Composer.Submitted) -> None:
        self.submitted.append(event.text)

    def on_composer_drafted(self, event: Composer.Drafted) -> None:
        self.drafted.append(event.text)

    def shown(self) -> str:
        lines = [strip.text.rstrip() for strip in self.screen._compositor.render_strips()]
        return "\n".join(lines).rstrip()


# ---------------------------------------------------------------------------------------------- composer


async def test_composer_sends_and_breaks_lines():
    composer = Composer()
    host = Host(composer)
    async with host.run_test() as pilot:
        composer.focus()
        await pilot.press(*"one", "ctrl+j", *"two", "shift+enter", *"three", "enter")
        await pilot.pause()
        assert host.submitted == ["one\ntwo\nthree"]
        assert composer.text == ""
        composer.sent()
        assert composer.prompts == ["one\ntwo\nthree"]


def press_fast(composer: Composer, *keys: str) -> None:
    """Press keys without waiting for any of them, as a paste without brackets does."""
    for key in keys:
        composer.app.post_message(events.Key(key, key if len(key) == 1 else None))


async def test_composer_keeps_what_is_typed_right_behind_enter():
    composer = Composer()
    host = Host(composer)
    async with host.run_test() as pilot:
        composer.focus()
        await pilot.pause()
        press_fast(composer, *"one", "enter", *"two")
        await wait_until(pilot, lambda: composer.text == "two")
        assert host.submitted == ["one"]
        composer.sent()
        assert (composer.text, composer.prompts) == ("two", ["one"])


async def test_composer_takes_back_what_is_refused():
    composer = Composer()
    host = Host(composer)
    async with host.run_test() as pilot:
        composer.focus()
        await pilot.press(*"one", "ctrl+j", *"two", "enter")
        composer.refused()
        assert (composer.text, composer.cursor_location) == ("one\ntwo", (1, 3))
        await pilot.press("enter", *"three")
        composer.refused()
        await pilot.press("!")
        assert composer.text == "one\ntwo\nthree!"
        assert composer.prompts == []


async def test_composer_keeps_the_order_of_keys_that_come_fast():
    composer = Composer()
    async with Host(composer).run_test() as pilot:
        composer.focus()
        await pilot.pause()
        press_fast(
            composer,
            *"ab",
            "ctrl+j",
            *"cde",
            "shift+enter",
            *"fg",
            "backspace",
            *"h",
            "left",
            *"i",
            "end",
            ".",
        )
        await wait_until(pilot, lambda: "." in composer.text)
        assert composer.text == "ab\ncde\nfih."


async def test_composer_keeps_the_lines_of_an_unbracketed_paste_together():
    composer = Composer()
    host = Host(composer)
    async with host.run_test() as pilot:
        composer.focus()
        await pilot.pause()
        press_fast(composer, *"1", "enter", *"2", "enter", *"3", "enter", *"4")
        await wait_until(pilot, lambda: composer.text.endswith("4"))
        assert (host.submitted, composer.text) == (["1"], "2\n3\n4")
        composer.refused()
        assert composer.text == "1\n2\n3\n4"


async def test_composer_does_not_send_nothing():
    host = Host(Composer())
    async with host.run_test() as pilot:
        host.widget.focus()
        await pilot.press("enter", "space", "enter")
        await pilot.pause()
        assert host.submitted == []


async def test_composer_grows_to_eight_lines():
    composer = Composer()
    async with Host(composer).run_test(size=(60, 24)) as pilot:
        composer.focus()
        assert composer.size.height == 1
        for lines in range(2, 12):
            await pilot.press("ctrl+j")
            await pilot.pause()
            assert composer.content_size.height == min(lines, 8)
        composer.load_text("word " * 30)
        await wait_until(pilot, lambda: composer.content_size.height == 3)


async def test_composer_recalls_only_when_empty():
    composer = Composer()
    async with Host(composer).run_test() as pilot:
        composer.focus()
        composer.prompts = ["first", "second"]
        await pilot.press(*"draft", "up")
        assert composer.text == "draft"
        composer.clear()
        await pilot.press("up")
        assert composer.text == "second"
        await pilot.press("up", "up", "up")
        assert composer.text == "first"
        await pilot.press(*"!", "up")
        assert composer.text == "first!"
        composer.clear()
        await pilot.press("up", "down")
        assert composer.text == ""
        await pilot.press("down")
        assert composer.text == ""


async def test_composer_tells_the_draft_when_the_user_pauses(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tui.widgets.composer.PAUSE_S", 0.05)
    composer = Composer()
    host = Host(composer)
    async with host.run_test() as pilot:
        composer.focus()
        composer.insert("x" * (DRAFT_LEAST - 1))
        await pilot.pause()
        assert composer._pause is None
        await pilot.press("y")
        await wait_until(pilot, lambda: host.drafted)
        assert host.drafted == ["x" * (DRAFT_LEAST - 1) + "y"]


async def test_composer_waits_for_the_end_of_the_typing(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tui.widgets.composer.PAUSE_S", 600)
    composer = Composer()
    host = Host(composer)
    async with host.run_test() as pilot:
        composer.focus()
        composer.insert("x" * DRAFT_LEAST)
        await pilot.pause()
        first = composer._pause
        await pilot.press("y")
        assert first._task is None
        assert composer._pause._task is not None
        assert host.drafted == []


async def test_composer_tells_a_paste_at_once():
    composer = Composer()
    host = Host(composer)
    async with host.run_test() as pilot:
        composer.focus()
        await pilot.press(*"see ")
        pilot.app.post_message(events.Paste("a\x1bb "))
        await wait_until(pilot, lambda: host.drafted)
        assert (host.drafted, composer._pause) == (["see ab"], None)


async def test_composer_cleans_what_is_pasted():
    composer = Composer()
    async with Host(composer).run_test() as pilot:
        composer.focus()
        pilot.app.post_message(events.Paste("a\x1b[31mb\u202e\r\nc"))
        await wait_until(pilot, lambda: composer.text == "a[31mb\nc")


# ---------------------------------------------------------------------------------------------- thinking


async def test_thinking_shows_its_last_lines():
    block = ThinkingBlock(elapsed=lambda: 4.2)
    host = Host(block)
    async with host.run_test(size=(60, 24)) as pilot:
        assert not block.display
        block.feed("\n\n", 1)
        await pilot.pause()
        assert not block.display
        for i in range(30):
            block.feed(f"thought number {i}\n", i + 2)
        await pilot.pause()
        assert host.shown().splitlines()[0] == "▾ Thinking… 4 s · Ctrl+G answer now"
        assert [line.strip(" ▌") for line in host.shown().splitlines()[1:]] == [
            f"thought number {i}" for i in range(25, 30)
        ]
        block.toggle()
        await pilot.pause()
        assert host.shown() == "▸ Thinking… 4 s · Ctrl+G answer now"


async def test_thinking_that_was_empty_stays_hidden():
    block = ThinkingBlock(elapsed=lambda: 0.0)
    async with Host(block).run_test():
        block.feed(" \n", 2)
        block.settle(1.0, 2)
        assert not block.display
        block.settle(1.0, 2)
        block.feed("late", 3)
        assert not block.display


async def test_painting_a_thought_does_not_depend_on_its_length():
    tail = Tail()
    async with Host(tail).run_test() as pilot:
        for _ in range(200):
            tail.feed("word " * 50)
        await pilot.pause()
        assert len(tail.text) == TAIL_CHARACTERS
        assert tail.size.height == TAIL_LINES


@pytest.mark.parametrize(
    ("seconds", "tokens", "line"),
    [
        (0.42, 3, "▸ Thought for under 1 s · 3 tokens"),
        (12.3, 1340, "▸ Thought for 12 s · 1,340 tokens"),
        (125, 0, "▸ Thought for 2 min 5 s"),
    ],
)
async def test_thinking_folded(seconds: float, tokens: int, line: str):
    block = ThinkingBlock("text", seconds=seconds, tokens=tokens)
    async with Host(block).run_test():
        assert str(block.query_one(ThinkingHeader).visual) == line


# ------------------------------------------------------------------------------------------------ answer


@pytest.mark.parametrize("seed", range(4))
async def test_a_streamed_answer_ends_up_as_one_rendered_at_once(seed: int):
    pieces, rest, chance = [], DOCUMENT, random.Random(seed)
    while rest:
        cut = chance.randrange(1, 30)
        pieces.append(rest[:cut])
        rest = rest[cut:]
    streamed, whole = Host(Answer()), Host(Answer(DOCUMENT))
    async with whole.run_test(size=(80, 60)) as pilot:
        await wait_until(pilot, lambda: "1. last" in whole.shown())
        wanted = whole.shown()
    async with streamed.run_test(size=(80, 60)) as pilot:
        for piece in pieces:
            streamed.widget.append(piece)
            if chance.random() < 0.3:
                await pilot.pause()
        await streamed.widget.finish(DOCUMENT)
        await pilot.pause()
        assert streamed.shown() == wanted
    assert "return x + 1" in wanted
    assert "<div>no HTML</div>" in wanted


async def test_what_a_later_line_changes_comes_right_at_the_end():
    answer, text = Answer(), "see [the page][p]\n\nmore\n"
    host = Host(answer)
    async with host.run_test() as pilot:
        answer.append(text)
        answer.append("\n[p]: https://example.org\n")
        await pilot.pause()
        assert "[the page][p]" in host.shown()
        await answer.finish(text + "\n[p]: https://example.org\n")
        await pilot.pause()
        assert "see the page" in host.shown()


@pytest.mark.parametrize(
    "text",
    [
        "# ",
        "# [red]x[/red]",
        "### 🎉 !!",
        "```foo {bar}\n[/]\n```",
        "```",
        "|a|\n|-|",
        "![i](x)",
        "> ```\n> x",
    ],
)
async def test_odd_markdown_is_no_problem(text: str):
    answer = Answer()
    async with Host(answer).run_test() as pilot:
        for character in text:
            answer.append(character)
        await answer.finish(text)
        await pilot.pause()


# --------------------------------------------------------------------------------------- assistant message


@pytest.mark.parametrize(
    ("state", "reason", "text", "kind"),
    [
        ("complete", "stop", "", ""),
        ("stopped", "cancelled", "■ Stopped", "-quiet"),
        ("stopped", "", "■ Stopped", "-quiet"),
        ("failed", "It broke", "✗ It broke · press Ctrl+R to try again", "-error"),
        ("complete", "length", "▲ Cut at the limit of 1,000 tokens.", "-warning"),
        ("complete", "stop left_out=2", "▲ 2 of the oldest messages were left out.", "-quiet"),
        (
            "complete",
            "length left_out=2",
            "▲ Cut at the limit of 1,000 tokens. 2 of the oldest messages were left out.",
            "-warning",
        ),
    ],
)
def test_notes(state, reason, text, kind):
    message = Message(
        parent=None,
        role="assistant",
        content="words",
        state=state,
        finish_reason=reason,
        completion_tokens=1000,
    )
    assert note_of(message) == (text, kind)


@pytest.mark.parametrize(
    ("reason", "said"),
    [
        ("stop answer=empty", "The answer is empty"),
        ("stop", "The answer is empty"),
        ("stop answer=none", "never ended its thinking and gave no answer"),
        ("length answer=none", "Cut at the limit of 9 tokens, in the thinking: no answer"),
        ("context answer=none", "the model was still thinking: there is no answer"),
    ],
)
async def test_thoughts_without_an_answer_are_shown_and_said_to_be_all(reason: str, said: str):
    message = Message(
        parent=None, role="assistant", thinking="why", finish_reason=reason, completion_tokens=9
    )
    host = Host(AssistantMessage(message))
    async with host.run_test(size=(200, 12)) as pilot:
        await wait_until(pilot, lambda: "why" in host.shown())
        assert said in host.shown()


async def test_a_model_brings_its_own_examples():
    welcome = Welcome(ModelEntry(name="m", title="M", examples=("First?", "Second?")))
    host = Host(welcome)
    async with host.run_test(size=(70, 16)) as pilot:
        await wait_until(pilot, lambda: "› First?" in host.shown())
        assert host.shown().count("›") == 2
        welcome.show(ModelEntry(name="n", title="N"))
        await wait_until(pilot, lambda: host.shown().count("›") == 3)
        assert "First?" not in host.shown()


async def test_a_stored_reply():
    message = Message(parent=None, role="assistant", content="an *answer*", thinking="why", thinking_s=2)
    host = Host(AssistantMessage(message))
    async with host.run_test(size=(40, 12)) as pilot:
        await wait_until(pilot, lambda: "an answer" in host.shown())
        assert "▸ Thought for 2 s" in host.shown()
        assert "why" not in host.shown()


@pytest.mark.parametrize(
    ("share", "spent", "pause"),
    [(0.2, 0.0, 0.05), (0.2, 0.01, 0.05), (0.2, 0.04, 0.2), (0.05, 0.01, 0.2), (0.05, 3.0, 1.0)],
)
def test_painting_leaves_the_processor_to_the_model(share: float, spent: float, pause: float):
    assert pause_after(spent, share) == pytest.approx(pause)


# ------------------------------------------------------------------------------------------- status line

FULL = Status(
    model="deepseek-r1:7b",
    file_type="Q4_K_M",
    context_used=1234,
    context=8192,
    tokens_per_s=12.34,
    state="answering",
    busy=True,
)


@pytest.mark.parametrize(
    ("width", "line"),
    [
        (
            120,
            "deepseek-r1:7b · Q4_K_M · ▰▱▱▱▱▱▱▱ 1,234 / 8,192 · 12.3 tok/s · answering"
            + " " * 12
            + "Esc stop  F1 help  ^N new  ^O model",
        ),
        (78, "deepseek-r1:7b · Q4_K_M · 1,234 / 8,192 · 12.3 tok/s · answering      Esc stop"),
        (74, "deepseek-r1:7b · Q4_K_M · ▰▱▱▱▱▱▱▱ 1,234 / 8,192 · 12.3 tok/s · answering"),
        (70, "deepseek-r1:7b · Q4_K_M · 1,234 / 8,192 · 12.3 tok/s · answering"),
        (60, "deepseek-r1:7b · 1,234 / 8,192 · 12.3 tok/s · answering"),
        (45, "deepseek-r1:7b · 12.3 tok/s · answering"),
        (26, "deepseek-r1:7b · answering"),
        (20, "answering   Esc stop"),
        (6, "answe…"),
    ],
)
def test_status_line_leaves_out_what_has_no_room(width: int, line: str):
    assert status_content(FULL, width).plain == line


def test_status_line_tells_how_the_engine_is_confined():
    full = Status(model="r1", sandbox="sandbox full", confined=True, state="ready")
    partial = Status(model="r1", file_type="Q8_0", sandbox="sandbox partial", confined=False, state="ready")
    assert status_content(full, 100).plain.startswith("r1 · sandbox full · ready")
    assert status_content(full, 12).plain == "r1 · ready", "what is as it should be goes first"
    assert status_content(partial, 29).plain == "r1 · sandbox partial · ready", "what is not, stays"
    assert any("warning" in str(span.style) for span in status_content(partial, 100).spans)


def test_status_line_offers_to_end_the_thinking_only_while_there_is_some():
    thinking = msgspec.structs.replace(FULL, state="thinking", thinking=True)
    assert "Esc stop  ^G answer now  F1 help" in status_content(thinking, 140).plain
    assert "answer now" not in status_content(FULL, 140).plain


def test_status_line_never_interprets_a_model_name():
    content = status_content(Status(model="[@click=app.quit]x[/]\x1b[2J", state="ready"), 200)
    assert content.plain.startswith("[@click=app.quit]x[/][2J · ready")
    assert isinstance(content, Content)


async def test_nothing_ticks_when_nothing_happens(make_app):
    async with make_app().run_test() as pilot:
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
        names = {task.get_name() for task in asyncio.all_tasks()}
        assert not [n for n in names if "blink" in n.lower()]
        assert not pilot.app.query_one(Composer).cursor_blink
