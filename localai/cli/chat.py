"""`localai chat`: the terminal chat."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from localai.chat.clean import clean
from localai.cli import first_run, options, unlock
from localai.errors import UsageError

if TYPE_CHECKING:
    from localai.history import History
    from models.store import Resolved, Store

Model = Annotated[
    str | None,
    typer.Argument(
        metavar="[MODEL]",
        help="A model's name or a GGUF file. Default: the newest reasoning model.",
        show_default=False,
    ),
]
System = Annotated[str, typer.Option(help="A system prompt for new conversations.")]
Starter = Annotated[
    bool,
    typer.Option("--starter", help="On the first run, offer the small starter model before all others."),
]
Incognito = Annotated[
    bool, typer.Option("--incognito", help="Keep nothing: conversations and drafts stay in memory.")
]
PlainHistory = Annotated[
    bool, typer.Option("--plain-history", help="Store new conversations without encryption.")
]


@options.spread
def chat(
    model: Model = None,
    system: System = "",
    starter: Starter = False,
    incognito: Incognito = False,
    plain_history: PlainHistory = False,
    *,
    drawing: options.Drawing,
    ending: options.Ending,
    loading: options.Loading,
    speculation: options.Speculation,
) -> None:
    """Open the terminal chat. The first time, it asks for a model, and how to protect what you write."""
    incognito = _check(incognito, plain_history)
    from localai.engine.client import Engine
    from localai.history import StateStore
    from models.store import Store
    from tui.app import ChatApp, run_chat
    from tui.shelf import StoreShelf

    store, sampling, limits = Store(), drawing.sampling(), ending.limits()
    drafter = speculation.drafter(store, loading.allowed())
    load_options = loading.options(
        drafter, speculate=speculation.speculate, draft=str(drafter.path) if drafter else None
    )
    decided = "memory" if incognito else "plain" if plain_history else ""
    resolved, history = _begin(store, model, starter, decided, loading)
    app = ChatApp(
        Engine(),
        history,
        StoreShelf(store, loading.allowed()),
        model=str(resolved.path) if resolved.manifest is None else resolved.name,
        load_options=load_options,
        system=clean(system),
        sampling=sampling,
        limits=limits,
        states=None if history.in_memory else StateStore(history.key),
        kept=history.kept,
    )
    if code := run_chat(app):
        raise typer.Exit(code)


def _check(incognito: bool, plain_history: bool) -> bool:
    """Whether nothing is kept, as the user or the organization wants it. UsageError, PolicyError."""
    from localai import policy

    if not (sys.stdin.isatty() and sys.stdout.isatty()):
        raise UsageError("the chat needs a terminal", 'Ask without one: localai ask "What is 2 + 2?"')
    if incognito and plain_history:
        raise UsageError("--incognito stores nothing, so --plain-history cannot be given with it")
    if plain_history:
        from localai.history import managed

        managed.check_keeping()
        managed.check_may_be_plain()
    return incognito or policy.current().has("require.incognito")


def _begin(
    store: Store, model: str | None, starter: bool, decided: str, loading: options.Loading
) -> tuple[Resolved, History]:
    """The model and the conversations. What the command line leaves open is asked on the first run."""
    from localai.history import History

    no_model = model is None and not store.manifests()
    resolved = None if no_model else _runnable(store, model, loading)
    begun = first_run.ask(model=no_model, protection=not decided and unlock.is_first_run(), starter=starter)
    resolved = resolved or _runnable(store, begun.model if begun else None, loading)
    if decided == "memory" or (begun and begun.choice == "memory"):
        return resolved, History(memory=True)
    if begun and begun.choice is not None:
        return resolved, History(key=begun.key)
    return resolved, unlock.open_history(plain=decided == "plain")


def _runnable(store: Store, model: str | None, loading: options.Loading) -> Resolved:
    """The model. Where one was asked for that cannot be loaded, that is said here, not on a screen."""
    from models import fit

    resolved = options.choose_model(store, model)
    # To read a header takes up to 0.1 s: whoever asks for nothing special gets the screen that much sooner.
    if model is not None or loading.context is not None:
        fit.check_context(options.header(resolved, loading.allowed()), loading.context)
    return resolved
