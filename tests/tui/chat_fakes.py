"""A scripted engine and shelf for tests of the chat: they behave like the real ones, without a model.

    engine = FakeEngine()
    engine.script(Thinking("hm"), gate, Answer("4"), Done("stop"))   # one reply; a gate is an asyncio.Event

Without a script, the engine answers "OK".
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.client import LoadOptions
from localai.errors import LocalAIError, ModelNotFound
from tui.shelf import ModelEntry, ResolvedModel

R1 = ModelEntry(
    name="deepseek-r1:7b",
    title="DeepSeek-R1-Distill-Qwen-7B",
    file_type="Q4_K_M",
    size=4_683_073_536,
    reasoning=True,
)
NANO = ModelEntry(name="r1-nano", title="r1-nano", file_type="Q8_0", size=1_412_000, reasoning=True)
STARTER = ModelEntry(
    name="smollm2:135m",
    title="SmolLM2-135M-Instruct",
    file_type="Q4_1",
    size=98_362_432,
    reasoning=False,
    note="Not a reasoning model: a small stand-in until a DeepSeek-R1 model is installed.",
)


def thinking(text: str, tokens: int = 1) -> protocol.Thinking:
    return protocol.Thinking(id=1, text=text, tokens=tokens)


def answer(text: str, tokens: int = 1) -> protocol.Answer:
    return protocol.Answer(id=1, text=text, tokens=tokens)


def prefill(done: int, total: int) -> protocol.PrefillProgress:
    return protocol.PrefillProgress(id=1, done=done, total=total)


def done(
    reason: str = "stop", *, prompt: int = 20, completion: int = 5, thought: int = 0, rate: float = 12.5
) -> protocol.Done:
    return protocol.Done(
        id=1,
        reason=reason,
        usage=protocol.Usage(
            prompt_tokens=prompt,
            cached_tokens=0,
            completion_tokens=completion,
            thinking_tokens=thought,
        ),
        timings=protocol.Timings(
            prompt_s=0.1, generation_s=1.0, tokens_per_s=rate, prompt_tokens_per_s=200.0
        ),
    )


def loaded(**changes: object) -> protocol.Loaded:
    model = protocol.Loaded(
        description="qwen2 7B Q4_K - Medium",
        architecture="qwen2",
        name="DeepSeek-R1-Distill-Qwen-7B",
        file_type="Q4_K_M",
        parameters=7_615_616_512,
        size=4_677_120_000,
        context=8192,
        context_trained=131072,
        threads=2,
        gpu_layers=0,
        backend="CPU",
        prompt_format="deepseek-r1",
        reasoning=True,
        system_role=False,
        sampling=protocol.Sampling(temperature=0.6, top_p=0.95, top_k=0, min_p=0.0),
        load_s=0.5,
    )
    return msgspec.structs.replace(model, **changes)


Step = protocol.GenerationEvent | asyncio.Event | LocalAIError | Callable[[], None]


class FakeEngine:
    """Engine's public methods, scripted. Cancelling works in the middle of any wait."""

    def __init__(self, model: protocol.Loaded | None = None) -> None:
        self.model: protocol.Loaded | None = None
        self.will_load: list[protocol.Loaded | LocalAIError] = []
        """What the next loads give; when used up, `default`."""
        self.default = model or loaded()
        self.load_gate: asyncio.Event | None = None
        self.load_steps: list[float] = []
        self.loads: list[Path] = []
        self.options: list[LoadOptions] = []
        self.scripts: list[list[Step]] = []
        self.prompts: list[list[ChatMessage]] = []
        self.samplings: list[protocol.Sampling] = []
        self.max_tokens: list[int | None] = []
        self.cancels = 0
        self.closed = 0
        self.deaf = False
        """Does not react to cancel or close, as a hung worker."""
        self._cancel = asyncio.Event()

    def script(self, *steps: Step) -> None:
        """The next reply that has no script yet."""
        self.scripts.append(list(steps))

    async def load(
        self,
        path: Path,
        options: LoadOptions = LoadOptions(),
        on_progress: Callable[[float], None] | None = None,
    ) -> protocol.Loaded:
        self.loads.append(path)
        self.options.append(options)
        for fraction in self.load_steps:
            if on_progress:
                on_progress(fraction)
        if self.load_gate is not None:
            await self.load_gate.wait()
        result = self.will_load.pop(0) if self.will_load else self.default
        if isinstance(result, LocalAIError):
            raise result
        self.model = result
        return result

    async def generate(
        self,
        messages: Sequence[ChatMessage],
        sampling: protocol.Sampling = protocol.Sampling(),
        max_tokens: int | None = None,
    ) -> AsyncIterator[protocol.GenerationEvent]:
        self.prompts.append(list(messages))
        self.samplings.append(sampling)
        self.max_tokens.append(max_tokens)
        self._cancel.clear()
        for step in self.scripts.pop(0) if self.scripts else [answer("OK"), done()]:
            if isinstance(step, asyncio.Event):
                await self._wait(step)
            elif isinstance(step, LocalAIError):
                raise step
            elif isinstance(step, protocol.PrefillProgress | protocol.Thinking | protocol.Answer):
                yield step
            elif isinstance(step, protocol.Done):
                yield step
                return
            else:
                step()
            if self._cancel.is_set() and not self.deaf:
                yield done("cancelled")
                return

    async def _wait(self, gate: asyncio.Event) -> None:
        waits = {asyncio.ensure_future(gate.wait())}
        if not self.deaf:
            waits.add(asyncio.ensure_future(self._cancel.wait()))
        try:
            await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for wait in waits:
                wait.cancel()

    async def cancel(self) -> None:
        self.cancels += 1
        self._cancel.set()

    async def close(self) -> None:
        self.closed += 1
        if self.deaf:
            await asyncio.Event().wait()


class FakeShelf:
    """Models that are just there."""

    def __init__(self, *entries: ModelEntry) -> None:
        self._entries = entries

    def entries(self) -> Sequence[ModelEntry]:
        return self._entries

    def resolve(self, name: str) -> ResolvedModel:
        for entry in self._entries:
            if entry.name == name:
                sampling = protocol.Sampling(temperature=0.6, top_p=0.95)
                return ResolvedModel(entry=entry, path=Path(f"/models/{name}"), sampling=sampling)
        raise ModelNotFound(f"No model called {name!r} is installed", "See: localai models list")


class Clock:
    """Time that goes on only when told."""

    def __init__(self, start: float = 1000.0) -> None:
        self.time = start

    def __call__(self) -> float:
        return self.time

    def forward(self, seconds: float) -> Callable[[], None]:
        """A step for a script: let that much time pass."""

        def step() -> None:
            self.time += seconds

        return step
