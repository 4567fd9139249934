"""What must be known of a vocabulary before llama.cpp sees it.

llama.cpp aborts on a token that is there twice, and on text with a byte that a SentencePiece vocabulary has
no token for. And whether R1's markers are tokens decides about the prompt format: that is better known before
gigabytes are loaded.
"""

from __future__ import annotations

from typing import Final

from models.bounded import Cursor
from models.header import TokenFacts, printable

KEY: Final = "tokenizer.ggml.tokens"
MAX_TOKENS: Final = 3 << 17
"""The largest vocabularies have 262,144 tokens."""
MAX_TEXT: Final = 16 * 1024 * 1024
"""Bytes of all tokens together; 262,144 tokens have 2 MB."""

_R1_MARKERS: Final = ("<｜User｜>".encode(), "<｜Assistant｜>".encode())


def read(cursor: Cursor, count: int) -> TokenFacts:
    """What `count` tokens are, which come next; ModelFileError for more than can be."""
    if count > MAX_TOKENS:
        raise cursor.malformed(f"its vocabulary has {count:,} tokens; {MAX_TOKENS:,} are possible")
    tokens = cursor.strings(count, MAX_TEXT, "the vocabulary")
    known = set(tokens)
    if b"" in known or any(b"\0" in token for token in tokens):
        # llama.cpp reads up to a NUL, and gives names to what is empty.
        words = (token.partition(b"\0")[0] for token in tokens)
        tokens = [word or b"[EMPTY_%d]" % number for number, word in enumerate(words)]
        known = set(tokens)
    return TokenFacts(
        twice=_first_twice(tokens) if len(known) < count else "",
        all_bytes=all(b"<0x%02X>" % byte in known or bytes([byte]) in known for byte in range(256)),
        r1_markers=all(marker in known for marker in _R1_MARKERS),
    )


def _first_twice(tokens: list[bytes]) -> str:
    seen: set[bytes] = set()
    for token in tokens:
        if token in seen:
            break
        seen.add(token)
    return printable(token.decode("utf-8", "replace"), 40) or "(invisible)"
