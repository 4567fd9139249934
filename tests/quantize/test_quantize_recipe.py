"""Recipes: their files, their rules for llama-quantize, and what they make of this and other checkpoints."""

from __future__ import annotations

import json
import os
import random
import re
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as some

from localai.errors import LocalAIError, QuantizeError, UsageError
from models.figures import Loss
from models.ggml_types import TENSOR_TYPES, WRITABLE
from models.gguf import read_header
from models.mixture import Mixture
from quantize import client, recipe
from quantize.protocol import Candidate, Job
from quantize.recipe import Recipe, for_model, grouped, nearest_file_type, patterns
from tests.quantize.checkpoints import RECIPES, write_imatrix
from tests.quantize.digests import digest
from tests.quantize.doing import convert, convert_all, types
from tests.quantize.making import NANO, make_checkpoint, names_in

GOLDEN: dict[str, dict[str, Any]] = json.loads(
    (Path(__file__).parents[1] / "data" / "golden-recipes.json").read_text()
)
PARTS = ("attn_q.weight", "attn_v.weight", "ffn_down.weight")
KINDS = ("Q8_0", "Q6_K", "Q4_K", "IQ4_XS")


def mixture(given_types: dict[str, str], layers: int = 2, **changes: Any) -> Mixture:
    known = {"name": "mixed-4.6", "architecture": "llama", "layers": layers, "file_type": "Q4_K_M"}
    return Mixture(**{**known, "types": {"token_embd.weight": "Q6_K", **given_types}, **changes})


def recipe_of(mixed: Mixture, **changes: Any) -> Recipe:
    known: dict[str, Any] = {"made_for": "r1:1.5b", "size": 1000, "bits_per_weight": 4.63}
    return Recipe(**{**known, **changes}, mixture=mixed)


LOSS = Loss(
    reference="F16",
    text="evaluation.txt",
    text_sha256="0" * 64,
    context=512,
    tokens=1020,
    kl=0.05,
    kl_stderr=0.003,
    perplexity=17.0,
    perplexity_stderr=1.4,
    perplexity_ratio=1.01,
    perplexity_ratio_stderr=0.01,
    top1=0.9,
    top1_stderr=0.01,
)

# ------------------------------------------------------------------------------------------------- files


def test_a_file_of_it_is_read_again(tmp_path: Path) -> None:
    known = recipe_of(mixture({"blk.0.attn_q.weight": "Q4_K"}), loss=LOSS, expected_kl=0.04)
    path = tmp_path / "a.recipe.json"
    recipe.write(known, path, overwrite=False)
    assert recipe.read(path) == known
    assert b'\n      "blk.0.attn_q.weight": "Q4_K"\n' in path.read_bytes()
    with pytest.raises(UsageError, match="is there already"):
        recipe.write(known, path, overwrite=False)
    recipe.write(recipe_of(mixture({}), made_for="another"), path, overwrite=True)
    assert recipe.read(path).made_for == "another"
    assert names_in(tmp_path) == ["a.recipe.json"]


def test_it_lies_beside_its_model() -> None:
    assert recipe.beside(Path("/a/r1.gguf")) == Path("/a/r1.recipe.json")
    assert recipe.beside(Path("/a/r1-mixed-4.6.GGUF")) == Path("/a/r1-mixed-4.6.recipe.json")
    assert recipe.beside(Path("/a/r1-mixed-4.6")) == Path("/a/r1-mixed-4.6.recipe.json")


def changed(**values: Any) -> bytes:
    return msgspec.json.encode(
        {**json.loads(recipe_of(mixture({"blk.0.attn_q.weight": "Q4_K"})).encode()), **values}
    )


@pytest.mark.parametrize(
    ("data", "kind", "message"),
    [
        (b"", UsageError, "is not a recipe"),
        (b"{}", UsageError, "is not a recipe"),
        (b"[1]", UsageError, "is not a recipe"),
        (b"GGUF\3\0\0\0", UsageError, "is not a recipe"),
        (b"\xff\xfe", UsageError, "is not a recipe"),
        (b'{"x": ' + b"[" * 100_000, UsageError, "is not a recipe"),
        (b'{"format": "\xff"}', UsageError, "is not a recipe"),
        (changed(format="another"), UsageError, "is not a recipe"),
        (changed(version=2), QuantizeError, "of version 2, which this program does not know"),
        (changed(size=-1), QuantizeError, r"valid recipe: .*`\$\.size`"),
        (changed(bits_per_weight="4"), QuantizeError, r"`\$\.bits_per_weight`"),
        (changed(made_for="\x1b[2J"), QuantizeError, r"`\$\.made_for`"),
        (changed(mixture={"name": "x"}), QuantizeError, r"`\$\.mixture`"),
        (changed(unknown=1), QuantizeError, "unknown field"),
        (changed(imatrix_sha256="zz"), QuantizeError, r"`\$\.imatrix_sha256`"),
        (changed() + b" " * recipe.MAX_BYTES, UsageError, "is not a recipe"),
    ],
)
def test_what_is_no_recipe(tmp_path: Path, data: bytes, kind: type[LocalAIError], message: str) -> None:
    path = tmp_path / "x.json"
    path.write_bytes(data)
    with pytest.raises(kind, match=message) as caught:
        recipe.read(path)
    assert str(path) in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 500


def test_what_is_no_file(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    os.mkfifo(tmp_path / "pipe")
    for path, message in {
        "nowhere": "there is no file",
        "folder/x": "there is no file",
        "a\0b": "there is no file",
        "folder": "a folder, not a recipe",
        "pipe": "a named pipe, not a recipe",
    }.items():
        with pytest.raises(UsageError, match=message):
            recipe.read(tmp_path / path)


@given(some.binary(max_size=200), some.integers(0, 400))
def test_no_damage_gets_further_than_an_error(junk: bytes, at: int) -> None:
    good = changed()
    damaged = good[: at % len(good)] + junk + good[at % len(good) + len(junk) :]
    with suppress(LocalAIError):
        recipe.parse(damaged, "x.json")


# ------------------------------------------------------------------------------------------------- rules


@given(
    some.dictionaries(some.tuples(some.integers(0, 130), some.sampled_from(PARTS)), some.sampled_from(KINDS))
)
def test_each_tensor_is_matched_once_and_gets_its_type(layers: dict[tuple[int, str], str]) -> None:
    known = {f"blk.{layer}.{part}": kind for (layer, part), kind in layers.items()}
    known |= {"token_embd.weight": "Q6_K", "output.weight": "Q8_0"}
    rules = patterns(known)
    for name, kind in known.items():
        found = [number for pattern, number in rules if re.search(pattern, name)]
        assert found == [WRITABLE[kind]], name
    for name in (
        "blk.0.attn_q_norm.weight",
        "blk.0.attn_q.weights",
        "xblk.0.attn_q.weight",
        "token_embdxweight",
    ):
        assert not [pattern for pattern, _ in rules if re.search(pattern, name)]


def test_the_rules_are_few() -> None:
    known = {f"blk.{layer}.{part}": "Q4_K" for layer in range(28) for part in PARTS}
    known |= {"blk.1.attn_v.weight": "Q6_K", "blk.10.attn_v.weight": "Q6_K", "output.weight": "Q8_0"}
    rules = {pattern: TENSOR_TYPES[number].name for pattern, number in patterns(known)}
    assert len(rules) == 5
    assert rules[r"^blk\.[0-9]+\.attn_q\.weight$"] == "Q4_K"
    assert rules[r"^blk\.(1|10)\.attn_v\.weight$"] == "Q6_K"
    assert rules[r"^output\.weight$"] == "Q8_0"
    assert grouped(known)["attn_v.weight"]["Q6_K"] == [1, 10]
    assert grouped(known)["output.weight"] == {"Q8_0": []}


def candidate(file_type: str, size: int) -> Candidate:
    return Candidate(file_type, size, 4.0, needs_imatrix=False, memory={4096: 1})


def test_the_file_type_that_it_is_taken_for_is_the_nearest() -> None:
    known = [
        candidate(name, size)
        for name, size in (
            ("mixed-4.6", 460),
            ("F16", 1600),
            ("Q8_0", 850),
            ("Q4_K_M", 480),
            ("Q3_K_M", 390),
            ("Q2_K", 300),
            ("Q2_K_S", 290),
            ("IQ2_M", 280),
            ("TQ2_0", 210),
        )
    ]
    assert nearest_file_type(["Q4_K"], 460, known) == "Q4_K_M"
    assert nearest_file_type(["Q4_K"], 430, known) == "Q3_K_M"
    assert nearest_file_type(["Q8_0"], 2000, known) == "Q8_0"
    assert nearest_file_type(["Q2_K"], 200, known) == "Q2_K"
    assert nearest_file_type(["Q2_K", "IQ2_S"], 200, known) == "IQ2_M"
    assert nearest_file_type(["Q2_K", "IQ2_S"], 291, known) == "Q2_K"


# -------------------------------------------------------------------------------------- another checkpoint


def layers_of(count: int) -> list[str]:
    return [f"blk.{layer}.attn_q.weight" for layer in range(count)]


@pytest.mark.parametrize(
    ("donors", "layers", "stands_for"),
    [
        (4, 4, [0, 1, 2, 3]),
        (2, 5, [0, 0, 1, 1, 1]),
        (5, 2, [0, 4]),
        (5, 3, [0, 2, 4]),
        (3, 4, [0, 1, 1, 2]),
        (1, 3, [0, 0, 0]),
        (3, 1, [0]),
    ],
)
def test_layers_are_those_at_the_same_depth(donors: int, layers: int, stands_for: list[int]) -> None:
    """The first of one is the first of the other, and the last the last."""
    kinds = ["Q8_0", "Q6_K", "Q5_K", "Q4_K", "Q3_K"]
    known = mixture({name: kinds[at] for at, name in enumerate(layers_of(donors))}, donors)
    found = for_model(known, "llama", layers, layers_of(layers))
    assert found == dict(zip(layers_of(layers), [kinds[at] for at in stands_for], strict=True))


@given(some.integers(1, 130), some.integers(1, 130))
def test_depths_never_go_back(donors: int, layers: int) -> None:
    kinds = list(WRITABLE)
    known = mixture({name: kinds[at % len(kinds)] for at, name in enumerate(layers_of(donors))}, donors)
    found = for_model(known, "llama", layers, layers_of(layers))
    stands_for = [recipe._donor(name, donors, layers) for name in layers_of(layers)]
    numbers = [int(name.split(".")[1]) for name in stands_for]
    assert numbers == sorted(numbers)
    assert (numbers[0], numbers[-1]) == (0, donors - 1 if layers > 1 else 0)
    assert found == {name: known.types[donor] for name, donor in zip(found, stands_for, strict=True)}


def test_what_it_has_nothing_for_is_as_the_embeddings() -> None:
    known = mixture({"blk.0.attn_q.weight": "Q4_K"})
    found = for_model(known, "llama", 2, ["blk.0.attn_q.weight", "blk.1.attn_q.weight", "output.weight"])
    assert found == {
        "blk.0.attn_q.weight": "Q4_K",
        "blk.1.attn_q.weight": "Q6_K",
        "output.weight": "Q6_K",
    }


def test_embeddings_that_are_the_output_too_are_as_the_output() -> None:
    known = mixture({"output.weight": "Q8_0", "token_embd.weight": "Q3_K"})
    assert for_model(known, "llama", 2, ["token_embd.weight"]) == {"token_embd.weight": "Q8_0"}
    both = ["token_embd.weight", "output.weight"]
    assert for_model(known, "llama", 2, both) == {"token_embd.weight": "Q3_K", "output.weight": "Q8_0"}


def test_another_architecture() -> None:
    with pytest.raises(UsageError, match=r"mixed-4\.6 is for .* llama, and this is one of qwen2"):
        for_model(mixture({}), "qwen2", 2, [])


# ------------------------------------------------------------------------------------------------- bytes


@pytest.mark.parametrize("name", GOLDEN)
def test_the_same_file_as_llama_quantizes_by_the_rules(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    case = GOLDEN[name]
    RECIPES[name](tmp_path / name)
    monkeypatch.chdir(tmp_path)
    write_imatrix(name, Path("imatrix.gguf"))
    known = mixture(
        case["types"],
        case["layers"],
        architecture=name.partition("-")[0],
        file_type=case["file_type"],
    )
    imatrix = "imatrix.gguf" if case["imatrix"] else ""
    convert(tmp_path / name, tmp_path / "x.gguf", known.name, mixtures=(known,), imatrix=imatrix)
    found = digest(tmp_path / "x.gguf")
    assert found == {key: case[key] for key in found}


@pytest.fixture(scope="module")
def wide(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two layers with columns that all blocks divide, and an output matrix."""
    folder = tmp_path_factory.mktemp("recipe") / "m"
    make_checkpoint(folder, hidden_size=256, intermediate_size=512)
    return folder


def any_types(matrices: list[str], seed: int) -> dict[str, str]:
    draw = random.Random(seed)
    return {name: draw.choice(("Q8_0", "Q6_K", "Q5_1", "Q4_K", "IQ4_XS", "Q3_K", "F16")) for name in matrices}


def matrices_of(source: Path) -> list[str]:
    return list(client.errors(Job(str(source)), [WRITABLE["Q8_0"]], rows=1)[1])


def test_every_tensor_has_the_type_that_it_says(wide: Path, tmp_path: Path) -> None:
    """Of several recipes beside usual types, in one reading; the forecast knows their sizes."""
    known = [
        mixture(any_types(matrices_of(wide), seed), name=f"trial-{seed}", file_type=file_type)
        for seed, file_type in enumerate(("Q4_K_M", "Q8_0", "IQ4_XS"))
    ]
    outputs = {tmp_path / f"{one.name}.gguf": one.name for one in known}
    events: list[Any] = []
    report = convert_all(
        wide, {**outputs, tmp_path / "u.gguf": "Q4_0"}, mixtures=tuple(known), on_event=events.append
    )
    forecast = events[0]
    assert [one.file_type for one in forecast.candidates[:4]] == ["trial-0", "trial-1", "trial-2", "F32"]
    assert [one.file_type for one in report.outputs] == ["trial-0", "trial-1", "trial-2", "Q4_0"]
    for one, path, told, written in zip(known, outputs, forecast.candidates, report.outputs, strict=False):
        found = types(path)
        assert {name: found[name] for name in one.types} == one.types
        assert {kind for name, kind in found.items() if name not in one.types} == {"F32"}
        assert path.stat().st_size == told.size == written.size
        header = read_header(path)
        assert header.file_type == one.file_type
        assert recipe.of_file(one, header) == one
    convert(wide, tmp_path / "plain.gguf", "Q4_0")
    assert (tmp_path / "plain.gguf").read_bytes() == (tmp_path / "u.gguf").read_bytes()


def test_the_rules_as_options_make_the_same_bytes(wide: Path, tmp_path: Path) -> None:
    known = mixture(any_types(matrices_of(wide), 7), file_type="Q3_K_M")
    convert(wide, tmp_path / "a.gguf", known.name, mixtures=(known,))
    convert(wide, tmp_path / "b.gguf", "Q3_K_M", tensor_types=patterns(known.types))
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_other_options_do_not_touch_it(wide: Path, tmp_path: Path) -> None:
    known = mixture(any_types(matrices_of(wide), 7), file_type="Q3_K_M")
    convert(wide, tmp_path / "a.gguf", known.name, mixtures=(known,))
    changes: dict[str, Any] = {"pure": True, "output_type": 2, "embedding_type": 2}
    rule = (("ffn_down", WRITABLE["Q4_0"]),)
    convert(wide, tmp_path / "b.gguf", known.name, mixtures=(known,), tensor_types=rule, **changes)
    assert (tmp_path / "a.gguf").read_bytes() == (tmp_path / "b.gguf").read_bytes()


def test_of_a_deeper_model_whose_columns_some_blocks_do_not_divide(wide: Path, tmp_path: Path) -> None:
    """Types fall back as in llama.cpp; what came out is a recipe for this model itself."""
    known = mixture(dict.fromkeys(matrices_of(wide), "Q4_K") | {"blk.1.ffn_down.weight": "IQ4_XS"})
    make_checkpoint(tmp_path / "m", hidden_size=256, intermediate_size=96, num_hidden_layers=4)
    convert(tmp_path / "m", tmp_path / "x.gguf", known.name, mixtures=(known,))
    found = types(tmp_path / "x.gguf")
    assert [found[f"blk.{layer}.ffn_down.weight"] for layer in range(4)] == [
        "Q5_0",
        "Q5_0",
        "IQ4_NL",
        "IQ4_NL",
    ]
    assert found["blk.3.ffn_up.weight"] == found["output.weight"] == "Q4_K"
    own = recipe.of_file(known, read_header(tmp_path / "x.gguf"))
    assert own.layers == 4
    convert(tmp_path / "m", tmp_path / "again.gguf", known.name, mixtures=(own,))
    assert (tmp_path / "again.gguf").read_bytes() == (tmp_path / "x.gguf").read_bytes()


def without_importance(source: Path, output: Path) -> None:
    known = mixture({"blk.0.ffn_up.weight": "IQ2_XS"}, name="mine")
    convert(source, output, "mine", mixtures=(known,))


def for_another(source: Path, output: Path) -> None:
    convert(source, output, "mine", mixtures=(mixture({}, name="mine", architecture="qwen3"),))


def by_no_name(source: Path, output: Path) -> None:
    convert(source, output, "mixed-4.7", mixtures=(mixture({}),))


@pytest.mark.parametrize(
    ("attempt", "message"),
    [
        (without_importance, r"mine needs an importance matrix, for IQ2_XS in blk\.0\.ffn_up\.weight"),
        (for_another, "mine is for models of the architecture qwen3"),
        (by_no_name, r"no output type 'mixed-4\.7'"),
    ],
)
def test_what_cannot_be_made(
    wide: Path, tmp_path: Path, attempt: Callable[[Path, Path], None], message: str
) -> None:
    with pytest.raises(LocalAIError, match=message):
        attempt(wide, tmp_path / "x.gguf")
    assert names_in(tmp_path) == []


def test_a_worker_makes_and_checks_it(tmp_path: Path) -> None:
    """The real thing: r1-nano, confined, loaded in the engine."""
    matrices = matrices_of(NANO)
    known = mixture(
        {**dict.fromkeys(matrices, "Q5_0"), "output.weight": "Q8_0"}, 5, architecture="qwen2", name="mine"
    )
    job = Job(str(NANO), mixtures=(known,))
    made = client.run(job, [client.Wanted("mine", tmp_path / "x.gguf")])
    assert made.checks[0].result == "passed"
    assert made.report.outputs[0].types == {"Q8_0": 1, "Q5_0": len(matrices) - 1, "F32": 63 - len(matrices)}
    assert client.forecast(job).candidates[0].size == (tmp_path / "x.gguf").stat().st_size
