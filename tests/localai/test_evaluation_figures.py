"""What is made of logits, and of the numbers of all tokens: against the definitions, computed another way."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from localai.engine import evaluation, protocol, scores
from localai.errors import UsageError
from localai.evaluation import kept, statistics, texts
from localai.evaluation.statistics import Tokens

RANDOM = np.random.default_rng(8)


def logits(rows: int, columns: int, spread: float = 4.0) -> np.ndarray:
    return (RANDOM.normal(size=(rows, columns)) * spread + 20).astype(np.float32)


def log_probabilities(values: np.ndarray) -> np.ndarray:
    exact = values.astype(np.longdouble)
    return exact - np.log(np.exp(exact).sum(axis=1, keepdims=True))


# ------------------------------------------------------------------------------------------------- logits


@pytest.mark.parametrize("size", [(300, 512), (3, 200_000)], ids=["many-rows", "many-tokens"])
def test_scores_are_what_the_definitions_say(size: tuple[int, int]) -> None:
    ours = logits(*size)
    theirs = ours + logits(*size, spread=0.02) - 20
    right = RANDOM.integers(0, size[1], size[0])
    found = scores.compared(ours, theirs, right)
    p, q = log_probabilities(theirs), log_probabilities(ours)
    rows = np.arange(size[0])
    assert found.nll == pytest.approx(-q[rows, right].astype(float), rel=1e-6)
    assert found.reference_nll == pytest.approx(-p[rows, right].astype(float), rel=1e-6)
    apart = np.where(p > -16, np.exp(p) * (p - q), 0).sum(axis=1).astype(float)
    assert found.kl == pytest.approx(np.maximum(apart, 0), rel=1e-3, abs=2e-7)
    assert found.kl.mean() < 1e-3  # so small, and still exact
    assert (found.same == (p.argmax(axis=1) == q.argmax(axis=1))).all()
    assert scores.alone(ours, right).nll == pytest.approx(found.nll, rel=1e-12)


def test_a_model_does_not_differ_from_itself() -> None:
    same = logits(100, 5000)
    found = scores.compared(same, same.copy(), RANDOM.integers(0, 5000, 100))
    assert (found.kl == 0).all()
    assert found.same.all()
    assert (found.nll == found.reference_nll).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf])
@pytest.mark.parametrize("whose", [0, 1])
def test_what_is_no_number_is_noticed(bad: float, whose: int) -> None:
    pair = [logits(4, 50), logits(4, 50)]
    assert scores.compared(*pair, np.zeros(4, int)).finite
    pair[whose][2, 7] = bad
    with np.errstate(invalid="ignore"):
        assert not scores.compared(*pair, np.zeros(4, int)).finite


@pytest.mark.parametrize(("size", "batch", "outputs"), [(512, 512, 100), (33, 16, 7), (4096, 512, 512)])
def test_a_chunk_is_read_once_and_its_second_half_counts(size: int, batch: int, outputs: int) -> None:
    pieces = list(evaluation.pieces(size, batch, outputs))
    read = [place for piece in pieces for place in range(piece.start, piece.end)]
    assert read == list(range(size))
    counted = [place for piece in pieces if piece.counts for place in range(piece.start, piece.end)]
    assert counted == list(range(size // 2, size))
    assert all(piece.end - piece.start <= (outputs if piece.counts else batch) for piece in pieces)


@pytest.mark.parametrize(
    ("vocabulary", "batch", "most"), [(512, 512, 512), (151_936, 512, 96), (512, 16, 16), (1 << 25, 512, 1)]
)
def test_few_logits_are_held_at_once(vocabulary: int, batch: int, most: int) -> None:
    model: Any = SimpleNamespace(vocabulary=vocabulary)
    assert evaluation.most_outputs(model, batch) == most


# ---------------------------------------------------------------------------------------------- statistics


def tokens(count: int = 1000) -> Tokens:
    base = RANDOM.gamma(2, 1.2, count)
    return Tokens(base + RANDOM.normal(0, 0.2, count) ** 2, base, RANDOM.gamma(0.3, 0.1, count), base > 1)


def test_means_and_their_errors() -> None:
    found = tokens()
    value, stderr = statistics.perplexity(found.nll)
    assert value == pytest.approx(math.exp(found.nll.mean()))
    assert stderr == pytest.approx(value * found.nll.std(ddof=1) / math.sqrt(1000))
    assert statistics.mean(np.array([3.0])) == (3.0, 0.0)
    assert math.isfinite(statistics.perplexity(np.array([1e6, 2e6])).value)


def test_the_mean_of_what_comes_in_parts() -> None:
    values, running = tokens().nll, statistics.Running()
    assert running.mean is None
    for start in range(0, len(values), 255):
        running.add(values[start : start + 255])
    assert running.mean == pytest.approx(statistics.mean(values))


def test_the_error_of_the_ratio_knows_that_the_tokens_are_the_same() -> None:
    found = tokens()
    a, b, n = found.nll, found.reference_nll, len(found.nll)
    covariance = ((a * b).mean() - a.mean() * b.mean()) / (n - 1)
    error = math.sqrt(a.var() / (n - 1) + b.var() / (n - 1) - 2 * covariance)
    value, stderr = statistics.ratio(found)
    assert value == pytest.approx(math.exp(a.mean() - b.mean()))
    assert stderr == pytest.approx(value * error)
    assert stderr < statistics.perplexity(a).stderr / 20


def test_agreement_and_change_of_probability() -> None:
    found = Tokens(np.log([2.0, 4.0]), np.log([4.0, 2.0]), np.zeros(2), np.array([True, False]))
    assert statistics.agreement(found.same) == (0.5, 0.5)
    change, root = statistics.probability_change(found)
    assert change.value == pytest.approx(0.0)
    assert root.value == pytest.approx(0.25)
    same = Tokens(found.nll, found.nll, np.zeros(2), np.array([True, True]))
    assert statistics.probability_change(same) == ((0, 0), (0, 0))
    assert statistics.agreement(same.same) == (1, 0)


def test_percentiles() -> None:
    kl = tokens().kl
    found = statistics.divergence(kl)
    wanted = np.percentile(kl, [50, 90, 99, 99.9])
    assert [found.median, found.p90, found.p99, found.p999] == pytest.approx(list(wanted))
    assert (found.mean, found.max) == (pytest.approx(kl.mean()), kl.max())


def test_the_error_of_a_percentile_is_what_other_samples_show() -> None:
    samples = RANDOM.exponential(size=(400, 2000))
    medians = np.median(samples, axis=1)
    errors = [statistics.percentile(np.sort(sample), 0.5).stderr for sample in samples]
    assert np.mean(errors) == pytest.approx(medians.std(), rel=0.15)


# --------------------------------------------------------------------------------------------------- texts


def test_the_built_in_texts_have_nothing_in_common() -> None:
    one, other = (texts.built_in(name).content for name in (texts.EVALUATION, texts.CALIBRATION))
    assert all(60_000 < len(text.encode()) < 110_000 for text in (one, other))
    seen = {one[start : start + 50] for start in range(len(one) - 50)}
    assert not any(other[start : start + 50] in seen for start in range(len(other) - 50))


def test_a_text_of_the_user(tmp_path: Path) -> None:
    path = tmp_path / "text.txt"
    path.write_bytes("Grüße\n\n".encode())
    assert texts.read(path) == ("text.txt", "Grüße\n")
    path.write_bytes(b"\xff\xfe")
    with pytest.raises(UsageError, match=r"text\.txt is not UTF-8 text"):
        texts.read(path)
    with pytest.raises(UsageError, match="is not a file"):
        texts.read(tmp_path)
    with path.open("wb") as file:
        file.truncate(texts.MOST_BYTES + 1)
    with pytest.raises(UsageError, match="larger than 32 MB"):
        texts.read(path)


# ---------------------------------------------------------------------------------------------------- kept


def chunk(number: int, count: int = 3, *, compared: bool = True) -> protocol.Evaluated:
    numbers = np.linspace(0, 1, count).astype("<f4").tobytes()
    rest = (numbers, numbers, bytes(count)) if compared else (b"", b"", b"")
    return protocol.Evaluated(1, number, numbers, *rest)


def test_chunks_are_kept_from_the_first_on(tmp_path: Path) -> None:
    path = tmp_path / "new" / "some.chunks"
    assert kept.load(path, 3, compared=True) == []
    for number in (0, 1, 3):
        kept.add(path, chunk(number))
    assert len(kept.load(path, 3, compared=True)) == 2
    kept.add(path, chunk(2))
    assert len(kept.load(path, 3, compared=True)) == 4
    kept.forget(path)
    assert kept.load(path, 3, compared=True) == []


@pytest.mark.parametrize(
    "damage",
    [
        protocol.encode(chunk(1))[:-5],
        b"\xff" * 40,
        protocol.encode(chunk(1, 4)),
        protocol.encode(chunk(1, compared=False)),
        protocol.encode(protocol.Evaluated(1, 1, *[np.full(3, np.nan, "<f4").tobytes()] * 3, bytes(3))),
        protocol.encode(protocol.Evaluated(1, 1, *[np.full(3, -1, "<f4").tobytes()] * 3, bytes(3))),
        protocol.encode(protocol.Evaluated(1, 1, *[bytes(12)] * 3, b"\2\0\0")),
    ],
    ids=["torn", "noise", "longer", "alone", "nan", "negative", "not-a-truth"],
)
def test_what_is_damaged_is_measured_again(tmp_path: Path, damage: bytes) -> None:
    path = tmp_path / "some.chunks"
    path.write_bytes(protocol.encode(chunk(0)) + damage)
    assert len(kept.load(path, 3, compared=True)) == 1
    kept.add(path, chunk(1))
    assert len(kept.load(path, 3, compared=True)) == 2


def test_what_is_kept_belongs_to_all_that_figures_depend_on(nano: Path, tmp_path: Path) -> None:
    fields = {"model": "a", "reference": "", "text": "t", "context": 512, "llama_cpp_commit": "c"}
    fields |= {"kv_type": "f16", "flash_attention": "auto", "backend": "CPU"}
    key = kept.Key(**fields)  # type: ignore[arg-type]
    others = [kept.Key(**{**fields, name: 7 if name == "context" else "x"}) for name in fields]  # type: ignore[arg-type]
    assert len({key.path, *(other.path for other in others)}) == len(fields) + 1
    copy = tmp_path / "copy.gguf"
    copy.write_bytes(nano.read_bytes())
    assert kept.identity(nano, "") != kept.identity(copy, "")  # it may differ where no sample was taken
    assert kept.identity(nano, "abc") == "abc"
