"""Contexts of llama.cpp: what evaluates batches of tokens and keeps their keys and values.

A batch may mix sequences; positions are given for each token, and only the logits that are asked for are
kept. Computations stop between two operations when their `AbortFlag` is set.

Source of every call: llama.h of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Sequence
from functools import cache
from typing import Any

import msgspec

from localai.engine.bindings import because, bindings, get_logits, log_tail
from localai.engine.llama import Handle, Model
from localai.engine.settings import FlashAttention, KvType
from localai.errors import EngineError, LoadError

MOST_OUTPUTS = 64
"""Positions of one batch whose logits can be asked for, unless a context is made for more. llama.cpp reserves
memory for so many."""

_GGML_TYPES: dict[KvType, int] = {"f16": 1, "q8_0": 8, "q4_0": 2}
_FLASH_ATTENTION: dict[FlashAttention, int] = {"auto": -1, "off": 0, "on": 1}


class AbortFlag:
    """A flag that stops llama.cpp between two operations of the compute graph.

    llama.cpp asks a C callback after each operation. A Python callback there would cost a tenth of the speed,
    so the callback is libc's `strlen` on our buffer: "" is false, and any text is true.
    """

    def __init__(self) -> None:
        self.buffer = ctypes.create_string_buffer(2)
        self.is_set = False
        """Whether computations are to stop."""

    def set(self) -> None:
        """Stop the computation that runs, or the next one."""
        self.is_set = True
        self.buffer[0] = b"x"

    def clear(self) -> None:
        """Let computations run again."""
        self.is_set = False
        self.buffer[0] = b"\0"


class Aborted(Exception):
    """A computation was stopped through its `AbortFlag`."""


class NoRoom(Exception):
    """The KV cache has no cells for the batch; nothing was computed."""


class ContextSettings(msgspec.Struct, frozen=True, kw_only=True):
    """How a context is made."""

    size: int
    """Tokens that the KV cache holds, those of all sequences together."""
    threads: int
    batch: int
    """Most tokens of one batch."""
    sequences: int = 1
    kv_type: KvType = "f16"
    flash_attention: FlashAttention = "auto"
    outputs: int = MOST_OUTPUTS
    """Most positions of one batch whose logits will be asked for."""


class Context(Handle):
    """KV cache and compute buffers for a model. Raises LoadError if memory does not suffice.

    `observer`: what llama.cpp calls for each operation that it computes, a callback of ctypes that must live
    as long as the context.
    """

    def __init__(
        self, model: Model, settings: ContextSettings, abort: AbortFlag, observer: Any = None
    ) -> None:
        self._api = bindings()
        self._abort = abort
        log_tail.clear()
        parameters = self._parameters(settings, abort)
        if observer is not None:
            parameters.cb_eval = observer
        super().__init__(self._api.llama_init_from_model(model.handle, parameters), self._api.llama_free)
        if not self.handle:
            raise LoadError(
                f"llama.cpp could not set up a context of {settings.size:,} tokens{because()}",
                "Try a smaller one with --context",
            )
        self.size = int(self._api.llama_n_ctx(self.handle))
        self.batch = min(settings.batch, self.size)
        self.outputs = int(parameters.n_outputs_max)
        """Most positions of a batch whose logits can be asked for."""
        self._get_logits = get_logits()
        self._memory = self._api.llama_get_memory(self.handle)
        self._batch = _Batch(self._api, settings.batch)

    def _parameters(self, settings: ContextSettings, abort: AbortFlag) -> Any:
        parameters = self._api.llama_context_default_params()
        parameters.n_ctx = settings.size
        parameters.n_batch = parameters.n_ubatch = settings.batch
        parameters.n_seq_max = settings.sequences
        parameters.kv_unified = True  # sequences share the cells
        parameters.n_outputs_max = max(settings.sequences, min(settings.outputs, settings.batch))
        parameters.n_threads = parameters.n_threads_batch = settings.threads
        parameters.type_k = parameters.type_v = _GGML_TYPES[settings.kv_type]
        parameters.flash_attn_type = _FLASH_ATTENTION[settings.flash_attention]
        parameters.no_perf = True
        parameters.abort_callback = self._api.ggml_abort_callback(_strlen())
        parameters.abort_callback_data = ctypes.addressof(abort.buffer)
        return parameters

    def set_threads(self, count: int) -> None:
        """Compute with so many threads from the next batch on."""
        self._api.llama_set_n_threads(self.handle, count, count)

    # ------------------------------------------------------------------------------------------- batches

    def add(self, sequence: int, position: int, tokens: Sequence[int], outputs: int) -> int:
        """Put `tokens` into the next batch; the logits of the last `outputs` of them are kept.

        The index of the first token in the batch, which is where `Sampler.sample` finds logits.
        """
        return self._batch.add(sequence, position, tokens, outputs)

    def evaluate(self) -> None:
        """Evaluate the batch. Raises Aborted, NoRoom, EngineError; the cache may then hold a part of it."""
        code = self._api.llama_decode(self.handle, self._batch.take())
        if code == 0 and self._batch.size > 1:
            # Where a GPU computes, llama_decode returns before it has: wait, for the times to be true.
            self._api.llama_synchronize(self.handle)
        if code == 2 or self._abort.is_set:
            raise Aborted  # also after success: some backends never look at the flag
        if code == 1:
            raise NoRoom
        if code != 0:
            raise EngineError(f"llama.cpp failed to evaluate a batch (code {code}){because()}")

    def logits(self, index: int) -> int:
        """The address of the logits kept for position `index` of the last batch: a float32 for each token."""
        address = self._get_logits(self.handle, index)
        if address is None:
            raise EngineError(f"llama.cpp kept no logits for position {index} of a batch")
        return int(address)

    def discard(self) -> None:
        """Begin the next batch anew, after an error while it was put together."""
        self._batch.take()

    # --------------------------------------------------------------------------------------------- cache

    def truncate(self, sequence: int, length: int) -> None:
        """Keep the first `length` positions of a sequence."""
        self._api.llama_memory_seq_rm(self._memory, sequence, length, -1)

    def save(self, sequence: int) -> bytearray:
        """The keys and values of a sequence, as `restore` takes them. Raises EngineError."""
        size = int(self._api.llama_state_seq_get_size(self.handle, sequence))
        data = bytearray(size)
        buffer = (ctypes.c_uint8 * size).from_buffer(data)
        written = self._api.llama_state_seq_get_data(self.handle, buffer, size, sequence)
        del buffer
        if written != size:
            raise EngineError(f"the state of a conversation could not be read{because()}")
        return data

    def restore(self, sequence: int, data: bytearray, length: int) -> bool:
        """Replace a sequence by a saved one of `length` tokens; if that fails, it is empty afterwards."""
        self.truncate(sequence, 0)
        buffer = (ctypes.c_uint8 * len(data)).from_buffer(data)
        taken = self._api.llama_state_seq_set_data(self.handle, buffer, len(data), sequence)
        del buffer
        if taken == len(data) and self._positions(sequence) == (0, length - 1):
            return True
        self.truncate(sequence, 0)
        return False

    def _positions(self, sequence: int) -> tuple[int, int]:
        """The first and the last position that the cache holds of a sequence."""
        first = self._api.llama_memory_seq_pos_min(self._memory, sequence)
        return int(first), int(self._api.llama_memory_seq_pos_max(self._memory, sequence))


class _Batch:
    """A llama_batch with arrays of our own."""

    def __init__(self, api: Any, capacity: int) -> None:
        self.size = 0
        self._tokens = (api.llama_token * capacity)()
        self._positions = (api.llama_pos * capacity)()
        self._counts = (ctypes.c_int32 * capacity)(*[1] * capacity)
        self._sequences = (api.llama_seq_id * capacity)()
        step, start = ctypes.sizeof(api.llama_seq_id), ctypes.addressof(self._sequences)
        pointer = ctypes.POINTER(api.llama_seq_id)
        self._pointers = (pointer * capacity)(
            *(ctypes.cast(start + index * step, pointer) for index in range(capacity))
        )
        self._wanted: Any = (ctypes.c_int8 * capacity)()
        self._batch = api.llama_batch(
            n_tokens=0,
            token=self._tokens,
            pos=self._positions,
            n_seq_id=self._counts,
            seq_id=self._pointers,
            logits=self._wanted,
        )
        self._taken = False

    def add(self, sequence: int, position: int, tokens: Sequence[int], outputs: int) -> int:
        start = 0 if self._taken else self.size
        count = len(tokens)
        end = start + count
        if count == 1:
            self._tokens[start] = tokens[0]
            self._positions[start] = position
            self._sequences[start] = sequence
            self._wanted[start] = outputs
        else:
            self._tokens[start:end] = tokens
            self._positions[start:end] = range(position, position + count)
            self._sequences[start:end] = [sequence] * count
            self._wanted[start:end] = [0] * (count - outputs) + [1] * outputs
        self.size = end
        self._taken = False
        return start

    def take(self) -> Any:
        self._batch.n_tokens = self.size
        self._taken = True
        return self._batch


@cache
def _strlen() -> Any:
    library = ctypes.CDLL("msvcrt" if sys.platform == "win32" else None)
    return ctypes.cast(library.strlen, ctypes.c_void_p).value
