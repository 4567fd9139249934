"""Write docs/commands.md, the command reference, from the commands themselves.

Usage: python docs/generate.py [--check]     (--check: exit 1 if the file is not current)
"""

from __future__ import annotations

import html
import os
import subprocess
import sys
from pathlib import Path

REFERENCE = Path(__file__).with_name("commands.md")
PROGRAM = Path(__file__).with_name("program.py")


def reference() -> str:
    """The text that docs/commands.md should have."""
    command = [sys.executable, "-m", "typer", str(PROGRAM), "utils", "docs", "--name", "localai"]
    environment = {**os.environ, "NO_COLOR": "1", "TERM": "dumb", "COLUMNS": "100"}
    text = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, env=environment).stdout
    return html.unescape(text).strip() + "\n"


def main() -> None:
    text = reference()
    if "--check" not in sys.argv:
        REFERENCE.write_text(text, encoding="utf-8")
    elif REFERENCE.read_text(encoding="utf-8") != text:
        sys.exit("docs/commands.md is not current: run `make docs`")


if __name__ == "__main__":
    main()
