"""`localai imatrix`: how strongly a model uses each column of its matrices, for quantizing with care."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import UsageError

if TYPE_CHECKING:
    from models.store import Resolved
    from quantize.collecting import Reading, Text
    from quantize.imatrix_file import Collected
    from quantize.partials import Partial


def imatrix(
    model: Annotated[
        str,
        typer.Argument(help="A model's name or a GGUF file, best in F16, BF16 or Q8_0.", show_default=False),
    ],
    output_path: Annotated[Path, typer.Option("--output", "-o", help="Write this file.", show_default=False)],
    text: Annotated[
        Path | None,
        typer.Option(
            help="A text in UTF-8. Default: one of many kinds that comes along.", show_default=False
        ),
    ] = None,
    chunks: Annotated[int, typer.Option(min=0, max=1_000_000, help="Pieces to read at most. 0: all.")] = 0,
    context: Annotated[
        int | None,
        typer.Option("--context", "-c", min=32, max=131_072, help="Tokens of a piece. Default: 512."),
    ] = None,
    parse_special: Annotated[
        bool, typer.Option("--parse-special", help="Read markers in the text, as of a chat, as markers.")
    ] = False,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = None,
    allow_architecture: options.AllowArchitecture = None,
    sandbox: options.Sandbox = None,
    json: options.Json = False,
) -> None:
    """Have a model read a text and write how strongly it used each column of its matrices.

    With the file, `localai quantize --imatrix FILE` keeps most exact what was used most; there, `auto` makes
    one. The file is as llama-imatrix writes it.
    """
    from models.store import Store
    from quantize.collecting import Reading
    from quantize.partials import Partial

    started = time.monotonic()
    target = options.path(output_path)
    resolved = options.choose_model(Store(), model)
    loading = options.Loading(allow_architecture=allow_architecture)
    options.header(resolved, allowed := loading.allowed(resolved))
    given = options.path(text) if text is not None else None
    _require_no_input(target, resolved.path, given)
    words = _text(given, parse_special)
    reading = Reading(context, chunks, threads, gpu_layers, allowed)
    with Partial(target.absolute(), overwrite=overwrite) as partial:
        found = _write(resolved, words, reading, partial)
        partial.commit()
    _report(resolved, found, target, time.monotonic() - started, json)


def _require_no_input(target: Path, *inputs: Path | None) -> None:
    """UsageError if the output is what is read, or among the store's own files."""
    from localai.cli.quantize_work import require_outside_of_the_store

    require_outside_of_the_store(target)
    for path in inputs:
        if path is not None and target.exists() and path.exists() and target.samefile(path):
            raise UsageError(f"{target} is what is read", "Choose another output")


def calibration_text() -> Text:
    """The text that comes with the program for this."""
    from localai.evaluation import texts
    from quantize.collecting import Text

    return Text(*texts.built_in(texts.CALIBRATION))


def _text(given: Path | None, special: bool) -> Text:
    """The text in the file `given`, or the one that comes with the program."""
    from localai.evaluation import texts
    from quantize.collecting import Text

    if given is not None:
        return Text(str(given), texts.read(given).content, special)
    if special:
        raise UsageError("--parse-special is for a text of your own", "Give one with --text")
    return calibration_text()


def _write(model: Resolved, words: Text, reading: Reading, partial: Partial) -> Collected:
    from quantize import collecting, imatrix_file

    with output.progress() as progress:
        found = collecting.collect(
            model.path,
            words,
            reading,
            lambda done, total: progress("Read", done, total, unit="tokens"),
            name=options.stored_name(model),
            sha256=options.digest(model),
        )
    imatrix_file.write(found, partial)
    return found


def _report(model: Resolved, found: Collected, target: Path, seconds: float, json: bool) -> None:
    tokens = found.chunks * found.chunk
    if json:
        import hashlib

        output.print_json(
            {
                "result": str(target),
                "model": model.name,
                "text": found.dataset,
                "matrices": len(found.matrices),
                "chunks": found.chunks,
                "context": found.chunk,
                "tokens": tokens,
                "seconds": round(seconds, 3),
                "output_bytes": target.stat().st_size,
                "sha256": hashlib.sha256(target.read_bytes()).hexdigest(),
            }
        )
        return
    file = output.one_line(shlex.quote(str(target)))
    print(
        f"{output.one_line(str(target))}: {len(found.matrices)} matrices, {found.chunks:,} pieces of "
        f"{found.chunk:,} tokens, {output.size(target.stat().st_size)}"
    )
    print(f"In {output.duration(seconds)}. Try: localai quantize FOLDER --type IQ2_M --imatrix {file}")
