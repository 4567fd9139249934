"""What `localai quantize --compare` does once its options are read."""

from __future__ import annotations

import dataclasses
import os
import shlex
from pathlib import Path
from typing import TYPE_CHECKING

from localai.cli import compare_output, options, output
from localai.cli.compare_places import Places
from localai.cli.quantize_compare import ROUNDS, Comparing
from localai.cli.quantize_output import Events, memory_here
from localai.cli.quantize_work import Work
from localai.comparison import selection
from localai.comparison.found import Asked
from localai.comparison.losses import Reading, context
from localai.comparison.run import Run, Watching, require_allowed
from localai.evaluation import texts

if TYPE_CHECKING:
    from quantize.protocol import Forecast, Job


@dataclasses.dataclass(frozen=True)
class Call:
    """What else is on the command line."""

    source: str
    types: list[str]
    """Those that are named."""
    imatrix: str
    limits: tuple[int | None, int | None]
    """Bytes of the file, and in memory, that the advised type may take."""
    output_path: Path | None
    name: str | None
    overwrite: bool
    dry_run: bool
    json: bool


def compare(comparing: Comparing, call: Call, job: Job, work: Work) -> None:
    """Compare types of `job`, and show what was found; `work` is the quantization that each would be.

    Also when Ctrl+C ends it before all is measured: what is known by then is shown.
    """
    from quantize import client

    output.require_stdout()
    places = Places(work, call.output_path, call.name, comparing.report, call.overwrite)
    memory = memory_here()
    known = client.forecast(job)
    chosen = selection.select(known, call.types, memory)
    gguf = not os.path.isdir(job.source)  # noqa: PTH112 - also for names that cannot be
    reference = selection.reference(known, chosen.types, memory, gguf=gguf)
    asked = _asked(comparing, call, job, work, known, memory)
    if call.dry_run:
        compare_output.forecast(asked, known, chosen, reference, places.free, call.json)
        return
    places.require_free([one.file_type for one in chosen.types])
    require_allowed(job, reference)
    compare_output.begin(asked, known, chosen, reference)
    with places.folder() as folder, output.progress() as progress, work.ready(folder, progress) as ready:
        run = Run(asked, ready, known, chosen, reference)
        try:
            run.work(folder, _watching(progress), places.keep if places.keeps else None)
            places.write_report(run.found.comparison())
        finally:
            progress.end()
            if run.found.anything:
                found = run.found.comparison()
                compare_output.show(found, run.found.complete, places.kept, places.reported, call.json)


def _asked(comparing: Comparing, call: Call, job: Job, work: Work, known: Forecast, memory: int) -> Asked:
    given = comparing.text
    text = texts.built_in(texts.EVALUATION) if given is None else texts.read(options.path(given))
    size = context(comparing.context, known.context_trained)
    words = shlex.split(work.recipe("TYPE"))[2:]  # behind the type, as for the command that makes it
    return Asked(
        source=call.source,
        imatrix=call.imatrix,
        options=tuple(words[2:] if call.imatrix else words),
        reading=Reading(text=text, context=size, chunks=comparing.chunks or 0),
        rounds=comparing.rounds or ROUNDS,
        questions=comparing.tasks,
        threads=job.threads or None,
        memory=memory,
        max_size=call.limits[0],
        max_memory=call.limits[1],
    )


def _watching(progress: output.Progress) -> Watching:
    def on_step(step: str, done: int, total: int, unit: str, detail: str) -> None:
        progress(step, done, total, detail, unit)

    return Watching(Events(progress, []), on_step, output.note)
