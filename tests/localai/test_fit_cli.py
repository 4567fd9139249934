"""`localai models fit` as a process of its own: what it prints, and what it leaves alone."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.shapes import write
from localai.cli import fit as command
from models import bandwidth, catalog, need
from models.catalog import Entry
from models.gguf import read_header
from models.origins import Builtin, LocalFile
from models.sketch import sketch
from models.store import Store

FIT = [sys.executable, "-P", "-m", "localai", "models", "fit"]


def run(*words: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*FIT, *words], capture_output=True, text=True, timeout=120, check=False, stdin=subprocess.DEVNULL
    )


def data(*words: str) -> Any:
    done = run(*words, "--json")
    assert (done.returncode, done.stderr) == (0, "")
    return json.loads(done.stdout)


def error_line(*words: str) -> str:
    done = run(*words)
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    return line


@pytest.fixture
def installed(nano: Path) -> str:
    Store().add(nano, "mine", source=LocalFile(path=str(nano)))
    return "mine"


def test_all_models_in_a_table(installed: str) -> None:
    done = run()
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    names = [line.split()[0] for line in lines[1:] if line and not line.startswith(("This", "MEMORY"))]
    assert names == [installed, *(entry.name for entry in catalog.entries())]
    assert "MEMORY 4k  MEMORY 16k  VERDICT" in lines[0]
    assert any(line.startswith("This machine: ") and "GB/s" in line for line in lines)
    assert bandwidth.known() is not None


def test_one_of_the_catalogue_with_its_types() -> None:
    done = run("R1:7b")
    assert (done.returncode, done.stderr) == (0, "")
    lines = done.stdout.splitlines()
    labels = [line[:10].strip() for line in lines[: lines.index("")]]
    assert labels[:4] == ["name", "type", "weights", "memory"]
    assert "verdict" in labels
    assert "4.7 GB (4,677,120,000 bytes)" in lines[2]
    assert "8,192 tokens of context" in lines[3]
    types = [line.split()[1] for line in lines[lines.index("") + 2 :]]
    assert types[0] == "Q4_K_M"
    assert sorted(types) == sorted(catalog.find("r1:7b").all_types)


def test_one_type_with_a_context_for_programs() -> None:
    found = data("r1:1.5b:q8_0", "--context", "32768", "--kv-type", "q8_0")
    assert set(found["machine"]) == {
        *("memory_total", "memory_available", "cores", "gpus", "bandwidth_bytes_per_s", "measured"),
    }
    assert found["machine"]["bandwidth_bytes_per_s"] > 0
    (model,) = found["models"]
    header = sketch(catalog.find("r1:1.5b"), "Q8_0")
    assert header is not None
    assert (model["name"], model["type"], model["installed"]) == ("r1:1.5b:q8_0", "Q8_0", False)
    assert model["weights"] == catalog.find("r1:1.5b").weights["Q8_0"]
    assert [one["context"] for one in model["memory"]] == [4096, 16_384, 32_768]
    assert model["verdict"]["memory"] == model["memory"][-1]["bytes"]
    assert sum(model["parts"].values()) == model["memory"][-1]["bytes"]
    if not found["machine"]["gpus"]:
        assert model["memory"][-1]["bytes"] == need.need(header, 32_768, "q8_0").total
        assert model["verdict"]["speed"]["tokens_per_s"] > 0


def test_a_file_and_an_installed_model(installed: str, nano: Path) -> None:
    for words in (installed, str(nano)):
        (model,) = data(words)["models"]
        assert model["installed"]
        assert model["weights"] == read_header(nano).tensor_bytes
        assert model["verdict"]["kind"] == "fits"
        assert model["verdict"]["context"] == 2048


def test_a_file_that_no_machine_could_load_is_judged_by_its_header(tmp_path: Path) -> None:
    """75 GB, of which all but the header is a hole."""
    (model,) = data(str(write(tmp_path / "big.gguf", "r1:70b", "Q8_0")))["models"]
    assert model["weights"] == pytest.approx(catalog.find("r1:70b").weights["Q8_0"], rel=1e-6)
    assert model["verdict"]["kind"] in ("too large", "fits", "fits with less context", "tight")
    assert model["verdict"]["memory"] > 74e9


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("nonsense", "no model called 'nonsense' is installed"),
        ("r1:7b:q9", "r1:7b cannot be had as 'q9'. It can be had as: Q8_0, "),
        ("./none.gguf", "none.gguf"),
    ],
)
def test_what_is_not_there_is_one_line(words: str, said: str) -> None:
    line = error_line(words)
    assert line.startswith("localai: error: ")
    assert said in line


def test_a_damaged_model_does_not_hide_the_others(installed: str) -> None:
    store = Store()
    path = store.path(store.get(installed))
    path.chmod(0o600)
    path.write_bytes(b"GGUF".ljust(path.stat().st_size, b"\xff"))
    done = run()
    assert done.returncode == 0
    assert f"{installed} cannot be judged: " in done.stderr
    assert "r1:7b" in done.stdout


def test_llama_cpp_stays_out_of_the_process_and_nothing_asks_a_network(tmp_path: Path) -> None:
    code = (
        "import sys; from localai.cli.fit import fit; fit('r1:1.5b'); "
        "sys.exit('llama_cpp' in sys.modules or 'huggingface_hub' in sys.modules)"
    )
    log, words = tmp_path / "strace", [sys.executable, "-c", code]
    tracer = ["strace", "-f", "-e", "trace=network", "-o", str(log)] if shutil.which("strace") else []
    assert subprocess.run([*tracer, *words], check=False, stdout=subprocess.DEVNULL).returncode == 0
    if tracer:
        assert "AF_INET" not in log.read_text()


def test_pull_hears_the_same(nano: Path) -> None:
    """Whoever has too little memory hears it; where nothing is known, nothing is said."""
    found = command.judge_header(read_header(nano))
    assert found.kind == "fits"
    before = command.judge_entry(catalog.find("r1-nano"), "Q8_0")
    assert before is not None
    assert (before.kind, before.context) == (found.kind, found.context)
    unknown = Entry(
        name="own",
        title="Own",
        type="Q8_0",
        reasoning=True,
        license="MIT",
        parameters=0,
        context=2048,
        checkpoint=Builtin(checkpoint="own"),
    )
    assert command.judge_entry(unknown, "Q8_0") is None


def test_more_context_than_it_was_trained_for_is_refused() -> None:
    done = run("r1:7b", "--context", "200000")
    assert done.returncode == 2
    assert "131,072 tokens" in done.stderr
