"""From conversations to tokens.

Markers become the model's special tokens, and nothing that a user typed ever does. A reply that the model
wrote keeps the tokens that were drawn: to tokenize its text again may give others, and then the KV cache no
longer matches.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from localai.chat.messages import ChatMessage
from localai.chat.prompt import END_THINK, THINK, PromptFormat, Segment
from localai.engine.llama import Model
from localai.engine.protocol import Begun

REMEMBERED_CHARACTERS = 4_000_000
"""Texts whose tokens are kept, counted in characters: a long conversation is not tokenized anew each turn."""

MANY_MARKERS = 256
"""Beginnings of markers in one text from which on they are cut before llama.cpp looks for them: what it does
with n of them takes the square of n, 48 s for a megabyte."""


class Prompter:
    """Tokenizes prompts in `form` for `model`."""

    def __init__(self, model: Model, form: PromptFormat) -> None:
        self.form = form
        self._model = model
        self._texts = _Recent()
        self._replies = _Recent()
        self._marker: re.Pattern[str] | None = None

    def prompt(self, messages: Sequence[ChatMessage], begun: Begun | None = None) -> tuple[list[int], bool]:
        """The tokens of the prompt for the next reply, or its rest; whether it opens the thinking."""
        segments = self.form.render(messages)
        opened = _opens_thinking(segments)
        if begun is None:
            return self.tokens(segments), opened
        if drawn := self.drawn_of(begun):
            return [*self.tokens(segments), *drawn], opened
        return self.tokens([*segments, *_resumed(begun, opened=opened)]), opened

    def drawn_of(self, begun: Begun) -> tuple[int, ...]:
        """The tokens that the beginning of a reply was drawn as, if they are known."""
        return self._replies.get(_key(begun.thinking, begun.answer)) or ()

    def remember_whole(self, thinking: str, answer: str, tokens: Sequence[int]) -> None:
        """A reply was written with these tokens, tags included: somebody may want it to go on."""
        spelled = b"".join(map(self._model.piece, tokens))
        if spelled.decode("utf-8", "replace").encode() == spelled:  # it does not end within a character
            self._replies.put(_key(thinking, answer), tuple(tokens))

    def opening(self, messages: Sequence[ChatMessage]) -> list[int]:
        """The tokens that are certain while the last user message is still being written."""
        return self.tokens(self.form.opening(messages))

    def next_opening(self, messages: Sequence[ChatMessage], reply: str) -> list[int]:
        """How the prompt after this reply will begin."""
        return self.opening([*messages, ChatMessage("assistant", reply), ChatMessage("user", "")])

    def count(self, messages: Sequence[ChatMessage]) -> tuple[int, tuple[int, ...]]:
        """(tokens of the whole prompt, tokens of each message); markers are shared out among the messages."""
        total = len(self.prompt(messages)[0])
        own = [len(self.plain(message.content)) for message in messages]
        rest = total - sum(own)
        for index in range(len(own)):
            own[index] += rest // len(own) + (index < rest % len(own))
        return total, tuple(own)

    def tokens(self, segments: Sequence[Segment]) -> list[int]:
        """The tokens of a prompt; plain text never becomes a marker."""
        tokens: list[int] = []
        for segment in segments:
            if segment.special:
                tokens += self._model.tokenize(segment.text, special=True)
            else:
                drawn = self._replies.get(segment.text) if segment.reply else None
                tokens += drawn or self.plain(segment.text)
        return tokens

    def remember(self, reply: str, tokens: Sequence[int]) -> None:
        """The model wrote `reply` with these tokens."""
        if reply:
            self._replies.put(reply, tuple(tokens))

    def drawn(self, messages: Sequence[ChatMessage]) -> dict[str, list[int]]:
        """The replies among `messages` whose tokens are known."""
        found = ((m.content, self._replies.get(m.content)) for m in messages if m.role == "assistant")
        return {text: list(tokens) for text, tokens in found if tokens}

    def plain(self, text: str) -> tuple[int, ...]:
        """The tokens of plain text."""
        tokens = self._texts.get(text)
        if tokens is None:
            tokens = tuple(self._tokenize_plain(text))
            self._texts.put(text, tokens)
        return tokens

    def _tokenize_plain(self, text: str) -> list[int]:
        """llama.cpp finds user-defined tokens such as <think> in plain text too: take them apart."""
        if text.count("<") > MANY_MARKERS and (any_marker := self._any_marker()).search(text):
            return [token for piece in _taken_apart(text, any_marker) for token in self.plain(piece)]
        tokens = self._model.tokenize(text, special=False)
        markers = {
            name
            for name in (self._model.text(token) for token in set(tokens) if self._model.attributes(token))
            if _is_marker(name)
        }
        if not markers:
            return tokens
        marker = max(markers, key=len)
        parts = text.split(marker)
        if len(parts) == 1:
            return tokens
        pieces = [parts[0] + marker[0], *(marker[1:] + part + marker[0] for part in parts[1:-1])]
        return [t for piece in [*pieces, marker[1:] + parts[-1]] for t in self.plain(piece)]

    def _any_marker(self) -> re.Pattern[str]:
        """What fits every user-defined token that looks like a marker; made once, in under a second."""
        if self._marker is None:
            names = {self._model.text(token) for token in self._model.user_defined()}
            found = sorted((name for name in names if _is_marker(name)), key=len, reverse=True)
            self._marker = re.compile("|".join(map(re.escape, found)) or r"(?!)")
        return self._marker


def _is_marker(name: str) -> bool:
    return len(name) > 1 and name.startswith("<") and name.endswith(">")


def _taken_apart(text: str, marker: re.Pattern[str]) -> Iterator[str]:
    """`text` in pieces, so that no `marker` is whole in any: each is cut behind its first character.

    Only what is left of a marker when another was cut could still be one, and llama.cpp finds few of those.
    """
    start = 0
    for match in marker.finditer(text):
        yield text[start : match.start() + 1]
        start = match.start() + 1
    yield text[start:]


def _key(thinking: str, answer: str) -> str:
    return f"{thinking}{END_THINK}\0{answer}"  # no text of a message has a NUL


def _opens_thinking(prompt: Sequence[Segment]) -> bool:
    """Whether the prompt ends with the opening tag, so that the reply begins with thinking."""
    markup = ""
    for segment in reversed(prompt):
        if not segment.special and segment.text.strip():
            break  # what a user wrote opens nothing
        markup = segment.text + markup
    return markup.rstrip().endswith(THINK)


def _resumed(begun: Begun, *, opened: bool) -> list[Segment]:
    """What was written of a reply as the model does it, behind a prompt that (not) `opened` thinking."""
    found = []
    if begun.thinking or (opened and begun.answering):
        found = [] if opened else [Segment(THINK, special=True), Segment("\n")]
        found.append(Segment(begun.thinking))
        if begun.answering:
            found += [Segment("\n"), Segment(END_THINK, special=True), Segment("\n\n")]
    return [*found, Segment(begun.answer, reply=True)] if begun.answer else found


class _Recent:
    """The tokens of texts, as many as `REMEMBERED_CHARACTERS` allow; the least recently used go first."""

    def __init__(self) -> None:
        self._found: dict[str, tuple[int, ...]] = {}
        self._characters = 0

    def get(self, text: str) -> tuple[int, ...] | None:
        tokens = self._found.pop(text, None)
        if tokens is not None:
            self._found[text] = tokens
        return tokens

    def put(self, text: str, tokens: tuple[int, ...]) -> None:
        if text in self._found:
            self._characters -= len(text)
            del self._found[text]
        self._found[text] = tokens
        self._characters += len(text)
        while self._characters > REMEMBERED_CHARACTERS:
            oldest = next(iter(self._found))
            self._characters -= len(oldest)
            del self._found[oldest]
