"""Nothing but `models pull` talks to a network: what the kernel saw, not what we believe."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

INTERNET = re.compile(r"AF_INET6?|AF_NETLINK")


def network_calls(command: list[str], tmp_path: Path) -> list[str]:
    """The network system calls of a command and all its children that concern more than this machine."""
    log = tmp_path / "strace"
    subprocess.run(
        ["strace", "-f", "-e", "trace=network", "-o", str(log), *command],
        check=True,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    return [line for line in log.read_text().splitlines() if INTERNET.search(line)]


@pytest.fixture(autouse=True)
def strace() -> None:
    if shutil.which("strace") is None:
        pytest.skip("strace is not installed")
    if subprocess.run(["strace", "-o", "/dev/null", "true"], check=False, capture_output=True).returncode:
        pytest.skip("this system does not allow strace")


def test_the_method_sees_a_socket(tmp_path: Path) -> None:
    code = "import socket; socket.socket(socket.AF_INET, socket.SOCK_DGRAM).connect(('127.0.0.1', 9))"
    assert network_calls([sys.executable, "-c", code], tmp_path)


@pytest.mark.parametrize(
    "words", [["ask", "NANO", "What is 6 + 7?"], ["models", "list"], ["models", "pull", "r1-nano"]]
)
def test_no_internet_socket(words: list[str], nano: Path, tmp_path: Path) -> None:
    words = [str(nano) if word == "NANO" else word for word in words]
    assert network_calls([sys.executable, "-P", "-m", "localai", *words], tmp_path) == []
