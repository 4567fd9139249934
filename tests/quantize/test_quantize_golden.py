"""Every type of every recipe against the digests of what llama.cpp's own tools made (make_golden.py)."""

from __future__ import annotations

import json
from collections.abc import Iterator
from itertools import groupby, pairwise
from pathlib import Path
from typing import Any

import pytest

from localai.errors import QuantizeError
from quantize.client import Wanted, run
from quantize.file_types import FILE_TYPES, tensor_type, tensor_type_rule
from quantize.protocol import Job
from tests.quantize.checkpoints import RECIPES, write_imatrix
from tests.quantize.digests import digest

GOLDEN: dict[str, list[dict[str, Any]]] = json.loads(
    (Path(__file__).parents[1] / "data" / "golden-quantize.json").read_text()
)
_FLOATS = ("F32", "F16", "BF16")


def groups() -> Iterator[Any]:
    """The cases that one run of ours can make: of one recipe, with the same options."""
    for recipe, cases in GOLDEN.items():
        wanted = [case for case in cases if is_ours(case)]
        for (options, imatrix), group in groupby(
            wanted, key=lambda case: (options_of(case), with_imatrix(case))
        ):
            name = "-".join([recipe, *(["imatrix"] if imatrix else []), options.replace(" ", "")]).strip("-")
            yield pytest.param(recipe, options, imatrix, list(group), id=name)


def options_of(case: dict[str, Any]) -> str:
    return " ".join(case.get("options", ()))


def with_imatrix(case: dict[str, Any]) -> bool:
    return bool(case.get("imatrix"))


def is_ours(case: dict[str, Any]) -> bool:
    """Float types come as the converter makes them, straight from the checkpoint, unless with an imatrix."""
    if "--leave-output-tensor" in options_of(case):
        return False  # an option that we have not
    by_converter = case["tool"] == "convert"
    return by_converter == (case["type"] in _FLOATS and not with_imatrix(case))


def job_for(folder: Path, options: str, imatrix: bool) -> Job:
    words = options.split()
    values: dict[str, Any] = {"pure": "--pure" in words, "tensor_types": ()}
    for word, value in pairwise([*words, ""]):
        if word == "--output-tensor-type":
            values["output_type"] = tensor_type(value)
        elif word == "--token-embedding-type":
            values["embedding_type"] = tensor_type(value)
        elif word == "--tensor-type":
            values["tensor_types"] += (tensor_type_rule(value),)
    return Job(source=str(folder), imatrix="imatrix.gguf" if imatrix else "", **values)


@pytest.mark.parametrize(("recipe", "options", "imatrix", "cases"), groups())
def test_the_same_files(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    recipe: str,
    options: str,
    imatrix: bool,
    cases: list[dict[str, Any]],
) -> None:
    folder = tmp_path / recipe
    RECIPES[recipe](folder)
    monkeypatch.chdir(tmp_path)
    if imatrix:
        write_imatrix(recipe, Path("imatrix.gguf"))
    job = job_for(folder, options, imatrix)
    made = [case for case in cases if not case.get("refused")]
    outputs = [tmp_path / f"{number}.gguf" for number, _ in enumerate(made)]
    wanted = [Wanted(case["type"], output) for case, output in zip(made, outputs, strict=True)]
    run(job, wanted, load=False)
    for case, output in zip(made, outputs, strict=True):
        found = digest(output)
        assert {key: case[key] for key in found} == found, f"{recipe} as {case['type']} {options}"
    for case in cases:
        if case.get("refused"):
            with pytest.raises(QuantizeError, match="importance matrix"):
                run(job, [Wanted(case["type"], tmp_path / "refused.gguf")], load=False)


def test_every_type_is_compared() -> None:
    compared = {case["type"] for cases in GOLDEN.values() for case in cases if is_ours(case)}
    assert compared == set(FILE_TYPES)
    with_one = {case["type"] for cases in GOLDEN.values() for case in cases if with_imatrix(case)}
    assert with_one == set(FILE_TYPES)
