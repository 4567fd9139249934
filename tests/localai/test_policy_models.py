"""What the policy binds of models: fetching, architectures, and the list of those that may run."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from localai import frames
from localai.engine import allowed
from localai.engine.client import Engine
from localai.engine.settings import LoadOptions
from localai.errors import ModelFileError, PolicyError
from models.catalog import builtin_checkpoint
from models.fetch.client import Fetch, Search
from models.fetch.protocol import Failed, Resolve, decode_event, pack
from models.library import Library
from models.origins import LocalFile
from models.store import Store
from tests.hub_server import HubServer
from tests.localai.policies import CONTACT, enforce, refused, run
from tests.localai.scripted_worker import ask as ask_engine
from tests.localai.scripted_worker import scripted, until
from tests.models.conftest import write_model

NO_PULL = "[forbid]\npull = true\n"
NO_OTHERS = "[forbid]\nunknown_architectures = true\n"
SOURCE = Search(repository="acme/nano-GGUF", type="Q8_0")
NOBODYS = "0" * 64


def listed(*digests: str) -> str:
    return f"[models]\nallow = {json.dumps(digests)}\n"


def sha256(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, nano: Path) -> Iterator[HubServer]:
    with HubServer() as server:
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        server.add_repository("acme/nano-GGUF", {"nano-Q8_0.gguf": nano.read_bytes()})
        yield server


# ----------------------------------------------------------------------------------------- forbid.pull

PULLS = [
    ["models", "pull", "acme/nano-GGUF:Q8_0"],
    ["models", "pull", "acme/nano-GGUF:Q8_0", "--dry-run"],
    ["models", "pull", "acme/nano-GGUF", "--file", "nano-Q8_0.gguf", "--anyway", "--accept-change"],
    ["models", "pull", "r1:1.5b"],
    ["models", "pull", "--from-source", "r1:1.5b"],
    ["models", "pull", "smollm2:135m"],
    ["models", "pull", "https://localhost/x.gguf", "--sha256", NOBODYS],
]


@pytest.mark.parametrize("words", PULLS, ids=" ".join)
def test_nothing_is_fetched(
    words: list[str], hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", f"{hub.url}/simple")
    enforce(tmp_path, monkeypatch, NO_PULL)
    done = run(*words)
    errors = [line for line in done.stderr.splitlines() if "error: " in line]
    assert done.returncode == 1, done.stderr
    assert len(errors) == 1
    assert "forbid.pull" in errors[0]
    assert CONTACT in errors[0]
    assert hub.requests == []


def test_the_hub_would_have_been_asked(hub: HubServer, home: Path) -> None:
    done = run("models", "pull", "acme/nano-GGUF:Q8_0")
    assert done.returncode == 0, done.stderr
    assert hub.requests


def test_no_part_of_the_program_starts_the_fetch_process(
    hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, NO_PULL)
    with (
        pytest.raises(PolicyError, match=r"forbid\.pull"),
        Fetch(SOURCE),
    ):
        pass
    assert hub.requests == []


@pytest.mark.parametrize("broken", [False, True])
def test_the_fetch_process_itself_refuses(broken: bool, hub: HubServer, tmp_path: Path) -> None:
    """Whoever starts it, also without the rest of the program."""
    path = tmp_path / "policy.toml"
    path.write_text("[forbid]\npul = true\n" if broken else NO_PULL)
    command = [sys.executable, "-P", "-m", "models.fetch.worker"]
    environment = os.environ | {"LOCALAI_POLICY": str(path)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(pack(Resolve(SOURCE)))
        process.stdin.flush()
        frame = frames.read(process.stdout)
        process.stdin.close()
    assert frame is not None
    event = decode_event(frame)
    assert isinstance(event, Failed)
    assert (event.kind, "policy" in event.message) == ("PolicyError", True)
    assert hub.requests == []


def test_what_needs_no_network_stays_possible(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, NO_PULL)
    for words in (["pull", "r1-nano"], ["import", nano, "--name", "mine"], ["list"], ["verify"]):
        done = run("models", *words)
        assert done.returncode == 0, done.stderr


# -------------------------------------------------------------------------- forbid.unknown_architectures


@pytest.fixture
def other(tmp_path: Path) -> Path:
    return write_model(tmp_path / "other.gguf", architecture="mamba")


def test_no_flag_allows_another_architecture(
    other: Path, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, NO_OTHERS)
    flag = ("--allow-architecture", "mamba")
    commands = [
        ("ask", *flag, other, "Hi"),
        ("ask", *flag, nano, "Hi"),
        ("bench", *flag, other),
        ("models", "import", other, *flag),
        ("models", "import", other, "--link", *flag),
        ("models", "show", other, *flag),
        ("models", "pull", "acme/nano-GGUF:Q8_0", *flag),
    ]
    for words in commands:
        refused(run(*words), "'mamba'", "forbid.unknown_architectures", CONTACT)


def test_an_edited_manifest_allows_no_other_architecture(
    other: Path, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    store.add(nano, "sums", source=LocalFile(path=str(nano)))
    store.add(other, "other", source=LocalFile(path=str(other)), allow=("mamba",))
    path = store.root / "refs" / "sums.json"
    path.chmod(0o600)
    path.write_bytes(json.dumps(json.loads(path.read_bytes()) | {"allowed_architecture": "mamba"}).encode())
    enforce(tmp_path, monkeypatch, NO_OTHERS)
    for name in ("sums", "other"):
        refused(run("ask", name, "Hi"), "'mamba'", "forbid.unknown_architectures")
        with pytest.raises(PolicyError):
            Library().resolve(name).header()


async def test_the_engine_itself_refuses_another_architecture(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, NO_OTHERS)
    engine = scripted("load(); receive()")
    with pytest.raises(PolicyError, match="'mamba'"):
        await engine.load(nano, LoadOptions(allow_architectures=("mamba",)))
    await engine.load(nano, LoadOptions(allow_architectures=("qwen2",)))  # it is one of R1's
    await engine.close()


# --------------------------------------------------------------------------------------- models.allow


def ask(model: object, *words: object) -> tuple[object, ...]:
    return ("ask", *words, "--max-tokens", "4", model, "What is 1 + 2?")


def test_only_models_of_the_list_run(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce(tmp_path, monkeypatch, listed(NOBODYS))
    digest = sha256(nano)
    refused(run(*ask(nano)), "models.allow", digest, CONTACT)
    refused(run("bench", nano), "models.allow")
    enforce(tmp_path, monkeypatch, listed(NOBODYS, digest.upper()), "second.toml")
    assert run(*ask(nano)).returncode == 0


def test_an_empty_list_is_one(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    enforce(tmp_path, monkeypatch, listed())
    refused(run(*ask(nano)), "models.allow")


def test_the_manifest_is_not_believed(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Other bytes under the name, the digest and the size of a model that is on the list."""
    store = Store()
    manifest = store.add(nano, "sums", source=LocalFile(path=str(nano)))
    enforce(tmp_path, monkeypatch, listed(manifest.sha256))
    assert run(*ask("sums")).returncode == 0
    blob = store.path(manifest)
    data = bytearray(blob.read_bytes())
    data[-1] ^= 1
    blob.chmod(0o600)
    blob.write_bytes(data)
    line = refused(run(*ask("sums")), "sums", "models.allow", sha256(blob))
    assert str(blob) not in line


def test_the_model_that_drafts_is_on_the_list_too(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "draft.gguf"
    other.write_bytes(nano.read_bytes() + b"\0" * 32)
    enforce(tmp_path, monkeypatch, listed(sha256(nano)))
    refused(run(*ask(nano, "--draft-model", other)), "draft.gguf", "models.allow", sha256(other))


def test_the_model_that_another_is_compared_with_is_on_the_list_too(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = tmp_path / "base.gguf"
    other.write_bytes(nano.read_bytes() + b"\0" * 32)
    enforce(tmp_path, monkeypatch, listed(sha256(nano)))
    refused(run("evaluate", nano, "--reference", other), "base.gguf", "models.allow", sha256(other))


async def test_each_part_is_on_the_list(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    parts = [tmp_path / f"m-0000{number}-of-00002.gguf" for number in (1, 2)]
    for number, path in enumerate(parts):
        write_model(path, split=(number, 2), prefix="blk.0." * number)
    enforce(tmp_path, monkeypatch, listed(sha256(parts[0])))
    with pytest.raises(PolicyError, match="m-00002-of-00002"):
        await allowed.seen([str(parts[0])])
    enforce(tmp_path, monkeypatch, listed(*map(sha256, parts)), "second.toml")
    seen = await allowed.seen([str(parts[0])])
    assert [path for path, _ in seen.files] == parts


async def test_what_is_no_file_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """To open a pipe would wait for whoever writes to it."""
    enforce(tmp_path, monkeypatch, listed())
    os.mkfifo(tmp_path / "pipe.gguf")
    for path in (tmp_path / "pipe.gguf", tmp_path):
        with pytest.raises(ModelFileError, match="is not a file"):
            await allowed.seen([str(path)])


def _written(path: Path) -> None:
    path.write_bytes(path.read_bytes())


def _touched_back(path: Path) -> None:
    """Other bytes, with the times that the file had."""
    before = path.stat()
    path.write_bytes(bytes(before.st_size))
    os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


def _exchanged(path: Path) -> None:
    fresh = path.with_name("fresh")
    fresh.write_bytes(path.read_bytes())
    fresh.replace(path)


def _away_and_back(path: Path) -> None:
    other = path.with_name("other")
    path.rename(other)
    other.rename(path)


@pytest.mark.parametrize("change", [_written, _touched_back, _exchanged, _away_and_back, Path.unlink])
async def test_the_file_that_was_read_is_the_one_that_is_loaded(
    change, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(nano.read_bytes())
    enforce(tmp_path, monkeypatch, listed(sha256(path)))
    seen = await allowed.seen([str(path)])
    seen.require_unchanged()
    change(path)
    with pytest.raises(ModelFileError):
        seen.require_unchanged()


async def test_a_file_that_is_exchanged_while_it_is_loaded_is_not_used(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(nano.read_bytes())
    enforce(tmp_path, monkeypatch, listed(sha256(path)))
    copy = tmp_path / "copy"
    copy.write_bytes(nano.read_bytes())
    engine = scripted(
        "first = send\n"
        "def send(event):\n"
        f"    os.replace({str(copy)!r}, {str(path)!r})\n"
        "    first(event)\n"
        "load(); receive()"
    )
    with pytest.raises(ModelFileError, match="was changed"):
        await engine.load(path)
    assert engine.model is None
    await engine.close()


async def test_it_is_read_again_when_a_worker_is_replaced(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "model.gguf"
    path.write_bytes(nano.read_bytes())
    enforce(tmp_path, monkeypatch, listed(sha256(path)))
    engine = scripted("load(); receive()")
    await engine.load(path)
    path.write_bytes(nano.read_bytes() + b"\0")
    assert engine._worker is not None
    os.kill(engine._worker.pid, signal.SIGKILL)
    await until(lambda: engine.model is None)
    with pytest.raises(PolicyError, match=r"models\.allow"):
        await ask_engine(engine)
    await engine.close()


async def test_closing_ends_the_reading(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model of gigabytes keeps nobody from leaving."""
    pipe = tmp_path / "endless.gguf"
    with pipe.open("wb") as file:
        file.truncate(1 << 40)  # it takes no space, and many minutes to read
    enforce(tmp_path, monkeypatch, listed(NOBODYS))
    engine = Engine()
    loading = asyncio.create_task(engine.load(pipe))
    await asyncio.sleep(0)
    loading.cancel()
    with pytest.raises(asyncio.CancelledError):
        await loading
    async with asyncio.timeout(20):
        await asyncio.get_running_loop().shutdown_default_executor()


def test_what_the_program_makes_itself_is_still_tried(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, listed(NOBODYS))
    made = run("quantize", builtin_checkpoint("r1-nano"), "--type", "Q4_0", "-o", tmp_path / "made.gguf")
    assert made.returncode == 0, made.stderr
    assert "loads and generates" in made.stdout
    assert f"SHA-256: {sha256(tmp_path / 'made.gguf')}" in made.stderr
    refused(run(*ask(tmp_path / "made.gguf")), "models.allow")
    tested = run("selftest")
    assert tested.returncode == 0, tested.stdout + tested.stderr


def test_types_that_are_made_are_compared_but_only_with_what_is_on_the_list(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, listed(NOBODYS))
    words = ["--compare", "--type", "Q4_0", "--chunks", "1", "--tasks", "0", "--rounds", "2"]
    made = run("quantize", builtin_checkpoint("r1-nano"), *words)
    assert made.returncode == 0, made.stderr
    assert "SAME WORD" in made.stdout
    refused(run("quantize", nano, "--allow-requantize", *words), nano.name, "models.allow")


def test_what_is_not_on_the_list_can_be_kept_and_is_marked(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, listed(NOBODYS))
    for words in (["import", nano, "--name", "mine"], ["list"]):
        done = run("models", *words)
        assert done.returncode == 0, done.stderr
        assert "mine is not on the list of models that your organization lets run" in done.stderr
        assert sha256(nano) in done.stderr
    refused(run(*ask("mine")), "mine", "models.allow")


def test_a_model_of_the_list_is_the_default(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    known = store.add(nano, "known", source=LocalFile(path=str(nano)))
    newer = store.add(write_model(tmp_path / "x.gguf"), "newer", source=LocalFile(path="/x"))
    path = store.root / "refs" / "newer.json"
    path.chmod(0o600)
    path.write_bytes(json.dumps(json.loads(path.read_bytes()) | {"reasoning": True}).encode())
    assert Library().default() == store.get("newer")
    enforce(tmp_path, monkeypatch, listed(known.sha256))
    assert Library().default() == known
    enforce(tmp_path, monkeypatch, listed(newer.sha256, known.sha256), "second.toml")
    assert Library().default() == store.get("newer")


def test_without_a_list_nothing_is_read_twice(nano: Path) -> None:
    assert asyncio.run(allowed.seen([str(nano), None])) == allowed.Seen()
