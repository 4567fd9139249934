"""Markdown as rows of text: what the parser found, laid out for a width.

Nothing in it acts: markup is not interpreted, HTML is shown as the text it is, a link shows its address when
it is clicked and opens nothing. Text must have gone through `localai.chat.clean.clean`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING, Final

from textual.content import Content
from textual.style import Style

from localai.chat.clean import clean_line
from tui.code import coloured
from tui.lines import BLANK, Line, folded, indented, wrapped
from tui.tables import table

if TYPE_CHECKING:  # read only when there is something to lay out: an empty chat starts sooner
    from markdown_it import MarkdownIt
    from markdown_it.rules_block import StateBlock
    from markdown_it.token import Token
    from markdown_it.tree import SyntaxTreeNode as Node

BULLETS: Final = ("• ", "◦ ", "▪ ")
QUOTE: Final = Content.styled("▌ ", "$border")
COPY: Final = "copy "
CODE_BACKGROUND: Final = "on $surface"
_INLINE: Final = {
    "strong": "bold",
    "boxed": "bold $primary",
    "value": "reverse",
    "em": "italic",
    "s": "strike",
    "link": "$primary underline",
}


@cache
def parser() -> MarkdownIt:
    """GitHub's Markdown, without what would undo `clean` or hide text.

    With `html` on, tags would be dropped; with it off they are text. Entities could spell the characters that
    `clean` has removed.
    """
    from markdown_it import MarkdownIt

    from tui.maths import maths

    found = MarkdownIt("gfm-like", {"html": False, "linkify": False}).disable("entity").use(maths)
    found.block.ruler.before("table", "deep", _deep)
    return found


def _deep(state: StateBlock, first: int, last: int, silent: bool) -> bool:
    """What is nested so deep that the parser would leave it out stands there as it was written."""
    if state.level < state.md.options.maxNesting - 2:  # an item of a list is two levels deep
        return False
    end = first + 1
    while end < last and (state.isEmpty(end) or state.sCount[end] >= state.blkIndent):
        end += 1
    if not silent:
        token = state.push("code_block", "code", 0)
        token.content = state.getLines(first, end, state.blkIndent, False).rstrip("\n")
        token.map = [first, end]
        state.line = end
    return True


def nodes_of(tokens: Sequence[Token]) -> list[Node]:
    """The blocks at the top level. `node.map` has the first line of each and the line behind it."""
    from markdown_it.tree import SyntaxTreeNode

    return list(SyntaxTreeNode(list(tokens)).children)


def lay_out(text: str, width: int) -> list[Line]:
    """All of `text` as rows of at most `width` cells."""
    return blocks(nodes_of(parser().parse(text)), width)


def blocks(nodes: Sequence[Node], width: int, depth: int = 0, *, tight: bool = False) -> list[Line]:
    """Blocks one below the other, with an empty row between unless `tight`."""
    lines: list[Line] = []
    for node in nodes:
        rows = block(node, width, depth)
        if lines and rows and not tight:
            lines.append(BLANK)
        lines += rows
    return lines


def block(node: Node, width: int, depth: int = 0) -> list[Line]:
    """One block as rows."""
    match node.type:
        case "paragraph":
            return wrapped(inline(node), width)
        case "heading":
            return wrapped(inline(node).stylize_before("bold $primary"), width)
        case "fence" | "code_block":
            return code(node.content, language_of(node), width)
        case "bullet_list" | "ordered_list":
            return items(node, width, depth)
        case "blockquote":
            return indented(blocks(node.children, width - len(QUOTE), depth), QUOTE, QUOTE)
        case "table":
            return _table(node, width)
        case "hr":
            rule = Content.styled("─" * max(width, 1), "$border")
            return [Line(rule, len(rule))]
    return blocks(node.children, width, depth) if node.children else wrapped(Content(node.content), width)


def is_tight(node: Node) -> bool:
    """Whether the items of a list stand without empty rows between them."""
    return all(part.hidden for item in node.children for part in item.children if part.type == "paragraph")


def first_number(node: Node) -> int | None:
    """Of a list's items; None if they have no numbers."""
    return int(node.attrs.get("start", 1)) if node.type == "ordered_list" else None


def items(
    node: Node,
    width: int,
    depth: int = 0,
    *,
    since: int | None = None,
    until: int | None = None,
    first: int | None = None,
) -> list[Line]:
    """The items of a list, or those from `since` and before `until`, counted as in a slice.

    `first`: the number of its first item, if that is not its own.
    """
    tight, number = is_tight(node), first_number(node)
    number = number if first is None else first
    cells = len(str((number or 0) + len(node.children) - 1))
    lines: list[Line] = []
    for at, item in list(enumerate(node.children, number or 0))[since:until]:
        sign = f"{at:>{cells}}. " if number is not None else BULLETS[depth % len(BULLETS)]
        rows = blocks(item.children, width - len(sign), depth + 1, tight=tight) or [BLANK]
        if lines and not tight:
            lines.append(BLANK)
        lines += indented(rows, Content.styled(sign, "$primary"), Content(" " * len(sign)))
    return lines


# ------------------------------------------------------------------------------------------------------ code


def language_of(node: Node) -> str:
    """What a block of code says that it is; empty if it does not say it."""
    # Entities are read here whatever rules are off, and may spell what `clean` has removed.
    words = clean_line(node.info).split() if node.type == "fence" else []
    return words[0] if words else ""


def code(text: str, language: str, width: int) -> list[Line]:
    """A block of code: a row with the language, and the code on a ground of its own."""
    return [code_head(language, width, text), *code_rows(text, language, width)]


def code_head(language: str, width: int, text: str) -> Line:
    """The row above a block of code, which copies it. It is not part of the text."""
    room = max(width - len(COPY), 1)
    head = Content.styled(f" {language}", "$text 60%").truncate(room, ellipsis=True, pad=True)
    row = (head + Content.styled(COPY, "$primary")).stylize_before(CODE_BACKGROUND)
    return Line(row, lead=len(row), copies=text)


def code_rows(text: str, language: str, width: int) -> list[Line]:
    """Code, coloured, with long lines folded."""
    return [_on_ground(row, width) for line in coloured(text, language) for row in folded(line, width - 2)]


def _on_ground(row: Line, width: int) -> Line:
    content = Content(" ") + row.content
    rest = max(width - content.cell_length, 0)
    return Line(content.pad_right(rest).stylize_before(CODE_BACKGROUND), lead=1, tail=rest, then=row.then)


# ---------------------------------------------------------------------------------------------------- tables


def _table(node: Node, width: int) -> list[Line]:
    rows = [row for part in node.children for row in part.children]
    cells = [[inline(cell) for cell in row.children] for row in rows]
    alignments = [_alignment(cell) for cell in rows[0].children]
    return table(cells, alignments, width)


def _alignment(cell: Node) -> str:
    style = str(cell.attrs.get("style", ""))
    return next((side for side in ("right", "center") if style.endswith(side)), "left")


# ---------------------------------------------------------------------------------------------------- inline


def inline(node: Node) -> Content:
    """The text within a block."""
    return Content("").join(_inline(part) for part in node.children)


def _inline(node: Node) -> Content:
    match node.type:
        case "inline":
            return inline(node)
        case "softbreak":
            return Content(" ")
        case "hardbreak":
            return Content("\n")
        case "code_inline":
            return Content.styled(node.content.replace("\t", " "), f"$text-accent {CODE_BACKGROUND}")
        case "link":
            return _linked(inline(node), str(node.attrs.get("href", "")))
        case "image":
            alt = inline(node) if node.children else Content(node.content or "image")
            return _linked(alt, str(node.attrs.get("src", "")))
    if node.children:
        return inline(node).stylize(_INLINE.get(node.type, ""))
    return Content(node.content.replace("\t", " "))


def _linked(content: Content, address: str) -> Content:
    shows = Style.from_meta({"@click": f"link({address!r})"})
    return content.stylize(_INLINE["link"]).stylize(shows)
