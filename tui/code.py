"""Code with its words coloured, line by line."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, Any, Final

from textual.content import Content, Span

if TYPE_CHECKING:
    from pygments.lexer import Lexer

LONGEST: Final = 1000
"""Characters of a line beyond which nothing is coloured: nobody wrote that line, and colours make it slow."""
TAB: Final = 4
LANGUAGES: Final = 32
"""How many lexers are kept."""


def coloured(text: str, language: str) -> list[Content]:
    """The lines of `text`, whose last line break begins no other one. Of an unknown language: as they are."""
    lines = text.removesuffix("\n").expandtabs(TAB).split("\n")
    lexer = _lexer(language) if language and max(map(len, lines)) <= LONGEST else None
    spans = _spans("\n".join(lines), lexer) if lexer is not None else []
    if len(spans) != len(lines):
        return [Content(line).stylize_before("$text") for line in lines]
    return [Content(line, own).stylize_before("$text") for line, own in zip(lines, spans, strict=True)]


def _spans(text: str, lexer: Lexer) -> list[list[Span]]:
    """What is coloured in each line; nothing at all if the lexer does not give the text back as it was."""
    try:
        tokens = list(lexer.get_tokens(text))
    except Exception:  # noqa: BLE001 - there are hundreds of lexers, and the text is a model's
        return []
    if "".join(words for _, words in tokens) != text + "\n":
        return []
    lines: list[list[Span]] = [[]]
    at = 0
    for kind, words in tokens:
        for number, part in enumerate(words.split("\n")):
            if number:
                lines.append([])
                at = 0
            if part and (style := _style(kind)):
                lines[-1].append(Span(at, at + len(part), style))
            at += len(part)
    return lines[:-1]


@lru_cache(LANGUAGES)
def _lexer(language: str) -> Lexer | None:
    # Pygments is read with the first block of code: an empty chat starts sooner.
    from pygments.lexers import get_lexer_by_name
    from pygments.util import ClassNotFound

    try:
        return get_lexer_by_name(language, stripnl=False, ensurenl=True)
    except ClassNotFound:
        return None


@lru_cache(1024)
def _style(kind: Any) -> str:
    """The style of a kind of word, or of what it is a kind of."""
    from textual.highlight import HighlightTheme

    while kind is not None:
        if style := HighlightTheme.STYLES.get(kind):
            return style
        kind = kind.parent
    return ""
