"""Chat templates that come inside model files, run as the untrusted programs they are.

Only for models without a format of our own. The template runs in Jinja's immutable sandbox, with a time limit
where the platform has one; the messages stand in it as opaque marks that are replaced afterwards, so that
no text of a user can become a marker.
"""

from __future__ import annotations

import datetime
import signal
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from jinja2 import TemplateError
from jinja2.sandbox import ImmutableSandboxedEnvironment

from localai.chat.messages import ChatMessage
from localai.chat.prompt import THINK, Segment, fold_system
from localai.errors import UnsupportedModel

TIME_LIMIT_S = 5
MAX_TEMPLATE = 256 * 1024
"""Longest template in characters that is tried."""

# What a template that is merely wrong, or malicious, can make the interpreter raise.
TEMPLATE_FAILURES = (
    TemplateError,
    TypeError,
    ValueError,
    ArithmeticError,
    LookupError,
    AttributeError,
    RecursionError,
    MemoryError,
)

# Private-use characters: no tokenizer has markers with them, and templates that trim leave them alone.
_OPEN, _CLOSE = "\ue0f0", "\ue0f1"


class EmbeddedFormat:
    """The template in the model's file. Raises UnsupportedModel if it cannot be used at all."""

    name = "embedded"

    def __init__(self, source: str, bos: str, eos: str, *, add_bos: bool = False) -> None:
        """`add_bos`: prompts are to begin with `bos`, also where the template does not write it."""
        if len(source) > MAX_TEMPLATE:
            raise UnsupportedModel(f"the chat template in the file is {len(source):,} characters long")
        environment = ImmutableSandboxedEnvironment(
            trim_blocks=True, lstrip_blocks=True, extensions=["jinja2.ext.loopcontrols"]
        )
        environment.globals["raise_exception"] = _raise
        environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
        try:
            with _time_limit():
                self._template = environment.from_string(source)
        except TEMPLATE_FAILURES as error:
            raise UnsupportedModel(f"the chat template in the file cannot be read: {error}") from error
        self._bos, self._eos, self._add_bos = bos, eos, add_bos
        self.reasoning = THINK in source
        self.system_role = self._takes_system()

    def _takes_system(self) -> bool:
        probe = [ChatMessage("system", "s"), ChatMessage("user", "u")]
        try:
            return any(segment.text == "s" for segment in self._segments(probe))
        except UnsupportedModel:
            return False

    def render(self, messages: Sequence[ChatMessage]) -> list[Segment]:
        """The segments of the prompt; UnsupportedModel if the template fails or drops a message."""
        turns = list(messages) if self.system_role else fold_system(messages)
        segments = self._begun(self._segments(turns))
        if turns and not any(s.text == turns[-1].content for s in segments if not s.special):
            raise UnsupportedModel("the chat template in the file drops the last message")
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
        marks = [f"{_OPEN}{index}{_CLOSE}" for index in range(len(messages))]
        try:
            with _time_limit():
                text = self._template.render(
                    messages=[
                        {"role": m.role, "content": mark} for m, mark in zip(messages, marks, strict=True)
                    ],
                    add_generation_prompt=True,
                    bos_token=self._bos,
                    eos_token=self._eos,
                )
        except TEMPLATE_FAILURES as error:
            reason = str(error) or type(error).__name__
            raise UnsupportedModel(f"the chat template in the file fails: {reason}") from error
        return _replace_marks(text, messages)


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


def _raise(message: str) -> None:
    raise TemplateError(message)


@contextmanager
def _time_limit() -> Iterator[None]:
    """Interrupt a template that never ends. Only a main thread on POSIX can be interrupted."""
    if not hasattr(signal, "setitimer") or threading.current_thread() is not threading.main_thread():
        yield
        return

    def expired(_signal: int, _frame: object) -> None:
        raise UnsupportedModel(f"the chat template in the file ran for more than {TIME_LIMIT_S} s")

    before = signal.signal(signal.SIGALRM, expired)
    signal.setitimer(signal.ITIMER_REAL, TIME_LIMIT_S)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
