"""Files that are written beside their place and appear in it only when they are complete.

On Linux such a file has no name at all (O_TMPFILE): whatever ends the program, kill -9 or a power cut
included, nothing of it stays. Elsewhere, and on disks that cannot do this, it is called
`.NAME.partial-PID`, where PID is the process that opened it; one whose process is gone is stale, and the
next that writes NAME removes it.

Only a regular file is ever replaced. A symbolic link is refused, too: to replace it would break it, and to
follow it would replace a file that nobody named.
"""

from __future__ import annotations

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import psutil

from localai.errors import NoSpace, QuantizeError, UsageError
from models.files import sync_folder
from quantize import file_kinds

MAKE_SPACE = "Free some space, or choose another place"
_CANNOT = {errno.EOPNOTSUPP, errno.EISDIR, errno.ENOENT, errno.EINVAL, errno.ENOSYS}


class Partial:
    """An open file that is to become `output`. Leaving the `with` block without `commit` discards it."""

    def __init__(self, output: Path, *, overwrite: bool) -> None:
        self.output = output
        self._overwrite = overwrite
        self._named: Path | None = None
        self._is_new = False
        with system_errors(output):
            require_target(output, overwrite)
            remove_stale(output)
            self.fd = self._open_unnamed()
            if self.fd < 0:
                self._named = partial_path(output)
                self.fd = os.open(self._named, os.O_RDWR | os.O_CREAT | os.O_EXCL | _BINARY, 0o666)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._named is not None:
            _remove(self._named)

    @property
    def path(self) -> Path:
        """Where processes of this user can open the file while it is not in its place yet."""
        return self._named or Path(f"/proc/{os.getpid()}/fd/{self.fd}")

    def commit(self) -> None:
        """Put the file in its place, all of it on the disk before. QuantizeError if that cannot be done."""
        with system_errors(self.output):
            os.fsync(self.fd)
            self._is_new = not (self._overwrite and os.path.lexists(self.output))
            if self._named is None and self._is_new:
                _link(self.fd, self.output)
            else:
                self._replace()
            sync_folder(self.output.parent)

    def keep_as(self, output: Path, *, overwrite: bool) -> None:
        """As `commit`, but it becomes `output`, which must be on the same disk."""
        with system_errors(output):
            require_target(output, overwrite)
        self.output, self._overwrite = output, overwrite
        self.commit()

    def undo(self) -> None:
        """Take a file that `commit` has put in place away again, unless it has replaced another."""
        if self._is_new:
            _remove(self.output)

    def _open_unnamed(self) -> int:
        """A file without a name, or -1 where there is no such thing."""
        if not hasattr(os, "O_TMPFILE") or not Path(f"/proc/{os.getpid()}/fd").is_dir():
            return -1
        try:
            return os.open(self.output.parent, os.O_RDWR | os.O_TMPFILE, 0o666)
        except OSError as error:
            if error.errno in _CANNOT:
                return -1
            raise

    def _replace(self) -> None:
        require_target(self.output, self._overwrite)
        named = self._named or partial_path(self.output)
        if self._named is None:
            _link(self.fd, named)
        try:
            named.replace(self.output)
        except BaseException:
            _remove(named)
            raise
        self._named = None


_BINARY = getattr(os, "O_BINARY", 0)


def _link(fd: int, path: Path) -> None:
    """Give the file without a name, `fd`, the name `path`, which must be free."""
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        # Only with a descriptor of a folder does Python make the call that follows the link in /proc.
        os.link(f"/proc/self/fd/{fd}", path, src_dir_fd=folder, follow_symlinks=True)
    finally:
        os.close(folder)


def require_target(output: Path, overwrite: bool) -> None:
    """UsageError unless `output` can be written: in a folder that is there, over nothing that is not ours."""
    if not output.parent.is_dir():
        raise UsageError(f"there is no folder {output.parent}", "Make it first, or choose another output")
    if output.is_dir():
        raise UsageError(f"{output} is a folder", "Name the file to write")
    try:
        found = output.lstat()
    except FileNotFoundError:
        return
    if not file_kinds.is_regular(found.st_mode):
        what = file_kinds.describe(found.st_mode)
        raise UsageError(f"{output} is {what}, which is never replaced", "Name a regular file, or a new one")
    if not overwrite:
        raise UsageError(
            f"{output} is there already", "Choose another output, or have it replaced with --overwrite"
        )


@contextmanager
def system_errors(output: Path) -> Iterator[None]:
    """Errors of the system about `output` as ours."""
    try:
        yield
    except FileExistsError as error:
        raise QuantizeError(
            f"{output} appeared while it was being made", "Nothing was replaced: choose another output"
        ) from error
    except OSError as error:
        if error.errno in {errno.ENOSPC, errno.EDQUOT}:
            raise NoSpace(f"there is not enough room for {output}", MAKE_SPACE) from error
        raise QuantizeError(
            f"cannot write {output}: {error.strerror or error}",
            "Check the rights of its folder and its disk, or choose another place",
        ) from error


def partial_path(output: Path) -> Path:
    """What this process calls what will be `output`, where it needs a name."""
    return output.with_name(f".{output.name}.partial-{os.getpid()}")


def remove_stale(output: Path) -> None:
    """Remove the named partial files beside `output` whose process is gone."""
    for path, owner in _found(output):
        if not _is_running(owner, path):
            _remove(path)


def _found(output: Path) -> Iterator[tuple[Path, int]]:
    pattern = re.compile(re.escape(f".{output.name}.partial-") + r"(\d{1,10})")
    try:
        entries = list(output.parent.iterdir())
    except OSError:
        return
    for entry in entries:
        if match := pattern.fullmatch(entry.name):
            yield entry, int(match[1])


def _is_running(pid: int, path: Path) -> bool:
    """Whether the process that made `path` still runs. A process that began later only has its number."""
    try:
        return psutil.Process(pid).create_time() <= path.stat().st_mtime + 1
    except psutil.AccessDenied:
        return True
    except (psutil.NoSuchProcess, OSError):
        return False


def _remove(path: Path) -> None:
    with contextlib.suppress(OSError):
        path.unlink()
