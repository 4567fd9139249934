"""`localai quantize`: from a checkpoint folder, or a GGUF file, to quantized GGUF files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from localai.cli import (
    calibrating,
    options,
    output,
    quantize_compare,
    quantize_optimize,
    quantize_output,
    quantize_work,
)
from localai.errors import LocalAIError, UsageError

_DEFAULT = "Q4_K_M"
_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 2 ** (10 * power) for power, unit in enumerate("kmgt", 1)}


@options.spread
def quantize(
    source: Annotated[
        str,
        typer.Argument(
            help="A checkpoint folder with safetensors, a GGUF file, or a model's name.", show_default=False
        ),
    ],
    types: Annotated[
        list[str] | None,
        typer.Option(
            "--type",
            metavar="TYPE",
            help="Such as Q8_0; docs/quantize.md lists them. Several times: several files. "
            f"Default: {_DEFAULT}.",
            show_default=False,
        ),
    ] = None,
    output_path: Annotated[
        Path | None,
        typer.Option("--output", "-o", help="Write this file, or into this folder.", show_default=False),
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Keep it in the store under this name. Default: folder:type.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell size and memory for every type, and which to take.")
    ] = False,
    max_size: Annotated[
        str | None,
        typer.Option(
            metavar="4GB",
            help="Take the best type whose file is no larger. For --optimize, the size to fill.",
            show_default=False,
        ),
    ] = None,
    max_memory: Annotated[
        str | None,
        typer.Option(metavar="8GB", help="Take the best type that runs in this memory.", show_default=False),
    ] = None,
    imatrix: Annotated[
        str | None,
        typer.Option(
            metavar="FILE|auto",
            help="An importance matrix, as `localai imatrix` and llama-imatrix write it; auto: collect one.",
            show_default=False,
        ),
    ] = None,
    tensor_types: Annotated[
        list[str] | None,
        typer.Option(
            "--tensor-type",
            metavar="PATTERN=TYPE",
            help="This type for tensors with such names, as in llama-quantize.",
            show_default=False,
        ),
    ] = None,
    output_type: Annotated[
        str | None,
        typer.Option(
            "--output-type",
            metavar="TYPE",
            help="The type of the output matrix.",
            show_default=False,
        ),
    ] = None,
    embedding_type: Annotated[
        str | None,
        typer.Option(
            "--embedding-type",
            metavar="TYPE",
            help="The type of the token embeddings.",
            show_default=False,
        ),
    ] = None,
    pure: Annotated[bool, typer.Option("--pure", help="One type for all matrices.")] = False,
    allow_requantize: Annotated[
        bool, typer.Option("--allow-requantize", help="Also take a GGUF that is quantized already.")
    ] = False,
    pre_tokenizer: Annotated[
        str,
        typer.Option(
            metavar="NAME",
            help="llama.cpp's name of it, where the checkpoint's own is not recognised.",
            show_default=False,
        ),
    ] = "",
    check: Annotated[
        bool, typer.Option("--check/--no-check", help="Load the file and generate, before it gets its name.")
    ] = True,
    threads: Annotated[
        int | None,
        typer.Option("--threads", "-t", min=1, max=512, help="CPU threads. Default: all that may be used."),
    ] = None,
    sandbox: options.Sandbox = None,
    json: options.Json = False,
    *,
    calibration: calibrating.Calibrating,
    comparing: quantize_compare.Comparing,
    optimizing: quantize_optimize.Optimizing,
) -> None:
    """Convert a checkpoint to GGUF and quantize it, in one pass."""
    from quantize import file_types
    from quantize.protocol import Job

    if output_path is not None and name is not None:
        raise UsageError("--output and --name exclude each other", "Give one of them")
    comparing.require_compare(optimizing)
    if types and (max_size or max_memory) and not (comparing.compare or optimizing.optimize):
        raise UsageError(
            "--type excludes --max-size and --max-memory, which choose the type", "Leave one of them out"
        )
    if imatrix != "auto" and not optimizing.optimize:
        calibration.require_unused()
    limits = (_bytes(max_size, "--max-size"), _bytes(max_memory, "--max-memory"))
    choosing = {
        "--compare": comparing.compare,
        "--type": types,
        "--max-size": max_size,
        "--max-memory": max_memory,
        "--pure": pure,
        "--output-type": output_type,
        "--embedding-type": embedding_type,
        "--tensor-type": tensor_types,
    }
    mixtures = optimizing.mixtures(choosing, with_imatrix=imatrix is not None)
    optimizing.require_alone(choosing)
    collects = imatrix == "auto" or (optimizing.optimize and imatrix is None)
    path, model = _find(source)
    job = Job(
        source=str(path),
        threads=threads or 0,
        pre_tokenizer=pre_tokenizer,
        imatrix=str(options.path(imatrix)) if imatrix and imatrix != "auto" else "",
        imatrix_promised=calibration.text().name if collects else "",
        pure=pure,
        output_type=file_types.tensor_type(output_type) if output_type else None,
        embedding_type=file_types.tensor_type(embedding_type) if embedding_type else None,
        tensor_types=tuple(file_types.tensor_type_rule(rule) for rule in tensor_types or ()),
        hash_inputs=json or output_path is None,  # the report for people does not list them
        allow_requantize=allow_requantize,
        mixtures=mixtures,
    )
    wanted = [one.name for one in mixtures]
    wanted = wanted or list(dict.fromkeys(file_types.output_type(one) for one in types or [_DEFAULT]))
    if tensor_types and not set(wanted) - {"F32", "F16", "BF16"}:
        raise UsageError(
            "--tensor-type counts for quantized types only, as in llama-quantize",
            "Take --type Q8_0, or set --output-type and --embedding-type",
        )
    with _called(path, model), output.again():
        if comparing.compare:
            from localai.cli.compare_work import Call, compare

            work = quantize_work.Work(job, model, wanted, overwrite, check, calibration)
            named = wanted if types else []
            compare(
                comparing,
                Call(source, named, imatrix or "", limits, output_path, name, overwrite, dry_run, json),
                job,
                work,
            )
            return
        if optimizing.optimize and limits[0] is not None:
            from localai.cli import optimize_work

            work = quantize_work.Work(job, model, [], overwrite, check, calibration)
            wish = optimize_work.Call(
                source,
                limits[0],
                calibration.text(),
                comparing.text,
                comparing.chunks,
                output_path,
                name,
                overwrite,
                dry_run,
                json,
            )
            optimize_work.optimize(wish, job, work)
            return
        if dry_run or any(limits):
            known, advised = quantize_work.forecast(job, *limits)
            calibration.require_possible(known, job.source)
            if dry_run:
                quantize_output.forecast(known, advised, output_path, json)
                return
            wanted = [advised.file_type]
        work = quantize_work.Work(job, model, wanted, overwrite, check, calibration)
        made, kept = work.into_files(output_path) if output_path is not None else work.into_store(name)
    quantize_output.report(made, kept, output_path, json)


@contextmanager
def _called(path: Path, model: str) -> Iterator[None]:
    """Errors call a model of the store by its name, not by the file that it has there."""
    try:
        yield
    except LocalAIError as error:
        if not model:
            raise
        words = (text.replace(str(path), model) for text in (error.message, error.hint))
        raise type(error)(*words) from error


def _find(source: str) -> tuple[Path, str]:
    """Where `source` is, and its name in the store if it was meant as one."""
    from models.local_path import is_path
    from models.names import is_name
    from models.store import Store

    path = options.path(source)
    if path.exists() or is_path(source) or not is_name(source):
        return path, ""
    found = next((one for one in Store().manifests() if one.name == source.lower()), None)
    if found is None:
        return path, ""  # the worker says that there is no such folder, and which may be meant
    return Store().path(found), found.name


def _bytes(text: str | None, option: str) -> int | None:
    """A size such as 4GB, 500 MB or 3.5GiB in bytes; None for None. UsageError for anything else."""
    if text is None:
        return None
    match = re.fullmatch(r"([0-9]{1,15}(?:\.[0-9]{1,9})?)\s*([kmgt]i?|)b?", text.strip().lower())
    if match is None or not float(match[1]):
        raise UsageError(f"{option} {text!r} is not a size", "Examples: 4GB, 500MB, 3.5GiB")
    return int(float(match[1]) * _UNITS[match[2]])
