"""A text in the user's own editor.

The text lies in a folder that only the user can open, in memory where the system has such a place, and the
folder is removed whatever happens to the editor.
"""

from __future__ import annotations

import asyncio
import os
import shlex
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import psutil
from textual.app import App, SuspendNotSupported

from localai.chat.attachments import tidy
from localai.chat.clean import clean
from localai.errors import LocalAIError, UsageError
from localai.processes import environment

FILE_NAME: Final = "question.md"
_IN_MEMORY: Final = frozenset({"tmpfs", "ramfs"})


def editor_command(environ: Mapping[str, str]) -> list[str]:
    """The words of `$VISUAL` or else `$EDITOR`. Raises `UsageError` if there is no such program."""
    setting = environ.get("VISUAL", "").strip() or environ.get("EDITOR", "").strip()
    if not setting:
        raise UsageError("No editor is set", "Set EDITOR, such as: export EDITOR=nano")
    try:
        command = shlex.split(setting)
    except ValueError as error:
        raise UsageError(f"EDITOR is set to {setting}, which has a quote too few") from error
    if shutil.which(command[0]) is None:
        raise UsageError(f"The editor {command[0]} is not installed", "Set EDITOR to one that is")
    return command


def memory_folder(environ: Mapping[str, str]) -> Path | None:
    """A folder whose files are in memory and not on a disk, if there is one to write to."""
    for name in (environ.get("XDG_RUNTIME_DIR", ""), "/dev/shm"):
        if name and os.access(name, os.W_OK | os.X_OK) and _is_in_memory(Path(name)):
            return Path(name)
    return None


async def edit_outside(app: App[Any], text: str, *, memory_only: bool) -> str:
    """`text` as the user's editor leaves it. The editor has the terminal, while the program goes on.

    `memory_only`: nothing may touch a disk. Raises `UsageError`, and the text is as it was, if there is no
    editor or it fails.
    """
    command, folder = editor_command(os.environ), memory_folder(os.environ)
    if memory_only and folder is None:
        raise UsageError(
            "There is no place in memory for the editor's file, and the disk shall stay untouched"
        )
    result: str | LocalAIError
    try:
        # The screen is not painted meanwhile: a reply may be coming, and the terminal is not ours.
        with app.batch_update(), app.suspend():
            try:
                result = await edited(text, command, folder=folder)
            except LocalAIError as error:  # what left the block would leave the terminal to nobody
                result = error
    except SuspendNotSupported as error:
        raise UsageError("This terminal cannot be lent to an editor") from error
    if isinstance(result, LocalAIError):
        raise result
    return result


async def edited(text: str, command: list[str], *, folder: Path | None) -> str:
    """`text` as the editor leaves it, cleaned. Waits for the editor to end; the loop goes on meanwhile.

    `folder`: see `memory_folder`; None: the folder for temporary files. The terminal is the editor's: the
    caller has left it. Raises `UsageError`, and the text is as it was, if the editor fails.
    """
    try:
        with (
            tempfile.TemporaryDirectory(prefix="localai-", dir=folder, ignore_cleanup_errors=True) as private,
            _interrupt_is_the_editors(),
        ):
            file = Path(private) / FILE_NAME
            file.touch(mode=0o600)
            file.write_text(clean(text), encoding="utf-8")
            await _run([*command, str(file)])
            return tidy(file.read_bytes().decode("utf-8", errors="replace")).rstrip("\n")
    except OSError as error:
        raise UsageError(f"The editor could not be used: {error.strerror or error}") from error


async def _run(command: list[str]) -> None:
    # A thread waits, and not asyncio's own subprocess: that one needs a loop which outlives a cancellation.
    with subprocess.Popen(command, env=environment()) as process:  # noqa: ASYNC220
        try:
            code = await asyncio.to_thread(process.wait)
        finally:
            if process.poll() is None:  # the program ends: the text goes, so must who shows it
                process.kill()
    if code:
        raise _failed(command[0], code)


def _failed(editor: str, code: int) -> LocalAIError:
    how = f"ended with code {code}" if code > 0 else "was stopped"
    return UsageError(f"The editor {Path(editor).name} {how}", "The text is as it was")


def _is_in_memory(folder: Path) -> bool:
    """Whether the file system there is one of memory only."""
    at = folder.resolve()
    kinds = {Path(disk.mountpoint): disk.fstype for disk in psutil.disk_partitions(all=True)}
    return next((kinds[p] for p in (at, *at.parents) if p in kinds), "") in _IN_MEMORY


@contextmanager
def _interrupt_is_the_editors() -> Iterator[None]:
    """Ctrl+C goes to all programs of a terminal: inside, it does not end this one.

    A handler and not SIG_IGN, which the editor would inherit.
    """
    before = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
