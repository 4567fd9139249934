"""`localai models pull` and `import`: how models get into the store."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options, output
from localai.errors import UsageError

if TYPE_CHECKING:
    from models.store import Manifest

Allow = Annotated[
    list[str] | None,
    typer.Option(
        "--allow-architecture",
        metavar="NAME",
        help="Also take a model of this architecture. Only those of R1's family have been tried.",
    ),
]
Called = Annotated[str | None, typer.Option("--name", help="What to call it.", show_default=False)]


def pull(
    model: Annotated[
        str,
        typer.Argument(
            metavar="MODEL",
            help="NAME or NAME:TYPE of `localai models list`; or OWNER/REPOSITORY:TYPE@REVISION on the hub, "
            "where type and revision may be left out; or an https address.",
            show_default=False,
        ),
    ],
    name: Called = None,
    from_source: Annotated[
        bool, typer.Option("--from-source", help="Fetch the publisher's own weights and quantize them here.")
    ] = False,
    sha256: Annotated[
        str | None,
        typer.Option(help="The digest that the file must have; an address needs one.", show_default=False),
    ] = None,
    file: Annotated[
        str | None,
        typer.Option(help="The file in the repository, where its type does not tell.", show_default=False),
    ] = None,
    anyway: Annotated[
        bool, typer.Option("--anyway", help="Fetch it although it is too large for this machine.")
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only tell what would be fetched, and whether it fits.")
    ] = False,
    accept_change: Annotated[
        bool, typer.Option("--accept-change", help="Take a file that was replaced since its first fetch.")
    ] = False,
    allow_architecture: Allow = None,
    json: options.Json = False,
) -> None:
    """Fetch a model, verify it and keep it. If it is interrupted, the same command goes on."""
    from localai.cli.pull_work import Work
    from models import catalog
    from models.origins import without_userinfo
    from models.sources import asked
    from models.store import Store

    model = asked.tidied(model)
    again = ["pull", *(["--from-source"] if from_source else []), model]
    for option, value in (("--name", name), ("--sha256", sha256), ("--file", file)):
        again += [option, value] if value else []
    for one in allow_architecture or ():
        again += ["--allow-architecture", one]
    if "://" in model and without_userinfo(model) != model:
        again = []  # it would write down a password
    work = Work(
        Store(),
        anyway=anyway,
        dry_run=dry_run,
        json=json,
        accept_change=accept_change,
        command=shlex.join(again),
    )
    if asked.is_name(model):
        if sha256 or file:
            raise UsageError("--sha256 and --file are for addresses and repositories: a name says which file")
        wanted = catalog.wanted(model)
        if wanted.entry.is_builtin:
            work.quantize_builtin(wanted, name)
        elif from_source:
            work.from_source(wanted, name)
        else:
            work.fetch(asked.by_name(wanted, name), wanted, allow_architecture)
        return
    if from_source:
        raise UsageError(
            "--from-source is for names of the catalogue",
            "Other checkpoints: fetch the folder yourself, then localai quantize FOLDER",
        )
    if "://" in model:
        if file:
            raise UsageError("--file is for repositories on the hub: an address is of one file")
        work.fetch(asked.at_address(model, name, sha256), None, allow_architecture)
    else:
        work.fetch(asked.on_the_hub(model, name, file, sha256), None, allow_architecture)


def import_model(
    path: Annotated[
        str,
        typer.Argument(
            help="A GGUF file, the first of several parts, or a checkpoint folder.", show_default=False
        ),
    ],
    name: Called = None,
    link: Annotated[
        bool, typer.Option("--link", help="Do not copy: share the bytes of the file, or refer to it.")
    ] = False,
    file_type: Annotated[
        str | None,
        typer.Option(
            "--type", "-t", help="What to quantize a checkpoint to. Default: what suits.", show_default=False
        ),
    ] = None,
    allow_architecture: Allow = None,
    json: options.Json = False,
) -> None:
    """Check a model that is on this machine, and add it to the store."""
    from models.local_path import model_file

    folder = options.path(path)
    if folder.is_dir() and (folder / "config.json").is_file():
        if link:
            raise UsageError("--link is for GGUF files: a checkpoint is quantized, which makes a new file")
        _import_checkpoint(folder, name, file_type, json)
        return
    if file_type:
        raise UsageError("--type is for checkpoint folders", "To quantize a GGUF file: localai quantize FILE")
    manifest = _import_file(model_file(path), name, link, tuple(allow_architecture or ()))
    tell(manifest, json)


def _import_file(file: Path, name: str | None, link: bool, allow: tuple[str, ...]) -> Manifest:
    from models.names import suggested
    from models.origins import LocalFile
    from models.parts import files_of, read_whole, stem_of
    from models.store import Store

    store, called = Store(), name or suggested(stem_of(file.name))
    origin = LocalFile(path=str(file))
    with output.progress() as progress:
        if not link:
            return store.add(file, called, source=origin, allow=allow, on_progress=progress)
        whole = files_of(file) if read_whole(file, allow).split_count > 1 else [file]
        return store.adopt(whole, called, source=origin, allow=allow, on_progress=progress)


def _import_checkpoint(folder: Path, name: str | None, file_type: str | None, json: bool) -> None:
    """As `localai quantize` into the store does it."""
    from localai.cli import quantize_work
    from models.store import Store
    from quantize.file_types import FILE_TYPES
    from quantize.protocol import Job

    if file_type is not None and file_type.upper() not in FILE_TYPES:
        raise UsageError(f"{file_type!r} is not a type", f"One of: {', '.join(FILE_TYPES)}")
    job = Job(source=str(folder))
    chosen = file_type.upper() if file_type else quantize_work.forecast(job, None, None)[1].file_type
    store = Store()
    if name is not None:
        store.require_free(name)
    names = quantize_work.Work(job, "", [chosen], False, True).into_store(name)[1]
    tell(store.get(names[0]), json)


def tell(manifest: Manifest, json: bool) -> None:
    """What was added, and how to use it."""
    from localai.cli.show import list_note, template_note
    from models.manifest import digests_of

    unlisted = list_note(manifest.name, digests_of(manifest))
    if unlisted:
        output.note(unlisted)
    if json:
        output.print_json(manifest)
        return
    print(
        f"{manifest.name} is installed: {output.one_line(manifest.title)}, {manifest.file_type}, "
        f"{output.size(manifest.size)}"
    )
    if manifest.note:
        print(output.one_line(manifest.note))
    if note := template_note(manifest):
        output.note(note)
    elif not unlisted:
        print(f"Try: localai chat {manifest.name}")
