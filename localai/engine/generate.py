"""One request: prefill, decode, sample, stop.

A `Generation` says which tokens it wants evaluated next and turns the logits into events. It never computes
itself: the scheduler evaluates what all generations want in one batch.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence

from localai.chat.prompt import END_THINK, THINK, PromptFormat
from localai.chat.splitter import Splitter
from localai.engine import protocol
from localai.engine.cache import GRID, CachedSequence
from localai.engine.context import Context
from localai.engine.llama import Model
from localai.engine.prompts import Prompter
from localai.engine.reply import Reply
from localai.engine.sampler import Sampler
from localai.engine.settings import Limits, Sampling
from localai.engine.speculation import Drafter, DraftPolicy, Speculation


class Voice:
    """What all replies of a model share: its vocabulary, its prompt format and where its thinking ends."""

    def __init__(self, model: Model, form: PromptFormat) -> None:
        self.model = model
        self.prompter = Prompter(model, form)
        tags = {tag: model.special_token(tag) for tag in (THINK, END_THINK)}
        self.tags = {token: tag for tag, token in tags.items() if token is not None}
        """The think tags that are tokens of their own."""
        end = tags[END_THINK]
        closing = [end] if end is not None else model.tokenize(END_THINK, special=False)
        line, lines = (model.tokenize(text, special=False) for text in ("\n", "\n\n"))
        self.new_line = line
        self.closing = [*closing, *lines]
        """Ends the thinking as R1 does it by itself, at the beginning of a line."""

    def splitter(self, *, opened: bool, begun: protocol.Begun | None = None) -> Splitter:
        """A splitter for the reply to a prompt that (not) `opened` the thinking, or for the rest of one."""
        splitter = Splitter(opened=opened, tag_tokens=len(self.tags) == 2)
        if begun is None or not (begun.answering or begun.thinking):
            return splitter
        drawn = b"".join(map(self.model.piece, self.prompter.drawn_of(begun)))
        space = drawn[len(drawn.rstrip()) :].decode()
        if begun.answering:
            splitter.resume("answer", space if begun.answer else None)
        else:
            splitter.resume("thinking", space)
        return splitter


class Generation:
    """The making of one reply to a prompt of `tokens`."""

    def __init__(
        self,
        voice: Voice,
        reply: Reply,
        tokens: list[int],
        sampling: Sampling,
        limits: Limits,
        context: Context,
        *,
        ignore_end: bool = False,
    ) -> None:
        self.id = reply.id
        self.tokens = tokens
        """The prompt's."""
        self.reproducible = sampling.seed is not None
        self.reading = True
        """Whether the prompt is not yet evaluated."""
        self._voice, self._reply, self._limits, self._context = voice, reply, limits, context
        self._sampler = Sampler(sampling, voice.model, context.size)
        self._ignore_end = ignore_end
        self._sequence: CachedSequence | None = None
        self._started = time.perf_counter()
        self._drafter: Drafter | None = None
        self._policy: DraftPolicy | None = None
        self._speculation: Speculation | None = None
        self._index = 0
        self._alone = True
        self._planned: list[int] = []
        self._drafts: list[int] = []
        self._pending: int | None = None
        """The last token drawn, which is not evaluated yet."""
        self._forced: list[int] = []
        """Tokens that come next, whatever the model would draw."""
        self._closing: list[int] = []
        """Those of them that are in the batch."""
        if limits.think_budget == 0:
            self.answer_now()

    def speculate(self, drafter: Drafter, policy: DraftPolicy) -> None:
        """Let `drafter` guess what comes next, as far as `policy` finds that it pays."""
        self._drafter, self._policy = drafter, policy

    # ---------------------------------------------------------------------------------------- the course

    @property
    def sequence(self) -> CachedSequence:
        """Where its tokens are kept."""
        assert self._sequence is not None
        return self._sequence

    @property
    def ended(self) -> bool:
        """Whether the reply is complete."""
        return self._reply.reason is not None

    def start(self, sequence: CachedSequence) -> None:
        """Begin, with what `sequence` already holds of the prompt."""
        sequence.busy = True
        self._sequence = sequence
        self._started = time.perf_counter()
        self._reply.cached_tokens = len(sequence)
        self.reading = len(sequence) < len(self.tokens)
        if self._drafter is not None and self._policy is not None:
            self._speculation = Speculation(self._drafter, self._policy)

    def plan(self, most: int, *, alone: bool) -> int:
        """Put what comes next into the batch, at most `most` tokens; how many. `alone`: no other decodes."""
        self._alone = alone
        if self.reading:
            outputs = self._plan_prompt(most, alone=alone)
        else:
            outputs = self._plan_reply(most, alone=alone)
        self._index = self.sequence.add(self._planned, outputs)
        return len(self._planned)

    def _plan_prompt(self, most: int, *, alone: bool) -> int:
        done = len(self.sequence)
        piece = min(GRID, self._context.batch) if self.reproducible and alone else most
        self._planned = self.tokens[done : done + piece]
        return int(done + piece >= len(self.tokens) and self._limits.max_tokens != 0)

    def _plan_reply(self, most: int, *, alone: bool) -> int:
        start = [] if self._pending is None else [self._pending]
        if not self._forced:
            self._drafts = self._draft() if alone and self._speculation is not None else []
            self._planned = start + self._drafts if self._drafts else start
            return len(self._planned)
        self._drafts = []
        self._closing = self._forced[: most - len(start)]
        self._planned = [*start, *self._closing]
        return int(len(self._closing) == len(self._forced))

    def _draft(self) -> list[int]:
        assert self._speculation is not None
        room = min(self._context.size - len(self.sequence), self._context.outputs, self._context.batch) - 1
        if self._limits.max_tokens is not None:
            room = min(room, self._limits.max_tokens - self._reply.completion_tokens - 1)
        return self._speculation.draft(max(room, 0))

    def evaluated(self, seconds: float) -> Sequence[protocol.GenerationEvent]:
        """The batch was computed in so many seconds: what came of it."""
        if self.reading:
            return self._read()
        sequence, planned, drafts = self.sequence, self._planned, self._drafts
        before = len(sequence.tokens)
        sequence.evaluated(planned)
        if not drafts and not self._forced:
            return self._take_one(seconds)
        self._pending = None
        events = self._closed() if self._closing else []
        started = time.perf_counter() if drafts else 0.0
        tokens: list[int] = []
        index = self._index + len(planned) - len(drafts) - 1
        while not self.ended and not self._forced:
            token = self._sampler.sample(self._context, index + len(tokens))
            tokens.append(token)
            events += self._take(token)
            if len(tokens) > len(drafts) or token != drafts[len(tokens) - 1]:
                break
        self._drawn(tokens, before, seconds + time.perf_counter() - started if drafts else seconds)
        return events

    def _take_one(self, seconds: float) -> Sequence[protocol.GenerationEvent]:
        """The usual case: one token was evaluated, and one is drawn."""
        token = self._pending = self._sampler.sample(self._context, self._index)
        events = self._take(token)
        if self._speculation is not None:
            self._drawn([token], 0, seconds)
        return events

    def _drawn(self, tokens: list[int], before: int, seconds: float) -> None:
        """`tokens` came of an evaluation, the last of which is not evaluated itself."""
        if not tokens:
            return
        self._pending = tokens[-1]
        if self._drafts:
            self._reply.drafted += len(self._drafts)
            self._reply.accepted += len(tokens) - 1
            self.sequence.cut(before + len(tokens))
        if self._speculation is None or self._drafter is None:
            return
        if seconds and self._alone and len(self._planned) == len(self._drafts) + 1:
            self._speculation.took(tokens, seconds)
        else:
            self._drafter.append(tokens[-1])

    def _read(self) -> Sequence[protocol.GenerationEvent]:
        self.sequence.evaluated(self._planned, reproducible=self.reproducible)
        self._reply.prompt_s = time.perf_counter() - self._started
        self.reading = len(self.sequence) < len(self.tokens)
        if self.reading:
            return [self.progress()]
        self._sampler.accept(self.tokens[-self._sampler.remembers :] if self._sampler.remembers else ())
        if self._limits.max_tokens == 0:
            self._reply.reason = "length"
        elif not self._forced:
            index = self._index + len(self._planned) - 1
            token = self._sampler.sample(self._context, index)
            events = self._take(token)
            self._drawn([token], len(self.sequence), 0.0)
            return events
        return ()

    def progress(self) -> protocol.PrefillProgress:
        """How much of the prompt is read."""
        return protocol.PrefillProgress(self.id, len(self.sequence), len(self.tokens))

    def _take(self, token: int) -> Sequence[protocol.GenerationEvent]:
        """A token has become part of the reply, or ends it."""
        reply, limits = self._reply, self._limits
        tag = self._voice.tags.get(token)
        if tag is None and not self._ignore_end and self._voice.model.is_end(token):
            reply.reason, reply.end = "stop", token
            return ()
        events = reply.add(token, tag)
        if reply.reason is not None:
            return events
        if reply.completion_tokens == limits.max_tokens:
            reply.reason = "length"
        elif len(self.tokens) + reply.completion_tokens > self._context.size:
            reply.reason = "context"
        elif limits.think_budget is not None and reply.thinking_tokens >= limits.think_budget:
            self.answer_now()
        return events

    # --------------------------------------------------------------------------------------- interference

    def answer_now(self) -> None:
        """Close the thinking with the next tokens; nothing where it is not open."""
        if self._reply.thinking and not self._forced and not self._reply.think_closed:
            line = [] if self._reply.at_line_start else self._voice.new_line
            self._forced = [*line, *self._voice.closing]

    def _closed(self) -> list[protocol.GenerationEvent]:
        """The forced tokens are evaluated: they are part of the reply."""
        closing, self._closing = self._closing, []
        self._forced = self._forced[len(closing) :]
        self._sampler.accept(closing)
        self._reply.think_closed = self._reply.think_closed or bool(closing)
        events: list[protocol.GenerationEvent] = []
        for token in closing:
            if self.ended:
                break
            if self._drafter is not None:
                self._drafter.append(token)
            events += self._take(token)
        return events

    def cancel(self) -> None:
        """End it as it is."""
        self._reply.reason = self._reply.reason or "cancelled"

    def no_room(self) -> None:
        """End it because the cache is full and nothing can give way."""
        self._reply.reason = "context"

    def finish(self) -> Iterator[protocol.GenerationEvent]:
        """The last events. The sequence is free afterwards."""
        self.release()
        yield from self._reply.finish()

    def release(self) -> None:
        """Let go of the sequence and the sampler."""
        if self._sequence is not None:
            self._sequence.busy = False
        self._sampler.close()

    def written(self) -> tuple[str, str, list[int]]:
        """(thinking, answer, the tokens of both with the tags between them)."""
        return *self._reply.texts, self._reply.all_tokens

    def drawn(self) -> tuple[str, list[int]]:
        """(answer, the tokens that it was drawn as)."""
        return self._reply.drawn()
