"""`localai imatrix` and `localai quantize --imatrix auto` as people call them."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest

from localai.cli import imatrix as command
from localai.errors import EngineError
from models.origins import Checkpoint
from models.store import Store
from quantize import collecting
from quantize.imatrix import read_imatrix
from tests.quantize.doing import convert, fields, types
from tests.quantize.making import NANO, make_checkpoint, names_in

PROSE = "What is 17 + 25? First the ones: 7 + 5 = 12. Then the tens. " * 12
LINE = "localai: error: "


def localai(*words: str | Path, cwd: Path | None = None, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-P", "-m", "localai", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
        cwd=cwd,
        env={**os.environ, **env},
    )


def said(*words: str | Path) -> dict[str, Any]:
    """What it says to programs."""
    done = localai(*words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def error_of(code: int, *words: str | Path) -> str:
    done = localai(*words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    last = done.stderr.splitlines()[-1]
    assert last.startswith(LINE)
    return last.removeprefix(LINE)


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint whose matrices all types fit."""
    folder = tmp_path_factory.mktemp("small") / "small"
    make_checkpoint(folder, hidden_size=256, intermediate_size=256, num_hidden_layers=1)
    return folder


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory, small: Path) -> Path:
    """The same as a GGUF."""
    output = tmp_path_factory.mktemp("model") / "small-F16.gguf"
    convert(small, output, "F16")
    return output


@pytest.fixture
def text(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "text.txt").write_text(PROSE)
    return tmp_path / "in" / "text.txt"


# ------------------------------------------------------------------------------------------ localai imatrix


def test_a_file_from_a_text(model: Path, text: Path, tmp_path: Path) -> None:
    output = tmp_path / "out" / "x.gguf"
    output.parent.mkdir()
    words = ["imatrix", model, "-o", output, "--text", text, "--context", "64", "--sandbox", "require"]
    found = said(*words, "--chunks", "3")
    assert found["result"] == str(output)
    assert (found["text"], found["chunks"], found["context"], found["tokens"]) == (str(text), 3, 64, 192)
    assert (found["matrices"], found["output_bytes"]) == (7, output.stat().st_size)
    assert found["sha256"] == hashlib.sha256(output.read_bytes()).hexdigest()
    assert read_imatrix(output).datasets == (str(text),)
    assert names_in(output.parent) == ["x.gguf"]
    done = localai(*words, "--overwrite")
    assert done.returncode == 0
    assert "7 matrices" in done.stdout
    assert read_imatrix(output).chunks > 3


def test_types_that_need_one_work_with_it(model: Path, small: Path, text: Path, tmp_path: Path) -> None:
    said("imatrix", model, "-o", tmp_path / "x.gguf", "--text", text, "--context", "64")
    output = tmp_path / "out.gguf"
    said("quantize", small, "--type", "IQ2_XS", "--imatrix", tmp_path / "x.gguf", "-o", output)
    assert fields(output)["quantize.imatrix.dataset"] == str(text)


def test_the_text_that_comes_along(model: Path, tmp_path: Path) -> None:
    found = said("imatrix", model, "-o", tmp_path / "x.gguf", "--chunks", "2")
    assert (found["text"], found["context"], found["chunks"]) == ("built-in calibration.txt", 512, 2)


# -------------------------------------------------------------------------------------- --calibrate


def test_a_text_that_the_model_writes(nano: Path, tmp_path: Path) -> None:
    """It is kept where that is wanted; read again, it gives the same file but for its name."""
    output, saved = tmp_path / "x.gguf", tmp_path / "text.txt"
    words = ["imatrix", nano, "--threads", "1", "--sandbox", "require"]
    wish = ["--calibrate", "self", "--calibrate-tokens", "1100"]
    found = said(*words, "-o", output, *wish, "--save-text", saved)
    digest = hashlib.sha256(saved.read_bytes()).hexdigest()
    assert found["text"] == f"written by the model itself, sha256 {digest}"
    assert (found["chunks"], found["context"], found["matrices"]) == (2, 512, 35)
    assert read_imatrix(output).datasets == (found["text"],)
    assert "<｜Assistant｜><think>\n" in saved.read_text()
    assert names_in(tmp_path) == ["text.txt", "x.gguf"]
    for again in (["--text", saved, "--parse-special"], ["--calibrate", saved]):
        found = said(*words, "-o", tmp_path / "y.gguf", *again, "--overwrite")
        assert found["text"] == str(saved)
        one, other = read_imatrix(output), read_imatrix(tmp_path / "y.gguf")
        assert one.weights.keys() == other.weights.keys()
        assert all((one.weights[name] == other.weights[name]).all() for name in one.weights)


def test_quantize_with_a_text_that_the_model_writes(tmp_path: Path, home: Path) -> None:
    """The forecast is exact to the byte; the manifest says how to make it again."""
    wish = ["--imatrix", "auto", "--calibrate", "self", "--calibrate-tokens", "1100"]
    known = said("quantize", NANO, "--dry-run", *wish)["forecast"]
    size = next(one["size"] for one in known["types"] if one["type"] == "Q4_0")
    found = said("quantize", NANO, "--type", "Q4_0", *wish, "--name", "s", "--threads", "1")
    assert found["report"]["output_bytes"] == size
    (manifest,) = Store().manifests()
    assert isinstance(manifest.source, Checkpoint)
    assert manifest.source.recipe == f"--type Q4_0 {' '.join(wish)}"
    known = fields(Store().path(manifest))
    assert str(known["quantize.imatrix.dataset"]).startswith("written by the model itself, sha256 ")
    assert known["quantize.imatrix.chunks_count"] == 2
    assert names_in(Store().root / "incoming") == []


def test_quantize_with_a_text_of_ones_own(small: Path, text: Path, tmp_path: Path) -> None:
    text.write_text("<｜User｜>" + 4 * PROSE)
    words = ["--imatrix", "auto", "--calibrate", text]
    said("quantize", small, "--type", "IQ2_XS", *words, "-o", tmp_path / "x.gguf", "--threads", "1")
    assert fields(tmp_path / "x.gguf")["quantize.imatrix.dataset"] == str(text)


def test_a_text_that_is_not_written_leaves_nothing(small: Path, tmp_path: Path) -> None:
    """Neither of the two files is there when the other cannot be."""
    (tmp_path / "text.txt").write_text("mine")
    words = ["imatrix", "r1-nano.gguf", "-o", tmp_path / "x.gguf", "--calibrate", "self"]
    convert(NANO, tmp_path / "r1-nano.gguf", "Q8_0")
    done = localai(*words, "--save-text", tmp_path / "text.txt", cwd=tmp_path)
    assert done.returncode == 2
    assert f"{tmp_path / 'text.txt'} is there already" in done.stderr
    assert names_in(tmp_path) == ["r1-nano.gguf", "text.txt"]


def test_a_text_that_was_written_is_kept_also_when_reading_it_fails(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def collect(*_: Any, **__: Any) -> Any:
        raise EngineError("the engine died")

    monkeypatch.setattr(collecting, "collect", collect)
    saved = tmp_path / "text.txt"
    with pytest.raises(EngineError):
        command.imatrix(
            model=str(nano),
            output_path=tmp_path / "x.gguf",
            save_text=saved,
            calibrate="self",
            calibrate_tokens=1100,
        )
    assert names_in(tmp_path) == ["text.txt"]
    assert "<｜Assistant｜><think>\n" in saved.read_text()
    assert f"what the model wrote is in {saved}" in capsys.readouterr().err


WRONG: dict[str, tuple[int, list[str], str]] = {
    "no model": (1, ["nothing.gguf", "-o", "x.gguf"], "nothing.gguf"),
    "no text": (2, ["m.gguf", "-o", "x.gguf", "--text", "nothing.txt"], "is not a file"),
    "a folder": (2, ["m.gguf", "-o", "x.gguf", "--text", "."], "is not a file"),
    "no UTF-8": (2, ["m.gguf", "-o", "x.gguf", "--text", "m.gguf"], "is not UTF-8 text"),
    "too short": (2, ["m.gguf", "-o", "x.gguf", "--text", "short.txt"], "tokens, and two pieces of 512"),
    "no text of one's own": (2, ["m.gguf", "-o", "x.gguf", "--parse-special"], "a text of your own"),
    "too long pieces": (2, ["m.gguf", "-o", "x.gguf", "-c", "4096"], "more than the 1,024 tokens"),
    "it is there": (2, ["m.gguf", "-o", "short.txt"], "short.txt is there already"),
    "it is the model": (2, ["m.gguf", "-o", "m.gguf", "--overwrite"], "m.gguf is what is read"),
    "no folder": (2, ["m.gguf", "-o", "nowhere/x.gguf"], "there is no folder"),
    "no output": (2, ["m.gguf"], "Missing option"),
    "two texts": (
        2,
        ["m.gguf", "-o", "x.gguf", "--text", "short.txt", "--calibrate", "self"],
        "exclude each",
    ),
    "no such text": (
        2,
        ["m.gguf", "-o", "x.gguf", "--calibrate", "nothing.txt"],
        "nothing.txt is not a file",
    ),
    "tokens of no text": (2, ["m.gguf", "-o", "x.gguf", "--calibrate-tokens", "2000"], "the model writes"),
    "few tokens": (2, ["m.gguf", "-o", "x.gguf", "--calibrate", "self", "--calibrate-tokens", "9"], "9"),
    "too short to be read": (
        2,
        ["m.gguf", "-o", "x.gguf", "--calibrate", "self", "--calibrate-tokens", "1100", "-c", "600"],
        "too short: it takes two pieces of 600",
    ),
    "nothing to save": (2, ["m.gguf", "-o", "x.gguf", "--save-text", "y.txt"], "that the model writes"),
    "one file for both": (
        2,
        ["m.gguf", "-o", "x.gguf", "--calibrate", "self", "--save-text", "x.gguf"],
        "x.gguf is the output already",
    ),
    "one file for both, called otherwise": (
        2,
        ["m.gguf", "-o", "x.gguf", "--calibrate", "self", "--save-text", "../{here}/x.gguf"],
        "x.gguf is the output already",
    ),
    "the model's place": (
        2,
        ["m.gguf", "-o", "x.gguf", "--calibrate", "self", "--save-text", "m.gguf", "--overwrite"],
        "m.gguf is what is read",
    ),
    "no folder for the text": (
        2,
        ["m.gguf", "-o", "x.gguf", "--calibrate", "self", "--save-text", "nowhere/y.txt"],
        "there is no folder",
    ),
}


@pytest.mark.parametrize(("code", "words", "expected"), WRONG.values(), ids=WRONG.keys())
def test_wrong_words(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: list[str], expected: str
) -> None:
    (tmp_path / "m.gguf").symlink_to(model)
    (tmp_path / "short.txt").write_text("two words")
    monkeypatch.chdir(tmp_path)
    words = [word.replace("{here}", tmp_path.name) for word in words]
    assert expected.lower() in error_of(code, "imatrix", *words).lower()
    assert names_in(tmp_path) == ["m.gguf", "short.txt"]


def test_nothing_is_written_into_the_store_by_path(model: Path, home: Path) -> None:
    target = Store().root / "x.gguf"
    assert "is inside the store of models" in error_of(2, "imatrix", model, "-o", target)


@pytest.mark.parametrize("more", [[], ["--imatrix", "x.gguf"], ["--compare"]])
@pytest.mark.parametrize("wish", [["--calibrate", "self"], ["--calibrate-tokens", "2000"]])
def test_a_text_is_for_matrices_that_are_made(small: Path, more: list[str], wish: list[str]) -> None:
    assert f"{wish[0]} is for --imatrix auto" in error_of(2, "quantize", small, "--dry-run", *wish, *more)


def test_a_dry_run_tells_that_nobody_can_talk_to_it(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "base")
    tokenizer = tmp_path / "base" / "tokenizer.json"
    tokenizer.write_text(tokenizer.read_text().replace("<｜User｜>", "[user]"))
    config = tmp_path / "base" / "tokenizer_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "chat_template": None}))
    words = ["quantize", tmp_path / "base", "--dry-run", "--imatrix", "auto"]
    assert "has no chat template" in error_of(1, *words, "--calibrate", "self")
    assert localai(*words).returncode == 0


# -------------------------------------------------------------------------------- quantize --imatrix auto


def test_types_that_need_one_make_one(small: Path, tmp_path: Path) -> None:
    """It loads and generates; what it says of itself; and nothing stays of what was in between."""
    words = ["quantize", small, "--type", "IQ2_XS", "--type", "Q4_K_M", "--imatrix", "auto"]
    found = said(*words, "-o", tmp_path, "--sandbox", "require")
    assert names_in(tmp_path) == ["small-IQ2_XS.gguf", "small-Q4_K_M.gguf"]
    assert {one["check"]["result"] for one in found["outputs"]} == {"passed"}
    output = tmp_path / "small-IQ2_XS.gguf"
    assert "IQ2_XS" in types(output).values()
    known = fields(output)
    assert known["quantize.imatrix.file"] == "auto"
    assert known["quantize.imatrix.dataset"] == "built-in calibration.txt"
    assert known["quantize.imatrix.entries_count"] == 7
    assert len(found["report"]["imatrix_sha256"]) == 64


def test_the_forecast_is_as_with_one(small: Path, tmp_path: Path, home: Path) -> None:
    """To the byte: the best type within a limit is one that needs it, and it takes what was foretold."""
    known = said("quantize", small, "--dry-run", "--imatrix", "auto")["forecast"]
    sizes = {one["type"]: one["size"] for one in known["types"]}
    assert not any(one["needs_imatrix"] for one in known["types"])
    limit = str(sizes["IQ2_XS"])
    found = said("quantize", small, "--max-size", limit, "--imatrix", "auto", "--name", "s")
    assert found["report"]["file_type"] == "IQ2_XS"
    assert found["report"]["output_bytes"] == sizes["IQ2_XS"]
    (manifest,) = Store().manifests()
    assert isinstance(manifest.source, Checkpoint)
    assert manifest.source.recipe == "--type IQ2_XS --imatrix auto"
    assert manifest.source.imatrix_sha256 == found["report"]["imatrix_sha256"]
    assert names_in(Store().root / "incoming") == []


def test_what_is_there_already_is_told_before_the_text_is_read(small: Path, tmp_path: Path) -> None:
    (tmp_path / "x.gguf").write_bytes(b"the old one")
    done = localai("quantize", small, "--imatrix", "auto", "-o", tmp_path / "x.gguf", LOCALAI_PROGRESS="json")
    assert done.returncode == 2
    assert done.stderr.startswith(f"{LINE}{tmp_path / 'x.gguf'} is there already")


def test_what_no_importance_matrix_allows_is_told_before_the_text_is_read(
    small: Path, tmp_path: Path
) -> None:
    words = ["quantize", small, "--type", "IQ2_XS", "--pure", "--imatrix", "auto", "-o", tmp_path / "x.gguf"]
    done = localai(*words, LOCALAI_PROGRESS="json")
    assert done.returncode == 1
    assert done.stderr.startswith(f"{LINE}IQ2_XS needs importances also of the output or the embeddings")
    assert "--output-type" in done.stderr
    assert localai(*words, "--output-type", "Q6_K", "--embedding-type", "Q4_K").returncode == 0


# ------------------------------------------------------------------------------------------- interrupted


IMATRIX = "imatrix {model} -o {output}"
QUANTIZE = "quantize {small} --imatrix auto -o {output}"
SELF = " --calibrate self --calibrate-tokens 100000"
TOLD = {
    "imatrix": (IMATRIX, "Read"),
    "quantize": (QUANTIZE, "Read"),
    "imatrix, self": (IMATRIX + SELF + " --save-text {output}.txt", "Write"),
    "quantize, self": (QUANTIZE + SELF, "Write"),
}


@pytest.mark.parametrize(("words", "step"), TOLD.values(), ids=TOLD.keys())
@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_told_to_end_it_leaves_nothing(
    small: Path,
    model: Path,
    tmp_path: Path,
    words: str,
    step: str,
    number: signal.Signals,
    code: int,
) -> None:
    (tmp_path / "x.gguf").write_bytes(b"the old one")
    paths = {"small": small, "model": model, "output": tmp_path / "x.gguf"}
    command = [word.format(**paths) for word in words.split()]
    app = subprocess.Popen(
        [sys.executable, "-P", "-m", "localai", *command, "--overwrite", "--threads", "1"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCALAI_PROGRESS": "json"},
    )
    assert app.stderr is not None
    reading = next(line for line in app.stderr if f'"{step}"' in line)
    others = psutil.Process(app.pid).children(recursive=True)
    app.send_signal(number)
    rest = app.communicate(timeout=60)[1]
    assert {"step", "done", "total", "tokens_per_s"} == json.loads(reading).keys()
    assert app.returncode == code
    assert "Traceback" not in rest
    assert psutil.wait_procs(others, timeout=30)[1] == []
    assert names_in(tmp_path) == ["x.gguf"]
    assert (tmp_path / "x.gguf").read_bytes() == b"the old one"


@pytest.mark.parametrize("words", [IMATRIX, QUANTIZE], ids=["imatrix", "quantize"])
def test_an_engine_that_dies_is_told_with_what_to_do(
    small: Path, model: Path, tmp_path: Path, words: str
) -> None:
    command = [word.format(small=small, model=model, output=tmp_path / "x.gguf") for word in words.split()]
    app = subprocess.Popen(
        [sys.executable, "-P", "-m", "localai", *command, "--threads", "1"],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCALAI_PROGRESS": "json"},
    )
    assert app.stderr is not None
    next(line for line in app.stderr if '"Read"' in line)
    for one in psutil.Process(app.pid).children(recursive=True):
        one.kill()
    last = app.communicate(timeout=60)[1].splitlines()[-1]
    assert app.returncode == 1
    assert last.startswith(f"{LINE}the engine stopped in the middle of its work")
    assert last.endswith("Run the same command again.")
    assert names_in(tmp_path) == []
