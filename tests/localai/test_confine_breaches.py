"""Ways around the sandbox that attacking it found, and places where it broke what works without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import pytest

from localai import frames, processes
from localai.confine import readable
from models.catalog import builtin_checkpoint
from quantize.protocol import Confined, Event, Failed, Job, decode_event, pack

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="what confines workers there is Linux's")
ROOT = Path(__file__).parents[2]


def quantize_worker(job: Job, *, without: str) -> list[Event]:
    """What the worker for `job` tells an app that lets it go on; the kernel lacks the calls `without`."""
    command = [sys.executable, "-m", "tests.localai.without_calls", without]
    worker = subprocess.Popen(
        [*command, *processes.worker_command("quantize.worker")],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        cwd=ROOT,
        env=processes.confined_environment(),
    )
    assert worker.stdin is not None
    assert worker.stdout is not None
    with worker, worker.stdin, worker.stdout as sent:  # it ends by itself when it has told all
        os.write(worker.stdin.fileno(), pack(job))
        return [decode_event(body) for body in iter(lambda: frames.read(sent), None)]  # type: ignore[arg-type]


def test_a_quantize_worker_below_full_reads_nothing_if_full_is_required() -> None:
    """The app ends it, too, but it would have read the source by then."""
    job = Job(source=str(builtin_checkpoint("r1-nano")), sandbox="require")
    told, *rest = quantize_worker(job, without="landlock_create_ruleset")
    assert isinstance(told, Confined)
    assert told.sandbox.level == "partial"
    assert [event.kind for event in rest if isinstance(event, Failed)] == ["SandboxError"]
    assert len(rest) == 1


# ----------------------------------------------------------------------------------------- where Python is


def entered(tmp_path: Path, python: str, **environment: str) -> list[str]:
    """The level, and how far it gets, in a process that `python` runs in `environment`."""
    code = f"""
import os, sys
sys.path.append({str(ROOT)!r})
from localai.confine import linux
from localai.engine import bindings
sandbox = linux.enter("cpu", [], bindings.bindings)
import numpy
print(sandbox.level, numpy.ones(3).sum(), os.path.dirname(os.path.dirname(numpy.__file__)))
"""
    done = subprocess.run(
        [python, "-P", "-c", code],
        capture_output=True,
        text=True,
        check=False,
        cwd=tmp_path,
        env={"HOME": str(tmp_path), **environment},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@pytest.fixture(scope="module")
def base() -> str:
    """The Python without packages that this one was made from."""
    found = getattr(sys, "_base_executable", sys.executable)
    if found == sys.executable:
        pytest.skip("this Python is no virtual environment")
    return str(found)


@pytest.fixture(scope="module")
def installed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What a worker imports, in a folder of its own, as `pip install --target` puts it there."""
    folder, packages = tmp_path_factory.mktemp("installed"), Path(sysconfig.get_path("purelib"))
    for name in ("llama_cpp", "numpy", "msgspec", "psutil", "typing_extensions"):
        for found in packages.glob(f"{name}*"):
            copy = shutil.copytree if found.is_dir() else shutil.copy2
            copy(found, folder / found.name)
    return folder


def test_packages_in_a_folder_that_pythonpath_names(tmp_path: Path, base: str, installed: Path) -> None:
    assert entered(tmp_path, base, PYTHONPATH=str(installed)) == ["full", "3.0", str(installed)]


def test_packages_that_the_user_installed(tmp_path: Path, base: str, installed: Path) -> None:
    code = "import site; print(site.getusersitepackages())"
    env = {"PYTHONUSERBASE": str(tmp_path / "user")}
    found = subprocess.run([base, "-c", code], env=env, capture_output=True, text=True, check=True).stdout
    folder = Path(found.strip())
    folder.parent.mkdir(parents=True)
    installed.rename(folder)
    try:
        assert entered(tmp_path, base, **env) == ["full", "3.0", str(folder)]
    finally:
        folder.rename(installed)


def test_the_users_own_folder_is_no_place_for_packages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "x-1.dist-info").mkdir()
    (tmp_path / "libx.so.1").touch()
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))
    assert str(tmp_path) not in readable.runtime()
    assert str(tmp_path / "libx.so.1") in readable.runtime()
    monkeypatch.setenv("HOME", "/nonexistent")
    assert str(tmp_path) in readable.runtime()


def test_libraries_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the system's loader would find, and nothing else that lies beside them."""
    for name in ("libx.so", "liby.so.6", "notes.txt"):
        (tmp_path / name).touch()
    monkeypatch.setenv("LD_LIBRARY_PATH", f":relative:{tmp_path}")
    assert {*map(str, tmp_path.glob("lib*"))} <= {*readable.runtime()}
    assert not {str(tmp_path), str(tmp_path / "notes.txt"), "relative"} & {*readable.runtime()}


# ------------------------------------------------------------------------------------------------- memory


def test_no_crash_reporter_gets_the_memory() -> None:
    """RLIMIT_CORE is no limit for a program that core_pattern names: there must be no dump at all."""
    code = """
from localai.confine import linux, privileges, probes
before = privileges.is_memory_kept()
sandbox = linux.enter("cpu", [], layers=[name for name in linux.LAYERS if name != "network_namespace"])
print(sandbox.level, before, privileges.is_memory_kept())
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "full False True\n"


def test_memory_that_could_be_dumped_is_not_passed_over() -> None:
    code = """
from localai.confine import linux, privileges
privileges.keep_memory = lambda: None
print(*linux.enter("cpu", [], layers=[name for name in linux.LAYERS if name != "network_namespace"]).open)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "memory without a limit\n"
