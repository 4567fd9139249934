"""Entry of the command `localai`, and of `python -m localai`."""

import signal


def main() -> None:
    """Run the command line.

    Until it can say "interrupted", that is while it is being imported, Ctrl+C just ends the process.
    """
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    from localai.cli.main import main as commands

    commands()


if __name__ == "__main__":
    main()
