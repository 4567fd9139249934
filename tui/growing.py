"""Markdown that grows at its end: only its last block is read and laid out anew.

Of a list that is only the last item, of a block of code only the last lines, so a token costs the same in a
reply of any length. A block without such parts, a long table say, costs more as it grows; the caller has to
come less often then. What later lines change of earlier ones, such as the target of a link, comes right when
the whole text is laid out at the end.
"""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING, Final

from tui.lines import BLANK, Line
from tui.markdown import (
    block,
    code_head,
    code_rows,
    first_number,
    is_tight,
    items,
    language_of,
    nodes_of,
    parser,
)

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
        self._number: int | None = None
        """Of the first item of that list, if its items have numbers."""

    def add(self, text: str) -> int:
        """Take more text; the first row that may have changed."""
        first = self._settled
        del self.lines[first:]
        source = self._opening + self._text + text
        self._text += text
        nodes = nodes_of(self._parser.parse(source))
        whole = source.count("\n")  # a line that has not ended may still belong to what is before it
        for node, after in pairwise(nodes):
            self._put(node, goes_on=node is nodes[0])
            if _begins(after) < whole:
                self._settle(source, _begins(after))
        for last in nodes[-1:]:
            goes_on = last is nodes[0]
            if last.type in LISTS and len(last.children) > 1 and _begins(last.children[-1]) < whole:
                self._put_list(last, source, goes_on=goes_on)
            elif last.type == "fence" and last.content.count("\n") > CODE_LINES:
                self._put_code(last, source, goes_on=goes_on)
            else:
                self._put(last, goes_on=goes_on)
        return first

    def _put(self, node: Node, *, goes_on: bool) -> None:
        """A block, below the rows that are there. `goes_on`: it is what `_text` begins with."""
        if goes_on and self._opening and node.type == "fence":
            self.lines += code_rows(node.content, language_of(node), self._width) if node.content else []
        elif goes_on and self._tight is not None and node.type in LISTS:
            self._put_rows(items(node, self._width, first=self._number), apart=not self._tight)
        else:
            self._put_rows(block(node, self._width))

    def _put_rows(self, rows: list[Line], *, apart: bool = True) -> None:
        if rows and self.lines and apart:
            self.lines.append(BLANK)
        self.lines += rows

    def _put_list(self, node: Node, source: str, *, goes_on: bool) -> None:
        """A list: all but its last item stay as they are."""
        tight = self._tight if goes_on else None
        number = self._number if goes_on and tight is not None else None
        rows = items(node, self._width, until=-1, first=number)
        self._put_rows(rows, apart=tight is not True)
        number = first_number(node) if number is None else number
        last = None if number is None else number + len(node.children) - 1
        self._settle(source, _begins(node.children[-1]), tight=is_tight(node), number=last)
        rows = items(
            node, self._width, since=-1, first=None if last is None else last - len(node.children) + 1
        )
        self._put_rows(rows, apart=not self._tight)

    def _put_code(self, node: Node, source: str, *, goes_on: bool) -> None:
        """A block of code that is long: all but its last lines stay as they are."""
        lines = [line + "\n" for line in node.content.removesuffix("\n").split("\n")]
        whole = len(lines) // CODE_LINES * CODE_LINES
        language, opening = language_of(node), source.split("\n", _begins(node) + 1)[-2] + "\n"
        if not (goes_on and self._opening):
            self._put_rows([code_head(language, self._width, node.content)])
        for at in range(0, whole, CODE_LINES):
            self.lines += code_rows("".join(lines[at : at + CODE_LINES]), language, self._width)
        self._settle(source, _begins(node) + 1 + whole, opening=opening)
        if whole < len(lines):
            self.lines += code_rows("".join(lines[whole:]), language, self._width)

    def _settle(
        self,
        source: str,
        line: int,
        *,
        opening: str = "",
        tight: bool | None = None,
        number: int | None = None,
    ) -> None:
        """All rows stay, and what more there will be is made of `source` from that line on."""
        self._text = source.split("\n", line)[-1] if source.count("\n") >= line else ""
        self._opening, self._tight, self._number = opening, tight, number
        self._settled = len(self.lines)


def _begins(node: Node) -> int:
    assert node.map is not None  # every block has its place
    return node.map[0]
