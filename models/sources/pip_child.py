"""pip, in a process that does not outlive the one that started it.

Run as `python -P pip_child.py PARENT ARGUMENT...`, by its path and with the standard library alone, so that
it runs wherever pip does. PARENT is the process id of the starter.

On Linux the kernel sends SIGTERM as soon as the *thread* that started this one ends, by SIGKILL, too: so that
thread must wait for the end of pip. Other systems have no such thing; there pip just runs.
"""

from __future__ import annotations

import os
import runpy
import signal
import sys

_PR_SET_PDEATHSIG = 1  # <linux/prctl.h>


def main() -> None:
    """Run pip with the arguments of the command line, and exit as it does."""
    parent = int(sys.argv.pop(1))
    if sys.platform == "linux":
        _end_with(parent)
    runpy.run_module("pip", run_name="__main__", alter_sys=True)


def _end_with(parent: int) -> None:
    """Have the kernel end this process with `parent`, and exit at once if that is gone already."""
    import ctypes  # Only here: the app imports this file, for its path.

    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM, 0, 0, 0)
    if os.getppid() != parent:
        sys.exit("the program that wanted this is gone")


if __name__ == "__main__":
    main()
