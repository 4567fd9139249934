"""What a user can set: how a model is loaded, how tokens are drawn, what ends a reply."""

from __future__ import annotations

from typing import Literal

import msgspec


class Sampling(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How the next token is drawn. None: what the model's file or family recommends."""

    temperature: float | None = None
    """0 draws the most likely token always."""
    top_p: float | None = None
    top_k: int | None = None
    """0: off."""
    min_p: float | None = None
    seed: int | None = None
    """None: a fresh one each time. With one, the reply is reproducible, which has a price: docs/engine.md."""
    repeat_penalty: float | None = None
    """Divides the logits of tokens seen lately; 1: off."""
    frequency_penalty: float | None = None
    """Taken from a token's logit for each time that it was seen lately; 0: off."""
    presence_penalty: float | None = None
    """Taken from the logits of tokens seen lately; 0: off."""
    penalty_last_n: int | None = None
    """How many tokens "lately" is; -1: the whole context."""
    logit_bias: tuple[LogitBias, ...] | None = None

    def completed_by(self, other: Sampling) -> Sampling:
        """This, with what it leaves open taken from `other`."""
        chosen = {k: v for k, v in msgspec.structs.asdict(self).items() if v is not None}
        return msgspec.structs.replace(other, **chosen)


class LogitBias(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Makes a token likelier or less likely. `token` is its number or its text; -inf forbids it."""

    token: int | str
    bias: float


class Limits(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What ends a reply, or a part of it, before the model does."""

    max_tokens: int | None = None
    """None: until the model stops or the context is full; 0: only read the prompt."""
    think_budget: int | None = None
    """After so many tokens of thinking the engine closes it, and the answer comes. None: no limit."""
    stop: tuple[str, ...] = ()
    """Texts that end the answer where they begin; thinking is not searched for them."""


KvType = Literal["f16", "q8_0", "q4_0"]
FlashAttention = Literal["auto", "on", "off"]


class LoadOptions(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to load a model. None leaves the choice to the engine."""

    context: int | None = None
    """Tokens of context; None: as much as the model was trained for and memory allows."""
    threads: int | None = None
    """None: the physical cores, fewer while other programs need them. A number is always kept to."""
    gpu_layers: int | None = None
    """None or negative: as many as fit, where a GPU backend is compiled in."""
    kv_type: KvType | None = None
    """How keys and values are kept; None: f16."""
    flash_attention: FlashAttention = "auto"
    mmap: bool = True
    """Map the file instead of reading it into memory."""
    mlock: bool = False
    """Keep the weights from being swapped out."""
    writable: bool = False
    """Whether weights will be changed where they lie: not mapped, and in the form that the file has."""
    batch: int | None = None
    """Most prompt tokens evaluated at once; None: 512."""
    parallel: int = 1
    """Requests that are decoded at the same time; more wait."""
    speculate: bool = True
    """Draft from the conversation's own text, where that is quicker."""
    draft: str | None = None
    """Path of a small model of the same tokenizer that drafts for this one."""
    reference: str | None = None
    """Path of a model of the same tokens that this one is compared with."""
    allow_architectures: tuple[str, ...] = ()
    """Architectures beside those of R1's models that the user lets run."""
    converse: bool = True
    """Whether there will be conversations. Without, the model needs no chat template that somebody read."""

    @property
    def others(self) -> dict[str, str]:
        """The paths of further models that are loaded with it, by the names of their fields."""
        named = {"draft": self.draft, "reference": self.reference}
        return {field: path for field, path in named.items() if path is not None}
