"""The parts of a transfer: sets of places, the journal, and who fetches what."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec import structs

from models.fetch import journal
from models.fetch.intervals import Intervals
from models.fetch.journal import Identity, Journal, Known
from models.fetch.ledger import Claim, Ledger, Stopped
from models.fetch.partial import Partial
from tests.models.transferring import SMALL, K

PIECES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 60)), max_size=20)
IDENTITY = Identity(size=1000, sha256="a" * 64)


# ------------------------------------------------------------------------------------------------ places


@given(PIECES, st.integers(0, 70))
def test_intervals_are_sets_of_places(pieces: list[tuple[int, int]], place: int) -> None:
    found, right = Intervals(pieces), {one for start, end in pieces for one in range(start, end)}
    assert {one for start, end in found for one in range(start, end)} == right
    assert found.total == len(right)
    assert bool(found) == bool(right)
    ends = [end for _, end in found]
    assert all(end < start for end, (start, _) in zip(ends, list(found)[1:], strict=False)), (
        "they do not touch"
    )
    assert found.reach(place) == next(one for one in range(place, 200) if one not in right)
    after = [start for start, _ in found if start > place]
    assert found.next_start(place) == (min(after) if after else None)
    assert set(found.within(place)) == set(Intervals((start, min(end, place)) for start, end in pieces))


# ----------------------------------------------------------------------------------------------- journal


def written(path: Path, **changes: object) -> Journal:
    return Journal(path, structs.replace(IDENTITY, **changes), Known(size=1000), "boot")


def test_a_journal_remembers(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    one = written(path, size=0)
    one.size(1000)
    one.name("https://h:443", '"x"')
    one.written(0, 100)
    one.written(500, 600)
    one.durable(Intervals([(0, 100)]))
    one.written(100, 200)
    one.close()
    one.written(900, 1000)
    known = journal.read(path, "boot")
    assert known.identity == Identity(sha256="a" * 64)
    assert (known.size, known.names) == (1000, {"https://h:443": '"x"'})
    assert list(known.trusted) == [(0, 200), (500, 600)]
    assert list(known.durable) == [(0, 100)]
    assert list(journal.read(path, "another boot").trusted) == [(0, 100)]
    Journal(path, IDENTITY, known, "boot").close()
    assert path.stat().st_mode & 0o777 == 0o600 or os.name != "posix"
    again = journal.read(path, "boot")
    assert (again.size, again.names) == (known.size, known.names)
    assert (list(again.trusted), list(again.durable)) == (list(known.trusted), list(known.durable))
    assert sorted(path.parent.iterdir()) == [path]


def test_of_a_torn_journal_what_is_whole_counts(tmp_path: Path) -> None:
    path = tmp_path / "journal"
    one = written(path)
    sizes = []
    for place in range(0, 1000, 10):
        one.written(place, place + 10)
        sizes.append(path.stat().st_size)
    one.close()
    data = path.read_bytes()
    for cut in range(0, len(data), 7):
        path.write_bytes(data[:cut])
        assert journal.read(path, "boot").trusted.total == 10 * sum(size <= cut for size in sizes)


@given(st.integers(0, 10_000), st.integers(1, 255))
def test_a_changed_byte_is_noticed(place: int, change: int) -> None:
    from tempfile import TemporaryDirectory

    with TemporaryDirectory() as folder:
        path = Path(folder) / "journal"
        one = written(path)
        one.written(0, 100)
        one.written(200, 300)
        one.close()
        data = bytearray(path.read_bytes())
        data[place % len(data)] ^= change
        path.write_bytes(data)
        known = journal.read(path, "boot")
        assert list(known.trusted) in ([], [(0, 100)])


@pytest.mark.parametrize(
    "content", [b"", b"\n", b"\0" * 1000, b"00000000 {}\n", b'3d7bce3d {"is":"file"}\n', b"x" * 3_000_000]
)
def test_what_is_no_journal(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "journal"
    assert journal.read(path, "boot").identity is None
    path.write_bytes(content)
    assert not journal.read(path, "boot").trusted


def test_which_file_it_is() -> None:
    assert IDENTITY.fits(IDENTITY)
    assert structs.replace(IDENTITY, size=0).fits(IDENTITY)
    assert structs.replace(IDENTITY, etag="x").fits(IDENTITY), "the digest says more than any name"
    for changes in (
        {"size": 999},
        {"sha256": "b" * 64},
        {"sha256": ""},
        {"git_sha1": "c" * 40},
        {"version": 2},
    ):
        assert not structs.replace(IDENTITY, **changes).fits(IDENTITY), changes
        assert not IDENTITY.fits(structs.replace(IDENTITY, **changes)), changes
    assert Identity(etag="x").fits(Identity(etag="x"))
    assert not Identity(etag="x").fits(Identity(etag="y"))


def test_this_start_of_the_machine_has_a_name() -> None:
    assert journal.boot_id() == journal.boot_id() != ""


# ------------------------------------------------------------------------------------------ partial files


@pytest.mark.parametrize("is_poor", [False, True])
def test_a_partial_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_poor: bool) -> None:
    """Also on systems that cannot read and write at a place in one step."""
    if is_poor:
        monkeypatch.delattr(os, "pread")
        monkeypatch.delattr(os, "pwrite")
    one = Partial(tmp_path / "partial")
    one.resize(1000)
    one.write([b"abc", b"", b"def"], 10)
    one.write([b"xyz"], 998)
    one.flush()
    assert one.read(8, 9) == b"\0abcdef\0"
    assert one.size == 1001
    one.close()
    one.close()


# ------------------------------------------------------------------------------------------- who does what


def ledger(size: int | None = 10_000 * K, done: Intervals | None = None, **changes: object) -> Ledger:
    options = structs.replace(SMALL, header=16 * K, **changes)
    return Ledger(size, done or Intervals(), options)


def nothing(start: int, end: int) -> None:
    """For `put`, in place of writing."""


def taken(one: Ledger) -> tuple[int, int | None]:
    claim = one.claim()
    assert claim is not None
    return claim.place, claim.end


def test_parts_are_given_out_in_order_within_the_window() -> None:
    one = ledger()
    one.learn(ranges=True)
    parts = [taken(one) for _ in range(5)]
    assert parts[0] == (0, 32 * K), "the header comes in small parts"
    assert [start for start, _ in parts[1:]] == [end for _, end in parts[:-1]]
    assert parts[-1][0] < SMALL.window <= (parts[-1][1] or 0)
    waiting: list[Claim | None] = []
    thread = threading.Thread(target=lambda: waiting.append(one.claim()))
    thread.start()
    one.stop()
    thread.join(10)
    assert waiting == [None], "the window is full: nothing more until the hash goes on"


def test_what_is_there_is_not_given_out() -> None:
    one = ledger(100 * K, Intervals([(0, 50 * K), (60 * K, 70 * K)]))
    one.learn(ranges=True)
    assert [taken(one), taken(one)] == [(50 * K, 60 * K), (70 * K, 100 * K)]


def test_what_was_not_fetched_is_given_out_again() -> None:
    one = ledger()
    one.learn(ranges=True)
    first, second = one.claim(), one.claim()
    assert first is not None
    assert second is not None
    one.put(first, [b"x" * K], nothing)
    one.release(first)
    assert taken(one) == (K, 32 * K)


def test_bytes_are_hashed_in_order_from_memory_or_from_the_disk() -> None:
    one = ledger(40 * K, Intervals([(20 * K, 40 * K)]))
    one.learn(ranges=True)
    claim = one.claim()
    assert claim is not None
    one.put(claim, [b"a" * K, b"b" * K], nothing)
    assert one.next_to_hash() == ([b"a" * K, b"b" * K], 0)
    one.have_hashed(2 * K)
    one.put(claim, [b"c" * 18 * K], nothing)
    assert one.next_to_hash() == ([b"c" * 18 * K], 0)
    one.have_hashed(18 * K)
    assert one.next_to_hash() == ([], 16 * K)
    one.have_hashed(16 * K)
    assert one.next_to_hash() == ([], 4 * K)
    assert not one.verified
    one.have_hashed(4 * K)
    assert one.next_to_hash() is None
    assert one.verified


def test_a_failure_ends_it_for_all() -> None:
    one = ledger()
    claim = one.claim()
    assert claim is not None
    one.fail(ValueError("first"))
    one.fail(ValueError("second"))
    assert str(one.error) == "first"
    assert one.claim() is None
    for wait in (lambda: one.put(claim, [b"x"], nothing), one.next_to_hash, lambda: one.wait(60)):
        with pytest.raises(Stopped):
            wait()


def test_a_write_that_fails_is_not_taken_for_written() -> None:
    one = ledger()
    claim = one.claim()
    assert claim is not None

    def fail(start: int, end: int) -> None:
        raise OSError("full")

    with pytest.raises(OSError, match="full"):
        one.put(claim, [b"x" * K], fail)
    assert (one.written.total, claim.place, one.received) == (0, 0, 0)
    one.stop()


def test_a_file_sent_in_one_belongs_to_one_connection() -> None:
    one = ledger(None)
    first = one.claim()
    assert first is not None
    assert one.whole(first, None)
    assert (first.place, first.end) == (0, None)
    assert one.room(first) == SMALL.piece
    parts = ledger()
    parts.learn(ranges=True)
    claim = parts.claim()
    assert claim is not None
    assert not parts.whole(claim, 10_000 * K), "it has sent parts before: this is a mistake"


def test_one_connection_always_remains() -> None:
    one = ledger()
    one.workers = 3
    assert [one.retire() for _ in range(4)] == [True, True, False, False]
