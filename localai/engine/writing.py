"""A model writes a text of its own: it answers questions as in a chat, and all it read and wrote is told.

For importance matrices, which are best collected on what a model does in use. Some replies are written at the
same time, in step: what is computed at once is one token of each, or one prompt, and never depends on how
quick anything is. So the same questions, seed and settings give the same text, which the requests that the
scheduler serves side by side do not promise. The number of threads may change meanwhile: llama.cpp shares out
rows among them, and only attention for one single token in an order that depends on how many there are.
"""

from __future__ import annotations

import codecs
import time
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import msgspec

from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.cache import CachedSequence
from localai.engine.context import Aborted, Context, NoRoom
from localai.engine.generate import Generation, Voice
from localai.engine.loops import LoopDetector
from localai.engine.reply import FLUSH_S, Reply
from localai.engine.scheduler import work_of
from localai.engine.settings import Sampling
from localai.engine.threads import ThreadGovernor
from localai.errors import EngineError, UsageError

LEAST_REPLY = 32
"""Tokens that a reply must have room for, else the question is passed over."""
_SPARE = 16
"""Tokens of each sequence that are left free: the engine may close the thinking at the very end."""


@dataclass
class _Turn:
    """One question and the reply to it. `number`: of its conversation, counted over all rounds."""

    number: int
    turn: int
    messages: list[ChatMessage]
    """All that is said so far, the question last."""
    further: tuple[str, ...]
    """Questions that follow."""


@dataclass(eq=False)
class _Going:
    """A reply that is being written."""

    turn: _Turn
    generation: Generation
    reply: Reply
    loops: LoopDetector = field(default_factory=LoopDetector)
    seen: int = 0
    """Tokens of the reply that were looked at for loops."""

    @property
    def tokens(self) -> list[int]:
        """All that the model read and wrote."""
        end = [] if self.reply.end is None else [self.reply.end]
        return [*self.generation.tokens, *self.reply.all_tokens, *end]


def write(
    voice: Voice,
    context: Context,
    sequences: Sequence[CachedSequence],
    request: protocol.Write,
    sampling: Sampling,
    threads: int,
    *,
    pinned: bool,
) -> Iterator[protocol.WriteProgress | protocol.Written]:
    """Answer `request` with so many replies at a time as there are `sequences`, which are all of `context`.

    `sampling` is complete, but for a seed. `pinned`: compute with so many `threads`, also where other
    programs want the cores. UsageError if there is no room for any question; EngineError.
    """
    for sequence in sequences:
        sequence.cut(0)
    governor = ThreadGovernor(threads, context.set_threads, fixed=pinned or len(sequences) == 1)
    writer = _Writer(voice, context, sequences, request, sampling, governor)
    told = 0.0
    try:
        while writer.total < request.tokens:
            writer.step()
            if time.perf_counter() - told >= FLUSH_S:
                told = time.perf_counter()
                yield protocol.WriteProgress(request.id, min(writer.total, request.tokens), request.tokens)
    finally:
        writer.close()
    texts = writer.texts()
    for left, (text, tokens) in zip(range(len(texts))[::-1], texts, strict=True):
        yield protocol.Written(request.id, text, tokens, left)


class _Writer:
    """Writes the replies to all questions, then again with other seeds, for as long as `step` is called."""

    def __init__(
        self,
        voice: Voice,
        context: Context,
        sequences: Sequence[CachedSequence],
        request: protocol.Write,
        sampling: Sampling,
        governor: ThreadGovernor,
    ) -> None:
        self._voice, self._context, self._governor = voice, context, governor
        self._request, self._sampling = request, sampling
        self._free = deque(sequences)
        self._room = context.size // len(sequences) - _SPARE
        self._next = 0
        self._follow: deque[_Turn] = deque()
        """Questions that follow a reply which has ended."""
        self._going: list[_Going] = []
        self._ended: dict[tuple[int, int], list[int]] = {}
        """What was read and written, by conversation and turn."""
        self._ended_tokens = 0

    @property
    def total(self) -> int:
        """Tokens that were read and written so far."""
        return self._ended_tokens + sum(
            len(one.generation.tokens) + one.reply.completion_tokens for one in self._going
        )

    def step(self) -> None:
        """Begin a reply in each sequence that is free, and write one token of each."""
        while self._free:
            self._begin(self._free.popleft())
        self._compute(self._going)
        going = self._going
        self._going = [one for one in going if not self._is_over(one)]
        for one in going:
            if one not in self._going:
                self._end(one)

    def close(self) -> None:
        """Let go of what is being written; it counts as far as it has come."""
        going, self._going = self._going, []
        for one in going:
            self._end(one)

    def texts(self) -> list[tuple[str, int]]:
        """Each question with its reply and all markers, in the order of the questions, and its tokens.

        The first without the token that begins texts, which is put there when a text is read.
        """
        found = [tokens for _, tokens in sorted(self._ended.items())]
        model = self._voice.model
        if model.adds_bos and found and model.text(found[0][0]) == model.bos:
            found[0] = found[0][1:]
        return [(self._spelled(tokens), len(tokens)) for tokens in found]

    def _spelled(self, tokens: Sequence[int]) -> str:
        """The text of `tokens`, without a character that is not whole at the end."""
        data = b"".join(map(self._voice.model.piece, tokens))
        return codecs.getincrementaldecoder("utf-8")("replace").decode(data)

    # ------------------------------------------------------------------------------------------ one reply

    def _begin(self, sequence: CachedSequence) -> None:
        """Read the next question, and draw the first token of the reply."""
        turn, tokens, opened = self._question()
        limits = self._request.limits
        most = min(limits.max_tokens or self._room, self._room - len(tokens))
        limits = msgspec.structs.replace(limits, max_tokens=most)
        splitter = self._voice.splitter(opened=opened)
        reply = Reply(self._request.id, splitter, len(tokens), limits, self._voice.model.piece)
        seed = ((self._request.sampling.seed or 0) + turn.number) % (1 << 31)
        sampling = msgspec.structs.replace(self._sampling, seed=seed)
        generation = Generation(self._voice, reply, tokens, sampling, limits, self._context)
        one = _Going(turn, generation, reply)
        sequence.cut(0)
        generation.start(sequence)
        self._going.append(one)
        while generation.reading:
            self._compute([one])

    def _question(self) -> tuple[_Turn, list[int], bool]:
        """The next turn that there is room for, the tokens of its prompt, and whether it opens thinking."""
        for _ in range(len(self._request.conversations) + len(self._follow)):
            turn = self._follow.popleft() if self._follow else self._new()
            tokens, opened = self._voice.prompter.prompt(turn.messages)
            if len(tokens) + LEAST_REPLY <= self._room:
                return turn, tokens, opened
        raise UsageError(
            f"there is no room for a question and a reply in {max(self._room, 0):,} tokens of context",
            "Take a text of your own, or a model that was trained for more",
        )

    def _new(self) -> _Turn:
        asked = self._request.conversations
        question, *further = asked[self._next % len(asked)]
        self._next += 1
        return _Turn(self._next - 1, 0, [ChatMessage("user", question)], tuple(further))

    def _compute(self, planned: Sequence[_Going]) -> None:
        """Evaluate what each of `planned` wants next, and draw a token of each that is not still reading."""
        most = self._context.batch // len(planned)
        count = sum(one.generation.plan(most, alone=False) for one in planned)
        self._governor.begin(work_of(count))
        try:
            self._context.evaluate()
        except (Aborted, NoRoom) as error:
            for one in planned:
                one.generation.sequence.failed()
            what = "was stopped" if isinstance(error, Aborted) else "ran out of context"
            raise EngineError(f"the writing of the text {what}") from None
        self._governor.end()
        for one in planned:
            one.generation.evaluated(0.0)

    def _is_over(self, one: _Going) -> bool:
        """Whether the reply has ended, or goes round in circles."""
        new, one.seen = one.reply.all_tokens[one.seen :], len(one.reply.all_tokens)
        for token in new:
            if token in self._voice.tags:  # the answer may well quote the thinking
                one.loops = LoopDetector()
            elif one.loops.add(token) is not None:
                one.generation.cancel()
        return one.generation.ended

    def _end(self, one: _Going) -> None:
        """Keep what was written, and let the next question come."""
        turn, tokens = one.turn, one.tokens
        self._free.append(one.generation.sequence)
        whole = one.reply.reason in ("stop", "length")
        for _ in one.generation.finish():
            pass
        self._ended[turn.number, turn.turn] = tokens
        self._ended_tokens += len(tokens)
        answer, drawn = one.generation.drawn()
        if whole and answer and turn.further:
            if drawn:
                self._voice.prompter.remember(answer, drawn)
            question, *further = turn.further
            messages = [*turn.messages, ChatMessage("assistant", answer), ChatMessage("user", question)]
            self._follow.append(_Turn(turn.number, turn.turn + 1, messages, tuple(further)))
