"""Which model is recommended for which machine."""

from __future__ import annotations

import pytest

from models import catalog
from models.catalog import Entry
from models.origins import Builtin, PackageIndex
from models.recommend import Machine, recommend, weight_bytes

GB = 1 << 30


def entry(name: str, parameters: int, *, reasoning: bool = True, size: int = 0) -> Entry:
    """A model at Q4_K_M. Without a `size` it is one of those whose file is made here."""
    source = Builtin(checkpoint=name)
    if size:
        source = PackageIndex(
            package="p", version="1", wheel_sha256="0" * 64, member="m.gguf", size=size, sha256="0" * 64
        )
    return Entry(
        name=name,
        title=name,
        type="Q4_K_M",
        reasoning=reasoning,
        license="MIT",
        parameters=parameters,
        context=131_072,
        source=source,
    )


# Sizes at Q4_K_M as llama.cpp makes them.
DISTILLS = [
    entry("r1:1.5b", 1_777_088_000, size=1_117_320_512),
    entry("r1:7b", 7_615_616_512, size=4_683_073_536),
    entry("r1:14b", 14_770_033_664, size=8_988_110_272),
    entry("r1:32b", 32_763_876_352, size=19_851_336_192),
    entry("r1:70b", 70_553_706_496, size=42_520_395_776),
]
FULL = [*catalog.entries(), *DISTILLS]


@pytest.mark.parametrize("memory", [4, 8, 16, 64])
def test_today_it_is_the_starter_everywhere(memory: int) -> None:
    found = recommend(catalog.entries(), Machine(memory * GB, cores=4))
    assert found is not None
    assert found.name == "smollm2:135m"
    assert "no reasoning model can be had by name yet" in found.why


@pytest.mark.parametrize(
    ("memory", "cores", "name"),
    [
        (2, 4, "smollm2:135m"),
        (4, 2, "r1:1.5b"),
        (4, 16, "r1:1.5b"),
        (8, 2, "r1:1.5b"),
        (8, 6, "r1:7b"),
        (16, 8, "r1:7b"),
        (64, 2, "r1:1.5b"),
        (64, 16, "r1:7b"),
    ],
)
def test_memory_and_cores_decide(memory: int, cores: int, name: str) -> None:
    found = recommend(FULL, Machine(memory * GB, cores))
    assert found is not None
    assert found.name == name
    if name.startswith("r1:"):
        assert f"{memory} GB of memory and is quick on {cores} cores" in found.why
    else:
        assert f"need more than {memory} GB" in found.why


@pytest.mark.parametrize(("card", "name"), [(8, "r1:7b"), (12, "r1:14b"), (24, "r1:32b"), (80, "r1:70b")])
def test_a_graphics_card_that_holds_it_makes_a_larger_one_quick(card: int, name: str) -> None:
    found = recommend(FULL, Machine(16 * GB, 8, gpu_memory=card * GB))
    assert found is not None
    assert found.name == name
    assert f"{card} GB of the graphics card" in found.why


def test_a_card_that_is_too_small_counts_as_none() -> None:
    machine = Machine(16 * GB, 8)
    assert recommend(FULL, Machine(16 * GB, 8, gpu_memory=GB)) == recommend(FULL, machine)


def test_where_all_that_fit_are_slow_it_is_the_smallest_and_said_so() -> None:
    found = recommend(DISTILLS[1:], Machine(32 * GB, cores=1))
    assert found is not None
    assert found.name == "r1:7b"
    assert "on 1 core any other would be slower" in found.why


def test_a_machine_for_which_all_is_too_large_gets_the_smallest() -> None:
    found = recommend(FULL, Machine(GB // 4, cores=1))
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


def test_the_size_of_a_file_is_the_catalogues_or_close_to_it() -> None:
    assert weight_bytes(catalog.find("smollm2:135m")) == 98_362_432
    made = entry("r1:7b", 7_615_616_512)
    assert weight_bytes(made) == pytest.approx(4_683_073_536, rel=0.03)
    assert weight_bytes(catalog.find("r1-nano")) == pytest.approx(4_493_824, rel=0.03)
