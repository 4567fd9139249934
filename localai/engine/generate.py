"""Prefill, decode, sample, stop: from a conversation to typed events.

`generate` is an iterator over events. It knows nothing of pipes or processes; the worker sends on what it
yields.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence

from localai.chat.prompt import END_THINK, THINK, PromptFormat, Segment
from localai.chat.splitter import Kind, Part, Splitter
from localai.engine import protocol
from localai.engine.cache import KVCache
from localai.engine.llama import PREFILL_BATCH, Aborted, Context, Model, Sampler
from localai.errors import ContextOverflow

FLUSH_S = 0.05
"""Events are at least this far apart, so that the app's own work does not compete with the computation."""


class Session:
    """A loaded model with its context, cache and prompt format."""

    def __init__(
        self, model: Model, context: Context, prompt_format: PromptFormat, context_trained: int
    ) -> None:
        self.model = model
        self.context = context
        self.cache = KVCache(context)
        self.prompt_format = prompt_format
        more = context_trained > context.size
        self.overflow_hint = "Shorten it" + (
            f", or give more room with --context, up to {context_trained:,}" if more else ""
        )
        tags = {tag: model.special_token(tag) for tag in (THINK, END_THINK)}
        self.tags = {token: tag for tag, token in tags.items() if token is not None}
        """The think tags that are tokens of their own."""

    def tokenize(self, segments: Sequence[Segment]) -> list[int]:
        """The tokens of a prompt; plain text never becomes a marker."""
        tokens: list[int] = []
        for segment in segments:
            if segment.special:
                tokens += self.model.tokenize(segment.text, special=True)
            else:
                tokens += self._tokenize_plain(segment.text)
        return tokens

    def _tokenize_plain(self, text: str) -> list[int]:
        """llama.cpp finds user-defined tokens such as <think> in plain text too: take them apart."""
        tokens = self.model.tokenize(text, special=False)
        markers = {
            name
            for name in (self.model.text(token) for token in set(tokens) if self.model.attributes(token))
            if len(name) > 1 and name.startswith("<") and name.endswith(">")
        }
        if not markers:
            return tokens
        marker = max(markers, key=len)
        parts = text.split(marker)
        if len(parts) == 1:
            return tokens
        pieces = [parts[0] + marker[0], *(marker[1:] + part + marker[0] for part in parts[1:-1])]
        return [t for piece in [*pieces, marker[1:] + parts[-1]] for t in self._tokenize_plain(piece)]


def generate(
    session: Session, request: protocol.Generate, sampling: protocol.Sampling, step: Callable[[], None]
) -> Iterator[protocol.GenerationEvent]:
    """The events of one reply, the last a `Done`. Raises ContextOverflow, EngineError.

    `sampling` is complete; `step` is called whenever the computation got somewhere.
    """
    prompt = session.prompt_format.render(request.messages)
    tokens = session.tokenize(prompt)
    if len(tokens) >= session.context.size:
        raise ContextOverflow(
            f"the conversation has {len(tokens):,} tokens, but the context holds {session.context.size:,}",
            session.overflow_hint,
        )
    reply = _Reply(request.id, _splitter(session, prompt), len(tokens))
    with Sampler(sampling) as sampler:
        try:
            yield from _prefill(session, tokens, reply, step)
            yield from _decode(session, sampler, request.max_tokens, reply, step)
        except Aborted:
            reply.reason = "cancelled"
    yield from reply.finish()


def _splitter(session: Session, prompt: Sequence[Segment]) -> Splitter:
    tail = "".join(segment.text for segment in prompt[-2:]).rstrip()
    return Splitter(opened=tail.endswith(THINK), tag_tokens=len(session.tags) == 2)


def _prefill(
    session: Session, tokens: list[int], reply: _Reply, step: Callable[[], None]
) -> Iterator[protocol.GenerationEvent]:
    started = time.perf_counter()
    reply.cached_tokens = done = session.cache.reuse(tokens)
    while done < len(tokens):
        yield protocol.PrefillProgress(reply.id, done, len(tokens))
        session.cache.extend(tokens[done : done + PREFILL_BATCH])
        reply.prompt_s = time.perf_counter() - started
        done = len(session.cache)
        step()


def _decode(
    session: Session, sampler: Sampler, max_tokens: int | None, reply: _Reply, step: Callable[[], None]
) -> Iterator[protocol.GenerationEvent]:
    model, cache, context = session.model, session.cache, session.context
    while True:
        token = sampler.sample(context)
        step()
        tag = session.tags.get(token)
        if tag is None and model.is_end(token):
            reply.reason = "stop"
            return
        yield from reply.add(tag or model.piece(token))
        if reply.completion_tokens == max_tokens:
            reply.reason = "length"
            return
        if len(cache) >= context.size:
            reply.reason = "context"
            return
        cache.append(token)


class _Reply:
    """A reply in the making: sorts and counts its tokens and packs them into events."""

    def __init__(self, request_id: int, splitter: Splitter, prompt_tokens: int) -> None:
        self.id = request_id
        self.reason: protocol.FinishReason = "stop"
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = self.completion_tokens = self.thinking_tokens = 0
        self.prompt_s = 0.0
        self._splitter = splitter
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._first = self._last = self._flushed = 0.0
        self._kind: Kind = "answer"
        self._texts: list[str] = []
        self._unsent_tokens = 0

    def add(self, token: bytes | str) -> Iterator[protocol.GenerationEvent]:
        """Take in one token: its bytes, or as a string the think tag that it is."""
        self._last = time.perf_counter()
        self._first = self._first or self._last
        thinking = self._splitter.thinking
        parts = list(self._sort(token))
        self.completion_tokens += 1
        self.thinking_tokens += thinking or self._splitter.thinking
        self._unsent_tokens += 1
        yield from self._collect(parts)
        if self._last - self._flushed >= FLUSH_S:
            yield from self._flush()

    def finish(self) -> Iterator[protocol.GenerationEvent]:
        """What was held back, then `Done`."""
        rest = self._decoder.decode(b"", final=True)
        yield from self._collect([*self._splitter.text(rest), *self._splitter.finish()])
        yield from self._flush()
        generation_s = self._last - self._first
        fresh = self.prompt_tokens - self.cached_tokens
        yield protocol.Done(
            self.id,
            self.reason,
            protocol.Usage(
                prompt_tokens=self.prompt_tokens,
                cached_tokens=self.cached_tokens,
                completion_tokens=self.completion_tokens,
                thinking_tokens=self.thinking_tokens,
            ),
            protocol.Timings(
                prompt_s=self.prompt_s,
                generation_s=generation_s,
                tokens_per_s=(self.completion_tokens - 1) / generation_s if generation_s else 0.0,
                prompt_tokens_per_s=fresh / self.prompt_s if self.prompt_s else 0.0,
            ),
        )

    def _sort(self, token: bytes | str) -> Iterator[Part]:
        if isinstance(token, str):
            yield from self._splitter.text(self._decoder.decode(b"", final=True))
            yield from self._splitter.tag(token)
        else:
            yield from self._splitter.text(self._decoder.decode(token))

    def _collect(self, parts: list[Part]) -> Iterator[protocol.GenerationEvent]:
        for kind, text in parts:
            if kind != self._kind:
                yield from self._flush()
                self._kind = kind
            self._texts.append(text)

    def _flush(self) -> Iterator[protocol.GenerationEvent]:
        if not self._texts:
            return
        event = protocol.Thinking if self._kind == "thinking" else protocol.Answer
        yield event(self.id, "".join(self._texts), self._unsent_tokens)
        self._texts.clear()
        self._unsent_tokens = 0
        self._flushed = time.perf_counter()
