"""The messages between app and worker.

Each frame (`localai.frames`) holds the MessagePack of exactly one of the structs below; msgspec checks types
and refuses unknown fields, so neither side ever acts on unvalidated bytes. Requests go to the worker, events
come back.
"""

from __future__ import annotations

from typing import Annotated, Literal

import msgspec

from localai import frames
from localai.chat.budget import Offer
from localai.chat.messages import ChatMessage
from localai.confine.choice import Mode
from localai.confine.report import Sandbox
from localai.engine.settings import KvType, Limits, LoadOptions, Sampling

Whole = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""What events tell in numbers: a worker that a model has taken over may tell anything, such as NaN."""
FinishReason = Literal["stop", "length", "context", "cancelled"]


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all frames; the class name is the tag."""


# ---------------------------------------------------------------------------------------------- requests


class Confine(_Frame, frozen=True):
    """The first request to each worker: what it may still do from now on; answered by `Confined`.

    Until then it has read nothing that others wrote, and has one thread.
    """

    mode: Mode
    reads: tuple[str, ...] = ()
    """The files of the models that it will be asked to load."""
    gpu: bool = True
    """Whether it may use GPUs, if any is compiled in."""


class Load(_Frame, frozen=True):
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


class Generate(_Frame, frozen=True):
    """Continue a conversation; answered by events with its `id`, the last `Done`, `Overflow` or `Failed`."""

    id: int
    messages: list[ChatMessage]
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    begun: Begun | None = None
    """What the reply begins with; only what follows is generated and comes as events."""


class Continue(_Frame, frozen=True):
    """Continue a sequence of tokens; answered as `Generate`. What measures speed uses it."""

    id: int
    tokens: list[int]
    sampling: Sampling = Sampling()
    limits: Limits = Limits()
    ignore_end: bool = False
    """Go on after tokens that end a reply."""


class Prefill(_Frame, frozen=True):
    """Read a prompt that is still being written, when there is nothing else to do; not answered.

    The last message is the user's draft. Any other request ends this, and a later `Prefill` replaces it.
    """

    id: int
    messages: list[ChatMessage]


class Count(_Frame, frozen=True):
    """Ask what a conversation costs before it is sent; answered by `Counted`."""

    id: int
    messages: list[ChatMessage]


class Save(_Frame, frozen=True):
    """Ask for the cache state of a conversation; answered by `StatePart`..., or an empty one."""

    id: int
    messages: list[ChatMessage]


class Restore(_Frame, frozen=True):
    """A part of a state from `Save`, in order; the last is answered by `Restored`."""

    id: int
    data: bytes
    last: bool


class Status(_Frame, frozen=True):
    """Ask what the worker holds and uses; answered by `StatusReport`."""

    id: int


class AnswerNow(_Frame, frozen=True):
    """Close the thinking of the reply `id` and let the answer come; nothing if it is not thinking."""

    id: int


class Cancel(_Frame, frozen=True):
    """Stop the generation `id` at once; it still ends with `Done`, reason "cancelled"."""

    id: int


class Attack(_Frame, frozen=True):
    """Try what a hostile model would; answered by `Attacked`. `localai audit` asks for it."""

    id: int
    targets: bytes
    """The MessagePack of `localai.confine.attacks.Targets`, which only those two read."""


class Observe(_Frame, frozen=True):
    """Ask how strongly each column of each matrix is used where the model reads a text.

    Answered by `ObserveProgress`..., then one `Activations` for each matrix, then `Observed`.
    """

    id: int
    text: str
    chunk: int
    """The text is read in pieces of so many tokens, each for itself; what is left of it is not read."""
    chunks: int = 0
    """How many of them; 0: all."""
    special: bool = False
    """Whether markers in the text are read as markers."""


class Evaluate(_Frame, frozen=True):
    """Ask how well the model foretells a text, and how far it is from its reference, if it has one.

    Answered by `Evaluating`, then `EvaluateProgress` and one `Evaluated` for each chunk.
    """

    id: int
    text: str
    chunk: int
    """The text is read in chunks of so many tokens, each for itself; what is left of it is not read."""
    first: int = 0
    """Begin with this one, counted from 0."""
    chunks: int = 0
    """End before this one; 0: with the last."""


class Baseline(_Frame, frozen=True):
    """Have the model read a text, and keep what it foretells: what `Perturb` compares with.

    It must be loaded with `LoadOptions.writable`. Answered by `EvaluateProgress`..., then `BaselineKept`.
    """

    id: int
    text: str
    chunk: int
    """The text is read in chunks of so many tokens, each for itself, of which the second half counts."""
    chunks: int
    """How many of them."""
    special: bool = False
    """Whether markers in the text are read as markers."""


class Matrix(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A matrix that is to lose what it would lose in another type."""

    name: str
    """As the file calls it."""
    type: int
    """ggml's number."""
    importance: bytes = b""
    """Of each column: float32, little-endian; none: all are alike."""


class Perturb(_Frame, frozen=True):
    """Ask how much the model loses if some of its matrices are of other types, and put them back.

    Answered by `EvaluateProgress`..., then `Perturbed`.
    """

    id: int
    matrices: tuple[Matrix, ...]


class Write(_Frame, frozen=True):
    """Have the model answer questions as in a chat, and ask for all that it read and wrote, markers included.

    Answered by `WriteProgress`..., then one `Written` for each reply. No other reply may be under way.
    """

    id: int
    conversations: Annotated[
        list[Annotated[list[str], msgspec.Meta(min_length=1)]], msgspec.Meta(min_length=1)
    ]
    """What a user says, turn by turn. When all are answered they are asked again, with other seeds."""
    tokens: Annotated[int, msgspec.Meta(ge=1)]
    """When so many tokens were read and written, it ends, also in the middle of replies."""
    sampling: Sampling = Sampling()
    """What it leaves open is as the model recommends. Each conversation adds its number to the seed."""
    limits: Limits = Limits()
    """Of each reply."""


class Describe(_Frame, frozen=True):
    """Ask what the engine is made of; answered by `EngineInfo`."""


class Shutdown(_Frame, frozen=True):
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


class EngineInfo(_Frame, frozen=True):
    """What llama.cpp was compiled with and sees on this machine."""

    llama_cpp_commit: str
    system_info: str
    """llama.cpp's own line of CPU features."""
    features: list[str]
    """The features of `system_info` that are on, such as AVX2 or NEON."""
    devices: list[Device]


class Confined(_Frame, frozen=True):
    """What the worker was confined to."""

    sandbox: Sandbox


class Attacked(_Frame, frozen=True):
    """What came of each attack."""

    id: int
    outcomes: bytes
    """The MessagePack of a list of `localai.confine.attacks.Outcome`."""


class ObserveProgress(_Frame, frozen=True):
    """How much of a text has been read, in tokens."""

    id: int
    done: Whole
    total: Whole


class Activations(_Frame, frozen=True):
    """How strongly each column of one matrix was used."""

    id: int
    name: str
    """The matrix, as the file calls it."""
    sums: bytes
    """For each column the sum of the squares of what it was multiplied with: float64, little-endian."""
    rows: Whole
    """How many numbers each sum is of."""


class Observed(_Frame, frozen=True):
    """All `Activations` have been sent."""

    id: int
    chunks: Whole
    """Pieces of text that were read."""


class Evaluating(_Frame, frozen=True):
    """What is going to be evaluated."""

    id: int
    tokens: Whole
    """Of the whole text."""
    chunks: Whole
    """Those of the text, or as many as were asked for."""
    left: Whole
    """How many `Evaluated` will follow."""


class BaselineKept(_Frame, frozen=True):
    """What the model foretells is known."""

    id: int
    tokens: Whole
    """Those that count."""
    memory: Whole
    """Bytes that the worker occupies."""


class Perturbed(_Frame, frozen=True):
    """How far the model with other matrices is from itself, as a KL divergence in nats."""

    id: int
    kl: Amount
    """The mean."""
    kl_stderr: Amount


class EvaluateProgress(_Frame, frozen=True):
    """How much of the current chunk has been read, in tokens; by both models, if there is a reference."""

    id: int
    done: Whole


class Evaluated(_Frame, frozen=True):
    """One chunk: something for each of its tokens that counts, as little-endian numbers."""

    id: int
    chunk: Whole
    nll: bytes
    """float32: minus the natural logarithm of the probability that the model gave to the token."""
    reference_nll: bytes = b""
    """The same of the reference; empty without one, as what follows."""
    kl: bytes = b""
    """float32: the KL divergence of the model's probabilities from the reference's, in nats."""
    same: bytes = b""
    """One byte: 1 if both think that the same token is the most likely, else 0."""
    left: Whole = 0
    """How many chunks follow."""
    memory: Whole = 0
    """Bytes of memory that the process occupies."""


class WriteProgress(_Frame, frozen=True):
    """How much has been written, prompts included, in tokens."""

    id: int
    done: Whole
    total: Whole


class Written(_Frame, frozen=True):
    """A prompt and the reply to it, as the model read and wrote them.

    In the order of the conversations. Read with markers as markers, one behind the other, they are the same
    tokens, unless a reply spells something otherwise than the tokenizer does.
    """

    id: int
    text: str
    tokens: Whole
    left: Whole
    """How many follow."""


class LoadProgress(_Frame, frozen=True):
    """The share of the model that is loaded, 0 to 1."""

    fraction: Amount


class Loaded(_Frame, frozen=True):
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


class PrefillProgress(_Frame, frozen=True):
    """How much of the prompt has been read, in tokens, those taken from the cache included."""

    id: int
    done: Whole
    total: Whole


class Thinking(_Frame, frozen=True):
    """A piece of the reasoning."""

    id: int
    text: str
    tokens: Whole


class Answer(_Frame, frozen=True):
    """A piece of the answer."""

    id: int
    text: str
    tokens: Whole


class Looping(_Frame, frozen=True):
    """The reply repeats itself; sent once for each part of it. The engine goes on: the user decides."""

    id: int
    part: Literal["thinking", "answer"]
    text: str
    """The beginning of the passage that comes again and again."""
    times: Whole
    """How often it has come, at least."""
    proposal: Literal["answer-now", "stop"]


class Overflow(_Frame, frozen=True):
    """The conversation does not fit into the context: nothing was computed or left out. Ends the request."""

    id: int
    prompt_tokens: Whole
    context: Whole
    over: Whole
    """Tokens that must go, so that the prompt and the beginning of a reply have room."""
    offers: tuple[Offer, ...]
    """What can be done, the least harmful first."""


class Counted(_Frame, frozen=True):
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


class StatePart(_Frame, frozen=True):
    """A part of a conversation's cache state."""

    id: int
    data: bytes
    last: bool


class Restored(_Frame, frozen=True):
    """A state was taken in: so many tokens; 0 if it did not match and was ignored."""

    id: int
    tokens: Whole


class StatusReport(_Frame, frozen=True):
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


class Done(_Frame, frozen=True):
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


class Alive(_Frame, frozen=True):
    """Sent every second while the worker is busy; `step` grows while it gets anywhere."""

    step: Whole


class Failed(_Frame, frozen=True):
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
