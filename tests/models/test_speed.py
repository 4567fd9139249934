"""How fast memory is read here, what is kept of it, and the tokens per second that follow."""

from __future__ import annotations

import datetime
from pathlib import Path

import msgspec
import pytest

from localai import hardware, paths
from models import bandwidth, catalog, fit
from models.bandwidth import Measured, best_moment, known, measure, measured
from models.header import Header
from models.machine import Machine, this_machine
from models.sketch import sketch
from models.speed import Speed, estimate

GB = 1 << 30
CHUNK = 4 << 20


# ------------------------------------------------------------------------------------------- measuring


def test_memory_is_read() -> None:
    found = measure(1, seconds=0.02)
    assert found.cores == 1
    assert found.processor == hardware.processor()
    assert 1e8 < found.bytes_per_s < 1e13
    assert 1e7 < found.flops < 1e13


def test_the_best_moment_counts() -> None:
    """A chunk a millisecond, but for ten of them that take half."""
    steady = [0.001 * number for number in range(100)]
    assert best_moment(steady, CHUNK) == pytest.approx(CHUNK / 0.001, rel=0.06)
    assert best_moment([*steady, *(0.099 + 0.0005 * number for number in range(1, 51))], CHUNK) == (
        pytest.approx(CHUNK / 0.0005, rel=0.06)
    )
    pauses = [number * 0.001 + (number // 30) * 0.5 for number in range(90)]
    assert best_moment(pauses, CHUNK) == pytest.approx(CHUNK / 0.001, rel=0.06)


def test_few_chunks_are_counted_over_their_time() -> None:
    assert best_moment([1.0, 1.004, 1.008], CHUNK) == pytest.approx(CHUNK / 0.004)
    assert best_moment([], CHUNK) == 0
    assert best_moment([1.0], CHUNK) == 0


@pytest.fixture
def kept() -> Path:
    return paths.data_dir() / bandwidth.FILE


def write(path: Path, **changes: object) -> Measured:
    """What was measured on this machine today, with `changes`."""
    found = Measured(
        processor=hardware.processor(),
        cores=hardware.physical_cores(),
        bytes_per_s=1e15,
        flops=1e15,
        date=datetime.datetime.now(datetime.UTC).date().isoformat(),
    )
    changed = msgspec.structs.replace(found, **changes)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(msgspec.json.encode(changed))
    return changed


def test_it_is_measured_a_few_times_and_the_best_is_kept(kept: Path) -> None:
    assert known() is None
    first = measured()
    assert known() == first
    assert first.times == 1
    second = measured()
    assert second.times == 2
    assert second.bytes_per_s >= first.bytes_per_s
    write(kept, times=2)
    third = measured()
    assert (third.times, third.bytes_per_s) == (bandwidth.TIMES, 1e15)
    before = kept.stat().st_mtime_ns
    assert measured() == third
    assert kept.stat().st_mtime_ns == before


def test_on_request_it_is_measured_anew(kept: Path) -> None:
    write(kept, times=bandwidth.TIMES)
    found = measured(again=True)
    assert found.times == 1
    assert found.bytes_per_s < 1e15
    assert known() == found


@pytest.mark.parametrize(
    "changes",
    [
        {"processor": "another"},
        {"cores": 1000},
        {"date": "2020-01-01"},
        {"date": "2999-01-01"},
        {"date": "soon"},
        {"bytes_per_s": 0.0},
        {"flops": -1.0},
    ],
)
def test_what_was_measured_elsewhere_or_long_ago_does_not_hold(
    kept: Path, changes: dict[str, object]
) -> None:
    assert write(kept) == known()
    write(kept, **changes)
    assert known() is None


@pytest.mark.parametrize("text", [b"", b"{", b"[]", b'{"processor": 1}', b"\xff"])
def test_a_damaged_file_is_none(kept: Path, text: bytes) -> None:
    write(kept)
    kept.write_bytes(text)
    assert known() is None


def test_where_nothing_can_be_written_it_is_measured_all_the_same(kept: Path) -> None:
    kept.parent.parent.mkdir(parents=True, exist_ok=True)
    kept.parent.write_text("a file where the folder should be")
    assert measured().bytes_per_s > 0
    assert known() is None


def test_a_machine_is_measured_only_if_it_is_asked_for(kept: Path) -> None:
    assert this_machine().measured is None
    found = write(kept, times=bandwidth.TIMES)
    assert this_machine().measured == found
    assert this_machine(measure=True).measured == found


# ------------------------------------------------------------------------------------------- estimating


def header(name: str = "r1:1.5b", file_type: str = "Q4_K_M") -> Header:
    found = sketch(catalog.find(name), file_type)
    assert found is not None
    return found


def machine(gigabytes_per_s: float = 48, cores: int = 2, flops: float = 90e9) -> Machine:
    found = Measured(
        processor="", cores=cores, bytes_per_s=gigabytes_per_s * 1e9, flops=flops, date="2026-01-01"
    )
    return Machine(16 * GB, cores, measured=found)


def rate(file_type: str, on: Machine | None = None, *, context: int = 0, name: str = "r1:1.5b") -> float:
    return estimate(header(name, file_type), context, "f16", on or machine()).tokens_per_s


@pytest.mark.parametrize(
    ("file_type", "cores", "bandwidth", "seen"),
    [
        ("Q8_0", 1, 31, 14.0),
        ("Q4_0", 1, 31, 20.7),
        ("Q4_K_M", 1, 31, 16.7),
        ("Q6_K", 1, 31, 17.5),
        ("IQ4_XS", 1, 31, 13.4),
        ("Q5_K_M", 1, 31, 13.5),
        ("Q4_1", 1, 31, 13.4),
        ("Q3_K_M", 1, 31, 16.7),
        ("Q2_K", 1, 31, 19.3),
        ("F16", 1, 31, 7.0),
        ("Q8_0", 2, 48, 19.3),
        ("Q4_0", 2, 48, 33.3),
        ("Q4_K_M", 2, 48, 29.1),
        ("Q6_K", 2, 48, 24.4),
        ("IQ4_XS", 2, 48, 23.3),
        ("Q5_K_M", 2, 48, 22.7),
        ("Q4_1", 2, 48, 21.9),
        ("Q3_K_M", 2, 48, 26.2),
        ("Q2_K", 2, 48, 35.3),
        ("F16", 2, 48, 12.4),
    ],
)
def test_what_was_seen_is_in_the_range(file_type: str, cores: int, bandwidth: float, seen: float) -> None:
    """A model of the shape of R1-Distill-Qwen-1.5B on a processor of 2022, by the worker's own clock."""
    found = estimate(header(file_type=file_type), 0, "f16", machine(bandwidth, cores))
    assert found.tokens_per_s == pytest.approx(seen, rel=0.25)
    assert found.slowest <= seen <= found.fastest


def test_more_bandwidth_cores_and_a_better_core_make_it_quicker() -> None:
    usual = rate("Q4_K_M")
    assert usual < rate("Q4_K_M", machine(96)) < 2 * usual
    assert usual < rate("Q4_K_M", machine(cores=4)) < 2 * usual
    assert rate("Q4_K_M", machine(flops=30e9)) < usual < rate("Q4_K_M", machine(flops=120e9))


def test_no_model_is_quicker_than_memory() -> None:
    weights = fit.weights_read(header())
    assert rate("Q4_K_M", machine(cores=1000, flops=1e15)) < 48e9 / weights


def test_a_type_that_is_slow_to_take_apart_is_slower_for_each_byte() -> None:
    speed = {kind: rate(kind) * fit.weights_read(header(file_type=kind)) for kind in ("Q4_0", "Q4_K_M")}
    assert speed["Q4_K_M"] < 0.95 * speed["Q4_0"]


def test_a_long_conversation_is_slower() -> None:
    assert rate("Q4_K_M", context=32_768) < 0.7 * rate("Q4_K_M")


def test_smaller_keys_and_values_save_memory_and_not_time() -> None:
    """Seen with SmolLM2 and 6,000 tokens in the context, by the processor time of one thread."""
    times = {
        kind: 1 / estimate(header("smollm2:135m", "Q4_1"), 12_000, kind, machine(31, 1)).tokens_per_s
        for kind in ("f16", "q8_0")
    }
    assert times["f16"] == pytest.approx(0.0504, rel=0.25)
    assert times["q8_0"] == pytest.approx(0.0679, rel=0.25)


def test_without_a_measurement_the_range_is_wide() -> None:
    rough = estimate(header(), 4096, "f16", Machine(16 * GB, 4))
    exact = estimate(header(), 4096, "f16", machine())
    assert rough.fastest / rough.slowest > exact.fastest / exact.slowest > 1
    more = estimate(header(), 4096, "f16", Machine(16 * GB, 64))
    assert more.tokens_per_s < 40e9 / fit.weights_read(header())


def test_what_a_gpu_computes_takes_no_time_of_the_processor() -> None:
    some, usual = (estimate(header(), 4096, "f16", machine(), gpu_layers=count) for count in (14, 0))
    assert some.tokens_per_s > 1.5 * usual.tokens_per_s
    assert estimate(header(), 4096, "f16", machine(), gpu_layers=29) == Speed()


def test_a_header_that_says_nothing_has_no_speed() -> None:
    silent = msgspec.structs.replace(header(), metadata={})
    assert estimate(silent, 4096, "f16", machine()) == Speed()
