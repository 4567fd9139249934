"""Entry of the command `localai`, and of `python -m localai`."""

import gc
import os
import signal

INTERRUPTED = 130
GARBAGE = (20_000, 20, 20)
"""Thresholds of the collector: with Python's own, a tenth of each start goes to looking for garbage."""


def main() -> None:
    """Run the command line.

    While it is being imported, and while the interpreter ends, Ctrl+C ends the process at once: exit code
    130. As an exception it would be printed, or be lost in whatever Python code it hits.
    """
    try:
        signal.signal(signal.SIGINT, _interrupted)
        gc.set_threshold(*GARBAGE)
        from localai import offline

        offline.forbid_network()  # here, not in what tests call: it holds for the rest of a process
        from localai.cli.main import main as commands

        commands()
    except KeyboardInterrupt:  # just before or behind what maps it
        _interrupted()
    finally:
        signal.signal(signal.SIGINT, _interrupted)


def _interrupted(*_: object) -> None:
    try:
        os.write(2, b"localai: error: interrupted\n")
    finally:
        os._exit(INTERRUPTED)


if __name__ == "__main__":
    main()
