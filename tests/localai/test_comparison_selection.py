"""Which types are compared, with what, in how many readings, and how much of each is measured."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.comparison import asking, losses, selection, speeds
from localai.comparison.estimate import estimate
from localai.comparison.selection import Reference
from localai.errors import NoSpace, UsageError
from models.bandwidth import Measured
from models.gguf import read_header
from models.header import Header
from quantize.file_types import FILE_TYPES
from quantize.protocol import Candidate, Forecast

GB = 10**9
BITS = {"F32": 32, "BF16": 16, "F16": 16, "Q8_0": 8.5, "Q6_K": 6.6, "Q5_K_M": 5.7, "Q4_K_M": 4.9}
BITS |= {"Q4_K_S": 4.6, "IQ4_XS": 4.3, "Q4_1": 5.0, "Q4_0": 4.55, "Q3_K_M": 3.9, "Q2_K": 3.0}
BITS |= {"IQ3_M": 3.7, "IQ3_XXS": 3.1, "IQ2_M": 2.7}
NEEDS = ("IQ3_XXS", "IQ2_M", "IQ1_S")


def forecast(weights: float = 7e9, *, source: str = "BF16", matrix: bool = False, **layouts: str) -> Forecast:
    """Of a model with so many weights; `layouts` of types that are not to be of their own."""
    candidates = []
    for name in FILE_TYPES:
        size = int(weights * BITS.get(name, 2.5) / 8)
        memory = {context: size + context * 10**5 for context in (4096, 16384, 32768)}
        needs = name in NEEDS and not matrix
        candidates.append(Candidate(name, size, BITS.get(name, 2.5), needs, memory, layouts.get(name, name)))
    return Forecast(
        "qwen2",
        300,
        int(weights),
        source,
        int(weights * BITS.get(source, 2.5) / 8),
        131_072,
        GB,
        tuple(candidates),
    )


def names(found: selection.Selection) -> list[str]:
    return [one.file_type for one in found.types]


def test_the_useful_types_the_largest_first() -> None:
    found = selection.select(forecast(), [], 100 * GB)
    assert names(found) == [
        *("Q8_0", "Q6_K", "Q5_K_M", "Q4_1", "Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K")
    ]
    assert found.notes == ()


def test_with_an_importance_matrix_also_those_that_need_one() -> None:
    assert {"IQ3_M", "IQ3_XXS", "IQ2_M"} < {*names(selection.select(forecast(matrix=True), [], 100 * GB))}


def test_what_would_only_have_another_name_is_left_out_and_told() -> None:
    found = selection.select(forecast(Q4_K_M="same", Q4_K_S="same"), [], 100 * GB)
    assert "Q4_K_S" not in names(found)
    assert found.notes == ("Q4_K_S is left out: for this model it is the same as Q4_K_M",)


def test_what_does_not_run_here_is_left_out_and_told() -> None:
    found = selection.select(forecast(), [], 4_750_000_000)
    assert names(found) == ["Q4_K_M", "Q4_K_S", "Q4_0", "IQ4_XS", "Q3_K_M", "Q2_K"]
    (note,) = found.notes
    assert note.startswith("Q8_0, Q6_K, Q5_K_M and Q4_1 would not run in the ")


def test_where_nothing_runs_the_smallest_is_measured_all_the_same() -> None:
    assert names(selection.select(forecast(), [], GB)) == ["Q2_K"]


def test_named_types_are_taken_as_they_are() -> None:
    known = forecast(Q4_K_M="same", Q4_K_S="same")
    assert names(selection.select(known, ["Q4_K_S", "F16", "Q4_K_M"], GB)) == ["F16", "Q4_K_M", "Q4_K_S"]


def test_a_source_that_is_smaller_than_all() -> None:
    tiny = forecast(source="IQ1_S", matrix=True)
    with pytest.raises(UsageError, match="Name types"):
        selection.select(tiny, [], 100 * GB)


# -------------------------------------------------------------------------------------------- the reference


@pytest.mark.parametrize(
    ("memory", "gguf", "source", "expected"),
    [
        (40, False, "BF16", ("BF16", True, True, 0)),
        (40, True, "F16", ("F16", False, True, 0)),
        (20, True, "F16", ("Q8_0", True, False, 1)),
        (20, False, "BF16", ("Q8_0", True, False, 1)),
        (12, False, "BF16", ("Q8_0", True, False, 2)),
        (2, True, "Q6_K", ("Q6_K", False, True, 0)),
    ],
)
def test_what_they_are_compared_with(
    memory: int, gguf: bool, source: str, expected: tuple[str, bool, bool, int]
) -> None:
    """The source's precision if two files fit into memory, else Q8_0, and what to know of that."""
    known = forecast(source=source)
    types = selection.select(known, ["Q4_K_M", "Q6_K"], memory * GB).types
    found = selection.reference(known, types, memory * GB, gguf=gguf)
    assert (found.file_type, found.made, found.exact, len(found.notes)) == expected


# ------------------------------------------------------------------------------------------------- the disk


def test_all_at_once_if_there_is_room() -> None:
    known = forecast()
    types = selection.select(known, [], 100 * GB).types
    reference = selection.reference(known, types, 100 * GB, gguf=False)
    needed = selection.disk_needed(types, reference)
    assert needed == sum(one.size for one in types) + reference.size
    assert [len(group) for group in selection.groups(types, reference, needed)] == [len(types)]
    assert len(selection.groups(types, reference, needed - 1)) == 2


@given(st.integers(0, 80 * GB), st.booleans())
def test_no_group_takes_more_than_there_is(free: int, made: bool) -> None:
    types = selection.select(forecast(), [], 100 * GB).types
    reference = Reference("BF16", 14 * GB, made=made, exact=True)
    if free < types[0].size + (reference.size if made else 0):
        with pytest.raises(NoSpace, match="--type"):
            selection.groups(types, reference, free)
        return
    groups = selection.groups(types, reference, free)
    assert [one for group in groups for one in group] == list(types)
    assert all(selection.disk_needed(group, reference) <= free for group in groups)


# ------------------------------------------------------------------------------------ how much is measured


def test_as_many_chunks_as_there_is_time_for() -> None:
    assert losses.chunks(0.01, 10) == 64
    assert losses.chunks(3.0, 10) == 16
    assert losses.chunks(60.0, 10) == 4  # no less, or it would say nothing
    assert losses.context(None, 131_072) == losses.context(None, 0) == 512
    assert losses.context(None, 256) == 256
    assert losses.context(64, 131_072) == 64


def test_as_long_prompts_as_there_is_time_for() -> None:
    assert speeds.lengths(500, 150, 30, 8192) == (512, 128)
    assert speeds.lengths(20, 4, 30, 8192) == (64, 16)
    assert speeds.lengths(20, 4, 6, 8192) == (128, 32)
    assert speeds.lengths(1e9, 1e9, 1, 700) == (512, 128)
    assert sum(speeds.lengths(1e9, 1e9, 1, 256)) < 256
    assert sum(speeds.lengths(1e9, 1e9, 1, 32)) < 32


def test_rounds_go_to_and_fro() -> None:
    """So that the first type is not always measured when the machine is cool."""
    assert speeds.in_turns(["a", "b"], 3) == ["a", "b", "b", "a", "a", "b"]


def test_questions_are_asked_if_that_is_quick(nano_header: Header) -> None:
    found = asking.plan(nano_header, None, [1000.0, 1000.0])
    assert found.tasks is not None
    assert found.questions == len(found.tasks.questions)
    slow = asking.plan(nano_header, None, [1.0, None])
    assert slow.tasks is None
    assert "--tasks 10" in slow.note
    assert asking.plan(nano_header, 7, [1.0]).questions == 7
    assert asking.plan(nano_header, 0, [1000.0]) == asking.Asking(None)


@pytest.fixture(scope="module")
def nano_header(nano: Path) -> Header:
    return read_header(nano)


def test_an_estimate_grows_with_the_model_and_the_types() -> None:
    machine = Measured(processor="x", cores=2, bytes_per_s=2e10, flops=9e10, date="2026-01-01")
    small = estimate(forecast(1e8), forecast(1e8).candidates[3:6], 3, 0, 512, machine)
    large = estimate(forecast(7e9), forecast(7e9).candidates[3:6], 3, 0, 512, machine)
    more = estimate(forecast(7e9), forecast(7e9).candidates[3:14], 3, 0, 512, machine)
    assert 5 < small.total < large.total < more.total < 24 * 3600
