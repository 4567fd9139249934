"""Whether a model fits, why, and what to take instead: headers and the catalogue on made-up machines."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from models import catalog, need
from models.alternatives import Asked, full_name, of_entry, of_header, same_model
from models.bandwidth import Measured
from models.catalog import Entry
from models.fit import usable_memory
from models.gguf import read_header
from models.header import Header
from models.machine import Machine, this_machine
from models.offload import Memory, layers_that_fit
from models.origins import Builtin
from models.sketch import base_type, outline, sketch
from models.verdict import Verdict, judge, judge_entry

GB = 1 << 30


def measured(gigabytes_per_s: float, cores: int = 8) -> Measured:
    return Measured(
        processor="", cores=cores, bytes_per_s=gigabytes_per_s * 1e9, flops=90e9, date="2026-01-01"
    )


def machine(
    available: float, memory: int = 16, *, speed: float = 200, gpus: tuple[Memory, ...] = ()
) -> Machine:
    """With `available` of `memory` gigabytes free. Quick, unless `speed` in GB/s says otherwise."""
    return Machine(memory * GB, 8, gpus, round(available * GB), measured(speed))


@pytest.fixture(scope="session")
def seven() -> Header:
    found = sketch(catalog.find("r1:7b"), "Q4_K_M")
    assert found is not None
    return found


def free_for(header: Header, context: int) -> float:
    """Gigabytes that it takes with `context` tokens."""
    return need.need(header, context).total / GB


# -------------------------------------------------------------------------------------------- the kinds


def test_it_fits(seven: Header) -> None:
    found = judge(seven, machine(free_for(seven, 20_000)))
    assert found.kind == "fits"
    assert found.context == 8192
    assert found.largest_context == 19_456
    assert found.memory == need.need(seven, 8192).total
    assert found.why == (
        "With 8,192 tokens of context it takes 5.1 GB of memory, and 5.8 GB is free; up to 19,456 tokens fit."
    )
    assert judge(seven, machine(free_for(seven, 8192))).why.endswith(" is free.")


def test_it_fits_with_less_context(seven: Header) -> None:
    found = judge(seven, machine(free_for(seven, 8191) - 0.1))
    assert found.kind == "fits with less context"
    assert 2048 <= found.largest_context < 8192
    assert found.why.endswith(f"; up to {found.largest_context:,} tokens fit.")
    least = free_for(seven, 2048)
    assert judge(seven, machine(least)).kind == "fits with less context"
    assert judge(seven, machine(least - 0.001)).kind == "tight"


def test_it_is_tight_and_why(seven: Header) -> None:
    busy = judge(seven, machine(2))
    assert busy.kind == "tight"
    assert busy.why.endswith("of memory, and 2.1 GB is free: close other programs, or it is slow.")
    small = judge(seven, machine(2, memory=5))
    assert usable_memory(5 * GB) < need.need(seven, 2048).total < 5 * GB
    assert small.kind == "tight"
    assert "of the 5.4 GB of memory in this machine" in small.why


def test_it_is_too_large(seven: Header) -> None:
    found = judge(seven, machine(2, memory=4))
    assert found.kind == "too large"
    assert found.why == (
        "It takes at least 4.7 GB of memory, and this machine has 4.3 GB: it would be very slow."
    )
    assert found.tokens_per_s == 0
    assert found.largest_context == 0


def test_the_context_and_its_type_count(seven: Header) -> None:
    room = machine(free_for(seven, 16_384))
    assert judge(seven, room, context=16_384).kind == "fits"
    assert judge(seven, room, context=20_000).kind == "fits with less context"
    assert judge(seven, room, context=20_000, kv_type="q8_0").kind == "fits"
    assert judge(seven, room, context=999_999).context == 131_072


def test_a_machine_whose_memory_nobody_has_looked_at_leaves_room_for_others() -> None:
    assert Machine(16 * GB, 8).free == usable_memory(16 * GB)
    assert Machine(16 * GB, 8, available=15 * GB).usable == 15 * GB
    assert Machine(16 * GB, 8, available=-5).free == 0


# ------------------------------------------------------------------------------------------------ GPUs


def card(gigabytes: float) -> tuple[Memory, ...]:
    return (Memory(round(gigabytes * GB), round(gigabytes * GB)),)


def test_a_gpu_that_holds_all(seven: Header) -> None:
    found = judge(seven, machine(1, memory=4, gpus=card(12)))
    assert found.kind == "fits"
    assert (found.gpu_layers, found.layers) == (29, 29)
    assert found.gpu.startswith("All 29 layers fit into the 12.9 GB that the GPU can give")
    assert found.tokens_per_s == 0
    assert found.memory == need.need(seven, 8192, gpu_layers=29).total < GB


def test_a_gpu_that_holds_some(seven: Header) -> None:
    found = judge(seven, machine(12, gpus=card(4)))
    assert found.gpu_layers == layers_that_fit(seven, 8192, "f16", [4 * GB]) < 29
    assert f"{found.gpu_layers} of 29 layers fit into the 4.3 GB" in found.gpu
    assert "the processor computes the rest" in found.gpu
    assert found.memory < need.need(seven, 8192).total
    assert found.tokens_per_s > judge(seven, machine(12)).tokens_per_s


def test_gpus_that_are_too_small_or_say_nothing(seven: Header) -> None:
    small = judge(seven, machine(12, gpus=card(0.5)))
    assert small.gpu_layers == 0
    assert "Not even one layer" in small.gpu
    silent = judge(seven, machine(12, gpus=(Memory(0, 0), Memory(0, 0))))
    assert silent.gpu == "How much memory the 2 GPUs can give is not known: all layers are tried there."
    assert judge(seven, machine(12)).gpu == ""


def test_a_gpu_without_memory_of_its_own_takes_main_memory(seven: Header) -> None:
    shared = msgspec.structs.replace(machine(8, gpus=card(12)), shared=True)
    found = judge(seven, shared)
    assert found.gpu_layers == 29
    assert found.memory == need.need(seven, 8192).total


# ------------------------------------------------------------------------------- before it is fetched


@pytest.mark.parametrize("name", ["r1:1.5b", "r1:8b", "r1-0528:8b", "smollm2:135m"])
@pytest.mark.parametrize("file_type", ["Q4_K_M", "Q8_0"])
def test_a_sketch_has_the_bytes_of_the_catalogue(name: str, file_type: str) -> None:
    entry = catalog.find(name)
    found = sketch(entry, file_type)
    assert found is not None
    assert found.tensor_bytes == entry.weights[file_type]
    assert (found.architecture, found.file_type) == (
        entry.shape.architecture if entry.shape else "",
        file_type,
    )
    assert found.context_trained == entry.context
    assert same_model(found) == entry


def test_a_file_is_judged_as_its_entry_was(nano: Path) -> None:
    """What was said before it was fetched still holds when it is here."""
    here, before = read_header(nano), catalog.find("r1-nano")
    for free in (0.06, 0.0665, 0.07, 0.08):
        one, other = judge(here, machine(free)), judge_entry(before, "Q8_0", machine(free))
        assert one.kind == other.kind
        assert one.memory == pytest.approx(other.memory, rel=0.005)


def plain(**more: object) -> Entry:
    fields: dict[str, object] = {"parameters": 7_600_000_000, "license": "MIT", "reasoning": True, **more}
    return Entry(  # type: ignore[arg-type]
        name="own", title="Own", type="Q4_K_M", context=32_768, checkpoint=Builtin(checkpoint="own"), **fields
    )


def test_an_entry_that_states_no_shape_is_taken_for_its_nearest(seven: Header) -> None:
    found = judge_entry(plain(), "Q4_K_M", machine(12))
    assert found.memory == pytest.approx(judge(seven, machine(12)).memory, rel=0.05)


def test_an_entry_that_states_nothing_is_unknown() -> None:
    found = of_entry(plain(parameters=0), "Q4_K_M", machine(12))
    assert found.kind == "unknown"
    assert found.why.endswith("is known once it is here.")
    assert found.alternative == ""


def test_a_file_of_which_only_the_size_is_known() -> None:
    known = outline("Q4_K_M", 4_683_073_536)
    assert known is not None
    assert known.block_count == 28
    assert outline("Q4_K_M", 0, 0) is None
    strange = outline("IQ3_M", 3_000_000_000)
    assert strange is not None
    assert strange.tensor_bytes == 3_000_000_000


@pytest.mark.parametrize(
    ("file_type", "base"),
    [("Q4_K_M", "Q4_K"), ("Q8_0", "Q8_0"), ("IQ4_XS", "IQ4_XS"), ("Q3_K_L", "Q3_K"), ("IQ3_M", "IQ3_M")],
)
def test_the_type_of_most_tensors(file_type: str, base: str) -> None:
    assert base_type(file_type) == base


# ------------------------------------------------------------------------------------- what to take instead


def test_what_is_good_needs_no_alternative() -> None:
    found = of_entry(catalog.find("r1:7b"), "Q4_K_M", machine(12))
    assert found.is_good
    assert (found.alternative, found.instead) == ("", "")


def test_another_type_of_the_same_model_comes_first() -> None:
    found = of_entry(catalog.find("r1:7b"), "Q8_0", machine(7.2, memory=8))
    assert found.kind == "tight"
    assert found.instead == "r1:7b:q6_k"
    assert found.alternative.startswith("r1:7b:q6_k fits, and writes about ")
    assert catalog.wanted(found.instead).type == "Q6_K"


def test_its_own_type_goes_by_the_short_name() -> None:
    assert full_name(catalog.find("r1:7b"), "Q4_K_M") == "r1:7b"
    assert of_entry(catalog.find("r1:7b"), "Q8_0", machine(5.1, memory=8)).instead == "r1:7b"


def test_then_a_smaller_model_that_reasons_too() -> None:
    found = of_entry(catalog.find("r1:70b"), "Q4_K_M", machine(12))
    assert found.kind == "too large"
    assert found.instead == "r1:14b"
    small = of_entry(catalog.find("r1:7b"), "Q4_K_M", machine(0.5, memory=2))
    assert small.instead == ""
    assert small.alternative == "It needs a machine with 8 GB of memory."


def test_what_is_slow_has_a_quicker_alternative() -> None:
    slow = machine(12, speed=25)
    found = of_entry(catalog.find("r1:14b"), "Q4_K_M", slow)
    assert found.kind == "fits"
    assert found.is_slow
    assert found.instead == "r1:1.5b"
    assert judge_entry(catalog.find("r1:1.5b"), "Q4_K_M", slow).is_good


def test_where_all_are_slow_the_quickest_that_runs() -> None:
    found = of_entry(catalog.find("r1:70b"), "Q4_K_M", machine(12, speed=2))
    assert found.instead == "r1:1.5b"
    runs = of_entry(catalog.find("r1:1.5b"), "Q4_K_S", machine(12, speed=2))
    assert runs.instead == ""
    assert "a GPU would make it quicker" in runs.alternative


def test_an_alternative_has_the_context_that_was_asked_for() -> None:
    here, asked = machine(8), Asked(context=32_768)
    assert of_entry(catalog.find("r1:14b"), "Q4_K_S", here).instead == "r1-0528:8b"
    assert of_entry(catalog.find("r1:14b"), "Q4_K_S", here, asked).instead == "r1:7b"
    assert judge_entry(catalog.find("r1-0528:8b"), "Q4_K_M", here, context=32_768).kind != "fits"


def test_a_file_of_a_known_shape_is_known_again() -> None:
    header = sketch(catalog.find("r1:7b"), "Q8_0")
    assert header is not None
    assert of_header(header, machine(5.5, memory=8)).instead == "r1:7b:q5_k_m"


def test_a_file_of_no_known_shape_has_smaller_models_of_the_catalogue(nano: Path) -> None:
    strange = outline("Q4_K_M", 40_000_000_000, 66_000_000_000)
    assert strange is not None
    odd = msgspec.structs.replace(strange, metadata=strange.metadata | {"llama.block_count": 79})
    assert same_model(odd) is None
    assert of_header(odd, machine(12)).instead != ""


def test_this_machine() -> None:
    here = this_machine(given_back=1 << 40)
    assert here.memory > 0
    assert here.cores > 0
    assert here.free > 1 << 40
    assert here.gpu_memory == 0
    assert here.measured is None


def test_a_verdict_is_data() -> None:
    found = of_entry(catalog.find("r1:7b"), "Q8_0", machine(5.1))
    data = msgspec.to_builtins(found)
    assert msgspec.convert(data, Verdict) == found
