"""Full-text search over all conversations.

All words of a query must be in a message or its attachments; capitals and accents do not matter. The last
word is taken as a beginning of one, as it may still be typed; "quoted" words must follow each other.
Any text is a query: no character of it has another meaning. What has Chinese, Japanese or Korean characters
is looked for as it stands, in the middle of a text too, for these languages put no spaces between words.

Found are the newest `CANDIDATES` messages, and of them the best by bm25 (Robertson and Zaragoza, "The
Probabilistic Relevance Framework", 2009) come first: to weigh all that have a common word would take seconds.
"""

from __future__ import annotations

import re
import unicodedata
from itertools import islice
from typing import Any, Final

import msgspec

from localai.chat.clean import clean
from localai.history.database import Database

CANDIDATES: Final = 500
"""So many messages are weighed."""
MAX_TERMS: Final = 24
"""What a query has beyond these words is left out."""
BEFORE, AFTER = 60, 160
"""Characters that are shown around what was found."""
_PLACES: Final = 2000
"""A piece of one or two characters that stands in more places is common: the newest have it."""
_GRAM: Final = 3
_UNSPACED: Final = "[⺀-鿿가-힣豈-﫿ｦ-ﾟ\U00020000-\U000323ff]"
"""As in schema/0003_search.sql."""
_PIECES: Final = re.compile(r'"([^"]*)"?|([^\s"]+)')
_ROW: Final = """
SELECT m.conversation, c.title, m.id, m.role, m.created, s.said, s.files
FROM searchable s JOIN messages m ON m.seq = s.seq JOIN conversations c ON c.id = m.conversation
WHERE s.seq = ?
"""
_HAS: Final = "EXISTS (SELECT 1 FROM searchable s WHERE s.seq = {} AND s.said || s.files LIKE ? ESCAPE '!')"


class Hit(msgspec.Struct, frozen=True):
    """A message that was found, and where in it."""

    conversation: str
    title: str
    message: str
    role: str
    created: float
    """Seconds since the epoch."""
    before: str
    match: str
    after: str
    """What stands around the first match: on one line, cleaned of control characters."""


class Term(msgspec.Struct, frozen=True):
    """What must be in a message: a word or a phrase."""

    text: str
    is_phrase: bool = False


def search(db: Database, query: str, limit: int) -> list[Hit]:
    """At most `limit` hits; none for a query without a letter or digit. Raises SQLite's errors."""
    terms = terms_of(query)
    if not terms or limit < 1:
        return []
    if any(_is_unspaced(term.text) for term in terms):
        found = _unspaced(db, [term.text for term in terms], limit)
        patterns = [re.escape(_folded(term.text)) for term in terms]
    else:
        found = _ranked(db, "words", expression(terms), [])
        patterns = [_pattern(term) for term in terms[:-1]] + [_pattern(terms[-1], is_last=True)]
    return [_hit(db.tuples(_ROW, (seq,))[0], patterns) for seq in found[:limit]]


def terms_of(query: str) -> list[Term]:
    """The words and phrases of a query."""
    # What comes from a terminal may have half a character, which no database takes.
    text = unicodedata.normalize("NFC", clean(query.replace("\0", " ")))
    found = []
    for match in _PIECES.finditer(text):
        phrase, word = match.groups()
        term = Term(" ".join((word or phrase or "").split()), word is None)
        if any(unicodedata.category(c)[0] in "LN" for c in term.text):
            found.append(term)
    return found[:MAX_TERMS]


def expression(terms: list[Term]) -> str:
    """The terms in the language of FTS5. The last word is a beginning, except one letter: too many match."""
    quoted = [f'"{term.text}"' for term in terms]
    last = terms[-1]
    return " ".join(quoted) + (" *" if not last.is_phrase and len(last.text) > 1 else "")


# -------------------------------------------------------------------------------------------------- queries


def _ranked(db: Database, table: str, match: str, also: list[str]) -> list[int]:
    """The best of the newest messages for `match`, which have each piece of `also` as well."""
    within = "".join(f" AND {_HAS.format('rowid')}" for _ in also)
    rows = db.tuples(
        f"SELECT rowid, bm25({table}) FROM {table} WHERE {table} MATCH ?{within}"
        f" ORDER BY rowid DESC LIMIT {CANDIDATES}",
        (match, *map(_like, also)),
    )
    return [seq for seq, _ in sorted(rows, key=lambda row: (row[1], -row[0]))]


def _unspaced(db: Database, pieces: list[str], limit: int) -> list[int]:
    """The best, or the newest, of the messages that have each piece."""
    long = [piece for piece in pieces if len(piece) >= _GRAM]
    short = [piece for piece in pieces if len(piece) < _GRAM]
    for piece in sorted(filter(_is_unspaced, short), key=len, reverse=True):
        places = db.tuples(
            f"SELECT doc FROM gram_places WHERE term >= ? AND term < ? LIMIT {_PLACES}",
            (piece.lower(), piece.lower() + "\U0010ffff"),
        )
        if len(places) < _PLACES:
            newest = sorted({seq for (seq,) in places}, reverse=True)
            return list(islice((seq for seq in newest if _has_all(db, seq, pieces)), limit))
    if long:
        return _ranked(db, "grams", " ".join(f'"{piece}"' for piece in long), short)
    # Common ones: the newest messages soon have enough of them.
    within = " AND ".join("said || files LIKE ? ESCAPE '!'" for _ in short)
    statement = f"SELECT seq FROM searchable WHERE {within} ORDER BY seq DESC LIMIT ?"
    return [seq for (seq,) in db.tuples(statement, [*map(_like, short), limit])]


def _has_all(db: Database, seq: int, pieces: list[str]) -> bool:
    wanted = " AND ".join(_HAS.format(seq) for _ in pieces)
    return bool(db.tuples(f"SELECT {wanted}", [*map(_like, pieces)])[0][0])


def _like(piece: str) -> str:
    return "%" + re.sub("[!%_]", r"!\g<0>", piece) + "%"


# -------------------------------------------------------------------------------------------------- context


def _hit(row: tuple[Any, ...], patterns: list[str]) -> Hit:
    conversation, title, message, role, created, said, files = row
    before, match, after = _around(said, files, patterns)
    return Hit(conversation, title, message, role, created, before, match, after)


def _around(said: str, files: str, patterns: list[str]) -> tuple[str, str, str]:
    for text in (said, files):
        folded = _folded(text)
        for pattern in patterns:
            if match := re.search(pattern, folded):
                return _context(text, *match.span())
    # FTS5 divides a few rare scripts into words otherwise than `re`.
    return _context(said or files, 0, 0)


def _context(text: str, begin: int, end: int) -> tuple[str, str, str]:
    """What is before, at and after the place, each on one line."""
    before, after = text[max(0, begin - BEFORE) : begin], text[end : end + AFTER]
    return (
        ("…" if begin > BEFORE else "") + _line(before),
        _line(text[begin:end]),
        _line(after) + ("…" if end + AFTER < len(text) else ""),
    )


def _line(text: str) -> str:
    return re.sub(r"\s+", " ", clean(text))


def _pattern(term: Term, *, is_last: bool = False) -> str:
    """The place of a term in a folded text. Between its words may stand whatever is no word."""
    words = re.findall(r"[^\W_]+", _folded(term.text))
    open_end = is_last and not term.is_phrase
    return r"(?<![^\W_])" + r"[\W_]+".join(words) + (r"[^\W_]*" if open_end else r"(?![^\W_])")


def _is_unspaced(text: str) -> bool:
    """Whether there is a character of a script that puts no spaces between its words."""
    return re.search(_UNSPACED, text) is not None  # compiled when first asked: that takes 5 ms


class _Folds(dict[int, str]):
    """Each character in lower case and without accents: one for one, so that places stay what they are."""

    def __missing__(self, code: int) -> str:
        self[code] = unicodedata.normalize("NFD", chr(code))[0].lower()[0]
        return self[code]


_FOLDS: Final = _Folds()


def _folded(text: str) -> str:
    return text.lower() if text.isascii() else text.translate(_FOLDS)
