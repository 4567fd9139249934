"""200 random plans of faults: each ends with the right file, or a clear error and all for the next run.

A plan is its seed: it stays the same for everybody and at all times.
"""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec import structs

from localai.errors import FetchError, IntegrityError, LocalAIError
from models.fetch.transfer import Received, Wanted
from tests.hub_server import Fault, HubServer, Repository
from tests.models.transferring import (
    CONTENT,
    LABEL,
    SMALL,
    K,
    beside,
    by_git,
    fetch,
    isolate,
    require_done,
    wanted,
)

PLANS = 200
REPOSITORY = "owner/name"
KINDS = (
    "cut",
    "reset",
    "close",
    "busy",
    "error",
    "final",
    "flip",
    "length",
    "change",
    "etag",
    "drip",
    "stall",
    "elsewhere",
    "no ranges",
    "shift",
    "total",
    "chunked",
    "encoding",
    "expire",
)
UNNOTICED = ("flip", "etag")
"""What nobody can notice without a digest: wrong bytes, and one name for two files."""


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@pytest.fixture(scope="module")
def hub() -> Iterator[HubServer]:
    with HubServer() as hub:
        yield hub


class Plan:
    """A file, how it is known and where it lies, and what goes wrong."""

    def __init__(self, seed: int, hub: HubServer) -> None:
        self.random, self.hub = random.Random(seed), hub
        size = self.random.choice([1, 100, 64 * K, 1_000_000, 1_234_567, 2_000_000, 3_000_000, 5_000_000])
        start = self.random.randrange(len(CONTENT) - size + 1)
        self.content = CONTENT[start : start + size]
        self.other = self.content[:-1] + bytes([self.content[-1] ^ 0x55])
        self.in_repository = self.random.random() < 0.5
        self.want = self._wanted()
        self.options = structs.replace(
            SMALL,
            connections=self.random.randint(1, 5),
            range=self.random.choice([64 * K, 256 * K, 1024 * K]),
            window=self.random.choice([256 * K, 1024 * K]),
            read_timeout=0.25,
            slow_seconds=0.2,
        )
        self.faults = [self._fault() for _ in range(self.random.randint(1, 6))]

    def _wanted(self) -> Wanted:
        """The file, at an address or in a repository, with all or little known about it."""
        if self.in_repository:
            repository: Repository = self.hub.add_repository(REPOSITORY, {LABEL: self.content})
            url = f"{self.hub.url}/{REPOSITORY}/resolve/{repository.head}/{LABEL}"
        else:
            url = self.hub.add_file(LABEL, self.content)
        kind = self.random.choice(["all", "all", "digest", "git", "size", "nothing"])
        return {
            "all": wanted(url, self.content),
            "digest": wanted(url, self.content, size=0),
            "git": by_git(url, self.content),
            "size": wanted(url, self.content, sha256=""),
            "nothing": Wanted(url=url, label=LABEL),
        }[kind]

    def restore(self) -> None:
        """Nothing goes wrong any more, and a file that is known by its digest is there again."""
        self.hub.plan()
        if self.want.has_digest:
            (
                self.hub.repositories[REPOSITORY].file(LABEL) if self.in_repository else self.hub.files[LABEL]
            ).set(self.content)

    @property
    def right(self) -> tuple[bytes, ...]:
        """What may come: without a digest nobody can tell which of the two was meant, but no mixture."""
        return (self.content,) if self.want.has_digest else (self.content, self.other)

    def _fault(self) -> Fault:
        kinds = KINDS if self.want.has_digest else tuple(kind for kind in KINDS if kind not in UNNOTICED)
        chosen, place = self.random.choice(kinds), self.random.randrange(len(self.content) + 1)
        often, skip = self.random.choice([1, 1, 2, 5, 99]), self.random.choice([0, 0, 1, 3, 10])
        after = {"times": often, "skip": skip}
        sign = self.random.choice([-3, -1, 1, 3])
        faults = {
            "cut": Fault(cut_after=place, **after),
            "reset": Fault(cut_after=place, reset=True, **after),
            "close": Fault(close=True, **after),
            "busy": Fault(
                status=self.random.choice([429, 503]), retry_after=self.random.choice(["", "0"]), **after
            ),
            "error": Fault(status=self.random.choice([408, 500, 502, 504]), **after),
            "final": Fault(status=self.random.choice([400, 401, 403, 404, 410, 416]), **after),
            "flip": Fault(flip=place, skip=skip),
            "length": Fault(length_off=sign, **after),
            "change": Fault(change=self.other, skip=skip),
            "etag": Fault(etag=self.random.choice(["", '"x"', 'W/"x"']), **after),
            "drip": Fault(drip_after=place, drip_pause=0.03, skip=skip),
            "stall": Fault(stall_after=place, skip=skip),
            "elsewhere": Fault(redirect=self._elsewhere(chosen), role="hub", **after),
            "no ranges": Fault(ignore_range=True, **after),
            "shift": Fault(shift=sign, **after),
            "total": Fault(total_off=sign, **after),
            "chunked": Fault(chunked=True, cut_after=self.random.choice([None, place]), **after),
            "encoding": Fault(encoding="gzip", **after),
            "expire": Fault(role="cdn", status=403, **after),
        }
        return faults[chosen]

    def _elsewhere(self, chosen: str) -> str:
        """The same file in another place: on the CDN, as after a redirect to another host."""
        if chosen != "elsewhere":
            return ""
        repository = self.hub.repositories.get("other/place")
        if repository is None or repository.file("f").content != self.content:
            repository = self.hub.add_repository("other/place", {"f": self.content})
            repository.file("f").lfs = True
        return self.hub.sign(f"/lfs/other/place/{repository.head}/f")


def require_right(received: Received, target: Path, plan: Plan) -> None:
    content = target.read_bytes()
    assert content in plan.right
    require_done(received, target, content)


@pytest.mark.parametrize("seed", range(PLANS))
def test_plan(hub: HubServer, tmp_path: Path, seed: int) -> None:
    hub.requests.clear()
    plan, target = Plan(seed, hub), tmp_path / "model"
    hub.plan(*plan.faults)
    try:
        require_right(fetch(plan.want, target, options=plan.options), target, plan)
        return
    except (FetchError, IntegrityError) as error:
        require_clear(error)
        assert not target.exists()
        assert set(beside(target)) <= {"journal", "partial"}
    before = (tmp_path / "model.journal").exists()
    plan.restore()
    hub.requests.clear()
    patient = structs.replace(plan.options, read_timeout=10.0, slow_seconds=10.0)
    try:
        require_right(fetch(plan.want, target, options=patient), target, plan)
    except IntegrityError:
        # Wrong bytes that came before the first error are found out at the end, and thrown away: no loop.
        assert before
        assert any(fault.flip is not None or fault.change is not None for fault in plan.faults)
        require_right(fetch(plan.want, target, options=patient), target, plan)


def require_clear(error: LocalAIError) -> None:
    """One line that says what happened to which file, and what to do."""
    assert "\n" not in str(error)
    assert LABEL in error.message or "127.0.0.1" in error.message
    assert error.hint


def test_the_plans_try_everything(hub: HubServer) -> None:
    plans = [Plan(seed, hub) for seed in range(PLANS)]
    faults = [fault for plan in plans for fault in plan.faults]
    assert all(
        any(getattr(fault, name) not in (None, 0, "", False) for fault in faults)
        for name in ("cut_after", "reset", "close", "status", "flip", "length_off", "change", "drip_after")
    )
    assert any(fault.redirect for fault in faults)
    assert any(plan.want.headers == {} and plan.in_repository for plan in plans)
