"""A type for each tensor, as data that others wrote, and as part of what the store knows of a model."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from models.mixture import Mixture
from models.origins import Checkpoint, describe

GOOD: dict[str, Any] = {
    "name": "mixed-4.6",
    "architecture": "qwen2",
    "layers": 28,
    "file_type": "Q4_K_M",
    "types": {"token_embd.weight": "Q4_K", "blk.0.attn_q.weight": "IQ4_XS"},
}


def test_one_is_read_and_written() -> None:
    read = msgspec.convert(GOOD, Mixture)
    assert msgspec.json.decode(msgspec.json.encode(read), type=Mixture) == read


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"name": "q4_k_m"}, "is the name of a file type"),
        ({"name": "../x"}, "regex"),
        ({"name": ""}, "regex"),
        ({"name": "x" * 33}, "regex"),
        ({"architecture": "Qwen 2"}, "regex"),
        ({"layers": 0}, ">= 1"),
        ({"layers": 5000}, "<= 4096"),
        ({"file_type": "F16"}, "cannot be of the type 'F16'"),
        ({"file_type": "Q4_X"}, "cannot be of the type 'Q4_X'"),
        ({"types": {}}, "length >= 1"),
        ({"types": {"output.weight": "Q4_K"}}, "no type for token_embd.weight"),
        ({"types": {**GOOD["types"], "x": "Q8_K"}}, "x cannot be of the type 'Q8_K'"),
        ({"types": {**GOOD["types"], "x": "q4_k"}}, "x cannot be of the type 'q4_k'"),
        ({"types": {**GOOD["types"], "blk.(.*)": "Q4_K"}}, "regex"),
        ({"types": {**GOOD["types"], "x\n": "Q4_K"}}, "regex"),
        ({"more": 1}, "unknown field"),
    ],
)
def test_what_is_none(changed: dict[str, Any], message: str) -> None:
    with pytest.raises(msgspec.ValidationError, match=message):
        msgspec.convert({**GOOD, **changed}, Mixture)


def test_an_origin_tells_it_in_a_word() -> None:
    """And not in the hundreds of options that mean the same."""
    made = Checkpoint(path="/r1", recipe="--type Q4_K_M --tensor-type x=Q4_K", mixture=Mixture(**GOOD))
    assert describe(made) == "quantized here from /r1, mixed-4.6, by a recipe"
    assert describe(Checkpoint(path="/r1", recipe="--type Q4_0")) == "quantized here from /r1, --type Q4_0"


def test_one_of_an_earlier_version_has_none() -> None:
    assert msgspec.json.decode(b'{"kind": "checkpoint", "path": "/r1"}', type=Checkpoint).mixture is None
