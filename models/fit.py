"""What a model needs in memory, and what context it should be given."""

from __future__ import annotations

from typing import Final

from localai.errors import UsageError
from models.header import Header

MOST: Final = 16_384
"""Tokens: R1's thinking rarely needs more, and the cache for them stays small."""
LEAST: Final = 2_048
"""Tokens: below this, thinking and answer do not fit."""


def default_context(header: Header, available_bytes: int) -> int:
    """Tokens of context when the user asks for none.

    What the model was trained for, at most `MOST`, halved until its KV cache takes no more than a quarter
    of `available_bytes`, but never below `LEAST` or below what the model was trained for if that is less.
    """
    trained = header.context_trained or MOST
    context = min(trained, MOST)
    least = min(trained, LEAST)
    while context > least and header.kv_bytes_per_token * context > available_bytes // 4:
        context = max(context // 2, least)
    return context


def check_context(header: Header, wanted: int | None) -> None:
    """Refuse, with UsageError, more tokens of context than the model was trained for; None asks for none."""
    if wanted is not None and header.context_trained and wanted > header.context_trained:
        raise UsageError(
            f"--context {wanted:,} is more than the {header.context_trained:,} tokens "
            "that the model was trained for"
        )
