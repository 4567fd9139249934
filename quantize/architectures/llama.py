"""Llama: queries and keys permuted for llama.cpp's rotary embedding, and llama3's rope scaling.

DeepSeek-R1-Distill-Llama 8B and 70B are of it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
from gguf import GGUFWriter, LlamaFileType
from numpy.typing import NDArray

from localai.errors import CheckpointError
from quantize.architectures.base import CORRECT, Config, Expected, Family, Rope
from quantize.tokenizer import Vocabulary


class Llama(Family):
    """LlamaForCausalLM."""

    architecture = "llama"
    rope_kinds = Family.rope_kinds | {"llama3"}
    defaults = Family.defaults | {"max_position_embeddings": 2048}

    def check(self, config: Config) -> None:
        super().check(config)
        if config.rope.kind == "llama3" and config.rope.low_freq_factor >= config.rope.high_freq_factor:
            raise CheckpointError(
                "config.json has llama3 rope scaling with low_freq_factor >= high_freq_factor", CORRECT
            )

    def layer(self, config: Config) -> Iterator[Expected]:
        for tensor in super().layer(config):
            projection = tensor.source.split(".")[-2]
            head_rows = config.head_size if projection in {"q_proj", "k_proj"} else 0
            yield replace(tensor, head_rows=head_rows)
            if projection.endswith("_proj"):
                yield Expected(
                    tensor.source.replace(".weight", ".bias"),
                    tensor.name.replace(".weight", ".bias"),
                    tensor.shape[:1],
                    head_rows,
                    optional=True,
                )

    def generated(self, config: Config) -> Iterator[tuple[str, NDArray[np.float32]]]:
        if config.rope.kind == "llama3":
            yield "rope_freqs.weight", llama3_factors(config.rope, config.head_size)

    def stated_head_size(self, config: Config) -> int:
        return config.head_size

    def add_metadata(self, writer: GGUFWriter, config: Config, file_type: LlamaFileType) -> None:
        super().add_metadata(writer, config, file_type)
        writer.add_vocab_size(config.vocab_size)
        writer.add_rope_dimension_count(config.head_size)

    def add_vocabulary(
        self, writer: GGUFWriter, vocabulary: Vocabulary, config: Config, tokenizer_config: dict[str, Any]
    ) -> None:
        if isinstance(prefix := tokenizer_config.get("add_prefix_space"), bool):
            writer.add_add_space_prefix(prefix)
        no_bos = config.vocab_size == _NO_BOS_VOCABULARY
        if no_bos and "bos" in vocabulary.special.add:
            vocabulary.special.add["bos"] = False
        super().add_vocabulary(writer, vocabulary, config, tokenizer_config)
        if no_bos and "bos" not in vocabulary.special.add:
            writer.add_add_bos_token(False)


_NO_BOS_VOCABULARY = 49152
"""Models with this vocabulary (Granite, SmolLM) want no bos, whatever their files say; so does llama.cpp."""


def llama3_factors(rope: Rope, head_size: int) -> NDArray[np.float32]:
    """By how much llama3's scaling slows each of the `head_size / 2` rotations.

    Fast rotations stay, slow ones are divided by `factor`, and between them it goes smoothly
    (https://arxiv.org/abs/2407.21783, and transformers' modeling_rope_utils). In single precision, each step
    rounded as torch rounds it, because llama.cpp's converter computes it with torch.
    """
    one, low, high = np.float32(1), rope.low_freq_factor, rope.high_freq_factor
    context = float(rope.original_max_position_embeddings or 8192)
    factor = np.float32(8.0 if rope.factor is None else rope.factor)
    powers = np.arange(0, head_size, 2, dtype=np.float32) / np.float32(head_size)
    # The power in double precision: rounded, it is the same on every processor.
    frequency = one / np.power(np.float64(rope.theta), powers.astype(np.float64)).astype(np.float32)
    wavelength = (one / frequency) * np.float32(2 * math.pi)
    smooth = ((one / wavelength) * np.float32(context) - np.float32(low)) / np.float32(high - low)
    between = one / ((one - smooth) / factor + smooth)
    slow, fast = wavelength > np.float32(context / low), wavelength < np.float32(context / high)
    return np.where(fast, one, np.where(slow, factor, between)).astype(np.float32)
