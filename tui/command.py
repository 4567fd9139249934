"""Our own command line in a process of its own, asked something or at work.

The program with the screen so imports no network code and opens no file of another program. Whatever ends it
ends the process: the commands stop, and clean up, as soon as nobody reads their progress any more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio import StreamReader
from asyncio.subprocess import DEVNULL, PIPE, Process
from contextlib import suppress
from typing import Final

from localai.chat.clean import clean
from localai.errors import LocalAIError
from localai.processes import describe_exit, worker_command, worker_environment

PATIENCE_S: Final = 3.0
"""How long a command that was told to stop may clean up. What a fetch has brought is safe anyway."""
ERROR: Final = "localai: error: "
"""What the line begins with that says why a command failed."""


async def start(words: list[str], *, stdout: int) -> Process:
    """Our own command line with `words`, in a process that no key pressed here reaches. OSError."""
    return await asyncio.create_subprocess_exec(
        *worker_command("localai"),
        *words,
        stdin=DEVNULL,
        stdout=stdout,
        stderr=PIPE,
        env=worker_environment() | {"LOCALAI_PROGRESS": "json"},
        start_new_session=os.name == "posix",
    )


async def answer(words: list[str], failed: type[LocalAIError]) -> bytes:
    """What the command with `words` prints; `failed`, with its own error, if it does not end well."""
    try:
        process = await start(words, stdout=PIPE)
    except OSError as error:
        raise failed(f"The command could not be started: {error.strerror or error}") from error
    try:
        output, errors = await process.communicate()
    finally:
        await end(process)
    if process.returncode != 0:
        lines = errors.decode("utf-8", "replace").splitlines()
        told = [sentence(line) for line in lines if line.startswith(ERROR)]
        raise failed(told[-1] if told else stopped(process.returncode))
    return output


def sentence(error: str) -> str:
    """An error as the command line prints it, in one line for the screen."""
    text = " ".join(clean(error).removeprefix(ERROR).split())
    is_word = text.partition(" ")[0].isalpha()  # the name of a model stays as it is
    return text[:1].upper() + text[1:] if is_word else text


def stopped(code: int | None) -> str:
    """Why a command has ended that did not say so."""
    return f"The command stopped: {describe_exit(code)}"


async def line(reader: StreamReader) -> bytes:
    """The next line; empty: there is none. Those that `reader` cannot hold are none of ours: left out."""
    while True:
        with suppress(ValueError):
            return await reader.readline()


async def end(process: Process) -> None:
    """End `process` if it runs: it may clean up first. What it has started and left behind is killed."""
    try:
        if process.returncode is None:
            with suppress(ProcessLookupError):
                process.terminate()
            await asyncio.wait_for(process.wait(), PATIENCE_S)
    except TimeoutError:
        pass
    finally:
        _kill(process)
    await process.wait()


def _kill(process: Process) -> None:
    """Kill all that is left of it. Whoever holds its standard error would be waited for, for ever."""
    with suppress(ProcessLookupError, PermissionError):  # none is left, or on a Mac only dead ones
        if sys.platform != "win32":
            os.killpg(process.pid, signal.SIGKILL)
        else:
            process.kill()
