"""Qwen2: biases on queries, keys and values. DeepSeek-R1-Distill-Qwen 1.5B, 7B, 14B and 32B are of it."""

from __future__ import annotations

from collections.abc import Iterator

from localai.errors import UnsupportedModel
from quantize.architectures.base import Config, Expected, Family


class Qwen2(Family):
    """Qwen2ForCausalLM."""

    architecture = "qwen2"
    defaults = Family.defaults | {"max_position_embeddings": 32768, "num_key_value_heads": 32}

    def check(self, config: Config) -> None:
        super().check(config)
        if config.head_size * config.num_attention_heads != config.hidden_size:
            raise UnsupportedModel(
                f"config.json has {config.num_attention_heads} heads of {config.head_size} for a width of "
                f"{config.hidden_size}, which llama.cpp's qwen2 cannot have",
                "Supported are heads that make up the width together",
            )

    def layer(self, config: Config) -> Iterator[Expected]:
        yield from super().layer(config)
        queries, keys = config.num_attention_heads * config.head_size, config.kv_heads * config.head_size
        yield Expected("self_attn.q_proj.bias", "attn_q.bias", (queries,))
        yield Expected("self_attn.k_proj.bias", "attn_k.bias", (keys,))
        yield Expected("self_attn.v_proj.bias", "attn_v.bias", (keys,))
