"""What is kept of conversations, how it is protected, and where else their text could end up."""

from __future__ import annotations

import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final, Literal

import msgspec

from localai import paths, policy
from localai.audit.finding import Finding
from localai.errors import LocalAIError
from localai.history import database, key
from models import measured

Kept = Literal["encrypted", "plain", "nothing", "unknown"]
Swap = Literal["none", "encrypted", "in memory", "unknown"]

_LOCK: Final = "`localai history lock` encrypts them"
_SWAPS: Final = Path("/proc/swaps")
_BLOCKS: Final = Path("/sys/class/block")


class OpenPath(msgspec.Struct, frozen=True):
    """A file or folder that others than the user can look into."""

    path: str
    mode: str


class Storage(msgspec.Struct, frozen=True):
    """Where conversations are, and how they are protected."""

    path: str
    kept: Kept
    """What the file is, whatever was chosen; "unknown" if it cannot be looked at."""
    protection: tuple[str, ...] | None
    """Where the key is ("keyring", "passphrase"); empty: plain by choice; None: nothing was chosen yet."""
    retention_days: float | None
    """After their last change; None: until they are deleted."""
    incognito: bool
    """Whether a policy demands that nothing is kept."""
    open_paths: tuple[OpenPath, ...]
    core_dump_bytes: int | None
    """How large a dump of this program's memory may get; -1: as large as it is; None: not known here."""
    measurements: tuple[str, ...]
    """Folders with numbers that were measured of models; no text is in them."""
    swap: Swap
    """Whether memory can get to a disk; "unknown" where it cannot be seen to be encrypted."""
    error: str = ""


def storage() -> Storage:
    """As it is now."""
    path, error, ways = paths.history_path(), "", None
    kept: Kept = "unknown"
    try:
        kept = _kept(path)  # first: it is what it is, also where what was chosen cannot be read
        chosen = key.protection()
        ways = None if chosen is None else tuple(map(str, chosen.ways))
    except (LocalAIError, OSError) as failure:
        error = str(failure)
    known = policy.current()
    return Storage(
        path=str(path),
        kept=kept,
        protection=ways,
        retention_days=known.retention_days,
        incognito=known.has("require.incognito"),
        open_paths=_open_paths(path),
        core_dump_bytes=_core_limit(),
        measurements=tuple(str(folder) for folder in _measurements() if folder.is_dir()),
        swap=_swap(),
        error=error,
    )


def findings(found: Storage) -> list[Finding]:
    """What is not protected."""
    lines = []
    if found.kept == "plain":
        lines.append(Finding("history", "conversations are stored in plain text", _LOCK))
    elif found.protection == ():
        lines.append(Finding("history", "new conversations will be stored in plain text", _LOCK))
    if found.error:
        lines.append(Finding("history", found.error, "`localai history status` tells more"))
    for one in found.open_paths:
        rights = "0700" if Path(one.path).is_dir() else "0600"
        what = f"others can look into {one.path} ({one.mode})"
        lines.append(Finding("history", what, f"chmod {rights} {one.path}"))
    if found.core_dump_bytes:
        what = "a crash of the program may write its memory, with the conversation in it, to a file"
        lines.append(Finding("history", what, "Allow none in the shell that starts it: ulimit -c 0"))
    if found.swap == "unknown":
        what = "memory may get to a swap area that is not seen to be encrypted"
        lines.append(Finding("history", what, "Encrypt the swap area, or use none"))
    return lines


def _kept(path: Path) -> Kept:
    if not path.exists() or path.stat().st_size == 0:
        return "nothing"
    return "plain" if database.is_plain(path) else "encrypted"


def _measurements() -> list[Path]:
    return [paths.models_dir() / measured.FOLDER, paths.data_dir() / "evaluations"]


def _open_paths(history: Path) -> tuple[OpenPath, ...]:
    if sys.platform == "win32":
        return ()
    beside = [history.with_name(history.name + end) for end in ("", "-wal", "-shm")]
    places = [paths.data_dir(), paths.config_dir(), *beside, key.key_path()]
    found = []
    for place in places:
        with suppress(OSError):
            mode = stat.S_IMODE(place.stat().st_mode)
            if mode & 0o077:
                found.append(OpenPath(str(place), f"{mode:04o}"))
    return tuple(found)


def _core_limit() -> int | None:
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrlimit(resource.RLIMIT_CORE)[0]


def _swap() -> Swap:
    """The worst of all swap areas."""
    try:
        lines = _SWAPS.read_text().splitlines()[1:]
    except OSError:
        return "unknown"
    kinds = {_kind(Path(line.split()[0])) for line in lines if line.strip()}
    order: tuple[Swap, ...] = ("unknown", "encrypted", "in memory")
    return next((worst for worst in order if worst in kinds), "none")


def _kind(area: Path) -> Swap:
    name = area.resolve().name
    if name.startswith("zram"):
        return "in memory"
    with suppress(OSError):
        if (_BLOCKS / name / "dm" / "uuid").read_text().startswith("CRYPT-"):
            return "encrypted"
    return "unknown"
