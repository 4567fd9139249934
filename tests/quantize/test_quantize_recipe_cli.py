"""`localai quantize --recipe`: from a file, of a model in the store, and what is said of it."""

from __future__ import annotations

import json
import shlex
from pathlib import Path

import pytest

from models.mixture import Mixture
from models.origins import Checkpoint
from models.store import Store
from quantize import recipe
from quantize.recipe import Recipe
from tests.quantize.making import NANO, make_checkpoint, names_in
from tests.quantize.test_quantize_cli import error_of, quantize, said

PARTS = ("attn_q", "attn_k", "attn_v", "attn_output", "ffn_gate", "ffn_up", "ffn_down")


def mixture() -> Mixture:
    """For r1-nano, or a deeper one."""
    types = {"token_embd.weight": "Q5_K", "output.weight": "Q6_K"}
    for layer in range(5):
        types |= {f"blk.{layer}.{part}.weight": "Q4_K" if layer % 2 else "Q5_0" for part in PARTS}
    return Mixture(name="mixed-4.9", architecture="qwen2", layers=5, file_type="Q4_K_M", types=types)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "nano.recipe.json"
    known = Recipe(made_for="r1-nano", size=1, bits_per_weight=4.9, mixture=mixture())
    recipe.write(known, path, overwrite=False)
    return path


def test_from_a_file_into_a_folder(file: Path, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    found = said(NANO, "--recipe", file, "-o", tmp_path / "out")
    made = tmp_path / "out" / "r1-nano-mixed-4.9.gguf"
    assert names_in(tmp_path / "out") == [made.name]
    (one,) = found["outputs"]
    assert (one["file_type"], one["output_bytes"]) == ("mixed-4.9", made.stat().st_size)
    assert one["tensor_types"] == {"Q5_K": 1, "Q6_K": 1, "Q5_0": 21, "Q4_K": 14, "F32": 26}
    assert one["check"]["result"] == "passed"


def test_before_it_starts(file: Path) -> None:
    done = quantize(NANO, "--recipe", file, "--dry-run")
    lines = done.stdout.splitlines()
    assert lines[3].split()[0] == "mixed-4.9"
    assert lines[4].split()[0] == "F32"
    assert lines[-1] == "Recommended: mixed-4.9, the types of the recipe."


def test_a_model_in_the_store_keeps_it(file: Path, tmp_path: Path) -> None:
    """And makes the same file by its name, and by the options that its manifest has."""
    done = quantize(NANO, "--recipe", file, "--no-check")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("r1-nano:mixed-4.9: mixed-4.9, 63 tensors")
    (model,) = Store().manifests()
    assert (model.name, model.file_type) == ("r1-nano:mixed-4.9", "mixed-4.9")
    assert isinstance(model.source, Checkpoint)
    assert model.source.mixture == mixture()
    again, spelled = tmp_path / "again.gguf", tmp_path / "spelled.gguf"
    assert quantize(NANO, "--recipe", "R1-nano:mixed-4.9", "-o", again, "--no-check").returncode == 0
    assert quantize(NANO, *shlex.split(model.source.recipe), "-o", spelled, "--no-check").returncode == 0
    assert Store().path(model).read_bytes() == again.read_bytes() == spelled.read_bytes()


def test_for_another_checkpoint(file: Path, tmp_path: Path) -> None:
    """What is kept then is for that one: its layers, and the types that came out."""
    deeper = {"architectures": ["Qwen2ForCausalLM"], "num_hidden_layers": 9, "tie_word_embeddings": True}
    make_checkpoint(tmp_path / "m", hidden_size=256, intermediate_size=96, **deeper)
    assert quantize(tmp_path / "m", "--recipe", file, "--name", "deep", "--no-check").returncode == 0
    source = Store().get("deep").source
    assert isinstance(source, Checkpoint)
    assert source.mixture is not None
    assert source.mixture.layers == 9
    assert source.mixture.types["token_embd.weight"] == "Q6_K"
    assert [source.mixture.types[f"blk.{layer}.ffn_up.weight"] for layer in (0, 1, 2, 8)] == [
        *("Q5_0", "Q4_K", "Q4_K", "Q5_0")
    ]
    assert source.mixture.types["blk.1.ffn_down.weight"] == "Q5_0"  # 96 columns
    make_checkpoint(tmp_path / "llama")
    assert "architecture qwen2" in error_of(2, tmp_path / "llama", "--recipe", file, "--name", "x")


def test_a_better_result_is_hinted_at(file: Path, tmp_path: Path) -> None:
    known = Recipe(made_for="x", size=1, bits_per_weight=4.9, mixture=mixture(), imatrix_sha256="0" * 64)
    recipe.write(known, file, overwrite=True)
    words = (NANO, "--recipe", file, "-o", tmp_path / "x.gguf", "--no-check")
    assert "with --imatrix auto it loses less" in quantize(*words).stderr
    imatrix = Path(__file__).parents[1] / "data" / "imatrix" / "r1-nano.gguf"
    done = quantize(*words, "--overwrite", "--imatrix", imatrix)
    assert (done.returncode, "loses less" in done.stderr) == (0, False)


@pytest.mark.parametrize(
    "words",
    [
        ["--type", "Q4_0"],
        ["--pure"],
        ["--tensor-type", "ffn_up=Q4_0"],
        ["--output-type", "Q8_0"],
        ["--embedding-type", "Q8_0"],
        ["--max-size", "1GB"],
        ["--max-memory", "1GB"],
        ["--compare"],
        ["--optimize"],
    ],
)
def test_what_it_excludes(file: Path, tmp_path: Path, words: list[str]) -> None:
    message = error_of(2, NANO, "--recipe", file, "-o", tmp_path / "x.gguf", *words)
    assert f"--recipe and {words[0]} exclude each other" in message


def test_what_is_no_recipe(file: Path, tmp_path: Path) -> None:
    output = ("-o", tmp_path / "x.gguf", "--no-check")
    assert "no model called 'nosuch'" in error_of(1, NANO, "--recipe", "nosuch", *output)
    assert "there is no file" in error_of(2, NANO, "--recipe", tmp_path / "nosuch.json", *output)
    assert "is not a recipe" in error_of(2, NANO, "--recipe", NANO / "config.json", *output)
    file.write_text(json.dumps({**json.loads(file.read_text()), "size": "much"}))
    assert "is not a valid recipe" in error_of(1, NANO, "--recipe", file, *output)
    assert quantize(NANO, "--type", "Q8_0", "--name", "plain", "--no-check").returncode == 0
    assert "plain was not made with a recipe" in error_of(2, NANO, "--recipe", "plain", *output)
    assert names_in(tmp_path) == [file.name]
