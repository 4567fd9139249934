"""A scripted engine and shelf for tests of the chat: they behave like the real ones, without a model.

    engine = FakeEngine()
    engine.script(Thinking("hm"), gate, Answer("4"), Done("stop"))   # one reply; a gate is an asyncio.Event

Without a script, the engine answers "OK". `engine.calls` has the names of all calls but `generate`'s own
events, in their order; `engine.answer_wanted` is a gate that `answer_now` opens.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from pathlib import Path

import msgspec

from localai.chat.budget import Offer
from localai.chat.messages import ChatMessage
from localai.confine.report import Layer, Sandbox
from localai.engine import protocol
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.engine.states import State
from localai.errors import LocalAIError, ModelNotFound
from models.figures import Figures
from tui.fitting import Fit
from tui.jobs import Jobs
from tui.model_entry import Place
from tui.shelf import Freed, ModelEntry, ResolvedModel

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


def looping(
    text: str, times: int = 5, part: str = "thinking", proposal: str = "answer-now"
) -> protocol.Looping:
    return protocol.Looping(id=1, part=part, text=text, times=times, proposal=proposal)


def overflow(*offers: Offer, prompt: int = 9000, context: int = 8192, over: int = 1832) -> protocol.Overflow:
    return protocol.Overflow(id=1, prompt_tokens=prompt, context=context, over=over, offers=offers)


def done(
    reason: str = "stop",
    *,
    prompt: int = 20,
    completion: int = 5,
    thought: int = 0,
    rate: float = 12.5,
    answer: str = "text",
    think_closed: bool = False,
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
        answer=answer,
        think_closed=think_closed,
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
        sampling=Sampling(temperature=0.6, top_p=0.95, top_k=0, min_p=0.0),
        load_s=0.5,
        vocabulary=152_064,
        parallel=1,
        kv_type="f16",
        kv_bytes_per_token=57_344,
        weights_read=4_131_000_000,
        fingerprint="r1-7b",
    )
    return msgspec.structs.replace(model, **changes)


FULL = Sandbox("full", (Layer("landlock", True, "ABI 7"), Layer("seccomp", True)))
Step = protocol.GenerationEvent | asyncio.Event | LocalAIError | Callable[[], None]


class FakeEngine:
    """Engine's public methods, scripted. Cancelling works in the middle of any wait."""

    def __init__(self, model: protocol.Loaded | None = None) -> None:
        self.model: protocol.Loaded | None = None
        self.sandbox = FULL
        self.names: list[str] = []
        self.begun: protocol.Begun | None = None
        """What the last reply was to go on with."""
        self.will_load: list[protocol.Loaded | LocalAIError] = []
        """What the next loads give; when used up, `default`."""
        self.default = model or loaded()
        self.load_gate: asyncio.Event | None = None
        self.load_steps: list[float] = []
        self.loads: list[Path] = []
        self.digests: list[str] = []
        self.options: list[LoadOptions] = []
        self.scripts: list[list[Step]] = []
        self.prompts: list[list[ChatMessage]] = []
        self.samplings: list[Sampling] = []
        self.limits: list[Limits] = []
        self.calls: list[str] = []
        self.prefills: list[list[ChatMessage]] = []
        self.saves: list[list[ChatMessage]] = []
        self.restores: list[State] = []
        self.will_save: list[State | LocalAIError] = []
        """What the next saves give; when used up, nothing."""
        self.restore_gate: asyncio.Event | None = None
        self.restore_error: LocalAIError | None = None
        self.answer_wanted = asyncio.Event()
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
        *,
        sha256: str = "",
        name: str = "",
    ) -> protocol.Loaded:
        self.calls.append("load")
        self.names.append(name)
        self.digests.append(sha256)
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
        sampling: Sampling = Sampling(),
        limits: Limits = Limits(),
        *,
        begun: protocol.Begun | None = None,
    ) -> AsyncIterator[protocol.GenerationEvent]:
        self.calls.append("generate")
        self.begun = begun
        self.prompts.append(list(messages))
        self.samplings.append(sampling)
        self.limits.append(limits)
        self._cancel.clear()
        self.answer_wanted.clear()
        for step in self.scripts.pop(0) if self.scripts else [answer("OK"), done()]:
            if isinstance(step, asyncio.Event):
                await self._wait(step)
            elif isinstance(step, LocalAIError):
                raise step
            elif isinstance(step, protocol.GenerationEvent):
                yield step
                if isinstance(step, protocol.Done | protocol.Overflow):
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

    async def answer_now(self) -> None:
        self.calls.append("answer_now")
        self.answer_wanted.set()

    async def prefill(self, messages: Sequence[ChatMessage]) -> None:
        self.calls.append("prefill")
        self.prefills.append(list(messages))

    async def count(self, messages: Sequence[ChatMessage]) -> protocol.Counted:
        """A token is a word; each message has two more for its markers."""
        self.calls.append("count")
        each = tuple(len(message.content.split()) + 2 for message in messages)
        context = self.model.context if self.model else 0
        return protocol.Counted(
            id=1, total=sum(each), messages=each, cached=0, context=context, prompt_s=None
        )

    async def save(self, messages: Sequence[ChatMessage], *, limit: int | None = None) -> State | None:
        self.calls.append("save")
        self.saves.append(list(messages))
        state = self.will_save.pop(0) if self.will_save else None
        if isinstance(state, LocalAIError):
            raise state
        return state

    async def restore(self, state: State) -> int:
        self.calls.append("restore")
        if self.restore_gate is not None:
            await self.restore_gate.wait()
        if self.restore_error is not None:
            raise self.restore_error
        self.restores.append(state)
        return 1

    async def close(self) -> None:
        self.closed += 1
        if self.deaf:
            await asyncio.Event().wait()


class FakeShelf:
    """Models that are just there, wherever that is; what is removed can be brought back."""

    def __init__(self, *entries: ModelEntry) -> None:
        self.all_of_them = list(entries)
        self.types_of: dict[str, list[ModelEntry]] = {}
        """What `types` gives."""
        self.fits: dict[str, Fit] = {}
        self.measured: dict[str, Figures] = {}
        """What `measured_types` gives."""
        self.given_back: list[int] = []
        """What `fit` was told."""
        self.used_now: list[str] = []
        """The digests of models that were used."""
        self.template = ""
        """What every model brings."""
        self.accepted: list[str] = []
        """Templates that the user has accepted."""
        self.unfinished = 0
        """Bytes of interrupted fetches."""
        self.will_change: LocalAIError | None = None
        """What any change ends with."""

    def entries(self) -> Sequence[ModelEntry]:
        return [entry for entry in self.all_of_them if entry.installed]

    def all(self) -> Sequence[ModelEntry]:
        return list(self.all_of_them)

    def types(self, name: str) -> Sequence[ModelEntry]:
        return self.types_of.get(name, [])

    def fit(self, entry: ModelEntry, given_back: int) -> Fit:
        self.given_back.append(given_back)
        return self.fits.get(entry.name, Fit("fits", "Fits, with all 8,192 tokens of its context."))

    def source(self, name: str) -> str:
        return f"/made/from/{name}"

    def measured_types(self, name: str) -> dict[str, Figures]:
        return self.measured

    def used(self, sha256: str) -> None:
        self.used_now.append(sha256)

    def unread_template(self, name: str) -> str:
        return "" if self.template in self.accepted else self.template

    def accept_template(self, template: str) -> None:
        if self.will_change is not None:
            raise self.will_change
        self.accepted.append(template)

    def last_removed(self) -> str:
        removed = [entry.name for entry in self.all_of_them if entry.place == "removed"]
        return removed[-1] if removed else ""

    def remove(self, name: str) -> None:
        self._move(name, "installed", "removed")

    def restore(self, name: str) -> None:
        self._move(name, "removed", "installed")

    def _move(self, name: str, place: Place, new: Place) -> None:
        if self.will_change is not None:
            raise self.will_change
        gone = next(entry for entry in self.all_of_them if entry.name == name and entry.place == place)
        self.all_of_them.remove(gone)
        if gone.undoable:
            self.all_of_them.append(msgspec.structs.replace(gone, place=new))

    def prunable(self) -> Freed:
        held = [entry.frees for entry in self.all_of_them if entry.place == "removed"]
        return Freed(sum(held), self.unfinished)

    def prune(self) -> int:
        if self.will_change is not None:
            raise self.will_change
        freed = self.prunable()
        self.all_of_them = [entry for entry in self.all_of_them if entry.place != "removed"]
        return freed.removed + freed.unfinished

    def resolve(self, name: str) -> ResolvedModel:
        for entry in self.entries():
            if entry.name == name:
                sampling = Sampling(temperature=0.6, top_p=0.95)
                path = Path(f"/models/{name}")
                return ResolvedModel(entry=entry, path=path, sha256="d" * 64, sampling=sampling)
        raise ModelNotFound(f"No model called {name!r} is installed", "See: localai models list")


class QuietJobs(Jobs):
    """Jobs that start no process to look at other programs: there is none that has a model."""

    async def discover(self) -> Sequence[ModelEntry]:
        return self.found


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
