"""Runs one case through the real command line, and checks what a user and an administrator would.

Checked: the exit code; no traceback and no signal; exactly one error line, printable, that names the file and
says what to do; time, memory and processes that end; that nothing outside of the store was made, changed or
touched; that the conversations in the store are still there and can be read.
"""

from __future__ import annotations

import hashlib
import os
import re
import signal
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from localai.history import History
from tests.hostile.case import CANARY, Case, Scene

COMMAND = [sys.executable, "-P", "-m", "localai"]
MOST_S = 10.0
"""Computing, and waiting on a machine that has nothing else to do."""
KILL_S = 40.0
MOST_KB = 1_500_000
_DIGESTED = 1 << 20
KEPT = "kept-conversation"
ERROR = "localai: error: "
_HINT = re.compile(r"[.?] \S.*[.?]$")


class Ended(NamedTuple):
    """How a process ended, with that of all processes that it waited for."""

    code: int
    out: str
    err: str
    wall_s: float
    cpu_s: float
    peak_kb: int


def world(scene: Scene) -> None:
    """Make the folders of a scene."""
    for name in ("home", "tmp", "cwd", "files", CANARY, "store"):
        (scene.root / name).mkdir(mode=0o700)
    (scene.root / "home" / ".bashrc").write_text("# the user's own\n")


def run(case: Case, scene: Scene) -> Ended:
    """Make the input and give it to the command."""
    path = case.make(scene)
    command = case.command.replace("{files}", str(scene.files))
    words = [word.replace("{input}", str(path)) for word in command.split(" ")]
    env = {
        "PATH": os.environ["PATH"],
        "HOME": str(scene.root / "home"),
        "TMPDIR": str(scene.root / "tmp"),
        "LOCALAI_HOME": str(scene.store),
        "PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring",
        "PYTHONDONTWRITEBYTECODE": "1",
        **{key: value.replace("{input}", str(path)) for key, value in case.environment.items()},
    }
    before = snapshot(scene)
    ended = _run(words, env, scene)
    check(case, ended, path)
    changed = before.items() ^ snapshot(scene).items()
    assert not changed, f"outside of the store: {sorted(changed)}"
    return ended


def _run(words: list[str], env: dict[str, str], scene: Scene) -> Ended:
    log = [scene.store.parent.parent / f"{scene.root.name}.{kind}" for kind in ("out", "err")]
    started = time.monotonic()
    with log[0].open("wb") as out, log[1].open("wb") as err:
        process = subprocess.Popen(
            [*COMMAND, *words],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=err,
            env=env,
            cwd=scene.root / "cwd",
            start_new_session=True,
        )
        late = threading.Timer(KILL_S, os.killpg, (process.pid, signal.SIGKILL))
        late.start()
        _, status, used = os.wait4(process.pid, 0)
        late.cancel()
        process.returncode = os.waitstatus_to_exitcode(status)
    assert not _alive(process.pid), "it left a process behind"
    texts = [path.read_bytes().decode("utf-8") for path in log]
    return Ended(
        process.returncode, *texts, time.monotonic() - started, used.ru_utime + used.ru_stime, used.ru_maxrss
    )


def _alive(group: int) -> bool:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        return False
    return True


def check(case: Case, ended: Ended, path: Path) -> None:
    """That it ended as it must."""
    told = f"{ended.code}, {ended.out[-1500:]!r}, {ended.err[-3000:]!r}"
    assert ended.code == case.code, told
    assert "Traceback" not in ended.err, told
    whole = ended.out + ended.err
    assert all(char.isprintable() or char == "\n" for char in whole), told
    errors = [line for line in ended.err.splitlines() if line.startswith(ERROR)]
    assert len(errors) == (ended.code != 0), told
    said = errors[0] if errors else whole
    assert re.search(case.says, said, re.S), told
    for line in errors:
        assert case.names.replace("{input}", str(path)) in line, told
        assert _HINT.search(line), f"no word of what to do: {line}"
    busy = max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))
    assert ended.cpu_s <= MOST_S, f"{ended.cpu_s} s of computing"
    assert ended.wall_s <= MOST_S * busy, f"{ended.wall_s} s"
    assert ended.peak_kb <= MOST_KB, f"{ended.peak_kb} kB"


def check_kept(scene: Scene) -> None:
    """The conversation that was in the store before can be read."""
    with History(scene.store / "data" / "conversations.sqlite") as history:
        assert history.load(KEPT).title == "Kept"


def snapshot(scene: Scene) -> dict[str, tuple[object, ...]]:
    """All that is in the scene beside the store: kind, rights, size, time and content."""
    found = {}
    for folder, folders, names in os.walk(scene.root):
        if Path(folder) == scene.root:
            folders.remove(scene.store.name)
        for name in (*folders, *names):
            path = Path(folder, name)
            found[str(path.relative_to(scene.root))] = _state(path)
    return found


def _state(path: Path) -> tuple[object, ...]:
    status = path.lstat()
    content = ""
    if path.name == "tmp":
        return (status.st_mode,)  # what is made there and taken away again leaves its time
    if stat.S_ISLNK(status.st_mode):
        content = str(path.readlink())
    elif stat.S_ISREG(status.st_mode) and status.st_size <= _DIGESTED and os.access(path, os.R_OK):
        content = hashlib.sha256(path.read_bytes()).hexdigest()
    return status.st_mode, status.st_size, status.st_mtime_ns, content
