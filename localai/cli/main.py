"""The command `localai`: where signals and errors become exit codes and one line."""

from __future__ import annotations

import os
import signal
import sys
from contextlib import suppress

import typer

from localai.cli import output
from localai.cli.commands import needed, program
from localai.errors import LocalAIError, UsageError

INTERRUPTED = 130


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
        code = int(program(needed(sys.argv[1:]))(standalone_mode=False) or 0)
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


if __name__ == "__main__":
    main()
