r"""Formulas in Markdown: a plugin for markdown-it that puts readable text in their place.

It knows \( \), \[ \], $ $ and $$ $$, environments such as align that stand alone, and a bare \boxed{}. What
is not closed is shown as its source, so a formula that still comes becomes one when its end comes. What it
makes are the tokens of ordinary paragraphs.
"""

from __future__ import annotations

import re
from typing import Final

from markdown_it import MarkdownIt
from markdown_it.ruler import RuleOptionsType
from markdown_it.rules_block import StateBlock
from markdown_it.rules_inline import StateInline
from markdown_it.token import Token

from localai.chat.maths import MAX_CHARACTERS, readable
from localai.chat.maths_signs import EQUATIONS, GRIDS

MAX_LINES: Final = 60
"""Of a formula: how far the end of one is looked for."""
INDENT: Final = "  "
"""Before each line of a formula that stands alone."""

_OPENING: Final = re.compile(r"\\\[|\$\$|\\begin\{([a-zA-Z]+)\*?\}")
_AFTER_BLOCK: Final = re.compile(r"\s*([.,;]?)\s*")
_BRACKETS: Final = re.compile(r"\\\(((?:[^\\]++|\\[^)])++)\\\)|\\\[((?:[^\\]++|\\[^\]])++)\\\]", re.DOTALL)
_DOLLARS: Final = re.compile(
    # Not after a space and not before a word: "$5 and $10" and "$HOME/$USER" are no formulas.
    r"\$\$((?:[^$\\]++|\\.|\$(?!\$))++)\$\$|\$(?![\s$])((?:[^$\\`]++|\\.)++)(?<!\s)\$(?=(?:st|nd|rd|th|s)?(?!\w))",
    re.ASCII | re.DOTALL,
)
_TEX: Final = re.compile(r"[\\^_={}<>]")
_PROSE: Final = re.compile(r"\d.*\s.*[A-Za-z]{2}|\d.*[A-Za-z]{2}.*\s", re.DOTALL)
_BOX: Final = re.compile(r"\\(?:boxed|fbox)\s*\{")
_BRACES: Final = re.compile(r"\\.|[{}]", re.DOTALL)
_BOXED: Final = re.compile(r"▐([^▐▌]*)▌")


def maths(markdown: MarkdownIt) -> None:
    """Add the rules to `markdown`."""
    markdown.inline.ruler.before("escape", "maths", _inline)
    after: RuleOptionsType = {"alt": ["paragraph", "reference", "blockquote", "list"]}
    markdown.block.ruler.before("fence", "maths", _block, after)


def _block(state: StateBlock, first: int, end: int, silent: bool) -> bool:
    """A formula that has its lines for itself. A blank line ends it, as in TeX."""
    if state.is_code_block(first):
        return False
    line = state.src[state.bMarks[first] + state.tShift[first] : state.eMarks[first]]
    opening = _OPENING.match(line)
    if opening is None or (opening[1] and opening[1] not in EQUATIONS and opening[1] not in GRIDS):
        return False
    found = _to_closing(state, first, end, opening)
    if found is None:
        return False
    if not silent:
        text, after = found
        opened = state.push("paragraph_open", "p", 1)
        opened.map = [first, after]
        inline = state.push("inline", "", 0)
        inline.map = [first, after]
        inline.children = _tokens("\n".join(INDENT + row for row in text.split("\n")))
        state.push("paragraph_close", "p", -1)
        state.line = after
    return True


def _to_closing(state: StateBlock, first: int, end: int, opening: re.Match[str]) -> tuple[str, int] | None:
    """The text to show, and the line after it; None if this is not a formula alone on its lines."""
    environment = bool(opening[1])
    closing = opening[0].replace("begin", "end") if environment else {"\\[": "\\]"}.get(opening[0], "$$")
    indent = min(state.blkIndent, state.sCount[first])
    begin = state.bMarks[first] + state.tShift[first] + opening.end()
    if end - first > MAX_LINES and state.src.find(closing, begin, begin + MAX_CHARACTERS) < 0:
        return None
    source, searched = "", opening.end()
    for number in range(first, min(end, first + MAX_LINES + 1)):
        if number - first == MAX_LINES:
            return None
        if number > first and (state.isEmpty(number) or state.sCount[number] < indent):
            return None
        start = state.bMarks[number] + state.tShift[number]
        source += state.src[start : state.eMarks[number]] + "\n"
        at = source.find(closing, searched)
        if at >= 0:
            after = _AFTER_BLOCK.fullmatch(source, at + len(closing))
            if after is None:
                return None
            latex = source[: at + len(closing)] if environment else source[opening.end() : at]
            return readable(latex.strip(), display=True) + after[1], number + 1
        if len(source) > MAX_CHARACTERS:
            return None
        searched = max(len(source) - len(closing), opening.end())
    return source.rstrip("\n"), end


def _inline(state: StateInline, silent: bool) -> bool:
    """A formula within a line."""
    start, limit = state.pos, min(state.posMax, state.pos + MAX_CHARACTERS)
    sign = state.src[start]
    if sign == "\\":
        closed = state.src.find("\\)", start, limit) >= 0 or state.src.find("\\]", start, limit) >= 0
        match = _BRACKETS.match(state.src, start, limit) if closed else None
        if match is None:
            return _boxed(state, limit, silent) or _unclosed(state, silent)
    elif sign == "$":
        match = _DOLLARS.match(state.src, start, limit)
        before = state.src[start - 1 : start]
        if match is None or (before.isascii() and before.isalnum()) or _is_money(match[2] or ""):
            return False
    else:
        return False
    display = match[0].startswith(("\\[", "$$"))
    latex = next(part for part in match.groups() if part is not None)
    state.pos = match.end()
    if not silent:
        _push(state, start, readable(latex.strip(), display=display), display)
    return True


def _is_money(latex: str) -> bool:
    """Amounts with words between them, such as "$5 a month or 50$"."""
    return _TEX.search(latex) is None and _PROSE.match(latex) is not None


def _boxed(state: StateInline, limit: int, silent: bool) -> bool:
    r"""A \boxed{} outside of a formula."""
    start = state.pos
    if _BOX.match(state.src, start) is None or state.src.find("}", start, limit) < 0:
        return False
    depth = 0
    for brace in _BRACES.finditer(state.src, start + 1, limit):
        depth += (brace[0] == "{") - (brace[0] == "}")
        if brace[0] == "}" and depth <= 0:
            state.pos = brace.end()
            if not silent:
                _push(state, start, readable(state.src[start : state.pos]), display=False)
            return True
    return False


def _unclosed(state: StateInline, silent: bool) -> bool:
    r"""Without this, Markdown would show \( as ( until the formula is complete."""
    opening = state.src[state.pos : state.pos + 2]
    if opening not in ("\\(", "\\["):
        return False
    state.pos += 2
    if not silent:
        state.pending += opening
    return True


def _push(state: StateInline, start: int, text: str, display: bool) -> None:
    """Put `text` in; what is displayed stands on lines of its own, save for the full stop after it."""
    break_before = display and state.src[:start].strip() != ""
    break_after = display and re.fullmatch(r"[\s.,;:]*", state.src[state.pos : state.posMax]) is None
    if break_before:
        state.push("hardbreak", "br", 0)
        text = "\n".join(INDENT + row for row in text.split("\n"))
    for made in _tokens(text):
        token = state.push(made.type, made.tag, made.nesting)
        token.content = made.content
    if break_after:
        while state.src[state.pos : state.pos + 1] in (" ", "\n"):
            state.pos += 1
        state.push("hardbreak", "br", 0)


def _tokens(text: str) -> list[Token]:
    """`text` as tokens: its lines, and what is boxed as `boxed`."""
    tokens: list[Token] = []
    for number, line in enumerate(text.split("\n")):
        if number:
            tokens.append(Token("hardbreak", "br", 0))
        for index, piece in enumerate(_BOXED.split(line)):
            tokens += _boxed_tokens(piece) if index % 2 else [_text(piece)]
    return tokens


def _boxed_tokens(text: str) -> list[Token]:
    opened, closed = Token("boxed_open", "strong", 1), Token("boxed_close", "strong", -1)
    value = [Token("value_open", "span", 1), _text(text), Token("value_close", "span", -1)]
    return [opened, _text("▐"), *value, _text("▌"), closed]


def _text(content: str) -> Token:
    return Token("text", "", 0, content=content)
