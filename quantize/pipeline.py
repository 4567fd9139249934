"""The work of the quantize worker: open the source, forecast, convert and quantize in one pass, hash.

It writes only to files that are open already, and leaves putting them in place to `quantize.client`.
"""

from __future__ import annotations

import dataclasses
import errno
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import msgspec

from localai import hardware
from localai.engine import bindings
from localai.errors import NoSpace, QuantizeError, UnsupportedModel
from models.files import sha256_of
from models.ggml_types import TENSOR_TYPES
from models.gguf import ArrayInfo, check_supported, read_header
from quantize import forecast, from_checkpoint, from_gguf, imatrix, one_pass, type_errors
from quantize.imatrix import ImportanceMatrix
from quantize.output_file import OutputFile
from quantize.partials import MAKE_SPACE
from quantize.plan import Options, Output, planner
from quantize.protocol import Errors, Forecast, Job, Progress, Report, Stage, Target, Written
from quantize.source import Source

OnEvent = Callable[[Forecast | Progress | Errors], None]
_QUIET_BYTES = 8 << 20
"""Read bytes between two reports of progress."""


def run(job: Job, on_event: OnEvent = lambda event: None) -> Report:
    """Do `job` in this process. Raises an error of `localai.errors`; the targets are then of no use."""
    started = time.monotonic()
    types = [job.kind(target.file_type) for target in job.targets]
    with _system_errors(job):
        source = open_source(job)
        importance = _importance(job, source)
        with planner(source, _options(job), importance) as plans:
            _require_runnable(source, plans.bare)
            on_event(forecast.of(source, plans))
            if job.errors_of:
                _tell_errors(job, source, plans.matrices, importance, on_event)
            outputs = [
                plans.plain_output(file_type) if target.plain else plans.output(file_type)
                for file_type, target in zip(types, job.targets, strict=True)
            ]
        return _make(job, source, outputs, importance, on_event, started)


def _options(job: Job) -> Options:
    return Options(
        job.pure,
        job.output_type,
        job.embedding_type,
        job.tensor_types,
        job.imatrix_name or job.imatrix,
        job.mixtures,
    )


def _tell_errors(
    job: Job, source: Source, matrices: list[str], importance: ImportanceMatrix | None, on_event: OnEvent
) -> None:
    """Tell what each of `matrices` would lose by each of the types that `job` asks about."""
    found = type_errors.measure(
        source,
        matrices,
        job.errors_of,
        importance,
        job.threads or hardware.usable_cores(),
        _Counter(source.nbytes, on_event, "measure"),
        rows=job.error_rows,
    )
    for one in found:
        on_event(one)


def open_source(job: Job) -> Source:
    """The model that `job` is about, checked as far as can be without reading its weights."""
    path = Path(job.source)
    if not _is_gguf(path):
        return from_checkpoint.open_source(path, job.pre_tokenizer, job.name)
    source = from_gguf.open_source(path)
    if source.is_quantized and not job.allow_requantize:
        raise UnsupportedModel(
            f"{path} is quantized already, and to quantize it again costs quality twice",
            "Start from the checkpoint or a BF16, F16 or F32 GGUF, or insist with --allow-requantize",
        )
    return source


def _importance(job: Job, source: Source) -> ImportanceMatrix | None:
    if job.imatrix:
        found = imatrix.read_imatrix(Path(job.imatrix))
        return dataclasses.replace(found, path=Path(job.imatrix_name or job.imatrix))
    if job.imatrix_promised and not job.targets:
        columns = {tensor.name: tensor.shape[-1] for tensor in source.tensors if len(tensor.shape) == 2}
        return imatrix.promised(columns, job.imatrix_promised)
    return None


def _require_runnable(source: Source, bare: Path) -> None:
    """What the engine would refuse at the end is refused now: UnsupportedModel."""
    header = read_header(bare)
    rows = next((t.shape[0] for t in source.tensors if t.name == "token_embd.weight"), 0)
    metadata = {**header.metadata, "tokenizer.ggml.tokens": ArrayInfo("string", rows)}
    path = source.path if source.is_gguf else source.path / "config.json"
    check_supported(msgspec.structs.replace(header, metadata=metadata), path)


def _is_gguf(path: Path) -> bool:
    """Whether `path` is to be read as a GGUF file: by its first bytes, or by its name if it is not there."""
    if not path.is_file():
        return path.suffix.lower() == ".gguf" and not path.is_dir()
    with path.open("rb") as file:
        return file.read(4) == b"GGUF" or path.suffix.lower() == ".gguf"


def _make(
    job: Job,
    source: Source,
    outputs: list[Output],
    importance: ImportanceMatrix | None,
    on_event: OnEvent,
    started: float,
) -> Report:
    hashes: dict[str, str] = {}
    with ExitStack() as stack:
        files = [
            stack.enter_context(OutputFile(target.fd, Path(target.path), output.layout))
            for target, output in zip(job.targets, outputs, strict=True)
        ]
        sinks = [one_pass.Sink(output, file) for output, file in zip(outputs, files, strict=True)]
        if sinks:
            hashes = one_pass.run(
                source,
                sinks,
                importance,
                job.threads or hardware.usable_cores(),
                _Counter(source.nbytes, on_event),
                hash_inputs=job.hash_inputs,
            )
        written = tuple(
            _written(target, sink, source, on_event) for target, sink in zip(job.targets, sinks, strict=True)
        )
    folder = source.path if source.path.is_dir() else source.path.parent
    small = {str(path): sha256_of(path) for path in source.small_files} if job.hash_inputs and outputs else {}
    return Report(
        architecture=source.architecture,
        tensors=len(source.tensors),
        weights=source.weights,
        source_bytes=source.nbytes,
        inputs={str(Path(path).relative_to(folder)): digest for path, digest in {**small, **hashes}.items()},
        imatrix_sha256=sha256_of(Path(job.imatrix)) if importance and outputs else "",
        llama_cpp_commit=bindings.commit(),
        outputs=written,
        seconds=round(time.monotonic() - started, 3),
    )


class _Counter:
    """Sums up what was read, and reports it now and then."""

    def __init__(self, total: int, on_event: OnEvent, stage: Stage = "convert") -> None:
        self._total, self._on_event, self._stage = total, on_event, stage
        self._done = self._told = 0

    def __call__(self, tensor: str, nbytes: int) -> None:
        self._done += nbytes
        if self._done - self._told >= _QUIET_BYTES:
            self._told = self._done
            self._on_event(Progress(self._stage, tensor, self._done, self._total))


def _written(target: Target, sink: one_pass.Sink, source: Source, on_event: OnEvent) -> Written:
    output, size = sink.output, sink.output.layout.nbytes
    digest = sink.file.finish(lambda done: on_event(Progress("hash", "", done, size)))
    return Written(
        path=target.path,
        file_type=output.name,
        size=size,
        sha256=digest,
        bits_per_weight=forecast.bits_per_weight(source, output),
        types=dict(Counter(TENSOR_TYPES[number].name for number in output.types.values())),
    )


@contextmanager
def _system_errors(job: Job) -> Iterator[None]:
    """Errors of the system as ours."""
    try:
        yield
    except OSError as error:
        where = error.filename or (job.targets[0].path if job.targets else job.source)
        if error.errno in {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}:
            raise NoSpace(f"there is not enough room for {where}", MAKE_SPACE) from error
        raise QuantizeError(
            f"cannot read or write {where}: {error.strerror or error}",
            "Check its rights and its disk, or choose another place",
        ) from error
