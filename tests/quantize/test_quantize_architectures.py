"""Names, shapes, permutations and rope scaling of the families."""

from __future__ import annotations

import hashlib
import json
import math
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType

from localai.errors import CheckpointError, UnsupportedModel
from quantize import floats, from_checkpoint
from quantize.architectures import family_and_config
from quantize.architectures.base import Rope, read_config
from quantize.architectures.llama import llama3_factors
from quantize.checkpoint import open_checkpoint
from quantize.source import Tensor
from tests.quantize.making import make_checkpoint

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "vocab_size": 512,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 1024,
}
LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}


YARN = {"factor": 4.0, "original_max_position_embeddings": 8192}


def test_interleaving_pairs_each_row_with_the_one_half_a_head_on() -> None:
    rows = np.arange(3 * 8 * 2).reshape(24, 2)
    expected = []
    for head in range(3):
        for i in range(4):
            expected += [rows[head * 8 + i], rows[head * 8 + i + 4]]
    assert floats.interleave_heads(rows, 8).tolist() == np.array(expected).tolist()
    assert floats.interleave_heads(rows[:, 0], 8).tolist() == np.array(expected)[:, 0].tolist()


def test_interleaving_makes_llama_cpp_rotate_as_the_checkpoint_does() -> None:
    """Interleaved heads rotated by neighbours give the scores of the originals rotated by halves."""
    random = np.random.default_rng(3)
    query, key = random.standard_normal((2, 8))
    angles = random.standard_normal(4)

    def by_halves(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
        a, b = x[:4], x[4:]
        return np.concatenate([a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)])

    def by_neighbours(x: np.ndarray, angle: np.ndarray) -> np.ndarray:
        a, b = x[0::2], x[1::2]
        return np.stack(
            [a * np.cos(angle) - b * np.sin(angle), a * np.sin(angle) + b * np.cos(angle)], 1
        ).ravel()

    score = by_halves(query, 5 * angles) @ by_halves(key, 2 * angles)
    swapped = [floats.interleave_heads(x, 8) for x in (query, key)]
    assert math.isclose(by_neighbours(swapped[0], 5 * angles) @ by_neighbours(swapped[1], 2 * angles), score)


def test_llama3_factors_against_double_precision() -> None:
    rope = Rope(kind="llama3", theta=500000.0, **LLAMA3)
    expected = []
    for i in range(64):
        wavelength = 2 * math.pi * 500000.0 ** (2 * i / 128)
        if wavelength < 8192 / 4:
            expected.append(1.0)
        elif wavelength > 8192:
            expected.append(8.0)
        else:
            smooth = (8192 / wavelength - 1) / 3
            expected.append(1 / ((1 - smooth) / 8 + smooth))
    found = llama3_factors(rope, 128)
    assert found.dtype == np.float32
    assert np.allclose(found, expected, rtol=1e-5)
    assert found[0] == 1
    assert found[-1] == 8


def test_llama3_factors_of_r1_distill_llama_are_those_of_llama_cpps_converter() -> None:
    """The digest of rope_freqs.weight as convert_hf_to_gguf.py of llama-cpp-python 0.3.36 wrote it."""
    found = llama3_factors(Rope(kind="llama3", theta=500000.0, **LLAMA3), 128)
    digest = "8b516af9cb5db26ed32831eb6f493dd620843d1cd69ca7bbad760c76061cd565"
    assert hashlib.sha256(found.tobytes()).hexdigest() == digest


@pytest.mark.parametrize(
    "rope",
    [
        {"rope_theta": 5e5, "rope_scaling": {"type": "llama3", **LLAMA3}},
        {"rope_theta": 5e5, "rope_scaling": {"rope_type": "llama3", **LLAMA3}},
        {"rope_parameters": {"rope_theta": 5e5, "rope_type": "llama3", **LLAMA3}},
    ],
)
def test_both_forms_of_the_rope_parameters_are_read(rope: dict) -> None:
    assert read_config({**CONFIG, **rope}).rope == Rope(kind="llama3", theta=5e5, **LLAMA3)


def test_no_rope_scaling_in_either_form() -> None:
    assert read_config({**CONFIG, "rope_theta": 1e6, "rope_scaling": None}).rope == Rope(theta=1e6)
    assert (
        read_config({**CONFIG, "rope_parameters": {"rope_type": "default", "rope_theta": 1e4}}).rope == Rope()
    )


BAD_CONFIGS = {
    "no architecture": ({"architectures": None}, UnsupportedModel, "does not name"),
    "another architecture": ({"architectures": ["MambaForCausalLM"]}, UnsupportedModel, "MambaForCausalLM"),
    "longrope": ({"rope_scaling": {"type": "longrope"}}, UnsupportedModel, "longrope"),
    "linear without factor": ({"rope_scaling": {"type": "linear"}}, CheckpointError, "without its factor"),
    "qwen2 with heads of another width": (
        {"architectures": ["Qwen2ForCausalLM"], "num_key_value_heads": 4, "head_dim": 32},
        UnsupportedModel,
        "4 heads of 32",
    ),
    "qwen3 with biases": (
        {"architectures": ["Qwen3ForCausalLM"], "num_key_value_heads": 4, "attention_bias": True},
        UnsupportedModel,
        "biases",
    ),
    "heads that rotate in part": ({"partial_rotary_factor": 0.5}, UnsupportedModel, "rotates 50%"),
    "rope by the kind of layer": (
        {"rope_parameters": {"full_attention": {"rope_type": "default"}}},
        UnsupportedModel,
        "for different layers",
    ),
    "another activation": ({"hidden_act": "gelu"}, UnsupportedModel, "'gelu'"),
    "llama3 upside down": (
        {"rope_scaling": {"type": "llama3", **LLAMA3, "low_freq_factor": 4.0}},
        CheckpointError,
        "low_freq_factor",
    ),
    "rope is a text": ({"rope_scaling": "yarn"}, CheckpointError, "not an object"),
    "no hidden size": ({"hidden_size": None}, CheckpointError, "hidden_size"),
    "no layers": ({"num_hidden_layers": 0}, CheckpointError, "num_hidden_layers"),
    "a million layers": ({"num_hidden_layers": 10**6}, CheckpointError, "num_hidden_layers"),
    "heads that do not divide": ({"num_attention_heads": 5}, CheckpointError, "do not divide"),
    "key heads that do not divide": ({"num_key_value_heads": 3}, CheckpointError, "cannot be"),
    "an odd head": ({"head_dim": 15}, CheckpointError, "cannot be"),
    "a negative theta": ({"rope_theta": -1.0}, CheckpointError, "-1.0 for rope_theta"),
    "a theta of 0": ({"rope_theta": 0}, CheckpointError, "0.0 for rope_theta"),
    "a theta of NaN": ({"rope_theta": math.nan}, CheckpointError, "nan for rope_theta"),
    "an endless theta": ({"rope_theta": math.inf}, CheckpointError, "inf for rope_theta"),
    "an epsilon of NaN": ({"rms_norm_eps": math.nan}, CheckpointError, "nan for rms_norm_eps"),
    "a negative epsilon": ({"rms_norm_eps": -1}, CheckpointError, "-1.0 for rms_norm_eps"),
    "an endless epsilon": ({"rms_norm_eps": math.inf}, CheckpointError, "inf for rms_norm_eps"),
    "an epsilon of 0": ({"rms_norm_eps": 0}, CheckpointError, "0.0 for rms_norm_eps"),
    "a huge epsilon": ({"rms_norm_eps": 1e300}, CheckpointError, "1e+300 for rms_norm_eps"),
    "an epsilon that is 0 to llama.cpp": ({"rms_norm_eps": 1e-50}, CheckpointError, "1e-50 for rms_norm_eps"),
    "an epsilon of 400 digits": ({"rms_norm_eps": 10**400}, CheckpointError, "out of range"),
    "a scaling of NaN": (
        {"rope_scaling": {"type": "linear", "factor": math.nan}},
        CheckpointError,
        "nan for the rope scaling's factor",
    ),
    "an endless scaling": (
        {"rope_scaling": {"type": "llama3", **LLAMA3, "factor": math.inf}},
        CheckpointError,
        "inf",
    ),
    "an endless high_freq_factor": (
        {"rope_scaling": {"type": "llama3", **LLAMA3, "high_freq_factor": math.inf}},
        CheckpointError,
        "inf for high_freq_factor",
    ),
    **{
        f"yarn with {name} of {value}": (
            {"rope_scaling": {"type": "yarn", **YARN, name: value}},
            CheckpointError,
            f"{value} for {name}",
        )
        for name in ("extrapolation_factor", "attention_factor", "beta_fast", "beta_slow")
        for value in (math.nan, -2.0, 1e30)
    },
}


@pytest.mark.parametrize("case", BAD_CONFIGS)
def test_bad_configs(case: str) -> None:
    change, kind, message = BAD_CONFIGS[case]
    with pytest.raises(kind) as caught:
        family_and_config({**CONFIG, **change})
    assert message in str(caught.value)
    assert caught.value.hint


@pytest.mark.parametrize("epsilon", [1e-12, 1e-6, 1e-5, 0.1])
def test_an_epsilon_that_can_be_is_taken(epsilon: float) -> None:
    assert read_config({**CONFIG, "rms_norm_eps": epsilon}).rms_norm_eps == epsilon


def test_an_unknown_architecture_lists_the_known() -> None:
    with pytest.raises(UnsupportedModel) as caught:
        family_and_config({**CONFIG, "architectures": ["GPT2LMHeadModel"]})
    assert "LlamaForCausalLM" in caught.value.hint
    assert "Qwen2ForCausalLM" in caught.value.hint
    assert "Qwen3ForCausalLM" in caught.value.hint


def test_what_qwen3_leaves_out_is_what_transformers_takes_for_it() -> None:
    raw = {**CONFIG, "architectures": ["Qwen3ForCausalLM"], "num_attention_heads": 32}
    del raw["max_position_embeddings"]
    _, config = family_and_config(raw)
    assert (config.head_size, config.kv_heads, config.max_position_embeddings) == (128, 32, 32768)
    _, config = family_and_config({**raw, "num_key_value_heads": None, "head_dim": 16})
    assert (config.head_size, config.kv_heads) == (16, 32)


@pytest.mark.parametrize("kind", ["llama3", "yarn"])
def test_scaled_rope_without_its_first_context_takes_the_models(kind: str) -> None:
    scaling = {"rope_type": kind, "factor": 4.0}
    assert read_config({**CONFIG, "rope_scaling": scaling}).rope.original_max_position_embeddings == 1024
    named = read_config({**CONFIG, "rope_scaling": scaling, "original_max_position_embeddings": 256})
    assert named.rope.original_max_position_embeddings == 256


def planned(folder: Path, **changes) -> dict[str, Tensor]:
    make_checkpoint(folder, **changes)
    return planned_of(folder)


def planned_of(folder: Path) -> dict[str, Tensor]:
    checkpoint = open_checkpoint(folder)
    family, config = family_and_config(checkpoint.config)
    matrix = GGMLQuantizationType.BF16
    return {t.name: t for t in from_checkpoint.plan_tensors(checkpoint, family, config, matrix)}


def test_llama_names(tmp_path: Path) -> None:
    found = planned(tmp_path / "m", rope_scaling={"rope_type": "llama3", **LLAMA3}, num_hidden_layers=1)
    layer = ["attn_norm", "attn_q", "attn_k", "attn_v", "attn_output"]
    layer += ["ffn_norm", "ffn_gate", "ffn_up", "ffn_down"]
    assert set(found) == {
        *("rope_freqs.weight", "token_embd.weight", "output_norm.weight", "output.weight"),
        *(f"blk.0.{name}.weight" for name in layer),
    }
    heads = {name: tensor.head_rows for name, tensor in found.items() if tensor.head_rows}
    assert heads == {"blk.0.attn_q.weight": 16, "blk.0.attn_k.weight": 16}
    assert found["rope_freqs.weight"].shape == (8,)


def test_qwen2_has_biases_and_no_permutation(tmp_path: Path) -> None:
    found = planned(tmp_path / "m", architectures=["Qwen2ForCausalLM"])
    assert found["blk.1.attn_q.bias"].shape == (64,)
    assert found["blk.1.attn_k.bias"].shape == (32,)
    assert not any(tensor.head_rows for tensor in found.values())


def test_qwen3_has_norms_of_heads(tmp_path: Path) -> None:
    found = planned(tmp_path / "m", architectures=["Qwen3ForCausalLM"], head_dim=32)
    assert found["blk.1.attn_q_norm.weight"].shape == (32,)
    assert found["blk.1.attn_k_norm.weight"].shape == (32,)
    assert found["blk.1.attn_q.weight"].shape == (128, 64)
    assert found["blk.1.attn_output.weight"].shape == (64, 128)
    assert not any(tensor.head_rows or tensor.name.endswith(".bias") for tensor in found.values())


def test_llama_with_biases_permutes_them(tmp_path: Path) -> None:
    found = planned(tmp_path / "m", attention_bias=True)
    assert found["blk.0.attn_q.bias"].head_rows == 16
    assert found["blk.0.attn_v.bias"].head_rows == 0


def test_tied_embeddings_have_no_output(tmp_path: Path) -> None:
    assert "output.weight" not in planned(tmp_path / "m", tie_word_embeddings=True)


@pytest.mark.parametrize("family", ["LlamaForCausalLM", "Qwen2ForCausalLM", "Qwen3ForCausalLM"])
def test_a_tied_embedding_that_is_stored_twice_is_written_twice(tmp_path: Path, family: str) -> None:
    make_checkpoint(tmp_path / "m", architectures=[family], head_dim=16)
    config = json.loads((tmp_path / "m" / "config.json").read_text())
    (tmp_path / "m" / "config.json").write_text(json.dumps({**config, "tie_word_embeddings": True}))
    assert "output.weight" in planned_of(tmp_path / "m")


def test_a_stated_head_size_is_taken(tmp_path: Path) -> None:
    assert planned(tmp_path / "m", head_dim=32)["blk.0.attn_q.weight"].shape == (128, 64)


@pytest.mark.parametrize(
    ("made", "said", "message"),
    [
        ({}, {"num_hidden_layers": 3}, "lacks the tensor 'model.layers.2."),
        ({}, {"num_hidden_layers": 1}, "holds the tensor 'model.layers.1."),
        ({}, {"vocab_size": 500}, "has the shape [512, 64], but config.json asks for [500, 64]"),
        ({}, {"intermediate_size": 100}, "has the shape"),
        ({}, {"architectures": ["Qwen2ForCausalLM"]}, "q_proj.bias"),
        (
            {"architectures": ["Qwen2ForCausalLM"], "tie_word_embeddings": True},
            {"tie_word_embeddings": False},
            "lm_head",
        ),
    ],
)
def test_weights_that_do_not_fit_config(tmp_path: Path, made: dict, said: dict, message: str) -> None:
    make_checkpoint(tmp_path / "weights", **made)
    make_checkpoint(tmp_path / "config", **{**made, **said})
    (tmp_path / "config" / "model.safetensors").write_bytes(
        (tmp_path / "weights" / "model.safetensors").read_bytes()
    )
    with pytest.raises(CheckpointError) as caught:
        planned_of(tmp_path / "config")
    assert message in str(caught.value)


def test_other_dtypes_are_refused_by_name(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", dtype="F8_E4M3")
    with pytest.raises(UnsupportedModel, match="F8_E4M3") as caught:
        planned_of(tmp_path / "m")
    assert "BF16" in caught.value.hint
