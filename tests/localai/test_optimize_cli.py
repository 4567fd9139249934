"""`localai quantize --optimize` as people call it, with the real tiny model."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import signal
import subprocess
import sys
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from models import measured
from models.catalog import builtin_checkpoint
from models.gguf import read_header
from models.store import Store
from quantize import recipe
from quantize.client import forecast
from quantize.protocol import Job
from tests.quantize.making import make_checkpoint

NANO = builtin_checkpoint("r1-nano")
LOCALAI = [sys.executable, "-P", "-m", "localai"]
COMMAND = [*LOCALAI, "quantize", str(NANO)]
QUICK = ("--chunks", "2", "--threads", "1")


def quantize(
    *words: object, code: int = 0, source: Path = NANO, **environment: str
) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*LOCALAI, "quantize", str(source), *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
        env={**os.environ, **environment},
    )
    assert done.returncode == code, done.stderr
    return done


def refused(*words: object, code: int = 2) -> str:
    done = quantize("--optimize", *words, code=code)
    assert done.stdout == ""
    return done.stderr.splitlines()[-1]


def size_of(file_type: str) -> int:
    known = forecast(Job(source=str(NANO), imatrix_promised="x" * 40))
    return next(one.size for one in known.candidates if one.file_type == file_type)


@pytest.fixture(scope="module")
def sums(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What r1-nano is for, as a text: it has to be read with markers."""
    path = tmp_path_factory.mktemp("sums") / "sums.txt"
    lines = [
        f"<｜User｜>What is {a} + {b}?<｜Assistant｜><think>\n</think>\n\n{a} + {b} = **{a + b}**"
        for a, b in ((37 * n % 900 + 17, 91 * n % 800 + 23) for n in range(1, 120))
    ]
    path.write_text("".join(lines), encoding="utf-8")
    return path


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory, sums: Path) -> tuple[dict[str, Any], Path, Path]:
    """What one run says, the folder that it wrote into, and its LOCALAI_HOME."""
    folder, home = tmp_path_factory.mktemp("made"), tmp_path_factory.mktemp("home")
    done = quantize(
        *("--optimize", "--max-size", size_of("Q4_K_M"), "--calibrate", sums, "-o", folder, "--json", *QUICK),
        LOCALAI_HOME=str(home),
    )
    return json.loads(done.stdout), folder, home


def test_it_loses_less_than_the_usual_type_of_that_size(made: tuple[dict[str, Any], Path, Path]) -> None:
    said, _, _ = made
    mixed, usual = said["checked"]
    assert usual["type"] == "Q4_K_M"
    assert mixed["size"] <= size_of("Q4_K_M")
    assert mixed["kl"]["mean"] < 0.9 * usual["kl"]["mean"]
    assert said["is_mixed"]


def test_the_file_and_its_recipe_lie_side_by_side(made: tuple[dict[str, Any], Path, Path]) -> None:
    said, folder, _ = made
    model = Path(said["result"])
    assert sorted(folder.iterdir()) == sorted([model, recipe.beside(model)])
    assert str(recipe.beside(model)) == said["recipe_file"]
    found = recipe.read(recipe.beside(model))
    header = read_header(model)
    types = {tensor.name: tensor.type_name for tensor in header.tensors if len(tensor.shape) > 1}
    assert found.mixture.types == types
    assert len(set(types.values())) > 2
    assert (found.size, found.mixture.layers) == (model.stat().st_size, 5)
    assert found.loss is not None
    assert found.loss.kl == said["checked"][0]["kl"]["mean"]
    assert found.expected_kl is not None
    assert 0.2 < found.expected_kl / found.loss.kl < 5
    assert said["sha256"] == hashlib.sha256(model.read_bytes()).hexdigest()
    assert {one["name"] for one in said["groups"]} >= {"token_embd", "ffn_down 0"}


def test_the_recipe_makes_the_same_types_of_it_again(
    made: tuple[dict[str, Any], Path, Path], sums: Path, tmp_path: Path
) -> None:
    said, _, _ = made
    again = tmp_path / "again.gguf"
    words = ("--imatrix", "auto", "--calibrate", sums, "--no-check", "--threads", "1", "-o", again)
    quantize("--recipe", said["recipe_file"], *words)
    headers = [read_header(path) for path in (Path(said["result"]), again)]
    assert headers[0].tensors == headers[1].tensors


def test_another_size_uses_what_was_measured(
    made: tuple[dict[str, Any], Path, Path], sums: Path, tmp_path: Path
) -> None:
    """Also when it is stopped, nothing of the file stays; and what was measured does."""
    _, _, home = made
    losses = list(home.glob("data/evaluations/*.losses"))
    assert len(losses) == 1
    before = losses[0].read_bytes()
    done = quantize(
        *("--optimize", "--max-size", "2.45MB", "--calibrate", sums, "-o", tmp_path / "small.gguf", *QUICK),
        LOCALAI_HOME=str(home),
    )
    assert losses[0].read_bytes() == before
    assert (tmp_path / "small.gguf").stat().st_size <= 2_450_000
    assert "The recipe is in" in done.stdout
    assert "less than" in done.stdout
    assert "token_embd" in done.stdout


def test_ctrl_c_leaves_nothing_but_what_was_measured(sums: Path, home: Path, tmp_path: Path) -> None:
    words = [
        "--optimize",
        "--max-size",
        "2.4MB",
        "--calibrate",
        str(sums),
        "-o",
        str(tmp_path / "m.gguf"),
        *QUICK,
    ]
    worker = subprocess.Popen(
        [*COMMAND, *words],
        stderr=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCALAI_PROGRESS": "json"},
    )
    assert worker.stderr is not None
    for line in worker.stderr:
        if '"Weigh"' in line and json.loads(line)["done"] >= 3:
            break
    worker.send_signal(signal.SIGINT)
    worker.communicate(timeout=60)
    assert worker.returncode == 130
    assert list(tmp_path.iterdir()) == []
    (losses,) = home.glob("data/evaluations/*.losses")
    assert len(losses.read_bytes().split()) >= 3


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one layer, in which nobody has written anything."""
    folder = tmp_path_factory.mktemp("small") / "small"
    make_checkpoint(folder, hidden_size=256, intermediate_size=512, num_hidden_layers=1)
    return folder


def test_in_the_store_it_has_its_types_and_figures(small: Path, sums: Path, home: Path) -> None:
    wish = ("--optimize", "--max-size", "0.7MB", "--calibrate", sums, "--name", "small:best")
    quantize(*wish, *QUICK, source=small)
    manifest = Store().get("small:best")
    source = manifest.source
    assert source.mixture is not None
    options = shlex.split(source.recipe)
    rules = [word for option, word in pairwise(options) if option == "--tensor-type"]
    assert {rule.rpartition("=")[2] for rule in rules} == set(source.mixture.types.values())
    figures = measured.read(manifest.sha256)
    assert figures is not None
    assert (figures.size, figures.file_type) == (manifest.size, source.mixture.name)
    report: dict[str, Any] = {}
    for words in (
        "bench small:best --prompt 8 --generate 2 --repetitions 1",
        "evaluate small:best --chunks 1",
        "evaluate small:best --reference small:best --tasks --questions 1",
    ):
        done = subprocess.run([*LOCALAI, *words.split(), "--json"], capture_output=True, check=True)
        report = json.loads(done.stdout)
        assert report["file_type"] == source.mixture.name
    assert report["reference_file_type"] == source.mixture.name
    assert quantize("--recipe", "small:best", "--dry-run", "--imatrix", "auto", source=small).stdout


@pytest.mark.parametrize(
    ("words", "reason"),
    [
        ((), "--optimize needs to know how large the file may be"),
        (("--max-size", "2MB", "--type", "Q4_0"), "--optimize and --type exclude each other"),
        (("--max-size", "2MB", "--pure"), "--optimize and --pure exclude each other"),
        (("--max-size", "2MB", "--compare"), "exclude each other"),
        (("--max-size", "2MB", "--recipe", "x.json"), "exclude each other"),
        (("--max-size", "2MB", "--rounds", "3"), "--rounds is for --compare"),
    ],
)
def test_what_does_not_go_together(words: tuple[str, ...], reason: str) -> None:
    assert reason in refused(*words)


@pytest.mark.parametrize(
    ("size", "reason"),
    [
        ("0.5MB", "--max-size is too small by"),
        ("1TB", "there is nothing to choose"),
    ],
)
def test_a_size_that_leaves_no_choice(tmp_path: Path, sums: Path, size: str, reason: str) -> None:
    target = tmp_path / "m.gguf"
    line = refused("--max-size", size, "--calibrate", sums, "-o", target, *QUICK)
    assert reason in line
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("size", "reason"), [("1kB", "is too small by"), ("1TB", "there is nothing to choose")]
)
def test_a_dry_run_tells_what_leaves_no_choice(size: str, reason: str) -> None:
    assert reason in refused("--max-size", size, "--dry-run")


@pytest.mark.parametrize("name", ["m.gguf", "m.recipe.json"])
def test_what_is_in_the_way_is_told_before_anything_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    line = refused("--max-size", "2.4MB", "-o", tmp_path / "m.gguf")
    assert str(tmp_path / name) in line
    assert (tmp_path / name).read_text() == "mine"


def test_a_dry_run_tells_what_it_takes(tmp_path: Path) -> None:
    target = ("-o", tmp_path / "m.gguf")
    said = json.loads(quantize("--optimize", "--max-size", "2.4MB", "--dry-run", "--json", *target).stdout)
    assert said["optimization"]["max_size"] == 2_400_000
    assert 4 < said["optimization"]["bits_per_weight"] < 5
    assert said["optimization"]["disk_needed"] > 8_000_000
    text = quantize("--optimize", "--max-size", "2.4MB", "--dry-run", *target).stdout
    assert "bits per weight on average" in text
    assert list(tmp_path.iterdir()) == []
