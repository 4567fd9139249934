"""What each matrix loses by each type, against plain arithmetic with llama.cpp's own Python package."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gguf import GGMLQuantizationType, GGUFReader
from gguf.quants import dequantize, quantize

from localai.errors import QuantizeError
from models.ggml_types import TENSOR_TYPES, WRITABLE
from quantize import client, pipeline, weight_files
from quantize.imatrix import read_imatrix
from quantize.protocol import Errors, Forecast, Job, Progress
from tests.quantize.doing import convert
from tests.quantize.making import NANO, make_checkpoint, safetensors, to_bf16

IMATRIX = Path(__file__).parents[1] / "data" / "imatrix" / "r1-nano.gguf"
KINDS = ("Q8_0", "Q5_1", "Q4_K")
ASKED = tuple(WRITABLE[kind] for kind in KINDS)
NEEDY = WRITABLE["IQ2_XS"]
"""A type that needs an importance matrix. It is slow."""


def measured(source: Path, types: tuple[int, ...] = ASKED, **options: Any) -> dict[str, Errors]:
    events: list[Any] = []
    pipeline.run(Job(str(source), errors_of=types, **options), events.append)
    return {event.tensor: event for event in events if isinstance(event, Errors)}


def weights_of(source: Path, folder: Path) -> dict[str, np.ndarray]:
    convert(source, folder / "floats.gguf", "F32")
    found = GGUFReader(folder / "floats.gguf").tensors
    return {tensor.name: tensor.data for tensor in found if len(tensor.shape) > 1}


@pytest.mark.parametrize("with_imatrix", [False, True])
def test_r1_nanos_are_those_of_the_files(tmp_path: Path, with_imatrix: bool) -> None:
    """Read back from files that were made of it: each type for all, as far as it can be."""
    options = {"imatrix": str(IMATRIX)} if with_imatrix else {}
    importance = read_imatrix(IMATRIX).weights if with_imatrix else {}
    found, weights = measured(NANO, **options), weights_of(NANO, tmp_path)
    assert list(found)[:2] == ["output.weight", "token_embd.weight"]
    assert found.keys() == weights.keys()
    for kind in KINDS:
        rule = ((".", WRITABLE[kind]),)
        convert(NANO, tmp_path / f"{kind}.gguf", "Q4_0", tensor_types=rule, **options)
        tensors = {tensor.name: tensor for tensor in GGUFReader(tmp_path / f"{kind}.gguf").tensors}
        for name, exact in weights.items():
            back = dequantize(tensors[name].data, tensors[name].tensor_type)
            important = importance.get(name, np.ones(exact.shape[1])).astype("f8")
            lost = (important * (back.astype("f8") - exact) ** 2).sum() / (
                important * exact.astype("f8") ** 2
            ).sum()
            assert found[name].errors[WRITABLE[kind]] == pytest.approx(lost, rel=1e-6), (name, kind)
            assert found[name].sizes[WRITABLE[kind]] == tensors[name].n_bytes
            assert found[name].weights == exact.size


def test_against_another_quantizer(tmp_path: Path) -> None:
    """The gguf package makes Q8_0 in numpy, by itself."""
    found, weights = measured(NANO), weights_of(NANO, tmp_path)
    for name, exact in weights.items():
        kind = GGMLQuantizationType.Q8_0
        back = dequantize(quantize(exact, kind), kind)
        lost = ((back - exact) ** 2).sum() / (exact**2).sum()
        assert found[name].errors[int(kind)] == pytest.approx(lost, rel=1e-3)


def test_more_bits_lose_less() -> None:
    for one in measured(NANO).values():
        errors = [one.errors[WRITABLE[kind]] for kind in ("Q8_0", "Q5_1", "Q4_K")]
        assert errors == sorted(errors)
        assert 0 < errors[0] < 1e-4 < errors[2] < 0.02


def test_what_a_matrix_cannot_be_is_left_out(tmp_path: Path) -> None:
    """Blocks that do not divide it; types that need an importance that is not there."""
    make_checkpoint(tmp_path / "m", hidden_size=256, intermediate_size=96)
    found = measured(tmp_path / "m", (*ASKED, NEEDY))
    assert list(found["blk.0.ffn_down.weight"].errors) == list(ASKED[:2])
    assert list(found["blk.0.ffn_up.weight"].errors) == list(ASKED)
    assert not [name for name in found if "norm" in name]
    with_one = measured(NANO, (NEEDY,), imatrix=str(IMATRIX), error_rows=8)
    assert 0 < with_one["blk.0.ffn_up.weight"].errors[NEEDY] < 0.5
    assert not with_one["token_embd.weight"].errors
    inner = next(number for number, block in TENSOR_TYPES.items() if block.name == "Q8_K")
    assert measured(NANO, (inner, 9999, WRITABLE["Q8_0"]))["output.weight"].errors.keys() == {8}


def test_what_stays_as_it_is_loses_nothing(tmp_path: Path) -> None:
    floats = tuple(WRITABLE[kind] for kind in ("BF16", "F32", "F16"))
    for one in measured(NANO, floats).values():
        assert one.errors[WRITABLE["BF16"]] == one.errors[WRITABLE["F32"]] == 0
        assert 0 <= one.errors[WRITABLE["F16"]] < 1e-9
    convert(NANO, tmp_path / "x.gguf", "Q4_0")
    again = measured(tmp_path / "x.gguf", (WRITABLE["Q4_0"], WRITABLE["Q8_0"]), allow_requantize=True)
    assert again["blk.0.ffn_up.weight"].errors[WRITABLE["Q4_0"]] == 0
    assert again["blk.0.ffn_up.weight"].errors[WRITABLE["Q8_0"]] > 0


def test_a_matrix_of_zeros(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", num_hidden_layers=1, tie_word_embeddings=True)
    file = tmp_path / "m" / "model.safetensors"
    convert(tmp_path / "m", tmp_path / "x.gguf", "F32")
    shapes = {"model.embed_tokens.weight": (512, 64), "model.norm.weight": (64,)}
    for part, shape in {"q": (64, 64), "k": (32, 64), "v": (32, 64), "o": (64, 64)}.items():
        shapes[f"model.layers.0.self_attn.{part}_proj.weight"] = shape
    for part, shape in {"gate": (96, 64), "up": (96, 64), "down": (64, 96)}.items():
        shapes[f"model.layers.0.mlp.{part}_proj.weight"] = shape
    for part in ("input_layernorm", "post_attention_layernorm"):
        shapes[f"model.layers.0.{part}.weight"] = (64,)
    nothing = {name: ("BF16", to_bf16(np.zeros(shape))) for name, shape in shapes.items()}
    file.write_bytes(safetensors(nothing))
    for one in measured(tmp_path / "m").values():
        assert set(one.errors.values()) == {0.0}


@pytest.mark.parametrize(("piece", "threads"), [(1, 1), (1500, 3), (10**9, 2)])
def test_pieces_make_no_difference(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, piece: int, threads: int
) -> None:
    """But for the last digits; and however the threads take turns, the same pieces give the same numbers."""
    make_checkpoint(tmp_path / "m", num_hidden_layers=1)
    usual = measured(tmp_path / "m")
    monkeypatch.setattr(weight_files, "PIECE_WEIGHTS", piece)
    found = measured(tmp_path / "m", threads=threads)
    assert found == measured(tmp_path / "m", threads=1)
    for name, one in usual.items():
        assert found[name].errors == pytest.approx(one.errors, rel=1e-9)


def test_some_rows_tell_nearly_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    exact, found = measured(NANO), measured(NANO, error_rows=64)
    for name, one in exact.items():
        assert found[name].errors.keys() == one.errors.keys()
        for number, error in one.errors.items():
            assert found[name].errors[number] == pytest.approx(error, rel=0.15)
            assert found[name].errors[number] != error
    monkeypatch.setattr(weight_files, "PIECE_WEIGHTS", 1500)
    for name, one in measured(NANO, error_rows=64).items():
        assert one.errors == pytest.approx(found[name].errors, rel=1e-9)  # the same rows, in other pieces
    assert measured(NANO, error_rows=10**6).keys() == exact.keys()


def test_an_importance_matrix_of_another_model(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m")
    with pytest.raises(QuantizeError, match=r"values for .*, which has 64 columns"):
        measured(tmp_path / "m", imatrix=str(IMATRIX))


def test_by_a_worker(tmp_path: Path) -> None:
    """In the order of the file, with sizes that add up to its size to the byte, and nothing written."""
    events: list[Forecast | Progress] = []
    known, found = client.errors(Job(str(NANO)), ASKED, events.append)
    assert found == measured(NANO)
    kind = WRITABLE["Q4_K"]
    rule = ((".", kind),)
    convert(NANO, tmp_path / "x.gguf", "Q4_0", tensor_types=rule)
    size = known.fixed_bytes + sum(one.sizes[kind] for one in found.values())
    assert size == (tmp_path / "x.gguf").stat().st_size
    assert events[0] == known
    assert {event.stage for event in events[1:] if isinstance(event, Progress)} <= {"measure"}


LYING = """
import os
from quantize import protocol
known = protocol.Forecast("llama", 1, 1, "BF16", 1, 1, 1, ())
lie = protocol.Errors("token_embd.weight", 1, {errors}, {{8: 1}})
done = protocol.Finished(protocol.Report("llama", 1, 1, 1, {{}}, "", "", (), 1.0))
for event in (known, lie, done):
    os.write(1, protocol.pack(event))
"""


@pytest.mark.parametrize("errors", ["{8: 0.1, 2: 0.1}", "{}", "{2: 0.1}", "{8: -1.0}", "{8: float('nan')}"])
def test_a_worker_is_believed_only_what_it_was_asked(monkeypatch: pytest.MonkeyPatch, errors: str) -> None:
    command = [sys.executable, "-c", LYING.format(errors=errors)]
    monkeypatch.setattr(client.processes, "worker_command", lambda module: command)
    with pytest.raises(QuantizeError, match=r"that nobody asked for|not an event"):
        client.errors(Job(str(NANO), sandbox="off"), (8,))
