"""What a program and all its children asked the kernel for, seen from outside by strace.

    trace = Trace(tmp_path / "trace")
    subprocess.run([*trace.command, "localai", "ask", ...])
    assert trace.internet() == []

Each question has a control in tests/localai/test_offline.py, which shows that it would have been answered.
"""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import pytest

CHANGES: Final = (
    *("rename", "renameat", "renameat2", "unlink", "unlinkat", "rmdir", "mkdir", "mkdirat"),
    *("link", "linkat", "symlink", "symlinkat", "truncate", "creat", "mknod", "mknodat"),
)
"""Calls that change what folders hold."""
_CALLS: Final = ",".join(("%network", "open", "openat", "openat2", *CHANGES))
_FAMILY: Final = re.compile(r"\b(?:AF|PF)_(?!UNIX\b|UNSPEC\b|LOCAL\b)[A-Z0-9]+")
_LINE: Final = re.compile(r"\d+ +(?P<call>\w+)\((?P<arguments>.*)\) += (?P<result>.*)")
_RESUMED: Final = re.compile(r"(?P<pid>\d+) +<\.\.\. \w+ resumed>(?P<rest>.*)")
_UNFINISHED: Final = " <unfinished ...>"
_WRITING: Final = re.compile("O_WRONLY|O_RDWR|O_CREAT|O_TRUNC")
_OPENED: Final = re.compile(r"<(?P<path>/[^>]*)>(?:\(deleted\))?$")
_PATH: Final = re.compile(r'(?:<(?P<folder>/[^>]*)>, )?"(?P<path>[^"]*)"')
_NETWORK_CODE: Final = (
    *("http/client", "http/server", "urllib/request", "urllib3/__init__", "requests/__init__"),
    *("httpx/__init__", "httpx2/__init__", "httpcore/__init__", "huggingface_hub/__init__"),
    *("aiohttp/__init__", "websockets/__init__", "truststore/__init__", "dns/__init__"),
    *("ftplib", "smtplib", "poplib", "imaplib", "nntplib", "telnetlib", "socketserver"),
    *("xmlrpc/client", "wsgiref/__init__"),
)
"""Modules that do nothing but talk to networks. Not `ssl`: the event loop of Python imports it itself."""


def needed() -> None:
    """Skip the test where strace is missing, or not allowed."""
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system does not allow strace")


class Trace:
    """The calls of what is run by `command`, one program after the other, if need be."""

    def __init__(self, log: Path) -> None:
        self._log = log
        self.command = ["strace", "-f", "-y", "-A", "-s", "200", "-e", f"trace={_CALLS}", "-o", str(log)]

    def internet(self) -> list[str]:
        """Calls that concern sockets other than those between processes of this machine."""
        return [line for line in self._lines() if _FAMILY.search(line)]

    def network_code(self) -> set[str]:
        """Modules for networks whose files were opened, which is how Python imports them."""
        opened = "\n".join(path for call, path in self._paths() if call.startswith("open"))
        wanted = {name: re.compile(rf"/{_compiled(name)}$", re.MULTILINE) for name in _NETWORK_CODE}
        return {name for name, pattern in wanted.items() if pattern.search(opened)}

    def changed(self) -> set[str]:
        """Paths that were opened for writing, made, renamed or removed; relative, if they were named so."""
        return {path for call, path in self._paths(writing=True)}

    def _paths(self, *, writing: bool = False) -> Iterator[tuple[str, str]]:
        for line in self._lines():
            found = _LINE.match(line)
            if found is None or found["result"].startswith(("-1", "?")):
                continue
            call, arguments = found["call"], found["arguments"]
            if call.startswith("open"):
                if writing and ("O_TMPFILE" in arguments or not _WRITING.search(arguments)):
                    continue  # a file without a name is seen by nobody, and gone when it is closed
                opened = _OPENED.search(found["result"])
                yield call, opened["path"] if opened else arguments
            elif call in CHANGES:
                for folder, path in _PATH.findall(arguments):
                    yield call, str(Path(folder, path))

    def _lines(self) -> Iterator[str]:
        """The calls, also those that another process's interrupted, as whole lines."""
        begun: dict[str, str] = {}
        for line in self._log.read_text(errors="replace").splitlines():
            if line.endswith(_UNFINISHED):
                begun[line.split(maxsplit=1)[0]] = line.removesuffix(_UNFINISHED)
            elif resumed := _RESUMED.match(line):
                yield begun.pop(resumed["pid"], resumed["pid"]) + resumed["rest"]
            else:
                yield line
        yield from begun.values()


def _compiled(name: str) -> str:
    """The end of the path of a module's file, compiled or not."""
    folder, _, module = name.rpartition("/")
    within = f"{folder}/" if folder else ""
    return rf"(?:{within}{module}\.py|{within}__pycache__/{module}\.[\w.-]+\.pyc)"
