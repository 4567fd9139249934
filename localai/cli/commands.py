"""The program that the commands make together. Only what is asked for is imported: a start costs less."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import wraps
from importlib import import_module
from typing import Annotated, Any, Final

import typer

from localai import __version__

GROUPS: Final = ("models", "history")
COMMANDS: Final = (
    *("chat", "ask", "quantize", "imatrix", *GROUPS),
    *("bench", "evaluate", "selftest", "audit"),
)
"""As `--help` lists them. Each is a function, or the `app` of a group, in the module of its name."""


def needed(words: Sequence[str]) -> tuple[str, ...]:
    """The commands that a command line of these `words` needs: that which it names, or all, for the help."""
    return (words[0],) if words and words[0] in COMMANDS else COMMANDS


def program(names: Sequence[str] = COMMANDS) -> typer.Typer:
    """The program with the commands `names`, each of which begins with the organization's policy."""
    app = typer.Typer(
        name="localai",
        help="DeepSeek-R1 on your own device: chat, ask, quantize. Nothing leaves this machine.",
        no_args_is_help=True,
        pretty_exceptions_enable=False,
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    app.callback()(_options)
    for name in names:
        module: Any = import_module(f"localai.cli.{name}")
        if name in GROUPS:
            app.add_typer(module.app, name=name)
        else:
            app.command(name)(getattr(module, name))
    _under_policy(app)
    return app


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"localai {__version__}")
        raise typer.Exit


def _options(
    version: Annotated[
        bool,
        typer.Option(
            "--version",
            callback=_print_version,
            is_eager=True,
            help="Show the version and exit.",
        ),
    ] = False,
) -> None:
    pass


def _under_policy(group: typer.Typer) -> None:
    """Have each command begin with the organization's policy: if that is broken, none runs.

    Not in a callback of the group, which also runs for `localai COMMAND --help`.
    """
    for command in group.registered_commands:
        if command.callback is not None:
            command.callback = _checked_first(command.callback)
    for inner in group.registered_groups:
        if inner.typer_instance is not None:
            _under_policy(inner.typer_instance)


def _checked_first(command: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(command)
    def checked(*args: Any, **given: Any) -> Any:
        from localai import policy

        policy.current()
        return command(*args, **given)

    return checked
