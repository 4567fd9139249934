"""`localai models`, as a user runs it: real processes, a hub on the loopback."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pexpect
import pytest

from models.catalog import builtin_checkpoint
from tests.hub_server import Fault, HubServer

COMMAND = [sys.executable, "-P", "-m", "localai", "models"]

CATALOGUE = """
replace = true

[[model]]
name = "r1:nano"
title = "R1 nano"
type = "Q8_0"
reasoning = true
license = "MIT"
base_license = "Derived from nothing."
parameters = 4_199_680
context = 2048
note = "It adds."

[model.shape]
architecture = "qwen2"
layers = 5
heads = 4
kv_heads = 2
head_size = 64
embedding_length = 256
feed_forward_length = 768
vocabulary = 384
tied = true

[model.weights]
Q8_0 = 4_486_000
Q4_K_M = 2_600_000

[model.checkpoint]
kind = "hub-checkpoint"
repository = "acme/nano"
revision = "{checkpoint}"

[[model.file]]
type = "Q8_0"

[model.file.source]
kind = "hub"
repository = "acme/nano-GGUF"
revision = "{ready}"
files = [{{ path = "nano-Q8_0.gguf", sha256 = "{sha256}" }}]
"""


def run(*words: str, **more: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*COMMAND, *words],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, **more},
        timeout=120,
    )


def ok(*words: str, **more: str) -> str:
    done = run(*words, **more)
    assert done.returncode == 0, done.stderr
    return done.stdout


def error(*words: str, code: int = 1, **more: str) -> str:
    """The one line of a command that fails; notes before it may be there."""
    done = run(*words, **more)
    assert done.returncode == code, (done.returncode, done.stdout, done.stderr)
    assert "Traceback" not in done.stderr
    lines = [line for line in done.stderr.splitlines() if line.startswith("localai: error: ")]
    assert len(lines) == 1, done.stderr
    return lines[0]


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        yield server


@pytest.fixture
def catalogue(hub: HubServer, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> HubServer:
    """A catalogue whose `r1:nano` is on the hub, ready-made and as a checkpoint."""
    content = nano.read_bytes()
    folder = builtin_checkpoint("r1-nano")
    checkpoint = hub.add_repository(
        "acme/nano", {path.name: path.read_bytes() for path in folder.iterdir() if path.suffix != ".py"}
    )
    ready = hub.add_repository("acme/nano-GGUF", {"nano-Q8_0.gguf": content})
    path = tmp_path / "models.toml"
    digest = hashlib.sha256(content).hexdigest()
    path.write_text(CATALOGUE.format(ready=ready.head, sha256=digest, checkpoint=checkpoint.head), "utf-8")
    monkeypatch.setenv("LOCALAI_CATALOG", str(path))
    return hub


def test_a_model_by_name_from_the_hub_to_an_answer(catalogue: HubServer) -> None:
    assert "r1:nano" in ok("list")
    done = run("pull", "R1:nano")
    assert done.returncode == 0, done.stderr
    assert "r1:nano is installed: R1 nano, Q8_0, 4.5 MB" in done.stdout
    assert "acme/nano-GGUF, nano-Q8_0.gguf, commit" in done.stderr
    assert "Licence: MIT. Derived from nothing." in done.stderr
    shown = json.loads(ok("show", "r1:nano", "--json"))
    assert shown["manifest"]["source"]["revision"] == catalogue.repositories["acme/nano-GGUF"].head
    assert shown["manifest"]["pinned"] is True
    assert shown["tensor_types"]["Q8_0"] > 4_000_000
    assert "ours is used" in shown["template"]
    asked = [*COMMAND[:-1], "ask", "r1:nano", "What is 47 + 85?", "--json"]
    answered = subprocess.run(asked, capture_output=True, text=True, check=True)
    assert "132" in json.loads(answered.stdout)["answer"]
    (installed,) = json.loads(ok("list", "--json"))["installed"]
    assert installed["last_used"] is not None
    again = run("pull", "r1:nano")
    assert "nothing had to be fetched" in again.stderr


def test_the_publishers_own_weights_are_quantized_here(catalogue: HubServer, home: Path) -> None:
    assert "--from-source" in error("pull", "r1:nano:q4_k_m")
    ok("pull", "--from-source", "r1:nano:q4_k_m")
    manifest = json.loads(ok("show", "r1:nano:q4_k_m", "--json"))["manifest"]
    source = manifest["source"]
    assert (source["kind"], source["repository"]) == ("checkpoint", "acme/nano")
    assert source["revision"] == catalogue.repositories["acme/nano"].head
    assert source["recipe"] == "--type Q4_K_M"
    assert "model.safetensors" in source["inputs"]
    assert manifest["file_type"] == "Q4_K_M"
    assert list((home / "data" / "models" / "incoming").iterdir()) == []
    again = run("pull", "--from-source", "r1:nano:q4_k_m")
    assert (again.returncode, "nothing had to be made" in again.stderr) == (0, True)
    assert "called r1:nano:q4_k_m already" in error("pull", "r1:nano", "--name", "r1:nano:q4_k_m")


def test_a_dry_run_tells_and_fetches_nothing(catalogue: HubServer, home: Path) -> None:
    told = json.loads(ok("pull", "r1:nano", "--dry-run", "--json"))
    assert told["download_bytes"] == len(
        catalogue.repositories["acme/nano-GGUF"].file("nano-Q8_0.gguf").content
    )
    assert told["verdict"]["kind"] == "fits"
    assert "acme/nano-GGUF" in ok("pull", "r1:nano", "--dry-run")
    assert json.loads(ok("list", "--json"))["installed"] == []


def test_an_address_and_a_repository(hub: HubServer, nano: Path) -> None:
    content = nano.read_bytes()
    url, digest = hub.add_file("nano.gguf", content), hashlib.sha256(content).hexdigest()
    assert "--sha256" in error("pull", url, code=2)
    ok("pull", url, "--sha256", digest, "--name", "by:url")
    hub.add_repository("acme/X-GGUF", {"X-Q8_0.gguf": content})
    ok("pull", "acme/X-GGUF:q8_0@main")
    models = json.loads(ok("list", "--json"))["installed"]
    assert [model["name"] for model in models] == ["by:url", "x:q8_0"]
    assert "It has: Q8_0" in error("pull", "acme/X-GGUF:q4_0")
    assert "no repository" in error("pull", "acme/none")
    assert "for addresses" in error("pull", "r1-nano", "--sha256", digest, code=2)


def test_ctrl_c_keeps_what_came_and_says_so(catalogue: HubServer) -> None:
    catalogue.plan(Fault(role="cdn", stall_after=1000, skip=2, times=99))
    command = [*COMMAND, "pull", "r1:nano"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        assert process.stderr is not None
        for line in process.stderr:
            if line.startswith("Downloading"):
                break
        process.send_signal(signal.SIGINT)
        _, rest = process.communicate(timeout=30)
    assert process.returncode == 130
    assert "the same command goes on from there" in rest
    (left,) = json.loads(ok("list", "--json"))["unfinished"]
    assert (left["name"], left["running"]) == ("r1:nano", False)
    assert "is not complete" in ok("list")
    catalogue.plan()
    ok("pull", "r1:nano")
    assert json.loads(ok("list", "--json"))["unfinished"] == []


def test_two_pulls_of_one_model_share_the_transfer(catalogue: HubServer) -> None:
    size = len(catalogue.repositories["acme/nano-GGUF"].file("nano-Q8_0.gguf").content)
    results: list[subprocess.CompletedProcess[str]] = []
    threads = [
        threading.Thread(target=lambda name=name: results.append(run("pull", "r1:nano", "--name", name)))
        for name in ("one", "two")
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [done.returncode for done in results] == [0, 0], [done.stderr for done in results]
    assert catalogue.bytes_sent < 1.5 * size
    models = json.loads(ok("list", "--json"))["installed"]
    assert [model["name"] for model in models] == ["one", "two"]
    assert len({model["sha256"] for model in models}) == 1


def test_the_progress_on_a_terminal(catalogue: HubServer) -> None:
    child = pexpect.spawn(
        COMMAND[0], [*COMMAND[1:], "pull", "r1:nano"], env={**os.environ, "TERM": "xterm"}, timeout=60
    )
    child.expect("r1:nano is installed")
    shown = child.before.decode()
    child.expect(pexpect.EOF)
    assert "%" in shown
    assert "MB" in shown


def test_what_is_removed_comes_back_until_it_is_pruned(nano: Path) -> None:
    ok("import", str(nano), "--name", "a:b")
    removed = ok("remove", "a:b")
    assert "localai models restore a:b brings it back" in removed
    assert "`localai models prune` frees 4.5 MB" in removed
    assert "Removed or replaced: a:b" in ok("list")
    assert "a:b is back" in ok("restore", "a:b")
    assert ok("verify") == "a:b: ok\n"
    told = json.loads(ok("remove", "a:b", "--now", "--json"))
    assert told["freed_bytes"] == nano.stat().st_size
    assert "was removed" in error("restore", "a:b")
    assert "0 B freed" in ok("prune")


def test_names_and_paths(nano: Path, home: Path) -> None:
    ok("import", str(nano), "--name", "a")
    assert "is called r1:mine now" in ok("rename", "a", "R1:Mine")
    path = Path(ok("path", "r1:mine").strip())
    assert path.read_bytes() == nano.read_bytes()
    assert "called r1:mine already" in error("import", str(nano), "--name", "r1:mine")
    assert "cannot be the name" in error("rename", "r1:mine", "../x", code=2)


def test_verify_tells_damaged_from_missing(nano: Path) -> None:
    for name in ("good", "bad", "gone"):
        ok("import", str(nano), "--name", name)
    # The three share one file; each must be another.
    blobs = Path(ok("path", "good").strip())
    content = blobs.read_bytes()
    ok("remove", "--now", "bad", "gone")
    for name, extra in (("bad", b"1"), ("gone", b"2")):
        other = nano.with_name(f"{name}.gguf")
        other.write_bytes(content + extra)
        ok("import", str(other), "--name", name)
        other.unlink()
    bad, gone = Path(ok("path", "bad").strip()), Path(ok("path", "gone").strip())
    bad.chmod(0o600)
    bad.write_bytes(content + b"3")
    gone.unlink()
    done = run("verify", "--json")
    assert done.returncode == 1
    found = {one["name"]: one["result"] for one in json.loads(done.stdout)}
    assert found == {"good": "ok", "bad": "damaged", "gone": "missing"}
    assert run("verify", "good").returncode == 0


def test_import_without_a_copy(nano: Path, tmp_path: Path) -> None:
    mine = tmp_path / "mine.gguf"
    mine.write_bytes(nano.read_bytes())
    ok("import", "--link", str(mine))
    (model,) = json.loads(ok("list", "--json"))["installed"]
    assert model["sharing"] in ("hard link", "reflink", "reference")
    mine.unlink()
    expected = 1 if model["sharing"] == "reference" else 0
    assert run("verify").returncode == expected


def test_import_of_a_checkpoint(home: Path) -> None:
    folder = builtin_checkpoint("r1-nano")
    ok("import", str(folder), "--name", "mine", "--type", "q8_0")
    assert json.loads(ok("show", "mine", "--json"))["type"] == "Q8_0"
    assert "is not a type" in error("import", str(folder), "--type", "q99", code=2)


def test_a_template_that_nobody_has_read(nano: Path, tmp_path: Path) -> None:
    """SmolLM's shape with another template: shown, then accepted."""
    from tests.models.conftest import write_model

    file = write_model(tmp_path / "odd.gguf", template="{{ messages[0]['content'] }}\x1b[2J")
    done = run("import", str(file))
    assert "which nobody here has read" in done.stderr
    shown = ok("show", "odd", "--template")
    assert "{{ messages[0]" in shown
    assert "\x1b" not in shown
    assert "not accepted yet" in ok("show", "odd")
    assert "--yes" in error("accept", "odd", code=2)
    assert "Accepted" in ok("accept", "odd", "--yes")
    assert "its own, accepted" in ok("show", "odd")
    assert "not run any more" in ok("accept", "odd", "--undo")


def test_everything_but_pull_works_without_a_network(nano: Path) -> None:
    if subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode:
        pytest.skip("no network namespaces here")
    ok("import", str(nano), "--name", "a")
    script = " && ".join(
        f"{' '.join(COMMAND)} {words}"
        for words in (
            "list",
            "show a",
            "verify",
            "fit",
            "discover",
            "path a",
            "rename a b",
            "remove b",
            "prune",
        )
    )
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", script], capture_output=True, text=True, check=False, env=os.environ
    )
    assert done.returncode == 0, done.stderr
