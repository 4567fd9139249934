"""How the next token is drawn from the logits of a context.

llama.cpp's samplers take the whole vocabulary, 150,000 tokens with R1, as a list of 12-byte entries for each
token: 1 to 2 % of the time of a small model. So where nothing looks at unlikely tokens, only those that can
be drawn are put into the list.

Source of every call: llama.h of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from localai.engine.bindings import bindings
from localai.engine.context import Context
from localai.engine.llama import Handle, Model
from localai.engine.settings import LogitBias, Sampling
from localai.errors import UsageError

NEGLIGIBLE = 1e-6
"""Share of the likeliest token's probability below which no token is ever drawn."""
MOST_CANDIDATES = 4096
"""Where more tokens can be drawn, all are given to llama.cpp."""

LLAMA_RANDOM = 0xFFFFFFFF
"""The one seed that llama.cpp takes for none."""

_Candidate = np.dtype([("id", np.int32), ("logit", np.float32), ("p", np.float32)])
"""struct llama_token_data."""


class Sampler(Handle):
    """Logit biases, penalties, top-k, temperature, min-p and top-p in that order, then chance with `seed`.

    Temperature comes before top-p, as in the software that R1's recommended values were measured with.
    Without a min-p, tokens `NEGLIGIBLE` times as likely as the likeliest are left out before top-p, which
    would otherwise sort all 150,000 of R1's vocabulary for each token. Raises UsageError for a bias on
    something that is not a token.
    """

    def __init__(self, sampling: Sampling, model: Model, context_size: int) -> None:
        self._api = bindings()
        self._model, self._context_size = model, context_size
        self._vocabulary = model.vocabulary
        self._greedy = not sampling.temperature
        self._all = bool(sampling.logit_bias)
        """Whether llama.cpp must see all tokens, because unlikely ones may become likely."""
        share = max(sampling.min_p or 0.0, NEGLIGIBLE)
        self._margin = (sampling.temperature or 0.0) * math.log(share)
        """How far below the best logit those of the candidates may be; at most 0."""
        self._logits: dict[int, Any] = {}
        self._candidates: Any = None
        chain = self._api.llama_sampler_chain_init(self._api.llama_sampler_chain_default_params())
        super().__init__(chain, self._api.llama_sampler_free)
        self.remembers = 0
        """How many earlier tokens bear on the next: those that `accept` wants to be told."""
        try:
            for sampler in self._samplers(sampling):
                self._api.llama_sampler_chain_add(chain, sampler)
        except BaseException:
            self.close()
            raise

    def _samplers(self, sampling: Sampling) -> Iterable[Any]:
        if sampling.logit_bias:
            yield self._biases(sampling.logit_bias)
        yield from self._penalties(sampling)
        if not sampling.temperature:
            yield self._api.llama_sampler_init_greedy()
            return
        if sampling.top_k:
            yield self._api.llama_sampler_init_top_k(sampling.top_k)
        yield self._api.llama_sampler_init_temp(sampling.temperature)
        yield self._api.llama_sampler_init_min_p(max(sampling.min_p or 0.0, NEGLIGIBLE), 1)
        if sampling.top_p is not None and sampling.top_p < 1:
            yield self._api.llama_sampler_init_top_p(sampling.top_p, 1)
        seed = self._api.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed % LLAMA_RANDOM
        yield self._api.llama_sampler_init_dist(seed)

    def _biases(self, wanted: tuple[LogitBias, ...]) -> Any:
        biases = (self._api.llama_logit_bias * len(wanted))()
        for place, item in zip(biases, wanted, strict=True):
            place.token, place.bias = self._token(item.token), item.bias
        return self._api.llama_sampler_init_logit_bias(self._model.vocabulary, len(wanted), biases)

    def _token(self, token: int | str) -> int:
        if isinstance(token, str):
            found = self._model.tokenize(token, special=True)
            if len(found) != 1:
                raise UsageError(
                    f"the logit bias on {token!r} is not on one token: the model has {len(found)} for it",
                    "A word in mid-sentence often begins with a space",
                )
            return found[0]
        if not 0 <= token < self._model.vocabulary:
            raise UsageError(
                f"the logit bias is on token {token}, but the model knows {self._model.vocabulary:,}"
            )
        return token

    def _penalties(self, sampling: Sampling) -> Iterable[Any]:
        repeat = 1.0 if sampling.repeat_penalty is None else sampling.repeat_penalty
        frequency, presence = sampling.frequency_penalty or 0.0, sampling.presence_penalty or 0.0
        last = 64 if sampling.penalty_last_n is None else sampling.penalty_last_n
        self.remembers = self._context_size if last < 0 else min(last, self._context_size)
        if (repeat, frequency, presence) == (1.0, 0.0, 0.0) or not self.remembers:
            self.remembers = 0
            return
        self._all = True
        yield self._api.llama_sampler_init_penalties(
            self._model.vocabulary, self.remembers, repeat, frequency, presence
        )

    def accept(self, tokens: Iterable[int]) -> None:
        """Take note of tokens that this did not draw itself: the prompt's, and those that are forced."""
        for token in tokens:
            self._api.llama_sampler_accept(self.handle, token)

    def sample(self, context: Context, index: int) -> int:
        """The next token, from the logits that `context` kept for position `index` of the last batch."""
        if self._all:
            return int(self._api.llama_sampler_sample(self.handle, context.handle, index))
        logits = self._view(context, index)
        best = int(logits.argmax())
        if self._greedy:
            return best
        found = np.flatnonzero(logits >= logits[best] + self._margin)
        if not 0 < len(found) <= MOST_CANDIDATES:
            return int(self._api.llama_sampler_sample(self.handle, context.handle, index))
        return self._draw(found, logits[found])

    def _view(self, context: Context, index: int) -> Any:
        """The logits as an array. llama.cpp uses the same few addresses again and again."""
        address = context.logits(index)
        view = self._logits.get(address)
        if view is None:
            memory: Any = (ctypes.c_float * self._vocabulary).from_address(address)
            view = self._logits[address] = np.frombuffer(memory, np.float32)
        return view

    def _draw(self, tokens: Any, logits: Any) -> int:
        if self._candidates is None:
            self._candidates = np.zeros(MOST_CANDIDATES, _Candidate)
            pointer = self._candidates.ctypes.data_as(ctypes.POINTER(self._api.llama_token_data))
            self._array = self._api.llama_token_data_array(data=pointer)
        count = len(tokens)
        self._candidates["id"][:count], self._candidates["logit"][:count] = tokens, logits
        self._array.size, self._array.selected, self._array.sorted = count, -1, False
        self._api.llama_sampler_apply(self.handle, ctypes.byref(self._array))
        token = int(self._candidates["id"][self._array.selected])
        self._api.llama_sampler_accept(self.handle, token)
        return token
