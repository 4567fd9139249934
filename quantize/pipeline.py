"""From a checkpoint folder to a finished GGUF file: plan, convert, quantize, check, put in place.

Float weights are streamed tensor by tensor to a temporary file beside the output. For a quantized type,
llama.cpp then makes the output from it. Nothing but temporary files is touched before the result is complete
and checked, and they are removed whatever happens.

Only a regular file is ever replaced, and none of the checkpoint's own. A symbolic link is refused, too: to
replace it would break it, and to follow it would replace a file that nobody named.
"""

from __future__ import annotations

import errno
import math
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psutil
from gguf import GGML_QUANT_VERSION, GGUFWriter

from localai.errors import NoSpace, QuantizeError, UsageError
from quantize import file_kinds, gguf_file, metadata, partials, plan
from quantize.architectures import family_and_config
from quantize.architectures.base import Config, Family
from quantize.checkpoint import Checkpoint, is_input, open_checkpoint
from quantize.file_types import FILE_TYPES, output_type
from quantize.growth import watch_growth
from quantize.protocol import Job, Progress, Report, Stage
from quantize.tokenizer import Vocabulary, read_vocabulary

OnProgress = Callable[[Progress], None]
QuantizeFile = Callable[[Path, Path, int, int], None]
"""(source, output, file type number, threads)"""


@dataclass(frozen=True)
class _Work:
    """All that is known before the first byte is written."""

    checkpoint: Checkpoint
    family: Family
    config: Config
    vocabulary: Vocabulary
    planned: list[plan.PlannedTensor]
    float_type: str
    file_type: str

    @property
    def is_quantized(self) -> bool:
        return self.file_type not in plan.FLOAT_TYPES


def convert(
    job: Job,
    on_progress: OnProgress = lambda progress: None,
    free_space: plan.FreeSpace = plan.free_space,
    quantize_file: QuantizeFile | None = None,
) -> Report:
    """Do `job` in this process. Raises an error of `localai.errors`, and then leaves nothing behind.

    `quantize_file` is llama.cpp's quantizer, unless a test gives another.
    """
    started = time.monotonic()
    output = Path(job.output).absolute()
    work = _prepare(job, output)
    partial = partials.partial_path(output)
    try:
        with _disk_errors(output):
            partials.remove_stale(output)
            _require_space(work, output.parent, free_space)
            _make(work, job, output, on_progress, free_space, quantize_file or _llama_quantize)
            size = _finish(work, partial, output, on_progress)
    finally:
        partials.remove_of(output, os.getpid())
    return Report(
        output=str(output),
        file_type=work.file_type,
        architecture=work.family.architecture,
        tensors=len(work.planned),
        weights=sum(math.prod(tensor.shape) for tensor in work.planned),
        source_bytes=work.checkpoint.nbytes,
        output_bytes=size,
        seconds=round(time.monotonic() - started, 3),
    )


def _prepare(job: Job, output: Path) -> _Work:
    file_type = output_type(job.file_type)
    with _disk_errors(output):
        _require_target(output, Path(job.source), job.overwrite)
    checkpoint = open_checkpoint(Path(job.source))
    family, config = family_and_config(checkpoint.config)
    float_type = file_type if file_type in plan.FLOAT_TYPES else plan.source_type(checkpoint)
    planned = plan.plan_tensors(checkpoint, family, config, float_type)
    vocabulary = read_vocabulary(checkpoint, config.vocab_size, job.pre_tokenizer)
    return _Work(checkpoint, family, config, vocabulary, planned, float_type, file_type)


def _require_target(output: Path, source: Path, overwrite: bool) -> None:
    if not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}", "Make it first, or choose another output")
    if output.is_dir():
        raise UsageError(f"{output} is a folder", "Name the file to write")
    try:
        found = output.lstat()
    except FileNotFoundError:
        return
    if not file_kinds.is_regular(found.st_mode):
        what = file_kinds.describe(found.st_mode)
        raise UsageError(f"{output} is {what}, which is never replaced", "Name a regular file, or a new one")
    if is_input(found, source):
        raise UsageError(f"{output} is a file of the checkpoint itself", "Choose another output")
    if not overwrite:
        raise UsageError(
            f"{output} is there already", "Choose another output, or have it replaced with --overwrite"
        )


def _require_space(work: _Work, folder: Path, free_space: plan.FreeSpace) -> None:
    needed = plan.estimated_bytes(work.planned, work.file_type)
    if work.is_quantized:
        needed += plan.float_bytes(work.planned)
    plan.require_space(folder, needed + _vocabulary_bytes(work.vocabulary), free_space)


def _vocabulary_bytes(vocabulary: Vocabulary) -> int:
    return 64 * 1024 + sum(len(text) * 2 + 16 for text in (*vocabulary.tokens, *vocabulary.merges))


def _make(
    work: _Work,
    job: Job,
    output: Path,
    on_progress: OnProgress,
    free_space: plan.FreeSpace,
    quantize_file: QuantizeFile,
) -> None:
    """Write the temporary output."""
    partial, source = partials.partial_path(output), partials.source_path(output)
    if not work.is_quantized:
        _write_floats(work, job.name, partial, on_progress)
        return
    _write_floats(work, job.name, source, on_progress)
    total = plan.estimated_bytes(work.planned, work.file_type)
    threads = job.threads if job.threads > 0 else (psutil.cpu_count(logical=False) or 1)
    try:
        with watch_growth(
            partial, lambda size: on_progress(Progress("quantize", "", min(size, total), total))
        ):
            quantize_file(source, partial, FILE_TYPES[work.file_type], threads)
    except QuantizeError as error:  # llama.cpp does not say when the disk was full
        written = partial.stat().st_size if partial.exists() else 0
        if free_space(output.parent) + written < total:
            raise _no_space(output) from error
        raise
    source.unlink()
    on_progress(Progress("quantize", "", total, total))


def _write_floats(work: _Work, name: str, path: Path, on_progress: OnProgress) -> None:
    writer = GGUFWriter(None, work.family.architecture)
    metadata.add_general(writer, work.checkpoint, work.planned, name)
    work.family.add_metadata(writer, work.config, plan.FLOAT_TYPES[work.float_type][0])
    writer.add_quantization_version(GGML_QUANT_VERSION)
    work.family.add_vocabulary(writer, work.vocabulary, work.config, work.checkpoint.tokenizer_config)
    gguf_file.write(path, writer, work.planned, _counter("convert", work, on_progress))


def _counter(stage: Stage, work: _Work, on_progress: OnProgress) -> gguf_file.OnTensor:
    done, total = 0, plan.float_bytes(work.planned)

    def count(tensor: str, nbytes: int) -> None:
        nonlocal done
        done += nbytes
        on_progress(Progress(stage, tensor, done, total))

    return count


def _finish(work: _Work, partial: Path, output: Path, on_progress: OnProgress) -> int:
    """Check the temporary output and put it in its place, all of it on the disk; its size in bytes."""
    size = partial.stat().st_size
    on_progress(Progress("check", "", 0, size))
    gguf_file.check(partial, work.planned)
    _sync(partial)
    partial.replace(output)
    if os.name == "posix":
        _sync(output.parent)
    on_progress(Progress("check", "", size, size))
    return size


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY if os.name == "posix" else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _llama_quantize(source: Path, output: Path, file_type: int, threads: int) -> None:
    from localai.engine import llama  # only now: float types need no llama.cpp

    llama.quantize_file(source, output, file_type, threads)


@contextmanager
def _disk_errors(output: Path) -> Iterator[None]:
    """Errors of the system as ours."""
    try:
        yield
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise _no_space(output) from error
        where = error.filename or output
        raise QuantizeError(
            f"cannot read or write {where}: {error.strerror or error}",
            "Check its rights and its disk, or choose another place",
        ) from error


def _no_space(output: Path) -> NoSpace:
    return NoSpace(f"the disk became full while {output} was written", plan.MAKE_SPACE)
