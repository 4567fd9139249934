"""`localai imatrix`: how strongly a model uses each column of its matrices, for quantizing with care."""

from __future__ import annotations

import shlex
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import calibrating, options, output
from localai.errors import UsageError

if TYPE_CHECKING:
    from models.store import Resolved
    from quantize.imatrix_file import Collected
    from quantize.partials import Partial
    from quantize.self_text import SelfText
    from quantize.texts import Reading, Text


@options.spread
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
    save_text: Annotated[
        Path | None,
        typer.Option(
            "--save-text",
            metavar="FILE",
            help="With --calibrate self: write here what the model wrote.",
            show_default=False,
        ),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace the output if it exists.")] = False,
    threads: options.Threads = None,
    gpu_layers: options.GpuLayers = None,
    allow_architecture: options.AllowArchitecture = None,
    sandbox: options.Sandbox = None,
    json: options.Json = False,
    *,
    calibration: calibrating.Calibrating,
) -> None:
    """Have a model read a text and write how strongly it used each column of its matrices.

    With the file, `localai quantize --imatrix FILE` keeps most exact what was
    used most, so that small types lose less; there, `auto` makes one. The
    file is as llama-imatrix writes it.
    """
    from contextlib import nullcontext

    from models.store import Store
    from quantize.partials import Partial
    from quantize.texts import Reading

    started = time.monotonic()
    target = options.path(output_path)
    resolved = options.choose_model(Store(), model)
    loading = options.Loading(allow_architecture=allow_architecture)
    options.header(resolved, allowed := loading.allowed(resolved))
    given = options.path(text) if text is not None else None
    saved = options.path(save_text) if save_text is not None else None
    for written in (target, *([saved] if saved is not None else [])):
        _require_no_input(written, resolved.path, given)
    source = _text(given, parse_special, calibration)
    _require_written(source, saved, target)
    reading = Reading(context, chunks, threads, gpu_layers, allowed)
    with (
        Partial(target.absolute(), overwrite=overwrite) as partial,
        nullcontext() if saved is None else Partial(saved.absolute(), overwrite=overwrite) as kept,
    ):
        found = _write(resolved, source, reading, partial, kept)
        partial.commit()
    _report(resolved, found, target, time.monotonic() - started, json)


def _require_written(source: Text | SelfText, saved: Path | None, target: Path) -> None:
    """UsageError if a text is to be saved that nobody writes, or in the place of the result."""
    from quantize.texts import Text

    if saved is not None and isinstance(source, Text):
        raise UsageError("--save-text is for a text that the model writes", "Add --calibrate self")
    if saved is not None and saved.resolve() == target.resolve():
        raise UsageError(f"{saved} is the output already", "Choose another file for --save-text")


def _require_no_input(target: Path, *inputs: Path | None) -> None:
    """UsageError if the output is what is read, or among the store's own files."""
    from localai.cli.quantize_work import require_outside_of_the_store

    require_outside_of_the_store(target)
    for path in inputs:
        if path is not None and target.exists() and path.exists() and target.samefile(path):
            raise UsageError(f"{target} is what is read", "Choose another output")


def _text(given: Path | None, special: bool, calibration: calibrating.Calibrating) -> Text | SelfText:
    """The text in the file `given`, or the one that the options of `calibration` name."""
    from localai.evaluation import texts
    from quantize.texts import Text

    if given is not None:
        if words := calibration.words():
            raise UsageError(f"--text and {words[0]} exclude each other", "Give one of them")
        return Text(str(given), texts.read(given).content, special)
    if special:
        raise UsageError("--parse-special is for a text of your own", "Give one with --text")
    return calibration.text()


def _write(
    model: Resolved, source: Text | SelfText, reading: Reading, partial: Partial, kept: Partial | None
) -> Collected:
    """Collect into `partial`; what the model writes itself goes into `kept`, too, if there is such a file.

    That text gets its place as soon as it is written: it takes long, and is of use also without the rest.
    """
    from quantize import collecting, imatrix_file, self_text
    from quantize.output_file import write_all
    from quantize.partials import system_errors

    name, sha256 = options.stored_name(model), options.digest(model)
    with output.again(), output.progress() as progress:
        text = self_text.text_of(
            source,
            model.path,
            reading,
            lambda done, total: progress("Write", done, total, unit="tokens"),
            name=name,
            sha256=sha256,
        )
        if kept is not None:
            with system_errors(kept.output):
                write_all(kept.fd, text.content.encode(), 0)
            kept.commit()
            output.note(
                f"what the model wrote is in {kept.output}; --calibrate with that file reads it again"
            )
        found = collecting.collect(
            model.path,
            text,
            reading,
            lambda done, total: progress("Read", done, total, unit="tokens"),
            name=name,
            sha256=sha256,
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
