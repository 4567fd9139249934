"""The command `localai`: where the groups of commands come together, and where errors become one line."""

from __future__ import annotations

import os
import sys
from typing import Annotated

import typer

from localai import __version__
from localai.cli import ask, chat, models, output, quantize, selftest
from localai.errors import LocalAIError

app = typer.Typer(
    name="localai",
    help="DeepSeek-R1 on your own device: chat, ask, quantize. Nothing leaves this machine.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)
app.command("chat")(chat.chat)
app.command("ask")(ask.ask)
app.command("quantize")(quantize.quantize)
app.add_typer(models.app, name="models")
app.command("selftest")(selftest.selftest)


def _print_version(wanted: bool) -> None:
    if wanted:
        typer.echo(f"localai {__version__}")
        raise typer.Exit


@app.callback()
def _options(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_print_version, is_eager=True, help="Show the version and exit."),
    ] = False,
) -> None:
    pass


def main() -> None:
    """Run the command line; the process ends with the exit code that docs/commands.md promises."""
    sys.exit(run())


def run() -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        return int(app(standalone_mode=False) or 0)
    except LocalAIError as error:
        output.error(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        output.error("interrupted")
        return 130
    except BrokenPipeError:
        # The reader of our output has gone: its business. Nothing more may be flushed to it.
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 1
    except Exception as error:  # noqa: BLE001 - the process boundary: one line instead of a traceback
        return _unexpected(error)


def _unexpected(error: Exception) -> int:
    usage = getattr(error, "format_message", None)
    if usage is not None:  # the parser's own errors
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "localai"
        output.error(usage(), f"Try `{command} --help`")
        return int(getattr(error, "exit_code", 2))
    if os.environ.get("LOCALAI_DEBUG"):
        raise error
    output.error(
        f"unexpected {type(error).__name__}: {error}",
        "This is a defect. LOCALAI_DEBUG=1 shows where, `localai selftest` prints what a report needs",
    )
    return 1


if __name__ == "__main__":
    main()
