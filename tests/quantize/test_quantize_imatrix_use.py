"""Importance matrices in use: types that need one, what it changes, and what the file says of it."""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader
from gguf.quants import dequantize

from localai.errors import QuantizeError
from quantize import pipeline
from quantize.protocol import Forecast, Job
from tests.quantize.doing import convert, convert_all, fields, tensors, types
from tests.quantize.making import NANO, make_checkpoint, names_in

DATA = Path(__file__).parents[1] / "data" / "imatrix"
NEEDY = ["IQ3_XS", "IQ3_XXS", "IQ2_M", "Q2_K_S", "IQ2_S", "IQ2_XS", "IQ2_XXS", "IQ1_M", "IQ1_S"]
QUICK = ["Q4_K_M", "IQ3_XS", "Q2_K_S", "IQ2_XS", "IQ2_XXS"]
"""The tables of the others take seconds to make; test_quantize_golden.py makes them."""


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    make_checkpoint(tmp_path / "m", hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    return tmp_path / "m"


def legacy(path: Path, weights: dict[str, np.ndarray], dataset: str = "a text.txt", chunks: int = 7) -> Path:
    """An importance matrix of the older form."""
    data = struct.pack("<i", len(weights))
    for name, values in weights.items():
        data += struct.pack("<i", len(name)) + name.encode() + struct.pack("<ii", 1, len(values))
        data += values.astype("<f4").tobytes()
    data += struct.pack("<ii", chunks, len(dataset.encode())) + dataset.encode()
    path.write_bytes(data)
    return path


def importance(columns: int = 256, *without: str) -> dict[str, np.ndarray]:
    """For the layer of `checkpoint`."""
    names = ["attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down"]
    random = np.random.default_rng(1)
    return {f"blk.0.{name}.weight": random.random(columns) ** 4 for name in names if name not in without}


def test_types_that_need_one_say_so_before_anything_is_done(
    checkpoint: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def touched(*_: object) -> None:
        pytest.fail("it began")

    for name in ("pwrite", "posix_fallocate", "ftruncate"):
        monkeypatch.setattr(os, name, touched, raising=False)
    for file_type in NEEDY:
        pattern = rf"{file_type} needs an importance matrix, for I?Q\d_\w+ in blk\.0\.\w+\.weight"
        with pytest.raises(QuantizeError, match=pattern) as caught:
            convert(checkpoint, tmp_path / "x.gguf", file_type)
        assert "--imatrix" in caught.value.hint
    assert names_in(tmp_path) == ["m"]


def test_the_forecast_knows_which_types_need_one(checkpoint: Path, tmp_path: Path) -> None:
    seen: list[Forecast] = []
    convert_all(checkpoint, {}, on_event=seen.append)  # type: ignore[arg-type]
    assert [one.file_type for one in seen[0].candidates if one.needs_imatrix] == NEEDY
    imatrix = legacy(tmp_path / "i.dat", importance())
    convert_all(checkpoint, {}, on_event=seen.append, imatrix=str(imatrix))  # type: ignore[arg-type]
    assert [one.file_type for one in seen[1].candidates if one.needs_imatrix] == []


def test_with_one_they_can_be_made(checkpoint: Path, tmp_path: Path) -> None:
    imatrix = legacy(tmp_path / "i.dat", importance())
    outputs = {tmp_path / f"{file_type}.gguf": file_type for file_type in QUICK}
    report = convert_all(checkpoint, outputs, imatrix=str(imatrix))
    assert report.imatrix_sha256 == hashlib.sha256(imatrix.read_bytes()).hexdigest()
    for written, path in zip(report.outputs, outputs, strict=True):
        assert written.size == path.stat().st_size
        assert sum(written.types.values()) == len(GGUFReader(path).tensors) == 12


@pytest.mark.parametrize("form", ["gguf", "dat"])
def test_r1_nanos_in_both_forms(tmp_path: Path, form: str) -> None:
    given = DATA / f"r1-nano.{form}"
    convert(NANO, tmp_path / "with.gguf", "Q2_K_S", imatrix=str(given))
    found = fields(tmp_path / "with.gguf")
    assert found["quantize.imatrix.file"] == os.fsdecode(given)[:127]
    assert found["quantize.imatrix.dataset"] == "sums.txt"
    assert found["quantize.imatrix.entries_count"] == 35
    assert found["quantize.imatrix.chunks_count"] == 11
    assert list(found)[-4:] == [f"quantize.imatrix.{key}" for key in KEYS]
    reader = GGUFReader(tmp_path / "with.gguf")
    kinds = [reader.fields[f"quantize.imatrix.{key}"].types[0].name for key in KEYS]
    assert kinds == ["STRING", "STRING", "UINT32", "UINT32"]


KEYS = ("file", "dataset", "entries_count", "chunks_count")


def test_what_the_matrix_does_not_say_is_left_out(checkpoint: Path, tmp_path: Path) -> None:
    imatrix = legacy(tmp_path / "i.dat", importance(), dataset="", chunks=0)
    convert(checkpoint, tmp_path / "x.gguf", "Q4_K_M", imatrix=str(imatrix))
    found = [key for key in fields(tmp_path / "x.gguf") if key.startswith("quantize.")]
    assert found == ["quantize.imatrix.file", "quantize.imatrix.entries_count"]


def test_a_long_path_is_cut_as_llama_quantize_does(checkpoint: Path, tmp_path: Path) -> None:
    folder = tmp_path / ("ä" * 100)
    folder.mkdir()
    imatrix = legacy(folder / "i.dat", importance(), dataset="ö" * 100)
    convert(checkpoint, tmp_path / "x.gguf", "Q4_0", imatrix=str(imatrix))
    found = GGUFReader(tmp_path / "x.gguf").fields
    assert bytes(found["quantize.imatrix.file"].parts[-1]) == os.fsencode(imatrix)[:127]
    assert bytes(found["quantize.imatrix.dataset"].parts[-1]) == ("ö" * 100).encode()[:127]


def test_important_columns_are_nearer(checkpoint: Path, tmp_path: Path) -> None:
    weights = importance()
    imatrix = legacy(tmp_path / "i.dat", weights)
    convert(checkpoint, tmp_path / "exact.gguf", "F32")
    convert(checkpoint, tmp_path / "without.gguf", "Q4_0")
    convert(checkpoint, tmp_path / "with.gguf", "Q4_0", imatrix=str(imatrix))
    exact, without, with_ = (
        {tensor.name: tensor for tensor in GGUFReader(tmp_path / f"{name}.gguf").tensors}
        for name in ("exact", "without", "with")
    )
    for name, values in weights.items():
        wanted = exact[name].data
        errors = [
            (values * (dequantize(made[name].data, made[name].tensor_type) - wanted) ** 2).sum()
            for made in (with_, without)
        ]
        assert errors[0] < errors[1], name
    assert with_["output.weight"].data.tobytes() == without["output.weight"].data.tobytes()


def test_float_types_do_not_look_at_it(checkpoint: Path, tmp_path: Path) -> None:
    imatrix = legacy(tmp_path / "i.dat", importance())
    convert(checkpoint, tmp_path / "with.gguf", "F16", imatrix=str(imatrix))
    convert(checkpoint, tmp_path / "without.gguf", "F16")
    assert tensors(tmp_path / "with.gguf") == tensors(tmp_path / "without.gguf")


def test_one_of_another_model(checkpoint: Path, tmp_path: Path) -> None:
    imatrix = legacy(tmp_path / "i.dat", importance(columns=64))
    with pytest.raises(
        QuantizeError, match=r"i\.dat has 64 values for blk\.0\.\w+\.weight, which has 256 col"
    ) as e:
        convert(checkpoint, tmp_path / "x.gguf", "Q4_K_M", imatrix=str(imatrix))
    assert e.value.hint == "It is the importance matrix of another model"
    assert names_in(tmp_path) == ["i.dat", "m"]


def test_an_embedding_of_another_size_is_passed_over(checkpoint: Path, tmp_path: Path) -> None:
    """As in llama-quantize: llama-imatrix cannot measure that of a model with tied embeddings."""
    weights = {**importance(), "token_embd.weight": np.ones(64)}
    imatrix = legacy(tmp_path / "i.dat", weights)
    convert(checkpoint, tmp_path / "x.gguf", "IQ2_XS", imatrix=str(imatrix))
    assert types(tmp_path / "x.gguf")["blk.0.ffn_up.weight"] == "IQ2_XS"


def test_one_that_lacks_a_tensor(checkpoint: Path, tmp_path: Path) -> None:
    imatrix = legacy(tmp_path / "i.dat", importance(256, "ffn_up"))
    with pytest.raises(QuantizeError, match=r"has nothing for blk\.0\.ffn_up\.weight, which IQ2_XS needs"):
        convert(checkpoint, tmp_path / "x.gguf", "IQ2_XS", imatrix=str(imatrix))
    convert(checkpoint, tmp_path / "x.gguf", "Q4_K_M", imatrix=str(imatrix))  # which does not


def test_one_that_is_none(checkpoint: Path, tmp_path: Path) -> None:
    for name, data in (("empty", b""), ("text", b"not an importance matrix")):
        (tmp_path / name).write_bytes(data)
        with pytest.raises(QuantizeError):
            pipeline.run(Job(str(checkpoint), imatrix=str(tmp_path / name)))
