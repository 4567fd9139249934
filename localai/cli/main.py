"""The command `localai`: where the groups of commands come together, and where errors become one line."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from contextlib import suppress
from functools import wraps
from typing import Annotated, Any

import typer

from localai import __version__
from localai.cli import (
    ask,
    audit,
    bench,
    chat,
    evaluate,
    history,
    imatrix,
    models,
    output,
    quantize,
    selftest,
)
from localai.errors import LocalAIError, UsageError

INTERRUPTED = 130

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
app.command("imatrix")(imatrix.imatrix)
app.add_typer(models.app, name="models")
app.add_typer(history.app, name="history")
app.command("bench")(bench.bench)
app.command("evaluate")(evaluate.evaluate)
app.command("selftest")(selftest.selftest)
app.command("audit")(audit.audit)


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
    _prepare_streams()
    signal.signal(signal.SIGINT, signal.default_int_handler)
    for number in (getattr(signal, name, None) for name in ("SIGTERM", "SIGHUP")):
        if number is not None:
            signal.signal(number, _end)
    code = run()
    if code == INTERRUPTED:
        # Where Ctrl+C hit an exec() of text, as in imports, CPython would now end by the signal all the same.
        sys.stderr.flush()
        os._exit(code)
    sys.exit(code)


def _prepare_streams() -> None:
    """Closed streams go nowhere, and what a stream's encoding cannot say becomes a question mark."""
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:  # closed: else the next file that is opened would be taken for it
            os.open(os.devnull, os.O_RDWR)
    for name in ("stdout", "stderr"):
        stream = getattr(sys, name)
        if stream is None:
            setattr(sys, name, open(os.devnull, "w", encoding="utf-8"))  # noqa: PTH123, SIM115
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def _end(number: int, _frame: object) -> None:
    """Told to end by a signal: clean up, as after an error."""
    if asyncio := sys.modules.get("asyncio"):
        with suppress(RuntimeError):  # no loop is running
            # Whichever task it hits, not only the one that is waited for, ends by it: that is no news.
            asyncio.get_running_loop().set_exception_handler(lambda loop, context: None)
    raise SystemExit(128 + number)


def run() -> int:
    """Run the command line and return its exit code: 0 done, 1 failed, 2 wrong usage, 130 interrupted."""
    try:
        _check_arguments(sys.argv[1:])
        code = int(app(standalone_mode=False) or 0)
        sys.stdout.flush()
    except LocalAIError as error:
        output.error(error.message, error.hint)
        return error.exit_code
    except (KeyboardInterrupt, typer.Abort):
        code = INTERRUPTED
    except OSError as error:
        return _lost_output(error)
    except Exception as error:  # noqa: BLE001 - the process boundary: one line instead of a traceback
        return _unexpected(error)
    if code == INTERRUPTED:
        output.error("interrupted")
    return code


def _check_arguments(words: list[str]) -> None:
    for word in words:
        if not word.isprintable() and any("\ud800" <= character <= "\udfff" for character in word):
            raise UsageError(f"the argument {word!r} is not UTF-8 text", "Rename the file, or write it anew")


def _lost_output(error: OSError) -> int:
    """What a command could not write; errors with files of our own have been mapped before."""
    if error.filename is not None:
        return _unexpected(error)
    # Nothing may be flushed any more, at the interpreter's end either. A reader that went away is no error.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    if not isinstance(error, BrokenPipeError):
        output.error(f"standard output could not be written: {error.strerror or error}")
    return 1


def _unexpected(error: Exception) -> int:
    usage = getattr(error, "format_message", None)
    if usage is not None:  # the parser's own errors
        context = getattr(error, "ctx", None)
        command = context.command_path if context else "localai"
        if message := usage():
            dashes = "-- ends the options. " if type(error).__name__ == "NoSuchOption" else ""
            output.error(message, f"{dashes}Try `{command} --help`")
        return int(getattr(error, "exit_code", 2))
    if os.environ.get("LOCALAI_DEBUG"):
        raise error
    output.error(
        f"unexpected {type(error).__name__}: {error}",
        "This is a defect. LOCALAI_DEBUG=1 shows where, `localai selftest` prints what a report needs",
    )
    return 1


_under_policy(app)

if __name__ == "__main__":
    main()
