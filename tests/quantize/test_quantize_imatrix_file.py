"""Importance matrices as files: the bytes that llama-imatrix writes, and reading them back."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFReader

from localai.errors import NoSpace
from quantize.imatrix import read_imatrix
from quantize.imatrix_file import Collected, Usage, encode, write
from quantize.partials import Partial

GOLDEN = Path(__file__).parents[1] / "data" / "imatrix" / "r1-nano.gguf"


def collected() -> Collected:
    """What is in llama-imatrix's file."""
    found = {tensor.name: tensor.data for tensor in GGUFReader(GOLDEN).tensors}
    matrices = {
        name.removesuffix(".in_sum2"): Usage(
            sums.astype(np.float64), int(found[name.replace("in_sum2", "counts")][0])
        )
        for name, sums in found.items()
        if name.endswith(".in_sum2")
    }
    return Collected("sums.txt", 11, 50, dict(sorted(matrices.items(), reverse=True)))


def test_the_bytes_are_those_of_llama_imatrix() -> None:
    """The order of keys and tensors, their dimensions, the padding at the end: everything."""
    assert encode(collected()) == GOLDEN.read_bytes()


def test_it_is_read_back(tmp_path: Path) -> None:
    sums = np.array([0.0, 2.0, 9.0])
    partial = Partial(tmp_path / "x.gguf", overwrite=False)
    with partial:
        write(Collected("a text", 3, 64, {"blk.0.a.weight": Usage(sums, 4)}), partial)
        partial.commit()
    found = read_imatrix(tmp_path / "x.gguf")
    assert (found.datasets, found.chunks) == (("a text",), 3)
    assert found.weights["blk.0.a.weight"].tolist() == [0.0, 0.5, 2.25]


def test_the_name_of_a_text_that_is_not_utf8(tmp_path: Path) -> None:
    """A file may be called so; llama.cpp's tools write its bytes as they are."""
    name = os.fsdecode(b"caf\xe9.txt")
    assert b"caf\xe9.txt" in encode(Collected(name, 1, 32, {"blk.0.a.weight": Usage(np.ones(1), 1)}))


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
def test_a_full_disk_is_told_with_the_name_of_the_file(tmp_path: Path) -> None:
    with Partial(tmp_path / "x.gguf", overwrite=False) as partial:
        os.dup2(os.open("/dev/full", os.O_WRONLY), partial.fd)
        with pytest.raises(NoSpace, match=r"not enough room for .*/x\.gguf"):
            write(collected(), partial)
    assert list(tmp_path.iterdir()) == []
