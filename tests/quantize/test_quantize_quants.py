"""llama.cpp's quantizer in pieces, against what gguf and llama.cpp say themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType
from gguf.quants import dequantize, quantize

from localai.engine import quants
from localai.errors import QuantizeError
from models.ggml_types import TENSOR_TYPES
from quantize import pipeline
from quantize.file_types import FILE_TYPES
from quantize.plan import Options, Planner, planner
from quantize.protocol import Job
from tests.quantize.making import make_checkpoint

QUANTIZED = [
    "Q4_0",
    "Q4_1",
    "Q5_0",
    "Q5_1",
    "Q8_0",
    "Q2_K",
    "Q3_K",
    "Q4_K",
    "Q5_K",
    "Q6_K",
    "IQ4_NL",
    "IQ4_XS",
]
QUANTIZED += ["IQ3_S", "TQ1_0", "TQ2_0"]


def rows(count: int = 3, columns: int = 512) -> np.ndarray:
    return np.random.default_rng(2).standard_normal((count, columns)).astype("<f4")


@pytest.mark.parametrize("name", QUANTIZED)
def test_rows_come_back_as_gguf_reads_them(name: str) -> None:
    number = int(GGMLQuantizationType[name])
    quants.prepare({number})
    made = quants.quantize_rows(number, rows(), None)
    assert made.shape == (3, quants.row_bytes(number, 512))
    back = quants.dequantize_rows(number, made, 512)
    assert np.allclose(back, dequantize(made, GGMLQuantizationType(number)), atol=1e-6)
    assert quants.are_finite(number, made.reshape(-1))


@pytest.mark.parametrize("name", ["F16", "BF16"])
def test_float_rows(name: str) -> None:
    kind = GGMLQuantizationType[name]
    narrow = quantize(rows(), kind)
    back = quants.dequantize_rows(int(kind), np.ascontiguousarray(narrow).view(np.uint8), 512)
    assert back.tobytes() == dequantize(narrow, kind).astype("<f4").tobytes()
    assert quants.quantize_rows(int(kind), back, None).tobytes() == narrow.tobytes()


def test_f32_rows_are_not_copied() -> None:
    values = rows()
    assert np.shares_memory(quants.dequantize_rows(0, values.view(np.uint8), 512), values)


def test_importance_counts() -> None:
    number = int(GGMLQuantizationType.Q4_K)
    importance = np.linspace(0, 1, 512, dtype="<f4") ** 8
    with_, without = (quants.quantize_rows(number, rows(), given) for given in (importance, None))
    assert with_.tobytes() != without.tobytes()


def test_pieces_are_independent() -> None:
    number = int(GGMLQuantizationType.Q5_K)
    whole = quants.quantize_rows(number, rows(), None)
    assert b"".join(quants.quantize_rows(number, rows()[i : i + 1], None).tobytes() for i in range(3)) == (
        whole.tobytes()
    )


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("name", ["F32", "F16", "BF16", "Q8_0"])
def test_one_value_that_is_no_number_is_seen(name: str, value: float) -> None:
    kind = GGMLQuantizationType[name]
    values = rows()
    if name == "Q8_0":
        raw = quants.quantize_rows(int(kind), values, None).reshape(-1)
        raw[:2] = np.frombuffer(np.array([value], "<f2").tobytes(), np.uint8)
        assert not quants.are_finite(int(kind), raw)
        return
    for place in (0, 700, -1):
        broken = values.copy()
        broken.reshape(-1)[place] = value
        raw = quantize(broken, kind) if name == "BF16" else broken.astype("<f2" if name == "F16" else "<f4")
        assert not quants.are_finite(int(kind), np.ascontiguousarray(raw).reshape(-1).view(np.uint8))


def test_rows_that_cannot_be_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """A llama.cpp whose blocks have another size than the tables of ours."""
    wrong = TENSOR_TYPES[12]._replace(size=1)
    quants._to_float.cache_clear()
    monkeypatch.setitem(TENSOR_TYPES, 12, wrong)
    with pytest.raises(QuantizeError, match="cannot read weights of type Q4_K"):
        quants._to_float(12)


# ------------------------------------------------------------------------------------------------- plans


@pytest.fixture
def plans(tmp_path: Path) -> Iterator[Planner]:
    make_checkpoint(tmp_path / "m", num_hidden_layers=1, hidden_size=256, intermediate_size=256)
    source = pipeline.open_source(Job(str(tmp_path / "m")))
    with planner(source, Options(), None) as made:
        yield made


@pytest.mark.parametrize(
    ("words", "replacement"),
    [(b"type =", b"kind ="), (b"[", b"<"), (b"blk.0.ffn_up.weight", b"blk.0.other.weight"), (b"] ", b"] x ")],
)
def test_a_plan_in_other_words_is_not_guessed_at(
    plans: Planner, monkeypatch: pytest.MonkeyPatch, words: bytes, replacement: bytes
) -> None:
    saying(monkeypatch, words, replacement)
    with pytest.raises(QuantizeError, match="words that are not understood") as caught:
        plans.output("Q4_K_M")
    assert "make clean install" in caught.value.hint


def test_a_type_that_is_not_known(plans: Planner, monkeypatch: pytest.MonkeyPatch) -> None:
    saying(monkeypatch, b"(q4_K)", b"(q9_X)")
    with pytest.raises(QuantizeError, match="plans the unknown type q9_X for token_embd"):
        plans.output("Q4_K_M")


def saying(monkeypatch: pytest.MonkeyPatch, words: bytes, replacement: bytes) -> None:
    """llama.cpp's log with other words in it."""
    real = quants.captured_log

    @contextmanager
    def captured() -> Iterator[list[bytes]]:
        with real() as pieces:
            yield pieces
            text = b"".join(pieces)
            assert words in text
            pieces[:] = [text.replace(words, replacement)]

    monkeypatch.setattr(quants, "captured_log", captured)


def test_the_log_is_taken_in_pieces_of_any_size() -> None:
    log = b"[   1/   2] a.b - [ 256, 2], type =   bf16, size =   0.1 MiB -> 0.0 MiB (q4_K)\n"
    log += b"[   2/   2] c - [ 4, 1, 1, 1], type =    f32, size =    0.000 MiB\n"
    assert quants._types_in(log) == {"a.b": 12, "c": 0}


def test_a_file_that_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"GGUF")
    with pytest.raises(QuantizeError, match=r"cannot plan the types of the tensors: .+"):
        quants.plan_types(tmp_path / "x.gguf", quants.Recipe(FILE_TYPES["Q8_0"]), {})
