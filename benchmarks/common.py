"""What the benchmarks share: a loaded engine, replies with their times, conversations of a size, and ratios.

Times are in seconds, by the clock of the app, from sending a request to the event in question.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import random
import statistics
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Sequence
from contextlib import aclosing, asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

from localai.chat.messages import ChatMessage
from localai.chat.prompt import USER, R1Format
from localai.chat.template import EmbeddedFormat
from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import ContextOverflow, EngineError, LocalAIError
from models.header import Header
from models.store import Resolved, Store

GREEDY = Sampling(temperature=0)
FIRST_TOKEN = Limits(max_tokens=1)
SETTLED_POLLS, SETTLED_S = 2, 0.02
"""The engine rests when its cache is the same so many times after so many seconds each."""
PATIENCE_S = 300.0

_TEXT = (
    "the a of and to in that it was for on with as at by from this had not but what all were when one there "
    "can more if out so up said its about into than them only other time new some could these two may first "
    "then do any like my now over such our man even most made after also did many off before must well back "
    "through years where much your way down should because long each just state people too mr good world "
    "still see men work life without river harbour letter window winter bread stone garden engine paper "
    "bridge market lamp boat horse school table silver number morning captain doctor station village music"
)
WORDS = _TEXT.split()
"""Common English words."""

_T = TypeVar("_T")


class Timed(NamedTuple):
    """A reply and how long it took."""

    text: str
    """Thinking and answer."""
    first_s: float
    """Until the first text, or the end where there was none."""
    total_s: float
    first_tokens: int
    """Tokens that the first text came with."""
    done: protocol.Done

    @property
    def written(self) -> tuple[int, float]:
        """(tokens after the first text, the seconds that they took)."""
        return self.done.usage.completion_tokens - self.first_tokens, self.total_s - self.first_s

    @property
    def read(self) -> int:
        """Tokens of the prompt that were not in the cache."""
        return self.done.usage.prompt_tokens - self.done.usage.cached_tokens


# ------------------------------------------------------------------------------------------ command line


def parser(doc: str | None, *, rounds: int, models: bool = False) -> argparse.ArgumentParser:
    """The options that all have: MODEL (or several), --rounds, --threads and --json."""
    found = argparse.ArgumentParser(description=(doc or "").partition("\n")[0])
    if models:
        found.add_argument("models", nargs="*", metavar="MODEL", default=["smollm2:135m"])
    else:
        found.add_argument("model", nargs="?", metavar="MODEL", default="smollm2:135m")
    found.add_argument("--rounds", type=int, default=rounds)
    found.add_argument("--threads", type=int, default=None, help="default: the engine chooses")
    found.add_argument("--json", action="store_true")
    return found


def resolve(name: str) -> Resolved:
    """The model of that name or path; ends the program with one line if there is none."""
    try:
        return Store().resolve(name)
    except LocalAIError as error:
        sys.exit(str(error))


def run(work: Coroutine[Any, Any, _T]) -> _T:
    """What `work` returns; its errors end the program with one line."""
    try:
        return asyncio.run(work)
    except LocalAIError as error:
        sys.exit(str(error))
    except KeyboardInterrupt:
        sys.exit(130)


def prompt_text(header: Header, message: str) -> str:
    """The prompt for one message of the user, as the engine makes it."""
    template = header.chat_template or ""
    form = R1Format() if USER in template else EmbeddedFormat(template, "", "")
    return "".join(segment.text for segment in form.render([ChatMessage("user", message)]))


def bare(task: str, **given: Any) -> Any:
    """What `bare.py`, a process of its own, answers to that task."""
    command = [sys.executable, str(Path(__file__).with_name("bare.py"))]
    request = json.dumps({"task": task, **given}).encode()
    return json.loads(subprocess.run(command, check=True, input=request, stdout=subprocess.PIPE).stdout)


# ------------------------------------------------------------------------------------------------- engine


@asynccontextmanager
async def loaded(model: Resolved, options: LoadOptions) -> AsyncIterator[Engine]:
    """A fresh engine with that model."""
    engine = Engine()
    try:
        sha256 = "" if model.manifest is None else model.manifest.sha256
        await engine.load(model.path, options, sha256=sha256)
        yield engine
    finally:
        await engine.close()


async def reply(
    engine: Engine,
    prompt: Sequence[ChatMessage] | Sequence[int],
    sampling: Sampling = GREEDY,
    limits: Limits = Limits(),
    *,
    ignore_end: bool = False,
    on_event: Callable[[protocol.GenerationEvent], None] = lambda event: None,
) -> Timed:
    """The reply to a conversation, or what follows tokens; raises from the error tree."""
    messages = [part for part in prompt if isinstance(part, ChatMessage)]
    tokens = [part for part in prompt if isinstance(part, int)]
    started = time.perf_counter()
    stream = (
        engine.generate(messages, sampling, limits)
        if messages
        else engine.continue_tokens(tokens, sampling, limits, ignore_end=ignore_end)
    )
    texts, first_s, first_tokens = [], 0.0, 0
    async with aclosing(stream) as events:
        async for event in events:
            on_event(event)
            if isinstance(event, protocol.Thinking | protocol.Answer):
                texts.append(event.text)
                if not first_s:
                    first_s, first_tokens = time.perf_counter() - started, event.tokens
            elif isinstance(event, protocol.Overflow):
                raise ContextOverflow(f"{event.prompt_tokens:,} tokens do not fit into {event.context:,}")
            elif isinstance(event, protocol.Done):
                total_s = time.perf_counter() - started
                return Timed("".join(texts), first_s or total_s, total_s, first_tokens, event)
    raise EngineError("the reply had no end")


async def settled(engine: Engine) -> None:
    """Wait until the engine has read ahead all that it wants to."""
    deadline = time.monotonic() + PATIENCE_S
    held, same = await _held(engine), 0
    while same < SETTLED_POLLS:
        if time.monotonic() > deadline:
            raise EngineError(f"the engine was still reading ahead after {PATIENCE_S:.0f} s")
        await asyncio.sleep(SETTLED_S)
        before, held = held, await _held(engine)
        same = same + 1 if held == before else 0


async def _held(engine: Engine) -> tuple[tuple[int, ...], tuple[int, ...]]:
    status = await engine.status()
    return status.live, status.parked


async def conversation(engine: Engine, tokens: int, number: int) -> list[ChatMessage]:
    """A conversation of about so many tokens whose last message is the user's. No two numbers begin alike."""
    source = random.Random(number)
    messages = [ChatMessage("user", f"{number}. {_paragraph(source)}")]
    while (await engine.count(messages)).total < tokens:
        messages += [ChatMessage("assistant", _paragraph(source)), ChatMessage("user", _paragraph(source))]
    return messages


def _paragraph(source: random.Random) -> str:
    return " ".join(source.choice(WORDS) for _ in range(40)).capitalize() + "."


# ------------------------------------------------------------------------------------------------- ratios


def compared(ours: Sequence[float], other: Sequence[float], claim: str) -> dict[str, Any]:
    """What was measured in turns: the ratio of the medians, and that of each turn."""
    ratios = [one / another for one, another in zip(ours, other, strict=True)]
    return {
        "ratio": statistics.median(ours) / statistics.median(other),
        "median_ratio": statistics.median(ratios),
        "ratios": ratios,
        "claim": claim,
    }


def shown(found: dict[str, Any]) -> str:
    """`compared` for people."""
    ratios = found["ratios"]
    pairs = f"pair by pair: median {found['median_ratio']:.3f}, {min(ratios):.3f} to {max(ratios):.3f}"
    return f"ratio {found['ratio']:.3f} ({pairs}); claim: {found['claim']}"


def print_json(found: Any) -> None:
    """The figures for programs."""
    print(json.dumps(found, indent=2))
