"""The worker's work in this process: what is in the files, and what the report says of them."""

from __future__ import annotations

import errno
import hashlib
import math
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from localai.errors import CheckpointError, NoSpace, QuantizeError
from models.gguf import check_supported, read_header
from quantize import client, one_pass, pipeline, weight_files
from quantize.from_checkpoint import open_source
from quantize.protocol import Forecast, Job, Progress
from tests.quantize.doing import convert, convert_all, fields
from tests.quantize.making import NANO, make_checkpoint, names_in, to_bf16


def interleaved(values: np.ndarray, heads: int) -> np.ndarray:
    """The permutation in other words: row i of a head goes to 2 i, row half + i to 2 i + 1."""
    size = len(values) // heads
    result = np.empty_like(values)
    for head in range(heads):
        rows = values[head * size : (head + 1) * size]
        result[head * size : (head + 1) * size : 2] = rows[: size // 2]
        result[head * size + 1 : (head + 1) * size : 2] = rows[size // 2 :]
    return result


def expected_tensors(values: dict[str, np.ndarray], heads: int, kv_heads: int) -> dict[str, np.ndarray]:
    names = {
        "model.embed_tokens": "token_embd",
        "model.norm": "output_norm",
        "lm_head": "output",
        "input_layernorm": "attn_norm",
        "post_attention_layernorm": "ffn_norm",
        **{f"self_attn.{x}_proj": f"attn_{x}" for x in "qkv"},
        "self_attn.o_proj": "attn_output",
        **{f"mlp.{x}_proj": f"ffn_{x}" for x in ("gate", "up", "down")},
    }
    found = {}
    for name, array in values.items():
        new = name.replace("model.layers.", "blk.")
        for ours, theirs in names.items():
            new = new.replace(f"{ours}.", f"{theirs}.")
        if heads and ".attn_q." in new:
            array = interleaved(array, heads)
        if heads and ".attn_k." in new:
            array = interleaved(array, kv_heads)
        found[new] = array
    return found


LLAMA3 = {
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 64,
}
MODELS: dict[str, dict] = {
    "llama": {},
    "llama, tied": {"tie_word_embeddings": True},
    "llama, sharded": {"shards": 3},
    "llama, llama3 rope": {"rope_scaling": {"rope_type": "llama3", **LLAMA3}},
    "llama, biases, wide heads, F16": {"attention_bias": True, "head_dim": 32, "dtype": "F16"},
    "qwen2, F32": {"architectures": ["Qwen2ForCausalLM"], "dtype": "F32"},
    "qwen2, 12 layers, 2 shards": {
        "architectures": ["Qwen2ForCausalLM"],
        "num_hidden_layers": 12,
        "shards": 2,
    },
}


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16"])
@pytest.mark.parametrize("model", MODELS)
def test_tensors_are_the_checkpoints(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str, file_type: str
) -> None:
    monkeypatch.setattr(weight_files, "PIECE_WEIGHTS", 1500)  # several pieces for each matrix
    values = make_checkpoint(tmp_path / "m", **MODELS[model])
    output = tmp_path / "out.gguf"
    report = convert(tmp_path / "m", output, file_type)
    is_llama = model.startswith("llama")
    expected = expected_tensors(values, 4 if is_llama else 0, 2)
    reader = GGUFReader(output)
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert report.outputs[0].size == output.stat().st_size
    assert report.tensors == len(found) == len(expected) + ("rope_freqs.weight" in found)
    assert ("rope_freqs.weight" in found) == ("rope" in model)
    for name, array in expected.items():
        tensor = found[name]
        assert tuple(reversed(tensor.shape.tolist())) == array.shape
        if array.ndim == 1 or file_type == "F32":
            assert tensor.data.tobytes() == array.tobytes()
        elif file_type == "F16":
            assert tensor.data.tobytes() == array.astype("<f2").tobytes()
        elif MODELS[model].get("dtype", "BF16") == "BF16":
            assert tensor.data.tobytes() == to_bf16(array).tobytes()


@pytest.mark.parametrize("piece", [1, 1500, 10**9])
def test_pieces_make_no_difference(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int) -> None:
    make_checkpoint(tmp_path / "m", num_hidden_layers=1)
    convert(tmp_path / "m", tmp_path / "usual.gguf", "Q4_0")
    monkeypatch.setattr(weight_files, "PIECE_WEIGHTS", piece)
    convert(tmp_path / "m", tmp_path / "other.gguf", "Q4_0", threads=3)
    assert (tmp_path / "usual.gguf").read_bytes() == (tmp_path / "other.gguf").read_bytes()


def test_metadata_of_a_llama(tmp_path: Path) -> None:
    make_checkpoint(
        tmp_path / "Tiny-Llama-Instruct", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0}
    )
    (tmp_path / "Tiny-Llama-Instruct" / "README.md").write_text(
        "---\nlicense: mit\nversion: 3\n---\n# Tiny\n"
    )
    convert(tmp_path / "Tiny-Llama-Instruct", tmp_path / "x.gguf")
    found = fields(tmp_path / "x.gguf")
    expected = {
        "general.architecture": "llama",
        "general.name": "Tiny Llama Instruct",
        "general.finetune": "Instruct",
        "general.license": "mit",
        "general.file_type": 32,
        "general.quantization_version": 2,
        "llama.block_count": 2,
        "llama.context_length": 1024,
        "llama.embedding_length": 64,
        "llama.feed_forward_length": 96,
        "llama.attention.head_count": 4,
        "llama.attention.head_count_kv": 2,
        "llama.attention.key_length": 16,
        "llama.attention.value_length": 16,
        "llama.rope.freq_base": 5e5,
        "llama.rope.dimension_count": 16,
        "llama.rope.scaling.type": "linear",
        "llama.rope.scaling.factor": 2.0,
        "llama.vocab_size": 512,
        "tokenizer.ggml.bos_token_id": 453,
    }
    assert expected.items() <= found.items()
    assert math.isclose(found["general.sampling.temp"], 0.6, rel_tol=1e-6)
    assert math.isclose(found["general.sampling.top_p"], 0.95, rel_tol=1e-6)


@pytest.mark.parametrize(
    "card", ["---\n: [\n---\n", "---\nbase_model: 3\ntags: [1, 2026-01-01]\n---\n", "\xff"]
)
def test_an_odd_model_card_does_no_harm(tmp_path: Path, card: str) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text(card, encoding="latin-1")
    convert(tmp_path / "m", tmp_path / "x.gguf", name="Mine")
    assert fields(tmp_path / "x.gguf")["general.name"] == "Mine"


@pytest.mark.parametrize(
    "generation",
    [
        '{"temperature": NaN, "top_p": 1e30, "min_p": -1, "top_k": 1e99, "repetition_penalty": 1e300}',
        '{"temperature": 1%s, "top_k": 4294967296, "top_p": Infinity}' % ("0" * 400),
    ],
    ids=["beyond the bounds", "beyond all numbers"],
)
def test_impossible_recommendations_are_left_out(tmp_path: Path, generation: str) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "generation_config.json").write_text(generation)
    convert(tmp_path / "m", tmp_path / "x.gguf")
    header = read_header(tmp_path / "x.gguf")
    assert not [key for key in header.metadata if key.startswith("general.sampling.")]
    check_supported(header, tmp_path / "x.gguf")


def test_errors_of_the_checkpoint_come_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    monkeypatch.setattr(one_pass, "run", lambda *_: pytest.fail("it began"))
    with pytest.raises(CheckpointError, match="tokenizer"):
        convert(tmp_path / "m", tmp_path / "x.gguf")
    assert names_in(tmp_path) == ["m"]


def test_progress_tells_how_far_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pipeline, "_QUIET_BYTES", 10_000)
    events: list[Forecast | Progress] = []
    values = make_checkpoint(tmp_path / "m", shards=2)
    convert_all(tmp_path / "m", {tmp_path / "a": "Q8_0", tmp_path / "b": "F16"}, on_event=events.append)
    assert isinstance(events[0], Forecast)
    progress = [event for event in events if isinstance(event, Progress)]
    assert {event.stage for event in progress} <= {"convert", "hash"}  # at the end it may be hashed already
    read = [event for event in progress if event.stage == "convert"]
    done = [event.done_bytes for event in read]
    weights = sum(file.stat().st_size for file in (tmp_path / "m").glob("*.safetensors"))
    assert done == sorted(done)
    assert 0.9 * weights < done[-1] <= weights
    assert {event.total_bytes for event in read} == {weights}
    assert {event.tensor for event in read} <= expected_tensors(values, 4, 2).keys()
    sizes = {(tmp_path / name).stat().st_size for name in "ab"}
    assert {event.total_bytes for event in progress if event.stage == "hash"} <= sizes
    assert all(event.done_bytes <= event.total_bytes for event in progress)


def test_the_report_is_true(tmp_path: Path) -> None:
    """What it says, reckoned independently from the files."""
    make_checkpoint(tmp_path / "m", shards=2, hidden_size=256, intermediate_size=256)
    (tmp_path / "m" / "README.md").write_text("# Tiny")
    (tmp_path / "m" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "m" / "chat_template.jinja").write_text("{{ messages }}")
    (tmp_path / "m" / "added_tokens.json").write_text("{}")
    more = tmp_path / "m" / "additional_chat_templates"
    more.mkdir()
    (more / "tools.jinja").write_text("{{ tools }}")
    (more / "tools.txt").write_text("not read")
    (tmp_path / "m" / "picture.png").write_bytes(b"not read")
    outputs = {tmp_path / "a.gguf": "q4_k", tmp_path / "b.gguf": "BF16"}
    report = convert_all(tmp_path / "m", outputs)
    for written, path in zip(report.outputs, outputs, strict=True):
        reader = GGUFReader(path)
        weights = sum(int(tensor.n_elements) for tensor in reader.tensors)
        bits = 8 * sum(int(tensor.n_bytes) for tensor in reader.tensors)
        data = path.read_bytes()
        assert (written.path, written.size) == (str(path), len(data))
        assert written.sha256 == hashlib.sha256(data).hexdigest()
        assert written.bits_per_weight == round(bits / weights, 3)
        assert written.types == Counter(tensor.tensor_type.name for tensor in reader.tensors)
        assert (report.weights, report.tensors) == (weights, len(reader.tensors))
    assert [written.file_type for written in report.outputs] == ["Q4_K_M", "BF16"]
    files = [path for path in (tmp_path / "m").rglob("*") if path.is_file()]
    unread = {"picture.png", "additional_chat_templates/tools.txt"}
    read = {str(path.relative_to(tmp_path / "m")): path.read_bytes() for path in files}
    assert report.inputs == {
        name: hashlib.sha256(data).hexdigest() for name, data in read.items() if name not in unread
    }
    assert report.source_bytes == sum(len(data) for name, data in read.items() if "-of-" in name)
    assert (report.architecture, report.imatrix_sha256, report.seconds > 0) == ("llama", "", True)


def test_inputs_are_hashed_only_if_asked_for(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", shards=2)
    with_, without = (
        convert(tmp_path / "m", tmp_path / f"{wanted}.gguf", "Q8_0", hash_inputs=wanted)
        for wanted in (True, False)
    )
    assert (len(with_.inputs), without.inputs) == (7, {})
    assert with_.outputs[0].sha256 == without.outputs[0].sha256
    assert (tmp_path / "True.gguf").read_bytes() == (tmp_path / "False.gguf").read_bytes()


def test_templates_that_are_not_read_are_no_inputs(tmp_path: Path) -> None:
    """They are not looked at, so that they may be links to anywhere."""
    make_checkpoint(tmp_path / "m")
    more = tmp_path / "m" / "additional_chat_templates"
    more.mkdir()
    (tmp_path / "secret").write_text("secret")
    (more / "x.jinja").symlink_to(tmp_path / "secret")
    assert more / "x.jinja" not in open_source(tmp_path / "m").small_files
    (tmp_path / "m" / "chat_template.jinja").write_text("x")
    (tmp_path / "m" / "tokenizer_config.json").write_text('{"chat_template": "y"}')
    assert more / "x.jinja" not in open_source(tmp_path / "m").small_files


@pytest.mark.parametrize("name", ["pytorch_model-\udcff.bin", "pytorch_model-\udcff\udc80.bin"])
def test_a_worker_can_say_what_cannot_be_encoded(tmp_path: Path, name: str) -> None:
    """A file's name may be any bytes."""
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "model.safetensors").rename(tmp_path / "m" / name)
    with pytest.raises(CheckpointError, match=r"only pickled weights \(pytorch_model-\\udcff") as caught:
        client.forecast(Job(str(tmp_path / "m")))
    assert caught.value.hint


def test_a_worker_can_report_what_cannot_be_encoded(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "tokenizer_config.json").write_text("{}")
    (tmp_path / "m" / "chat_template.jinja").write_text("x")
    (tmp_path / "m" / "additional_chat_templates").mkdir()
    (tmp_path / "m" / "additional_chat_templates" / "\udcff.jinja").write_text("x")
    made = client.run(Job(str(tmp_path / "m")), [client.Wanted("Q8_0", tmp_path / "x.gguf")], load=False)
    assert r"additional_chat_templates/\udcff.jinja" in made.report.inputs


def test_without_targets_there_is_only_a_forecast(tmp_path: Path) -> None:
    report = convert_all(NANO, {})
    assert (report.outputs, report.inputs, report.tensors) == ((), {}, 63)


@pytest.mark.parametrize(
    ("error", "kind", "message"),
    [
        (OSError(errno.ENOSPC, "full"), NoSpace, "not enough room for /d/x.gguf"),
        (OSError(errno.EDQUOT, "full"), NoSpace, "not enough room for /d/x.gguf"),
        (OSError(errno.EFBIG, "large"), NoSpace, "not enough room for /d/x.gguf"),
        (OSError(errno.EIO, "I/O error", "/m/a"), QuantizeError, "cannot read or write /m/a: I/O error"),
        (OSError(errno.EIO, "I/O error"), QuantizeError, "cannot read or write /d/x.gguf: I/O error"),
    ],
)
def test_errors_of_the_system_are_ours(
    monkeypatch: pytest.MonkeyPatch, error: OSError, kind: type, message: str
) -> None:
    def fail(*_: object, **options: object) -> None:
        raise error

    monkeypatch.setattr(one_pass, "run", fail)
    job = pipeline.Job(str(NANO), targets=(pipeline.Target("Q8_0", "/d/x.gguf", 0),))
    with pytest.raises(kind, match=message) as caught:
        pipeline.run(job)
    assert type(caught.value) is kind
    assert caught.value.hint
