"""Types, sizes and space; and the exactness of the conversions between float types."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, LlamaFileType

from localai.errors import NoSpace, QuantizeError, UsageError
from quantize import floats, plan
from quantize.architectures import family_and_config
from quantize.checkpoint import open_checkpoint
from quantize.file_types import FILE_TYPES, output_type
from tests.quantize.making import from_bf16, make_checkpoint


def test_the_numbers_of_the_types_are_llama_cpps() -> None:
    expected = {"F32": 0, "F16": 1, "Q4_0": 2, "Q4_1": 3, "Q8_0": 7, "Q5_0": 8, "Q5_1": 9, "Q2_K": 10}
    expected |= {"Q3_K_S": 11, "Q3_K_M": 12, "Q3_K_L": 13, "Q4_K_S": 14, "Q4_K_M": 15, "Q5_K_S": 16}
    expected |= {"Q5_K_M": 17, "Q6_K": 18, "BF16": 32}
    assert expected == FILE_TYPES
    for name, number in FILE_TYPES.items():
        assert LlamaFileType(number).name in {f"MOSTLY_{name}", f"ALL_{name}"}


def test_types_are_found_in_any_case_and_nearly() -> None:
    assert output_type("q4_k_m") == "Q4_K_M"
    with pytest.raises(UsageError, match="Q4_K_M"):
        output_type("Q4KM")
    with pytest.raises(UsageError, match="Supported: F32"):
        output_type("zip")


def planned(folder: Path, float_type: str, **changes) -> list[plan.PlannedTensor]:
    make_checkpoint(folder, **changes)
    checkpoint = open_checkpoint(folder)
    family, config = family_and_config(checkpoint.config)
    return plan.plan_tensors(checkpoint, family, config, float_type)


def test_sizes(tmp_path: Path) -> None:
    tensors = planned(tmp_path / "m", "BF16", hidden_size=256, intermediate_size=512)
    vectors = 256 * 5
    matrices = 2 * 512 * 256 + 2 * (2 * 256 * 256 + 2 * 128 * 256 + 3 * 256 * 512)
    assert plan.float_bytes(tensors) == vectors * 4 + matrices * 2
    assert plan.estimated_bytes(tensors, "BF16") == vectors * 4 + matrices * 2
    q8 = vectors * 4 + matrices * 8.5 / 8
    assert q8 <= plan.estimated_bytes(tensors, "Q8_0") <= 1.05 * q8
    sizes = [
        plan.estimated_bytes(tensors, name) for name in ("Q8_0", "Q6_K", "Q5_K_M", "Q4_K_M", "Q3_K_M", "Q2_K")
    ]
    assert sizes == sorted(sizes, reverse=True)


def test_too_little_space_is_said_before_the_start(tmp_path: Path) -> None:
    plan.require_space(tmp_path, 1000, lambda folder: 1000)
    scratch = tmp_path / "incoming" / "f8a3"
    scratch.mkdir(parents=True)
    with pytest.raises(NoSpace) as caught:
        plan.require_space(scratch, 13_103_354_000, lambda folder: 3_145_728)
    disk = caught.value.message.removeprefix("the disk at ").split(" has ")[0]
    assert caught.value.message == f"the disk at {disk} has 3.1 MB free, but the conversion needs 13.1 GB"
    assert os.path.ismount(disk)
    assert scratch.is_relative_to(disk)
    assert caught.value.hint == "Free some space, or choose another place"


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_float_type_is_that_of_the_checkpoint(tmp_path: Path, dtype: str) -> None:
    make_checkpoint(tmp_path / "m", dtype=dtype)
    assert plan.source_type(open_checkpoint(tmp_path / "m")) == dtype


def test_every_bf16_widens_exactly_and_comes_back() -> None:
    bits = np.arange(2**16, dtype="<u2")
    bits = bits[np.isfinite(from_bf16(bits))]
    wide = floats.convert(bits, "BF16", GGMLQuantizationType.F32, "x")
    assert wide.tobytes() == from_bf16(bits).tobytes()
    back = floats.convert(wide, "F32", GGMLQuantizationType.BF16, "x")
    assert back.tobytes() == bits.tobytes()


def test_bf16_rounds_to_nearest_even() -> None:
    wide = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF], "<u4").view("<f4")
    narrow = floats.convert(wide, "F32", GGMLQuantizationType.BF16, "x")
    assert narrow.tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80]


def test_f16_keeps_what_it_can_hold_and_refuses_the_rest() -> None:
    values = np.array([1.0, -65504.0, 6e-8], "<f4")
    assert (
        floats.convert(values, "F32", GGMLQuantizationType.F16, "x").tobytes()
        == values.astype("<f2").tobytes()
    )
    with pytest.raises(QuantizeError, match="'big' has values beyond the range of F16"):
        floats.convert(np.array([70000.0], "<f4"), "F32", GGMLQuantizationType.F16, "big")
