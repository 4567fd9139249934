"""What the tests of the policy share: a policy in force by the environment, and `localai` as a process."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

COMMAND = [sys.executable, "-P", "-m", "localai"]
CONTACT = "security@example.org"


def enforce(folder: Path, monkeypatch: pytest.MonkeyPatch, text: str, name: str = "policy.toml") -> Path:
    """Put a policy in force for this process and those that it starts. Each file is read once: see `name`."""
    path = folder / name
    path.write_text(f'contact = "{CONTACT}"\n{text}')
    monkeypatch.setenv("LOCALAI_POLICY", str(path))
    return path


def run(*words: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """`localai` with these words, without a terminal."""
    return subprocess.run(
        [*COMMAND, *map(str, words)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


def refused(done: subprocess.CompletedProcess[str], *words: str) -> str:
    """The one line of an error that the policy made, which has all `words`."""
    assert done.returncode == 1, (done.returncode, done.stdout, done.stderr)
    lines = [line for line in done.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, done.stderr
    for word in words:
        assert word in lines[0], lines[0]
    return lines[0]
