"""What is told while pip runs, by a program in its place."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from models.sources import pip_download

DOWNLOADS = """
import os, sys, tempfile

with tempfile.NamedTemporaryFile() as file:
    file.write(b"x" * 100)
    file.flush()
    open(sys.argv[1], "rb").close()
open(sys.argv[2], "rb").close()
"""
"""Has all, deletes it as soon as somebody has seen it, and ends when that was seen, too."""


def test_what_has_come_does_not_go_again(tmp_path: Path) -> None:
    scratch, all_seen, end = tmp_path / "scratch", tmp_path / "all_seen", tmp_path / "end"
    scratch.mkdir()
    os.mkfifo(all_seen)
    os.mkfifo(end)
    command = [sys.executable, "-c", DOWNLOADS, str(all_seen), str(end)]
    told: list[int] = []
    gates = [end, all_seen]

    def progress(step: str, done: int, total: int) -> None:
        assert (step, total) == ("Downloading", 100)
        told.append(done)
        if (len(gates) == 2 and done == 100) or (gates == [end] and empty[-1]):
            gates.pop().open("wb").close()
        empty.append(not any(scratch.iterdir()))

    empty = [False]
    assert pip_download._run(command, scratch, tmp_path / "log", 100, progress) == 0
    assert told == sorted(told)
    assert (told[-1], told.count(100) >= 2, gates) == (100, True, [])
