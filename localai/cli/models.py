"""`localai models`: what is installed, and how to get more."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from localai.cli import options, output
from localai.errors import UsageError

if TYPE_CHECKING:
    from models.store import Manifest, Store

app = typer.Typer(help="List, get, show and remove models.", no_args_is_help=True)


@app.command("list")
def list_models(json: options.Json = False) -> None:
    """Show the installed models, and those that can be had by name."""
    from models import catalog
    from models.manifest import repair_hint
    from models.store import Store

    store = Store()
    manifests = store.manifests()
    names = {manifest.name for manifest in manifests}
    available = [entry for entry in catalog.entries() if entry.name not in names]
    if json:
        output.print_json({"installed": manifests, "available": available, "damaged": _damaged(store)})
        return
    if manifests:
        headers = ["NAME", "TYPE", "SIZE", "PARAMETERS", "CONTEXT", "REASONING"]
        output.print_table(headers, [_row(manifest) for manifest in manifests])
        for manifest in manifests:
            if fault := store.fault(manifest):
                output.note(f"{manifest.name} cannot be used: its file {fault}. {repair_hint(manifest)}")
    else:
        print("No model is installed.")
    for item in store.damaged():
        output.note(f"left out: {item.reason}")
    if available:
        print("\nTo be had with `localai models pull NAME`:")
        output.print_table(
            ["NAME", "TYPE", "ABOUT"], [[e.name, e.type, e.note or e.title] for e in available]
        )


def _damaged(store: Store) -> list[dict[str, str]]:
    unusable = [(str(item.path), item.reason) for item in store.damaged()]
    unusable += [
        (item.name, f"its file {fault}") for item in store.manifests() if (fault := store.fault(item))
    ]
    return [{"path": path, "reason": reason} for path, reason in unusable]


def _row(manifest: Manifest) -> list[str]:
    return [
        manifest.name,
        manifest.file_type,
        output.size(manifest.size),
        output.count(manifest.parameters),
        f"{manifest.context_trained:,}",
        "yes" if manifest.reasoning else "no",
    ]


@app.command()
def pull(
    name: Annotated[str, typer.Argument(help="A name from `localai models list`.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Fetch a model by name, verify it and keep it."""
    from models import catalog
    from models.origins import Builtin
    from models.sources import obtain
    from models.store import Store

    entry = catalog.find(name)
    store = Store()
    with output.progress() as progress:
        if isinstance(entry.source, Builtin):
            manifest = _quantize_builtin(entry, entry.source, store, progress)
        else:
            manifest = obtain(entry, store, progress)
    _tell(manifest, json)


def _quantize_builtin(entry: Any, source: Any, store: Store, progress: output.Progress) -> Manifest:
    from localai.cli.quantize_output import Events
    from models import catalog
    from quantize.client import Wanted, run
    from quantize.protocol import Job

    with store.incoming() as folder:
        file = folder / "model.gguf"
        job = Job(source=str(catalog.builtin_checkpoint(source.checkpoint)))
        run(job, [Wanted(entry.type, file)], on_event=Events(progress, []))
        return store.add(
            file, entry.name, source=source, about=entry.about, move=True, replace=True, on_progress=progress
        )


@app.command("import")
def import_model(
    path: Annotated[str, typer.Argument(help="A GGUF file.", show_default=False)],
    name: Annotated[
        str | None, typer.Option(help="What to call it. Default: from the file's name.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Check a GGUF file and copy it into the store."""
    from models.local_path import model_file
    from models.names import suggested
    from models.origins import LocalFile
    from models.store import Store

    file = model_file(path)
    with output.progress() as progress:
        manifest = Store().add(
            file, name or suggested(file.stem), source=LocalFile(path=str(file)), on_progress=progress
        )
    _tell(manifest, json)


@app.command()
def show(
    model: Annotated[str, typer.Argument(help="A model's name or a GGUF file.", show_default=False)],
    json: options.Json = False,
    verify: Annotated[bool, typer.Option("--verify", help="Hash the file again and compare.")] = False,
) -> None:
    """Show what a model is and where it came from."""
    from models.store import Store

    store = Store()
    resolved = store.resolve(model)
    header = resolved.header()
    if verify:
        if resolved.manifest is None:
            raise UsageError(f"{resolved.path} is not in the store: there is nothing to compare it with")
        with output.progress() as progress:
            store.verify(resolved.manifest, progress)
    facts = {
        "name": resolved.name,
        "path": str(resolved.path),
        "title": header.name,
        "architecture": header.architecture,
        "type": header.file_type,
        "parameters": header.parameters,
        "size": header.file_size,
        "context_trained": header.context_trained,
        "kv_bytes_per_token": header.kv_bytes_per_token,
        "license": header.license,
        "verified": True if verify else None,
        "manifest": resolved.manifest,
    }
    if json:
        output.print_json(facts)
    else:
        _print_facts(facts, resolved.manifest)


def _print_facts(facts: dict[str, Any], manifest: Manifest | None) -> None:
    from models.origins import describe

    context = (
        f"{facts['context_trained']:,} tokens, {output.size(facts['kv_bytes_per_token'])} of memory each"
    )
    rows = {
        "name": facts["name"],
        "title": manifest.title if manifest else facts["title"],
        "architecture": facts["architecture"],
        "type": facts["type"],
        "parameters": f"{facts['parameters']:,}",
        "size": f"{output.size(facts['size'])} ({facts['size']:,} bytes)",
        "context": context,
        "license": facts["license"] or (manifest.license if manifest else "") or "not stated",
        "file": facts["path"],
    }
    if manifest is not None:
        rows |= {
            "sha256": manifest.sha256 + (" (verified now)" if facts["verified"] else ""),
            "source": describe(manifest.source),
            "added": manifest.added[:19].replace("T", " ") + " UTC",
            "reasoning": "yes" if manifest.reasoning else "no",
            "note": manifest.note,
        }
    for label, value in rows.items():
        if value:
            print(f"{label:<14}{' '.join(output.clean(str(value)).split())}")


@app.command()
def remove(
    name: Annotated[str, typer.Argument(help="An installed model's name.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Remove a model from the store."""
    from models.store import Store

    freed = Store().remove(name)
    if json:
        output.print_json({"removed": name, "freed_bytes": freed})
    else:
        print(f"Removed {name}: {output.size(freed)} freed")


def _tell(manifest: Manifest, json: bool) -> None:
    if json:
        output.print_json(manifest)
        return
    print(
        f"{manifest.name} is installed: {manifest.title}, {manifest.file_type}, {output.size(manifest.size)}"
    )
    if manifest.note:
        print(manifest.note)
    print(f"Try: localai chat {manifest.name}")
