"""The text that a model writes itself, for an importance matrix of what it does in use.

It answers questions of ours (`questions.txt`) as in a chat, with the sampling that it recommends and a fixed
seed. What is kept is all that it read and wrote, with its markers, so that the text is read with markers as
markers. The same model and number of threads give the same text on the same machine.
"""

from __future__ import annotations

import asyncio
import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from localai import hardware
from localai.engine.client import Engine
from localai.engine.protocol import WriteProgress, Written
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import UnsupportedModel, UsageError
from models import fit, templates
from models.header import Header
from models.parts import read_whole
from quantize.protocol import R1_CHAT, Forecast
from quantize.texts import OnTokens, Reading, Text

TOKENS: Final = 8_192
"""Written unless told otherwise: 16 pieces of 512, of some 20 conversations."""
SEED: Final = 20_250_120
REPLY: Final = Limits(max_tokens=512, think_budget=320)
"""No reply takes all, and none is thinking only: what is in a text should be as mixed as what is in use."""

_AT_ONCE = 8
"""Replies that are written at the same time: on CPUs more gain little."""
_ROOM = 1_024
"""Tokens of context for each of them: a question, perhaps with what went before, and the reply."""
_BATCH = 128
"""Questions are short."""
_NAME = "written by the model itself, sha256 "


@dataclass(frozen=True)
class SelfText:
    """A text that is still to be written by the model, of about so many tokens."""

    tokens: int = TOKENS

    @property
    def name(self) -> str:
        """As long as that of the text will be, for sizes that are foretold to the byte."""
        return _NAME + "0" * 64


def text_of(
    source: Text | SelfText,
    model: Path,
    reading: Reading = Reading(),
    on_tokens: OnTokens = lambda done, total: None,
    *,
    name: str = "",
    sha256: str = "",
    made_here: bool = False,
) -> Text:
    """`source`, or what the GGUF at `model` writes. Raises from the error tree.

    UnsupportedModel if nobody can talk to the model, UsageError if the text would be too short to be read. Of
    `reading` it takes the context, the threads, the GPU layers and the architectures. `name`, `sha256` and
    `made_here` as in `Engine.load`. Whatever ends this call ends the worker.
    """
    if isinstance(source, Text):
        return source
    if reading.context and source.tokens < 2 * reading.context:
        raise UsageError(
            f"a text of {source.tokens:,} tokens is too short: it takes two pieces of {reading.context:,}",
            "Raise --calibrate-tokens, or have shorter pieces with --context",
        )

    async def work() -> Text:
        engine = Engine()
        try:
            options = _options(model, reading)
            await engine.load(model, options, name=name, sha256=sha256, made_here=made_here)
            return await written(engine, source.tokens, on_tokens)
        finally:
            await engine.close()

    return asyncio.run(work())


async def written(
    engine: Engine, tokens: int = TOKENS, on_tokens: OnTokens = lambda done, total: None
) -> Text:
    """What the model that is loaded in `engine` writes, about so many tokens. Raises from the error tree."""
    parts: list[str] = []
    async for event in engine.write(questions(), tokens, Sampling(seed=SEED), REPLY):
        match event:
            case WriteProgress(done=done, total=total):
                on_tokens(done, total)
            case Written(text=text):
                parts.append(text)
    content = "".join(parts).rstrip("\n")  # as texts are read from files
    return Text(_NAME + hashlib.sha256(content.encode()).hexdigest(), content, special=True)


def questions() -> list[list[str]]:
    """What the model is asked: conversations of one question or more."""
    text = Path(__file__).with_name("questions.txt").read_text("utf-8")
    return [line.split("\t") for line in text.splitlines() if line and not line.startswith("#")]


def require_chat(known: Forecast, source: str) -> None:
    """UnsupportedModel if nobody can talk to what is made of `source`: before gigabytes are converted."""
    if not known.chat:
        raise UnsupportedModel(
            f"{source} has no chat template, so that it cannot be asked to write a text",
            "It is a base model: take a text of your own with --calibrate FILE, or ours",
        )
    if known.chat not in {R1_CHAT, *templates.R1, *templates.READ, *templates.accepted()}:
        raise UnsupportedModel(
            f"{source} brings its own chat template, which nobody here has read",
            "Make a GGUF file of it, have `localai models accept` show and accept that, or take another text",
        )


def _options(model: Path, reading: Reading) -> LoadOptions:
    header = read_whole(model, reading.allow_architectures)
    at_once, context = _room(header)
    return LoadOptions(
        context=context,
        threads=reading.threads,
        gpu_layers=reading.gpu_layers,
        batch=_BATCH,
        parallel=at_once,
        speculate=False,
        allow_architectures=reading.allow_architectures,
    )


def _room(header: Header) -> tuple[int, int]:
    """How many replies at a time, and the context that they share.

    Fewer where the model was trained for less, or the machine has not the memory: what it has at all, not
    what is free, for the text depends on it.
    """
    trained = header.context_trained or _ROOM
    weights, usable = fit.weights_read(header), fit.usable_memory(hardware.total_memory())
    shape = fit.Shape.of(header)
    at_once = _AT_ONCE
    while at_once > 1 and (
        at_once * _ROOM > trained or fit.memory_needed(shape, weights, at_once * _ROOM) > usable
    ):
        at_once //= 2
    return at_once, min(at_once * _ROOM, trained)
