"""Models of llama.cpp and their vocabularies, and the devices that compute.

Handles are context managers, C return codes become exceptions of `localai.errors`, and nothing that
llama.cpp logs reaches the screen. Beside this file, `bindings`, `context`, `sampler` and `quants` call it.

Source of every call: llama.h and ggml-backend.h of the llama.cpp tree inside llama-cpp-python.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

from localai.engine import protocol
from localai.engine.bindings import because, bindings, commit, ggml, log_tail
from localai.errors import EngineError, LoadError

_ATTRIBUTE_CONTROL = 1 << 3
_ATTRIBUTE_USER_DEFINED = 1 << 4
_LOAD_MODES = {(False, False): 0, (True, False): 1, (False, True): 2, (True, True): 3}
"""enum llama_load_mode, by (mmap, mlock)."""
_TOO_MANY = -(2**31)
"""What llama_tokenize says of more tokens than it can count."""
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


class Handle:
    """Owns something of llama.cpp's: freed at the end of a `with` block, or by `close`."""

    def __init__(self, handle: Any, free: Callable[[Any], None]) -> None:
        self.handle = handle
        self._free = free

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Free it; what was made from it must be closed before."""
        handle, self.handle = self.handle, None
        if handle:
            self._free(handle)


class Model(Handle):
    """A model in memory, and its vocabulary.

    `on_progress` gets shares from 0 to 1 and stops the loading by returning False. `as_stored`: weights lie
    in memory as they do in the file; else llama.cpp may put them in another order, with which it is quicker.
    Raises LoadError.
    """

    def __init__(
        self,
        path: Path,
        gpu_layers: int,
        on_progress: Callable[[float], bool],
        *,
        mmap: bool = True,
        mlock: bool = False,
        as_stored: bool = False,
    ) -> None:
        self._api = bindings()
        parameters = self._api.llama_model_default_params()
        parameters.use_extra_bufts = not as_stored
        parameters.n_gpu_layers = gpu_layers
        parameters.load_mode = _LOAD_MODES[mmap, mlock]
        # Must outlive the call: ctypes does not keep a callback alive.
        callback = self._api.llama_progress_callback(lambda share, _data: on_progress(share))
        parameters.progress_callback = callback
        log_tail.clear()
        super().__init__(
            self._api.llama_model_load_from_file(os.fsencode(path), parameters), self._api.llama_model_free
        )
        if not self.handle:
            raise LoadError(
                f"llama.cpp could not load {path}{because()}",
                "Fetch or make the file again: it does not hold the model that it describes",
            )
        self._vocab = self._api.llama_model_get_vocab(self.handle)
        self._piece = ctypes.create_string_buffer(256)
        self._attributes: dict[int, int] = {}
        self._ends: dict[int, bool] = {}
        self._longest_piece = 0

    @property
    def description(self) -> str:
        """llama.cpp's words for it, such as "qwen2 1.5B Q4_K - Medium"."""
        buffer = ctypes.create_string_buffer(256)
        self._api.llama_model_desc(self.handle, buffer, len(buffer))
        return buffer.value.decode("utf-8", "replace")

    @property
    def size(self) -> int:
        """Bytes of all tensors."""
        return int(self._api.llama_model_size(self.handle))

    @property
    def layers(self) -> int:
        """Number of layers, that of the output included."""
        return int(self._api.llama_model_n_layer(self.handle)) + 1

    @property
    def vocabulary(self) -> int:
        """Number of tokens."""
        return int(self._api.llama_vocab_n_tokens(self._vocab))

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

    def user_defined(self) -> list[int]:
        """The tokens that llama.cpp looks for in every text, markers such as <think> among them."""
        api, vocab = self._api, self._vocab
        return [
            token
            for token in range(self.vocabulary)
            if api.llama_vocab_get_attr(vocab, token) & _ATTRIBUTE_USER_DEFINED
        ]

    def is_end(self, token: int) -> bool:
        """Whether `token` ends a reply: end of generation, or control, such as the next user's marker."""
        found = self._ends.get(token)
        if found is None:
            control = self.attributes(token) & _ATTRIBUTE_CONTROL
            found = self._ends[token] = bool(self._api.llama_vocab_is_eog(self._vocab, token) or control)
        return found

    def tokenize(self, text: str, *, special: bool) -> list[int]:
        """The tokens of `text`; with `special`, markers such as <think> become their single tokens."""
        data = text.encode("utf-8", "replace")
        tokens = (self._api.llama_token * (len(data) + 8))()
        count = self._api.llama_tokenize(self._vocab, data, len(data), tokens, len(tokens), False, special)
        if _TOO_MANY < count < 0:  # SentencePiece may make three tokens of a space
            tokens = (self._api.llama_token * -count)()
            count = self._api.llama_tokenize(self._vocab, data, len(data), tokens, -count, False, special)
        if count < 0:
            raise EngineError(f"llama.cpp could not tokenize a text of {len(data)} bytes")
        return list(tokens[:count])

    def tokenize_document(self, text: str, *, special: bool = False) -> list[int]:
        """The tokens of a whole text: as `tokenize`, after the token that begins one if there is one."""
        begin = [int(self._api.llama_vocab_bos(self._vocab))] if self.adds_bos else []
        return begin + self.tokenize(text, special=special)

    @property
    def longest_piece(self) -> int:
        """Bytes of the longest token: no text has fewer tokens than its bytes divided by this.

        Found when it is first asked for, which takes a fraction of a second.
        """
        if not self._longest_piece:
            self._longest_piece = max(1, *(len(self.piece(token)) for token in range(self.vocabulary)))
        return self._longest_piece

    def piece(self, token: int) -> bytes:
        """The bytes of `token`: not always whole characters."""
        count = self._api.llama_token_to_piece(
            self._vocab, token, self._piece, len(self._piece), 0, bool(self.attributes(token))
        )
        if count < 0:
            self._piece = ctypes.create_string_buffer(-count)
            return self.piece(token)
        return self._piece.raw[:count]
