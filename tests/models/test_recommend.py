"""Which model is recommended for which machine."""

from __future__ import annotations

import pytest

from models import catalog
from models.bandwidth import Measured
from models.catalog import Entry, ReadyFile
from models.machine import Machine
from models.offload import Memory
from models.origins import Builtin, UrlFile
from models.recommend import Recommendation, recommend, weight_bytes
from models.verdict import judge_entry

GB = 1 << 30


def entry(name: str, parameters: int, *, reasoning: bool = True, size: int = 0) -> Entry:
    """A model at Q4_K_M. Without a `size` it is one of those that are shipped with the program."""
    source = UrlFile(url="https://example.org/model.gguf", sha256="0" * 64, size=size)
    return Entry(
        name=name,
        title=name,
        type="Q4_K_M",
        reasoning=reasoning,
        license="MIT",
        parameters=parameters,
        context=131_072,
        file=(ReadyFile(type="Q4_K_M", source=source),) if size else (),
        checkpoint=None if size else Builtin(checkpoint=name),
    )


def machine(memory: int, cores: int, gigabytes_per_s: float = 0, *cards: int) -> Machine:
    """With so much memory, that is read so fast if anybody has measured it; gigabytes of graphics cards."""
    measured = None
    if gigabytes_per_s:
        speed = gigabytes_per_s * 1e9
        measured = Measured(processor="", cores=cores, bytes_per_s=speed, flops=90e9, date="2026-01-01")
    gpus = tuple(Memory(card * GB, card * GB) for card in cards)
    return Machine(memory * GB, cores, gpus, measured=measured)


def chosen(of: Machine) -> Recommendation:
    found = recommend(catalog.entries(), of)
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("memory", "cores", "bandwidth", "name"),
    [
        (2, 4, 0, "smollm2:135m"),
        (4, 2, 0, "r1:1.5b"),
        (4, 8, 50, "r1:1.5b"),
        (8, 2, 0, "r1:1.5b"),
        (16, 2, 0, "r1:1.5b"),
        (16, 8, 100, "r1:14b"),
        (32, 12, 80, "r1:14b"),
        (64, 2, 20, "r1:1.5b"),
        (64, 16, 200, "r1:32b"),
        (192, 24, 800, "r1:70b"),
    ],
)
def test_memory_and_speed_decide(memory: int, cores: int, bandwidth: float, name: str) -> None:
    here = machine(memory, cores, bandwidth)
    found = chosen(here)
    assert found.name == name
    if name.startswith("r1:"):
        assert f"fits into {memory} GB of memory and is quick on {cores} cores" in found.why
        assert judge_entry(catalog.find(name), "Q4_K_M", here).is_good
    else:
        assert f"need more than {memory} GB" in found.why


@pytest.mark.parametrize("memory", [8, 16, 32])
def test_a_usual_laptop_gets_a_model_of_7_or_8_billion(memory: int) -> None:
    """50 GB/s, as two channels of DDR4 and slow DDR5 give."""
    assert chosen(machine(memory, 8, 50)).name in ("r1:7b", "r1:8b", "r1-0528:8b")


@pytest.mark.parametrize(("card", "name"), [(12, "r1:14b"), (24, "r1:32b"), (80, "r1:70b")])
def test_a_graphics_card_that_holds_it_makes_a_larger_one_quick(card: int, name: str) -> None:
    found = chosen(machine(16, 8, 0, card))
    assert found.name == name
    assert f"{card} GB of the graphics card" in found.why


def test_two_cards_count_together() -> None:
    assert chosen(machine(16, 8, 0, 24, 24)).name == "r1:70b"


def test_a_card_that_is_too_small_counts_as_none() -> None:
    assert chosen(machine(16, 8, 50, 1)).name == chosen(machine(16, 8, 50)).name


def test_what_is_free_at_the_moment_does_not_count() -> None:
    busy = Machine(16 * GB, 8, available=GB)
    assert chosen(busy) == chosen(Machine(16 * GB, 8))


DISTILLS = [
    entry("own:7b", 7_615_616_512, size=4_683_073_536),
    entry("own:14b", 14_770_033_664, size=8_988_110_272),
]


def test_where_all_that_fit_are_slow_it_is_the_smallest_and_said_so() -> None:
    found = recommend(DISTILLS, Machine(32 * GB, cores=1))
    assert found is not None
    assert found.name == "own:7b"
    assert "on 1 core any other would be slower" in found.why


def test_a_machine_for_which_all_is_too_large_gets_the_smallest() -> None:
    found = recommend(catalog.entries(), Machine(GB // 16, cores=1))
    assert found is not None
    assert found.name == "r1-nano"


def test_an_empty_catalogue_recommends_nothing() -> None:
    assert recommend([], Machine(16 * GB, 8)) is None


def test_what_is_shipped_with_the_program_is_no_recommendation_while_there_is_another() -> None:
    toy = entry("toy", 4_000_000)
    plain = entry("plain", 100_000_000, reasoning=False, size=60_000_000)
    found = recommend([toy, plain], Machine(8 * GB, 4))
    assert found is not None
    assert found.name == "plain"
    assert "no reasoning model can be had" in found.why


def test_the_size_of_a_file_is_the_catalogues_or_close_to_it() -> None:
    assert weight_bytes(catalog.find("r1:7b")) == 4_677_120_000
    assert weight_bytes(catalog.find("r1:7b"), "Q8_0") > 8_000_000_000
    assert weight_bytes(DISTILLS[0]) == 4_683_073_536
    assert weight_bytes(entry("made", 7_615_616_512)) == pytest.approx(4_683_073_536, rel=0.03)
    assert weight_bytes(entry("made", 7_615_616_512), "Q8_0") == pytest.approx(8_098_524_896, rel=0.03)
    assert weight_bytes(entry("made", 0)) == 0
