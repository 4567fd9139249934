"""Which type is advised: never a dominated one, none that does not fit, and nothing that the errors hide."""

from __future__ import annotations

import math

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai.comparison import front, words
from localai.comparison.advice import advise
from localai.comparison.choice import needed
from localai.comparison.result import Advice, Row
from models.figures import Answers
from tests.localai.comparisons import GB, SMALL, USUAL, comparison, row

_NAMES = ["Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "IQ4_XS", "Q4_0", "Q3_K_M", "Q2_K", "F16"]


@st.composite
def some_rows(draw: st.DrawFn) -> list[Row]:
    """Types with figures that are near each other more often than they would be by chance."""
    names = draw(st.lists(st.sampled_from(_NAMES), min_size=1, max_size=7, unique=True))
    sizes = st.sampled_from([1e8, 1.002e8, 1.05e8, 2e8, 3e9, 3.01e9, 8e9])
    losses = st.one_of(st.none(), st.sampled_from([0.0, 0.001, 0.0012, 0.015, 0.016, 0.07, 0.075, 0.3, 0.9]))
    paces = st.one_of(st.none(), st.sampled_from([3.0, 3.1, 9.0, 19.9, 20.1, 100.0, 104.0, 180.0]))
    rights = st.one_of(st.none(), st.integers(0, 40))
    return [
        row(
            name,
            draw(sizes),
            draw(losses),
            draw(st.sampled_from([0.5, 0.89, 0.95])),
            draw(paces),
            error=draw(st.sampled_from([0.0, 0.05, 0.3])),
            right=draw(rights),
            memory=draw(st.sampled_from([None, {}, {4096: int(1e8)}, {4096: int(2e9), 16384: int(5e9)}])),
        )
        for name in names
    ]


def chosen(rows: list[Row], advice: Advice) -> Row:
    return next(one for one in rows if one.file_type == advice.file_type)


def said(advice: Advice | None) -> str:
    assert advice is not None
    return "\n".join([advice.sentence, *advice.remarks])


# ---------------------------------------------------------------------------------------- what always holds


@settings(deadline=None, max_examples=400)
@given(
    some_rows(), st.sampled_from([int(5e7), int(1.2e8), int(4e9), int(2e10)]), st.none() | st.just(int(2e9))
)
def test_the_advice_fits_and_is_not_dominated(rows: list[Row], memory: int, most: int | None) -> None:
    found = advise(rows, memory_usable=memory, max_size=most)
    known = front.measured(rows)
    if found is None:
        assert not known
        return
    limit = math.inf if most is None else most
    contexts = sorted({tokens for one in known for tokens in one.memory}) or [0]
    if not found.file_type:
        assert all(one.size > limit or needed(one, contexts[0]) > memory for one in known)
        return
    best = chosen(rows, found)
    assert best.loss is not None
    assert best.size <= limit
    fits = [c for c in contexts if needed(best, c) <= memory]
    assert fits
    others = [one for one in known if one.size <= limit and needed(one, max(fits)) <= memory]
    assert not any(front.dominates(other, best) for other in others)


@settings(deadline=None, max_examples=200)
@given(some_rows(), st.randoms(use_true_random=False))
def test_the_order_of_the_rows_changes_nothing(rows: list[Row], random: object) -> None:
    mixed = list(rows)
    random.shuffle(mixed)  # type: ignore[attr-defined]
    one = advise(rows, memory_usable=int(4e9), max_size=int(5e9))
    other = advise(mixed, memory_usable=int(4e9), max_size=int(5e9))
    assert one == other


@settings(deadline=None, max_examples=300)
@given(some_rows())
def test_no_type_dominates_itself_in_a_circle(rows: list[Row]) -> None:
    known = front.measured(rows)
    assert bool(front.front(rows)) == bool(known)
    for one in known:
        chain, now = 0, one
        while (better := front.dominator(now, rows)) is not None:
            chain, now = chain + 1, better
            assert chain <= len(known)


# -------------------------------------------------------------------------------------------- who dominates


def test_within_the_error_is_not_worse_and_clearly_smaller_is_better() -> None:
    one, other = row("IQ4_XS", 86e6, 0.0705, pace=185), row("Q4_K_M", 100e6, 0.0700, pace=144)
    assert front.dominates(one, other)
    remarks = advise([one, other], memory_usable=GB)
    assert (
        "Q4_K_M is dominated here: IQ4_XS is 14% smaller and 28% faster, and its loss is the same "
        "within the error." in said(remarks)
    )


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (row("A", 86e6, 0.080, pace=185), row("B", 100e6, 0.070, pace=144)),  # loses more
        (row("A", 86e6, 0.070, pace=130), row("B", 100e6, 0.070, pace=144)),  # slower
        (row("A", 101e6, 0.030, pace=185), row("B", 100e6, 0.070, pace=144)),  # larger
        (row("A", 99.9e6, 0.0695, pace=145), row("B", 100e6, 0.070, pace=144)),  # nothing is clearly better
        (row("A", 86e6, 0.030), row("B", 100e6, 0.070, pace=144)),  # nobody knows how fast it is
    ],
    ids=["loss", "speed", "size", "nothing", "unknown"],
)
def test_what_is_worse_in_one_thing_or_better_in_none_does_not_dominate(one: Row, other: Row) -> None:
    assert not front.dominates(one, other)


def test_with_large_errors_nothing_is_said_to_be_less() -> None:
    def two(error: float) -> list[Row]:
        figures = (("Q5_K_M", 110e6, 0.020), ("Q4_K_M", 104e6, 0.025))
        return [row(name, size, kl, pace=100, error=error) for name, size, kl in figures]

    assert "more loss" not in said(advise(two(0.3), memory_usable=GB))
    assert "25% more loss" in said(advise(two(0.01), memory_usable=GB))


def test_a_loss_that_nobody_could_measure_again_is_the_same_loss() -> None:
    small = row("Q8_0", 1e8, 0.0003, pace=50, error=0.0)
    assert front.dominates(small, row("F16", 2e8, 0.0, pace=50, error=0.0))


# ------------------------------------------------------------------------------------------------- the rule


def test_where_all_are_quick_the_most_exact_is_taken() -> None:
    found = advise(SMALL, memory_usable=6 * GB)
    assert found is not None
    assert found.file_type == "Q8_0"
    assert found.sentence == (
        "Take Q8_0: its loss is hardly noticeable, and it is quick here (101 tokens/s); "
        "it picks the same next word as the original (F16) in 95 of 100 places."
    )
    assert (
        found.remarks[0]
        == "Compared with Q8_0, Q6_K is 6 MB smaller and 8% faster, but has 2.5 times the loss."
    )


def test_where_none_is_quick_the_fastest_of_the_exact_ones_is_taken() -> None:
    found = advise(USUAL, memory_usable=16 * GB)
    assert found is not None
    assert found.file_type == "Q5_K_M"
    assert "it is the fastest (9.9 tokens/s) of those whose loss is hardly noticeable" in found.sentence
    assert "Q6_K has 64% less loss, but is 0.81 GB larger and 15% slower." in said(found)
    assert "Q4_K_M is 0.76 GB smaller and 17% faster, but has 3.1 times the loss." in said(found)


def test_of_those_as_fast_within_the_error_the_most_exact_is_taken() -> None:
    rows = [
        row("Q6_K", 6e9, 0.004, 0.97, 9.8),
        row("Q5_K_M", 5e9, 0.012, 0.96, 9.9),
        row("Q8_0", 8e9, 0.001, 0.98, 7),
    ]
    found = advise(rows, memory_usable=16 * GB)
    assert found is not None
    assert found.file_type == "Q6_K"


def test_where_none_is_exact_the_one_that_loses_least_is_taken() -> None:
    found = advise(SMALL, memory_usable=6 * GB, max_size=130_000_000)
    assert found is not None
    assert found.file_type == "Q4_K_M"
    assert (
        "of the types within the limits it loses least, and its loss is noticeable at times" in found.sentence
    )
    assert "it takes 137.0 MB of disk, and the limit is 130.0 MB" in said(found)


def test_what_loses_much_is_called_that() -> None:
    found = advise([row("Q2_K", 3e9, 0.7, 0.6, 9), row("IQ1_S", 2e9, 2.0, 0.3, 9)], memory_usable=16 * GB)
    assert "but its loss is severe" in said(found)
    assert "a smaller model in a finer type may serve better" in said(found)


def test_with_too_little_memory_for_much_context_it_says_so() -> None:
    found = advise(USUAL, memory_usable=int(3.4 * GB))
    assert found is not None
    assert found.file_type == "Q2_K"
    assert found.remarks[0] == "Q2_K fits with 4k tokens of context, but not with 16k."


def test_when_nothing_fits_it_says_what_the_smallest_takes() -> None:
    found = advise(USUAL, memory_usable=2 * GB)
    assert found is not None
    assert found.file_type == ""
    assert found.sentence == (
        "None of these types fits here: Q2_K, the smallest, takes 3.3 GB of memory with 4k tokens of "
        "context, and a model may take 2.0 GB."
    )
    assert "takes 3.0 GB of disk, and the limit is 1.0 GB" in said(
        advise(USUAL, memory_usable=16 * GB, max_size=GB)
    )
    assert "may take 2.0 GB" in said(advise(USUAL, memory_usable=16 * GB, max_memory=2 * GB))


def test_what_is_not_quantized_is_taken_only_where_all_else_loses() -> None:
    whole = row("F16", 270e6, 0.0, 1.0, 60, error=0.0)
    exact = advise([whole, *SMALL], memory_usable=6 * GB)
    assert exact is not None
    assert exact.file_type == "Q8_0"
    coarse = advise([whole, *(one for one in SMALL if one.size < 120e6)], memory_usable=6 * GB)
    assert coarse is not None
    assert coarse.file_type == "F16"


def test_clearly_fewer_right_answers_count_more_than_a_small_loss() -> None:
    rows = [row("Q8_0", 8e9, 0.001, 0.98, 7, right=36), row("Q5_K_M", 5e9, 0.015, 0.95, 10, right=12)]
    found = advise(rows, memory_usable=16 * GB)
    assert found is not None
    assert found.file_type == "Q8_0"
    assert "Q8_0 answered 36 of 40 questions rightly (sums), clearly more than Q5_K_M." in found.remarks
    near = [rows[0], msgspec.structs.replace(rows[1], answers=Answers(set="sums", right=34, asked=40))]
    assert advise(near, memory_usable=16 * GB).file_type == "Q5_K_M"  # type: ignore[union-attr]
    # Other questions tell nothing.
    other = [rows[0], msgspec.structs.replace(rows[1], answers=Answers(set="words", right=12, asked=40))]
    assert advise(other, memory_usable=16 * GB).file_type == "Q5_K_M"  # type: ignore[union-attr]


# -------------------------------------------------------------------------------------- what is not known


def test_without_any_loss_there_is_no_advice() -> None:
    assert advise([], memory_usable=GB) is None
    assert advise([row("Q8_0", 1e8, pace=10), row("Q4_0", 5e7, pace=20)], memory_usable=GB) is None


def test_what_was_not_measured_is_named_and_not_taken() -> None:
    rows = [
        row("Q6_K", 1e8),
        row("Q8_0", 2e8, 0.003, 0.97),
        row("Q4_K_M", 8e7, 0.05, 0.9),
        row("Q3_K_M", 7e7),
    ]
    found = advise(rows, memory_usable=GB)
    assert found is not None
    assert found.file_type == "Q8_0"
    assert "it is small (200.0 MB)" in found.sentence
    assert found.remarks[-1] == "Not measured, and so not considered: Q3_K_M and Q6_K."


def test_without_speeds_a_large_model_gets_the_smallest_exact_type() -> None:
    rows = [msgspec.structs.replace(one, speed=None) for one in USUAL]
    found = advise(rows, memory_usable=16 * GB)
    assert found is not None
    assert found.file_type == "Q5_K_M"
    assert "it is the smallest (5.4 GB) of those whose loss is hardly noticeable" in found.sentence
    assert "fast" not in said(found)


def test_what_only_stands_for_the_original_is_not_called_so() -> None:
    assert words.original("BF16") == "the original (BF16)"
    assert words.original("Q8_0") == "Q8_0"


def test_a_perplexity_has_no_exponent() -> None:
    assert [words.surprise(one) for one in (16.9409, 999.4, 2_997_512.3)] == ["16.94", "999.4", "2,997,512"]


def test_a_single_type_is_judged_by_itself() -> None:
    found = advise([row("Q4_K_M", 1e8, 0.03, 0.92, 100)], memory_usable=GB)
    assert found == Advice(
        file_type="Q4_K_M",
        sentence="Q4_K_M fits, and its loss is noticeable at times: it picks the same next word as the "
        "original (F16) in 92 of 100 places.",
    )


# ------------------------------------------------------------------------------------------------ the words


@pytest.mark.parametrize(
    ("mine", "theirs", "expected"),
    [
        ((50e6, 0.035, 200), (100e6, 0.070, 100), "is 50% smaller and twice as fast, and has half the loss"),
        ((100e6, 0.0, 300), (100e6, 0.070, 100), "is 3.0 times as fast, and has no loss"),
        ((100e6, 0.14, 80), (100e6, 0.070, 100), "is 20% slower, and has twice the loss"),
        ((130e6, 0.1, 100), (100e6, 0.0, 100), "is 30% larger, and has a loss, where the other has none"),
        ((100.2e6, 0.07, 101), (100e6, 0.0705, 100), ""),
    ],
)
def test_differences_in_words(
    mine: tuple[float, float, float], theirs: tuple[float, float, float], expected: str
) -> None:
    one, other = (row("Q4_0", size, kl, pace=pace) for size, kl, pace in (mine, theirs))
    assert words.sentence(words.differences(one, other)) == expected


def test_figures_in_words() -> None:
    assert words.with_error(0.07018, 0.0036) == "0.0702 ± 0.0036"
    assert words.with_error(0.0, 0.0) == "0"
    assert [words.places(share) for share in (0.93235, 0.9987, 0.99999, 1.0)] == [
        "93 of 100",
        "999 of 1,000",
        "all but a few of 1,000",
        "each",
    ]
    assert [words.size(size) for size in (12, 103_700_000, 999_999_999, 4_680_000_000)] == [
        "12 bytes",
        "103.7 MB",
        "1.0 GB",
        "4.7 GB",
    ]
    assert [words.rough(size) for size in (460_000_000, 6_000_000, 760_000_000)] == [
        "460 MB",
        "6 MB",
        "0.76 GB",
    ]
    assert [words.pace(rate) for rate in (144.2, 9.4, 0.123)] == ["144", "9.4", "0.12"]


def test_the_command_is_safe_to_paste() -> None:
    found = comparison(source="my  model; rm -rf /", imatrix="auto", options=("--allow-requantize",))
    assert words.command(found, "Q4_K_M") == (
        "localai quantize 'my  model; rm -rf /' --type Q4_K_M --imatrix auto --allow-requantize"
    )
    assert "\n" not in words.command(comparison(source="a\nb\x1b[31m"), "Q4_0")


@pytest.mark.parametrize(
    ("loss", "said"),
    [
        (0.0149, "49% more loss"),
        (0.02, "twice the loss"),
        (0.0312, "3.1 times the loss"),
        (1.13, "113 times the loss"),
    ],
)
def test_losses_are_compared_in_words(loss: float, said: str) -> None:
    one, other = row("Q2_K", 1e8, loss, 0.5, 10.0), row("Q8_0", 1e8, 0.01, 0.9, 10.0)
    assert [one.words for one in words.differences(one, other)] == [said]


def test_a_text_that_the_model_cannot_read_is_told() -> None:
    """As of a model that knows sums only: its answers say more than what it has lost on prose."""
    assert "means nothing to the model" not in said(advise(USUAL, memory_usable=16 * GB))
    rows = [
        msgspec.structs.replace(one, loss=one.loss and msgspec.structs.replace(one.loss, perplexity=2.4e6))
        for one in USUAL
    ]
    assert "This text means nothing to the model (perplexity 1," in said(advise(rows, memory_usable=16 * GB))
