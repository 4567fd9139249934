"""Types by name, what options change, the commit of a checkpoint, and exactness between float types."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from gguf import GGMLQuantizationType, LlamaFileType

from localai.errors import QuantizeError, UsageError
from models.ggml_types import FILE_TYPES as NAMES
from quantize import floats
from quantize.checkpoint import open_checkpoint
from quantize.file_types import FILE_TYPES, TERNARY, output_type, tensor_type, tensor_type_rule
from quantize.from_checkpoint import source_type
from quantize.revision import repository_of, revision_of
from tests.quantize.doing import convert, tensors, types
from tests.quantize.making import from_bf16, make_checkpoint, names_in

# ------------------------------------------------------------------------------------------------- names


def test_the_numbers_of_the_types_are_llama_cpps() -> None:
    assert len(FILE_TYPES) == 32
    assert set(TERNARY) <= FILE_TYPES.keys()
    for name, number in FILE_TYPES.items():
        assert LlamaFileType(number).name in {f"MOSTLY_{name}", f"ALL_{name}"}
        assert NAMES[number] == name


def test_types_are_found_in_any_case_and_nearly() -> None:
    assert output_type("q4_k_m") == "Q4_K_M"
    assert [output_type(name) for name in ("q3_k", "Q4_K", "q5_K")] == ["Q3_K_M", "Q4_K_M", "Q5_K_M"]
    with pytest.raises(UsageError, match="Q4_K_M"):
        output_type("Q4KM")
    with pytest.raises(UsageError, match="Supported: F32"):
        output_type("zip")


def test_tensor_types_are_ggmls() -> None:
    assert [tensor_type(name) for name in ("f32", "Q4_K", "iq2_xs")] == [0, 12, 17]
    for name in ("Q4_K_M", "I8", "Q8_K", ""):
        with pytest.raises(UsageError, match="no tensor type"):
            tensor_type(name)
    with pytest.raises(UsageError, match="Did you mean Q4_K"):
        tensor_type("Q4_KM")


def test_rules_for_tensors() -> None:
    assert tensor_type_rule("FFN_Down=q6_k") == ("ffn_down", 14)
    assert tensor_type_rule(r"blk\.[0-9]=F16") == (r"blk\.[0-9]", 1)
    for text in ("", "=", "ffn_down", "=Q4_K", "ffn_down=", "ffn\0=Q4_K", "a=Q4_K=Q5_K"):
        with pytest.raises(UsageError):
            tensor_type_rule(text)


# ----------------------------------------------------------------------------------------------- options


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("options") / "m"
    make_checkpoint(folder, hidden_size=256, intermediate_size=256)
    return folder


def made(checkpoint: Path, output: Path, file_type: str = "Q4_K_M", **options) -> dict[str, str]:
    """The types of the matrices."""
    convert(checkpoint, output, file_type, **options)
    return {name: kind for name, kind in types(output).items() if "norm" not in name}


def test_pure_is_one_type_for_all(checkpoint: Path, tmp_path: Path) -> None:
    assert set(made(checkpoint, tmp_path / "a").values()) == {"Q4_K", "Q6_K"}
    assert set(made(checkpoint, tmp_path / "b", pure=True).values()) == {"Q4_K"}


def test_output_and_embedding_types(checkpoint: Path, tmp_path: Path) -> None:
    usual = made(checkpoint, tmp_path / "a")
    found = made(checkpoint, tmp_path / "b", output_type=8, embedding_type=13)
    changed = {"output.weight": "Q8_0", "token_embd.weight": "Q5_K"}
    assert found == {**usual, **changed}
    assert {usual[name] for name in changed}.isdisjoint(changed.values())


def test_the_first_rule_that_matches_counts(checkpoint: Path, tmp_path: Path) -> None:
    usual = made(checkpoint, tmp_path / "a")
    rules = ((r"blk\.1\.ffn_down", 1), ("ffn_down", 8), ("ffn_(up|down)", 13))
    found = made(checkpoint, tmp_path / "b", tensor_types=rules)
    expected = {
        "blk.0.ffn_down": "Q8_0",
        "blk.1.ffn_down": "F16",
        "blk.0.ffn_up": "Q5_K",
        "blk.1.ffn_up": "Q5_K",
    }
    assert found == {**usual, **{f"{name}.weight": kind for name, kind in expected.items()}}


@pytest.mark.parametrize("file_type", ["F32", "F16", "BF16"])
def test_options_on_a_float_type(checkpoint: Path, tmp_path: Path, file_type: str) -> None:
    """What is quantized of such a file passes through the checkpoint's precision, as anywhere else."""
    found = made(checkpoint, tmp_path / "a", file_type, output_type=8)
    assert found.pop("output.weight") == "Q8_0"
    assert set(found.values()) == {file_type}
    convert(checkpoint, tmp_path / "b", "Q8_0")
    assert tensors(tmp_path / "a")["output.weight"] == tensors(tmp_path / "b")["output.weight"]
    with pytest.raises(QuantizeError, match="needs an importance matrix, for IQ2_XS in output"):
        convert(checkpoint, tmp_path / "c", file_type, output_type=17)
    assert names_in(tmp_path) == ["a", "b"]


@pytest.mark.parametrize("pattern", ["ffn_[", "(", "a{2,1}", "*"])
def test_a_pattern_that_is_none(checkpoint: Path, tmp_path: Path, pattern: str) -> None:
    with pytest.raises(UsageError, match=r"does not understand --tensor-type .*expression") as caught:
        convert(checkpoint, tmp_path / "x", tensor_types=((pattern, 8),), file_type="Q4_0")
    assert "\n" not in caught.value.message
    assert names_in(tmp_path) == []


# ---------------------------------------------------------------------------------------------- revision

COMMIT = "0123456789abcdef0123456789abcdef01234567"


def test_the_commit_of_a_snapshot_in_the_hubs_cache(tmp_path: Path) -> None:
    snapshot = tmp_path / "models--a--b" / "snapshots" / COMMIT
    snapshot.mkdir(parents=True)
    (tmp_path / "link").symlink_to(snapshot)
    assert revision_of(snapshot) == COMMIT
    assert revision_of(tmp_path / "link") == COMMIT
    assert revision_of(snapshot.parent) == ""
    (tmp_path / COMMIT).mkdir()
    assert revision_of(tmp_path / COMMIT) == ""


@pytest.mark.parametrize(
    ("note", "found"),
    [
        (f"{COMMIT}\netag\n1700000000.0\n".encode(), COMMIT),
        (COMMIT.encode(), COMMIT),
        (b"main\netag\n", ""),
        (COMMIT.upper().encode(), ""),
        (f"{COMMIT}0".encode(), ""),
        (b"\xff\xfe", ""),
        (b"", ""),
        (b"0" * 10**6, ""),
    ],
)
def test_the_commit_of_a_download(tmp_path: Path, note: bytes, found: str) -> None:
    path = tmp_path / ".cache" / "huggingface" / "download" / "config.json.metadata"
    path.parent.mkdir(parents=True)
    path.write_bytes(note)
    assert revision_of(tmp_path) == found


def test_a_folder_that_does_not_tell_its_commit(tmp_path: Path) -> None:
    assert revision_of(tmp_path) == ""
    assert revision_of(tmp_path / "nowhere") == ""


# ------------------------------------------------------------------------------------------------ floats


@pytest.mark.parametrize("dtype", ["BF16", "F16", "F32"])
def test_the_float_type_is_that_of_the_checkpoint(tmp_path: Path, dtype: str) -> None:
    make_checkpoint(tmp_path / "m", dtype=dtype)
    assert source_type(open_checkpoint(tmp_path / "m")) == dtype


def test_every_bf16_widens_exactly_and_comes_back() -> None:
    bits = np.arange(2**16, dtype="<u2")
    bits = bits[np.isfinite(from_bf16(bits))]
    wide = floats.convert(bits, "BF16", GGMLQuantizationType.F32)
    assert wide.tobytes() == from_bf16(bits).tobytes()
    back = floats.convert(wide, "F32", GGMLQuantizationType.BF16)
    assert back.tobytes() == bits.tobytes()


def test_bf16_rounds_to_nearest_even() -> None:
    wide = np.array([0x3F808000, 0x3F818000, 0x3F808001, 0x3F807FFF], "<u4").view("<f4")
    narrow = floats.convert(wide, "F32", GGMLQuantizationType.BF16)
    assert narrow.tolist() == [0x3F80, 0x3F82, 0x3F81, 0x3F80]


def test_f16_keeps_what_it_can_hold_and_shows_the_rest() -> None:
    values = np.array([1.0, -65504.0, 6e-8], "<f4")
    assert floats.convert(values, "F32", GGMLQuantizationType.F16).tobytes() == values.astype("<f2").tobytes()
    assert np.isposinf(floats.convert(np.array([70000.0], "<f4"), "F32", GGMLQuantizationType.F16))


def test_the_repository_of_a_snapshot(tmp_path: Path) -> None:
    folder = tmp_path / "models--deepseek-ai--DeepSeek-R1-Distill-Qwen-7B" / "snapshots" / COMMIT
    folder.mkdir(parents=True)
    assert repository_of(folder) == "DeepSeek-R1-Distill-Qwen-7B"
    assert repository_of(tmp_path) == ""


def test_a_rule_about_no_tensor(checkpoint: Path, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'attn_x' matches no tensor"):
        convert(checkpoint, tmp_path / "x", tensor_types=(("attn_x", 8),), file_type="Q4_0")
