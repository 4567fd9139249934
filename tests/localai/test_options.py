"""Options become settings in one place, and what cannot be is refused in one line."""

from __future__ import annotations

import inspect
import math
from pathlib import Path

import pytest

from localai.cli import options
from localai.engine.settings import Limits, LoadOptions, LogitBias, Sampling
from localai.errors import ModelFileError, ModelNotFound, UsageError
from models.manifest import Manifest
from models.origins import LocalFile
from models.store import Resolved, Store


def test_nothing_given_leaves_everything_to_the_engine() -> None:
    assert options.Loading().options(speculate=True) == LoadOptions()
    assert options.Drawing().sampling() == Sampling()
    assert options.Ending().limits() == Limits()


def test_everything_given_arrives() -> None:
    loading = options.Loading(
        context=4096,
        threads=2,
        gpu_layers=3,
        kv_type="q8_0",
        flash_attention="on",
        mmap=False,
        mlock=True,
        batch=64,
    )
    assert loading.options(draft="/small.gguf") == LoadOptions(
        context=4096,
        threads=2,
        gpu_layers=3,
        kv_type="q8_0",
        flash_attention="on",
        mmap=False,
        mlock=True,
        batch=64,
        speculate=False,
        draft="/small.gguf",
    )
    drawing = options.Drawing(1, 0.5, 0.9, 40, 0.05, 1.1, 0.2, 0.3, 64, ["yes=1.5", "7=-inf"])
    assert drawing.sampling() == Sampling(
        temperature=0.5,
        top_p=0.9,
        top_k=40,
        min_p=0.05,
        seed=1,
        repeat_penalty=1.1,
        frequency_penalty=0.2,
        presence_penalty=0.3,
        penalty_last_n=64,
        logit_bias=(LogitBias("yes", 1.5), LogitBias(7, -math.inf)),
    )
    assert options.Ending(10, 5, ["\n", "END"]).limits() == Limits(10, 5, ("\n", "END"))


@pytest.mark.parametrize(
    ("text", "token", "bias"),
    [
        ("perhaps=-5", "perhaps", -5.0),
        (" perhaps=0.5", " perhaps", 0.5),
        ("a=b=2", "a=b", 2.0),
        ("151646=-inf", 151646, -math.inf),
        ('"42"=1', "42", 1.0),
        ('"=1', '"', 1.0),
        ('""=1', '""', 1.0),
        ("²=1", "²", 1.0),
        ("1" * 30 + "=1", "1" * 30, 1.0),
    ],
)
def test_biases(text: str, token: int | str, bias: float) -> None:
    assert options.parse_bias(text) == LogitBias(token, bias)


@pytest.mark.parametrize("text", ["", "perhaps", "perhaps=", "=5", "perhaps=much", "x=nan", "x=inf"])
def test_biases_that_are_none(text: str) -> None:
    with pytest.raises(UsageError, match="is not TOKEN=BIAS"):
        options.parse_bias(text)


def test_what_does_not_go_together_is_refused(nano: Path) -> None:
    with pytest.raises(UsageError, match="needs flash attention"):
        options.Loading(kv_type="q4_0", flash_attention="off").options()
    options.Loading(kv_type="f16", flash_attention="off").options()
    with pytest.raises(UsageError, match="--no-speculate"):
        options.Speculation(str(nano), speculate=False).drafter(Store())
    with pytest.raises(UsageError, match="--stop"):
        options.Ending(stop=["x", ""]).limits()


def test_the_draft_model_is_found_as_any_model(nano: Path) -> None:
    assert options.Speculation().drafter(Store()) is None
    drafter = options.Speculation(str(nano)).drafter(Store())
    assert drafter is not None
    assert drafter.path == nano
    with pytest.raises(ModelNotFound):
        options.Speculation("nowhere:1b").drafter(Store())


def test_what_is_wrong_with_a_stored_file_is_told_with_its_name(nano: Path, tmp_path: Path) -> None:
    file = tmp_path / "sha256-12"
    file.write_bytes(nano.read_bytes()[:-5000])
    manifest = Manifest(
        name="r1:7b",
        sha256="12" * 32,
        size=1,
        title="R1",
        architecture="qwen2",
        file_type="Q8_0",
        parameters=1,
        context_trained=2048,
        license="mit",
        reasoning=True,
        source=LocalFile(path="/r1.gguf"),
        added="2025-01-20T00:00:00+00:00",
    )
    with pytest.raises(ModelFileError) as caught:
        options.header(Resolved(file, "r1:7b", manifest))
    assert "r1:7b" in caught.value.message
    assert "sha256-12" not in str(caught.value)
    with pytest.raises(ModelFileError, match="sha256-12"):
        options.header(Resolved(file, "sha256-12", None))
    assert options.header(Resolved(nano, "nano", manifest)).architecture == "qwen2"


def test_groups_are_spread_into_options() -> None:
    seen: list[object] = []

    @options.spread
    def command(
        word: str = "x", json: options.Json = False, *, ending: options.Ending, loading: options.Loading
    ) -> None:
        seen.extend((word, json, ending, loading))

    parameters = inspect.signature(command, eval_str=True).parameters
    assert list(parameters) == [
        *("word", "json", "max_tokens", "think_budget", "stop"),
        *("context", "threads", "gpu_layers", "kv_type", "flash_attention", "mmap", "mlock", "batch"),
        *("allow_architecture", "sandbox"),
    ]
    given = {name: parameter.default for name, parameter in parameters.items()} | {
        "threads": 3,
        "stop": ["a"],
    }
    command(**given)
    assert seen == ["x", False, options.Ending(stop=["a"]), options.Loading(threads=3)]


def test_what_was_allowed_when_a_model_was_added_is_allowed_ever_after(nano: Path) -> None:
    added = Manifest(
        name="gemma",
        sha256="12" * 32,
        size=1,
        title="",
        architecture="gemma",
        file_type="Q8_0",
        parameters=1,
        context_trained=2048,
        license="",
        reasoning=False,
        source=LocalFile(path="/gemma.gguf"),
        added="2025-01-20T00:00:00+00:00",
        allowed_architecture="gemma",
    )
    stored, file = Resolved(nano, "gemma", added), Resolved(nano, "nano.gguf", None)
    assert options.Loading().options(file, None).allow_architectures == ()
    assert options.Loading().options(file, stored).allow_architectures == ("gemma",)
    loading = options.Loading(allow_architecture=["phi2"])
    assert loading.options(file).allow_architectures == ("phi2",)
    assert loading.options(stored).allow_architectures == ("phi2", "gemma")
