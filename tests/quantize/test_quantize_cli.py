"""`localai quantize` as people call it: where results go, what is said, and what stays when it is killed."""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from localai import __version__
from localai.cli.quantize import _bytes
from localai.engine import bindings
from localai.errors import UsageError
from models.origins import Checkpoint
from models.store import Store
from quantize.file_types import FILE_TYPES
from tests.quantize.doing import convert, fields, types
from tests.quantize.making import NANO, make_checkpoint, names_in

COMMAND = [sys.executable, "-P", "-m", "localai", "quantize"]
IMATRIX = Path(__file__).parents[1] / "data" / "imatrix" / "r1-nano.gguf"
OLD = b"the old one"


def quantize(*words: str | Path, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *map(str, words)], capture_output=True, text=True, timeout=120, check=False, cwd=cwd
    )


def said(*words: str | Path) -> dict[str, Any]:
    """What it says to programs."""
    done = quantize(*words, "--json")
    assert done.returncode == 0, done.stderr
    return dict(json.loads(done.stdout))


def error_of(code: int, *words: str | Path) -> str:
    """The one line of a failed command; the forecast may stand before it."""
    done = quantize(*words)
    assert (done.returncode, done.stdout) == (code, ""), done.stderr
    *before, last = done.stderr.splitlines()
    assert all("bits per weight" in line for line in before), done.stderr
    assert last.startswith("localai: error: ")
    return last


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("cli") / "Tiny Llama"
    make_checkpoint(folder, num_hidden_layers=1)
    return folder


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# ------------------------------------------------------------------------------------------ where it goes


def test_into_a_file(tmp_path: Path) -> None:
    """And it is checked: it loads and generates."""
    output = tmp_path / "x.gguf"
    found = said(NANO, "--output", output)
    report, (first,) = found["report"], found["outputs"]
    assert list(found) == ["result", "report", "outputs", "forecast"]
    assert (found["result"], report["output"]) == (str(output), str(output))
    assert (first["file_type"], first["sha256"]) == ("Q4_K_M", sha256(output))
    assert first["check"] == {"result": "passed", "reason": "", "tokens": 2}
    assert report.items() >= {key: value for key, value in first.items() if key != "result"}.items()
    assert (report["program"], report["llama_cpp"]) == (__version__, bindings.commit())
    assert report["inputs"]["model.safetensors"] == sha256(NANO / "model.safetensors")
    assert "recommended" not in found["forecast"]
    assert names_in(tmp_path) == ["x.gguf"]


def test_several_types_into_a_folder(tiny: Path, tmp_path: Path) -> None:
    words = [word for one in ("q8_0", "F16", "Q8_0", "Q4_0") for word in ("--type", one)]
    done = quantize(tiny, *words, "--output", tmp_path, "--no-check")
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path) == [f"Tiny Llama-{one}.gguf" for one in ("F16", "Q4_0", "Q8_0")]
    assert [fields(path)["general.file_type"] for path in sorted(tmp_path.iterdir())] == [1, 2, 7]
    for path in tmp_path.iterdir():
        assert f"sha256 {sha256(path)}" in done.stdout
    assert done.stdout.count("not checked: --no-check") == 3
    assert [line.split(":")[1].strip() for line in done.stderr.splitlines()] == ["F16", "Q8_0", "Q4_0"]


def test_into_the_store(tmp_path: Path, home: Path) -> None:
    """The manifest says what it takes to make the file again, and to compare."""
    commit = "0123456789abcdef0123456789abcdef01234567"
    folder = tmp_path / "snapshots" / commit
    folder.parent.mkdir()
    folder.symlink_to(NANO)
    (tmp_path / "hub").mkdir()
    note = tmp_path / "hub" / ".cache" / "huggingface" / "download" / "config.json.metadata"
    note.parent.mkdir(parents=True)
    note.write_text(f"{commit}\netag\n0\n")
    for file in NANO.iterdir():
        (tmp_path / "hub" / file.name).write_bytes(file.read_bytes())
    imatrix = tmp_path / "im atrix.gguf"
    imatrix.write_bytes(IMATRIX.read_bytes())
    rules = ("--tensor-type", "ffn_(up|down)=Q6_K", "--output-type", "Q8_0", "--embedding-type", "q5_0")
    done = quantize(
        tmp_path / "hub", "--name", "mine:q4", "--imatrix", imatrix, "--pure", *rules, "--no-check"
    )
    assert done.returncode == 0, done.stderr
    (model,) = Store().manifests()
    path = Store().path(model)
    assert (model.name, model.sha256) == ("mine:q4", sha256(path))
    assert done.stdout.startswith("mine:q4: Q4_K_M, 63 tensors")
    source = json.loads((home / "data" / "models" / "refs" / "mine" / "q4.json").read_text())["source"]
    read = {
        "config.json",
        "generation_config.json",
        "tokenizer.json",
        "tokenizer_config.json",
        "model.safetensors",
    }
    assert source == {
        "kind": "checkpoint",
        "path": str(tmp_path / "hub"),
        "recipe": f"--type Q4_K_M --imatrix '{imatrix}' --pure --output-type Q8_0 --embedding-type Q5_0 "
        "--tensor-type 'ffn_(up|down)=Q6_K'",
        "model": "",
        "repository": "",
        "revision": commit,
        "inputs": {file.name: sha256(file) for file in NANO.iterdir() if file.name in read | {"README.md"}},
        "imatrix_sha256": sha256(imatrix),
        "program": __version__,
        "llama_cpp": bindings.commit(),
        "mixture": None,
    }
    assert read <= source["inputs"].keys()
    assert list((home / "data" / "models" / "incoming").iterdir()) == []


def test_several_types_into_the_store(tiny: Path) -> None:
    both = ("--type", "Q8_0", "--type", "F16", "--no-check")
    assert quantize(tiny, *both).returncode == 0
    assert quantize(tiny, *both, "--name", "other").returncode == 0
    names = [model.name for model in Store().manifests()]
    assert names == ["other:f16", "other:q8_0", "tiny-llama:f16", "tiny-llama:q8_0"]
    assert "other:q8_0" in error_of(1, tiny, *both, "--name", "other")
    assert quantize(tiny, *both, "--name", "other", "--overwrite").returncode == 0


def test_a_model_in_the_store_as_the_source(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert quantize(tiny, "--type", "BF16", "--name", "base", "--no-check").returncode == 0
    monkeypatch.chdir(tmp_path)
    assert quantize("base", "--type", "Q8_0", "--no-check").returncode == 0
    base, made = Store().manifests()
    assert (base.name, made.name) == ("base", "base:q8_0")
    source = made.source
    assert isinstance(source, Checkpoint)
    assert (source.model, source.path, source.revision) == ("base", str(Store().path(base)), "")
    assert source.inputs == {Path(source.path).name: base.sha256}
    convert(tiny, tmp_path / "direct.gguf", "Q8_0")
    assert made.sha256 == sha256(tmp_path / "direct.gguf")
    assert "--allow-requantize" in error_of(1, "base:q8_0", "--type", "Q4_0", "--output", tmp_path)
    done = quantize("base:q8_0", "--type", "Q4_0", "--output", tmp_path, "--allow-requantize", "--no-check")
    assert done.returncode == 0, done.stderr
    assert names_in(tmp_path) == ["base-q8_0-Q4_0.gguf", "direct.gguf"]
    (tmp_path / "base").mkdir()  # a folder beside the user is what is meant, if there is one
    assert "config.json" in error_of(1, "base", "--type", "Q8_0", "--name", "x")


# ---------------------------------------------------------------------------------------------- forecasts


def test_a_dry_run_writes_nothing(tmp_path: Path, home: Path) -> None:
    done = quantize(NANO, "--dry-run", "--output", tmp_path / "x.gguf")
    assert (done.returncode, done.stderr) == (0, "")
    assert names_in(tmp_path) == []
    assert names_in(home) == []
    lines = done.stdout.splitlines()
    assert lines[0] == "qwen2, 4.2M parameters in BF16, 8.4 MB"
    assert [line.split()[0] for line in lines[3:35]] == list(FILE_TYPES)
    assert sum("needs --imatrix" in line for line in lines) == 9
    assert lines[-1].startswith("Recommended: Q8_0, at 4.5 MB it is quick")


def test_a_dry_run_for_programs(tmp_path: Path) -> None:
    found = said(NANO, "--dry-run")
    known = found["forecast"]
    assert list(found) == ["forecast"]
    convert(NANO, tmp_path / "x.gguf", "Q5_K_M")
    (one,) = [one for one in known["types"] if one["type"] == "Q5_K_M"]
    assert one["size"] == (tmp_path / "x.gguf").stat().st_size
    assert [list(each) for each in one["memory"]] == [["context", "bytes", "fits"]]
    assert list(one) == ["type", "size", "bits_per_weight", "needs_imatrix", "sensible", "memory"]
    assert (known["architecture"], known["tensors"], known["weights"]) == ("qwen2", 63, 4_199_680)
    assert (known["source_type"], known["source_bytes"]) == (
        "BF16",
        (NANO / "model.safetensors").stat().st_size,
    )
    assert 0 < known["memory_usable"] < known["memory_total"]
    assert known["disk_free"] > 0
    assert list(known["recommended"]) == ["type", "reason"]
    documented = (Path(__file__).parents[2] / "docs" / "json.md").read_text()
    assert [key for key in (*known, *one) if f"`{key}`" not in documented] == []


def test_the_best_type_within_limits(tmp_path: Path) -> None:
    found = said(NANO, "--max-size", "2.6MB", "--output", tmp_path, "--no-check")
    sizes = {one["type"]: one["size"] for one in found["forecast"]["types"] if not one["needs_imatrix"]}
    best = next(name for name, size in sizes.items() if size <= 2_600_000)
    assert names_in(tmp_path) == [f"r1-nano-{best}.gguf"]
    assert (tmp_path / f"r1-nano-{best}.gguf").stat().st_size == sizes[best]
    advised = said(NANO, "--max-memory", "1GiB", "--dry-run")["forecast"]["recommended"]
    assert advised == {"type": "BF16", "reason": "the best type within the limits"}
    assert "no type fits" in error_of(2, NANO, "--max-size", "100kB", "--output", tmp_path / "x")
    assert names_in(tmp_path) == [f"r1-nano-{best}.gguf"]


@pytest.mark.parametrize(
    ("text", "size"),
    [
        ("4GB", 4 * 10**9),
        ("4g", 4 * 10**9),
        ("500 MB", 5 * 10**8),
        ("3.5GiB", 7 << 29),
        ("1Ti", 1 << 40),
        ("12", 12),
        ("7b", 7),
        (" 1.5k ", 1500),
    ],
)
def test_sizes(text: str, size: int) -> None:
    assert _bytes(text, "--max-size") == size


@pytest.mark.parametrize(
    "text", ["", "GB", "-1GB", "4GBB", "4 G B", "0", "0.0GB", "1e9", "nan", "٣GB", "9" * 99]
)
def test_what_is_no_size(text: str) -> None:
    with pytest.raises(UsageError, match=r"--max-size .* is not a size"):
        _bytes(text, "--max-size")


# ---------------------------------------------------------------------------------------------- wrong words


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--output", "x", "--name", "y"], "--output and --name exclude each other"),
        (["--type", "Q8_0", "--max-size", "4GB"], "--type excludes --max-size"),
        (["--type", "Q8_0", "--max-memory", "4GB"], "--type excludes --max-size"),
        (["--max-memory", "much"], "--max-memory 'much' is not a size"),
        (["--max-size", ""], "--max-size '' is not a size"),
        (["--type", "Q8_0", "--type", "F16", "--output", "x.gguf"], "mkdir x.gguf"),
        (["--type", "Q4_K_X"], "Did you mean Q4_K_"),
        (["--tensor-type", "ffn_up"], "is not of the form PATTERN=TYPE"),
        (["--tensor-type", "ffn_up=Q4_K_M"], "no tensor type 'Q4_K_M'"),
        (["--output-type", "zip"], "no tensor type 'zip'"),
        (["--embedding-type", "I32"], "no tensor type 'I32'"),
        (["--name", "a b:c:d"], "name"),
        (["--threads", "0"], "--help"),
        (["--imatrix", "nowhere.gguf", "--output", "x.gguf"], "there is no file nowhere.gguf"),
        (["--output", "nowhere/x.gguf"], "there is no folder"),
    ],
)
def test_wrong_words(
    tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, words: list[str], message: str
) -> None:
    monkeypatch.chdir(tmp_path)
    assert message in error_of(2, tiny, *words)
    assert names_in(tmp_path) == []
    assert Store().manifests() == []


def test_what_cannot_be_done(tiny: Path, tmp_path: Path) -> None:
    output = ("--output", tmp_path / "x.gguf")
    assert "regular expression" in error_of(2, tiny, *output, "--tensor-type", "ffn_[=Q4_K")
    assert "matches no tensor" in error_of(2, tiny, *output, "--tensor-type", "nosuchthing=Q4_K")
    rule = ("--type", "F16", "--tensor-type", "ffn_down=Q8_0")
    assert "quantized types only" in error_of(2, tiny, *output, *rule)
    assert "~nosuchuser" in error_of(1, "~nosuchuser/x", *output)
    assert "~nosuchuser" in error_of(2, tiny, "--output", "~nosuchuser/x.gguf")
    assert "--imatrix" in error_of(1, NANO, *output, "--type", "IQ2_XS")
    assert "another model" in error_of(1, tiny, *output, "--imatrix", IMATRIX)
    assert "nowhere" in error_of(1, tmp_path / "nowhere", *output)
    assert "no file" in error_of(1, tmp_path / "nowhere.gguf", *output)
    assert names_in(tmp_path) == []
    if Path("/proc/self").exists():
        assert "cannot write" in error_of(1, tiny, "--output", "/proc/x.gguf")


def test_options_reach_the_file(tiny: Path, tmp_path: Path) -> None:
    words = ("--type", "Q8_0", "--output-type", "f16", "--embedding-type", "q4_0")
    rule = ("--tensor-type", r"FFN_(up|down)=q5_0")
    assert quantize(tiny, "--output", tmp_path / "x", *words, *rule, "--no-check").returncode == 0
    found = types(tmp_path / "x")
    assert (found["output.weight"], found["token_embd.weight"]) == ("F16", "Q4_0")
    assert (found["blk.0.ffn_up.weight"], found["blk.0.ffn_gate.weight"]) == ("Q5_0", "Q8_0")


# ------------------------------------------------------------------------------------------------- killed

needs_proc = pytest.mark.skipif(
    not Path("/proc/self/fd").exists(), reason="what a process does is seen in /proc"
)
NAMED = """
from quantize.partials import Partial
Partial._open_unnamed = lambda self: -1
from localai.cli.main import main
main()
"""


@pytest.fixture(scope="module")
def large(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of 66 MB, whose conversion to Q3_K_M takes a good second."""
    folder = tmp_path_factory.mktemp("large") / "m"
    make_checkpoint(folder, hidden_size=1024, intermediate_size=4096)
    return folder


NAMED_COMMAND = [sys.executable, "-P", "-c", NAMED, "quantize"]
"""The command on a disk on which files need a name before they are complete."""


class Running:
    """A command that runs, and the processes that it started."""

    def __init__(self, command: list[str], *words: str | Path) -> None:
        self.app = subprocess.Popen(
            [*command, *map(str, words)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self.worker: psutil.Process | None = None

    def wait_for(self, moment: Callable[[Running], bool]) -> None:
        end = time.monotonic() + 60
        while time.monotonic() < end and self.app.poll() is None:
            try:
                if moment(self):
                    return
            except (psutil.Error, OSError, ValueError):
                continue  # what is looked for is not there yet
        self.app.kill()
        pytest.fail(f"the moment never came: {self.app.communicate()}")

    def child(self, module: str) -> psutil.Process:
        children = psutil.Process(self.app.pid).children()
        (found,) = [one for one in children if module in one.cmdline()]
        return found

    def files(self) -> list[Path]:
        """What the worker has open that it may write to."""
        worker = self.child("quantize.worker")
        handles = Path(f"/proc/{worker.pid}/fd").iterdir()
        return [handle for handle in handles if os.access(handle, os.W_OK) and handle.is_file()]

    def end(self) -> tuple[int, str]:
        """Wait until nothing of it runs."""
        _, stderr = self.app.communicate(timeout=60)
        return self.app.returncode, stderr


def started(running: Running) -> bool:
    return bool(running.child("quantize.worker"))


def written(running: Running) -> bool:
    return any(handle.stat().st_size > 10**6 and read_at(handle) == b"GGUF" for handle in running.files())


def read_at(handle: Path) -> bytes:
    with handle.open("rb") as file:
        return file.read(4)


def half_read(running: Running) -> bool:
    lines = Path(f"/proc/{running.child('quantize.worker').pid}/io").read_text().splitlines()
    return int(lines[0].split()[1]) > 45_000_000


def checked(running: Running) -> bool:
    return bool(running.child("localai.engine.worker"))


MOMENTS = {"it starts": started, "it writes": written, "half is read": half_read, "it is checked": checked}


@pytest.fixture
def output(tmp_path: Path) -> Iterator[Path]:
    path = tmp_path / "out" / "x.gguf"
    path.parent.mkdir()
    path.write_bytes(OLD)
    yield path
    assert path.read_bytes() == OLD
    assert names_in(path.parent) == ["x.gguf"]


@needs_proc
@pytest.mark.parametrize(
    ("command", "moment"), [*((COMMAND, moment) for moment in MOMENTS), (NAMED_COMMAND, "half is read")]
)
def test_killed_it_leaves_nothing(output: Path, large: Path, command: list[str], moment: str) -> None:
    """At most, where it needs a name, a file that the next run removes."""
    running = Running(command, large, "--type", "Q3_K_M", "--output", output, "--overwrite")
    running.wait_for(MOMENTS[moment])
    others = psutil.Process(running.app.pid).children(recursive=True)
    running.app.kill()
    assert running.end()[0] == -signal.SIGKILL
    assert psutil.wait_procs(others, timeout=30)[1] == []
    if command is NAMED_COMMAND:
        assert names_in(output.parent) == [f".x.gguf.partial-{running.app.pid}", "x.gguf"]
        failed = quantize(large, "--output", output, "--overwrite", "--tensor-type", "[=Q8_0")
        assert failed.returncode == 2


@needs_proc
@pytest.mark.parametrize("command", [COMMAND, NAMED_COMMAND], ids=["unnamed", "named"])
def test_its_worker_killed_it_says_so(output: Path, large: Path, command: list[str]) -> None:
    running = Running(command, large, "--type", "Q3_K_M", "--output", output, "--overwrite")
    running.wait_for(half_read)
    running.child("quantize.worker").kill()
    code, stderr = running.end()
    assert code == 1
    assert "SIGKILL" in stderr.splitlines()[-1]
    assert "Traceback" not in stderr


@needs_proc
@pytest.mark.parametrize(
    ("command", "number", "code"),
    [
        (COMMAND, signal.SIGINT, 130),
        (COMMAND, signal.SIGHUP, 129),
        (NAMED_COMMAND, signal.SIGTERM, 143),
    ],
)
def test_told_to_end_it_cleans_up(
    output: Path, large: Path, command: list[str], number: signal.Signals, code: int
) -> None:
    running = Running(command, large, "--type", "Q3_K_M", "--output", output, "--overwrite")
    running.wait_for(written)
    worker = running.child("quantize.worker")
    running.app.send_signal(number)
    assert running.end()[0] == code
    assert not worker.is_running()


@needs_proc
def test_a_full_disk_is_one_line(output: Path, large: Path) -> None:
    resource = pytest.importorskip("resource", reason="only POSIX bounds memory")
    running = Running(COMMAND, large, "--type", "Q3_K_M", "--output", output, "--overwrite")
    running.wait_for(started)
    resource.prlimit(running.child("quantize.worker").pid, resource.RLIMIT_FSIZE, (10**6, 10**6))
    code, stderr = running.end()
    *before, last = stderr.splitlines()
    assert code == 1
    assert last.startswith("localai: error: there is not enough room for ")
    assert all("bits per weight" in line for line in before)


@needs_proc
def test_killed_on_the_way_into_the_store_it_keeps_nothing(large: Path, home: Path) -> None:
    running = Running(COMMAND, large, "--type", "Q3_K_M", "--name", "x")
    running.wait_for(half_read)
    (worker,) = psutil.Process(running.app.pid).children()
    running.app.kill()
    running.end()
    psutil.wait_procs([worker], timeout=30)
    store = home / "data" / "models"
    assert Store().manifests() == []
    assert [path for path in store.rglob("*") if path.is_file() and path.stat().st_size > 100] == []
    assert quantize(large, "--type", "Q8_0", "--name", "x", "--no-check").returncode == 0
    assert names_in(store / "incoming") == []
    assert [model.name for model in Store().manifests()] == ["x"]


def test_nothing_is_written_into_the_store_by_path(tiny: Path, home: Path) -> None:
    folder = Store().root
    folder.mkdir(parents=True)
    assert "--name" in error_of(2, tiny, "--output", folder / "x.gguf")
    assert "--name" in error_of(2, tiny, "--output", folder)


def test_names_of_folders_are_shown_without_control_characters(tiny: Path, tmp_path: Path) -> None:
    odd = tmp_path / "new\nline\x1b[31mred"
    shutil.copytree(tiny, odd)
    (tmp_path / "out put").mkdir()
    done = quantize(odd, "--type", "Q8_0", "--output", tmp_path / "out put", "--no-check")
    assert done.returncode == 0
    assert "\x1b" not in done.stdout
    assert len(done.stdout.splitlines()) == 4
    assert "chat '" in done.stdout


def test_closed_standard_streams(tiny: Path, tmp_path: Path) -> None:
    words = " ".join(shlex.quote(str(word)) for word in (*COMMAND, tiny, "--no-check"))
    for number, closed in enumerate(("<&-", ">&-", "2>&-", "<&- >&- 2>&-")):
        output = tmp_path / f"{number}.gguf"
        done = subprocess.run(["sh", "-c", f"{words} -o {output} {closed}"], check=False)
        assert done.returncode == 0
        assert output.is_file()


def test_a_model_that_would_not_run_is_refused_at_once(tiny: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(tiny, broken)
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 2**31 - 1}))
    line = error_of(1, broken, "--output", tmp_path / "x.gguf")
    assert "config.json" in line
    assert "context_length" in line
    assert not (tmp_path / "x.gguf").exists()


def test_endless_words_are_cut(tiny: Path) -> None:
    assert len(error_of(2, tiny, "--tensor-type", "a" * 50_000 + "=Q8_0")) < 2000
