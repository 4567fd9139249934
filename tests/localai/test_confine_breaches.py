"""Ways around the sandbox that attacking it found, and places where it broke what works without it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import sysconfig
from pathlib import Path

import msgspec
import pytest

from localai import frames, processes
from localai.chat.budget import Enlarge
from localai.confine import readable
from localai.engine import client, protocol, told
from localai.errors import EngineError, LoadError
from models.catalog import builtin_checkpoint
from quantize import inputs
from quantize.client import Wanted, run
from quantize.protocol import Confined, Event, Failed, Job, decode_event, pack
from tests.localai.kernels import needs_landlock
from tests.localai.scripted_worker import HI, ask, fingerprint, loaded, scripted

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


def test_a_quantize_worker_goes_before_the_app_where_memory_runs_out(tmp_path: Path) -> None:
    pids: list[int] = []
    scores: list[str] = []
    run(
        Job(source=str(builtin_checkpoint("r1-nano"))),
        [Wanted("Q8_0", tmp_path / "x.gguf")],
        load=False,
        on_event=lambda _: scores.append(Path(f"/proc/{pids[0]}/oom_score_adj").read_text()),
        on_start=pids.append,
    )
    assert scores[0] == f"{processes.FIRST_TO_GO}\n"


def test_links_of_a_checkpoint_open_nothing_else(tmp_path: Path) -> None:
    checkpoint, other = tmp_path / "checkpoint", tmp_path / "secret.txt"
    matrix = checkpoint / "a matrix that the user names"
    (checkpoint / "additional_chat_templates").mkdir(parents=True)
    for file in (checkpoint / "config.json", other):
        file.touch()
    matrix.symlink_to(other)
    (checkpoint / "notes.txt").symlink_to(other)
    (checkpoint / "additional_chat_templates" / "x.jinja").symlink_to(other)
    (checkpoint / "tokenizer.json").symlink_to("config.json")
    job = Job(source=str(checkpoint), imatrix=str(matrix))
    names = {str(matrix), str(checkpoint / "config.json"), str(checkpoint / "tokenizer.json")}
    assert {*inputs.files(job)} == names


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


@needs_landlock
def test_packages_in_a_folder_that_pythonpath_names(tmp_path: Path, base: str, installed: Path) -> None:
    assert entered(tmp_path, base, PYTHONPATH=str(installed)) == ["full", "3.0", str(installed)]


@needs_landlock
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


@needs_landlock
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


@needs_landlock
def test_memory_that_could_be_dumped_is_not_passed_over() -> None:
    code = """
from localai.confine import linux, privileges
privileges.keep_memory = lambda: None
print(*linux.enter("cpu", [], layers=[name for name in linux.LAYERS if name != "network_namespace"]).open)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "memory without a limit\n"


# ------------------------------------------------------------------- what a worker tells that is taken over


@pytest.mark.parametrize(
    "event",
    [
        "p.PrefillProgress(r.id, -1, 0)",
        "p.Answer(r.id, 'x', -1)",
        "p.Done(r.id, 'stop', p.Usage(1, 0, 1, 0), p.Timings(0, float('nan'), 0, 0))",
        "p.Done(r.id, 'stop', p.Usage(1, 0, 1, 0), p.Timings(0, float('inf'), 0, 0))",
        "p.Done(r.id, 'stop', p.Usage(1, 0, -9, 0), p.Timings(0, 0, 0, 0))",
    ],
)
async def test_no_number_is_impossible(event: str) -> None:
    engine = await loaded(f"load(); r = receive(p.Generate); send({event}); receive()")
    with pytest.raises(EngineError, match="sent something that is not a message"):
        await ask(engine)
    await engine.close()


async def test_no_offer_is_about_what_was_not_asked() -> None:
    """Whoever describes it would look for a message that is not there."""
    script = """
from localai.chat.budget import DropOldest, Enlarge, Shorten
load(); r = receive(p.Generate)
offers = (Shorten(99, 5, 5), DropOldest((0,), 5), DropOldest((-9,), 5), Enlarge(4096))
send(p.Overflow(r.id, 5, 2048, 3, offers)); receive()
"""
    engine = await loaded(script)
    (overflow,) = await ask(engine)
    assert isinstance(overflow, protocol.Overflow)
    assert overflow.offers == (Enlarge(4096),)
    await engine.close()


async def test_what_is_counted_is_what_was_asked_for() -> None:
    engine = await loaded(
        "load(); r = receive(p.Count); send(p.Counted(r.id, 5, (), 0, 2048, None)); receive()"
    )
    with pytest.raises(EngineError, match="counted other messages"):
        await engine.count(HI)
    await engine.close()


async def test_no_reason_is_megabytes_long() -> None:
    engine = scripted("receive(p.Load); send(p.Failed('LoadError', 'x' * 30_000_000)); receive()")
    with pytest.raises(LoadError) as found:
        await engine.load(Path("model.gguf"))
    assert len(found.value.message) < 100_000
    await engine.close()


async def test_no_model_says_megabytes_of_itself() -> None:
    """All of it stands on the screen."""
    script = """
sent, told = [], send
send = sent.append
load()
loud = {name: "x" * 9_000_000 for name in ("description", "name", "architecture", "backend")}
told(__import__("msgspec").structs.replace(sent[0], notes=("n",) * 100_000, **loud))
receive()
"""
    engine = await loaded(script)
    assert engine.model is not None
    assert {len(engine.model.description), len(engine.model.name)} == {told.LONGEST_WORDS}
    assert len(engine.model.notes) == told.MOST_NOTES
    await engine.close()


async def test_a_reply_without_end_ends(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_REPLY", 10_000)
    script = "load(); r = receive(p.Generate)\nwhile True: answer(r.id, 'x' * 99)"
    engine = await loaded(script)
    with pytest.raises(EngineError, match="longer than any can be"):
        await ask(engine)
    assert engine.model is None
    await engine.close()


async def test_a_model_that_calls_itself_another_saves_nothing_for_that() -> None:
    """Both of these say that they are "print"."""
    fingerprints = []
    for file, digest in (("a.gguf", ""), ("b.gguf", ""), ("b.gguf", "1" * 64), ("c.gguf", "1" * 64)):
        engine = scripted("load(); receive()")
        await engine.load(Path(file), sha256=digest)
        fingerprints.append(fingerprint(engine))
        await engine.close()
    assert fingerprints[2] == fingerprints[3]
    assert len(set(fingerprints)) == 3


# ------------------------------------------------------------------------------------------- an honest report


@needs_landlock
def test_where_none_of_the_usual_files_are_reading_is_tried_all_the_same() -> None:
    """As in an image of a container that holds nothing but Python."""
    code = """
import sys
from localai.confine import linux, probes
probes._READABLE = ()
print(*linux.enter("cpu", [], layers=[name for name in linux.LAYERS if name not in sys.argv]).open)
"""
    for left_out, opened in (("landlock", "reading other files"), ("none", "")):
        words = [sys.executable, "-c", code, left_out]
        done = subprocess.run(words, capture_output=True, text=True, check=True)
        assert done.stdout == f"{opened}\n"


@pytest.mark.parametrize(
    "event",
    [
        {"type": "Progress", "stage": "convert", "tensor": "", "done_bytes": -1, "total_bytes": 1},
        {
            "type": "Finished",
            "report": {
                **dict.fromkeys(("tensors", "weights", "source_bytes"), 1),
                **dict.fromkeys(("architecture", "imatrix_sha256", "llama_cpp_commit"), ""),
                **{"inputs": {}, "outputs": [], "seconds": float("nan")},
            },
        },
    ],
)
def test_nor_is_one_of_the_quantizers(event: dict[str, object]) -> None:
    with pytest.raises(msgspec.ValidationError, match=">= 0"):
        decode_event(msgspec.msgpack.encode(event))
