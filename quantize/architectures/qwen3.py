"""Qwen3: a norm on each head of queries and keys, and no biases. DeepSeek-R1-0528-Qwen3-8B is of it."""

from __future__ import annotations

from collections.abc import Iterator

from localai.errors import UnsupportedModel
from quantize.architectures.base import Config, Expected, Family


class Qwen3(Family):
    """Qwen3ForCausalLM."""

    architecture = "qwen3"
    defaults = Family.defaults | {
        "max_position_embeddings": 32768,
        "num_key_value_heads": 32,
        "head_dim": 128,
    }

    def check(self, config: Config) -> None:
        super().check(config)
        if config.attention_bias:
            raise UnsupportedModel(
                "config.json asks for biases on the attention, which llama.cpp's qwen3 does not have",
                "Published Qwen3 models have none: convert one with attention_bias false",
            )

    def layer(self, config: Config) -> Iterator[Expected]:
        yield from super().layer(config)
        yield Expected("self_attn.q_norm.weight", "attn_q_norm.weight", (config.head_size,))
        yield Expected("self_attn.k_norm.weight", "attn_k_norm.weight", (config.head_size,))
