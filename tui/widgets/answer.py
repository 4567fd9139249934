"""An answer as Markdown, with nothing in it that acts.

Markup is not interpreted, HTML is shown as the text it is, a link shows its address when it is clicked and
opens nothing. Text must have gone through `clean`.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterator
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.token import Token
from textual import on
from textual.app import ComposeResult
from textual.content import Content
from textual.widget import Widget
from textual.widgets import Markdown
from textual.widgets._markdown import MarkdownBlock, MarkdownFence, MarkdownTable, MarkdownTableContent


def parser() -> MarkdownIt:
    """GitHub's Markdown, without what would undo `clean` or hide text.

    With `html` on, Textual would drop tags; with it off they are text. Entities could spell the characters
    that `clean` has removed.
    """
    return MarkdownIt("gfm-like", {"html": False, "linkify": False}).disable("entity")


class TableContent(MarkdownTableContent):
    """Textual's table without its tooltips, which would interpret a cell's text as markup."""

    def compose(self) -> ComposeResult:
        for cell in super().compose():
            cell.tooltip = None
            yield cell

    async def _update_rows(self, updated_rows: list[list[Content]]) -> None:
        if updated_rows:  # Textual fails on none
            await super()._update_rows(updated_rows)


class Table(MarkdownTable):
    """A table block made of `TableContent`."""

    def compose(self) -> Iterator[Widget]:
        for content in super().compose():
            if isinstance(content, MarkdownTableContent):
                yield TableContent(content.headers, content.rows)


# A link's target that is defined apart from it, as in "[name]: address".
_REFERENCE: Final = re.compile(r"^ {0,3}\[[^\]]+\]:", re.MULTILINE)

Shape = tuple[str, tuple[int, int], str]
"""A block at the top level: type, lines, and the text if it is code."""


def _shape(token: Token) -> Shape:
    lines = (token.map[0], token.map[1]) if token.map else (0, 0)
    return token.type, lines, token.content.rstrip() if token.type in ("fence", "code_block") else ""


def _shape_of(block: MarkdownBlock) -> Shape:
    return block.name or "", block.source_range, block.code if isinstance(block, MarkdownFence) else ""


class Answer(Markdown):
    """The answer's text. `append` while it streams, `update` once at the end."""

    DEFAULT_CSS = """
    Answer {
        padding: 0;
        MarkdownParagraph { margin: 0 0 1 0; }
        MarkdownHeader { margin: 0 0 1 0; }
        MarkdownH1, MarkdownH2, MarkdownH3, MarkdownH4, MarkdownH5, MarkdownH6 {
            color: $primary;
            text-style: bold;
            content-align: left middle;
            width: 1fr;
            background: transparent;
            margin: 0 0 1 0;
        }
        MarkdownFence {
            margin: 0 0 1 0;
            background: $surface;
            & > Label { padding: 0 2; }
        }
        MarkdownBulletList, MarkdownOrderedList { margin: 0 0 1 0; padding: 0; }
        MarkdownList MarkdownParagraph, MarkdownBlockQuote MarkdownParagraph { margin: 0; }
        MarkdownList MarkdownList { margin: 0; }
        MarkdownBlockQuote { margin: 0 0 1 0; background: transparent; border-left: outer $border; }
        MarkdownTable { margin-bottom: 1; }
    }
    """

    BLOCKS: dict[str, type[MarkdownBlock]] = {  # noqa: RUF012 - as Textual declares it
        **Markdown.BLOCKS,
        "table_open": Table,
    }

    def __init__(self, text: str = "") -> None:
        super().__init__(text, parser_factory=parser, open_links=False)

    async def finish(self, text: str) -> None:
        """The whole `text` has been appended. Render it anew if, piece by piece, it did not come out right.

        That happens where a later line changes what earlier ones mean, such as the target of a link. A new
        rendering takes seconds of processor time for a long answer, so it is not done without need.
        """
        tokens = await asyncio.to_thread(parser().parse, text)
        wanted = [_shape(token) for token in tokens if token.level == 0 and token.nesting >= 0]
        shown = [_shape_of(block) for block in self.children if isinstance(block, MarkdownBlock)]
        if self.source != text or wanted != shown or _REFERENCE.search(text):
            await self.update(text)

    @on(Markdown.LinkClicked)
    def _show_address(self, event: Markdown.LinkClicked) -> None:
        """Say where a link leads; whether to go there is the reader's business."""
        event.stop()
        self.app.notify(event.href, title="Link", markup=False)
