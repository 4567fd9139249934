"""Jobs: our own command line in a process of its own, fetching and quantizing for real."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import tui.command
from localai.errors import ModelError, QuantizeError
from models.catalog import builtin_checkpoint
from models.store import Store
from tests.hub_server import Fault, HubServer
from tui.asking import discover, forecast
from tui.jobs import Job, Jobs, add, go_on, pull, quantize
from tui.shelf import StoreShelf

NANO = "r1-nano"
CLINGS = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
if os.fork():
    if sys.argv[1] != "both":
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    print('{"step": "Clinging", "done": 1, "total": 2}', file=sys.stderr, flush=True)
while True:
    signal.pause()
"""
"""A command, and a process that it starts: it has the same standard error, and hears no request to end."""


def checkpoint() -> str:
    return str(builtin_checkpoint(NANO))


async def until(job: Job, condition: Callable[[], object]) -> None:
    """Wait until `condition` holds after something of `job` has changed."""
    changed = asyncio.Event()
    job.on_change = changed.set
    while not condition():
        changed.clear()
        await asyncio.wait_for(changed.wait(), 60)


def children(job: Job) -> list[psutil.Process]:
    assert job._process is not None
    command = psutil.Process(job._process.pid)
    return [command, *command.children(recursive=True)]


def clinging() -> list[psutil.Process]:
    """The processes of this test that run `CLINGS`."""
    found = []
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            found += [process] if CLINGS in process.cmdline() else []
    return found


def assert_gone(processes: list[psutil.Process]) -> None:
    _, alive = psutil.wait_procs(processes, 20)
    assert not [process for process in alive if process.status() != psutil.STATUS_ZOMBIE]


@pytest.fixture
def command(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Put a program, with these arguments before ours, in the place of our command line."""

    def replace(program: str, *words: str) -> None:
        line = [sys.executable, "-c", program, *words]
        monkeypatch.setattr(tui.command, "worker_command", lambda module: line)

    return replace


def assert_nothing_was_kept(home: Path) -> None:
    assert Store().manifests() == []
    store = Store().root
    assert [path for path in store.rglob("*") if path.is_file() and path.name != "lock"] == []
    assert home in store.parents


async def test_a_model_is_fetched() -> None:
    job = pull(NANO)
    seen: list[tuple[str, int, int]] = []
    job.on_change = lambda: seen.append((job.stage, job.done, job.total))
    assert (job.name, job.doing, job.state) == (NANO, "fetching", "running")
    await job.run()
    assert (job.state, job.error) == ("done", "")
    [model] = Store().manifests()
    assert (model.name, model.file_type) == (NANO, "Q8_0")
    assert {stage for stage, _, _ in seen} >= {"Quantize", "Check"}
    assert any(done and total >= model.size for _, done, total in seen)


async def test_a_model_is_quantized() -> None:
    job = quantize(checkpoint(), "Q4_K_M", "r1-nano:small")
    await job.run()
    assert (job.doing, job.state, job.error) == ("quantizing", "done", "")
    [model] = Store().manifests()
    assert (model.name, model.file_type, model.reasoning) == ("r1-nano:small", "Q4_K_M", True)


async def test_what_it_would_be() -> None:
    known = await forecast(checkpoint())
    sizes = {one.type: one.size for one in known.types if one.sensible}
    assert sizes["Q4_K_M"] < sizes["Q8_0"] < sizes[known.source_type]
    assert "F32" not in sizes
    assert known.recommended.type == "Q8_0"
    assert known.recommended.reason


async def test_what_it_cannot_be() -> None:
    await pull(NANO).run()
    with pytest.raises(QuantizeError) as caught:
        await forecast(NANO)
    assert caught.value.message.startswith("r1-nano is quantized already")


@pytest.mark.parametrize(
    ("program", "why"),
    [
        ("import os; os.kill(os.getpid(), 9)", "The command stopped: it was ended by signal 9 (SIGKILL)"),
        ("import os; os.kill(os.getpid(), 6)", "The command stopped: it was ended by signal 6 (SIGABRT)"),
        (
            'import sys; sys.exit(\'{"step": "Reading"}\\nlocalai: error: it is damaged.\\nlast words\')',
            "It is damaged.",
        ),
        ("print('{}')", "The forecast cannot be read"),
        ("import sys; sys.stdout.buffer.write(bytes([123, 34, 255]))", "The forecast cannot be read"),
    ],
    ids=["killed", "aborted", "told among other lines", "no forecast", "no text"],
)
async def test_why_there_is_no_forecast(command: Callable[..., None], program: str, why: str) -> None:
    command(program)
    with pytest.raises(QuantizeError) as caught:
        await forecast(NANO)
    assert caught.value.message.startswith(why)
    assert "step" not in caught.value.message
    assert "last words" not in caught.value.message


async def test_stopping_keeps_the_store_whole(home: Path) -> None:
    job = quantize(checkpoint(), "Q4_K_M", "r1-nano:small")
    running = asyncio.create_task(job.run())
    await until(job, lambda: job.done)
    processes = children(job)
    await job.stop()
    assert job.state == "stopped"
    await running
    assert_gone(processes)
    assert_nothing_was_kept(home)


@pytest.mark.parametrize("who", ["both", "only what it started"])
async def test_what_does_not_end_is_killed(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch, who: str
) -> None:
    monkeypatch.setattr(tui.command, "PATIENCE_S", 0.2)
    command(CLINGS, who)
    job = pull(NANO)
    running = asyncio.create_task(job.run())
    await until(job, lambda: job.stage == "Clinging")
    processes = children(job)
    assert len(processes) == 2
    try:
        await asyncio.wait_for(job.stop(), 20)
        await running
        assert job.state == "stopped"
        assert_gone(processes)
    finally:
        for process in processes:
            with suppress(psutil.NoSuchProcess):
                process.kill()


async def test_one_that_has_not_begun_can_be_stopped() -> None:
    job = pull(NANO)
    await job.stop()
    await job.run()
    assert job.state == "stopped"
    assert Store().manifests() == []


async def test_one_that_is_just_starting_can_be_stopped() -> None:
    job = pull(NANO)
    running = asyncio.create_task(job.run())
    await asyncio.sleep(0)
    await job.stop()
    await running
    assert job.state == "stopped"
    assert Store().manifests() == []


async def test_whatever_ends_the_waiting_ends_the_process(home: Path) -> None:
    job = quantize(checkpoint(), "Q4_K_M", "r1-nano:small")
    running = asyncio.create_task(job.run())
    await until(job, lambda: job.done)
    processes = children(job)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    assert job.state == "stopped"
    assert_gone(processes)
    assert_nothing_was_kept(home)


async def test_why_it_failed() -> None:
    job = pull("nonsense")
    await job.run()
    assert job.state == "failed"
    assert job.error.startswith("No model called 'nonsense' is in the catalogue. There are: ")


@pytest.mark.parametrize(("code", "state", "error"), [(0, "done", ""), (1, "failed", "It is full.")])
async def test_a_line_without_end_is_no_matter(
    command: Callable[..., None], code: int, state: str, error: str
) -> None:
    said = "localai: error: it is full." if code else ""
    command(f"import sys; print('x' * 1_000_000, {said!r}, sep='\\n', file=sys.stderr); sys.exit({code})")
    jobs, ended = Jobs(), []
    jobs.on_end = ended.append
    job = pull(NANO)
    jobs.start(job)
    await asyncio.wait(jobs._tasks)
    assert (job.state, job.error, ended) == (state, error, [job])


async def test_a_name_that_looks_like_an_option() -> None:
    job = pull("--help")
    await job.run()
    assert job.state == "failed"
    assert "'--help'" in job.error


async def test_one_that_the_system_ends() -> None:
    job = quantize(checkpoint(), "Q4_K_M", "r1-nano:small")
    running = asyncio.create_task(job.run())
    await until(job, lambda: job.done)
    processes = children(job)
    processes[0].send_signal(signal.SIGKILL)
    await running
    assert job.state == "failed"
    assert "SIGKILL" in job.error
    assert_gone(processes)


async def test_all_jobs_of_the_program() -> None:
    jobs, ended = Jobs(), []
    jobs.on_end = ended.append
    changes: list[int] = []
    jobs.on_change = lambda: changes.append(len(jobs.running))
    jobs.pull(NANO)
    job = jobs.of(NANO)
    assert job is not None
    assert jobs.running == jobs.all == [job]
    await jobs.stop()
    assert (job.state, jobs.of(NANO), jobs.running, ended) == ("stopped", None, [], [job])
    assert (changes[0], changes[-1]) == (1, 0)
    again = pull("nonsense")
    jobs.start(again)
    await until(again, lambda: again.state != "running")
    jobs.pull("nonsense")
    assert again not in jobs.all
    await jobs.stop()


# ------------------------------------------------------------------------------------- over a network


CATALOGUE = """
replace = true
[[model]]
name = "mine:1m"
title = "Mine"
type = "Q8_0"
reasoning = true
license = "MIT"
parameters = 1000000
context = 2048
[[model.file]]
type = "Q8_0"
source = {{ kind = "hub", repository = "owner/mine", files = [{{ path = "mine.gguf", size = {size} }}] }}
"""


@pytest.fixture
def hub(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub with one model, and a catalogue that has nothing else."""
    content = nano.read_bytes()
    catalogue = tmp_path / "models.toml"
    catalogue.write_text(CATALOGUE.format(size=len(content)))
    with HubServer() as server:
        server.add_repository("owner/mine", {"mine.gguf": content})
        monkeypatch.setenv("LOCALAI_CATALOG", str(catalogue))
        monkeypatch.setenv("HF_ENDPOINT", server.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        yield server


async def test_a_fetch_that_is_stopped_goes_on(hub: HubServer, nano: Path) -> None:
    half = nano.stat().st_size // 2
    hub.plan(Fault(role="cdn", stall_after=half, times=100))
    job = pull("mine:1m")
    running = asyncio.create_task(job.run())
    await until(job, lambda: job.done > half // 2)
    processes = children(job)
    await job.stop()
    await running
    assert job.state == "stopped"
    assert_gone(processes)
    [entry] = [entry for entry in StoreShelf(Store()).all() if entry.name == "mine:1m"]
    assert (entry.place, entry.download, entry.elsewhere) == ("available", nano.stat().st_size, False)
    assert entry.arrived >= half // 2
    hub.plan()
    again = pull("mine:1m")
    await again.run()
    assert (again.state, again.error) == ("done", "")
    assert [entry.name for entry in StoreShelf(Store()).entries()] == ["mine:1m"]
    assert Store().unfinished() == []


async def test_a_fetch_that_is_not_of_the_catalogue_goes_on(hub: HubServer, nano: Path) -> None:
    half = nano.stat().st_size // 2
    hub.plan(Fault(role="cdn", stall_after=half, times=100))
    job = go_on("a", ["pull", "owner/mine", "--name", "a"])
    running = asyncio.create_task(job.run())
    await until(job, lambda: job.done > half // 2)
    await job.stop()
    await running
    [entry] = [entry for entry in StoreShelf(Store()).all() if entry.arrived]
    assert (entry.name, entry.fetchable) == ("a", True)
    hub.plan()
    again = go_on(entry.name, entry.words)
    await again.run()
    assert (again.state, again.error) == ("done", "")
    assert "a" in [entry.name for entry in StoreShelf(Store()).entries()]
    assert Store().unfinished() == []


async def test_why_a_fetch_failed(hub: HubServer) -> None:
    hub.repositories.clear()
    job = pull("mine:1m")
    await job.run()
    assert job.state == "failed"
    assert "owner/mine" in job.error


# -------------------------------------------------------------------------------------- other programs


@pytest.fixture
def ollama(nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """An Ollama with one model; the digest of its file."""
    digest = hashlib.sha256(nano.read_bytes()).hexdigest()
    models = tmp_path / "ollama"
    (models / "blobs").mkdir(parents=True)
    os.link(nano, models / "blobs" / f"sha256-{digest}")
    manifest = models / "manifests/registry.ollama.ai/library/sums/latest"
    manifest.parent.mkdir(parents=True)
    kind = "application/vnd.ollama.image.model"
    layer = {"mediaType": kind, "digest": f"sha256:{digest}", "size": nano.stat().st_size}
    manifest.write_text(json.dumps({"schemaVersion": 2, "layers": [layer]}))
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("OLLAMA_MODELS", str(models))
    return digest


async def test_what_another_program_holds_is_found_and_added(ollama: str) -> None:
    jobs = Jobs()
    [entry] = [entry for entry in await jobs.discover() if entry.program == "Ollama"]
    assert jobs.found == [entry]
    assert (entry.name, entry.file_type, entry.fault) == ("sums", "Q8_0", "")
    job = add(entry.name)
    await job.run()
    assert (job.doing, job.state, job.error) == ("adding", "done", "")
    [model] = StoreShelf(Store()).entries()
    assert (model.name, model.sha256, model.program) == ("sums", ollama, "Ollama")
    assert model.sharing
    assert await discover() == []


async def test_the_end_ends_the_search_and_the_process(
    command: Callable[..., None], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tui.command, "PATIENCE_S", 0.2)
    command(CLINGS, "both")
    jobs = Jobs()
    searching = asyncio.create_task(jobs.discover())
    async with asyncio.timeout(30):
        while len(processes := clinging()) < 2:
            await asyncio.sleep(0.01)
    again = asyncio.create_task(jobs.discover())  # who asks meanwhile gets the same answer
    searching.cancel()  # and who no longer wants to know ends nothing
    with suppress(asyncio.CancelledError):
        await searching
    assert not again.done()
    assert all(process.is_running() for process in processes)
    await jobs.stop()
    with pytest.raises(asyncio.CancelledError):
        await again
    assert_gone(processes)
    assert jobs.found == ()


async def test_why_nobody_knows_what_others_hold(command: Callable[..., None]) -> None:
    command("print('nonsense')")
    with pytest.raises(ModelError, match="What other programs hold cannot be read"):
        await discover()
    command('import sys; sys.exit("localai: error: the folder is gone")')
    with pytest.raises(ModelError, match="The folder is gone"):
        await discover()


def test_progress_for_programs() -> None:
    found = run_pull(LOCALAI_PROGRESS="json")
    told = [json.loads(line) for line in found.stderr.splitlines() if line.startswith("{")]
    assert all(set(line) == {"step", "done", "total", "bytes_per_s"} for line in told)
    assert told[-1]["total"] == Store().get(NANO).size


def test_progress_for_people() -> None:
    assert "{" not in run_pull().stderr


def run_pull(**more: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-P", "-m", "localai", "models", "pull", NANO]
    return subprocess.run(
        command, env=os.environ | more, capture_output=True, text=True, check=True, timeout=60
    )


def test_work_that_nobody_waits_for_ends(home: Path) -> None:
    command = [sys.executable, "-P", "-m", "localai", "models", "pull", NANO]
    environment = os.environ | {"LOCALAI_PROGRESS": "json"}
    with subprocess.Popen(
        command, env=environment, stderr=subprocess.PIPE, stdout=subprocess.DEVNULL
    ) as child:
        assert child.stderr is not None
        child.stderr.close()
        assert child.wait(60) == 1
    assert_nothing_was_kept(home)
