"""What a stranger gets: the wheel is whole, the documents are current, the two commands are as described."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from localai.cli import commands

ROOT = Path(__file__).parents[2]
PACKAGES = ["localai", "quantize", "tui", "models"]
HEAVY = ["numpy", "textual", "llama_cpp", "gguf", "huggingface_hub", "requests", "ssl", "pydantic", "jinja2"]
NOT_FOR_WORKERS = ["llama_cpp.llama", "diskcache", "sqlite3", "asyncio", "ssl", "jinja2"]


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, unpacked: what `pip install` puts into an environment."""
    folder = tmp_path_factory.mktemp("wheel")
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    (file,) = folder.glob("*.whl")
    with zipfile.ZipFile(file) as archive:
        archive.extractall(folder / "site")
    return folder / "site"


def test_the_wheel_holds_everything_that_runs_and_nothing_else(wheel: Path) -> None:
    packaged = {p.relative_to(wheel).as_posix() for p in wheel.rglob("*") if p.is_file()}
    packaged = {name for name in packaged if ".dist-info/" not in name}
    tracked = subprocess.run(
        [
            "git",
            "ls-files",
            "--cached",
            "--others",
            "--exclude-standard",
            "localai",
            "quantize",
            "tui",
            "models",
        ],
        cwd=ROOT,
        check=True,
        capture_output=True,
        text=True,
    ).stdout.split("\n")
    assert packaged == {name for name in tracked if name and (ROOT / name).exists()}
    for name in ("models/catalog.toml", "models/builtin/r1-nano/model.safetensors", "localai/py.typed"):
        assert name in packaged


def test_the_wheel_runs_from_another_folder(wheel: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(wheel)}
    code = "import localai.cli.main as m, models, sys; print(m.__file__, models.__file__); sys.exit(m.run())"
    done = subprocess.run(
        [sys.executable, "-P", "-c", code, "models", "pull", "r1-nano", "--json"],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    first, _, rest = done.stdout.partition("\n")
    assert first.count(str(wheel)) == 2
    assert json.loads(rest)["name"] == "r1-nano"


def test_the_command_reference_is_current() -> None:
    command = [sys.executable, str(ROOT / "docs" / "generate.py"), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_links_in_the_documents_lead_somewhere() -> None:
    for document in [*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "benchmarks").glob("*.md")]:
        for target in re.findall(r"\]\(([^)#:\s]+)\)", document.read_text(encoding="utf-8")):
            assert (document.parent / target).exists(), f"{document.name} links to {target}"


def test_chat_without_a_terminal_says_what_to_run_instead() -> None:
    done = subprocess.run(
        ["make", "chat"], cwd=ROOT, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == 2
    assert "needs a terminal" in done.stderr
    assert "localai ask" in done.stderr


def test_run_time_needs_neither_torch_nor_transformers() -> None:
    with (ROOT / "pyproject.toml").open("rb") as file:
        project = tomllib.load(file)["project"]
    names = {re.split(r"[<>=\[]", item)[0] for item in project["dependencies"]}
    assert not names & {"torch", "transformers", "safetensors", "tokenizers"}
    assert all("<" in item for item in project["dependencies"]), "every dependency has an upper bound"


def imported(code: str, names: list[str]) -> str:
    """Those of the modules that are there after `code` has run, as a list in words."""
    code = f"{code}\nimport sys\nprint([name for name in {names} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    return done.stdout.strip()


def test_starting_imports_neither_network_nor_engine_nor_screen() -> None:
    """`localai --help` and the choice of a model stay light."""
    assert imported("import localai.cli.commands as c, models.store; c.program()", HEAVY) == "[]"


def test_a_command_line_imports_only_the_command_that_it_names() -> None:
    words = "import sys; sys.argv = ['localai', 'models', 'path', 'none']; from localai.cli.main import run"
    others = [f"localai.cli.{name}" for name in commands.COMMANDS if name != "models"]
    assert imported(f"{words}; assert run() == 1", others) == "[]"


def test_the_worker_imports_only_the_low_level_bindings(nano: Path) -> None:
    """No disk cache and no network code in the process that reads untrusted files."""
    code = (
        "from pathlib import Path\nimport localai.engine.worker\nfrom localai.engine import llama\n"
        f"llama.Model(Path({str(nano)!r}), 0, lambda share: True).close()"
    )
    assert imported(code, NOT_FOR_WORKERS) == "[]"
