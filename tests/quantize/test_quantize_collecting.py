"""Collecting importance matrices: what llama-imatrix finds, what arithmetic says, and what cannot be read."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from localai.engine import activations, tensors
from localai.engine.context import AbortFlag
from localai.engine.llama import Model
from localai.engine.protocol import Activations, Observe
from localai.errors import EngineError, UnsupportedModel, UsageError
from quantize import collecting
from quantize.collecting import Reading, Text, collect, collected_for
from quantize.imatrix import read_imatrix
from quantize.imatrix_file import Collected
from quantize.protocol import Job
from tests.quantize.doing import convert, fields, types
from tests.quantize.making import NANO, make_checkpoint, names_in

GOLDEN = Path(__file__).parents[1] / "data" / "imatrix" / "r1-nano.gguf"
SUMS = "".join(
    f"<｜User｜>{a} + {a + 1}<｜Assistant｜>{a} + {a + 1} = **{2 * a + 1}**<｜end▁of▁sentence｜>"
    for a in range(1, 600, 7)
)
"""The text of the golden file: tests/data/imatrix/README.md."""
PROSE = "What is 17 + 25? First the ones: 7 + 5 = 12. Then the tens. " * 12
ONE = Reading(context=64, chunks=2, threads=1)


@pytest.fixture(scope="module")
def floats(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r1-nano at F32."""
    output = tmp_path_factory.mktemp("floats") / "nano-F32.gguf"
    convert(NANO, output, "F32")
    return output


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose matrices all types fit."""
    folder = tmp_path_factory.mktemp("small") / "m"
    make_checkpoint(folder, hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    return folder


def means(found: Collected) -> dict[str, np.ndarray]:
    return {name: usage.sums / usage.rows for name, usage in found.matrices.items()}


# ------------------------------------------------------------------------------------------ what it finds


def test_it_finds_what_llama_imatrix_found(tmp_path: Path) -> None:
    """In all matrices of all layers, those after the last attention included; chunks are no power of two."""
    convert(NANO, tmp_path / "f16.gguf", "F16")
    found = collect(tmp_path / "f16.gguf", Text("sums.txt", SUMS, special=True), Reading(50, 11, threads=1))
    golden = read_imatrix(GOLDEN)
    assert (found.dataset, found.chunks, found.chunk) == ("sums.txt", 11, 50)
    assert found.matrices.keys() == golden.weights.keys()
    assert {usage.rows for usage in found.matrices.values()} == {550}
    for name, values in means(found).items():
        np.testing.assert_allclose(values, golden.weights[name], rtol=2e-3, err_msg=name)


def test_the_first_layer_is_what_arithmetic_says(floats: Path) -> None:
    """Its attention gets the embeddings, normed and scaled; each chunk begins as a text does."""
    found = collect(floats, Text("prose", PROSE), ONE)
    data = {tensor.name: tensor.data for tensor in GGUFReader(floats).tensors}
    epsilon = float(fields(floats)["qwen2.attention.layer_norm_rms_epsilon"])  # type: ignore[arg-type]
    rows = data["token_embd.weight"].astype(np.float64)[read_tokens(floats)]
    normed = rows / np.sqrt((rows**2).mean(axis=1, keepdims=True) + epsilon) * data["blk.0.attn_norm.weight"]
    for name in ("attn_q", "attn_k", "attn_v"):
        usage = found.matrices[f"blk.0.{name}.weight"]
        assert usage.rows == 128
        np.testing.assert_allclose(usage.sums, (normed**2).sum(axis=0), rtol=1e-5)


def read_tokens(path: Path) -> list[int]:
    """Those of two chunks of 64, each begun as a text."""
    with Model(path, 0, lambda share: True) as model:
        assert model.adds_bos
        tokens = model.tokenize_document(PROSE)
    return [*tokens[:64], tokens[0], *tokens[65:128]]


def test_longer_pieces_are_read_in_several_batches(floats: Path) -> None:
    """None of which is so short that it would be passed over; 130 tokens take two."""
    found = collect(floats, Text("prose", PROSE), Reading(context=130, chunks=1, threads=1))
    assert {usage.rows for usage in found.matrices.values()} == {130}


def test_all_chunks_are_read_unless_told_otherwise(floats: Path) -> None:
    told: list[tuple[int, int]] = []
    found = collect(
        floats, Text("prose", PROSE), Reading(context=64), lambda done, total: told.append((done, total))
    )
    assert found.chunks > 2
    assert told[-1] == (found.chunks * 64, found.chunks * 64)
    assert sorted(told) == told


# ---------------------------------------------------------------------------------- what cannot be done


def test_a_text_that_is_too_short_says_how_long_it_must_be(floats: Path) -> None:
    with pytest.raises(UsageError, match=r"the text has \d+ tokens, and two pieces of 64 are the least"):
        collect(floats, Text("short", "two words"), ONE)


def test_pieces_longer_than_the_model_was_trained_for(floats: Path) -> None:
    with pytest.raises(UsageError, match="more than the 2,048 tokens"):
        collect(floats, Text("prose", PROSE), Reading(context=4096))


def test_a_model_that_computes_no_numbers(tmp_path: Path, small: Path) -> None:
    broken = tmp_path / "broken.gguf"
    convert(small, broken, "F32")
    data = bytearray(broken.read_bytes())
    tensor = next(t for t in GGUFReader(broken).tensors if t.name == "blk.0.attn_norm.weight")
    values = np.full(256, 1e30, "<f4").tobytes()
    data[tensor.data_offset : tensor.data_offset + len(values)] = values
    broken.write_bytes(data)
    with pytest.raises(EngineError, match=r"before blk\.0\.attn_\w+\.weight is too large or no number"):
        collect(broken, Text("prose", PROSE), ONE)


def test_experts_are_refused() -> None:
    """An error within llama.cpp's callback comes out of `check`, and the computation goes no further."""
    observer = activations._Observer()
    tensor = tensors.Tensor(op=tensors.operation("MUL_MAT_ID"))
    assert observer.callback(ctypes.addressof(tensor), True, None) is False
    with pytest.raises(UnsupportedModel, match="mixture of experts"):
        observer.check()


def test_a_reading_that_is_stopped(floats: Path) -> None:
    flag = AbortFlag()
    with ExitStack() as stack:
        model = stack.enter_context(Model(floats, 0, lambda share: True))
        events = activations.observe(model, Observe(1, PROSE, 64), 1, flag, pinned=True)
        next(events)
        flag.set()
        with pytest.raises(EngineError, match="was stopped"):
            list(events)


@pytest.mark.parametrize(
    "event",
    [
        Activations(1, "blk.0.a.weight", np.ones(3).tobytes(), 5),
        Activations(1, "blk.0.a.weight", np.array([1.0, np.nan]).tobytes(), 5),
        Activations(1, "blk.0.a.weight", np.array([1.0, -1.0]).tobytes(), 5),
        Activations(1, "blk.0.a.weight", np.ones(2).tobytes(), 0),
        Activations(1, "blk.0.a.weight", b"", 5),
    ],
)
def test_what_a_worker_says_must_fit_the_model(event: Activations) -> None:
    with pytest.raises(EngineError, match=r"sums for 'blk\.0\.a\.weight' that do not fit"):
        collecting._checked(event, 0 if not event.sums else 2)


# ------------------------------------------------------------------------------------------ for a job


def ready(job: Job, folder: Path) -> Iterator[Job]:
    text = Text("a text", 2 * PROSE)
    with collected_for(job, folder, text, lambda event: None, lambda done, total: None) as made:
        yield made


@pytest.mark.parametrize("source", ["checkpoint", "GGUF"])
def test_a_job_gets_one_that_has_no_name(source: str, small: Path, floats: Path, tmp_path: Path) -> None:
    """Of a checkpoint through Q8_0, of a GGUF itself; nothing of either stays."""
    job = Job(str(small if source == "checkpoint" else floats), threads=1, hash_inputs=False)
    for made in ready(job, tmp_path):
        found = read_imatrix(Path(made.imatrix))
        assert made.imatrix_name == "auto"
        assert found.datasets == ("a text",)
        matrices = {t for t in types_of(job, tmp_path) if t.startswith("blk.") and "norm" not in t}
        assert found.weights.keys() == {t for t in matrices if t.endswith(".weight")}
        assert names_in(tmp_path) == ["plain.gguf"]
    assert names_in(tmp_path) == ["plain.gguf"]


def types_of(job: Job, folder: Path) -> dict[str, str]:
    convert(Path(job.source), folder / "plain.gguf", "F16")
    return types(folder / "plain.gguf")


def test_what_is_wrong_with_a_job_is_told_before_the_text_is_read(small: Path, tmp_path: Path) -> None:
    convert(small, tmp_path / "q8.gguf", "Q8_0")
    with pytest.raises(UnsupportedModel, match="quantized already"):
        next(ready(Job(str(tmp_path / "q8.gguf")), tmp_path))
    with pytest.raises(UsageError, match="matches no tensor"):
        next(ready(Job(str(small), tensor_types=(("nothing", 8),)), tmp_path))
