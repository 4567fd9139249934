"""`localai quantize --compare` as people call it, with the real tiny model."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import psutil
import pytest

from localai.cli import compare_output
from models.catalog import builtin_checkpoint
from models.origins import Checkpoint
from models.store import Store
from quantize import client
from quantize.client import Wanted
from quantize.protocol import Job
from tests.localai.comparisons import SMALL, USUAL, comparison, row
from tests.quantize.making import names_in

NANO = builtin_checkpoint("r1-nano")
SHORT = ["--rounds", "2", "--chunks", "1", "--tasks", "0"]
COMMAND = [sys.executable, "-P", "-m", "localai", "quantize"]


def compared(*words: object, code: int = 0, source: Path = NANO) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(
        [*COMMAND, str(source), "--compare", *map(str, words)],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
        env={**os.environ, "COLUMNS": "80", "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    return done


def digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


class Page(HTMLParser):
    """The words of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words = ""
        self.feed(text)

    def handle_data(self, data: str) -> None:
        self.words += data


# ---------------------------------------------------------------------------------------- what is measured


def test_what_people_get(tmp_path: Path) -> None:
    """Tables that fit, pictures, advice, the command; the file that is advised, and the page."""
    (tmp_path / "out").mkdir()
    words = ["--type", "Q8_0", "--type", "Q2_K", "--rounds", "2", "--chunks", "4", "--tasks", "3"]
    done = compared(*words, "-o", tmp_path / "out", "--report", tmp_path / "report.html")
    lines = done.stdout.splitlines()
    assert max(map(len, lines)) <= 80
    takes = next(line for line in lines if "WRITES/s" in line)
    assert takes.split() == ["TYPE", "SIZE", "MEM", "2k", "READS/s", "WRITES/s"]
    costs = next(line for line in lines if "SAME WORD" in line)
    assert costs.split("  ")[-1].strip() == "RIGHT OF 3"
    rows = [line for line in lines if re.match(r"^[> ] +(Q8_0|Q2_K) ", line)]
    assert [line.split()[:2] for line in rows if line.startswith(">")] == [[">", "Q8_0"]] * 2
    assert len(rows) == 4
    assert all("+-" in line for line in rows)
    assert "Loss against size" in done.stdout
    assert "Take Q8_0: " in done.stdout
    made = tmp_path / "out" / "r1-nano-Q8_0.gguf"
    assert names_in(tmp_path / "out") == [made.name]
    assert "It is kept as" in done.stdout
    assert lines[-1] == f"  localai quantize {NANO} --type Q8_0"
    client.run(Job(source=str(NANO)), [Wanted("Q8_0", tmp_path / "own.gguf")], load=False)
    assert digest(made) == digest(tmp_path / "own.gguf")
    page = Page((tmp_path / "report.html").read_text(encoding="utf-8"))
    assert "Take Q8_0" in page.words
    assert "Q2_K" in page.words
    assert "compares 2 types with BF16" in done.stderr
    assert "Ctrl+C shows what is known by then" in done.stderr


def test_what_programs_get_and_what_the_store_keeps(tmp_path: Path) -> None:
    words = ["--type", "Q8_0", "--type", "Q4_0", *SHORT, "--max-size", "3MB", "--name", "mine", "--json"]
    found = json.loads(compared(*words, "--report", tmp_path / "picture.svg").stdout)
    assert [each["file_type"] for each in found["rows"]] == ["Q8_0", "Q4_0"]
    assert (found["reference"], found["chunks"], found["complete"]) == ("BF16", 1, True)
    assert found["advice"]["file_type"] == "Q4_0"  # the other one is over the limit
    assert found["command"] == f"localai quantize {NANO} --type Q4_0"
    assert (found["kept"], found["report"]) == ("mine", str(tmp_path / "picture.svg"))
    assert (tmp_path / "picture.svg").read_text(encoding="utf-8").startswith("<svg")
    (manifest,) = Store().manifests()
    assert (manifest.name, manifest.sha256) == ("mine", found["rows"][1]["sha256"])
    assert isinstance(manifest.source, Checkpoint)
    assert manifest.source.recipe == "--type Q4_0"
    assert set(manifest.source.inputs) >= {"config.json", "model.safetensors"}
    assert names_in(Store().root / "incoming") == []


def test_with_an_importance_matrix(tmp_path: Path) -> None:
    """Types that need one are made with it; the reference is the one without."""
    text = tmp_path / "text.txt"
    text.write_text("What is 17 + 25? First the ones: 7 + 5 = 12. Then the tens. " * 80)
    words = ["--type", "IQ3_XXS", *SHORT, "--imatrix", "auto", "--calibrate", text]
    found = json.loads(compared(*words, "--json").stdout)
    assert found["imatrix"] == "auto"
    assert found["command"].endswith(f"--type IQ3_XXS --imatrix auto --calibrate {text}")
    client.run(Job(source=str(NANO)), [Wanted("BF16", tmp_path / "own.gguf")], load=False)
    assert found["rows"][0]["loss"]["reference_sha256"] == digest(tmp_path / "own.gguf")


def test_options_are_in_the_command() -> None:
    words = ["--type", "Q4_0", *SHORT, "--tensor-type", "ffn_down=Q8_0", "--pre-tokenizer", "qwen2", "--json"]
    found = json.loads(compared(*words).stdout)
    assert found["options"] == ["--tensor-type", "ffn_down=Q8_0", "--pre-tokenizer", "qwen2"]
    assert found["command"].endswith("--type Q4_0 --tensor-type ffn_down=Q8_0 --pre-tokenizer qwen2")


# --------------------------------------------------------------------------------------------- interrupted


@pytest.mark.parametrize("at", ["Quantize", "Speed", "Loss"])
def test_stopped_it_shows_what_is_known_and_leaves_nothing(tmp_path: Path, at: str, home: Path) -> None:
    """Before the first figure there is nothing to show."""
    words = [
        "--compare",
        "--rounds",
        "2",
        "--tasks",
        "0",
        "--chunks",
        "40",
        "--threads",
        "1",
        "-o",
        str(tmp_path),
    ]
    app = subprocess.Popen(
        [
            *COMMAND,
            str(NANO),
            *words,
            "--type",
            "Q8_0",
            "--type",
            "Q4_0",
            "--report",
            str(tmp_path / "r.html"),
        ],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "LOCALAI_PROGRESS": "json"},
    )
    assert app.stderr is not None
    next(line for line in app.stderr if f'"{at}"' in line and '"done": 0,' not in line)
    others = psutil.Process(app.pid).children(recursive=True)
    app.send_signal(signal.SIGINT)
    shown, told = app.communicate(timeout=60)
    assert app.returncode == 130, told
    assert "Traceback" not in told
    assert psutil.wait_procs(others, timeout=30)[1] == []
    assert names_in(tmp_path) == []
    if at == "Quantize":
        assert shown == ""
        return
    assert "WRITES/s" in shown
    assert "It was stopped before all was measured" in shown
    assert "Take " not in shown


# ------------------------------------------------------------------------------------------- what is refused

WRONG: dict[str, tuple[int, list[str], str]] = {
    "no comparison": (2, ["--chunks", "4"], "--chunks is for --compare"),
    "no report": (2, ["--report", "r.html"], "--report is for --compare"),
    "optimized": (2, ["--compare", "--optimize", "--max-size", "3MB"], "exclude each other"),
    "no page": (2, ["--compare", "--report", "r.pdf"], "neither a page nor a picture"),
    "a report is there": (2, ["--compare", "--report", "there.html"], "there.html is there already"),
    "a file is there": (2, ["--compare", "-o", "there.gguf"], "there.gguf is there already"),
    "no folder": (2, ["--compare", "-o", "nowhere/x.gguf"], "there is no folder"),
    "two places": (2, ["--compare", "-o", ".", "--name", "x"], "exclude each other"),
    "no name": (2, ["--compare", "--name", "no such/na me"], "cannot be"),
    "no type": (2, ["--compare", "--type", "Q9"], "no output type 'Q9'"),
    "a matrix is needed": (1, ["--compare", "--type", "IQ1_S"], "needs an importance matrix"),
    "no text": (2, ["--compare", "--text", "nothing.txt"], "nothing.txt is not a file"),
    "one round": (2, ["--compare", "--rounds", "1"], "rounds"),
    "too long chunks": (2, ["--compare", "--type", "Q4_0", "-c", "4096", "--rounds", "2"], "more than the"),
}


@pytest.mark.parametrize(("code", "words", "expected"), WRONG.values(), ids=WRONG.keys())
def test_wrong_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, words: list[str], expected: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("there.html", "there.gguf"):
        (tmp_path / name).write_text("mine")
    done = subprocess.run(
        [*COMMAND, str(NANO), *words], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == code, done.stderr
    assert "Traceback" not in done.stderr
    assert expected in done.stderr.splitlines()[-1]
    assert names_in(tmp_path) == ["there.gguf", "there.html"]


def test_a_disk_without_room() -> None:
    """It is told before anything is made, and nothing stays."""
    probe = ["unshare", "-rm", "sh", "-c", "mount -t tmpfs -o size=1m none /mnt"]
    if shutil.which("unshare") is None or subprocess.run(probe, capture_output=True, check=False).returncode:
        pytest.skip("this machine does not let users mount a small disk (unshare -rm)")
    command = 'mount -t tmpfs -o size=9m none /mnt && "$@" -o /mnt; echo $?; ls -A /mnt'
    words = [*COMMAND, str(NANO), "--compare", "--type", "Q8_0"]
    done = subprocess.run(
        ["unshare", "-rm", "sh", "-c", command, "sh", *words], capture_output=True, text=True, check=False
    )
    assert done.stdout == "1\n"
    assert "there is room for 9.4 MB on the disk" in done.stderr
    assert "--type" in done.stderr


# ------------------------------------------------------------------------------------------ before it starts


def test_a_dry_run(home: Path) -> None:
    done = compared("--dry-run")
    assert "Q4_K_M" in done.stdout
    assert "compared with BF16" in done.stdout
    assert "Time: very roughly" in done.stdout
    found = json.loads(compared("--dry-run", "--json").stdout)["comparison"]
    types = {one["type"]: one["size"] for one in found["types"]}
    assert found["disk_needed"] == sum(types.values()) + found["reference_size"]
    assert (found["readings"], found["reference"]) == (1, "BF16")
    assert {"Q8_0", "Q4_K_M", "Q2_K"} <= types.keys()
    assert "IQ2_M" not in types
    with_one = json.loads(compared("--dry-run", "--json", "--imatrix", "auto").stdout)["comparison"]
    assert {"IQ2_M", "IQ3_M"} <= {one["type"] for one in with_one["types"]}
    assert not (home / "data" / "models").exists()


# ------------------------------------------------------------------------------------------- how it is shown


def shown(capsys: pytest.CaptureFixture[str], *given: Any) -> str:
    compare_output.show(*given)
    return capsys.readouterr().out


@pytest.mark.parametrize("rows", [SMALL, USUAL], ids=["small", "usual"])
def test_it_fits_a_narrow_terminal(
    rows: tuple, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    text = shown(capsys, comparison(rows), True, "", "", False)
    assert max(map(len, text.splitlines()[:-1])) <= 80  # the last is the command, to be copied in one piece


def test_what_is_not_measured_is_left_empty(capsys: pytest.CaptureFixture[str]) -> None:
    rows = (row("Q8_0", 4e9, 0.001, pace=10), row("Q4_0", 2e9), row("Q2_K", 1e9, 0.5))
    text = shown(capsys, comparison(rows), True, "", "", False)
    assert re.search(r"^ +Q4_0 +2.0 GB +\S+ GB +\S+ GB$", text, re.MULTILINE)
    nothing = (row("Q8_0", 4e9, pace=10), row("Q4_0", 2e9))
    text = shown(capsys, comparison(nothing), True, "", "", False)
    assert "SAME WORD" not in text
    assert "Too little could be measured" in text


def test_what_does_not_fit_is_marked(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, comparison(USUAL, memory=6_000_000_000), True, "", "", False)
    assert re.search(r"^ +Q8_0 +8.1 GB +8.9 GB \* +10.5 GB \*", text, re.MULTILINE)
    assert "*: more than a model may take here" in text


def test_a_name_cannot_write_on_the_screen(capsys: pytest.CaptureFixture[str]) -> None:
    text = shown(capsys, comparison(name="evil\x1b[2J\nname"), True, "", "", False)
    assert "\x1b" not in text
    assert text.startswith("evil")
