"""The last look at a new file: the engine loads it, in its own worker, and must generate some tokens."""

from __future__ import annotations

import asyncio
from pathlib import Path

from localai import hardware
from localai.engine.client import Engine
from localai.engine.protocol import Done
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import EngineError, QuantizeError
from models import fit
from models.header import Header
from quantize.protocol import Check

_NOT_THE_FILES_FAULT = ("could not be started", "SIGKILL")
"""What is said of an engine that never tried, or that the system killed when memory ran out."""
_TOKENS = 2
_CONTEXT = 256


def run(path: Path, header: Header) -> Check:
    """Load the file at `path` with `header` and generate. An error of `localai.errors` if that fails.

    It runs on the CPU, whatever else there is: a small GPU says nothing about the file. One thread does,
    because several would crawl beside anything else that computes. A file that memory cannot hold is not
    tried.
    """
    needed = fit.memory_needed(fit.Shape.of(header), fit.weights_read(header), _CONTEXT)
    if needed > hardware.available_memory():
        return Check("skipped", "it needs more memory than is free")
    try:
        return asyncio.run(_generate(path, header))
    except EngineError as error:
        if not any(words in error.message for words in _NOT_THE_FILES_FAULT):
            raise  # llama.cpp aborts on what it cannot bear
        return Check("skipped", error.message)


async def _generate(path: Path, header: Header) -> Check:
    engine = Engine()
    try:
        context = min(_CONTEXT, header.context_trained or _CONTEXT)
        options = LoadOptions(context=context, threads=1, gpu_layers=0, converse=False)
        loaded = await engine.load(path, options, made_here=True)
        prompt, greedy = [loaded.vocabulary // 2], Sampling(temperature=0.0)
        async for event in engine.continue_tokens(prompt, greedy, Limits(_TOKENS), ignore_end=True):
            if isinstance(event, Done):
                return Check("passed", tokens=event.usage.completion_tokens)
    finally:
        await engine.close()
    raise QuantizeError("the engine's reply has no end")
