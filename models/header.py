"""What the header of a GGUF file says about a model: plain data with the questions one asks of it.

A `Header` is well-formed, but its values are still the claims of an untrusted file: `models.supported`
says whether they make sense.
"""

from __future__ import annotations

from collections import Counter
from typing import TypeAlias

import msgspec

from localai.characters import LINE, thinned
from models.ggml_types import FILE_TYPES, GUESSED

_SHOWN = 200


class ArrayInfo(msgspec.Struct, frozen=True):
    """An array that was passed over: the name of its element type and its length."""

    element_type: str
    length: int


Scalar: TypeAlias = bool | int | float | str
Value: TypeAlias = Scalar | ArrayInfo | tuple[Scalar, ...]


class TensorInfo(msgspec.Struct, frozen=True):
    """One tensor. `shape` is in ggml's order, the fastest dimension first; `offset` counts from the data."""

    name: str
    shape: tuple[int, ...]
    type: int
    type_name: str
    offset: int
    size: int

    @property
    def elements(self) -> int:
        """How many numbers the tensor holds."""
        product = 1
        for length in self.shape:
            product *= length
        return product


class TokenFacts(msgspec.Struct, frozen=True):
    """What a vocabulary is found to be."""

    twice: str = ""
    """A token that is there twice, as one line; empty if there is none."""
    all_bytes: bool = False
    """Whether there is a token for each byte, as a SentencePiece vocabulary needs it."""
    r1_markers: bool = False
    """Whether R1's markers of user and assistant are tokens."""


class Header(msgspec.Struct, frozen=True, kw_only=True):
    """The header of one GGUF file. Sizes and offsets are bytes."""

    version: int
    metadata: dict[str, Value]
    tensors: list[TensorInfo]
    alignment: int
    data_offset: int
    file_size: int
    token_facts: TokenFacts = TokenFacts()

    def integer(self, key: str, default: int = 0) -> int:
        """The metadata value at `key` if it is a whole number, else `default`."""
        value = self.metadata.get(key)
        return value if isinstance(value, int) and not isinstance(value, bool) else default

    def text(self, key: str) -> str:
        """The metadata value at `key` as one line that is safe to print; empty if it is not a string."""
        value = self.metadata.get(key)
        return printable(value) if isinstance(value, str) else ""

    def own(self, key: str, default: int = 0) -> int:
        """The whole number at `<architecture>.<key>`."""
        return self.integer(f"{self.architecture}.{key}", default)

    @property
    def architecture(self) -> str:
        """Such as "qwen2"; empty if the file does not say."""
        return self.text("general.architecture")

    @property
    def name(self) -> str:
        """What the file calls the model; may be empty."""
        return self.text("general.name")

    @property
    def license(self) -> str:
        """As the file states it, often an SPDX name in lower case; may be empty."""
        return self.text("general.license")

    @property
    def chat_template(self) -> str | None:
        """The template that the file carries, raw and untrusted: never run it."""
        value = self.metadata.get("tokenizer.chat_template")
        return value if isinstance(value, str) else None

    @property
    def reasons(self) -> bool:
        """Whether the file's own chat template knows think tags."""
        return "</think>" in (self.chat_template or "")

    @property
    def file_type(self) -> str:
        """Such as "Q4_K_M"; where the file does not say, the type that most of its bytes have."""
        number = self.integer("general.file_type", -1)
        if number >= 0 and (number & ~GUESSED) in FILE_TYPES:
            return FILE_TYPES[number & ~GUESSED]
        weights: Counter[str] = Counter()
        for tensor in self.tensors:
            weights[tensor.type_name] += tensor.size
        return weights.most_common(1)[0][0] if weights else "unknown"

    @property
    def parameters(self) -> int:
        """Numbers in all tensors of this file."""
        return sum(tensor.elements for tensor in self.tensors)

    @property
    def tensor_bytes(self) -> int:
        """Bytes of all tensors of this file, without padding."""
        return sum(tensor.size for tensor in self.tensors)

    @property
    def context_trained(self) -> int:
        """Tokens of context that the model was trained for; 0 if the file does not say."""
        return self.own("context_length")

    @property
    def block_count(self) -> int:
        """Layers; 0 if the file does not say."""
        return self.own("block_count")

    @property
    def embedding_length(self) -> int:
        """Width of the model; 0 if the file does not say."""
        return self.own("embedding_length")

    @property
    def head_count(self) -> int:
        """Attention heads, of the widest layer where layers differ; 0 if the file does not say."""
        return self._heads("attention.head_count")

    @property
    def head_count_kv(self) -> int:
        """Heads that keep keys and values, of the widest layer; `head_count` if the file does not say."""
        return self._heads("attention.head_count_kv") or self.head_count

    @property
    def vocabulary(self) -> int:
        """Tokens in the vocabulary; 0 without one."""
        tokens = self.metadata.get("tokenizer.ggml.tokens")
        if isinstance(tokens, ArrayInfo):
            return tokens.length
        return len(tokens) if isinstance(tokens, tuple) else 0

    @property
    def split_count(self) -> int:
        """Files that the model is split over; 1 for a whole one."""
        return max(1, self.integer("split.count", 1))

    @property
    def kv_bytes_per_token(self) -> int:
        """Bytes of KV cache (f16) for a token: layers * KV heads * (key + value length) * 2; 0 if unknown."""
        default = self.embedding_length // self.head_count if self.head_count else 0
        lengths = self.own("attention.key_length", default) + self.own("attention.value_length", default)
        return self.block_count * self.head_count_kv * lengths * 2

    def _heads(self, key: str) -> int:
        value = self.metadata.get(f"{self.architecture}.{key}")
        if isinstance(value, tuple):
            return max((item for item in value if isinstance(item, int)), default=0)
        return self.own(key)


def is_seen(char: str) -> bool:
    """Whether a character can be shown, and is then seen. Some letters are not, such as Hangul's fillers."""
    return char.isprintable() and ord(char) not in LINE


def printable(text: str, limit: int = _SHOWN) -> str:
    """`text` from an untrusted file as one line of what can be seen, at most `limit` characters long."""
    line = "".join(char if is_seen(char) else " " for char in text[: 4 * limit])
    line = thinned(" ".join(line.split()))
    return line if len(line) <= limit else line[: limit - 1] + "…"
