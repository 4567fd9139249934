"""Chat templates that come inside model files, run as the untrusted programs they are.

Only for models without a format of our own, and only after somebody has read the template
(`models.templates`). It runs in `localai.chat.sandbox`; the messages stand in it as opaque marks that are
replaced afterwards, so that no text of a user can become a marker.
"""

from __future__ import annotations

import signal
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from localai.chat.messages import ChatMessage
from localai.chat.prompt import THINK, Segment, fold_system
from localai.chat.sandbox import TEMPLATE_FAILURES, Sandbox
from localai.chat.sizes import LimitExceeded
from localai.errors import UnsupportedModel
from models.header import printable

MAX_TEMPLATE = 64 * 1024
"""Longest template in characters that is tried. The longest of well-known models has 17,000."""
LAST_RESORT_S = 15.0
"""Seconds of computing after which the system ends the process, should the sandbox ever fail to end it."""

_ANOTHER = "Use another model: nothing can be said to this one as its template has it"

# Private-use characters: no tokenizer has markers with them, and templates that trim leave them alone.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"


class EmbeddedFormat:
    """The template in the model's file. Raises UnsupportedModel if it cannot be used at all."""

    name = "embedded"

    def __init__(self, source: str, bos: str, eos: str, *, add_bos: bool = False, path: str = "") -> None:
        """`add_bos`: prompts are to begin with `bos`, also where the template does not write it.

        `path`: of the file that it is in, for errors.
        """
        self._path = path
        if len(source) > MAX_TEMPLATE:
            raise self._error(f"is {len(source):,} characters long")
        self._sandbox = Sandbox()
        try:
            with last_resort():
                self._template = self._sandbox.compiled(source)
        except TEMPLATE_FAILURES as error:
            raise self._error(f"cannot be read: {_why(error)}") from error
        self._bos, self._eos, self._add_bos = bos, eos, add_bos
        self.reasoning = THINK in source
        self.system_role = self._takes_system()

    def _error(self, what: str) -> UnsupportedModel:
        place = f"the file {self._path}" if self._path else "the file"
        return UnsupportedModel(f"the chat template in {place} {what}", _ANOTHER)

    def _takes_system(self) -> bool:
        probe = [ChatMessage("system", "s"), ChatMessage("user", "u")]
        try:
            return any(segment.text == "s" for segment in self._segments(probe))
        except UnsupportedModel as error:
            if isinstance(error.__cause__, LimitExceeded):
                raise  # so will every other conversation: it is better to know now
            return False

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The segments of the prompt; UnsupportedModel if the template fails or drops a message."""
        turns = list(messages) if self.system_role else fold_system(messages)
        segments = self._begun(self._segments(turns))
        if turns and not any(s.text == turns[-1].content for s in segments if not s.special):
            raise self._error("drops the last message")
        return segments

    def opening(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The beginning that is certain while the last user message is being written; errors as `render`."""
        turns = list(messages) if self.system_role else fold_system(messages)
        segments = self._begun(self._segments(turns))
        texts = [index for index, segment in enumerate(segments) if not segment.special]
        return segments[: texts[-1] + 1] if texts else []

    def _begun(self, segments: list[Segment]) -> list[Segment]:
        """With `bos` at the beginning, if the model wants it there."""
        if self._add_bos and not (
            segments and segments[0].special and segments[0].text.startswith(self._bos)
        ):
            return [Segment(self._bos, special=True), *segments]
        return segments

    def _segments(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        turns = [
            {"role": message.role, "content": f"{_OPEN}{index}{_CLOSE}"}
            for index, message in enumerate(messages)
        ]
        try:
            with last_resort():
                text = self._sandbox.run(
                    self._template,
                    messages=turns,
                    add_generation_prompt=True,
                    bos_token=self._bos,
                    eos_token=self._eos,
                )
        except TEMPLATE_FAILURES as error:
            raise self._error(f"fails: {_why(error)}") from error
        return _replace_marks(text, messages)


def _why(error: Exception) -> str:
    return printable(str(error)) or type(error).__name__


def _replace_marks(text: str, messages: Sequence[ChatMessage]) -> list[Segment]:
    segments: list[Segment] = []
    for part in text.split(_OPEN):
        number, closed, rest = part.partition(_CLOSE)
        if closed and number.isdecimal() and int(number) < len(messages):
            message = messages[int(number)]
            segments.append(Segment(message.content, reply=message.role == "assistant"))
        else:
            rest = part
        if rest:
            segments.append(Segment(rest, special=True))
    return segments


@contextmanager
def last_resort() -> Iterator[None]:
    """Let the system end this process (SIGVTALRM) when the block computes for `LAST_RESORT_S`.

    The sandbox ends a template long before. The system's timer needs nothing of the interpreter, so it also
    ends what the sandbox does not foresee. On Windows, the app ends a worker that is silent.
    """
    if not hasattr(signal, "ITIMER_VIRTUAL"):
        yield
        return
    signal.setitimer(signal.ITIMER_VIRTUAL, LAST_RESORT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
