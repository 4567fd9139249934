"""The pipeline in this process, with float types and a stand-in for llama.cpp's quantizer."""

from __future__ import annotations

import contextlib
import errno
import math
import os
import shutil
import socket
import stat
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import psutil
import pytest
from gguf import GGUFReader

from localai.errors import CheckpointError, LocalAIError, NoSpace, QuantizeError, UsageError
from models.gguf import check_supported, read_header
from quantize import gguf_file, partials, pipeline
from quantize.protocol import Job, Progress
from tests.quantize.making import NANO, make_checkpoint, names_in, to_bf16

PLENTY = 10**12


def job(source: Path, output: Path, file_type: str = "BF16", **changes) -> Job:
    return Job(str(source), str(output), file_type, **changes)


def no_quantizer(source: Path, output: Path, file_type: int, threads: int) -> None:
    raise AssertionError("a float type needs no quantizer")


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
    monkeypatch.setattr(gguf_file, "PIECE_BYTES", 3000)  # several pieces for each matrix
    values = make_checkpoint(tmp_path / "m", **MODELS[model])
    output = tmp_path / "out.gguf"
    report = pipeline.convert(job(tmp_path / "m", output, file_type), quantize_file=no_quantizer)
    is_llama = model.startswith("llama")
    expected = expected_tensors(values, 4 if is_llama else 0, 2)
    reader = GGUFReader(output)
    found = {tensor.name: tensor for tensor in reader.tensors}
    assert report.output_bytes == output.stat().st_size
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


def test_metadata_of_a_llama(tmp_path: Path) -> None:
    make_checkpoint(
        tmp_path / "Tiny-Llama-Instruct", rope_theta=5e5, rope_scaling={"type": "linear", "factor": 2.0}
    )
    (tmp_path / "Tiny-Llama-Instruct" / "README.md").write_text(
        "---\nlicense: mit\nversion: 3\n---\n# Tiny\n"
    )
    pipeline.convert(job(tmp_path / "Tiny-Llama-Instruct", tmp_path / "x.gguf"))
    fields = {key: field.contents() for key, field in GGUFReader(tmp_path / "x.gguf").fields.items()}
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
    assert expected.items() <= fields.items()
    assert math.isclose(fields["general.sampling.temp"], 0.6, rel_tol=1e-6)
    assert math.isclose(fields["general.sampling.top_p"], 0.95, rel_tol=1e-6)


@pytest.mark.parametrize(
    "card", ["---\n: [\n---\n", "---\nbase_model: 3\ntags: [1, 2026-01-01]\n---\n", "\xff"]
)
def test_an_odd_model_card_does_no_harm(tmp_path: Path, card: str) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "README.md").write_text(card, encoding="latin-1")
    pipeline.convert(job(tmp_path / "m", tmp_path / "x.gguf", name="Mine"))
    assert GGUFReader(tmp_path / "x.gguf").fields["general.name"].contents() == "Mine"


def test_a_quantized_type_goes_through_float_weights(tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []

    def quantizer(source: Path, output: Path, file_type: int, threads: int) -> None:
        reader = GGUFReader(source)
        seen.append((reader.tensors[0].tensor_type.name, file_type, threads))
        shutil.copyfile(source, output)

    progress: list[Progress] = []
    make_checkpoint(tmp_path / "m")
    pipeline.convert(
        job(tmp_path / "m", tmp_path / "x.gguf", "q4_k_m", threads=3),
        on_progress=progress.append,
        quantize_file=quantizer,
    )
    assert seen == [("BF16", 15, 3)]
    assert names_in(tmp_path) == ["m", "x.gguf"]
    stages = [event.stage for event in progress]
    assert list(dict.fromkeys(stages)) == ["convert", "quantize", "check"]
    done = [event.done_bytes for event in progress if event.stage == "convert"]
    assert done == sorted(done)
    assert done[-1] == progress[0].total_bytes


def failing(error: Exception, after: bytes = b"begun"):
    def quantizer(source: Path, output: Path, file_type: int, threads: int) -> None:
        output.write_bytes(after)
        raise error

    return quantizer


def rubbish(source: Path, output: Path, file_type: int, threads: int) -> None:
    output.write_bytes(b"GGUF" + bytes(100))


def incomplete(source: Path, output: Path, file_type: int, threads: int) -> None:
    pipeline.convert(job(source.parent / "other", output), quantize_file=no_quantizer)


FAILURES: dict[str, tuple[object, int, type[LocalAIError], str]] = {
    "llama.cpp fails": (
        failing(QuantizeError("llama.cpp could not")),
        PLENTY,
        QuantizeError,
        "llama.cpp could not",
    ),
    "llama.cpp fails on a full disk": (
        failing(QuantizeError("it could not")),
        100_000,
        NoSpace,
        "became full",
    ),
    "the disk is full": (failing(OSError(errno.ENOSPC, "full")), PLENTY, NoSpace, "became full"),
    "the disk fails": (
        failing(OSError(errno.EIO, "I/O error", "/d/x")),
        PLENTY,
        QuantizeError,
        "/d/x: I/O error",
    ),
    "the result is rubbish": (rubbish, PLENTY, QuantizeError, "not sound"),
    "the result is of another model": (incomplete, PLENTY, QuantizeError, "the tensor"),
}


@pytest.mark.parametrize("case", FAILURES)
def test_a_failure_changes_nothing(tmp_path: Path, case: str) -> None:
    quantizer, free_at_the_end, kind, message = FAILURES[case]
    make_checkpoint(tmp_path / "m")
    make_checkpoint(tmp_path / "other", num_hidden_layers=1)
    output = tmp_path / "x.gguf"
    output.write_bytes(b"the old one")
    free = iter([PLENTY, free_at_the_end])
    with pytest.raises(kind) as caught:
        pipeline.convert(
            job(tmp_path / "m", output, "Q8_0", overwrite=True),
            free_space=lambda folder: next(free),
            quantize_file=quantizer,  # type: ignore[arg-type]
        )
    assert type(caught.value) is kind
    assert message in str(caught.value)
    assert output.read_bytes() == b"the old one"
    assert names_in(tmp_path) == ["m", "other", "x.gguf"]


def test_an_interruption_changes_nothing(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")

    def interrupt(progress: Progress) -> None:
        assert [name for name in names_in(tmp_path) if "partial" in name]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        pipeline.convert(job(tmp_path / "m", tmp_path / "x.gguf"), on_progress=interrupt)
    assert names_in(tmp_path) == ["m"]


def test_an_existing_output_is_kept_unless_asked(tmp_path: Path) -> None:
    output = tmp_path / "x.gguf"
    output.write_bytes(b"the old one")
    with pytest.raises(UsageError, match=r"is there already.*--overwrite"):
        pipeline.convert(job(NANO, output))
    assert output.read_bytes() == b"the old one"
    pipeline.convert(job(NANO, output, overwrite=True))
    assert output.read_bytes()[:4] == b"GGUF"


def test_an_impossible_target(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        pipeline.convert(job(NANO, tmp_path / "nowhere" / "x.gguf"))
    with pytest.raises(UsageError, match="is a folder"):
        pipeline.convert(job(NANO, tmp_path, overwrite=True))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize(
    "name", ["m/model.safetensors", "m/config.json", "m/tokenizer.json", "hub/blob", "other/model.gguf"]
)
def test_the_checkpoint_itself_is_never_replaced(tmp_path: Path, name: str, overwrite: bool) -> None:
    folder = tmp_path / "m"
    make_checkpoint(folder)
    for place, original in (
        ("hub/blob", "generation_config.json"),
        ("other/model.gguf", "model.safetensors"),
    ):
        (tmp_path / place).parent.mkdir()
        (folder / original).rename(tmp_path / place)  # as the cache of the hub has it
        (folder / original).symlink_to(tmp_path / place)
    before = contents(folder)
    (tmp_path / "link").symlink_to(folder)
    for source in (folder, tmp_path / "link"):
        target = tmp_path / name
        if target.is_symlink():
            target = target.resolve()
        with pytest.raises(UsageError, match="a file of the checkpoint itself"):
            pipeline.convert(job(source, target, overwrite=overwrite))
    assert contents(folder) == before


def test_a_gguf_file_beside_the_weights_may_be_replaced(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")
    output = tmp_path / "m" / "old.gguf"
    output.write_bytes(b"the old one")
    pipeline.convert(job(tmp_path / "m", output, overwrite=True))
    assert output.read_bytes()[:4] == b"GGUF"


def device(path: Path) -> None:
    """/dev/null under another name: only root may make a device."""
    try:
        os.mknod(path, stat.S_IFCHR | 0o666, os.makedev(1, 3))
    except PermissionError:
        pytest.skip("this user may not make devices")


def socket_at(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one, contextlib.chdir(path.parent):  # a short name
        one.bind(path.name)


SPECIAL: dict[str, Callable[[Path], None]] = {
    "a device": device,
    "a named pipe": os.mkfifo,
    "a socket": socket_at,
    "a symbolic link": lambda path: path.symlink_to(path.with_name("file")),
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", [*SPECIAL, "a symbolic link to nothing"])
def test_only_a_regular_file_is_replaced(tmp_path: Path, kind: str, overwrite: bool) -> None:
    output = tmp_path / "x.gguf"
    kind, _, nothing = kind.partition(" to ")
    if not nothing:
        (tmp_path / "file").write_bytes(b"kept")
    SPECIAL[kind](output)
    before = output.lstat()
    with pytest.raises(UsageError, match=f"is {kind}, which is never replaced"):
        pipeline.convert(job(NANO, output, overwrite=overwrite))
    assert os.path.samestat(before, output.lstat())
    assert nothing or (tmp_path / "file").read_bytes() == b"kept"
    assert names_in(tmp_path) == (["x.gguf"] if nothing else ["file", "x.gguf"])


def test_an_output_that_cannot_be_looked_at(tmp_path: Path) -> None:
    with pytest.raises(QuantizeError, match="cannot read or write") as caught:
        pipeline.convert(job(NANO, tmp_path / ("x" * 300)))
    assert caught.value.hint


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
    pipeline.convert(job(tmp_path / "m", tmp_path / "x.gguf"))
    header = read_header(tmp_path / "x.gguf")
    assert not [key for key in header.metadata if key.startswith("general.sampling.")]
    check_supported(header, tmp_path / "x.gguf")


@pytest.mark.parametrize("file_type", ["F32", "Q4_K_M"])
def test_no_space_is_said_before_anything_is_written(tmp_path: Path, file_type: str) -> None:
    with pytest.raises(NoSpace, match=r"has 0\.0 MB free, but the conversion needs \d"):
        pipeline.convert(job(NANO, tmp_path / "x.gguf", file_type), free_space=lambda folder: 1000)
    assert names_in(tmp_path) == []


def test_a_value_too_large_for_f16(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-2:] = to_bf16(np.array([1e6], "<f4")).tobytes()
    weights.write_bytes(data)
    with pytest.raises(QuantizeError, match=r"'lm_head\.weight' has values beyond") as caught:
        pipeline.convert(job(tmp_path / "m", tmp_path / "x.gguf", "F16"))
    assert "BF16" in caught.value.hint
    assert names_in(tmp_path) == ["m"]


def dead_pid() -> int:
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_what_a_killed_process_left_is_removed(tmp_path: Path) -> None:
    stale = tmp_path / f".x.gguf.partial-{dead_pid()}"
    source = tmp_path / f"{stale.name}.source"
    living = tmp_path / f".x.gguf.partial-{os.getppid()}"
    of_another = tmp_path / ".y.gguf.partial-1"
    for path in (stale, source, living, of_another):
        path.write_bytes(b"x")
    reused = tmp_path / f".x.gguf.partial-{psutil.Process().parents()[-1].pid}"
    reused.write_bytes(b"x")
    os.utime(reused, (1, 1))  # older than the process that now has its number
    partials.remove_stale(tmp_path / "x.gguf")
    left = {path for path in (stale, source, living, of_another, reused) if path.exists()}
    assert left == ({living, of_another} if reused != living else {of_another})


def test_errors_of_the_checkpoint_come_before_anything_is_written(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")
    (tmp_path / "m" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match="tokenizer"):
        pipeline.convert(job(tmp_path / "m", tmp_path / "x.gguf"))
    assert names_in(tmp_path) == ["m"]


def can_mount() -> bool:
    if shutil.which("unshare") is None:
        return False
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    return subprocess.run(probe, capture_output=True, check=False).returncode == 0


FULL_DISK = """
import os, sys
from localai.errors import NoSpace
from quantize import pipeline
from quantize.protocol import Job
real = pipeline.plan.free_space
lies = [10**12]
for free in (real, lambda folder: lies.pop() if lies else real(folder)):
    try:
        pipeline.convert(Job(sys.argv[1], "/mnt/x.gguf", sys.argv[2]), free_space=free)
    except NoSpace as error:
        print(error.message)
    assert os.listdir("/mnt") == [], os.listdir("/mnt")
"""


@pytest.mark.parametrize(
    ("file_type", "megabytes"), [("BF16", 6), ("Q8_0", 6), ("Q8_0", 10)], ids=["whole", "source", "output"]
)
def test_a_disk_that_is_really_full(file_type: str, megabytes: int) -> None:
    if not can_mount():
        pytest.skip("this machine does not let users mount a small disk (unshare -rm)")
    command = f'mount -t tmpfs -o size={megabytes}m none /mnt && exec "$0" -c "$1" "$2" {file_type}'
    result = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, sys.executable, FULL_DISK, str(NANO)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    before, during = result.stdout.splitlines()
    assert before.startswith("the disk at /mnt has ")
    assert "MB free, but the conversion needs" in before
    assert during == "the disk became full while /mnt/x.gguf was written"
