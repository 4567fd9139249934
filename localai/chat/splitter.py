"""Tell a reply's thinking from its answer while it streams.

The splitter gets text in pieces of any size and the think tags where the vocabulary has tokens of their own
for them; it yields (kind, text) pairs whose texts, joined by kind, are the thinking and the answer without
tags and without white space around them. It never holds back more than it must: the beginning of what may
become a tag, and white space that may turn out to be the end.

    BEFORE ──<think>──▶ THINKING ──</think>──▶ ANSWER
       └───anything else────────────────────────▲

R1's prompt opens the tag itself, so its replies start in THINKING. After that a tag is text: an answer may
talk about tags. Where the vocabulary has think tokens, a tag that is spelled out in ordinary tokens is text
everywhere, because that is how a model quotes one.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

from localai.chat.prompt import END_THINK, THINK

Kind = Literal["thinking", "answer"]
Part = tuple[Kind, str]


class Splitter:
    """One reply. `opened`: the prompt ended with the opening tag; `tag_tokens`: tags arrive through `tag`."""

    def __init__(self, *, opened: bool, tag_tokens: bool) -> None:
        self._state: Literal["before", "thinking", "answer"] = "thinking" if opened else "before"
        self._tag_tokens = tag_tokens
        self._held = ""
        """Text not yet sorted: it may be the beginning of a tag."""
        self._space = ""
        """White space not yet yielded: it may be the end."""
        self._said_anything = False
        """Whether the part that is being written has any text yet."""

    @property
    def thinking(self) -> bool:
        """Whether the next text is thinking, as far as one can know."""
        return self._state == "thinking"

    def resume(self, kind: Kind, space: str | None) -> None:
        """Go on in that part, of which something and then `space` was written; None: nothing yet."""
        self._enter(kind)
        self._said_anything = space is not None
        self._space = space or ""

    @property
    def steady(self) -> bool:
        """Whether only a tag of its own can end the part that is being written."""
        return self._state == "answer" or (self._state == "thinking" and self._tag_tokens)

    def text(self, piece: str) -> Iterator[Part]:
        """Sort a piece of ordinary text."""
        self._held += piece
        while self._held:
            before = (self._state, len(self._held))
            yield from self._step()
            if before == (self._state, len(self._held)):
                return

    def tag(self, name: str) -> Iterator[Part]:
        """Sort a tag that was a token of its own: `<think>` or `</think>`."""
        yield from self._release()
        if self._state == "answer":
            yield from self._say("answer", name)
        elif name == END_THINK:
            self._enter("answer")
        elif self._state == "before":
            self._enter("thinking")
        elif self._said_anything:
            yield from self._say("thinking", name)

    def finish(self) -> Iterator[Part]:
        """Sort what was held back; the reply is over."""
        yield from self._release()

    def _step(self) -> Iterator[Part]:
        if self._state == "before":
            yield from self._step_before()
        elif self._state == "thinking" and not self._tag_tokens:
            yield from self._step_thinking()
        else:
            text, self._held = self._held, ""
            yield from self._say("thinking" if self._state == "thinking" else "answer", text)

    def _step_before(self) -> Iterator[Part]:
        self._held = self._held.lstrip()
        if not self._held:
            return
        if not self._tag_tokens and self._held.startswith(THINK):
            self._held = self._held[len(THINK) :]
            self._enter("thinking")
        elif self._tag_tokens or not THINK.startswith(self._held):
            self._enter("answer")
        yield from ()

    def _step_thinking(self) -> Iterator[Part]:
        if not self._said_anything and (start := self._held.lstrip()).startswith(THINK):
            self._held = start[len(THINK) :]  # the model repeats the tag that the prompt opened
            return
        thought, closed, rest = self._held.partition(END_THINK)
        if closed:
            yield from self._say("thinking", thought)
            self._held = rest
            self._enter("answer")
            return
        tags = (END_THINK,) if self._said_anything else (END_THINK, THINK)
        keep = max(_overlap(self._held, tag) for tag in tags)
        thought, self._held = self._held[: len(self._held) - keep], self._held[len(self._held) - keep :]
        yield from self._say("thinking", thought)

    def _release(self) -> Iterator[Part]:
        text, self._held = self._held, ""
        if not text:
            return
        if self._state == "before":
            self._enter("answer")
        yield from self._say("thinking" if self._state == "thinking" else "answer", text)

    def _enter(self, state: Literal["thinking", "answer"]) -> None:
        self._state = state
        self._space = ""
        self._said_anything = False

    def _say(self, kind: Kind, text: str) -> Iterator[Part]:
        body = text if self._said_anything else text.lstrip()
        solid = body.rstrip()
        if not solid:
            self._space += body
            return
        yield kind, self._space + solid
        self._space = body[len(solid) :]
        self._said_anything = True


def _overlap(text: str, tag: str) -> int:
    """Length of the longest end of `text` that is a beginning of `tag`."""
    return next((n for n in range(min(len(tag) - 1, len(text)), 0, -1) if text.endswith(tag[:n])), 0)
