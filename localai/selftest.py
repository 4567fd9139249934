"""Prove that the whole path works on this machine: checkpoint, quantizer, llama.cpp, thinking and answer.

Uses r1-nano, the tiny reasoning model that is shipped with the program, so that nothing has to be fetched.
The report is also what a defect report needs to say about the machine.
"""

from __future__ import annotations

import asyncio
import platform
import tempfile
import time
from collections.abc import Callable
from contextlib import aclosing
from importlib import metadata
from pathlib import Path

import msgspec

from localai import __version__, hardware
from localai.chat.messages import ChatMessage
from localai.confine.report import NOT_STARTED, Sandbox
from localai.engine import protocol
from localai.engine.client import Engine
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import LocalAIError
from models import catalog
from quantize.client import Wanted
from quantize.client import run as quantize
from quantize.protocol import Job

FILE_TYPES = ("Q8_0", "Q4_K_M")
SUMS = ((47, 85), (6, 7), (128, 256), (512, 489), (305, 470))
_PACKAGES = ("llama-cpp-python", "gguf", "numpy", "textual", "msgspec")
_SPEED_QUESTIONS = 60
"""Questions in the prompt that measures the prompt speed: about 800 tokens."""


class SumCheck(msgspec.Struct, frozen=True):
    """One sum that the model was asked."""

    question: str
    answer: str
    thinking_tokens: int
    passed: bool


class ModelCheck(msgspec.Struct, frozen=True):
    """One quantization of r1-nano. `error` is "" unless something failed before the sums were asked."""

    file_type: str
    passed: bool
    sums: list[SumCheck] = []
    quantize_s: float = 0.0
    load_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    tokens_per_s: float = 0.0
    threads: int = 0
    backend: str = ""
    error: str = ""


class Report(msgspec.Struct, frozen=True):
    """What `localai selftest --json` prints: see docs/json.md."""

    passed: bool
    versions: dict[str, str]
    llama_cpp_commit: str
    platform: str
    processor: str
    physical_cores: int
    cpu_features: list[str]
    devices: list[protocol.Device]
    memory_total: int
    memory_available: int
    models: list[ModelCheck]
    sandbox: Sandbox = NOT_STARTED
    """What confined the engine."""
    error: str = ""
    """Why the engine could not be started at all; "" if it could."""


async def run(on_step: Callable[[str], None], threads: int | None = None) -> Report:
    """Test everything; never raises for what a test finds. `on_step` is told what begins."""
    on_step("starting the engine")
    info, sandbox, error = await _describe()
    checks = []
    if info is not None:
        with tempfile.TemporaryDirectory(prefix="localai-selftest-") as folder:
            for file_type in FILE_TYPES:
                on_step(f"r1-nano at {file_type}: quantize, load, think, answer")
                checks.append(await _check(Path(folder), file_type, threads))
    return Report(
        passed=info is not None and all(check.passed for check in checks),
        versions=_versions(),
        llama_cpp_commit=info.llama_cpp_commit if info else "",
        platform=platform.platform(),
        processor=hardware.processor(),
        physical_cores=hardware.physical_cores(),
        cpu_features=info.features if info else [],
        devices=info.devices if info else [],
        memory_total=hardware.total_memory(),
        memory_available=hardware.available_memory(),
        models=checks,
        sandbox=sandbox,
        error=error,
    )


async def _describe() -> tuple[protocol.EngineInfo | None, Sandbox, str]:
    engine = Engine()
    try:
        return await engine.describe(), engine.sandbox, ""
    except LocalAIError as error:
        return None, engine.sandbox, str(error)
    finally:
        await engine.close()


def _versions() -> dict[str, str]:
    found = {"localai": __version__, "python": platform.python_version()}
    for package in _PACKAGES:
        found[package] = metadata.version(package)
    return found


async def _check(folder: Path, file_type: str, threads: int | None) -> ModelCheck:
    output = folder / f"r1-nano-{file_type}.gguf"
    job = Job(source=str(catalog.builtin_checkpoint("r1-nano")))
    engine = Engine()
    try:
        started = time.perf_counter()
        await asyncio.to_thread(quantize, job, [Wanted(file_type, output)], load=False)
        quantize_s = time.perf_counter() - started
        loaded = await engine.load(output, LoadOptions(threads=threads), made_here=True)
        sums = [await _ask_sum(engine, a, b) for a, b in SUMS]
        prompt_speed, speed = await _measure(engine)
    except LocalAIError as error:
        return ModelCheck(file_type=file_type, passed=False, error=str(error))
    finally:
        await engine.close()
    return ModelCheck(
        file_type=file_type,
        passed=all(check.passed for check in sums),
        sums=sums,
        quantize_s=quantize_s,
        load_s=loaded.load_s,
        prompt_tokens_per_s=prompt_speed,
        tokens_per_s=speed,
        threads=loaded.threads,
        backend=loaded.backend,
    )


async def _ask_sum(engine: Engine, a: int, b: int) -> SumCheck:
    question = f"What is {a} + {b}?"
    thinking, answer, done = await collect(engine, [ChatMessage("user", question)])
    right = answer == f"{a} + {b} = **{a + b}**" and bool(thinking.strip())
    return SumCheck(question, answer, done.usage.thinking_tokens, passed=right)


async def _measure(engine: Engine) -> tuple[float, float]:
    """Tokens per second of a prompt of some hundred tokens, and of the reply to it."""
    prompt = [ChatMessage("user", " ".join(f"Add {n} and {n}." for n in range(_SPEED_QUESTIONS)))]
    _, _, done = await collect(engine, prompt, max_tokens=64)
    return done.timings.prompt_tokens_per_s, done.timings.tokens_per_s


async def collect(
    engine: Engine, messages: list[ChatMessage], max_tokens: int | None = None
) -> tuple[str, str, protocol.Done]:
    """(thinking, answer, end) of the likeliest reply."""
    texts: dict[type, list[str]] = {protocol.Thinking: [], protocol.Answer: []}
    done: protocol.Done | None = None
    limits = Limits(max_tokens=max_tokens)
    async with aclosing(engine.generate(messages, Sampling(temperature=0), limits)) as events:
        async for event in events:
            if isinstance(event, protocol.Done):
                done = event
            elif isinstance(event, protocol.Thinking | protocol.Answer):
                texts[type(event)].append(event.text)
    assert done is not None
    return "".join(texts[protocol.Thinking]), "".join(texts[protocol.Answer]), done
