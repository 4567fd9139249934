"""What `localai quantize` does once its options are read: forecast, make files, keep them in the store."""

from __future__ import annotations

import os
import shlex
from contextlib import AbstractContextManager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from localai.cli import options, output, quantize_output
from localai.cli.calibrating import Calibrating
from localai.errors import StoreError, UsageError

if TYPE_CHECKING:
    from models.mixture import Mixture
    from models.origins import Checkpoint
    from models.store import Store
    from quantize.advice import Advice
    from quantize.client import Made, Wanted
    from quantize.protocol import Forecast, Job


def forecast(job: Job, max_size: int | None, max_memory: int | None) -> tuple[Forecast, Advice]:
    """The forecast for `job`, and the type to take: the best within the limits, or the recommended one."""
    from quantize import advice, client

    known = client.forecast(job)
    if job.mixtures:
        return known, advice.Advice(job.mixtures[0].name, "the types of the recipe")
    if max_size is None and max_memory is None:
        return known, advice.recommend(known, quantize_output.memory_here())
    return known, advice.choose(known, max_size, max_memory)


def require_outside_of_the_store(target: Path) -> None:
    """UsageError for an output among the store's own files."""
    from localai import paths

    if paths.models_dir().resolve() in [*target.resolve().parents, target.resolve()]:
        raise UsageError(f"{target} is inside the store of models", "Keep it there with --name instead")


def require_name(store: Store, name: str, overwrite: bool) -> None:
    """StoreError, UsageError if a model cannot be kept under `name`."""
    try:
        store.require_free(name, replace=overwrite)
    except StoreError as error:
        hint = "Choose another name with --name, or have it replaced with --overwrite"
        raise StoreError(error.message, hint) from error


class Work:
    """One quantization of `job` to `types`. `model` is the name in the store that its source has, or ""."""

    def __init__(
        self,
        job: Job,
        model: str,
        types: list[str],
        overwrite: bool,
        check: bool,
        calibration: Calibrating = Calibrating(),
    ) -> None:
        self._job, self._model, self._types = job, model, types
        self._overwrite, self._check, self._calibration = overwrite, check, calibration

    def into_files(self, target: Path) -> tuple[Made, list[str]]:
        """Write the file `target`, or files in the folder `target`; what was made, and where."""
        from quantize.client import Wanted

        target = options.path(target)
        require_outside_of_the_store(target)
        is_folder = os.path.isdir(target)  # noqa: PTH112 - also for names that cannot be
        if len(self._types) > 1 and not is_folder:
            raise UsageError(
                f"{target} is not a folder, and {len(self._types)} files are to be written",
                f"Make it first: mkdir {target}",
            )
        paths = [target / f"{self.stem()}-{one}.gguf" if is_folder else target for one in self._types]
        wanted = [Wanted(one, path) for one, path in zip(self._types, paths, strict=True)]
        return self._run(wanted, self._overwrite), [str(path) for path in paths]

    def into_store(self, name: str | None) -> tuple[Made, list[str]]:
        """Keep the results in the store; what was made, and the names."""
        from models.store import Store
        from quantize.client import Wanted

        several = name is not None and len(self._types) > 1
        names = [f"{name}:{one}" for one in self._types] if several else []
        names = names or [name or self.default_name(one) for one in self._types]
        store = Store()
        for each in names:
            require_name(store, each, self._overwrite)
        with store.incoming() as scratch:
            wanted = [Wanted(one, scratch / f"{one}.gguf") for one in self._types]
            made = self._run(wanted, overwrite=False)
            with output.progress() as progress:
                return made, [
                    self.keep(store, each, one, made, progress)
                    for each, one in zip(names, wanted, strict=True)
                ]

    def _run(self, wanted: list[Wanted], overwrite: bool) -> Made:
        from quantize import client, partials

        for one in wanted if self._job.imatrix_promised else ():
            with partials.system_errors(one.output):  # before a long text is read
                partials.require_target(one.output, overwrite)
        with output.progress() as progress, self.ready(wanted[0].output.parent, progress) as job:
            return client.run(
                job,
                wanted,
                overwrite=overwrite,
                load=self._check,
                on_event=quantize_output.Events(progress, self._types),
            )

    def ready(self, folder: Path, progress: output.Progress) -> AbstractContextManager[Job]:
        """The job, with the importance matrix if one is to be collected for it."""
        if not self._job.imatrix_promised:
            return nullcontext(self._job)
        from quantize.collecting import collected_for

        convert = quantize_output.Events(progress, [])

        def read(done: int, total: int) -> None:
            progress("Read", done, total, unit="tokens")

        def write(done: int, total: int) -> None:
            progress("Write", done, total, unit="tokens")

        text = self._calibration.text()
        types = self._types
        return collected_for(self._job, folder.absolute(), text, convert, read, write, types=types)

    def keep(self, store: Store, name: str, wanted: Wanted, made: Made, progress: output.Progress) -> str:
        """Move a file that was made into the store; its name there."""
        manifest = store.add(
            wanted.output,
            name,
            source=self._origin(wanted, made),
            move=True,
            replace=self._overwrite,
            on_progress=progress,
        )
        return manifest.name

    def _origin(self, wanted: Wanted, made: Made) -> Checkpoint:
        from localai import __version__
        from models.origins import Checkpoint
        from quantize.revision import revision_of

        source, mixture = Path(self._job.source).absolute(), self._mixture(wanted)
        return Checkpoint(
            path=str(source),
            model=self._model,
            recipe=self.recipe(wanted.file_type, mixture),
            revision=revision_of(source) if source.is_dir() else "",
            inputs=made.report.inputs,
            imatrix_sha256=made.report.imatrix_sha256,
            program=__version__,
            llama_cpp=made.report.llama_cpp_commit,
            mixture=mixture,
        )

    def _mixture(self, wanted: Wanted) -> Mixture | None:
        """The types as they came out, if they are of a recipe: for other columns or layers some differ."""
        from models.gguf import read_header
        from quantize import recipe

        found = next((one for one in self._job.mixtures if one.name == wanted.file_type), None)
        return recipe.of_file(found, read_header(wanted.output)) if found else None

    def recipe(self, file_type: str, mixture: Mixture | None = None) -> str:
        """The options that make this file again; of one that was made with a `mixture`, all its types."""
        from models.ggml_types import TENSOR_TYPES
        from quantize.recipe import patterns

        job = self._job
        words = ["--type", mixture.file_type if mixture else file_type]
        words += ["--imatrix", job.imatrix] if job.imatrix else []
        words += ["--imatrix", "auto", *self._calibration.words()] if job.imatrix_promised else []
        words += ["--pure"] if job.pure else []
        for option, number in (("--output-type", job.output_type), ("--embedding-type", job.embedding_type)):
            words += [option, TENSOR_TYPES[number].name] if number is not None else []
        for rule, number in patterns(mixture.types) if mixture else job.tensor_types:
            words += ["--tensor-type", f"{rule}={TENSOR_TYPES[number].name}"]
        words += ["--pre-tokenizer", job.pre_tokenizer] if job.pre_tokenizer else []
        words += ["--allow-requantize"] if job.allow_requantize else []
        return shlex.join(words)

    def mix(self, mixture: Mixture) -> None:
        """The types are those of `mixture`, which have been found meanwhile."""
        import msgspec

        self._job = msgspec.structs.replace(self._job, mixtures=(mixture,))

    def default_name(self, file_type: str) -> str:
        """What the store calls a model of `file_type` unless told otherwise."""
        from models.names import suggested

        return suggested(f"{self.stem()}:{file_type}")

    def stem(self) -> str:
        """What files are called by default: as the folder, the file or the model that they are made from."""
        from quantize.revision import repository_of

        if self._model:
            return self._model.replace(":", "-")
        source = Path(self._job.source).absolute()
        if repository := repository_of(source):
            return repository
        return source.stem if source.suffix.lower() == ".gguf" else source.name
