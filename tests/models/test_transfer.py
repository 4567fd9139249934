"""Fetching one file: in parallel, going on, verified, from servers that behave."""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from msgspec import structs

from localai.errors import FetchError, IntegrityError, UnsupportedModel
from models.fetch.partial import Partial
from models.fetch.transfer import Received, Wanted, watch
from tests.hub_server import Fault, HubServer
from tests.models.transferring import (
    CONTENT,
    SMALL,
    K,
    beside,
    by_git,
    fetch,
    isolate,
    require_done,
    twice,
    wanted,
)

BYTES = CONTENT[:2_000_000]
REPOSITORY = "owner/name"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_repository(REPOSITORY, {"model.gguf": BYTES, "config.json": b'{"a": 1}'})
        yield hub


@pytest.fixture
def url(hub: HubServer) -> str:
    """A plain file."""
    return hub.add_file("models/model.gguf", BYTES)


def resolve_url(hub: HubServer, name: str = "model.gguf") -> str:
    return f"{hub.url}/{REPOSITORY}/resolve/main/{name}"


class Stop(Exception):
    """What a callback raises."""


def stop_after(count: int) -> Callable[[int, int], None]:
    """A callback that stops the transfer when so many bytes are there."""

    def on_progress(done: int, total: int) -> None:
        if done >= count:
            raise Stop

    return on_progress


def stopped(hub: HubServer, want: Wanted, target: Path, count: int = 700_000) -> None:
    """Fetch until about so many bytes are there."""
    hub.hold_after(count + 10 * SMALL.piece)
    with pytest.raises(Stop):
        fetch(want, target, on_progress=stop_after(count))
    hub.hold_after(None)
    assert beside(target) == ["journal", "partial"]
    assert not target.exists()


# ------------------------------------------------------------------------------------------------ in full


def test_parts_come_over_several_connections_and_nothing_comes_twice(
    hub: HubServer, url: str, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert hub.bytes_sent == len(BYTES)
    assert len(hub.data_requests) > 8
    assert all(request.status == 206 for request in hub.data_requests)
    lengths = [request.sent for request in hub.data_requests]
    assert max(lengths) <= SMALL.range
    assert lengths[-1] < max(lengths), "near the end they are smaller, for all to end at once"


def test_nothing_is_read_again_to_be_hashed(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(Partial, "read")
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


def test_what_the_hub_redirects_comes_from_its_cdn_without_the_token(hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "model"
    headers = {"Authorization": "Bearer hf_secret", "X-Own": "yes"}
    want = wanted(
        resolve_url(hub), BYTES, headers=headers, etag=hub.repositories[REPOSITORY].file("model.gguf").etag
    )
    require_done(fetch(want, target), target, BYTES)
    at_hub = [one for one in hub.requests if one.role == "hub"]
    at_cdn = [one for one in hub.requests if one.role == "cdn"]
    assert [one.token for one in at_hub] == ["Bearer hf_secret"], (
        "the address that it led to is used for the rest"
    )
    assert len(at_cdn) > 8
    assert not any(one.token or "x-own" in one.headers for one in at_cdn)


def test_the_token_comes_along_within_its_own_server(hub: HubServer, tmp_path: Path) -> None:
    hub.caches_small_files = True
    want = by_git(resolve_url(hub, "config.json"), b'{"a": 1}', headers={"Authorization": "Bearer hf_secret"})
    target = tmp_path / "config.json"
    require_done(fetch(want, target), target, b'{"a": 1}')
    assert [one.token for one in hub.requests] == ["Bearer hf_secret"] * 2


@pytest.mark.parametrize("known", [{}, {"size": 0}, {"sha256": ""}, {"size": 0, "sha256": ""}])
def test_what_is_not_known_is_learned(
    hub: HubServer, url: str, tmp_path: Path, known: dict[str, object]
) -> None:
    target = tmp_path / "model"
    seen: list[tuple[int, int]] = []
    received = fetch(wanted(url, BYTES, **known), target, on_progress=lambda *now: seen.append(now))
    require_done(received, target, BYTES)
    assert seen[-1] == (len(BYTES), len(BYTES))
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)


@pytest.mark.parametrize("size", [len(BYTES), 0])
def test_git_names(hub: HubServer, url: str, tmp_path: Path, size: int) -> None:
    target = tmp_path / "model"
    require_done(fetch(by_git(url, BYTES, size=size), target), target, BYTES)
    with pytest.raises(IntegrityError, match="git SHA-1"):
        fetch(wanted(url, BYTES, sha256="", git_sha1="0" * 40, size=size), target)
    assert target.read_bytes() == BYTES, "what was there before stays"


@pytest.mark.parametrize("content", [b"", b"x", CONTENT[:16384], CONTENT[: 32 * K + 1]])
@pytest.mark.parametrize("is_known", [True, False])
def test_small_files(hub: HubServer, tmp_path: Path, content: bytes, is_known: bool) -> None:
    url, target = hub.add_file("small", content), tmp_path / "small"
    headers: list[bytes] = []
    want = wanted(url, content) if is_known else Wanted(url=url)
    received = fetch(want, target, on_header=lambda path: headers.append(path.read_bytes()))
    require_done(received, target, content)
    assert headers == [content]


def test_a_file_that_is_there_is_not_fetched_again(hub: HubServer, url: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    target.write_bytes(BYTES)
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    require_done(fetch(by_git(url, BYTES), target), target, BYTES)
    assert hub.requests == []
    target.write_bytes(BYTES[:-1] + b"?")
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert hub.bytes_sent == len(BYTES)


@pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")
def test_memory_is_bounded(tmp_path: Path) -> None:
    """With the options that are in use, from a server that is faster than the hash."""
    size = 300_000_000
    served = tmp_path / "served"
    with served.open("wb") as file:
        file.truncate(size)
    server = Path(__file__).parents[2] / "benchmarks" / "pull_server.py"
    with subprocess.Popen(
        [sys.executable, str(server), str(served)], stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            assert process.stdout is not None
            url = f"http://127.0.0.1:{process.stdout.readline().strip()}/file"
            script = (
                "import sys; from pathlib import Path\n"
                "from models.fetch.transfer import Wanted, download\n"
                "print(download(Wanted(url=sys.argv[1], size=int(sys.argv[2])), Path(sys.argv[3])).sha256)\n"
                # Not ru_maxrss: that begins with what the parent had when it forked.
                "lines = Path('/proc/self/status').read_text().splitlines()\n"
                "print(next(line.split()[1] for line in lines if line.startswith('VmHWM')))"
            )
            command = [sys.executable, "-c", script, url, str(size), str(tmp_path / "model")]
            done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
        finally:
            process.terminate()
    sha256, kilobytes = done.stdout.split()
    digest = hashlib.sha256()
    for _ in range(300):
        digest.update(bytes(1_000_000))
    assert sha256 == digest.hexdigest()
    assert int(kilobytes) * 1024 < 200_000_000


# -------------------------------------------------------------------------------------------- interrupted


def test_it_goes_on_where_it_stopped(hub: HubServer, url: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    stopped(hub, wanted(url, BYTES), target)
    partial = tmp_path / "model.partial"
    assert partial.stat().st_size == len(BYTES), "it has its full size from the beginning"
    done, total = watch(target)
    assert 700_000 <= done < len(BYTES)
    assert total == len(BYTES)
    seen: list[int] = []
    require_done(
        fetch(wanted(url, BYTES), target, on_progress=lambda now, _: seen.append(now)), target, BYTES
    )
    assert seen[0] >= done
    assert twice(hub) <= SMALL.range


def test_it_goes_on_at_another_address(hub: HubServer, url: str, tmp_path: Path) -> None:
    """As after a change of the network: other hosts, other names for the same file."""
    target = tmp_path / "model"
    stopped(hub, wanted(url, BYTES), target)
    hub.requests.clear()
    require_done(fetch(wanted(resolve_url(hub), BYTES), target), target, BYTES)
    assert hub.bytes_sent < len(BYTES) - 600_000
    assert {one.role for one in hub.data_requests} == {"cdn"}


def test_nothing_is_taken_for_another_file(hub: HubServer, url: str, tmp_path: Path) -> None:
    target, other = tmp_path / "model", CONTENT[1_000_000:3_000_000]
    stopped(hub, wanted(url, BYTES), target)
    require_done(fetch(wanted(hub.add_file("other", other), other), target), target, other)


def test_without_a_digest_it_goes_on_only_with_the_same_file_of_the_same_server(
    hub: HubServer, url: str, tmp_path: Path
) -> None:
    target = tmp_path / "model"
    unknown = wanted(url, BYTES, sha256="")
    stopped(hub, unknown, target)
    require_done(fetch(unknown, target), target, BYTES)
    assert twice(hub) <= SMALL.range
    target.unlink()
    stopped(hub, unknown, target)
    other = CONTENT[3_000_000:5_000_000]
    hub.files["models/model.gguf"].set(other)
    require_done(fetch(unknown, target), target, other)
    target.unlink()
    stopped(hub, unknown, target)
    hub.requests.clear()
    elsewhere = wanted(hub.add_file("elsewhere", BYTES), BYTES, sha256="")
    require_done(fetch(elsewhere, target), target, BYTES)
    assert hub.bytes_sent >= len(BYTES), (
        "another file on that server has another ETag: nothing is known of it"
    )


def test_ctrl_c_keeps_what_came_also_when_nothing_comes(hub: HubServer, url: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    hub.plan(Fault(stall_after=100_000, times=99))

    def interrupt(done: int, _: int) -> None:
        if done >= 96 * K:
            raise KeyboardInterrupt

    patient = structs.replace(SMALL, read_timeout=60.0, slow_seconds=60.0)
    started = time.monotonic()
    with pytest.raises(KeyboardInterrupt):
        fetch(wanted(url, BYTES), target, on_progress=interrupt, options=patient)
    assert time.monotonic() - started < 10
    hub.plan()
    hub.requests.clear()
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert hub.bytes_sent <= len(BYTES) - 96 * K


def test_a_header_that_is_refused_stops_it_early(hub: HubServer, url: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    seen: list[bytes] = []

    def refuse(path: Path) -> None:
        seen.append(path.read_bytes()[: SMALL.header])
        raise UnsupportedModel("no", "never")

    # One range after the other: the server's system holds no more than one that the client has not read.
    hub.hold_after(SMALL.header + SMALL.range)
    with pytest.raises(UnsupportedModel):
        fetch(wanted(url, BYTES), target, on_header=refuse, options=structs.replace(SMALL, connections=1))
    hub.hold_after(None)
    assert seen == [BYTES[: SMALL.header]]
    assert hub.bytes_sent < len(BYTES)
    paths: list[Path] = []
    require_done(fetch(wanted(url, BYTES), target, on_header=paths.append), target, BYTES)
    assert paths == [tmp_path / "model.partial"], "asked once, and again in the next run"
    assert twice(hub) <= SMALL.range


def test_what_was_damaged_on_the_disk_is_noticed(hub: HubServer, url: str, tmp_path: Path) -> None:
    target = tmp_path / "model"
    stopped(hub, wanted(url, BYTES), target)
    with (tmp_path / "model.partial").open("r+b") as file:
        file.write(bytes([BYTES[0] ^ 1]))
    with pytest.raises(IntegrityError, match="thrown away"):
        fetch(wanted(url, BYTES), target)
    assert beside(target) == []
    assert not target.exists()
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


@pytest.mark.parametrize("name", ["model.partial", "model.journal", "model.lock", "model"])
@pytest.mark.skipif(os.name != "posix", reason="making links takes rights")
def test_links_are_not_followed(hub: HubServer, url: str, tmp_path: Path, name: str) -> None:
    outside = tmp_path / "outside"
    outside.write_bytes(b"precious")
    folder = tmp_path / "incoming"
    folder.mkdir()
    stopped(hub, wanted(url, BYTES), folder / "model")
    (folder / name).unlink(missing_ok=True)
    (folder / name).symlink_to(outside)
    require_done(fetch(wanted(url, BYTES), folder / "model"), folder / "model", BYTES)
    assert outside.read_bytes() == b"precious"
    assert not (folder / "model").is_symlink()


def test_nothing_is_left_of_what_never_began(tmp_path: Path) -> None:
    with pytest.raises(
        FetchError, match=r"from 127\.0\.0\.1: it cannot be reached \(4 times in a row\)\. Run it again"
    ):
        fetch(Wanted(url="http://127.0.0.1:9/x"), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "url", ["", "x", "ftp://a/b", "http://", "http://[bad/x", "https://h:99999/x", "file:///x"]
)
def test_what_is_no_address(tmp_path: Path, url: str) -> None:
    with pytest.raises(FetchError, match="no address"):
        fetch(Wanted(url=url), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_errors_show_no_secrets(hub: HubServer, tmp_path: Path) -> None:
    hub.plan(Fault(status=404))
    with pytest.raises(FetchError) as caught:
        fetch(Wanted(url=f"{hub.url}/files/x?Signature=secret"), tmp_path / "model")
    assert (
        str(caught.value)
        == f"x is not at {hub.url}/files/x (404). It was removed or renamed: check the name."
    )


def test_received_is_what_is_wanted(hub: HubServer, url: str, tmp_path: Path) -> None:
    with pytest.raises(
        IntegrityError, match=f"has the sha256 {hashlib.sha256(BYTES).hexdigest()}, not {'0' * 64}"
    ):
        fetch(wanted(url, BYTES, sha256="0" * 64), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []
    assert fetch(Wanted(url=url), tmp_path / "model") == Received(
        len(BYTES), hashlib.sha256(BYTES).hexdigest()
    )
