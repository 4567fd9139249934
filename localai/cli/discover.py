"""`localai models discover`: what other programs on this machine already hold, added without a copy."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from localai.cli import options, output
from localai.errors import LocalAIError, UsageError

if TYPE_CHECKING:
    from models.catalog import Entry
    from models.programs.offers import Offer
    from models.store import Manifest, Store

_LONGEST = 72
"""Of a problem in the table; all of it is in the JSON, and in the error when one tries."""


def discover(
    program: Annotated[
        str | None,
        typer.Argument(
            help="Only Ollama, LM Studio, llama.cpp, GPT4All, Jan, or the hub's cache.", show_default=False
        ),
    ] = None,
    add: Annotated[
        list[str] | None,
        typer.Option(
            "--add", metavar="NAME", help="Add this one. Several times: several.", show_default=False
        ),
    ] = None,
    add_all: Annotated[bool, typer.Option("--add-all", help="Add all that run here.")] = False,
    allow_architecture: Annotated[
        list[str] | None,
        typer.Option(
            "--allow-architecture",
            metavar="NAME",
            help="Also take models of this architecture. Only those of R1's family have been tried.",
            show_default=False,
        ),
    ] = None,
    json: options.Json = False,
) -> None:
    """Find the models that other programs hold, and add them: verified, and without a second copy."""
    from models import catalog, programs
    from models.programs import offers
    from models.store import Store

    if add and add_all:
        raise UsageError("--add-all adds all: --add names some", "Leave one of them out")
    only = programs.program(program) if program else None
    store, entries, allow = Store(), catalog.entries(), tuple(allow_architecture or ())
    found = [one for one in programs.find() if only in (None, one.program)]
    available = offers.offers(found, store, entries, allow)
    if add or add_all:
        wanted = [offers.chosen(available, name) for name in add or ()] or offers.addable(available)
        _add(wanted, store, entries, allow, json)
    elif json:
        output.print_json({"found": [_as_data(offer) for offer in available]})
    else:
        _show(available, only)


def _show(available: list[Offer], only: str | None) -> None:
    from models.header import is_seen
    from models.programs.offers import addable, quantize_command

    if not available:
        print(f"No model was found that {only or 'another program'} holds.")
        return
    rows = [
        [
            offer.name,
            offer.found.program,
            _type(offer),
            output.size(offer.found.size),
            _state(offer),
            _place(offer),
        ]
        for offer in available
    ]
    output.print_table(["NAME", "PROGRAM", "TYPE", "SIZE", "STATE", "PLACE"], rows)
    checkpoints = [one.found for one in available if one.found.kind == "checkpoint" and not one.problem]
    commands = [command for one in checkpoints if all(map(is_seen, command := quantize_command(one)))]
    if addable(available):
        print("\nTo add them without a copy: localai models discover --add NAME, or --add-all")
    if commands:
        print("\nTo make models of checkpoints:")
        for command in commands:
            print(f"  {command}")


def _type(offer: Offer) -> str:
    return "checkpoint" if offer.found.kind == "checkpoint" else offer.type or "?"


def _place(offer: Offer) -> str:
    """The path, from the home on where it is there."""
    path, home = offer.found.paths[0], Path.home()
    shown = Path("~", path.relative_to(home)) if path.is_relative_to(home) else path
    return output.one_line(str(shown))


def _state(offer: Offer) -> str:
    from models.header import printable

    if offer.stored:
        return "in the store"
    if offer.problem:
        return f"no: {printable(offer.problem, _LONGEST)}"
    if offer.found.kind == "checkpoint":
        return "can be quantized"
    return "can be added" + (f": it is {offer.catalogue} of the catalogue" if offer.catalogue else "")


def _as_data(offer: Offer) -> dict[str, Any]:
    from models.programs.offers import quantize_command

    found = offer.found
    is_checkpoint = found.kind == "checkpoint"
    return {
        "name": offer.name,
        "program": found.program,
        "called": found.called,
        "kind": found.kind,
        "type": offer.type,
        "architecture": offer.architecture,
        "size": found.size,
        "paths": [str(path) for path in found.paths],
        "sha256": found.sha256,
        "in_store": offer.stored,
        "can_be_added": offer.can_be_added,
        "catalogue": offer.catalogue,
        "problem": offer.problem,
        "quantize": quantize_command(found) if is_checkpoint and not offer.problem else "",
    }


def _add(wanted: list[Offer], store: Store, entries: list[Entry], allow: tuple[str, ...], json: bool) -> None:
    """One after the other. What fails does not keep the others from being added, but ends with an error."""
    from models.programs.offers import add

    added: list[Manifest] = []
    failed: list[tuple[Offer, LocalAIError]] = []
    for offer in wanted:
        try:
            with output.progress() as progress:
                added.append(add(offer, store, entries, allow, progress))
        except LocalAIError as error:
            failed.append((offer, error))
            continue
        if not json:
            print(_told(added[-1], offer))
    if json:
        wrong = [{"name": offer.name, "error": str(why)} for offer, why in failed]
        output.print_json({"added": added, "failed": wrong})
    elif not wanted:
        print("Nothing was found that could be added.")
    for _, why in failed[:-1]:
        output.error(why.message, why.hint)
    if failed:
        raise failed[-1][1]


def _told(manifest: Manifest, offer: Offer) -> str:
    """What was added, and what becomes of it when the other program deletes its file."""
    program = offer.found.program
    shared = {
        "reflink": f"It shares its bytes with {program} and stays if {program} deletes them.",
        "hard link": f"It is the same file as {program}'s and stays if {program} deletes it.",
        "reference": f"The file stays where it is: if {program} deletes it, the model is gone.",
    }
    size = output.size(manifest.size)
    about = f"{manifest.name} is installed: {manifest.title}, {manifest.file_type}, {size}."
    return " ".join(filter(None, [about, shared.get(manifest.sharing, "")]))
