"""Whether a model fits, in the words of the screens: the same verdict that `localai models fit` gives."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from models import alternatives, catalog, need
from models.bandwidth import Measured
from models.gguf import read_header
from models.header import Header
from models.machine import Machine
from models.sketch import sketch
from tui.fitting import fit_of, fit_of_unseen

GB = 1_000_000_000


@pytest.fixture(scope="session")
def header(nano: Path) -> Header:
    return read_header(nano)


def machine(free: int, total: int = 8 * GB, gigabytes_per_s: float = 200) -> Machine:
    """A machine with `free` of `total` bytes of memory, which is read quickly."""
    speed = gigabytes_per_s * 1e9
    measured = Measured(processor="", cores=8, bytes_per_s=speed, flops=90e9, date="2026-01-01")
    return Machine(total, 8, available=free, measured=measured)


def test_all_of_its_context(header: Header) -> None:
    found = fit_of(header, machine(4 * GB))
    assert found.verdict == "fits"
    assert found.why.startswith("With 2,048 tokens of context it takes ")
    assert found.why.endswith(" of memory, and 4.0 GB is free.")
    assert found.tokens_per_s > 100


def test_a_part_of_its_context(header: Header) -> None:
    wide = msgspec.structs.replace(
        header, metadata=header.metadata | {f"{header.architecture}.context_length": 131_072}
    )
    found = fit_of(wide, machine(need.need(wide, 4096).total))
    assert found.verdict == "fits"
    assert "; up to 4,096 tokens fit." in found.why
    assert fit_of(wide, machine(need.need(wide, 2048).total)).verdict == "fits"
    assert fit_of(wide, machine(need.need(wide, 2048).total - 1)).verdict == "tight"


def test_what_is_free_does_not_suffice(header: Header) -> None:
    found = fit_of(header, machine(1_000_000))
    assert found.verdict == "tight"
    assert "of memory, and 1.0 MB is free: close other programs, or it is slow." in found.why


def test_the_machine_does_not_suffice(header: Header) -> None:
    found = fit_of(header, machine(1_000_000, 2_000_000))
    assert found.verdict == "too large"
    assert "and this machine has 2.0 MB: it would be very slow." in found.why
    assert found.tokens_per_s == 0


def test_one_of_the_catalogue_is_judged_as_its_file_will_be() -> None:
    entry = catalog.find("r1:7b")
    file = sketch(entry, "Q8_0")
    assert file is not None
    for free in (2 * GB, 7 * GB, 12 * GB):
        assert fit_of_unseen("r1:7b", "Q8_0", 0, 0, machine(free)) == fit_of(file, machine(free))


def test_what_to_take_instead_is_said_where_it_does_not_fit_or_is_slow() -> None:
    found = fit_of_unseen("r1:70b", "Q4_K_M", 0, 0, machine(7 * GB))
    assert "this machine has 8.0 GB" in found.why
    assert "r1-0528:8b fits, and writes about" in found.why
    slow = fit_of_unseen("r1:7b", "Q4_K_M", 0, 0, machine(7 * GB, gigabytes_per_s=15))
    assert slow.verdict == "fits"
    assert "r1:1.5b fits, and writes about" in slow.why
    good = fit_of_unseen("r1:7b", "Q4_K_M", 0, 0, machine(7 * GB))
    assert good.why == alternatives.of_entry(catalog.find("r1:7b"), "Q4_K_M", machine(7 * GB)).why


@pytest.mark.parametrize(
    ("file_size", "parameters", "verdict"),
    [(2 * GB, 0, "fits"), (0, GB // 2, ""), (0, 0, ""), (6 * GB, 0, "tight"), (12 * GB, 0, "too large")],
)
def test_one_of_which_only_the_size_is_known(file_size: int, parameters: int, verdict: str) -> None:
    found = fit_of_unseen("", "Q4_K_M", file_size, parameters, machine(5 * GB))
    assert found.verdict == verdict
    if not verdict:
        assert found.why == "Whether it fits is known once it is here."
