"""What is told before any weight is read, and which type is advised."""

from __future__ import annotations

from pathlib import Path

import pytest
from gguf import GGUFReader

from localai.errors import UsageError
from models import fit
from models.gguf import read_header
from quantize import advice, client
from quantize.file_types import FILE_TYPES
from quantize.protocol import Candidate, Forecast, Job
from tests.quantize.doing import convert_all, types
from tests.quantize.making import NANO, make_checkpoint, names_in

SHAPES: dict[str, dict] = {
    "even": {"hidden_size": 256, "intermediate_size": 512},
    "rows that no block of 256 divides": {"hidden_size": 96, "intermediate_size": 224, "dtype": "F32"},
    "rows that no block divides": {"hidden_size": 88, "intermediate_size": 72, "num_attention_heads": 4},
    "tied, F16": {"tie_word_embeddings": True, "dtype": "F16", "hidden_size": 320},
}
TYPES = (
    "F32",
    "F16",
    "BF16",
    "Q8_0",
    "Q6_K",
    "Q5_K_M",
    "Q4_K_M",
    "IQ4_XS",
    "Q4_0",
    "Q3_K_M",
    "Q2_K",
    "TQ2_0",
)


@pytest.mark.parametrize("shape", SHAPES)
def test_sizes_are_exact(tmp_path: Path, shape: str) -> None:
    make_checkpoint(tmp_path / "m", **SHAPES[shape])
    known = client.forecast(Job(str(tmp_path / "m")))
    report = convert_all(tmp_path / "m", {tmp_path / file_type: file_type for file_type in TYPES})
    candidates = {candidate.file_type: candidate for candidate in known.candidates}
    assert list(candidates) == list(FILE_TYPES)
    for written in report.outputs:
        path = Path(written.path)
        candidate = candidates[written.file_type]
        assert candidate.size == written.size == path.stat().st_size
        assert candidate.bits_per_weight == written.bits_per_weight
        header = read_header(path)
        for context, needed in candidate.memory.items():
            assert needed == fit.memory_needed(fit.Shape.of(header), fit.weights_read(header), context)
    fallbacks = set(types(tmp_path / "Q4_K_M").values()) - {"Q4_K", "Q6_K", "F32"}
    assert bool(fallbacks) == (shape not in ("even",)), fallbacks


def test_what_it_says_of_the_source(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "m", shards=3, dtype="F16")
    known = client.forecast(Job(str(tmp_path / "m")))
    weights = sum(file.stat().st_size for file in (tmp_path / "m").glob("*.safetensors"))
    convert_all(tmp_path / "m", {tmp_path / "x": "F16"})
    counted = sum(int(tensor.n_elements) for tensor in GGUFReader(tmp_path / "x").tensors)
    assert (known.architecture, known.source_type, known.context_trained) == ("llama", "F16", 1024)
    assert (known.source_bytes, known.weights) == (weights, counted)
    assert known.working_memory > 100 << 20
    assert [list(one.memory) for one in known.candidates[:1]] == [[1024]]


def test_options_count(tmp_path: Path) -> None:
    sizes = {}
    for name, job in {"plain": Job(str(NANO)), "pure": Job(str(NANO), pure=True)}.items():
        known = client.forecast(job)
        sizes[name] = {one.file_type: one.size for one in known.candidates}
    assert sizes["pure"]["Q4_K_S"] < sizes["plain"]["Q4_K_S"]
    assert sizes["pure"]["BF16"] == sizes["plain"]["BF16"]


def test_it_reads_no_weights(tmp_path: Path) -> None:
    """Here: there are none, only a hole."""
    make_checkpoint(tmp_path / "m")
    weights = tmp_path / "m" / "model.safetensors"
    before = client.forecast(Job(str(tmp_path / "m")))
    size, start = weights.stat().st_size, weights.read_bytes()[:9_000]
    length = int.from_bytes(start[:8], "little")
    with weights.open("r+b") as file:
        file.truncate(8 + length)
        file.truncate(size)
    assert client.forecast(Job(str(tmp_path / "m"))) == before
    assert names_in(tmp_path) == ["m"]


# ------------------------------------------------------------------------------------------------ advice

GB = 10**9


def made_up(
    billions: float,
    source: str = "BF16",
    needs: tuple[str, ...] = (),
    trained: tuple[int, ...] = (4096, 16384, 32768),
) -> Forecast:
    """A model with so many weights; its memory is its size and 1 GB for each 16k tokens."""
    bits = {
        "F32": 32,
        "BF16": 16,
        "F16": 16,
        "Q8_0": 8.5,
        "Q6_K": 6.6,
        "Q5_K_M": 5.7,
        "Q4_K_M": 4.8,
        "Q3_K_M": 3.9,
    }
    bits |= {"Q2_K": 3.0, "IQ2_XS": 2.4, "TQ2_0": 2.1}
    candidates = []
    for name, each in bits.items():
        size = int(billions * GB * each / 8)
        memory = {context: size + context * GB // 16384 for context in trained}
        candidates.append(Candidate(name, size, each, name in needs, memory))
    return Forecast("llama", 1, int(billions * GB), source, 1, max(trained), 1, tuple(candidates))


@pytest.mark.parametrize(
    ("billions", "memory", "expected", "why"),
    [
        (1.5, 16, "Q8_0", "quick"),
        (1.5, 2.4, "Q6_K", "quick"),
        (2.0, 16, "Q6_K", "quick"),
        (7, 16, "Q4_K_M", "usual"),
        (70, 64, "Q4_K_M", "usual"),
        (7, 5, "Q3_K_M", "best that fits into 5.0 GB"),
        (7, 4, "Q2_K", "best that fits"),
        (7, 2, "Q2_K", "the smallest, but with 16,384 tokens it needs 3.6 GB and 2.0 GB can be had"),
    ],
)
def test_what_is_recommended(billions: float, memory: float, expected: str, why: str) -> None:
    advised = advice.recommend(made_up(billions, needs=("IQ2_XS",)), int(memory * GB))
    assert advised.file_type == expected
    assert why in advised.reason


@pytest.mark.parametrize(
    ("size", "memory", "expected"),
    [
        (None, None, "BF16"),
        (14, None, "BF16"),
        (13.9, None, "Q8_0"),
        (4.2, None, "Q4_K_M"),
        (None, 8, "Q6_K"),
        (4.2, 4.5, "Q3_K_M"),
        (2.7, 100, "Q2_K"),
    ],
)
def test_the_best_within_limits(size: float | None, memory: float | None, expected: str) -> None:
    chosen = advice.choose(
        made_up(7, needs=("IQ2_XS",)), int(size * GB) if size else None, int(memory * GB) if memory else None
    )
    assert chosen.file_type == expected


def test_with_an_importance_matrix_there_are_smaller_types() -> None:
    assert advice.choose(made_up(7), int(2.2 * GB), None).file_type == "IQ2_XS"
    with pytest.raises(UsageError, match=r"no type fits: Q2_K takes 2\.6 GB of disk, and 3\.6 GB of memory"):
        advice.choose(made_up(7, needs=("IQ2_XS",)), int(2.2 * GB), None)


def test_limits_that_nothing_meets() -> None:
    with pytest.raises(UsageError, match=r"with 16,384 tokens.*Raise the limit"):
        advice.choose(made_up(7), None, GB)


def test_no_more_precision_than_the_source_has() -> None:
    """A BF16 model as F32 or F16 has no advantage, and what is quantized gets no better."""
    assert advice.choose(made_up(1, "F16"), None, None).file_type == "F16"
    assert advice.choose(made_up(1, "F32"), None, None).file_type == "F32"
    assert advice.choose(made_up(1, "Q8_0"), None, None).file_type == "Q8_0"
    assert advice.recommend(made_up(1, "Q6_K"), 64 * GB).file_type == "Q6_K"


def test_a_source_that_is_smaller_than_all_else() -> None:
    known = made_up(7, "TQ2_0")
    with pytest.raises(UsageError, match="no type fits: TQ2_0"):
        advice.choose(known, 100 * GB, None)
    assert advice.recommend(known, 100 * GB).file_type == "TQ2_0"


@pytest.mark.parametrize(
    ("trained", "context"),
    [((4096, 16384, 32768), 16384), ((4096,), 4096), ((3000,), 3000), ((20000,), 20000)],
)
def test_the_context_that_memory_is_reckoned_with(trained: tuple[int, ...], context: int) -> None:
    assert advice.context_of(made_up(1, trained=trained).candidates[0]) == context
