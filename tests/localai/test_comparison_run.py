"""A comparison of types of the real tiny model: what is measured, in one group or more, and what is kept."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path

import msgspec
import pytest

from localai import bench
from localai.comparison import files, run, selection
from localai.comparison.files import File
from localai.comparison.found import Asked
from localai.comparison.losses import Reading
from localai.comparison.run import Run, Watching
from localai.errors import EngineError, NoSpace, SandboxError
from localai.evaluation import run as evaluation
from localai.evaluation.texts import EVALUATION, Text, built_in
from models import measured
from models.catalog import builtin_checkpoint
from quantize import client
from quantize.client import Wanted
from quantize.protocol import Job
from tests.quantize.making import names_in

TYPES = ("Q8_0", "Q4_K_M")
GB = 10**9


@pytest.fixture(scope="module")
def job() -> Job:
    return Job(source=str(builtin_checkpoint("r1-nano")))


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    """Speeds are measured with a few tokens."""
    monkeypatch.setattr("localai.comparison.speeds.LENGTHS", (run.Lengths(32, 8),))


@pytest.fixture
def readings(monkeypatch: pytest.MonkeyPatch) -> list[list[str]]:
    """The types of each reading."""
    made: list[list[str]] = []
    fill = client.fill

    def counted(job: Job, types, partials, on_event=lambda event: None, *, plain: int = 0):
        made.append([*types])
        return fill(job, types, partials, on_event, plain=plain)

    monkeypatch.setattr(client, "fill", counted)
    return made


class Watched:
    """What was told."""

    def __init__(self) -> None:
        self.steps: list[tuple[str, int, int, str, str]] = []
        self.notes: list[str] = []

    @property
    def watching(self) -> Watching:
        return Watching(lambda event: None, lambda *step: self.steps.append(step), self.notes.append)


def begun(job: Job, types: tuple[str, ...] = TYPES, *, text: Text | None = None, **changes) -> Run:
    """A run, and what it is about."""
    known = client.forecast(job)
    chosen = selection.select(known, types, 100 * GB)
    reference = selection.reference(
        known, chosen.types, changes.pop("memory", 100 * GB), gguf=Path(job.source).is_file()
    )
    reading = Reading(text=text or built_in(EVALUATION), context=512, chunks=changes.pop("chunks", 1))
    asked = Asked(source="r1-nano", reading=reading, rounds=2, questions=0, memory=100 * GB)
    return Run(msgspec.structs.replace(asked, **changes), job, known, chosen, reference)


def done(run: Run, folder: Path, keep: Callable[[File], None] | None = None) -> Watched:
    watched = Watched()
    run.work(folder, watched.watching, keep)
    return watched


def test_all_that_is_measured(job: Job, tmp_path: Path, short: None, readings: list[list[str]]) -> None:
    """In one reading; the digests are those that `quantize` makes, and the figures are kept under them."""
    one = begun(job, questions=3, chunks=4)
    done(one, tmp_path)
    found = one.found.comparison()
    assert readings == [["BF16", "Q8_0", "Q4_K_M"]]
    assert names_in(tmp_path) == []
    assert [row.file_type for row in found.rows] == ["Q8_0", "Q4_K_M"]
    assert (found.reference, found.chunks, found.context, found.architecture) == ("BF16", 4, 512, "qwen2")
    client.run(job, [Wanted(name, tmp_path / f"{name}.gguf") for name in TYPES], load=False)
    for row in found.rows:
        made = tmp_path / f"{row.file_type}.gguf"
        assert (row.sha256, row.size) == (hashlib.sha256(made.read_bytes()).hexdigest(), made.stat().st_size)
        assert row.loss is not None
        assert row.speed is not None
        assert row.answers is not None
        assert (row.answers.set, row.answers.asked) == ("sums", 3)
        assert min(row.speed.prompt.median, row.speed.generate.median) > 0
        assert row.speed.generate.stderr > 0
        assert row.loss.tokens == 4 * 255
        kept = measured.read(row.sha256)
        assert kept is not None
        assert (kept.file_type, kept.size) == (row.file_type, row.size)
        assert (kept.loss, kept.answers) == (row.loss, row.answers)
        assert kept.speed is None  # measured in too much of a hurry to be believed elsewhere
    assert found.rows[0].loss.kl < found.rows[1].loss.kl
    assert found.advice is not None
    assert found.advice.file_type == "Q8_0"


def test_speeds_are_measured_in_turns(job: Job, tmp_path: Path, short: None) -> None:
    steps = done(begun(job), tmp_path).steps
    speeds = [(done, name) for step, done, total, _, name in steps if step == "Speed"]
    assert speeds == [
        (0, "Q8_0"),
        (0, "Q8_0"),
        (1, "Q4_K_M"),
        (2, "Q4_K_M"),
        (3, "Q8_0"),
    ]  # the first: how fast
    losses = [(done, total) for step, done, total, _, _ in steps if step == "Loss"]
    assert losses == sorted(losses)
    assert losses[-1] == (2 * 512, 2 * 512)


def test_a_second_run_reads_no_text_again(
    job: Job, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = begun(job)
    done(first, tmp_path)
    kept: list[int] = []
    once = evaluation.run

    async def counted(*given, **more):
        report = await once(*given, **more)
        kept.append(report.chunks_measured)
        return report

    monkeypatch.setattr(evaluation, "run", counted)
    second = begun(job)
    done(second, tmp_path)
    assert kept == [0, 0]
    losses = [[row.loss for row in one.found.comparison().rows] for one in (first, second)]
    assert losses[0] == losses[1]


def test_groups_where_the_disk_is_small(
    job: Job,
    tmp_path: Path,
    short: None,
    readings: list[list[str]],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The reference stays; what is advised is made again if its group has gone."""
    monkeypatch.setattr(files, "free_bytes", lambda folder: 13_000_000)
    one = begun(job)
    watched = done(one, tmp_path, lambda file: file.partial.keep_as(tmp_path / "kept.gguf", overwrite=False))
    assert readings == [["BF16", "Q8_0"], ["Q4_K_M"], ["Q8_0"]]
    assert [note for note in watched.notes if "group" in note]
    found = one.found.comparison()
    assert all(row.loss is not None and row.speed is not None for row in found.rows)
    digest = hashlib.sha256((tmp_path / "kept.gguf").read_bytes()).hexdigest()
    assert digest == found.rows[0].sha256
    assert names_in(tmp_path) == ["kept.gguf"]


def test_a_disk_that_is_too_small(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(files, "free_bytes", lambda folder: 9_000_000)
    with pytest.raises(NoSpace, match="--type"):
        done(begun(job), tmp_path)


def test_what_is_kept_needs_no_second_reading(
    job: Job, tmp_path: Path, short: None, readings: list[list[str]]
) -> None:
    one = begun(job, max_size=3_000_000)
    done(one, tmp_path, lambda file: file.partial.keep_as(tmp_path / "kept.gguf", overwrite=False))
    assert readings == [["BF16", "Q8_0", "Q4_K_M"]]
    found = one.found.comparison()
    assert found.advice is not None
    assert found.advice.file_type == "Q4_K_M"
    assert hashlib.sha256((tmp_path / "kept.gguf").read_bytes()).hexdigest() == found.rows[1].sha256


def test_where_memory_is_small_the_rest_is_compared_with_q8(job: Job, tmp_path: Path, short: None) -> None:
    """Whose own loss is not known then."""
    one = begun(job, memory=1)
    done(one, tmp_path)
    found = one.found.comparison()
    assert found.reference == "Q8_0"
    assert found.rows[0].loss is None
    assert found.rows[1].loss is not None
    assert any("cannot hold BF16" in note for note in found.notes)
    kept = measured.read(found.rows[1].sha256)
    assert kept is None or kept.loss is None  # nobody else may take it for the loss against the original


def test_a_gguf_is_compared_with_itself(tmp_path: Path, short: None, job: Job) -> None:
    source = tmp_path / "source" / "r1-nano-F16.gguf"
    source.parent.mkdir()
    client.run(job, [Wanted("F16", source)], load=False)
    one = begun(Job(source=str(source)), ("Q8_0",))
    done(one, tmp_path)
    found = one.found.comparison()
    assert (found.reference, found.reference_size) == ("F16", found.reference_size)
    loss = found.rows[0].loss
    assert loss is not None
    assert loss.reference_sha256 == hashlib.sha256(source.read_bytes()).hexdigest()
    assert names_in(tmp_path) == ["source"]


def test_the_reference_has_none_of_the_options(tmp_path: Path, short: None, job: Job) -> None:
    """Else types would be compared with what has lost something, too."""
    changed = msgspec.structs.replace(job, embedding_type=10, output_type=10)  # Q2_K
    one, plain = begun(changed, ("Q8_0",)), begun(job, ("Q8_0",))
    done(one, tmp_path)
    done(plain, tmp_path)
    rows = [each.found.comparison().rows[0] for each in (one, plain)]
    assert rows[0].sha256 != rows[1].sha256
    assert rows[0].loss.reference_sha256 == rows[1].loss.reference_sha256
    assert rows[0].loss.kl > rows[1].loss.kl


async def fails(*given, **more):
    raise EngineError("it computes nonsense")


def test_what_fails_for_one_type_is_noted(
    job: Job, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    once = evaluation.run

    async def sometimes(engine, model, *given, **more):
        return await (fails() if model.name == "Q8_0" else once(engine, model, *given, **more))

    monkeypatch.setattr(evaluation, "run", sometimes)
    one = begun(job)
    done(one, tmp_path)
    found = one.found.comparison()
    assert [row.loss is None for row in found.rows] == [True, False]
    assert "Q8_0: its loss could not be measured: it computes nonsense" in found.notes
    assert found.advice is not None


def test_what_cannot_be_run_keeps_no_other_from_it(
    job: Job, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also if it is the first."""
    once = bench.run

    async def sometimes(engine, path, header, *given, **more):
        return await (fails() if more["name"] == "Q8_0" else once(engine, path, header, *given, **more))

    monkeypatch.setattr(bench, "run", sometimes)
    one = begun(job)
    done(one, tmp_path)
    found = one.found.comparison()
    assert [row.speed is None for row in found.rows] == [True, False]
    assert [note for note in found.notes if "Q8_0" in note] == [
        "Q8_0: its speed could not be measured: it computes nonsense"
    ]
    assert found.rows[0].loss is not None


def test_what_fails_for_all_is_an_error(job: Job, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(evaluation, "run", fails)
    monkeypatch.setattr(bench, "run", fails)
    with pytest.raises(EngineError, match="nonsense"):
        done(begun(job, ("Q4_0",)), tmp_path)


def test_a_worker_that_cannot_be_confined_ends_it(
    job: Job, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refused(*given, **more):
        raise SandboxError("not confined")

    monkeypatch.setattr(evaluation, "run", refused)
    with pytest.raises(SandboxError):
        done(begun(job, ("Q4_0",)), tmp_path)


def test_chunks_are_chosen_by_the_time_they_take(
    job: Job, tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("localai.comparison.losses.BUDGET_S", 0.0)
    one = begun(job, ("Q4_0",), chunks=0)
    watched = done(one, tmp_path)
    assert one.found.comparison().chunks == 4
    assert any("on 4 chunks of text" in note for note in watched.notes)


def test_figures_on_a_text_of_ones_own_are_not_kept(job: Job, tmp_path: Path, short: None) -> None:
    one = begun(job, ("Q4_0",), chunks=4, text=Text("mine.txt", built_in(EVALUATION).content[5000:60_000]))
    done(one, tmp_path)
    (row,) = one.found.comparison().rows
    assert row.loss is not None
    assert row.loss.text == "mine.txt"
    kept = measured.read(row.sha256)
    assert kept is None or kept.loss is None
