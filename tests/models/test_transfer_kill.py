"""A transfer whose process is killed, or whose machine loses power; two processes that want one file."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import msgspec
import pytest
from msgspec import structs

from localai.errors import IntegrityError, StoreError
from models.fetch import journal
from models.fetch.intervals import Intervals
from models.fetch.transfer import Options, Received, Wanted, watch
from tests.hub_server import HubServer
from tests.models.transferring import CONTENT, SMALL, K, beside, fetch, isolate, require_done, twice, wanted

ROOT = Path(__file__).parents[2]
KILLS = 50
LARGE = CONTENT + CONTENT[1_000_000:4_000_000]
BYTES = CONTENT[:3_000_000]
BUFFERS = 8 * K
"""Bytes of the system's buffers for each connection, at either end: what is in them is lost in a kill."""

FETCHING = """
import sys
from pathlib import Path
import msgspec
from models.fetch.transfer import Options, Wanted, download

def show(done, total):
    print(done, flush=True)

wanted = msgspec.json.decode(sys.argv[1], type=Wanted)
options = msgspec.json.decode(sys.argv[2], type=Options)
print("ready", flush=True)
received = download(wanted, Path(sys.argv[3]), options=options, on_progress=show)
print("done", received.size, received.sha256, flush=True)
"""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer(send_buffer=BUFFERS) as hub:
        yield hub


def start(want: Wanted, target: Path, options: Options) -> subprocess.Popen[str]:
    """A process that fetches."""
    words = [msgspec.json.encode(want).decode(), msgspec.json.encode(options).decode(), str(target)]
    command = [sys.executable, "-W", "error", "-c", FETCHING, *words]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=ROOT)


def ended(process: subprocess.Popen[str]) -> str:
    """The last line that a process has printed, when it has ended."""
    lines = process.communicate(timeout=60)[0].split("\n")
    return lines[-2] if len(lines) > 1 else ""


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.0005)


# ------------------------------------------------------------------------------------------------- killed


def test_killed_at_any_moment_it_goes_on_and_little_comes_twice(hub: HubServer, tmp_path: Path) -> None:
    """At most one range for each kill, counted in what the server has sent."""
    moments = random.Random(50)
    url, target = hub.add_file("model", LARGE), tmp_path / "model"
    want = wanted(url, LARGE)
    options = structs.replace(SMALL, receive_buffer=BUFFERS, range=256 * K, durable=1024 * K)
    before, kills, attempts = 0, 0, 0
    while kills < KILLS:
        attempts += 1
        assert attempts < 5 * KILLS, "nearly every transfer ends before it is killed"
        hub.pause = 0.001
        process = start(want, target, options)
        if (
            attempts % 5 == 4
        ):  # At any time from the first moment on, before anything has been asked for as well
            with suppress(subprocess.TimeoutExpired):
                process.wait(moments.uniform(0.0, 0.3))
        else:
            enough = hub.bytes_sent + moments.randrange(1, 2 * len(LARGE) // KILLS)
            wait_until(lambda enough=enough, one=process: hub.bytes_sent >= enough or one.poll() is not None)
        process.kill()
        ended(process)
        kills += process.returncode == -signal.SIGKILL
        assert not target.exists() or target.read_bytes() == LARGE
        again = twice(hub)
        assert again - before <= options.range, f"kill {kills}"
        before = again
        if target.exists():  # it was quicker, or not killed before its end: once more from the beginning
            target.unlink()
            with hub.lock:
                hub.requests.clear()
            before = 0
    hub.pause = 0.0
    process = start(want, target, options)
    assert ended(process) == f"done {len(LARGE)} {want.sha256}"
    require_done(Received(len(LARGE), want.sha256), target, LARGE)
    assert twice(hub) <= kills * options.range


def test_killed_after_all_has_come(hub: HubServer, tmp_path: Path) -> None:
    """As between the last byte and the file's name: nothing is fetched again."""
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    target.rename(tmp_path / "model.partial")
    identity = journal.Identity(size=len(BYTES), sha256=wanted(url, BYTES).sha256)
    known = journal.Known(size=len(BYTES), trusted=Intervals([(0, len(BYTES))]))
    journal.Journal(tmp_path / "model.journal", identity, known, journal.boot_id()).close()
    hub.requests.clear()
    headers: list[Path] = []
    require_done(fetch(wanted(url, BYTES), target, on_header=headers.append), target, BYTES)
    assert hub.requests == []
    assert len(headers) == 1


# -------------------------------------------------------------------------------------------- power loss


class Off(Exception):
    """The moment at which the power goes."""


def until_power_goes(
    hub: HubServer, want: Wanted, target: Path, count: int, **changes: object
) -> tuple[Intervals, int]:
    """Fetch until about so many bytes are there; returns what was flushed by then, and what was written."""

    def on_progress(done: int, _: int) -> None:
        if done >= count:
            raise Off

    hub.hold_after(count + 10 * SMALL.piece)
    with pytest.raises(Off):
        fetch(want, target, on_progress=on_progress, options=structs.replace(SMALL, boot="first", **changes))
    hub.hold_after(None)
    known = journal.read(target.with_name("model.journal"), "first")
    assert known.trusted.total >= count
    return known.durable, known.trusted.total


def lose(path: Path, kept: Intervals, size: int, chance: random.Random) -> None:
    """Of the rest nothing, or something else, has come to the disk."""
    with path.open("r+b") as file:
        place = 0
        while place < size:
            if (end := kept.reach(place)) == place:
                end = kept.next_start(place) or size
                file.seek(place)
                file.write(bytes(end - place) if chance.random() < 0.5 else chance.randbytes(end - place))
            place = end


@pytest.mark.parametrize("seed", range(8))
def test_after_the_loss_of_power_only_what_was_flushed_is_trusted(
    hub: HubServer, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    want = wanted(url, BYTES)
    flushed, written = until_power_goes(hub, want, target, chance.randrange(200_000, 2_500_000))
    partial, notes = tmp_path / "model.partial", tmp_path / "model.journal"
    lose(partial, flushed, len(BYTES), chance)
    if seed % 2:  # The end of the journal has not come to the disk either, or not whole.
        data = notes.read_bytes()
        last = data.rfind(b'"durable"')
        keep = chance.randrange(data.find(b"\n", last) + 1 if last >= 0 else 0, len(data) + 1)
        notes.write_bytes(data[:keep] + bytes(chance.randrange(100)))
    hub.requests.clear()
    after = structs.replace(SMALL, boot="second")
    require_done(fetch(want, target, options=after), target, BYTES)
    assert hub.bytes_sent == len(BYTES) - flushed.total
    assert written >= flushed.total


def test_what_was_not_flushed_is_not_there_after_all(hub: HubServer, tmp_path: Path) -> None:
    """That the test above has something to find: without a new start of the machine all would be trusted."""
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    flushed, _ = until_power_goes(hub, wanted(url, BYTES), target, 700_000, durable=len(BYTES))
    assert flushed.total == 0
    lose(tmp_path / "model.partial", flushed, len(BYTES), random.Random(1))
    with pytest.raises(IntegrityError):
        fetch(wanted(url, BYTES), target, options=structs.replace(SMALL, boot="first"))


def test_a_partial_file_that_was_made_shorter(hub: HubServer, tmp_path: Path) -> None:
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    until_power_goes(hub, wanted(url, BYTES), target, 700_000)
    with (tmp_path / "model.partial").open("r+b") as file:
        file.truncate(300_001)
    hub.requests.clear()
    require_done(
        fetch(wanted(url, BYTES), target, options=structs.replace(SMALL, boot="first")), target, BYTES
    )
    assert len(BYTES) - 300_001 <= hub.bytes_sent < len(BYTES)


@pytest.mark.parametrize("seed", range(30))
def test_a_damaged_journal_means_less_trust_and_never_a_wrong_byte(
    hub: HubServer, tmp_path: Path, seed: int
) -> None:
    chance = random.Random(seed)
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    until_power_goes(hub, wanted(url, BYTES), target, 200_000)
    notes = tmp_path / "model.journal"
    data = bytearray(notes.read_bytes())
    for _ in range(chance.randint(1, 3)):
        place, kind = chance.randrange(len(data)), chance.randrange(4)
        if kind == 0:
            data[place] ^= 1 << chance.randrange(8)
        elif kind == 1:
            del data[place:]
        elif kind == 2:
            data[place:place] = chance.randbytes(chance.randrange(1, 50))
        else:
            del data[place : place + chance.randrange(1, 50)]
        data = data or bytearray(b"\n")
    notes.write_bytes(data)
    lines = set(notes.read_bytes().splitlines())
    known = journal.read(notes, "first")
    assert known.trusted.total <= len(BYTES)
    assert len(lines) >= 1
    require_done(
        fetch(wanted(url, BYTES), target, options=structs.replace(SMALL, boot="first")), target, BYTES
    )


@pytest.mark.parametrize("has_digest", [True, False])
def test_death_before_the_journal_is_replaced(hub: HubServer, tmp_path: Path, has_digest: bool) -> None:
    """The partial file is gone, its journal is not, and the process ends before it writes another."""
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    want = wanted(url, BYTES) if has_digest else wanted(url, BYTES, size=0, sha256="")
    until_power_goes(hub, want, target, 700_000)
    (tmp_path / "model.partial").unlink()
    obstacle = tmp_path / "model.journal.new"
    obstacle.mkdir()
    options = structs.replace(SMALL, boot="first")
    with pytest.raises(StoreError):
        fetch(want, target, options=options)
    obstacle.rmdir()
    assert not target.exists()
    require_done(fetch(want, target, options=options), target, BYTES)


# --------------------------------------------------------------------------------------------- two at once


def test_the_second_waits_shows_the_progress_of_the_first_and_fetches_nothing(
    hub: HubServer, tmp_path: Path
) -> None:
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    want = wanted(url, BYTES)
    hub.hold_after(1_000_000)
    first = start(want, target, SMALL)
    wait_until(lambda: watch(target)[0] > 100_000)
    seen: list[tuple[int, int]] = []

    def on_progress(done: int, total: int) -> None:
        seen.append((done, total))
        if len(seen) > 2:
            hub.hold_after(None)

    received = fetch(want, target, on_progress=on_progress)
    assert ended(first).startswith("done")
    require_done(received, target, BYTES)
    assert hub.bytes_sent == len(BYTES)
    assert 100_000 < seen[0][0] <= seen[1][0] < len(BYTES)
    assert seen[0][1] == len(BYTES)


def test_the_second_takes_over_when_the_first_dies(hub: HubServer, tmp_path: Path) -> None:
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    want = wanted(url, BYTES)
    hub.hold_after(1_000_000)
    first = start(want, target, SMALL)
    wait_until(lambda: watch(target)[0] > 900_000)
    seen: list[int] = []

    def on_progress(done: int, _: int) -> None:
        seen.append(done)
        if len(seen) == 2:
            first.kill()
            hub.hold_after(None)

    require_done(fetch(want, target, on_progress=on_progress), target, BYTES)
    assert ended(first) != "done"
    assert twice(hub) <= SMALL.range
    assert beside(target) == []


def test_whoever_waits_can_be_interrupted(hub: HubServer, tmp_path: Path) -> None:
    url, target = hub.add_file("model", BYTES), tmp_path / "model"
    want = wanted(url, BYTES)
    hub.hold_after(1_000_000)
    first = start(want, target, SMALL)
    wait_until(lambda: watch(target)[0] > 100_000)

    def on_progress(done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fetch(want, target, on_progress=on_progress)
    hub.hold_after(None)
    assert ended(first) == f"done {len(BYTES)} {want.sha256}"
    wait_until(lambda: beside(target) == [])  # The lock that was waited for goes a moment later.
    require_done(Received(len(BYTES), want.sha256), target, BYTES)
