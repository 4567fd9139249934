"""A reply in the making: sorts and counts its tokens and packs them into events.

Text is made of tokens when events are due, for some tokens at once: between two tokens all threads of the
computation wait, and what Python does there comes out of cold caches.
"""

from __future__ import annotations

import codecs
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Literal

from localai.chat.splitter import Kind, Part, Splitter
from localai.engine import protocol
from localai.engine.loops import Loop, LoopDetector
from localai.engine.settings import Limits
from localai.engine.stops import StopStrings

FLUSH_S = 1 / 15
"""Events are at least this far apart, so that the app's own work does not compete with the computation."""
PASSAGE_SHOWN = 120
"""Characters of a repeating passage that are told."""


class Reply:
    """Takes tokens, yields events; the last are those of `finish`. `piece` gives the bytes of a token."""

    def __init__(
        self,
        request_id: int,
        splitter: Splitter,
        prompt_tokens: int,
        limits: Limits,
        piece: Callable[[int], bytes],
    ) -> None:
        self.id = request_id
        self.reason: protocol.FinishReason | None = None
        """Why it has ended; None while it goes on."""
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = self.completion_tokens = 0
        self.drafted = self.accepted = 0
        self.prompt_s = 0.0
        self.think_closed = False
        self.stop = ""
        self.tokens: list[int] = []
        """Those of the answer, as they were drawn."""
        self.all_tokens: list[int] = []
        """Those of thinking, tags and answer."""
        self.end: int | None = None
        """The token that ended it, if the model drew one."""
        self._thoughts: list[str] = []
        self._pieces: list[bytes] = []
        self._answer: list[str] = []
        self._thinking_tokens = 0
        self._piece = piece
        self._unsorted: list[int] = []
        """The latest tokens, all of the part that is being written."""
        self._splitter = splitter
        self._stops = StopStrings(limits.stop) if limits.stop else None
        self._loops: LoopDetector | None = LoopDetector()
        self._part: list[int] = []
        """The tokens that the loop detector has seen."""
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._first = self._last = self._flushed = 0.0
        self._kind: Kind = "answer"
        self._texts: list[str] = []
        self._unsent_tokens = 0

    @property
    def thinking(self) -> bool:
        """Whether the next token is thinking, as far as one can know."""
        return self._splitter.thinking

    @property
    def thinking_tokens(self) -> int:
        """Tokens of the thinking so far, its tags included."""
        return self._thinking_tokens + (len(self._unsorted) if self.thinking else 0)

    @property
    def at_line_start(self) -> bool:
        """Whether the last token ended a line."""
        return bool(self.all_tokens) and self._piece(self.all_tokens[-1]).endswith(b"\n")

    @property
    def texts(self) -> tuple[str, str]:
        """(thinking, answer) as far as they were sent."""
        return "".join(self._thoughts), "".join(self._answer)

    def drawn(self) -> tuple[str, list[int]]:
        """(answer, its tokens without white space around it); no tokens if they do not spell the answer."""
        text = "".join(self._answer)
        first, last = 0, len(self.tokens)
        while first < last and not self._pieces[first].strip():
            first += 1
        while last > first and not self._pieces[last - 1].strip():
            last -= 1
        spelled = b"".join(self._pieces[first:last]).decode("utf-8", "replace")
        return text, self.tokens[first:last] if spelled == text else []

    def add(self, token: int, tag: str | None) -> Sequence[protocol.GenerationEvent]:
        """Take in one token, and the think tag that it is, if it is one; the events that are due."""
        self._last = time.perf_counter()
        self._first = self._first or self._last
        self.completion_tokens += 1
        self.all_tokens.append(token)
        if tag is not None or self._stops is not None or not self._splitter.steady:
            return [*self._sort_all(), *self._sort(token, tag)]
        self._unsorted.append(token)
        if self._last - self._flushed < FLUSH_S:
            return ()
        return [*self._sort_all(), *self._flush()]

    def _sort(self, token: int, tag: str | None) -> Iterator[protocol.GenerationEvent]:
        """Sort a token that may begin another part."""
        thinking = self._splitter.thinking
        yield from self._collect(list(self._parts(self._piece(token), tag)))
        still = self._splitter.thinking
        yield from self._count([token], thinking=thinking or still, anew=thinking is not still)
        if self._last - self._flushed >= FLUSH_S:
            yield from self._flush()

    def finish(self) -> Iterator[protocol.GenerationEvent]:
        """What was held back, then `Done`."""
        yield from self._sort_all()
        rest = self._decoder.decode(b"", final=True)
        yield from self._collect([*self._splitter.text(rest), *self._splitter.finish()])
        if self._stops is not None and not self.stop:
            self._say(self._stops.finish())
            self._stop_at(self._stops.found)
        yield from self._flush()
        yield protocol.Done(
            self.id,
            self.reason or "cancelled",
            protocol.Usage(
                prompt_tokens=self.prompt_tokens,
                cached_tokens=self.cached_tokens,
                completion_tokens=self.completion_tokens,
                thinking_tokens=self.thinking_tokens,
            ),
            self._timings(),
            answer=self._answer_state(),
            stop=self.stop,
            think_closed=self.think_closed,
            speculated=protocol.Speculated(self.drafted, self.accepted),
        )

    def _timings(self) -> protocol.Timings:
        generation_s = self._last - self._first
        fresh = self.prompt_tokens - self.cached_tokens
        return protocol.Timings(
            prompt_s=self.prompt_s,
            generation_s=generation_s,
            tokens_per_s=(self.completion_tokens - 1) / generation_s if generation_s else 0.0,
            prompt_tokens_per_s=fresh / self.prompt_s if self.prompt_s else 0.0,
        )

    def _answer_state(self) -> Literal["text", "empty", "none"]:
        if any(self._answer):
            return "text"
        return "none" if self._splitter.thinking else "empty"

    def _sort_all(self) -> Iterator[protocol.GenerationEvent]:
        """Sort the tokens that have waited."""
        tokens, self._unsorted = self._unsorted, []
        if tokens:
            yield from self._collect(list(self._parts(b"".join(map(self._piece, tokens)), None)))
            yield from self._count(tokens, thinking=self._splitter.thinking, anew=False)

    def _parts(self, piece: bytes, tag: str | None) -> Iterator[Part]:
        if tag is not None:
            yield from self._splitter.text(self._decoder.decode(b"", final=True))
            yield from self._splitter.tag(tag)
        else:
            yield from self._splitter.text(self._decoder.decode(piece))

    def _count(self, tokens: list[int], *, thinking: bool, anew: bool) -> Iterator[protocol.GenerationEvent]:
        """Tokens are sorted: as thinking or not, and perhaps the first of their part."""
        self._unsent_tokens += len(tokens)
        if thinking:
            self._thinking_tokens += len(tokens)
        else:
            self.tokens += tokens
            self._pieces += map(self._piece, tokens)
        if anew:
            self._loops, self._part = LoopDetector(), []
        if self._loops is not None:
            yield from self._watch(tokens)

    def _collect(self, parts: list[Part]) -> Iterator[protocol.GenerationEvent]:
        for kind, text in parts:
            if kind != self._kind:
                yield from self._flush()
                self._kind = kind
            if kind == "thinking":
                self._texts.append(text)
                self._thoughts.append(text)
            elif self._stops is None:
                self._say(text)
            elif not self.stop:
                safe, found = self._stops.feed(text)
                self._say(safe)
                self._stop_at(found)

    def _stop_at(self, found: str | None) -> None:
        if found is not None:
            self.stop, self.reason = found, "stop"

    def _say(self, text: str) -> None:
        if text:
            self._texts.append(text)
            self._answer.append(text)

    def _watch(self, tokens: list[int]) -> Iterator[protocol.GenerationEvent]:
        """Tell once of each part if it repeats itself."""
        assert self._loops is not None
        self._part += tokens
        loop = next(filter(None, map(self._loops.add, tokens)), None)
        if loop is not None:
            yield from self._flush()
            yield self._looping(loop)
            self._loops, self._part = None, []

    def _looping(self, loop: Loop) -> protocol.Looping:
        passage = b"".join(map(self._piece, self._part[loop.start : loop.start + loop.length]))
        text = " ".join(passage.decode("utf-8", "replace").split())[:PASSAGE_SHOWN]
        if self.thinking:
            return protocol.Looping(self.id, "thinking", text, loop.times, "answer-now")
        return protocol.Looping(self.id, "answer", text, loop.times, "stop")

    def _flush(self) -> Iterator[protocol.GenerationEvent]:
        if not self._texts:
            return
        event = protocol.Thinking if self._kind == "thinking" else protocol.Answer
        yield event(self.id, "".join(self._texts), self._unsent_tokens)
        self._texts.clear()
        self._unsent_tokens = 0
        self._flushed = time.perf_counter()
