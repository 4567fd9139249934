"""Figures of files: kept, merged, found again, and left out where somebody has damaged them."""

from __future__ import annotations

import json
import math
import os
import stat
from multiprocessing import get_context
from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai import paths
from models import figures, measured
from models.figures import Answers, Figures, Rate
from models.machine import machine_id
from tests.known_figures import known, loss, speed

ONE, OTHER = "1" * 64, "2" * 64


def kept(sha256: str = ONE) -> Figures:
    """What is known of it; there must be something."""
    found = measured.read(sha256)
    assert found is not None
    return found


def kept_kl(sha256: str = ONE) -> float:
    """Its divergence; there must be one."""
    found = kept(sha256).loss
    assert found is not None
    return found.kl


def file(sha256: str = ONE, root: Path | None = None) -> Path:
    return (root or paths.models_dir()) / "figures" / f"{sha256}.json"


def test_what_is_kept_is_read_and_part_comes_to_part():
    assert measured.read(ONE) is None
    assert measured.keep(known(loss=loss()))
    assert measured.keep(known(speed=speed(40), answers=Answers(set="sums", right=9, asked=10)))
    found = kept()
    assert (found.loss, found.speed) == (loss(), speed(40))
    assert found.answers == Answers(set="sums", right=9, asked=10)
    assert found.measured.startswith("20")
    assert measured.read(OTHER) is None


def test_that_it_was_made_with_a_matrix_is_not_forgotten():
    measured.keep(known(loss=loss(), imatrix=True))
    measured.keep(known(speed=speed(40)))
    assert kept().imatrix


def test_a_loss_of_more_tokens_stays():
    measured.keep(known(loss=loss(0.07, tokens=10_000)))
    measured.keep(known(loss=loss(0.09, tokens=2_000)))
    assert kept_kl() == 0.07
    measured.keep(known(loss=loss(0.08, tokens=2_000, reference="BF16")))  # not to be compared: the newer one
    assert kept_kl() == 0.08


def test_fewer_answers_to_the_same_questions_do_not_take_the_place_of_more():
    for asked in (100, 20):
        measured.keep(known(answers=Answers(set="sums", right=asked - 1, asked=asked)))
    assert kept().answers == Answers(set="sums", right=99, asked=100)


def test_a_speed_counts_on_its_machine_only(monkeypatch: pytest.MonkeyPatch):
    measured.keep(known(speed=speed(40)))
    measured.keep(known(speed=speed(400, machine="Another, 64 cores")))
    assert kept().speed == speed(40)
    monkeypatch.setattr(measured, "machine_id", lambda: "Another, 64 cores")
    assert kept().speed == speed(400, machine="Another, 64 cores")
    monkeypatch.setattr(measured, "machine_id", lambda: "A third, 1 cores")
    assert kept().speed is None


def test_only_the_latest_machines_are_kept():
    for number in range(20):
        measured.keep(known(speed=speed(number + 1, machine=f"Machine {number}")))
    stored = json.loads(file().read_bytes())
    assert [one["machine"] for one in stored["speeds"]] == [f"Machine {n}" for n in range(19, 3, -1)]


@pytest.mark.skipif(os.name == "nt", reason="Windows has no such rights")
def test_it_is_private_also_where_others_have_been_before():
    old = os.umask(0)
    try:
        measured.keep(known(loss=loss()))
    finally:
        os.umask(old)
    assert stat.S_IMODE(file().stat().st_mode) == 0o600
    assert stat.S_IMODE(file().parent.stat().st_mode) == 0o700
    assert [path.name for path in file().parent.iterdir()] == [file().name]


def test_shared_stores_are_read_behind_ones_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    team = tmp_path / "team"
    measured.keep(known(loss=loss(0.5), answers=Answers(set="sums", right=1, asked=10)), team)
    measured.keep(known(OTHER, loss=loss(0.6)), team)
    measured.keep(known(loss=loss(0.07)))
    monkeypatch.setenv("LOCALAI_SHARED_MODELS", str(team))
    assert (kept_kl(ONE), kept_kl(OTHER)) == (0.07, 0.6)
    assert kept().answers == Answers(set="sums", right=1, asked=10)
    assert sorted(measured.all_of().figures) == [ONE, OTHER]
    measured.keep(known(OTHER, loss=loss(0.1)))
    assert json.loads(file(OTHER, team).read_bytes())["loss"]["kl"] == 0.6


DAMAGED = {
    "half": lambda text: text[: len(text) // 2],
    "empty": lambda text: "",
    "another's": lambda text: text.replace(ONE, OTHER, 1),
    "later": lambda text: text.replace('"version": 1', '"version": 2'),
    "no number": lambda text: text.replace("0.07", '"0.07"'),
    "impossible": lambda text: text.replace("0.842", "1.842"),
    "endless": lambda text: text.replace("0.07", "1e999"),
    "deep": lambda text: "[" * 30_000,
    "large": lambda text: text + " " * 70_000,
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED)
def test_what_is_damaged_is_left_out_and_told(damage):
    measured.keep(known(loss=loss()))
    measured.keep(known(OTHER, loss=loss()))
    before = file().read_text("utf-8")
    file().write_text(damage(before), "utf-8")
    assert file().read_text("utf-8") != before
    found = measured.all_of([ONE, OTHER])
    assert list(found.figures) == [OTHER]
    assert found.damaged == (file(),)
    assert measured.keep(known(speed=speed(40)))  # and it is whole again
    again = measured.all_of([ONE])
    assert (again.figures[ONE].speed, again.damaged) == (speed(40), ())


@given(st.binary(max_size=300))
def test_any_bytes_are_figures_or_damage(data: bytes):
    file().parent.mkdir(parents=True, exist_ok=True)
    file().write_bytes(data)
    found = measured.all_of([ONE])
    assert bool(found.figures) != bool(found.damaged)


@pytest.mark.skipif(os.name == "nt", reason="links need rights there")
def test_a_link_is_not_followed(tmp_path: Path):
    measured.keep(known(loss=loss()), tmp_path)
    file().parent.mkdir(parents=True)
    file().symlink_to(file(root=tmp_path))
    assert measured.all_of([ONE]).damaged == (file(),)


def test_fields_of_a_later_version_are_passed_over():
    measured.keep(known(loss=loss()))
    file().write_text(file().read_text("utf-8").replace('"version"', '"colour": "red", "version"'), "utf-8")
    assert measured.read(ONE) is not None


@pytest.mark.parametrize("number", [math.nan, math.inf, -1.0])
def test_numbers_that_cannot_be_are_not_written(number: float):
    measured.keep(known(loss=loss(0.07)))
    assert not measured.keep(known(loss=loss(number)))
    assert kept_kl() == 0.07


@pytest.mark.parametrize("sha256", ["", "x", "../../etc/passwd", "1" * 63, "A" * 64])
def test_what_is_no_digest_has_no_figures(sha256: str):
    assert not measured.keep(known(sha256, loss=loss()))
    assert measured.read(sha256) is None
    assert not paths.models_dir().exists()


def test_where_nothing_can_be_written_nothing_fails():
    paths.models_dir().mkdir(parents=True)
    (paths.models_dir() / "figures").write_text("a file", "utf-8")
    assert not measured.keep(known(loss=loss()))
    assert measured.read(ONE) is None
    assert measured.all_of().figures == {}


def _keep_some(home: str, number: int) -> None:
    os.environ["LOCALAI_HOME"] = home
    for _ in range(10):
        assert measured.keep(known(speed=speed(number + 1, machine=f"Machine {number}")))


def test_several_processes_lose_nothing_of_each_other(home: Path):
    context = get_context("spawn")
    writers = [context.Process(target=_keep_some, args=(str(home), number)) for number in range(3)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0, 0, 0]
    stored = json.loads(file().read_bytes())
    assert {one["machine"] for one in stored["speeds"]} == {f"Machine {number}" for number in range(3)}


def test_the_machine_is_told_without_anything_that_tells_it_from_its_like():
    assert machine_id() == machine_id()
    assert machine_id().endswith(" cores")


# -------------------------------------------------------------------------------------- judging figures


def test_a_rate_is_a_median_with_its_error():
    assert figures.rate([]) == Rate(median=0.0, stderr=0.0)
    assert figures.rate([40.0]) == Rate(median=40.0, stderr=0.0)
    found = figures.rate([39.0, 41.0, 40.0, 90.0])
    assert found.median == 40.5
    assert found.stderr == pytest.approx(1.2533 * 25.013 / 2, rel=1e-3)


def better() -> Figures:
    """A file, and below what else may be said of another one of 1,000 bytes."""
    return known(size=860, loss=loss(0.075), speed=speed(51))


def test_what_is_smaller_and_faster_and_loses_no_more_within_the_errors_dominates():
    other = known(loss=loss(0.07), speed=speed(40))
    assert figures.dominates(better(), other)
    assert not figures.dominates(other, better())


@pytest.mark.parametrize(
    "change",
    [
        {"size": 1001},
        {"loss": loss(0.09)},
        {"loss": loss(0.07, reference="BF16")},
        {"speed": speed(37)},
        {"speed": speed(51, machine="Another")},
        {"speed": None},
        {"loss": None},
        {"size": 995, "speed": speed(41)},
    ],
    ids=["larger", "lossier", "another reference", "slower", "elsewhere", "no speed", "no loss", "the same"],
)
def test_nothing_dominates_otherwise(change: dict[str, object]):
    other = known(loss=loss(0.07), speed=speed(40))
    assert not figures.dominates(msgspec.structs.replace(better(), **change), other)
