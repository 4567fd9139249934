"""What is known so far of the types that are compared; it grows while they are measured."""

from __future__ import annotations

import datetime
from collections.abc import Sequence

import msgspec

import localai
from localai import bench, hardware
from localai.comparison.advice import advise
from localai.comparison.files import File
from localai.comparison.losses import Reading
from localai.comparison.result import Comparison, Row
from localai.comparison.selection import Reference, Selection, shown_memory
from localai.comparison.speeds import Samples
from localai.evaluation import keeping
from localai.evaluation.report import Report
from models import measured
from models.figures import Answers, Figures, Speed
from models.files import megabytes
from models.machine import machine_id
from quantize.protocol import Candidate, Forecast


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What the user asked for. What is None or 0 is left to us."""

    source: str
    """As the user called it."""
    imatrix: str = ""
    """As the user called it: "", "auto" or a file."""
    options: tuple[str, ...] = ()
    """More of the command line that files are made with."""
    reading: Reading
    """`chunks` 0: as many as there is time for."""
    rounds: int = 3
    """How often the speed of each type is measured."""
    questions: int | None = None
    """0: none. None: all, if that is quick."""
    threads: int | None = None
    memory: int
    """Bytes that a model may take here."""
    max_size: int | None = None
    max_memory: int | None = None


class Found:
    """The figures of each type, by its name."""

    def __init__(self, asked: Asked, known: Forecast, selection: Selection, reference: Reference) -> None:
        self._asked, self._known, self._selection, self._reference = asked, known, selection, reference
        self.notes: list[str] = [*selection.notes, *reference.notes]
        self.complete = False
        """Whether all was measured that was to be."""
        self.chunks = 0
        """That the losses are from; 0 as long as there are none."""
        self.speeds: dict[str, Samples] = {}
        self._losses: dict[str, Report] = {}
        self._answers: dict[str, Answers] = {}
        self._digests: dict[str, str] = {}
        self._compared = ""
        """The digest of the reference."""
        self._name = self._commit = ""

    @property
    def anything(self) -> bool:
        """Whether there is anything to show."""
        return bool(self.speeds or self._losses or self._answers)

    def begin(self, files: Sequence[File], reference_sha256: str) -> None:
        """These files are there now."""
        self._digests |= {one.file_type: one.model.sha256 for one in files}
        self._compared = reference_sha256
        self._name = files[0].model.header.name
        self._commit = files[0].made.report.llama_cpp_commit

    def rate(self, file_type: str) -> float | None:
        """Tokens that it writes a second; None: not known."""
        found = self.speeds.get(file_type)
        return found.speed.generate.median if found is not None else None

    def add_loss(self, file_type: str, report: Report) -> None:
        """What one type has lost."""
        self._losses[file_type] = report
        self.chunks = report.chunks
        self.keep(file_type)

    def add_answers(self, file_type: str, answers: Answers) -> None:
        """What one type answered."""
        self._answers[file_type] = answers
        self.keep(file_type)

    def keep(self, file_type: str) -> None:
        """Keep with the models what is known of one type, as far as others can compare it."""
        one = next(each for each in self._selection.types if each.file_type == file_type)
        report, samples = self._losses.get(file_type), self.speeds.get(file_type)
        measured.keep(
            Figures(
                sha256=self._digests[file_type],
                file_type=file_type,
                size=one.size,
                loss=keeping.loss_of(report, self._compared) if report and self._reference.exact else None,
                speed=_usual_speed(samples) if samples and self._asked.threads is None else None,
                answers=self._answers.get(file_type),
                imatrix=bool(self._asked.imatrix),
            )
        )

    def comparison(self) -> Comparison:
        """All of it. There is no advice before everything was measured."""
        asked, known = self._asked, self._known
        rows = tuple(self._row(one) for one in self._selection.types)
        limits = {"max_size": asked.max_size, "max_memory": asked.max_memory}
        advice = advise(rows, memory_usable=asked.memory, **limits) if self.complete else None
        return Comparison(
            source=asked.source,
            name=self._name,
            architecture=known.architecture,
            weights=known.weights,
            reference=self._reference.file_type,
            reference_size=self._reference.size,
            imatrix=asked.imatrix,
            options=asked.options,
            text=asked.reading.text.name,
            chunks=self.chunks,
            context=asked.reading.context,
            machine=f"{machine_id()}, {megabytes(hardware.total_memory())} of memory",
            memory_usable=asked.memory,
            rows=rows,
            advice=advice,
            program=localai.__version__,
            llama_cpp=self._commit,
            made=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
            notes=tuple(self.notes),
        )

    def _row(self, one: Candidate) -> Row:
        memory = shown_memory(one)
        report, samples = self._losses.get(one.file_type), self.speeds.get(one.file_type)
        return Row(
            file_type=one.file_type,
            size=one.size,
            bits_per_weight=one.bits_per_weight,
            memory=memory,
            fits=memory[max(memory)] <= self._asked.memory,
            sha256=self._digests.get(one.file_type, ""),
            loss=keeping.any_loss_of(report, self._compared) if report is not None else None,
            speed=samples.speed if samples is not None else None,
            answers=self._answers.get(one.file_type),
        )


def _usual_speed(samples: Samples) -> Speed | None:
    """The speed, if it was measured for long enough to be kept: as `localai bench` keeps it."""
    tests = [
        msgspec.structs.replace(test, samples=rates, repetitions=len(rates))
        for test, rates in zip(samples.report.tests, (samples.prompt, samples.generate), strict=True)
    ]
    return bench.speed_of(msgspec.structs.replace(samples.report, tests=tests))
