"""Seatbelt on macOS: the app starts a worker through sandbox-exec, with a profile made for it.

Unproven: nobody has run this on a Mac yet, and the report says so. sandbox-exec is marked as deprecated by
its maker and is used by browsers all the same.

Source: sandbox-exec(1), and the profiles that macOS brings in /System/Library/Sandbox/Profiles.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from localai.confine import probes, readable
from localai.confine.limits import Limits
from localai.confine.report import Layer, Level, Profile, Sandbox

PROGRAM: Final = "/usr/bin/sandbox-exec"
UNPROVEN: Final = "Seatbelt was never tried on a Mac by those who wrote this"


def command(words: Sequence[str], reads: Sequence[str], *, writes: bool) -> list[str]:
    """The command that runs `words` confined. `writes`: to files that it inherits open."""
    return [PROGRAM, "-p", rules(reads, writes=writes), *words]


def rules(reads: Sequence[str], *, writes: bool) -> str:
    """A profile: no network, no new process, no file written, and of what users keep only `reads` is read."""
    homes = ["/Users", "/Volumes", str(Path.home())]
    runtime = [path for path in readable.runtime() if not path.startswith(("/proc", "/sys", "/dev"))]
    lines = [
        "(version 1)",
        "(allow default)",
        "(deny network*)",
        "(deny process-fork)",
        "(deny process-exec*)",
        f"(allow process-exec* (literal {_quoted(os.path.realpath(sys.executable))}))",
        f"(allow process-exec* (literal {_quoted(sys.executable)}))",
        "(deny signal (target others))",
        "(deny file-write*)",
        '(allow file-write* (literal "/dev/null"))',
        *(["(allow file-write-data)"] if writes else []),
        *(f"(deny file-read-data (subpath {_quoted(home)}))" for home in homes),
        *(f"(allow file-read-data (subpath {_quoted(path)}))" for path in [*runtime, *reads]),
        *(f"(allow file-read-data (subpath {_quoted(os.path.realpath(path))}))" for path in reads),
    ]
    return "\n".join(lines)


def found(profile: Profile) -> Sandbox:
    """What holds for this process, which sets its own limits here."""
    outside = probes.Outside.look()
    try:
        Limits.of("gpu" if profile == "cpu" else profile, ()).set()  # Metal reserves address space, too
        limits = Layer("rlimits", True)
    except (OSError, ValueError) as error:
        limits = Layer("rlimits", False, str(error))
    applied = _is_sandboxed()
    seatbelt = Layer("seatbelt", applied, "unproven" if applied else "not started through sandbox-exec")
    opened = probes.still_open(outside)
    words = tuple(probes.WORDS[concern] for concern in opened)
    level: Level = "partial" if applied else "none"
    return Sandbox(level, (limits, seatbelt), words, UNPROVEN if applied else seatbelt.detail, profile)


def _is_sandboxed() -> bool:
    try:
        system = ctypes.CDLL("/usr/lib/libSystem.dylib")
        return bool(system.sandbox_check(os.getpid(), None, 0))
    except (OSError, AttributeError):
        return False


def _quoted(path: str) -> str:
    escaped = path.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
