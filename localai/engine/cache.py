"""What the KV cache of a context holds, token by token."""

from __future__ import annotations

from collections.abc import Sequence

from localai.engine.llama import Context


class KVCache:
    """The tokens that `context` has evaluated; the only way to evaluate more of them.

    After a computation was aborted or failed, llama.cpp may hold more positions than are listed here; they
    are cut before the next evaluation.
    """

    def __init__(self, context: Context) -> None:
        self._context = context
        self._tokens: list[int] = []
        self._clean = True

    def __len__(self) -> int:
        return len(self._tokens)

    def reuse(self, tokens: Sequence[int]) -> int:
        """Cut the cache to its longest common beginning with `tokens` and return that length.

        The last of `tokens` never counts: it must be evaluated for its logits.
        """
        limit = max(min(len(self._tokens), len(tokens) - 1), 0)
        kept = next((i for i in range(limit) if self._tokens[i] != tokens[i]), limit)
        if kept < len(self._tokens) or not self._clean:
            self._context.truncate(kept)
            del self._tokens[kept:]
            self._clean = True
        return kept

    def extend(self, tokens: Sequence[int]) -> None:
        """Evaluate at most `llama.PREFILL_BATCH` more tokens."""
        self._clean = False
        self._context.prefill(tokens)
        self._clean = True
        self._tokens += tokens

    def append(self, token: int) -> None:
        """Evaluate one more token."""
        self._clean = False
        self._context.decode(token)
        self._clean = True
        self._tokens.append(token)
