"""A reply in the making: sorts and counts its tokens and packs them into events."""

from __future__ import annotations

import codecs
import time
from collections.abc import Iterator
from typing import Literal

from localai.chat.splitter import Kind, Part, Splitter
from localai.engine import protocol
from localai.engine.loops import Loop, LoopDetector
from localai.engine.settings import Limits
from localai.engine.stops import StopStrings

FLUSH_S = 0.05
"""Events are at least this far apart, so that the app's own work does not compete with the computation."""
PASSAGE_SHOWN = 120
"""Characters of a repeating passage that are told."""


class Reply:
    """Takes tokens, yields events; the last are those of `finish`."""

    def __init__(self, request_id: int, splitter: Splitter, prompt_tokens: int, limits: Limits) -> None:
        self.id = request_id
        self.reason: protocol.FinishReason | None = None
        """Why it has ended; None while it goes on."""
        self.prompt_tokens = prompt_tokens
        self.cached_tokens = self.completion_tokens = self.thinking_tokens = 0
        self.drafted = self.accepted = 0
        self.prompt_s = 0.0
        self.think_closed = False
        self.stop = ""
        self.tokens: list[int] = []
        """Those of the answer, as they were drawn."""
        self._pieces: list[bytes] = []
        self._answer: list[str] = []
        self._splitter = splitter
        self._stops = StopStrings(limits.stop) if limits.stop else None
        self._loops: LoopDetector | None = LoopDetector()
        self._part: list[bytes] = []
        self._ended = b""
        """The last token's bytes."""
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
    def at_line_start(self) -> bool:
        """Whether the last token ended a line."""
        return self._ended.endswith(b"\n")

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

    def add(self, token: int, piece: bytes, tag: str | None) -> Iterator[protocol.GenerationEvent]:
        """Take in one token: its bytes, and the think tag that it is, if it is one."""
        self._last = time.perf_counter()
        self._first = self._first or self._last
        thinking = self._splitter.thinking
        parts = list(self._sort(piece, tag))
        still = self._splitter.thinking
        self.completion_tokens += 1
        self.thinking_tokens += thinking or still
        self._unsent_tokens += 1
        self._ended = piece
        if not (thinking or still):
            self.tokens.append(token)
            self._pieces.append(piece)
        if parts:
            yield from self._collect(parts)
        if self._loops is not None or thinking != still:
            yield from self._watch(token, piece, "thinking" if still else "answer", anew=thinking != still)
        if self._last - self._flushed >= FLUSH_S:
            yield from self._flush()

    def finish(self) -> Iterator[protocol.GenerationEvent]:
        """What was held back, then `Done`."""
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

    def _sort(self, piece: bytes, tag: str | None) -> Iterator[Part]:
        if tag is not None:
            yield from self._splitter.text(self._decoder.decode(b"", final=True))
            yield from self._splitter.tag(tag)
        else:
            yield from self._splitter.text(self._decoder.decode(piece))

    def _collect(self, parts: list[Part]) -> Iterator[protocol.GenerationEvent]:
        for kind, text in parts:
            if kind != self._kind:
                yield from self._flush()
                self._kind = kind
            if kind == "thinking":
                self._texts.append(text)
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

    def _watch(
        self, token: int, piece: bytes, part: Kind, *, anew: bool
    ) -> Iterator[protocol.GenerationEvent]:
        if anew:
            self._loops, self._part = LoopDetector(), []
        if self._loops is None:
            return
        self._part.append(piece)
        loop = self._loops.add(token)
        if loop is not None:
            yield from self._flush()
            yield self._looping(loop, part)
            self._loops, self._part = None, []

    def _looping(self, loop: Loop, part: Kind) -> protocol.Looping:
        passage = b"".join(self._part[loop.start : loop.start + loop.length]).decode("utf-8", "replace")
        text = " ".join(passage.split())[:PASSAGE_SHOWN]
        proposal: Literal["answer-now", "stop"] = "answer-now" if part == "thinking" else "stop"
        return protocol.Looping(self.id, part, text, loop.times, proposal)

    def _flush(self) -> Iterator[protocol.GenerationEvent]:
        if not self._texts:
            return
        event = protocol.Thinking if self._kind == "thinking" else protocol.Answer
        yield event(self.id, "".join(self._texts), self._unsent_tokens)
        self._texts.clear()
        self._unsent_tokens = 0
        self._flushed = time.perf_counter()
