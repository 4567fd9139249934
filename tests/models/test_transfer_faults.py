"""Fetching from servers that misbehave: each fault by itself."""

from __future__ import annotations

import email.utils
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from localai.errors import FetchError, IntegrityError, LocalAIError, NoSpace
from models import files
from models.fetch.retry import back_off, retry_after
from tests.hub_server import Fault, HubServer
from tests.models.transferring import (
    CONTENT,
    IMPATIENT,
    LABEL,
    SMALL,
    K,
    beside,
    fetch,
    isolate,
    require_done,
    twice,
    wanted,
)

BYTES, OTHER = CONTENT[:1_500_000], CONTENT[2_000_000:3_500_000]
REPOSITORY = "owner/name"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@pytest.fixture
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        hub.add_repository(REPOSITORY, {LABEL: BYTES})
        yield hub


@pytest.fixture
def url(hub: HubServer) -> str:
    """A plain file."""
    return hub.add_file("models/model.gguf", BYTES)


def resolve_url(hub: HubServer) -> str:
    return f"{hub.url}/{REPOSITORY}/resolve/main/{LABEL}"


def refused(error: type[LocalAIError], words: str, *given, **more) -> None:
    """The error of a transfer, on one line."""
    with pytest.raises(error, match=words) as caught:
        fetch(*given, **more)
    assert type(caught.value) is error
    assert "\n" not in str(caught.value)
    assert caught.value.hint


# ------------------------------------------------------------------------------------------- it tries again


@pytest.mark.parametrize(
    "faults",
    [
        [Fault(cut_after=50_000, times=4)],
        [Fault(cut_after=50_000, reset=True, times=4)],
        [Fault(cut_after=0, times=3)],
        [Fault(close=True, times=3)],
        [Fault(close=True, times=2, skip=5)],
        *(
            [Fault(status=status, times=2, skip=skip)]
            for status in (408, 429, 500, 502, 503, 504)
            for skip in (0, 3)
        ),
        [Fault(status=503, retry_after="0", times=3)],
        [Fault(stall_after=20_000, skip=2)],
        [Fault(drip_after=20_000, skip=2)],
        [Fault(length_off=7, skip=3)],
        [Fault(length_off=-7, skip=3)],
        [Fault(shift=1, times=2)],
        [Fault(shift=-1, skip=2)],
        [Fault(total_off=1, skip=2)],
        [Fault(encoding="gzip", times=2)],
        [Fault(chunked=True, times=99)],
        [Fault(chunked=True, cut_after=20_000, times=3)],
        [Fault(until_close=True, skip=1, times=3)],
        [Fault(status=416, skip=2)],
    ],
    ids=repr,
)
def test_what_another_try_mends(hub: HubServer, url: str, tmp_path: Path, faults: list[Fault]) -> None:
    hub.plan(*faults)
    target = tmp_path / "model"
    stops = any(fault.stall_after is not None or fault.drip_after is not None for fault in faults)
    require_done(fetch(wanted(url, BYTES), target, options=IMPATIENT if stops else SMALL), target, BYTES)
    assert any(request.fault for request in hub.requests)
    assert twice(hub) <= 2 * SMALL.range, "what came before a fault is kept"


def test_parts_that_are_not_sent_for_once(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(ignore_range=True, skip=4, times=2))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert [one.status for one in hub.data_requests].count(200) == 2


def test_what_came_before_a_cut_is_kept(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(cut_after=30_001, times=20))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert hub.bytes_sent == len(BYTES)


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        (Fault(status=500, times=99), r"it answered 500 \(4 times in a row\)\. Run it again"),
        (Fault(status=429, times=99), r"too much to do \(429\) \(6 times"),
        (Fault(close=True, times=99), r"the connection broke \(4 times"),
        (Fault(stall_after=0, times=99), "it does not answer"),
        (Fault(shift=1, times=99), "other bytes than those that were asked for"),
        (Fault(total_off=1, times=99), "has 1,500,001 bytes, and 1,500,000 were looked up"),
        (Fault(encoding="br", times=99), "an encoding that was not asked for"),
        (Fault(length_off=5, ignore_range=True, times=99), "has 1,500,005 bytes"),
    ],
    ids=repr,
)
def test_what_no_try_mends(hub: HubServer, url: str, tmp_path: Path, fault: Fault, words: str) -> None:
    hub.plan(fault)
    target = tmp_path / "model"
    # Who has little patience may find a busy machine silent, and then says that instead.
    options = IMPATIENT if fault.stall_after is not None else SMALL
    refused(FetchError, words, wanted(url, BYTES), target, options=options)
    hub.plan()
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        (401, "HF_TOKEN"),
        (403, "terms must be accepted"),
        (404, "removed or renamed"),
        (410, "410"),
        (400, "400"),
    ],
)
def test_what_is_final_is_asked_once(
    hub: HubServer, url: str, tmp_path: Path, status: int, words: str
) -> None:
    hub.plan(Fault(status=status, times=99))
    refused(FetchError, words, wanted(url, BYTES), tmp_path / "model")
    assert len(hub.requests) == 1
    assert list(tmp_path.iterdir()) == []


def test_what_is_final_half_way_keeps_what_came(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(status=401, skip=6, times=99))
    target = tmp_path / "model"
    refused(FetchError, "401", wanted(url, BYTES), target)
    assert beside(target) == ["journal", "partial"]
    hub.plan()
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert hub.bytes_sent < len(BYTES) + SMALL.range


# ---------------------------------------------------------------------------------------------- its waits


@pytest.mark.parametrize("is_date", [False, True])
def test_it_waits_as_long_as_it_is_told(hub: HubServer, url: str, tmp_path: Path, is_date: bool) -> None:
    told = email.utils.formatdate(time.time() + 2, usegmt=True) if is_date else "1"
    hub.plan(Fault(status=429, retry_after=told))
    started = time.monotonic()
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert 1.0 <= time.monotonic() - started < 4.0


def test_it_does_not_wait_for_hours(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(status=429, retry_after="7200", times=9))
    refused(FetchError, "wants to be left alone for 120 minutes", wanted(url, BYTES), tmp_path / "model")


def test_retry_after() -> None:
    assert retry_after({"Retry-After": " 12 "}) == 12
    assert retry_after({"Retry-After": "Wed, 21 Oct 2015 07:28:00 GMT"}) == 0
    assert retry_after({"Retry-After": email.utils.formatdate(time.time() + 60)}) == pytest.approx(60, abs=2)
    assert retry_after({"Retry-After": "Wed, 21 Oct 9999 07:28:00 GMT"}) == 999_999_999
    far = [f"Wed, 21 Oct 2015 07:28:00 +{zone}" for zone in ("9999", "99999999", "9" * 30)]
    for text in far:
        assert retry_after({"Retry-After": text}) in (None, 0)
    for text in ("", "soon", "-1", "1e9", "99999999999", "²"):
        assert retry_after({"Retry-After": text}) is None
    assert retry_after({}) is None


def test_waits_grow_and_differ() -> None:
    waits = [back_off(failures, 0.5, 60) for failures in range(1, 2000)]
    for failures, wait in enumerate(waits[:20], 1):
        assert min(60, 0.5 * 2 ** (failures - 1)) / 2 <= wait <= min(60, 0.5 * 2 ** (failures - 1))
    assert max(waits) <= 60
    assert len(set(waits[20:])) > 1000


def test_progress_gives_new_attempts(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(cut_after=20_000, times=60))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


def test_a_server_with_too_much_to_do_is_asked_by_fewer(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(status=503, skip=2, times=7))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


# ------------------------------------------------------------------------------------- slow connections


def test_a_connection_that_holds_up_all_others_is_given_up(hub: HubServer, url: str, tmp_path: Path) -> None:
    """It is just fast enough not to be given up, and all others wait for it."""
    large = CONTENT[:4_000_000]
    url = hub.add_file("large", large)
    options = structs.replace(SMALL, slow_rate=1.0, window=256 * K, header=16 * K)
    hub.plan(Fault(drip_after=1000, drip_pause=0.01, skip=20))
    target = tmp_path / "model"
    started = time.monotonic()
    require_done(fetch(wanted(url, large), target, options=options), target, large)
    alone = SMALL.range * 0.01
    assert time.monotonic() - started < 10 < alone


# -------------------------------------------------------------------------------------- whole files only


def test_a_server_without_ranges(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(ignore_range=True, times=99))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert len(hub.requests) == 1
    hub.plan(Fault(ignore_range=True, cut_after=1_000_000), Fault(ignore_range=True, times=99))
    target.unlink()
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


def test_a_server_without_ranges_for_a_while(hub: HubServer, url: str, tmp_path: Path) -> None:
    """What it sends again is passed over, and parts are asked for as soon as it knows them."""
    hub.plan(Fault(ignore_range=True, cut_after=500_000), Fault(ignore_range=True, cut_after=900_000))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    assert [one.status for one in hub.data_requests][:3] == [200, 200, 206]
    assert hub.bytes_sent == len(BYTES) + 500_000


@pytest.mark.parametrize("is_known", [True, False])
def test_a_size_that_nobody_tells(hub: HubServer, url: str, tmp_path: Path, is_known: bool) -> None:
    hub.plan(Fault(ignore_range=True, chunked=True, times=99))
    target = tmp_path / "model"
    want = wanted(url, BYTES, size=0, **({} if is_known else {"sha256": ""}))
    require_done(fetch(want, target), target, BYTES)
    target.unlink()
    cut = Fault(ignore_range=True, chunked=True, cut_after=1_000_000, times=2)
    hub.plan(cut, Fault(ignore_range=True, chunked=True, times=99))
    require_done(fetch(want, target), target, BYTES)


def test_an_end_that_nobody_tells(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(ignore_range=True, until_close=True, times=99))
    target = tmp_path / "model"
    refused(FetchError, "does not tell how long", wanted(url, BYTES, size=0, sha256=""), target)
    require_done(fetch(wanted(url, BYTES, size=0), target), target, BYTES)


# -------------------------------------------------------------------------------------------- other files


def test_wrong_bytes_are_thrown_away(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(flip=77, skip=3))
    target = tmp_path / "model"
    refused(IntegrityError, "thrown away", wanted(url, BYTES), target)
    assert list(tmp_path.iterdir()) == []
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


def test_a_file_that_changes_is_fetched_anew(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(change=OTHER, skip=5))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES, sha256=""), target), target, OTHER)
    with_condition = [one for one in hub.requests if "if-range" in one.headers]
    assert len(with_condition) > 3


def test_a_file_that_keeps_changing_is_refused(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(etag='"another"', ranged=True, times=99))
    refused(FetchError, "changes at .* nothing was kept", wanted(url, BYTES, sha256=""), tmp_path / "model")
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_changes_is_never_taken_for_one_with_a_digest(
    hub: HubServer, url: str, tmp_path: Path
) -> None:
    hub.plan(Fault(change=OTHER, skip=5))
    refused(IntegrityError, "thrown away", wanted(url, BYTES), tmp_path / "model")


def test_names_that_differ_for_the_same_file_are_borne(hub: HubServer, url: str, tmp_path: Path) -> None:
    """As with several machines behind one address; the digest tells that it is the same."""
    hub.plan(*(Fault(etag=f'"{number}"', skip=3 * number) for number in range(1, 5)))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)


def test_a_server_that_names_no_file(hub: HubServer, url: str, tmp_path: Path) -> None:
    """Parts of what may be different files are not put together, unless the digest is known."""
    hub.plan(Fault(etag="", times=99))
    target = tmp_path / "model"
    require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    target.unlink()
    hub.requests.clear()
    require_done(fetch(wanted(url, BYTES, sha256=""), target), target, BYTES)
    assert [one.status for one in hub.data_requests] == [206, 200]


def test_a_file_that_was_replaced_since_it_was_looked_up(hub: HubServer, url: str, tmp_path: Path) -> None:
    etag = hub.repositories[REPOSITORY].file(LABEL).etag
    address, target = resolve_url(hub), tmp_path / "model"
    for form in (etag, f"W/{etag}", etag.strip('"')):
        require_done(fetch(wanted(address, BYTES, etag=form), target), target, BYTES)
    target.unlink()
    hub.repositories[REPOSITORY].commit({LABEL: OTHER})
    refused(FetchError, "was replaced at", wanted(address, BYTES, etag=etag), target)
    hub.repositories[REPOSITORY].commit({LABEL: OTHER[:-1]})
    refused(FetchError, "was replaced at", wanted(address, BYTES), target)
    refused(FetchError, "was replaced at", wanted(url, BYTES, sha256="", etag='"other"'), target)
    assert beside(target) == []


# ---------------------------------------------------------------------------------------------- addresses


def test_an_address_that_expires_is_resolved_again(hub: HubServer, tmp_path: Path) -> None:
    target = tmp_path / "model"
    want = wanted(resolve_url(hub), BYTES)

    def expire(path: Path) -> None:
        hub.expire()
        hub.hold_after(None)

    # One after the other: else what is held back could be the header, behind bytes of the later ranges.
    alone = structs.replace(SMALL, connections=1)
    hub.hold_after(SMALL.header + 10 * SMALL.piece)
    require_done(fetch(want, target, on_header=expire, options=alone), target, BYTES)
    assert [one.status for one in hub.requests if one.role == "hub"].count(302) >= 2
    assert 403 in [one.status for one in hub.requests]
    assert twice(hub) == 0


def test_an_address_that_is_never_good(hub: HubServer, tmp_path: Path) -> None:
    hub.plan(Fault(role="cdn", status=403, times=99))
    refused(FetchError, r"\(403\)", wanted(resolve_url(hub), BYTES), tmp_path / "model")
    assert len(hub.requests) == 2


def test_the_name_of_the_file_at_one_server_is_not_told_to_another(hub: HubServer, tmp_path: Path) -> None:
    hub.plan(Fault(role="cdn", close=True, skip=3, times=2))
    target = tmp_path / "model"
    require_done(fetch(wanted(resolve_url(hub), BYTES), target), target, BYTES)
    assert [one.role for one in hub.requests].count("hub") >= 2
    assert not [one for one in hub.requests if one.role == "hub" and "if-range" in one.headers]


@pytest.mark.parametrize(
    ("location", "words"),
    [
        ("file:///etc/passwd", "no address of a file"),
        ("", "no address of a file"),
        ("http://[bad/", "no address of a file"),
        ("javascript:alert(1)", "no address of a file"),
        ("{url}", "redirected too often"),
    ],
)
def test_redirects_that_nobody_follows(
    hub: HubServer, url: str, tmp_path: Path, location: str, words: str
) -> None:
    hub.plan(Fault(redirect=location.format(url=url) or " ", times=99))
    refused(FetchError, words, wanted(url, BYTES), tmp_path / "model")
    assert len(hub.requests) <= 11


# --------------------------------------------------------------------------------------------------- disk

FULL = """
import resource, sys
from pathlib import Path
from localai.errors import NoSpace
from models.fetch.transfer import Wanted
from tests.models.transferring import fetch
limits = resource.getrlimit(resource.RLIMIT_FSIZE)
resource.setrlimit(resource.RLIMIT_FSIZE, (600_000, limits[1]))
try:
    fetch(Wanted(url=sys.argv[1], sha256=sys.argv[2]), Path(sys.argv[3]))
except NoSpace as error:
    print(error)
resource.setrlimit(resource.RLIMIT_FSIZE, limits)
print(fetch(Wanted(url=sys.argv[1], sha256=sys.argv[2]), Path(sys.argv[3])).sha256)
"""


@pytest.mark.skipif(sys.platform == "win32", reason="limits of POSIX")
def test_a_disk_that_becomes_full(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(ignore_range=True, chunked=True))
    want = wanted(url, BYTES)
    command = [sys.executable, "-W", "error", "-c", FULL, url, want.sha256, str(tmp_path / "model")]
    root = Path(__file__).parents[2]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=root)
    said = done.stdout.splitlines()
    assert "disk" in said[0]
    assert said[1] == want.sha256
    assert hub.data_requests[1].start >= 500_000, "what came before is kept"


@pytest.mark.parametrize("endless", ["continue", "head", "extension", "trailer"])
@pytest.mark.parametrize("known", [True, False])
def test_an_answer_that_never_comes_though_bytes_do(
    hub: HubServer, url: str, tmp_path: Path, endless: str, known: bool
) -> None:
    hub.plan(Fault(endless=endless, times=2))
    want = wanted(url, BYTES) if known else wanted(url, BYTES, size=0)
    target = tmp_path / "model"
    require_done(fetch(want, target, options=IMPATIENT), target, BYTES)


# ------------------------------------------------------------------------------------- the space on the disk


@pytest.mark.parametrize("is_told", [True, False])
def test_a_file_of_unknown_size_does_not_fill_the_disk(
    hub: HubServer, url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_told: bool
) -> None:
    target, want = tmp_path / "model", wanted(url, BYTES, size=0)
    hub.plan(*([] if is_told else [Fault(chunked=True, ignore_range=True, times=99)]))
    hub.hold_after(1_000_000)
    monkeypatch.setattr(files, "RESERVE", 2**60)
    refused(NoSpace, "Not enough space", want, target, options=structs.replace(SMALL, space=64 * K))
    assert not target.exists()
    monkeypatch.undo()
    isolate(monkeypatch)
    hub.plan()
    hub.hold_after(None)
    require_done(fetch(want, target), target, BYTES)


def test_a_file_that_does_not_end(hub: HubServer, url: str, tmp_path: Path) -> None:
    hub.plan(Fault(chunked=True, ignore_range=True, stall_after=1_000_000, times=99))
    options = structs.replace(SMALL, space=64 * K, unsized=500_000)
    refused(FetchError, "does not end", wanted(url, BYTES, size=0), tmp_path / "model", options=options)
    assert beside(tmp_path / "model") == []


def test_an_encoding_that_has_no_end_of_its_own(hub: HubServer, url: str, tmp_path: Path) -> None:
    """Only of chunks it is known which one is the last."""
    hub.plan(Fault(until_close=True, ignore_range=True, headers={"Transfer-Encoding": "identity"}, times=9))
    want = wanted(url, BYTES, size=0, sha256="")
    refused(FetchError, "does not tell how long", want, tmp_path / "model")
