"""Loads one model after the other and lets it say something: what the engine's worker does, many times over.

Reads a path a line from standard input and answers each with a line of JSON: [what came of it, seconds].
"ok", or the name of an error and what it says. If llama.cpp aborts, this process is gone, as the worker is.

Usage: python benchmarks/hostile_worker.py [--unchecked] <PATHS
"""

from __future__ import annotations

import json
import os
import sys
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from localai.chat.messages import ChatMessage
from localai.engine import loading, protocol
from localai.engine.context import AbortFlag
from localai.engine.serving import Served
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import LocalAIError
from models import gguf

OPTIONS = LoadOptions(context=256, threads=1, gpu_layers=0, speculate=False)
QUESTION = ChatMessage("user", "What is 4 + 5? é\U0001f600\0")


def main() -> None:
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever native code prints is no answer
    if "--unchecked" in sys.argv:
        gguf.check_supported = loading.gguf.check_supported = lambda *_, **__: None  # type: ignore[assignment]
        loading.read_whole = lambda path, allow: gguf.read_header(path)  # type: ignore[attr-defined]
    for line in sys.stdin:
        started = time.perf_counter()
        answers.write(json.dumps([_tried(Path(line.strip())), time.perf_counter() - started]) + "\n")
        answers.flush()


def _tried(path: Path) -> str:
    try:
        _use(path)
    except LocalAIError as error:
        return f"{type(error).__name__}: {error}"
    except Exception as error:  # noqa: BLE001 - the process boundary
        return f"unexpected {type(error).__name__}: {error}"
    return "ok"


def _use(path: Path) -> None:
    """Load it, answer a question, go on with a few tokens."""
    with ExitStack() as resources:
        served = Served(path, OPTIONS, AbortFlag(), resources, lambda share: True)
        last = served.describe("ab" * 32).vocabulary - 1
        requests: tuple[Any, ...] = (
            protocol.Generate(1, [QUESTION], Sampling(temperature=0), Limits(max_tokens=3)),
            protocol.Continue(2, [0, 1, last], Sampling(), Limits(max_tokens=2), ignore_end=True),
        )
        for request in requests:
            list(served.serve(request))
            while served.scheduler.busy:
                list(served.step())


if __name__ == "__main__":
    main()
