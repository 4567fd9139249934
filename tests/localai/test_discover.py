"""`localai models discover` as a process: what it shows and adds, and one clear line for what is wrong."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Run = Callable[..., subprocess.CompletedProcess[str]]

CATALOGUE = """
[[model]]
name = "tiny:r1"
title = "Tiny R1"
type = "Q8_0"
reasoning = true
license = "mit"
parameters = 1000000
context = 512
[[model.file]]
type = "Q8_0"
source = { kind = "url", url = "https://example.com/tiny.gguf", sha256 = "%s" }
"""


@pytest.fixture
def user(tmp_path: Path) -> Path:
    """The home of somebody who has LM Studio."""
    (tmp_path / ".lmstudio/models/a/b").mkdir(parents=True)
    return tmp_path


@pytest.fixture
def run(user: Path, home: Path) -> Run:
    """`run("lm", "--json")` is the command, in a process whose home is the user's."""
    kept = {
        name: value for name, value in os.environ.items() if not name.startswith(("XDG_", "HF_", "OLLAMA_"))
    }
    environ = {**kept, "HOME": str(user), "USERPROFILE": str(user), "LOCALAI_HOME": str(home)}

    def command(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-P", "-m", "localai", "models", "discover", *words],
            capture_output=True,
            text=True,
            timeout=120,
            env={**environ, **more},
            check=False,
        )

    return command


def data(done: subprocess.CompletedProcess[str]) -> Any:
    assert "Traceback" not in done.stderr
    return json.loads(done.stdout)


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


def ollama(user: Path, model: Path) -> Path:
    """Ollama's deepseek-r1:8b, with the bytes of `model`."""
    root, digest = user / ".ollama/models", sha256(model)
    blob, manifest = (
        root / f"blobs/sha256-{digest}",
        root / "manifests/registry.ollama.ai/library/deepseek-r1/8b",
    )
    blob.parent.mkdir(parents=True)
    manifest.parent.mkdir(parents=True)
    shutil.copyfile(model, blob)
    layer = {"mediaType": "application/vnd.ollama.image.model", "digest": f"sha256:{digest}"}
    manifest.write_text(json.dumps({"layers": [{**layer, "size": model.stat().st_size}]}))
    return blob


def test_nothing_found(run: Run) -> None:
    done = run("lm-studio")
    assert (done.returncode, done.stdout, done.stderr) == (
        0,
        "No model was found that LM Studio holds.\n",
        "",
    )
    assert data(run("lm-studio", "--json")) == {"found": []}
    added = run("lm-studio", "--add-all")
    assert (added.returncode, added.stdout) == (0, "Nothing was found that could be added.\n")


def test_what_is_found_is_shown_with_what_can_be_done(run: Run, user: Path, nano: Path) -> None:
    models = user / ".lmstudio/models/a/b"
    shutil.copyfile(nano, models / "R1 Nano.gguf")
    (models / "cut.gguf").write_bytes(nano.read_bytes()[:-1])
    folder = user / ".lmstudio/models/deep seek/r1"
    folder.mkdir(parents=True)
    (folder / "config.json").write_text('{"architectures": ["Qwen2ForCausalLM"]}')
    (folder / "tokenizer.json").write_text("{}")
    (folder / "model.safetensors").write_bytes(b"1" * 1000)
    done = run("lm")
    assert (done.returncode, done.stderr) == (0, "")
    head, nano_row, cut, checkpoint, *rest = done.stdout.splitlines()
    assert head.split() == ["NAME", "PROGRAM", "TYPE", "SIZE", "STATE", "PLACE"]
    assert nano_row.startswith("r1-nano ")
    assert "  can be added  " in nano_row
    assert nano_row.endswith("~/.lmstudio/models/a/b/R1 Nano.gguf")
    assert "Q8_0" in nano_row
    assert f"  no: it is truncated: 1 bytes of {nano.stat().st_size} are missing  " in cut
    assert "  checkpoint  1.0 kB " in checkpoint
    assert "  can be quantized  " in checkpoint
    assert "localai models discover --add NAME" in rest[1]
    assert rest[-1].strip() == f"localai quantize '{folder}'"


def test_as_json(run: Run, user: Path, nano: Path) -> None:
    blob = ollama(user, nano)
    (one,) = [item for item in data(run("ollama", "--json"))["found"] if item["sha256"] == sha256(nano)]
    assert one == {
        "name": "deepseek-r1:8b",
        "program": "Ollama",
        "called": "deepseek-r1:8b",
        "kind": "gguf",
        "type": "Q8_0",
        "architecture": "qwen2",
        "size": nano.stat().st_size,
        "paths": [str(blob)],
        "sha256": sha256(nano),
        "in_store": False,
        "can_be_added": True,
        "catalogue": "",
        "problem": "",
        "quantize": "",
    }


def test_a_model_is_added_without_a_copy_and_then_known(run: Run, user: Path, home: Path, nano: Path) -> None:
    blob = ollama(user, nano)
    before = blob.stat()
    done = run("--add", "deepseek-r1:8b")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("deepseek-r1:8b is installed: ")
    assert "stays if Ollama deletes" in done.stdout
    stored = home / "data/models/blobs" / f"sha256-{sha256(nano)}"
    assert stored.read_bytes() == nano.read_bytes()
    assert (blob.stat().st_mode, blob.stat().st_mtime_ns) == (before.st_mode, before.st_mtime_ns)
    (one,) = [item for item in data(run("ollama", "--json"))["found"] if item["paths"] == [str(blob)]]
    assert (one["in_store"], one["can_be_added"]) == (True, False)
    again = run("--add", "deepseek-r1:8b")
    assert again.returncode == 1
    assert "is in the store already, as deepseek-r1:8b" in again.stderr


def test_the_file_of_a_catalogue_entry_is_added_as_that(
    run: Run, user: Path, nano: Path, tmp_path: Path
) -> None:
    ollama(user, nano)
    own = tmp_path / "own.toml"
    own.write_text(CATALOGUE % sha256(nano))
    shown = run("ollama", LOCALAI_CATALOG=str(own))
    assert "can be added: it is tiny:r1 of the catalogue" in shown.stdout
    (added,) = data(run("--add", "tiny:r1", "--json", LOCALAI_CATALOG=str(own)))["added"]
    assert (added["name"], added["title"], added["pinned"]) == ("tiny:r1", "Tiny R1", True)
    assert added["source"]["program"] == "Ollama"


def test_all_are_added_but_what_is_damaged_which_ends_with_an_error(run: Run, user: Path, nano: Path) -> None:
    blob = ollama(user, nano)
    content = bytearray(nano.read_bytes())
    content[-1] ^= 1
    blob.write_bytes(content)
    shutil.copyfile(nano, user / ".lmstudio/models/a/b/good.gguf")
    done = run("--add-all", "--json")
    assert done.returncode == 1
    said = data(done)
    assert [item["name"] for item in said["added"]] == ["good"]
    assert [item["name"] for item in said["failed"]] == ["deepseek-r1:8b"]
    (line,) = done.stderr.splitlines()
    assert line.startswith("localai: error: deepseek-r1:8b of Ollama is damaged: ")
    assert line.endswith("Fetch it again with Ollama.") or line.endswith("Fetch it again with Ollama")


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["word"], 2, "none of the programs"),
        (["--add", "none"], 1, "No model called 'none' was found"),
        (["--add", "x", "--add-all"], 2, "--add-all adds all"),
    ],
)
def test_wrong_words_get_one_line(run: Run, words: list[str], code: int, said: str) -> None:
    done = run(*words)
    assert (done.returncode, done.stdout) == (code, "")
    (line,) = done.stderr.splitlines()
    assert line.startswith("localai: error: ")
    assert said.lower() in line.lower()
