"""Text that is safe to show: without what commands a terminal, reorders a line, or is there unseen.

Everything that comes from a model, a user, a file or a name passes through `clean` or `clean_line` before it
reaches a screen or an export. Which characters those are: `localai.characters`.
"""

from __future__ import annotations

from localai.characters import LINE, PROSE, thinned


def clean(text: str) -> str:
    """`text` without C0 (newline and tab stay), DEL, C1, marks of direction, and what cannot be seen.

    Line and paragraph separators become newlines. Stateless, so pieces of a stream may be cleaned one by
    one: clean(a + b) == clean(a) + clean(b). What follows an escape character stays as the plain text that
    it then is.
    """
    return text.translate(PROSE)


def clean_line(text: str) -> str:
    """A name, a title or another text of one line: as `clean`, and also without joiners and variants.

    Line ends and all kinds of blanks become single spaces, none at the ends; piles of combining marks become
    low. Two texts that look the same are then the same, but for letters that look alike.
    """
    return thinned(" ".join(text.translate(LINE).split()))


def unseen(text: str) -> int:
    """How many characters of `text` `clean` takes away that stand there unseen, or turn the direction."""
    if text.isascii():
        return 0
    return sum(1 for char in text if char > "\x9f" and PROSE.get(ord(char), "") is None)


def left_out(hidden: int) -> str:
    """Words for characters that stood in a text unseen, and that the model does not get."""
    return f"{hidden:,} invisible character{' was' if hidden == 1 else 's were'} left out"
