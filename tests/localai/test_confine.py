"""The sandbox in the real workers: what is reported, what is refused, and that everything works at `full`."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from localai import confine
from localai.confine import choice, landlock, limits, macos
from localai.confine.report import OFF, Layer, Sandbox, require, short, words
from localai.engine.client import Engine
from localai.engine.protocol import Answer
from localai.engine.settings import LoadOptions, Sampling
from localai.errors import ModelFileError, SandboxError
from tests.localai.kernels import needs_landlock
from tests.localai.scripted_worker import HI

pytestmark = [
    pytest.mark.skipif(sys.platform != "linux", reason="what confines workers there is Linux's"),
    pytest.mark.usefixtures("all_cores"),
]
QUESTION = ("What is 6 + 7?", "--temperature", "0")
ANSWER = "6 + 7 = **13**"
LOCALAI = (sys.executable, "-P", "-m", "localai")


def run(*words: object, without: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """The command line, as if the kernel lacked the calls `without`."""
    before = (sys.executable, "-m", "tests.localai.without_calls", without) if without else ()
    return subprocess.run(
        [*before, *LOCALAI, *map(str, words)],
        capture_output=True,
        text=True,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ, **environment},
        cwd=Path(__file__).parents[2],
    )


def asked(model: Path, *words: str, **more: str) -> dict[str, Any]:
    """What `ask --json` tells, its answer being the right one."""
    done = run("ask", model, *QUESTION, "--json", *words, **more)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    assert found["answer"] == ANSWER
    return found["sandbox"]  # type: ignore[no-any-return]


def on(sandbox: dict[str, Any]) -> list[str]:
    return [layer["name"] for layer in sandbox["layers"] if layer["on"]]


# ------------------------------------------------------------------------------------------- what is achieved


@needs_landlock
def test_a_real_answer_comes_at_full(nano: Path) -> None:
    sandbox = asked(nano, "--sandbox", "require")
    assert sandbox["level"] == "full"
    assert (sandbox["open"], sandbox["why"], sandbox["profile"]) == ([], "", "cpu")
    assert {"no_new_privs", "landlock", "rlimits", "seccomp"} <= {*on(sandbox)}


@needs_landlock
def test_full_needs_no_namespace_of_the_network(nano: Path) -> None:
    sandbox = asked(nano, "--sandbox", "require", without="unshare")
    assert sandbox["level"] == "full"
    assert "network_namespace" not in on(sandbox)


@needs_landlock
@pytest.mark.parametrize(
    ("without", "level", "opened"),
    [
        ("landlock_create_ruleset", "partial", ["reading other files"]),
        ("seccomp", "partial", ["sockets", "writing files", "starting programs"]),
        (
            "landlock_create_ruleset,seccomp",
            "none",
            ["sockets", "reading other files", "signals to other processes"],
        ),
    ],
)
def test_what_is_missing_is_said_and_can_be_refused(
    nano: Path, without: str, level: str, opened: list[str]
) -> None:
    sandbox = asked(nano, without=without)
    assert sandbox["level"] == level
    assert set(opened) <= {*sandbox["open"]}
    assert "function not implemented" in sandbox["why"]
    done = run("ask", nano, *QUESTION, "--sandbox", "require", without=without)
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr.startswith("localai: error: nothing is loaded: the sandbox must be full")
    assert done.stderr.count("\n") == 1


@needs_landlock
def test_without_a_choice_of_ones_own_the_environment_counts(nano: Path) -> None:
    assert asked(nano, LOCALAI_SANDBOX="off")["level"] == "none"
    assert asked(nano, "--sandbox", "prefer", LOCALAI_SANDBOX="off")["level"] == "full"
    done = run("ask", nano, *QUESTION, LOCALAI_SANDBOX="require", without="seccomp")
    assert done.returncode == 1
    done = run("ask", nano, *QUESTION, LOCALAI_SANDBOX="yes")
    assert (done.returncode, done.stderr) == (
        2,
        "localai: error: LOCALAI_SANDBOX is 'yes'. Set it to require, prefer or off.\n",
    )


def test_switched_off_says_so(nano: Path) -> None:
    assert asked(nano, "--sandbox", "off") == {
        "level": "none", "layers": [], "open": [], "why": "it was switched off", "profile": "cpu",
    }  # fmt: skip


@needs_landlock
@pytest.mark.parametrize("abi", range(1, landlock.NEWEST + 1))
def test_every_version_of_landlock_confines(abi: int) -> None:
    """From the first on, with the filter beside it: nothing is open."""
    code = f"""
import sys
from localai.confine import linux
from localai.confine.report import words
sys.stdout.write(words(linux.enter("cpu", [], landlock_abi={abi})))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("full")
    assert f"Landlock ABI {min(abi, landlock.version())}" in done.stdout


# ------------------------------------------------------------------------------------------ quantize worker


@needs_landlock
def test_quantize_works_at_full_and_refuses_below(tmp_path: Path) -> None:
    from models.catalog import builtin_checkpoint

    source, output = builtin_checkpoint("r1-nano"), tmp_path / "x.gguf"
    words = ("quantize", source, "--type", "Q4_K_M", "--output", output, "--sandbox", "require")
    refused = run(*words, without="landlock_create_ruleset")
    assert refused.returncode == 1
    assert "the sandbox must be full" in refused.stderr
    assert [*tmp_path.iterdir()] == []
    assert run(*words).returncode == 0
    assert output.stat().st_size > 1_000_000


def test_a_quantize_worker_writes_no_more_than_it_should(tmp_path: Path) -> None:
    code = f"""
import os, sys
from localai.confine import limits
limits.limit_files(1000)
with open({str(tmp_path / "x")!r}, "wb", buffering=0) as file:
    assert file.write(bytes(1000)) == 1000
    try:
        file.write(b"x")
    except OSError as error:
        print(error.strerror)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "File too large\n"


# ------------------------------------------------------------------------------ what a confined engine can do


async def answer(engine: Engine) -> str:
    events = [event async for event in engine.generate(HI, Sampling(temperature=0))]
    return "".join(event.text for event in events if isinstance(event, Answer))


@needs_landlock
async def test_drafts_and_questions_about_memory_work_at_full(
    nano: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(choice.VARIABLE, "require")
    engine = Engine()
    try:
        await engine.load(nano, LoadOptions(draft=str(nano)))
        assert engine.sandbox.level == "full"
        said = await answer(engine)
        assert (await engine.status()).memory > 10_000_000
        assert await answer(engine) == said
    finally:
        await engine.close()


@needs_landlock
async def test_who_was_only_asked_what_it_is_made_of_is_replaced_to_load(nano: Path) -> None:
    """It may read no model; nobody told it which one would come."""
    engine = Engine()
    try:
        assert (await engine.describe()).llama_cpp_commit
        first = engine._worker
        await engine.load(nano)
        assert engine._worker is not first
        assert engine.sandbox.level == "full"
    finally:
        await engine.close()


async def test_a_model_behind_links_and_under_any_name(nano: Path, tmp_path: Path) -> None:
    (tmp_path / "store").mkdir()
    shutil.copy(nano, tmp_path / "store" / 'a "quoted"\n name.gguf')
    (tmp_path / "link.gguf").symlink_to(tmp_path / "store" / 'a "quoted"\n name.gguf')
    (tmp_path / "folder").symlink_to(tmp_path, target_is_directory=True)
    engine = Engine()
    try:
        await engine.load(tmp_path / "folder" / "link.gguf")
        assert await answer(engine)
    finally:
        await engine.close()


async def test_a_file_without_a_name_is_called_as_the_app_calls_it(tmp_path: Path) -> None:
    """Confined, the worker reaches it by another name, which tells nobody anything."""
    with os.fdopen(os.open(tmp_path, os.O_RDWR | os.O_TMPFILE, 0o600), "wb") as file:
        file.write(b"GGUF but no more")
        file.flush()
        path = Path(f"/proc/{os.getpid()}/fd/{file.fileno()}")
        engine = Engine()
        try:
            with pytest.raises(ModelFileError) as error:
                await engine.load(path)
        finally:
            await engine.close()
    assert str(path) in str(error.value)
    assert "/proc/self" not in str(error.value)


async def test_a_worker_gets_no_descriptor_but_its_own(nano: Path) -> None:
    """Also where the one who starts it hands on what it should not."""
    reading, writing = os.pipe()
    os.set_inheritable(writing, True)
    engine = Engine()
    try:
        start = asyncio.get_running_loop().subprocess_exec

        def leaky(*words: Any, **more: Any) -> Any:
            return start(*words, **more, close_fds=False)

        asyncio.get_running_loop().subprocess_exec = leaky  # type: ignore[method-assign]
        await engine.load(nano)
        os.close(writing)
        assert await asyncio.to_thread(os.read, reading, 1) == b"", "nobody else holds the other end"
    finally:
        os.close(reading)
        await engine.close()


# --------------------------------------------------------------------------------------------- words, limits


def test_words() -> None:
    layers = (
        Layer("no_new_privs", True),
        Layer("landlock", True, "ABI 4"),
        Layer("seccomp", False, "why not"),
    )
    sandbox = Sandbox("partial", layers, ("sockets",), "seccomp is off: why not")
    told = "partial (no new privileges, Landlock ABI 4); open: sockets: seccomp is off: why not"
    assert words(sandbox) == told
    assert words(OFF) == "none: it was switched off"
    assert [short(one) for one in (Sandbox("full"), sandbox, OFF)] == [
        "sandbox full",
        "sandbox partial",
        "no sandbox",
    ]


def test_what_is_required() -> None:
    require("require", Sandbox("full"))
    require("prefer", OFF)
    with pytest.raises(SandboxError, match="must be full"):
        require("require", OFF)
    with pytest.raises(SandboxError, match="--gpu-layers 0"):
        require("require", Sandbox("partial", open=("the GPU's driver",), profile="gpu"))


def test_a_limit_of_the_machine_stays(tmp_path: Path) -> None:
    model = tmp_path / "m"
    model.write_bytes(bytes(1000))
    cpu, gpu = limits.Limits.of("cpu", [str(model)]), limits.Limits.of("gpu", [str(model)])
    quantize = limits.Limits.of("quantize", [str(model), "/nowhere"])
    assert cpu.address_space is not None
    assert cpu.address_space > cpu.data > 1 << 30
    assert (cpu.files, gpu.files, gpu.address_space) == (0, 0, None)
    assert quantize.files == limits.LARGEST_GROWTH * 1000 + limits.ROOM


# ----------------------------------------------------------------------------------------------------- macOS


def test_the_profile_for_macos() -> None:
    """Unproven there; here it is at least what was meant."""
    model = '/Users/a/mo"del\\.gguf'
    rules = macos.rules([model], writes=False).splitlines()
    for rule in ("(deny network*)", "(deny file-write*)", "(deny process-fork)", "(deny process-exec*)"):
        assert rule in rules
    assert '(deny file-read-data (subpath "/Users"))' in rules
    assert r'(allow file-read-data (subpath "/Users/a/mo\"del\\.gguf"))' in rules
    assert rules.index('(deny file-read-data (subpath "/Users"))') < len(rules) - 1, (
        "the last rule that fits wins"
    )
    assert "(allow file-write-data)" not in rules
    assert "(allow file-write-data)" in macos.rules([model], writes=True).splitlines()
    assert macos.command(["python", "-m", "x"], [model], writes=False)[:2] == ["/usr/bin/sandbox-exec", "-p"]
    assert macos.command(["python", "-m", "x"], [model], writes=False)[3:] == ["python", "-m", "x"]


@pytest.mark.parametrize(
    ("system", "words"),
    [
        ("win32", "none: not sandboxed: there is no sandbox for this system yet"),
        ("darwin", "none (limits); open: {}: not started through sandbox-exec"),
    ],
)
def test_what_other_systems_say(system: str, words: str) -> None:
    """In a process that believes to be there: it never says more than holds."""
    code = f"""
import sys
from localai import confine
from localai.confine import macos, report
sys.platform = {system!r}
sandbox = confine.enter("require", "cpu", [], lambda: print("prepared"))
print(report.words(sandbox), ", ".join(sandbox.open), sep="\\n")
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    prepared, told, opened = done.stdout.split("\n")[:3]
    assert (prepared, told) == ("prepared", words.format(opened))
    assert ("sockets" in opened) == (system == "darwin")


def test_only_on_macos_a_worker_is_started_by_another_program(monkeypatch: pytest.MonkeyPatch) -> None:
    started = {}
    for system in ("linux", "win32", "darwin"):
        monkeypatch.setattr(sys, "platform", system)
        started[system] = confine.command(["python"], "require", [])[0]
        assert confine.command(["python"], "off", []) == ["python"]
    assert started == {"linux": "python", "win32": "python", "darwin": "/usr/bin/sandbox-exec"}
