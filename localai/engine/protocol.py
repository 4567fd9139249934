"""The messages between app and worker.

Each frame (`localai.frames`) holds the MessagePack of exactly one of the structs below; msgspec checks types
and refuses unknown fields, so neither side ever acts on unvalidated bytes. Requests go to the worker, events
come back.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from localai import frames
from localai.chat.messages import ChatMessage

FinishReason = Literal["stop", "length", "context", "cancelled"]


class _Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all frames; the class name is the tag."""


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the next token is drawn. None: what the model's file or family recommends."""

    temperature: float | None = None
    """0 draws the most likely token always."""
    top_p: float | None = None
    top_k: int | None = None
    """0: off."""
    min_p: float | None = None
    seed: int | None = None
    """None: a fresh one each time."""

    def completed_by(self, other: Sampling) -> Sampling:
        """This, with what it leaves open taken from `other`."""
        chosen = {k: v for k, v in msgspec.structs.asdict(self).items() if v is not None}
        return msgspec.structs.replace(other, **chosen)


# ---------------------------------------------------------------------------------------------- requests


class Load(_Frame, frozen=True):
    """Load a GGUF file; answered by `LoadProgress`..., then `Loaded` or `Failed`."""

    path: str
    context: int | None = None
    """Tokens of context; None: as much as is useful and fits."""
    threads: int | None = None
    """None: the physical cores."""
    gpu_layers: int | None = None
    """None or negative: all, where a GPU backend is compiled in."""


class Generate(_Frame, frozen=True):
    """Continue a conversation; answered by events with the same `id`, the last a `Done` or `Failed`."""

    id: int
    messages: list[ChatMessage]
    sampling: Sampling = Sampling()
    max_tokens: int | None = None
    """None: until the model stops or the context is full."""


class Cancel(_Frame, frozen=True):
    """Stop the generation `id` at once; it still ends with `Done`, reason "cancelled"."""

    id: int


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
    memory_free: int
    """Bytes; 0 where the backend does not tell."""
    memory_total: int


class EngineInfo(_Frame, frozen=True):
    """What llama.cpp was compiled with and sees on this machine."""

    llama_cpp_commit: str
    system_info: str
    """llama.cpp's own line of CPU features."""
    features: list[str]
    """The features of `system_info` that are on, such as AVX2 or NEON."""
    devices: list[Device]


class LoadProgress(_Frame, frozen=True):
    """The share of the model that is loaded, 0 to 1."""

    fraction: float


class Loaded(_Frame, frozen=True):
    """A model is ready, and what it is."""

    description: str
    """llama.cpp's words, such as "qwen2 1.5B Q4_K - Medium"."""
    architecture: str
    name: str
    """`general.name` of the file, may be empty."""
    file_type: str
    """Such as "Q4_K_M"."""
    parameters: int
    size: int
    """Bytes of all tensors."""
    context: int
    context_trained: int
    threads: int
    gpu_layers: int
    backend: str
    """The devices that compute, such as "CPU" or "CUDA0 + CPU"."""
    prompt_format: str
    """"deepseek-r1", "chatml", or "embedded" for the template in the file."""
    reasoning: bool
    """Whether the model thinks before it answers."""
    system_role: bool
    """Whether a system prompt is a message of its own; if not, it is folded into the first user message."""
    sampling: Sampling
    """The recommended sampling; no field but `seed` is None."""
    load_s: float


class PrefillProgress(_Frame, frozen=True):
    """How much of the prompt has been read, in tokens, those taken from the cache included."""

    id: int
    done: int
    total: int


class Thinking(_Frame, frozen=True):
    """A piece of the reasoning."""

    id: int
    text: str
    tokens: int


class Answer(_Frame, frozen=True):
    """A piece of the answer."""

    id: int
    text: str
    tokens: int


class Usage(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Token counts of one generation."""

    prompt_tokens: int
    cached_tokens: int
    """Those of `prompt_tokens` that the KV cache already held."""
    completion_tokens: int
    thinking_tokens: int
    """Those of `completion_tokens` that are reasoning, its closing tag included."""


class Timings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where the time of one generation went; seconds, as the worker measured them."""

    prompt_s: float
    generation_s: float
    tokens_per_s: float
    """Generated tokens after the first, over the time from the first to the last; 0 if there are none."""
    prompt_tokens_per_s: float
    """Prompt tokens that were not cached, over `prompt_s`."""


class Done(_Frame, frozen=True):
    """The generation has ended."""

    id: int
    reason: FinishReason
    usage: Usage
    timings: Timings


class Alive(_Frame, frozen=True):
    """Sent every second while the worker is busy; `step` grows while it gets anywhere."""

    step: int


class Failed(_Frame, frozen=True):
    """The request failed; `kind` names a class of `localai.errors`. `id` is 0 for requests without one."""

    kind: str
    message: str
    hint: str = ""
    id: int = 0


Request = Load | Generate | Cancel | Describe | Shutdown
Event = EngineInfo | LoadProgress | Loaded | PrefillProgress | Thinking | Answer | Done | Alive | Failed
GenerationEvent = PrefillProgress | Thinking | Answer | Done

_encoder = msgspec.msgpack.Encoder()
_requests: msgspec.msgpack.Decoder[Request] = msgspec.msgpack.Decoder(Request)
_events: msgspec.msgpack.Decoder[Event] = msgspec.msgpack.Decoder(Event)


def encode(frame: Request | Event) -> bytes:
    """The frame's bytes, its length included."""
    return frames.pack(_encoder.encode(frame))


def decode_request(body: bytes) -> Request:
    """The request in `body`; msgspec.ValidationError or DecodeError if it is none."""
    return _requests.decode(body)


def decode_event(body: bytes) -> Event:
    """The event in `body`; msgspec.ValidationError or DecodeError if it is none."""
    return _events.decode(body)
