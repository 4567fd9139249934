"""Our tables agree with the `gguf` package's."""

from __future__ import annotations

from gguf.constants import GGML_QUANT_SIZES, LlamaFileType

from models.ggml_types import FILE_TYPES, GUESSED, TENSOR_TYPES


def test_every_tensor_type_of_the_gguf_package_is_known() -> None:
    theirs = {int(kind): (kind.name, *sizes) for kind, sizes in GGML_QUANT_SIZES.items()}
    ours = {number: tuple(block) for number, block in TENSOR_TYPES.items()}
    assert {number: ours.get(number) for number in theirs} == theirs


def test_every_file_type_of_the_gguf_package_is_known() -> None:
    theirs = {int(kind): kind.name.removeprefix("ALL_").removeprefix("MOSTLY_") for kind in LlamaFileType}
    assert theirs.pop(GUESSED) == "GUESSED"
    assert {number: FILE_TYPES.get(number) for number in theirs} == theirs
