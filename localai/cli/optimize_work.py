"""What `localai quantize --optimize` does once its options are read."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path
from typing import TYPE_CHECKING

from localai.cli import optimize_output, options, output
from localai.cli.compare_places import Places
from localai.cli.quantize_output import Events, memory_here
from localai.cli.quantize_work import Work
from localai.comparison.files import File
from localai.comparison.losses import Reading, context
from localai.evaluation import texts
from localai.evaluation.run import Candidate
from localai.optimization.run import Optimized, Watching, Wish, optimized
from models.parts import read_whole
from quantize import client, recipe

if TYPE_CHECKING:
    from quantize.protocol import Forecast, Job
    from quantize.self_text import SelfText
    from quantize.texts import Text


@dataclasses.dataclass(frozen=True)
class Call:
    """What is on the command line."""

    source: str
    max_size: int
    """Bytes."""
    calibration: Text | SelfText
    text: Path | None
    """What the result is checked on; None: the text that comes along."""
    chunks: int | None
    output_path: Path | None
    name: str | None
    overwrite: bool
    dry_run: bool
    json: bool


def optimize(call: Call, job: Job, work: Work) -> None:
    """Find the types, keep the file and its recipe, and show both; `work` is the quantization that it is."""
    output.require_stdout()
    known = client.forecast(job)
    if call.dry_run:
        optimize_output.forecast(known, call.max_size, memory_here(), call.json)
        return
    places = _Places(call, work, known)
    with (
        places.folder() as folder,
        output.progress() as progress,
        optimized(job, _wish(call, job, known), folder, _watching(progress)) as found,
    ):
        work.mix(found.recipe.mixture)
        places.take(found)
        progress.end()
        optimize_output.show(found, places.kept, places.recipe, call.json)


class _Places(Places):
    """Where the file goes, and its recipe: beside a file; in the store, the manifest has the types."""

    def __init__(self, call: Call, work: Work, known: Forecast) -> None:
        """UsageError or StoreError if something is in the way: that is known before anything is done."""
        bits = 8 * max(call.max_size - known.fixed_bytes, 0) / max(known.weights, 1)
        label = recipe.name_for(bits)
        name = call.name
        if name is None and call.output_path is None:
            name = work.default_name(label)
        super().__init__(work, call.output_path, name, None, call.overwrite)
        self.require_free([label])
        self._label, self._call = label, call
        self.recipe = ""
        """The file of the recipe, if one was written."""
        if (target := self._recipe_path(label)) is not None:
            from quantize import partials

            with partials.system_errors(target):
                partials.require_target(target, call.overwrite)

    def _recipe_path(self, label: str) -> Path | None:
        return None if self._target is None else recipe.beside(self._place(self._target, label))

    def take(self, found: Optimized) -> None:
        """Keep the file, with its recipe and its figures."""
        name = found.recipe.mixture.name
        path = self._recipe_path(name)
        if path is not None:
            recipe.write(found.recipe, path, overwrite=self._call.overwrite)
            self.recipe = str(path)
        model = Candidate(found.partial.path, name, read_whole(found.partial.path))
        self.keep(File(name, model, found.partial, found.made))


def _wish(call: Call, job: Job, known: Forecast) -> Wish:
    text = texts.built_in(texts.EVALUATION) if call.text is None else texts.read(options.path(call.text))
    return Wish(
        max_size=call.max_size,
        source=os.path.basename(call.source.rstrip(os.sep)) or call.source,  # noqa: PTH119 - also for names
        calibration=call.calibration,
        check=Reading(text=text, context=context(None, known.context_trained), chunks=call.chunks or 0),
        memory=memory_here(),
        threads=job.threads or None,
    )


def _watching(progress: output.Progress) -> Watching:
    def on_step(step: str, done: int, total: int, unit: str, detail: str) -> None:
        progress(step, done, total, detail, unit)

    return Watching(Events(progress, []), on_step, output.note)
