"""The hook that refuses networks: each way in Python, every process but one, and nothing else."""

from __future__ import annotations

import subprocess
import sys

import pytest

ATTEMPTS = {
    "a socket of AF_INET": "socket.socket()",
    "a socket of AF_INET6": "socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)",
    "the address of example.org": "socket.getaddrinfo('example.org', 80)",
    "the address of old.example.org": "socket.gethostbyname('old.example.org')",
    "the address of 192.0.2.1": "socket.gethostbyaddr('192.0.2.1')",
    "the address of ('192.0.2.1', 80)": "socket.getnameinfo(('192.0.2.1', 80), 0)",
    "a connection to https://example.org/a": "request.urlopen('https://example.org/a')",
    "a connection to plain.example.org": "client.HTTPConnection('plain.example.org').connect()",
    "a connection to mail.example.org": "smtplib.SMTP('mail.example.org')",
    "a connection to https://example.org/shown": "webbrowser.GenericBrowser('true').open('https://example.org/shown')",
    "a connection to ('127.0.0.1', 9)": "made.connect(('127.0.0.1', 9))",
    "an address for others, ('127.0.0.1', 0)": "made.bind(('127.0.0.1', 0))",
    "a datagram to ('127.0.0.1', 9)": "made.sendto(b'x', ('127.0.0.1', 9))",
    r"the address of \x1b[2Jbad": "socket.getaddrinfo('\\x1b[2Jbad', 80)",
}
PREPARED = """
import smtplib, socket, threading, webbrowser
from http import client
from urllib import request
from localai import offline
from localai.errors import OfflineError
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
offline.forbid_network()
"""


def python(code: str) -> str:
    done = subprocess.run(
        [sys.executable, "-P", "-c", code],
        stdin=subprocess.DEVNULL,
        text=True,
        capture_output=True,
        check=False,
    )
    return done.stdout + done.stderr


@pytest.mark.parametrize(("words", "attempt"), ATTEMPTS.items(), ids=range(len(ATTEMPTS)))
def test_an_attempt_is_a_clear_error(words: str, attempt: str) -> None:
    said = python(f"{PREPARED}\ntry: {attempt}\nexcept OfflineError as error: print(error)")
    refused = f"something tried to use the network ({words}), which was refused. Only the process of "
    assert said == f"{refused}`localai models pull` may. This is a defect: please report it\n"


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux has them")
@pytest.mark.parametrize("family", ["AF_NETLINK", "AF_PACKET", "AF_VSOCK", "AF_ALG"])
def test_other_families_are_refused_too(family: str) -> None:
    attempt = f"socket.socket(socket.{family}, socket.SOCK_RAW)"
    assert f"(a socket of {family})" in python(f"{PREPARED}\n{attempt}")


def test_it_holds_for_all_threads() -> None:
    assert "OfflineError" in python(f"{PREPARED}\nthreading.Thread(target=socket.socket).start()")


def test_what_stays_on_this_machine_goes_on(tmp_path: object) -> None:
    code = f"""{PREPARED}
import asyncio, subprocess, sys
ours, theirs = socket.socketpair()
ours.sendall(b"x")
listener = socket.socket(socket.AF_UNIX)
listener.bind({str(tmp_path)!r} + "/socket")
listener.listen()
socket.socket(socket.AF_UNIX).connect({str(tmp_path)!r} + "/socket")
async def run():
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", "print(6)", stdout=subprocess.PIPE)
    return (await process.communicate())[0]
print(theirs.recv(1), asyncio.run(run()), socket.gethostname() != "")
"""
    assert python(code) == "b'x' b'6\\n' True\n"


def test_the_sandbox_can_be_tried_all_the_same() -> None:
    code = f"""{PREPARED}
with offline.lifted():
    socket.socket().close()
try: socket.socket()
except OfflineError: print("refused again")
"""
    assert python(code) == "refused again\n"


@pytest.mark.parametrize(
    ("module", "first", "refused"),
    [
        ("localai.__main__", "localai.cli.main.main", True),
        ("localai.engine.worker", "localai.processes.claim_stdio", True),
        ("quantize.worker", "localai.processes.claim_stdio", True),
        ("models.fetch.worker", "localai.processes.claim_stdio", False),
    ],
)
def test_every_process_but_that_of_pull_refuses(module: str, first: str, refused: bool) -> None:
    place, _, function = first.rpartition(".")
    code = f"""
import importlib, socket
setattr(importlib.import_module({place!r}), {function!r}, lambda: print("made", socket.socket().close()))
importlib.import_module({module!r}).main()
"""
    said = python(code)
    # With what `close` gives: since Python 3.13 a traceback shows the lines of the code above, too.
    assert ("OfflineError" in said, "made None" in said) == (refused, not refused)


def test_calling_the_commands_from_python_installs_nothing() -> None:
    code = """
import sys
sys.argv = ["localai", "--version"]
from localai.cli.main import run
run()
import socket
socket.socket().close()
print("made")
"""
    assert python(code).endswith("made\n")
