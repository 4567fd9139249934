"""`localai quantize`: from a checkpoint folder to a GGUF file."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import UsageError

if TYPE_CHECKING:
    from quantize.protocol import Report


def quantize(
    source: Annotated[Path, typer.Argument(help="A checkpoint folder with safetensors.", show_default=False)],
    file_type: Annotated[
        str, typer.Option("--type", help="Such as Q4_K_M, Q8_0 or BF16: see docs/quantize.md.")
    ] = "Q4_K_M",
    output_file: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write this file.", show_default=False)
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(help="Keep it in the store under this name. Default: folder:type.", show_default=False),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    pre_tokenizer: Annotated[
        str,
        typer.Option(
            metavar="NAME", help="Where the checkpoint's own is not recognised.", show_default=False
        ),
    ] = "",
    threads: options.Threads = None,
    json: options.Json = False,
) -> None:
    """Convert a checkpoint to GGUF and quantize it."""
    if output_file is not None and name is not None:
        raise UsageError("--output and --name exclude each other", "Give one of them")
    if output_file is not None:
        report = _run(source, output_file, file_type, overwrite, pre_tokenizer, threads)
        _tell(report, str(output_file), json)
    else:
        _into_store(source, file_type, name, overwrite, pre_tokenizer, threads, json)


def _into_store(
    source: Path,
    file_type: str,
    name: str | None,
    overwrite: bool,
    pre_tokenizer: str,
    threads: int | None,
    json: bool,
) -> None:
    from models.names import suggested
    from models.origins import Checkpoint
    from models.store import Store

    store = Store()
    folder = source.expanduser().absolute()
    name = name or suggested(f"{folder.name}:{file_type}")
    store.require_free(name, replace=overwrite)
    with store.incoming() as scratch:
        report = _run(source, scratch / "model.gguf", file_type, False, pre_tokenizer, threads)
        origin = Checkpoint(path=str(folder), recipe=f"--type {file_type}")
        with output.progress() as progress:
            manifest = store.add(
                scratch / "model.gguf",
                name,
                source=origin,
                move=True,
                replace=overwrite,
                on_progress=progress,
            )
    _tell(report, manifest.name, json)


def _run(
    source: Path, target: Path, file_type: str, overwrite: bool, pre_tokenizer: str, threads: int | None
) -> Report:
    from quantize.client import run
    from quantize.protocol import Job

    job = Job(
        source=str(source),
        output=str(target),
        file_type=file_type,
        overwrite=overwrite,
        threads=threads or 0,
        pre_tokenizer=pre_tokenizer,
    )
    with output.progress() as progress:
        return run(job, lambda p: progress(p.stage.capitalize(), p.done_bytes, p.total_bytes))


def _tell(report: Report, where: str, json: bool) -> None:
    if json:
        output.print_json({"result": where, "report": report})
        return
    print(
        f"{where}: {report.file_type}, {report.tensors} tensors, {output.size(report.output_bytes)} "
        f"from {output.size(report.source_bytes)}, in {report.seconds:.1f} s"
    )
    print(f"Try: localai chat {where}")
