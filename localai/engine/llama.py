"""Models, contexts and samplers of llama.cpp.

Handles are context managers, C return codes become exceptions of `localai.errors`, and nothing that
llama.cpp logs reaches the screen. This file, `bindings` and `quants` are the only ones that call it.

Source of every call: llama.h and ggml-backend.h of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Callable, Sequence
from functools import cache
from pathlib import Path
from typing import Any, Self

from localai.engine import protocol
from localai.engine.bindings import because, bindings, commit, ggml, log_tail
from localai.errors import ContextOverflow, EngineError, LoadError

PREFILL_BATCH = 512
"""Prompt tokens per call of llama_decode: llama.cpp's physical batch, so that a longer one gains nothing."""

NEGLIGIBLE = 1e-6
"""Share of the likeliest token's probability below which no token is ever drawn."""

_ATTRIBUTE_CONTROL = 1 << 3
_ATTRIBUTE_USER_DEFINED = 1 << 4
_DEVICE_KINDS: dict[int, Any] = {0: "cpu", 1: "gpu", 2: "igpu", 3: "accelerator"}


def devices() -> list[protocol.Device]:
    """The compute devices that ggml was compiled for and finds here."""
    library = ggml()
    found = []
    for index in range(library.ggml_backend_dev_count()):
        device = library.ggml_backend_dev_get(index)
        free, total = ctypes.c_size_t(), ctypes.c_size_t()
        library.ggml_backend_dev_memory(device, ctypes.byref(free), ctypes.byref(total))
        found.append(
            protocol.Device(
                name=library.ggml_backend_dev_name(device).decode(),
                description=library.ggml_backend_dev_description(device).decode(),
                kind=_DEVICE_KINDS.get(library.ggml_backend_dev_type(device), "accelerator"),
                memory_free=free.value,
                memory_total=total.value,
            )
        )
    return found


def engine_info() -> protocol.EngineInfo:
    """What llama.cpp was compiled with and sees on this machine."""
    system_info = bindings().llama_print_system_info().decode()
    features = [
        name.rpartition(":")[2].strip()
        for name, _, value in (item.partition("=") for item in system_info.split("|"))
        if value.strip() not in ("", "0")
    ]
    return protocol.EngineInfo(
        llama_cpp_commit=commit(),
        system_info=system_info.strip(),
        features=features,
        devices=devices(),
    )


def offload_devices() -> list[str]:
    """Names of the devices that layers can be moved to; empty where only the CPU computes."""
    return [device.name for device in devices() if device.kind in ("gpu", "igpu")]


class _Handle:
    """Owns something of llama.cpp's: freed at the end of a `with` block, or by `close`."""

    def __init__(self, handle: Any, free: Callable[[Any], None]) -> None:
        self._handle = handle
        self._free = free

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free it; what was made from it must be closed before."""
        handle, self._handle = self._handle, None
        if handle:
            self._free(handle)


class Model(_Handle):
    """A model in memory, and its vocabulary.

    `on_progress` gets shares from 0 to 1 and stops the loading by returning False. Raises LoadError.
    """

    def __init__(self, path: Path, gpu_layers: int, on_progress: Callable[[float], bool]) -> None:
        self._api = bindings()
        parameters = self._api.llama_model_default_params()
        parameters.n_gpu_layers = gpu_layers
        # Must outlive the call: ctypes does not keep a callback alive.
        callback = self._api.llama_progress_callback(lambda share, _data: on_progress(share))
        parameters.progress_callback = callback
        log_tail.clear()
        super().__init__(
            self._api.llama_model_load_from_file(os.fsencode(path), parameters), self._api.llama_model_free
        )
        if not self._handle:
            raise LoadError(f"llama.cpp could not load {path}{because()}")
        self._vocab = self._api.llama_model_get_vocab(self._handle)
        self._piece = ctypes.create_string_buffer(256)
        self._attributes: dict[int, int] = {}

    @property
    def description(self) -> str:
        """llama.cpp's words for it, such as "qwen2 1.5B Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(256)
        self._api.llama_model_desc(self._handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return int(self._api.llama_model_size(self._handle))

    @property
    def layers(self) -> int:
        """Number of layers, that of the output included."""
        return int(self._api.llama_model_n_layer(self._handle)) + 1

    @property
    def adds_bos(self) -> bool:
        """Whether prompts are to begin with `bos`, as the file says."""
        return bool(self._api.llama_vocab_get_add_bos(self._vocab))

    @property
    def bos(self) -> str:
        """Text of the token that begins a sequence, "" if the vocabulary has none."""
        return self.text(self._api.llama_vocab_bos(self._vocab))

    @property
    def eos(self) -> str:
        """Text of the token that ends a sequence, "" if the vocabulary has none."""
        return self.text(self._api.llama_vocab_eos(self._vocab))

    def text(self, token: int) -> str:
        """The entry of `token` in the vocabulary: readable for markers, byte-encoded for ordinary tokens."""
        if token < 0:
            return ""
        return str(self._api.llama_vocab_get_text(self._vocab, token).decode("utf-8", "replace"))

    def special_token(self, text: str) -> int | None:
        """The one token that `text` is as a special token, or None if the vocabulary has none for it."""
        tokens = self.tokenize(text, special=True)
        if len(tokens) != 1 or not self.attributes(tokens[0]):
            return None
        return tokens[0]

    def attributes(self, token: int) -> int:
        """Non-zero for control tokens and for user-defined ones."""
        found = self._attributes.get(token)
        if found is None:
            bits = int(self._api.llama_vocab_get_attr(self._vocab, token))
            found = self._attributes[token] = bits & (_ATTRIBUTE_CONTROL | _ATTRIBUTE_USER_DEFINED)
        return found

    def is_end(self, token: int) -> bool:
        """Whether `token` ends a reply: end of generation, or control, such as the next user's marker."""
        return bool(
            self._api.llama_vocab_is_eog(self._vocab, token) or self.attributes(token) & _ATTRIBUTE_CONTROL
        )

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """The tokens of `text`; with `special`, markers such as <think> become their single tokens."""
        data = text.encode("utf-8", "replace")
        capacity = len(data) + 8
        tokens = (self._api.llama_token * capacity)()
        count = self._api.llama_tokenize(self._vocab, data, len(data), tokens, capacity, False, special)
        if count < 0:
            raise EngineError(f"llama.cpp could not tokenize a text of {len(data)} bytes")
        return list(tokens[:count])

    def piece(self, token: int) -> bytes:
        """The bytes of `token`: not always whole characters."""
        count = self._api.llama_token_to_piece(
            self._vocab, token, self._piece, len(self._piece), 0, bool(self.attributes(token))
        )
        if count < 0:
            self._piece = ctypes.create_string_buffer(-count)
            return self.piece(token)
        return self._piece.raw[:count]


class AbortFlag:
    """A flag that stops llama.cpp between two operations of the compute graph.

    llama.cpp asks a C callback after each operation. A Python callback there would cost a tenth of the speed,
    so the callback is libc's `strlen` on our buffer: "" is false, and any text is true.
    """

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(2)

    def set(self) -> None:
        """Stop the computation that runs, or the next one."""
        self.buffer[0] = b"x"

    def clear(self) -> None:
        """Let computations run again."""
        self.buffer[0] = b"\0"

    def is_set(self) -> bool:
        """Whether computations are to stop."""
        return self.buffer[0] != b"\0"


class Aborted(Exception):
    """A computation was stopped through its `AbortFlag`."""


class Context(_Handle):
    """The state of one sequence: a KV cache of `size` tokens. Raises LoadError if memory does not suffice."""

    def __init__(self, model: Model, size: int, threads: int, abort: AbortFlag) -> None:
        self._api = bindings()
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = size
        parameters.n_batch = PREFILL_BATCH
        parameters.n_ubatch = PREFILL_BATCH
        parameters.n_threads = threads
        parameters.n_threads_batch = threads
        parameters.no_perf = True
        parameters.abort_callback = self._api.ggml_abort_callback(_strlen())
        parameters.abort_callback_data = ctypes.addressof(abort.buffer)
        self._abort = abort
        log_tail.clear()
        super().__init__(self._api.llama_init_from_model(model._handle, parameters), self._api.llama_free)
        if not self._handle:
            raise LoadError(
                f"llama.cpp could not set up a context of {size} tokens{because()}",
                "Try a smaller one with --context",
            )
        self.size = int(self._api.llama_n_ctx(self._handle))
        self._memory = self._api.llama_get_memory(self._handle)
        self._one = (self._api.llama_token * 1)()
        self._one_batch = self._api.llama_batch_get_one(self._one, 1)

    def truncate(self, length: int) -> None:
        """Keep the first `length` positions of the KV cache."""
        self._api.llama_memory_seq_rm(self._memory, 0, length, -1)

    def prefill(self, tokens: Sequence[int]) -> None:
        """Evaluate at most `PREFILL_BATCH` tokens after those that the cache holds."""
        array = (self._api.llama_token * len(tokens))(*tokens)
        self._check(self._api.llama_decode(self._handle, self._api.llama_batch_get_one(array, len(tokens))))

    def decode(self, token: int) -> None:
        """Evaluate one token."""
        self._one[0] = token
        self._check(self._api.llama_decode(self._handle, self._one_batch))

    def _check(self, code: int) -> None:
        if code == 2 or self._abort.is_set():
            raise Aborted  # also after success: some backends never look at the flag
        if code == 0:
            return
        if code == 1:
            raise ContextOverflow(f"the context of {self.size} tokens is full")
        raise EngineError(f"llama.cpp failed to evaluate a batch (code {code}){because()}")


class Sampler(_Handle):
    """Draws the next token: top-k, temperature, min-p and top-p in that order, then by chance with `seed`.

    Temperature comes before top-p, as in the software that R1's recommended values were measured with.
    Without a min-p, tokens `NEGLIGIBLE` times as likely as the likeliest are left out before top-p, which
    would otherwise sort all 150,000 of R1's vocabulary for each token.
    """

    def __init__(self, sampling: protocol.Sampling) -> None:
        self._api = bindings()
        chain = self._api.llama_sampler_chain_init(self._api.llama_sampler_chain_default_params())
        super().__init__(chain, self._api.llama_sampler_free)
        for sampler in self._samplers(sampling):
            self._api.llama_sampler_chain_add(chain, sampler)

    def _samplers(self, sampling: protocol.Sampling) -> list[Any]:
        if not sampling.temperature:
            return [self._api.llama_sampler_init_greedy()]
        chain = []
        if sampling.top_k:
            chain.append(self._api.llama_sampler_init_top_k(sampling.top_k))
        chain.append(self._api.llama_sampler_init_temp(sampling.temperature))
        chain.append(self._api.llama_sampler_init_min_p(max(sampling.min_p or 0.0, NEGLIGIBLE), 1))
        if sampling.top_p is not None and sampling.top_p < 1:
            chain.append(self._api.llama_sampler_init_top_p(sampling.top_p, 1))
        seed = self._api.LLAMA_DEFAULT_SEED if sampling.seed is None else sampling.seed & 0xFFFFFFFF
        return [*chain, self._api.llama_sampler_init_dist(seed)]

    def sample(self, context: Context) -> int:
        """The next token, from the logits of the last one evaluated."""
        return int(self._api.llama_sampler_sample(self._handle, context._handle, -1))


@cache
def _strlen() -> Any:
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    return ctypes.cast(library.strlen, ctypes.c_void_p).value
