"""A small model that drafts for a large one of the same tokenizer, such as R1's 1.5B for its 14B or 32B."""

from __future__ import annotations

import time
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Self

import msgspec

from localai.engine.cache import CachedSequence
from localai.engine.context import Aborted, AbortFlag, Context, ContextSettings, NoRoom
from localai.engine.llama import Model
from localai.engine.loading import Plan
from localai.engine.sampler import Sampler
from localai.engine.settings import LoadOptions, Sampling
from localai.errors import UsageError
from models import gguf

EXTRA_TOKENS = 128
"""So many more tokens one of two vocabularies may have: R1's distills differ in the padding behind theirs."""
CATCHING_UP = 64
"""Tokens: who has to read more than these has not drafted for a while."""
_COMPARED = 4096
"""About so many tokens of two vocabularies are compared."""


class DraftModel:
    """A small model with a context of its own, in which it reads along with what the large one writes."""

    def __init__(
        self, sampler: Sampler, context: Context, vocabulary: int, notes: tuple[str, ...] = ()
    ) -> None:
        """`sampler` is a greedy one; tokens from `vocabulary` on are never drafted."""
        self.notes = notes
        """What the user should know of how it was loaded."""
        self.token_s = 0.0
        """Seconds that one token of a draft takes, as far as is known."""
        self._context = context
        self._sequence = CachedSequence(context, 0)
        self._sampler = sampler
        self._vocabulary = vocabulary

    @classmethod
    def load(
        cls,
        options: LoadOptions,
        target: Model,
        settings: ContextSettings,
        abort: AbortFlag,
        resources: ExitStack,
    ) -> Self | None:
        """The drafter that `options` name for `target`; UsageError if its tokens are not the same.

        Other errors as `Plan`: the target is in memory already.
        """
        if options.draft is None or not options.speculate:
            return None
        path = Path(options.draft)
        trained = gguf.read_header(path).context_trained
        size = min(settings.size, trained) if trained else settings.size
        plan = Plan(path, msgspec.structs.replace(options, context=size))
        model = resources.enter_context(
            Model(path, plan.gpu_layers, lambda share: True, mmap=options.mmap, mlock=options.mlock)
        )
        check_same_tokens(target, model, path)
        alone = msgspec.structs.replace(settings, sequences=1, size=size)
        context = resources.enter_context(Context(model, alone, abort))
        sampler = resources.enter_context(Sampler(Sampling(temperature=0), model, context.size))
        notes = tuple(f"draft model: {note}" for note in plan.notes)
        return cls(sampler, context, min(target.vocabulary, model.vocabulary), notes)

    def set_threads(self, count: int) -> None:
        """Compute with so many threads from now on."""
        self._context.set_threads(count)

    def continue_(self, tokens: Sequence[int], most: int) -> list[int]:
        """What it would write after `tokens`, at most `most` tokens."""
        if len(tokens) + most > self._context.size:
            return []
        drafts: list[int] = []
        try:
            started = time.perf_counter()
            if len(tokens) - len(self._sequence) > CATCHING_UP:
                self._read(tokens)  # the prompt, once: not a part of what drafts cost
                started = time.perf_counter()
                self._sequence.cut(len(tokens) - 1)
            index = self._read(tokens)
            while len(drafts) < most:
                token = self._sampler.sample(self._context, index)
                if token >= self._vocabulary:
                    break
                drafts.append(token)
                if len(drafts) < most:
                    index = self._evaluate([token])
            self._measured(len(drafts), time.perf_counter() - started)
        except (Aborted, NoRoom):
            self._sequence.failed()
        return drafts

    def _read(self, seen: Sequence[int]) -> int:
        """Evaluate what it has not seen yet; where the last logits are."""
        self._sequence.keep_common(seen[:-1])
        index = 0
        while len(self._sequence) < len(seen):
            piece = list(seen[len(self._sequence) :][: self._context.batch])
            index = self._evaluate(piece) + len(piece) - 1
        return index

    def _evaluate(self, tokens: list[int]) -> int:
        index = self._sequence.add(tokens, 1)
        self._context.evaluate()
        self._sequence.evaluated(tokens)
        return index

    def _measured(self, count: int, seconds: float) -> None:
        if count:
            token_s = seconds / count
            self.token_s = token_s if not self.token_s else 0.8 * self.token_s + 0.2 * token_s


class ModelDrafter:
    """What a draft model foretells of one reply to a prompt of `tokens`."""

    def __init__(self, model: DraftModel, tokens: Sequence[int]) -> None:
        self._model = model
        self._tokens = list(tokens)

    @property
    def match(self) -> int:
        """As good as an n-gram of so many tokens, to begin with; what comes true is learned."""
        return 16

    @property
    def foretold(self) -> int | None:
        """Each guess of a model costs time: none is made just to see whether it comes true."""
        return None

    def append(self, token: int) -> None:
        """The next token of the reply is final."""
        self._tokens.append(token)

    def cost(self, count: int) -> float:
        """Seconds that guessing `count` tokens takes, as far as is known."""
        return self._model.token_s * count

    def propose(self, most: int) -> list[int]:
        """What the small model would write next, at most `most` tokens."""
        return self._model.continue_(self._tokens, most)


def check_same_tokens(target: Model, draft: Model, path: Path) -> None:
    """Raises UsageError unless both vocabularies have the same tokens, but for some at their ends."""
    if not same_tokens(target, draft) or abs(target.vocabulary - draft.vocabulary) > EXTRA_TOKENS:
        raise UsageError(
            f"{path} cannot draft for this model: its tokens are not the same",
            "A draft model must be of the same family, such as R1's Qwen 1.5B for its Qwen 14B",
        )


def same_tokens(one: Model, other: Model) -> bool:
    """Whether the tokens that two vocabularies share are the same; looks at some thousands of them."""
    shared = min(one.vocabulary, other.vocabulary)
    compared = (*range(0, shared, max(1, shared // _COMPARED)), shared - 1)
    return (one.bos, one.eos) == (other.bos, other.eos) and all(
        one.text(token) == other.text(token) for token in compared
    )
