"""What `localai ask` prints: for people as it comes, for programs one object at the end."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Protocol

from localai.cli import output

if TYPE_CHECKING:
    from localai.confine.report import Sandbox
    from localai.engine.protocol import Done, Loaded, Looping
    from localai.engine.settings import Limits
    from models.store import Resolved

FOLDED = "R1 has no system role: the system prompt stands at the start of your message"


class Report(Protocol):
    """Is told what happens to a question, in the order in which it does."""

    def confined(self, sandbox: Sandbox) -> None:
        """What confines the engine that answers."""

    def loaded(self, loaded: Loaded, model: Resolved, *, folded: bool) -> None:
        """The model is ready; `folded`: the system prompt is not a message of its own."""

    def thinking(self, text: str) -> None:
        """A piece of the reasoning."""

    def answer(self, text: str) -> None:
        """A piece of the answer."""

    def looping(self, looping: Looping) -> None:
        """The reply repeats itself."""

    def done(self, done: Done) -> None:
        """It has ended."""

    def broken_off(self) -> None:
        """An error or Ctrl+C: nothing more comes."""


class TextReport:
    """For people: streams what it gets."""

    def __init__(self, limits: Limits | None = None) -> None:
        """`limits` are those of the question."""
        self._budget = None if limits is None else limits.think_budget
        self._dim = output.dims()
        self._thinking = self._answering = False

    def confined(self, sandbox: Sandbox) -> None:
        if sandbox.level != "full" and output.is_terminal():
            from localai.confine.report import words

            output.note(f"sandbox: {words(sandbox)}")

    def loaded(self, loaded: Loaded, model: Resolved, *, folded: bool) -> None:
        for line in loaded.notes:
            output.note(line)
        if folded:
            output.note(FOLDED)
        if (
            not loaded.reasoning
            and output.is_terminal()
            and model.manifest is not None
            and model.manifest.note
        ):
            output.note(f"{model.name}: {model.manifest.note}")

    def thinking(self, text: str) -> None:
        if not self._thinking and self._dim:
            output.aside(output.DIM)
        self._thinking = True
        output.aside(output.clean(text))

    def answer(self, text: str) -> None:
        if not self._answering:
            self._end_thinking()
        self._answering = True
        sys.stdout.write(output.clean(text))
        sys.stdout.flush()

    def looping(self, looping: Looping) -> None:
        what = "thinking" if looping.part == "thinking" else "answer"
        todo = "Ctrl+C ends it" + (
            ", --think-budget N would close it after N tokens" if what == "thinking" else ""
        )
        if self._thinking or (self._answering and sys.stdout.isatty()):
            output.aside((output.RESET if self._dim else "") + "\n")
        output.note(f"the {what} repeats itself: “{looping.text}”, {looping.times} times so far. {todo}")
        if self._thinking and self._dim:
            output.aside(output.DIM)

    def done(self, done: Done) -> None:
        self._end_thinking()
        if self._answering:
            sys.stdout.write("\n")
            sys.stdout.flush()
        for line in remarks(done, self._budget):
            output.note(line)

    def broken_off(self) -> None:
        """What comes next begins on a line of its own, and is not dim."""
        self._end_thinking()
        if self._answering:
            sys.stdout.write("\n")

    def _end_thinking(self) -> None:
        if self._thinking:
            output.aside((output.RESET if self._dim else "") + "\n\n")
            self._thinking = False


class JsonReport:
    """For programs: one object at the end, as docs/json.md describes it."""

    def __init__(self, model: str) -> None:
        self._model = model
        self._thinking: list[str] = []
        self._answer: list[str] = []
        self._notes: tuple[str, ...] = ()
        self._looping: Looping | None = None
        self._load_s = 0.0
        self._first_token_s: float | None = None
        self._sandbox: Sandbox | None = None

    def confined(self, sandbox: Sandbox) -> None:
        self._sandbox = sandbox

    def loaded(self, loaded: Loaded, model: Resolved, *, folded: bool) -> None:
        self._load_s = loaded.load_s
        self._notes = (*loaded.notes, *([FOLDED] if folded else []))
        if folded:
            output.note(FOLDED)

    def thinking(self, text: str) -> None:
        self._mark()
        self._thinking.append(text)

    def answer(self, text: str) -> None:
        self._mark()
        self._answer.append(text)

    def _mark(self) -> None:
        if self._first_token_s is None:
            self._first_token_s = seconds_since_start()

    def looping(self, looping: Looping) -> None:
        self._looping = looping

    def done(self, done: Done) -> None:
        looping = self._looping
        output.print_json(
            {
                "model": self._model,
                "thinking": "".join(self._thinking),
                "answer": "".join(self._answer),
                "finish_reason": done.reason,
                "usage": done.usage,
                "timings": {
                    "load_s": self._load_s,
                    "prompt_s": done.timings.prompt_s,
                    "first_token_s": self._first_token_s,
                    "generation_s": done.timings.generation_s,
                    "tokens_per_s": done.timings.tokens_per_s,
                },
                "answer_state": done.answer,
                "think_closed": done.think_closed,
                "stop": done.stop,
                "looping": looping
                and {name: getattr(looping, name) for name in ("part", "text", "times", "proposal")},
                "speculated": done.speculated,
                "notes": self._notes,
                "sandbox": self._sandbox,
            }
        )

    def broken_off(self) -> None:
        """Half an answer is no JSON."""


def remarks(done: Done, think_budget: int | None = None) -> Iterator[str]:
    """What a person should know of how a reply with that budget ended, one line each."""
    if done.think_closed:
        closed = done.usage.thinking_tokens if think_budget is None else think_budget
        words = f"{closed:,} token" + ("" if closed == 1 else "s")
        yield (
            f"the thinking was closed after {words} (--think-budget)"
            if closed
            else "no thinking (--think-budget 0)"
        )
    if done.answer == "none":
        why = {
            "length": "--max-tokens was reached before the thinking ended",
            "context": "the context was full before the thinking ended",
        }.get(done.reason, "the model never ended its thinking")
        more = {
            "length": "Allow more of them, or close",
            "context": "Give more room with --context, or close",
        }
        todo = more.get(done.reason, "Close")
        yield f"{why}, so there is no answer. {todo} the thinking after N tokens with --think-budget N"
    elif done.reason == "length":
        yield "the answer was cut at --max-tokens"
    elif done.reason == "context":
        yield "the answer was cut: the context is full. Give more room with --context"
    elif done.stop:
        yield f"the answer was ended at the text “{done.stop}” (--stop)"
    elif done.answer == "empty":
        thought = " after its thinking" if done.usage.thinking_tokens else ""
        yield f"the model ended without an answer{thought}"


def seconds_since_start() -> float:
    """Seconds since this process was started by the system, its imports included."""
    import psutil

    return time.time() - float(psutil.Process().create_time())
