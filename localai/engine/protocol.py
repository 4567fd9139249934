"""The messages between app and worker.

Each frame (`localai.frames`) holds the MessagePack of exactly one of the structs below; msgspec checks types
and refuses unknown fields, so neither side ever acts on unvalidated bytes. Requests go to the worker, events
come back.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from localai import frames
from localai.chat.budget import Offer
from localai.chat.messages import ChatMessage
from localai.confine.choice import Mode
from localai.confine.report import Sandbox
from localai.engine.frame import Amount, Frame, Whole
from localai.engine.measures import Activations as Activations
from localai.engine.measures import Baseline as Baseline
from localai.engine.measures import BaselineKept as BaselineKept
from localai.engine.measures import Evaluate as Evaluate
from localai.engine.measures import Evaluated as Evaluated
from localai.engine.measures import EvaluateProgress as EvaluateProgress
from localai.engine.measures import Evaluating as Evaluating
from localai.engine.measures import Matrix as Matrix
from localai.engine.measures import Observe as Observe
from localai.engine.measures import Observed as Observed
from localai.engine.measures import ObserveProgress as ObserveProgress
from localai.engine.measures import Perturb as Perturb
from localai.engine.measures import Perturbed as Perturbed
from localai.engine.measures import Write as Write
from localai.engine.measures import WriteProgress as WriteProgress
from localai.engine.measures import Written as Written
from localai.engine.settings import KvType, Limits, LoadOptions, Sampling

FinishReason = Literal["stop", "length", "context", "cancelled"]


# ---------------------------------------------------------------------------------------------- requests


class Confine(Frame, frozen=True):
    """The first request to each worker: what it may still do from now on; answered by `Confined`.

    Until then it has read nothing that others wrote, and has one thread.
    """

    mode: Mode
    reads: tuple[str, ...] = ()
    """The files of the models that it will be asked to load."""
    gpu: bool = True
    """Whether it may use GPUs, if any is compiled in."""


class Load(Frame, frozen=True):
    """Load a GGUF file; answered by `LoadProgress`..., then `Loaded` or `Failed`."""

    path: str
    options: LoadOptions = LoadOptions()
    sha256: str = ""
    """Of the file, where the app knows it: saved states belong to it. "": the worker takes a digest."""
    accepted_templates: tuple[str, ...] = ()
    """The digests of the chat templates that the user has accepted: see `models.templates`."""


class Begun(msgspec.Struct, frozen=True):
    """A reply that was stopped or cut, to be gone on with."""

    thinking: str
    answer: str
    answering: bool
    """Whether the thinking had ended."""


class Generate(Frame, frozen=True):
    """Continue a conversation; answered by events with its `id`, the last `Done`, `Overflow` or `Failed`."""

    id: int
    messages: list[ChatMessage]
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    begun: Begun | None = None
    """What the reply begins with; only what follows is generated and comes as events."""


class Continue(Frame, frozen=True):
    """Continue a sequence of tokens; answered as `Generate`. What measures speed uses it."""

    id: int
    tokens: list[int]
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    ignore_end: bool = False
    """Go on after tokens that end a reply."""


class Prefill(Frame, frozen=True):
    """Read a prompt that is still being written, when there is nothing else to do; not answered.

    The last message is the user's draft. Any other request ends this, and a later `Prefill` replaces it.
    """

    id: int
    messages: list[ChatMessage]


class Count(Frame, frozen=True):
    """Ask what a conversation costs before it is sent; answered by `Counted`."""

    id: int
    messages: list[ChatMessage]


class Save(Frame, frozen=True):
    """Ask for the cache state of a conversation; answered by `StatePart`..., or an empty one."""

    id: int
    messages: list[ChatMessage]


class Restore(Frame, frozen=True):
    """A part of a state from `Save`, in order; the last is answered by `Restored`."""

    id: int
    data: bytes
    last: bool


class Status(Frame, frozen=True):
    """Ask what the worker holds and uses; answered by `StatusReport`."""

    id: int


class AnswerNow(Frame, frozen=True):
    """Close the thinking of the reply `id` and let the answer come; nothing if it is not thinking."""

    id: int


class Cancel(Frame, frozen=True):
    """Stop the generation `id` at once; it still ends with `Done`, reason "cancelled"."""

    id: int


class Attack(Frame, frozen=True):
    """Try what a hostile model would; answered by `Attacked`. `localai audit` asks for it."""

    id: int
    targets: bytes
    """The MessagePack of `localai.confine.attacks.Targets`, which only those two read."""


class Describe(Frame, frozen=True):
    """Ask what the engine is made of; answered by `EngineInfo`."""


class Shutdown(Frame, frozen=True):
    """End the worker in an orderly way. Closing the pipe does the same."""


# ------------------------------------------------------------------------------------------------ events


class Device(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One compute device as ggml lists it."""

    name: str
    description: str
    kind: Literal["cpu", "gpu", "igpu", "accelerator"]
    memory_free: Whole
    """Bytes; 0 where the backend does not tell."""
    memory_total: Whole


class EngineInfo(Frame, frozen=True):
    """What llama.cpp was compiled with and sees on this machine."""

    llama_cpp_commit: str
    system_info: str
    """llama.cpp's own line of CPU features."""
    features: list[str]
    """The features of `system_info` that are on, such as AVX2 or NEON."""
    devices: list[Device]


class Confined(Frame, frozen=True):
    """What the worker was confined to."""

    sandbox: Sandbox


class Attacked(Frame, frozen=True):
    """What came of each attack."""

    id: int
    outcomes: bytes
    """The MessagePack of a list of `localai.confine.attacks.Outcome`."""


class LoadProgress(Frame, frozen=True):
    """The share of the model that is loaded, 0 to 1."""

    fraction: Amount


class Loaded(Frame, frozen=True):
    """A model is ready, and what it is."""

    description: str
    """llama.cpp's words, such as "qwen2 1.5B Q4_K - Medium"."""
    architecture: str
    name: str
    """`general.name` of the file, may be empty."""
    file_type: str
    """Such as "Q4_K_M"."""
    parameters: Whole
    size: Whole
    """Bytes of all tensors."""
    context: Whole
    context_trained: Whole
    threads: Whole
    gpu_layers: Whole
    backend: str
    """The devices that compute, such as "CPU" or "CUDA0 + CPU"."""
    prompt_format: str
    """"deepseek-r1", "embedded" for the template in the file, or "none" where only tokens are continued."""
    reasoning: bool
    """Whether the model thinks before it answers."""
    system_role: bool
    """Whether a system prompt is a message of its own; if not, it is folded into the first user message."""
    sampling: Sampling
    """The recommended sampling; no field but `seed` is None."""
    load_s: Amount
    vocabulary: Whole
    """Number of tokens that the model knows."""
    parallel: Whole
    """Requests that are decoded at the same time."""
    kv_type: KvType
    kv_bytes_per_token: Whole
    weights_read: Whole
    """Bytes of weights that are read for each generated token: all but a separate input embedding."""
    fingerprint: str
    """Saved states fit only a model that was loaded with the same."""
    notes: tuple[str, ...] = ()
    """What was done differently from what was asked, and why; one line each, for the user."""


class PrefillProgress(Frame, frozen=True):
    """How much of the prompt has been read, in tokens, those taken from the cache included."""

    id: int
    done: Whole
    total: Whole


class Thinking(Frame, frozen=True):
    """A piece of the reasoning."""

    id: int
    text: str
    tokens: Whole


class Answer(Frame, frozen=True):
    """A piece of the answer."""

    id: int
    text: str
    tokens: Whole


class Looping(Frame, frozen=True):
    """The reply repeats itself; sent once for each part of it. The engine goes on: the user decides."""

    id: int
    part: Literal["thinking", "answer"]
    text: str
    """The beginning of the passage that comes again and again."""
    times: Whole
    """How often it has come, at least."""
    proposal: Literal["answer-now", "stop"]


class Overflow(Frame, frozen=True):
    """The conversation does not fit into the context: nothing was computed or left out. Ends the request."""

    id: int
    prompt_tokens: Whole
    context: Whole
    over: Whole
    """Tokens that must go, so that the prompt and the beginning of a reply have room."""
    offers: tuple[Offer, ...]
    """What can be done, the least harmful first."""


class Counted(Frame, frozen=True):
    """What a conversation costs, in tokens."""

    id: int
    total: Whole
    """The whole prompt, markers included."""
    messages: tuple[Whole, ...]
    """Of each message of the request, its markers included."""
    cached: Whole
    """Those of `total` that would not have to be read."""
    context: Whole
    prompt_s: Amount | None
    """Seconds until the first token, as far as can be foretold from earlier prompts."""


class StatePart(Frame, frozen=True):
    """A part of a conversation's cache state."""

    id: int
    data: bytes
    last: bool


class Restored(Frame, frozen=True):
    """A state was taken in: so many tokens; 0 if it did not match and was ignored."""

    id: int
    tokens: Whole


class StatusReport(Frame, frozen=True):
    """What the worker holds and uses."""

    id: int
    memory: Whole
    """Bytes of memory that the process occupies."""
    context: Whole
    """Tokens that the KV cache has room for."""
    live: tuple[Whole, ...]
    """Tokens of each sequence in the KV cache."""
    parked: tuple[Whole, ...]
    """Tokens of each sequence that is kept beside it."""
    parked_bytes: Whole
    threads: Whole
    """Threads that compute at present."""


class Speculated(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Tokens that were drafted, and those of them that the model itself would have drawn."""

    drafted: Whole = 0
    accepted: Whole = 0


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Token counts of one generation."""

    prompt_tokens: Whole
    cached_tokens: Whole
    """Those of `prompt_tokens` that the KV cache already held."""
    completion_tokens: Whole
    thinking_tokens: Whole
    """Those of `completion_tokens` that are reasoning, its closing tag included."""


class Timings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the time of one generation went; seconds, as the worker measured them."""

    prompt_s: Amount
    generation_s: Amount
    tokens_per_s: Amount
    """Generated tokens after the first, over the time from the first to the last; 0 if there are none."""
    prompt_tokens_per_s: Amount
    """Prompt tokens that were not cached, over `prompt_s`."""


class Done(Frame, frozen=True):
    """The generation has ended."""

    id: int
    reason: FinishReason
    usage: Usage
    timings: Timings
    answer: Literal["text", "empty", "none"] = "text"
    """"empty": the model ended after its thinking without a word; "none": it never ended its thinking."""
    stop: str = ""
    """The stop text that ended the answer."""
    think_closed: bool = False
    """Whether the thinking was closed by the engine: by its budget or by `AnswerNow`."""
    speculated: Speculated = Speculated()


class Alive(Frame, frozen=True):
    """Sent every second while the worker is busy; `step` grows while it gets anywhere."""

    step: Whole


class Failed(Frame, frozen=True):
    """The request failed; `kind` names a class of `localai.errors`. `id` is 0 for requests without one."""

    kind: str
    message: str
    hint: str = ""
    id: int = 0


Request = (
    Confine
    | Load
    | Generate
    | Continue
    | Prefill
    | Count
    | Save
    | Restore
    | Status
    | AnswerNow
    | Cancel
    | Attack
    | Observe
    | Evaluate
    | Baseline
    | Perturb
    | Write
    | Describe
    | Shutdown
)
GenerationEvent = PrefillProgress | Thinking | Answer | Looping | Overflow | Done
Event = (
    Confined
    | EngineInfo
    | LoadProgress
    | Loaded
    | GenerationEvent
    | Counted
    | StatePart
    | Restored
    | StatusReport
    | Attacked
    | ObserveProgress
    | Activations
    | Observed
    | Evaluating
    | EvaluateProgress
    | Evaluated
    | BaselineKept
    | Perturbed
    | WriteProgress
    | Written
    | Alive
    | Failed
)

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(frame: Request | Event) -> bytes:
    """The frame's bytes, its length included."""
    return frames.pack(_encoder.encode(frame))


def decode_request(body: bytes) -> Request:
    """The request in `body`; msgspec.ValidationError or DecodeError if it is none."""
    return _requests.decode(body)


def decode_event(body: bytes | memoryview) -> Event:
    """The event in `body`; msgspec.ValidationError or DecodeError if it is none."""
    return _events.decode(body)
