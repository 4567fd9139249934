"""What the families of decoder-only models share: hyper-parameters, expected tensors, and their metadata."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import msgspec
import numpy as np
from gguf import GGUFWriter, LlamaFileType, RopeScalingType
from numpy.typing import NDArray

from localai.errors import CheckpointError, UnsupportedModel
from models import supported
from quantize.tokenizer import Vocabulary

Count = Annotated[int, msgspec.Meta(gt=0, lt=2**31)]
Layers = Annotated[int, msgspec.Meta(gt=0, le=4096)]

CORRECT = "Fetch config.json again, or correct it"


class Rope(msgspec.Struct, frozen=True, kw_only=True):
    """Rotary position embedding, from whichever form config.json has. None: not stated there."""

    kind: str = "default"
    theta: float = 10000.0
    factor: float | None = None
    original_max_position_embeddings: Count | None = None
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    extrapolation_factor: float | None = None
    attention_factor: float | None = None
    beta_fast: float | None = None
    beta_slow: float | None = None
    partial_rotary_factor: float | None = None


class Config(msgspec.Struct, frozen=True, kw_only=True):
    """The part of config.json that matters here, by its own names."""

    vocab_size: Count
    hidden_size: Count
    intermediate_size: Count
    num_hidden_layers: Layers
    num_attention_heads: Count
    num_key_value_heads: Count | None = None
    head_dim: Count | None = None
    max_position_embeddings: Count
    rms_norm_eps: float = 1e-6
    tie_word_embeddings: bool = False
    attention_bias: bool = False
    hidden_act: str = "silu"
    rope: Rope = Rope()

    @property
    def kv_heads(self) -> int:
        """Heads of keys and values."""
        return self.num_key_value_heads or self.num_attention_heads

    @property
    def head_size(self) -> int:
        """Rows of one head."""
        return self.head_dim or self.hidden_size // self.num_attention_heads


def read_config(raw: dict[str, Any]) -> Config:
    """`raw` checked, in the form of transformers 4 (rope_theta, rope_scaling) or 5 (rope_parameters)."""
    try:
        config = msgspec.convert({**raw, "rope": _rope(raw)}, Config)
    except msgspec.ValidationError as error:
        raise CheckpointError(
            f"config.json does not describe the model properly: {error}", CORRECT
        ) from error
    _check_floats(config)
    if config.head_dim is None and config.hidden_size % config.num_attention_heads:
        raise CheckpointError(
            f"config.json has {config.num_attention_heads} heads, which do not divide {config.hidden_size}",
            CORRECT,
        )
    if config.head_size % 2 or config.num_attention_heads % config.kv_heads:
        raise CheckpointError(
            f"config.json has heads that cannot be: {config.num_attention_heads} of size {config.head_size}, "
            f"{config.kv_heads} for keys and values",
            CORRECT,
        )
    return config


def _rope(raw: dict[str, Any]) -> dict[str, Any]:
    """The fields of `Rope` from either form; what is left out means what it means to transformers."""
    rope = raw.get("rope_parameters") or raw.get("rope_scaling") or {}
    if not isinstance(rope, dict):
        raise CheckpointError(
            f"config.json has the rope parameters {rope!r}, which are not an object", CORRECT
        )
    if any(isinstance(value, dict) for value in rope.values()):
        raise UnsupportedModel(
            "config.json has different rope parameters for different layers, which is not supported",
            "Supported are models that rotate alike in every layer",
        )
    found = {
        "theta": raw.get("rope_theta", 10000.0),
        "partial_rotary_factor": raw.get("partial_rotary_factor"),
        "attention_factor": rope.get("attn_factor"),
        **rope,
    }
    found["kind"] = str(rope.get("rope_type", rope.get("type", "default"))).lower()
    found["theta"] = rope.get("rope_theta", found["theta"])
    if found["kind"] in {"llama3", "yarn"} and found.get("original_max_position_embeddings") is None:
        found["original_max_position_embeddings"] = raw.get(
            "original_max_position_embeddings", raw.get("max_position_embeddings")
        )
    return found


def _check_floats(config: Config) -> None:
    """CheckpointError for a number with which llama.cpp would abort or answer garbage."""
    rope = config.rope
    for name, value, bounds in (
        ("rms_norm_eps", config.rms_norm_eps, supported.EPSILON),
        ("rope_theta", rope.theta, supported.ROPE_BASE),
        ("the rope scaling's factor", rope.factor, supported.ROPE_FACTOR),
        ("low_freq_factor", rope.low_freq_factor, supported.ROPE_FACTOR),
        ("high_freq_factor", rope.high_freq_factor, supported.ROPE_FACTOR),
        ("extrapolation_factor", rope.extrapolation_factor, supported.ROPE_EXTRAPOLATION),
        ("attention_factor", rope.attention_factor, supported.ROPE_ATTENTION),
        ("beta_fast", rope.beta_fast, supported.ROPE_FACTOR),
        ("beta_slow", rope.beta_slow, supported.ROPE_FACTOR),
    ):
        if value is not None and not supported.within(value, bounds):
            low, high = bounds
            raise CheckpointError(
                f"config.json has {value} for {name}; {low:g} to {high:g} is possible", CORRECT
            )


@dataclass(frozen=True, slots=True)
class Expected:
    """A tensor that a checkpoint of the family has: its name there, its name in GGUF, its shape.

    `head_rows`: if not 0, each such block of rows is one head, and its halves are interleaved in GGUF.
    """

    source: str
    name: str
    shape: tuple[int, ...]
    head_rows: int = 0
    optional: bool = False


class Family:
    """One family of models. Subclasses say how it differs from the common decoder."""

    architecture: ClassVar[str]
    """Its name in `general.architecture`."""
    rope_kinds: ClassVar[frozenset[str]] = frozenset({"default", "linear", "yarn"})
    defaults: ClassVar[dict[str, int]] = {}
    """What config.json means where it leaves out a number: transformers' defaults for the family."""

    def check(self, config: Config) -> None:
        """UnsupportedModel if this family has no such model."""
        rope = config.rope
        if rope.kind not in self.rope_kinds:
            raise UnsupportedModel(
                f"config.json asks for the rope scaling {rope.kind!r}, which is not supported for "
                f"{self.architecture}",
                f"Supported: {', '.join(sorted(self.rope_kinds))}",
            )
        if rope.kind in {"linear", "yarn"} and rope.factor is None:
            raise CheckpointError(
                f"config.json has the rope scaling {rope.kind!r} without its factor", CORRECT
            )
        if rope.partial_rotary_factor not in {None, 1.0}:
            raise UnsupportedModel(
                f"config.json rotates {rope.partial_rotary_factor:.0%} of each head, which is not supported",
                "Supported are models that rotate whole heads",
            )
        if config.hidden_act not in {"silu", "swish"}:
            raise UnsupportedModel(
                f"config.json asks for the activation {config.hidden_act!r}, which is not supported",
                f"llama.cpp's {self.architecture} has silu",
            )

    def tensors(self, config: Config) -> Iterator[Expected]:
        """Every tensor that the checkpoint must have, or may have (`optional`)."""
        wide, vocab = config.hidden_size, config.vocab_size
        yield Expected("model.embed_tokens.weight", "token_embd.weight", (vocab, wide))
        yield Expected("model.norm.weight", "output_norm.weight", (wide,))
        # Some checkpoints hold a tied embedding twice; llama.cpp's converter then writes it twice.
        tied = config.tie_word_embeddings
        yield Expected("lm_head.weight", "output.weight", (vocab, wide), optional=tied)
        for i in range(config.num_hidden_layers):
            for layer in self.layer(config):
                yield Expected(
                    f"model.layers.{i}.{layer.source}",
                    f"blk.{i}.{layer.name}",
                    layer.shape,
                    layer.head_rows,
                    layer.optional,
                )

    def layer(self, config: Config) -> Iterator[Expected]:
        """The tensors of one layer, named within it."""
        wide, middle, size = config.hidden_size, config.intermediate_size, config.head_size
        queries, keys = config.num_attention_heads * size, config.kv_heads * size
        yield Expected("input_layernorm.weight", "attn_norm.weight", (wide,))
        yield Expected("self_attn.q_proj.weight", "attn_q.weight", (queries, wide))
        yield Expected("self_attn.k_proj.weight", "attn_k.weight", (keys, wide))
        yield Expected("self_attn.v_proj.weight", "attn_v.weight", (keys, wide))
        yield Expected("self_attn.o_proj.weight", "attn_output.weight", (wide, queries))
        yield Expected("post_attention_layernorm.weight", "ffn_norm.weight", (wide,))
        yield Expected("mlp.gate_proj.weight", "ffn_gate.weight", (middle, wide))
        yield Expected("mlp.up_proj.weight", "ffn_up.weight", (middle, wide))
        yield Expected("mlp.down_proj.weight", "ffn_down.weight", (wide, middle))

    def generated(self, config: Config) -> Iterator[tuple[str, NDArray[np.float32]]]:
        """Tensors that GGUF has and the checkpoint has not."""
        yield from ()

    def add_metadata(self, writer: GGUFWriter, config: Config, file_type: LlamaFileType) -> None:
        """The hyper-parameters, in the order in which llama.cpp's converter writes them."""
        writer.add_block_count(config.num_hidden_layers)
        writer.add_context_length(config.max_position_embeddings)
        writer.add_embedding_length(config.hidden_size)
        writer.add_feed_forward_length(config.intermediate_size)
        writer.add_head_count(config.num_attention_heads)
        writer.add_head_count_kv(config.kv_heads)
        _add_rope_scaling(writer, config.rope)
        writer.add_rope_freq_base(config.rope.theta)
        writer.add_layer_norm_rms_eps(config.rms_norm_eps)
        if (head_dim := self.stated_head_size(config)) is not None:
            writer.add_key_length(head_dim)
            writer.add_value_length(head_dim)
        writer.add_file_type(file_type)

    def add_vocabulary(
        self, writer: GGUFWriter, vocabulary: Vocabulary, config: Config, tokenizer_config: dict[str, Any]
    ) -> None:
        """The tokenizer's metadata, in the order in which llama.cpp's converter writes it."""
        vocabulary.add_metadata(writer)

    def stated_head_size(self, config: Config) -> int | None:
        """The head size where it is written down, not left to follow from the embedding's length."""
        return config.head_dim


def _add_rope_scaling(writer: GGUFWriter, rope: Rope) -> None:
    if rope.kind not in {"linear", "yarn"}:
        return
    writer.add_rope_scaling_type(RopeScalingType(rope.kind))
    writer.add_rope_scaling_factor(rope.factor or 1.0)
    if rope.kind == "linear":
        return
    writer.add_rope_scaling_orig_ctx_len(rope.original_max_position_embeddings or 0)
    for value, add in (
        (rope.extrapolation_factor, writer.add_rope_scaling_yarn_ext_factor),
        (rope.attention_factor, writer.add_rope_scaling_yarn_attn_factor),
        (rope.beta_fast, writer.add_rope_scaling_yarn_beta_fast),
        (rope.beta_slow, writer.add_rope_scaling_yarn_beta_slow),
    ):
        if value is not None:
            add(value)
