"""`localai models`: what is installed, and what can be done with it. Getting models: `localai.cli.pull`."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localai.cli import discover, fit, list_output, options, output, pull, show
from localai.errors import LocalAIError

if TYPE_CHECKING:
    from models.catalog import Entry
    from models.known import Known
    from models.store import Manifest, Store

app = typer.Typer(
    help="List, get, check, show and remove models; find those of other programs; see what fits.",
    no_args_is_help=True,
)

Name = Annotated[str, typer.Argument(help="An installed model's name.", show_default=False)]


def list_models(json: options.Json = False) -> None:
    """Show the installed models, what they take on the disk, and those that can be had by name."""
    from models import catalog
    from models.known import Known
    from models.store import Store

    store = Store()
    manifests = store.manifests()
    names = {manifest.name for manifest in manifests}
    available = [entry for entry in catalog.entries() if entry.name not in names]
    known = Known([manifest.sha256 for manifest in manifests])
    if json:
        output.print_json(_as_data(store, manifests, available, known))
        return
    if manifests:
        list_output.installed([_row(store, manifest) for manifest in manifests], manifests, known)
    else:
        print("No model is installed.")
    _print_state(store, manifests)
    list_output.note_damaged(known)
    if available:
        print(
            "\nTo be had with `localai models pull NAME` or NAME:TYPE (`localai models fit` tells what fits):"
        )
        output.print_table(["NAME", "TYPE", "SIZE", "ABOUT"], [_available(entry) for entry in available])


def _as_data(store: Store, manifests: list[Manifest], available: list[Entry], known: Known) -> dict[str, Any]:
    import msgspec

    from models import usage

    installed = []
    for manifest in manifests:
        used = usage.last_used(manifest.sha256)
        more = {
            "disk_bytes": store.disk_bytes(manifest),
            "last_used": used.isoformat() if used else None,
            "shared": not store.is_own(manifest.name),
            "figures": known.of(manifest.sha256),
        }
        installed.append(msgspec.to_builtins(manifest) | more)
    removed = [
        {"name": item.manifest.name, "removed": item.when, "size": item.manifest.size}
        for item in store.removed()
    ]
    return {
        "installed": installed,
        "available": available,
        "damaged": _damaged(store),
        "removed": removed,
        "prunable_bytes": store.prunable(),
        "unfinished": store.unfinished(),
    }


def _damaged(store: Store) -> list[dict[str, str]]:
    unusable = [(str(item.path), item.reason) for item in store.damaged()]
    unusable += [
        (item.name, f"its file {fault}") for item in store.manifests() if (fault := store.fault(item))
    ]
    return [{"path": path, "reason": reason} for path, reason in unusable]


def _row(store: Store, manifest: Manifest) -> dict[str, str]:
    from models import usage

    used = usage.last_used(manifest.sha256)
    own = store.is_own(manifest.name)
    taken = output.size(store.disk_bytes(manifest)) if own else "shared"
    return {
        "NAME": manifest.name,
        "TYPE": manifest.file_type,
        "SIZE": output.size(manifest.size),
        "ON DISK": _sharing(store, manifest) or taken,
        "PARAMETERS": output.count(manifest.parameters),
        "CONTEXT": f"{manifest.context_trained:,}",
        "REASONING": "yes" if manifest.reasoning else "no",
        "LAST USED": used.astimezone().strftime("%Y-%m-%d %H:%M") if used else "never",
    }


def _sharing(store: Store, manifest: Manifest) -> str:
    """Of a model whose bytes are another program's, too."""
    if manifest.places:
        return "reference"
    return "hard link" if store.is_own(manifest.name) and store.is_linked(manifest) else ""


def _print_state(store: Store, manifests: list[Manifest]) -> None:
    """What needs attention: damaged models, removed ones, fetches that were interrupted."""
    from models.manifest import digests_of, repair_hint

    digests = {manifest.sha256: store.disk_bytes(manifest) for manifest in manifests}
    if len(digests) > 1 and any(digests.values()):
        print(f"{output.size(sum(digests.values()))} on the disk in all.")
    for manifest in manifests:
        if fault := store.fault(manifest):
            output.note(f"{manifest.name} cannot be used: its file {fault}. {repair_hint(manifest)}")
        elif note := show.list_note(manifest.name, digests_of(manifest)):
            output.note(note)
    for item in store.damaged():
        output.note(f"left out: {item.reason}")
    for one in store.unfinished():
        state = "is being fetched" if one.running else "is not complete"
        of = f" of {output.size(one.total)}" if one.total else ""
        again = one.command or f"pull {one.name}"
        more = "" if one.running else f": `localai models {again}` goes on"
        print(output.one_line(f"{one.name} {state}, {output.size(one.arrived)}{of} are here{more}."))
    if removed := store.removed():
        names = ", ".join(dict.fromkeys(item.manifest.name for item in removed))
        waiting = store.prunable()
        frees = f", `localai models prune` frees {output.size(waiting)}" if waiting else ""
        print(f"Removed or replaced: {names}. `localai models restore NAME` brings one back{frees}.")


def _available(entry: Entry) -> list[str]:
    from models.origins import size_of

    ready = entry.ready(entry.type)
    known = (size_of(ready[0].source) if ready else 0) or entry.weights.get(entry.type, 0)
    return [entry.name, entry.type, output.size(known) if known else "", entry.note or entry.title]


def verify(
    names: Annotated[
        list[str] | None, typer.Argument(help="Installed models. Default: all.", show_default=False)
    ] = None,
    json: options.Json = False,
) -> None:
    """Hash models again and compare: tells what is damaged from what is missing."""
    from models.store import Store

    store = Store()
    chosen = [store.get(name) for name in names] if names else store.manifests()
    with output.progress() as progress:
        found = [_verified(store, manifest, progress) for manifest in chosen]
    unreadable = [] if names else store.damaged()
    found += [{"name": str(item.path), "result": "damaged", "reason": item.reason} for item in unreadable]
    if json:
        output.print_json(found)
    else:
        for one in found:
            reason = f". {one['reason']}" if one["reason"] else ""
            print(output.one_line(f"{one['name']}: {one['result']}{reason}"))
        if not found:
            print("No model is installed.")
    if any(one["result"] != "ok" for one in found):
        raise typer.Exit(1)


def _verified(store: Store, manifest: Manifest, progress: output.Progress) -> dict[str, str]:
    try:
        store.verify(manifest, lambda step, done, total: progress(step, done, total, manifest.name))
    except LocalAIError as error:
        result = "missing" if store.is_missing(manifest) else "damaged"
        return {"name": manifest.name, "result": result, "reason": str(error)}
    return {"name": manifest.name, "result": "ok", "reason": ""}


def path(
    name: Name,
    all_parts: Annotated[bool, typer.Option("--all", help="All files of a model in parts.")] = False,
) -> None:
    """Print where a model's file is, for other programs; of a model in parts, the first."""
    from models.store import Store

    store = Store()
    found = store.paths(store.get(name))
    for one in found if all_parts else found[:1]:
        # A program that asks needs the very path; on a screen it is a text like any other.
        print(output.clean(str(one)) if sys.stdout.isatty() else one)


def rename(
    name: Name,
    new: Annotated[str, typer.Argument(help="What to call it.", show_default=False)],
    json: options.Json = False,
) -> None:
    """Give a model another name."""
    from models.store import Store

    manifest = Store().rename(name, new)
    if json:
        output.print_json(manifest)
    else:
        print(output.one_line(f"{name} is called {manifest.name} now"))


def remove(
    names: Annotated[list[str], typer.Argument(help="Installed models' names.", show_default=False)],
    now: Annotated[bool, typer.Option("--now", help="Free their space at once: no way back.")] = False,
    json: options.Json = False,
) -> None:
    """Remove models. They can be brought back until their space is freed: `restore` and `prune`."""
    from models.names import canonical
    from models.store import Store

    store = Store()
    names = list(dict.fromkeys(map(canonical, names)))
    for name in names:
        if not store.is_own(name):
            store.remove(name)  # raises, saying why it cannot be
    removed = [(name, store.remove(name)) for name in names]
    freed = store.discard([item for _, item in removed if item is not None]) if now else 0
    if json:
        one = names[0] if len(names) == 1 else names
        waiting = store.prunable()
        output.print_json({"removed": one, "names": names, "freed_bytes": freed, "prunable_bytes": waiting})
        return
    for name, item in removed:
        back = f" localai models restore {name} brings it back." if item is None or not now else ""
        print(f"Removed {name}.{back}")
    if now:
        print(f"{output.size(freed)} freed.")
    elif waiting := store.prunable():
        print(f"`localai models prune` frees {output.size(waiting)}.")


def restore(name: Annotated[str, typer.Argument(help="A removed model's name.", show_default=False)]) -> None:
    """Bring back a model that was removed."""
    from models.store import Store

    store = Store()
    manifest = store.restore(name)
    fault = store.fault(manifest)
    print(f"{manifest.name} is back" + (f", but its file {fault}" if fault else ""))


def prune(json: options.Json = False) -> None:
    """Free the space of removed models, and of fetches that were given up."""
    from models.store import Store

    done = Store().prune()
    if json:
        output.print_json(done)
        return
    gone = f"Gone for good: {', '.join(done.models)}. " if done.models else ""
    print(f"{gone}{output.size(done.freed)} freed.")


for _name, _command in (
    ("list", list_models),
    ("fit", fit.fit),
    ("pull", pull.pull),
    ("discover", discover.discover),
    ("import", pull.import_model),
    ("show", show.show),
    ("accept", show.accept),
    ("verify", verify),
    ("path", path),
    ("rename", rename),
    ("remove", remove),
    ("restore", restore),
    ("prune", prune),
):
    app.command(_name)(_command)
