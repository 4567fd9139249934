"""Markdown that grows at its end, laid out at a cost that does not grow with it.

Only the last block is read and laid out anew; of a list only its last item, and of a block of code only its
last lines. What later lines change of earlier ones, such as the target of a link, comes right when the whole
text is laid out at the end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tui.lines import BLANK, Line
from tui.markdown import block, code_head, code_rows, is_tight, items, language_of, nodes_of, parser

if TYPE_CHECKING:
    from markdown_it.tree import SyntaxTreeNode as Node

CODE_LINES: Final = 40
"""Lines of a block of code that are highlighted together while it grows."""
LISTS: Final = ("bullet_list", "ordered_list")


class Growing:
    """The rows of a text that grows, for one width."""

    def __init__(self, width: int) -> None:
        self.lines: list[Line] = []
        self._width = width
        self._parser = parser()
        self._settled = 0
        """Rows that stay as they are, whatever comes."""
        self._text = ""
        """What the other rows are made of."""
        self._opening = ""
        """The line that opened the block of code that `_text` is the rest of; empty: it begins a block."""
        self._tight: bool | None = None
        """`_text` is the rest of a list: whether that is a tight one. None: it is not."""

    def add(self, text: str) -> int:
        """Take more text; the first row that may have changed."""
        first = self._settled
        del self.lines[first:]
        source = self._opening + self._text + text
        self._text += text
        nodes = nodes_of(self._parser.parse(source))
        for node, after in pairwise(nodes):
            self._put(node)
            self._settle(source, _begins(after))
        for last in nodes[-1:]:
            if last.type in LISTS and len(last.children) > 1:
                self._put(last, items(last, self._width, until=-1))
                self._settle(source, _begins(last.children[-1]), tight=is_tight(last))
                self._put(last, items(last, self._width, since=-1))
            elif last.type == "fence" and last.content.count("\n") > CODE_LINES:
                self._put_code(last, source)
            else:
                self._put(last)
        return first

    def _put(self, node: Node, rows: list[Line] | None = None) -> None:
        """The rows of a block, or `rows` of it, below those that are there."""
        if self._opening and node.type == "fence":
            self.lines += code_rows(node.content, language_of(node), self._width)
            return
        same_list = self._tight is True and node.type in LISTS
        if self.lines and not same_list:
            self.lines.append(BLANK)
        self.lines += block(node, self._width) if rows is None else rows

    def _put_code(self, node: Node, source: str) -> None:
        """A block of code that is long: all but its last lines stay as they are."""
        lines = node.content.splitlines(keepends=True)
        whole = len(lines) // CODE_LINES * CODE_LINES
        language, opening = language_of(node), source.split("\n", _begins(node) + 1)[-2] + "\n"
        if not self._opening:
            self._put(node, [code_head(language, self._width, node.content)])
        for at in range(0, whole, CODE_LINES):
            self.lines += code_rows("".join(lines[at : at + CODE_LINES]), language, self._width)
        self._settle(source, _begins(node) + 1 + whole, opening=opening)
        if whole < len(lines):
            self.lines += code_rows("".join(lines[whole:]), language, self._width)

    def _settle(self, source: str, line: int, *, opening: str = "", tight: bool | None = None) -> None:
        """All rows stay, and what more there will be is made of `source` from that line on."""
        self._text = source.split("\n", line)[-1] if source.count("\n") >= line else ""
        self._opening, self._tight = opening, tight
        self._settled = len(self.lines)


def _begins(node: Node) -> int:
    assert node.map is not None  # every block has its place
    return node.map[0]
