"""The fetch process as a process: how it ends, and that nothing it says or does harms the app."""

from __future__ import annotations

import hashlib
import os
import random
import re
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from localai import frames, processes
from localai.errors import FetchError, UsageError
from models.fetch import answers, protocol
from models.fetch.client import Fetch
from models.origins import HubFile, RemoteFile, UrlFile
from tests.hub_server import Fault, HubServer
from tests.models.fetching import fetch, inside, isolate

CONTENT = b"GGUF" + random.Random(1).randbytes(4_000_000)
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as hub:
        isolate(monkeypatch, tmp_path, hub.url)
        yield hub


@pytest.fixture
def source(hub: HubServer) -> UrlFile:
    return UrlFile(url=hub.add_file("model.gguf", CONTENT), sha256=SHA256)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "in"
    folder.mkdir()
    return folder


class Stop(Exception):
    """Raised by an app that has seen enough."""


def test_a_callback_ends_it_and_what_came_is_kept(hub: HubServer, source: UrlFile, folder: Path) -> None:
    hub.plan(Fault(stall_after=3_000_000, times=99))

    def stop(step: str, done: int, total: int) -> None:
        if done >= 2_000_000:
            raise Stop

    with pytest.raises(Stop), Fetch(source) as process:
        pid = process.pid
        process.resolve()
        process.transfer(folder, on_progress=stop)
    assert not psutil.pid_exists(pid)
    hub.plan()
    hub.requests.clear()
    fetch(source, folder)
    assert hub.bytes_sent <= 2_100_000
    assert inside(folder) == {"model.gguf"}


def test_a_header_that_is_refused(hub: HubServer, source: UrlFile, folder: Path) -> None:
    seen: list[bytes] = []

    def refuse(path: Path) -> None:
        with path.open("rb") as file:
            seen.append(file.read(4))
        raise Stop

    with pytest.raises(Stop), Fetch(source) as process:
        process.resolve()
        process.transfer(folder, on_header=refuse)
    assert seen == [b"GGUF"]
    assert not (folder / "model.gguf").exists()
    sent = hub.bytes_sent
    fetch(source, folder)
    assert hub.bytes_sent - sent < len(CONTENT) / 2, "what had come was kept"


def test_the_app_is_told_that_nothing_happens(hub: HubServer, source: UrlFile, folder: Path) -> None:
    hub.plan(Fault(stall_after=1000, times=99))
    told: list[tuple[str, int, int]] = []

    def stop(*now: tuple[str, int, int]) -> None:
        told.append(now)
        if told.count(now) == 5 and now[0] == "Downloading":
            raise Stop

    with pytest.raises(Stop), Fetch(source) as process:
        process.resolve()
        process.transfer(folder, on_progress=stop)


def test_waiting_for_an_answer_can_be_stopped(hub: HubServer, source: UrlFile) -> None:
    hub.plan(Fault(method="HEAD", status=503, retry_after="50", times=9))

    def stop(step: str, done: int, total: int) -> None:
        if hub.requests:
            raise Stop

    with pytest.raises(Stop), Fetch(source) as process:
        process.resolve(on_progress=stop)


def test_a_process_that_is_killed_is_one_error(hub: HubServer, source: UrlFile, folder: Path) -> None:
    hub.plan(Fault(stall_after=1_000_000, times=99))

    def kill(step: str, done: int, total: int) -> None:
        if done:
            os.kill(process.pid, signal.SIGKILL)

    with (
        pytest.raises(FetchError, match=r"stopped in the middle.*SIGKILL") as caught,
        Fetch(source) as process,
    ):
        process.resolve()
        process.transfer(folder, on_progress=kill)
    assert "goes on where it stopped" in caught.value.hint
    hub.plan()
    fetch(source, folder)
    assert (folder / "model.gguf").read_bytes() == CONTENT


def test_a_process_that_does_not_start(source: UrlFile, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(
        processes, "worker_command", lambda module: [sys.executable, "-c", "raise SystemExit('no')"]
    )
    with Fetch(source) as process, pytest.raises(FetchError, match=r"stopped in the middle.*exit code 1: no"):
        process.resolve()


LIAR = """
import os, sys
sys.path.insert(0, sys.argv[1])
from localai import frames
from models.fetch import answers, protocol
for body in (bytes.fromhex(text) for text in sys.argv[2:]):
    os.write(1, body)
    frames.read(sys.stdin.buffer)
sys.stdin.buffer.read()
"""


def resolved(source: protocol.Source) -> protocol.Resolved:
    return protocol.Resolved(source=source, files=(protocol.Listed("x"),), total=0, peak=0)


def transferred(*paths: str) -> bytes:
    return protocol.pack(protocol.Transferred(tuple(protocol.FetchedFile(p, 1, SHA256, "x") for p in paths)))


@pytest.mark.parametrize(
    "says",
    [
        lambda folder: b"\xff\xff\xff\xff",
        lambda folder: frames.pack(b"nonsense"),
        lambda folder: frames.pack(b""),
        lambda folder: transferred(),
        lambda folder: transferred(f"{folder}/a", f"{folder}/b"),
        lambda folder: transferred("/etc/passwd"),
        lambda folder: transferred("model.gguf"),
        lambda folder: transferred(f"{folder}/../x"),
        lambda folder: transferred(f"{folder}x/model.gguf"),
        lambda folder: transferred(f"{folder}/link"),
        lambda folder: protocol.pack(protocol.HeaderReady("/etc/passwd")),
        lambda folder: protocol.pack(resolved(UrlFile(url="https://x.example", sha256=SHA256))),
        lambda folder: protocol.pack(
            protocol.Transferred((protocol.FetchedFile(f"{folder}/a", 1, SHA256, "other"),))
        ),
        lambda folder: protocol.pack(
            protocol.Transferred((protocol.FetchedFile(f"{folder}/a", 1, "0" * 64, "x"),))
        ),
        lambda folder: protocol.pack(protocol.Resolve(protocol.Search(repository="a/b"))),
    ],
)
def test_a_process_that_says_something_else(
    source: UrlFile, folder: Path, monkeypatch: pytest.MonkeyPatch, says: Callable[[Path], bytes]
) -> None:
    """Such as one that a server has taken over."""
    (folder / "link").symlink_to("/etc/passwd")
    root = Path(__file__).parents[2]
    frames_to_send = [protocol.pack(resolved(source)).hex(), says(folder).hex()]
    command = [sys.executable, "-c", LIAR, str(root), *frames_to_send]
    monkeypatch.setattr(processes, "worker_command", lambda module: command)
    with Fetch(source) as process:
        process.resolve()
        with pytest.raises(FetchError, match="said something unexpected") as caught:
            process.transfer(folder, on_header=lambda path: pytest.fail(str(path)))
    assert str(caught.value).isprintable()


ASKED = HubFile(
    repository="a/b", revision="1" * 40, files=(RemoteFile(path="x.gguf", size=5, sha256=SHA256),)
)


@pytest.mark.parametrize(
    "change",
    [
        {"repository": "evil/b"},
        {"revision": "2" * 40},
        {"files": (RemoteFile(path="y.gguf", size=5, sha256=SHA256),)},
        {"files": (RemoteFile(path="x.gguf", size=5, sha256="0" * 64),)},
        {"files": (RemoteFile(path="x.gguf", size=6, sha256=SHA256),)},
        {"files": ASKED.files * 2},
    ],
)
def test_an_answer_that_changes_what_was_asked(change: dict[str, Any]) -> None:
    def answer(source: HubFile) -> protocol.Resolved:
        listed = tuple(protocol.Listed(file.path, file.size, file.sha256) for file in source.files)
        return protocol.Resolved(source=source, files=listed, total=5, peak=5)

    assert answers.resolves(ASKED, answer(ASKED))
    assert not answers.resolves(ASKED, answer(msgspec.structs.replace(ASKED, **change)))
    assert not answers.resolves(ASKED, msgspec.structs.replace(answer(ASKED), files=()))


def test_an_answer_of_another_kind(source: UrlFile, monkeypatch: pytest.MonkeyPatch) -> None:
    other = protocol.Resolved(source=protocol.HubCheckpoint(repository="a/b"), files=(), total=0, peak=0)
    command = [sys.executable, "-c", LIAR, str(Path(__file__).parents[2]), protocol.pack(other).hex()]
    monkeypatch.setattr(processes, "worker_command", lambda module: command)
    with Fetch(source) as process, pytest.raises(FetchError, match="said something unexpected"):
        process.resolve()


APP = """
import sys
from pathlib import Path
from typing import Any
from models.fetch.client import Fetch
from models.origins import HubFile, RemoteFile, UrlFile

def told(step, done, total):
    if done:
        print(process.pid, flush=True)

with Fetch(UrlFile(url=sys.argv[1], sha256=sys.argv[2])) as process:
    process.resolve()
    process.transfer(Path(sys.argv[3]), on_progress=told)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT, signal.SIGTERM])
def test_it_ends_with_the_app(hub: HubServer, source: UrlFile, folder: Path, number: signal.Signals) -> None:
    hub.plan(Fault(stall_after=1_000_000, times=99))
    command = [sys.executable, "-c", APP, source.url, SHA256, str(folder)]
    app = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert app.stdout is not None
    try:
        worker = psutil.Process(int(app.stdout.readline()))
    finally:
        app.send_signal(number)
        app.wait()
        app.stdout.close()
    worker.wait(timeout=20)
    hub.plan()
    hub.requests.clear()
    fetch(source, folder)
    assert hub.bytes_sent < len(CONTENT)


def test_the_app_opens_no_socket(source: UrlFile, folder: Path, tmp_path: Path) -> None:
    """What the kernel saw: only the process that was started to fetch, and its threads, used the network."""
    if not can_trace():
        pytest.skip("strace is not installed, or not allowed")
    code = APP.replace("    process.resolve()", "    print(process.pid, flush=True)\n    process.resolve()")
    logs = tmp_path / "strace"
    command = [
        "strace",
        "-ff",
        "-e",
        "trace=network,clone,clone3",
        "-o",
        str(logs),
        sys.executable,
        "-c",
        code,
    ]
    app = subprocess.run(
        [*command, source.url, SHA256, str(folder)], check=True, capture_output=True, text=True
    )
    worker = int(app.stdout.split()[0])
    using = {int(log.suffix[1:]) for log in tmp_path.glob("strace.*") if "AF_INET" in log.read_text()}
    assert using
    app_threads = {int(log.suffix[1:]) for log in tmp_path.glob("strace.*")} - threads_of(worker, logs)
    assert not using & app_threads


def threads_of(process: int, logs: Path) -> set[int]:
    """The process, and the threads that it started."""
    calls = logs.with_suffix(f".{process}").read_text()
    return {process, *(int(number) for number in re.findall(r"clone3?\(.*= (\d+)$", calls, re.MULTILINE))}


def can_trace() -> bool:
    tried = ["strace", "-o", "/dev/null", "true"]
    return bool(shutil.which("strace")) and not subprocess.run(tried, check=False).returncode


def test_the_app_imports_no_network_code() -> None:
    script = (
        "import sys, models.sources, models.store, models.fetch.client\n"
        "bad = {'socket', 'ssl', 'http.client', 'urllib.request', 'urllib3', 'httpx2', 'huggingface_hub'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"


def test_a_name_that_is_no_text(hub: HubServer) -> None:
    source = protocol.Search(repository="a/b", path="x\udcff.gguf")
    with Fetch(source) as process, pytest.raises(UsageError, match="no text"):
        process.resolve()


def test_the_process_gets_no_passphrase(
    source: UrlFile, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALAI_PASSPHRASE", "open sesame")
    with Fetch(source) as process:
        assert "LOCALAI_PASSPHRASE" not in psutil.Process(process.pid).environ()
