"""Whether a model fits, in words."""

from __future__ import annotations

from pathlib import Path

import pytest

from models import fit
from models.gguf import read_header
from models.header import Header
from tui.fitting import fit_of, fit_of_unseen

GB = 1_000_000_000


@pytest.fixture(scope="session")
def header(nano: Path) -> Header:
    return read_header(nano)


def test_all_of_its_context(header: Header) -> None:
    found = fit_of(header, 4 * GB, 8 * GB)
    assert found.verdict == "fits"
    assert found.why == "Fits, with all 2,048 tokens of its context in the 4.0 GB of memory that is free."


def test_a_part_of_its_context(header: Header) -> None:
    wide = Header(
        version=header.version,
        metadata=header.metadata | {f"{header.architecture}.context_length": 131_072},
        tensors=header.tensors,
        alignment=header.alignment,
        data_offset=header.data_offset,
        file_size=header.file_size,
    )
    shape = fit.Shape.of(wide)
    free = wide.tensor_bytes + fit.context_bytes(shape, 65_536)
    found = fit_of(wide, free, 8 * GB)
    assert found.verdict == "fits"
    assert found.why.startswith("Fits, with up to 65,536 tokens of context in the ")
    least = fit.context_bytes(shape, fit.LEAST)
    assert fit_of(wide, wide.tensor_bytes + least, 8 * GB).verdict == "fits"
    assert fit_of(wide, wide.tensor_bytes + least - 1, 8 * GB).verdict == "tight"


def test_what_is_free_does_not_suffice(header: Header) -> None:
    found = fit_of(header, 1_000_000, 8 * GB)
    assert found.verdict == "tight"
    assert found.why.endswith(" of memory and 1 MB is free: close other programs, or it is slow.")


def test_the_machine_does_not_suffice(header: Header) -> None:
    found = fit_of(header, 1_000_000, 2_000_000)
    assert found.verdict == "too large"
    assert found.why.endswith(" of memory and this machine has 2 MB: it would be very slow.")


@pytest.mark.parametrize(
    ("file_size", "parameters", "verdict", "why"),
    [
        (2 * GB, 0, "fits", "Fits: it is small"),
        (0, GB // 2, "fits", "Fits: it is small"),
        (0, 2 * GB, "", "Whether it fits is known once it is here."),
        (0, 0, "", "Whether it fits is known once it is here."),
        (4 * GB, 0, "fits", "Fits; for how much context is known once it is here."),
        (6 * GB, 0, "tight", "Needs 6.0 GB of memory and 5.0 GB is free"),
        (9 * GB, 0, "too large", "Needs 9.0 GB of memory and this machine has 8.0 GB"),
    ],
)
def test_one_that_is_not_here(file_size: int, parameters: int, verdict: str, why: str) -> None:
    found = fit_of_unseen(file_size, parameters, 5 * GB, 8 * GB)
    assert found.verdict == verdict
    assert found.why.startswith(why)
