"""Nothing but `models pull` talks to a network: what the kernel saw, not what we believe."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from benchmarks.terminal import Terminal
from localai.history.exchange import as_json
from localai.history.page import as_page
from models.catalog import builtin_checkpoint
from tests import tracing
from tests.hub_server import HubServer
from tests.localai.test_history_exchange import HOSTILE, talk
from tests.localai.test_policy import COMMANDS
from tests.quantize.making import make_checkpoint
from tests.tracing import Trace

LOCALAI = [sys.executable, "-P", "-m", "localai"]
COUNTED = ["unshare", "-rn", sys.executable, "-P", str(Path(__file__).parents[1] / "counted.py")]
QUIET = [0, 0, 0, 0]
ENDLESS = ["--logit-bias", "<｜end▁of▁sentence｜>=-inf", "--threads", "1"]
SHOWN = talk()
ADDRESS = re.compile(r'sin_port=htons\((\d+)\), sin_addr=inet_addr\("([\d.]+)"\)')
ESC, QUIT, SEARCH, MODELS = "\x1b", "\x11", "\x06", "\x0f"
SETTINGS, ABOUT, CONTEXT = "\x1bOQ", "\x1b[17~", "\x1b[15~"


@pytest.fixture
def trace(tmp_path: Path) -> Iterator[Trace]:
    """On one core: a thread that spins while it waits makes calls without end, and all of them are traced."""
    tracing.needed()
    cores = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {min(cores)})
    yield Trace(tmp_path / "trace")
    os.sched_setaffinity(0, cores)


@pytest.fixture(autouse=True)
def _protected(monkeypatch: pytest.MonkeyPatch, home: Path) -> None:
    monkeypatch.setenv("LOCALAI_PASSPHRASE", "correct horse battery")
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    # Python's own cache of compiled modules lies in the program's folder; it is written when it is installed.
    monkeypatch.setenv("PYTHONDONTWRITEBYTECODE", "1")


def ran(*command: str | Path, code: int = 0) -> str:
    done = subprocess.run(
        list(map(str, command)), stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False
    )
    assert done.returncode == code, done.stderr
    return done.stdout


# ------------------------------------------------------------------------- the method sees what it looks for

GRANDCHILD = "import subprocess, sys; subprocess.run([sys.executable, '-c', {!r}], check=False)"


@pytest.mark.parametrize("family", ["AF_INET", "AF_INET6", "AF_NETLINK", "AF_PACKET"])
@pytest.mark.parametrize("wrapped", [str, GRANDCHILD.format], ids=["itself", "grandchild"])
def test_the_method_sees_a_socket(trace: Trace, family: str, wrapped: Callable[[str], str]) -> None:
    kind = "SOCK_DGRAM" if family.startswith("AF_INET") else "SOCK_RAW"
    code = f"import socket; socket.socket(socket.{family}, socket.{kind})"
    subprocess.run([*trace.command, sys.executable, "-c", wrapped(code)], check=False, capture_output=True)
    assert any(family in line for line in trace.internet())


def test_the_method_sees_an_import(trace: Trace) -> None:
    ran(*trace.command, sys.executable, "-c", GRANDCHILD.format("import smtplib, http.client, urllib3"))
    assert {"smtplib", "http/client", "urllib3/__init__"} <= trace.network_code()


def test_the_method_sees_what_is_written(trace: Trace, tmp_path: Path) -> None:
    a, b, c, d, e = paths = [str(tmp_path / name) for name in "abcde"]
    code = f"import os; open({a!r}, 'w'); os.mkdir({b!r}); os.rename({a!r}, {c!r}); os.link({c!r}, {d!r})"
    ran(*trace.command, sys.executable, "-c", GRANDCHILD.format(f"{code}; os.truncate({d!r}, 0)"))
    with pytest.raises(FileNotFoundError):
        Path(e).unlink()
    ran(*trace.command, "rm", "-f", e)
    assert trace.changed() == set(paths[:4])


# --------------------------------------------------------------------------------------------- the commands


def commands(nano: Path, folder: Path) -> Iterator[tuple[str | Path, ...]]:
    """Every command but `chat`, with something to do; of `pull` and `audit` what needs no network."""
    kept, page, made = folder / "kept.json", folder / "page.html", folder / "made.gguf"
    short, matrix = folder / "short.txt", folder / "matrix.gguf"
    few = "--text", short, "--context", "32", "--chunks", "2"
    yield ("--version",)
    yield "ask", nano, "What is 6 + 7?", "--json"
    yield "models", "pull", "r1-nano"
    yield "ask", "r1-nano", "What is 6 + 7?", "--sandbox", "off"
    yield "models", "list"
    yield "models", "show", "r1-nano", "--json"
    yield "models", "fit"
    yield "models", "import", nano, "--name", "mine"
    yield "models", "accept", "mine", "--yes"
    yield "models", "path", "mine"
    yield "models", "rename", "mine", "yours"
    yield "models", "remove", "yours"
    yield "models", "restore", "yours"
    yield "models", "prune"
    yield "models", "verify"
    yield "models", "discover", "--json"
    yield "quantize", builtin_checkpoint("r1-nano"), "--type", "Q4_0", "--output", made
    yield "quantize", nano, "--allow-requantize", "--type", "Q4_0", "--compare", *few, "--tasks", "1"
    yield "quantize", folder / "small", "--type", "BF16", "--output", folder / "floats.gguf"
    sparse = "--calibrate", folder / "long.txt", "--chunks", "2", "--max-size", "0.7MB"
    yield "quantize", folder / "floats.gguf", "--optimize", *sparse, "--output", folder / "best.gguf"
    yield "bench", nano, "--prompt", "8", "--generate", "4", "--repetitions", "1"
    yield "imatrix", nano, *few, "--output", matrix
    yield "evaluate", nano, *few
    yield ("selftest",)
    yield "audit", "--no-proof"
    yield "history", "import", kept
    yield "history", "list", "--json"
    yield "history", "show", SHOWN.id[:12]
    yield "history", "search", "reply"
    yield "history", "export", "--all", "--format", "html", "--output", page
    yield "history", "status", "--check"
    yield "history", "lock", "--passphrase-file", folder / "passphrase"
    yield "history", "rekey"
    yield "history", "delete", SHOWN.id[:12], "--yes"


def test_no_command_opens_an_internet_socket_or_imports_network_code(
    trace: Trace, nano: Path, tmp_path: Path
) -> None:
    make_checkpoint(tmp_path / "small", hidden_size=256, intermediate_size=512, num_hidden_layers=1)
    (tmp_path / "kept.json").write_text(as_json([SHOWN]))
    (tmp_path / "short.txt").write_text("One and two make three. " * 40)
    (tmp_path / "long.txt").write_text("One and two make three. " * 100)
    (tmp_path / "passphrase").write_text("correct horse battery")
    for words in commands(nano, tmp_path):
        ran(*trace.command, *LOCALAI, *words)
    assert trace.internet() == []
    assert trace.network_code() == set()


def test_no_command_is_left_out(nano: Path, tmp_path: Path) -> None:
    ran_ones = list(commands(nano, tmp_path))
    left = {words for words in COMMANDS if not any(one[: len(words)] == words for one in ran_ones)}
    assert left == {("chat",)}


def test_no_part_of_the_program_brings_network_code_along(trace: Trace) -> None:
    code = """
import importlib, pkgutil, localai, models, quantize, tui, pypdf, pygments.lexers
from models.fetch import client
for package in (localai, models, quantize, tui):
    for found in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
        if not found.name.startswith("models.fetch"):
            print(importlib.import_module(found.name).__name__)
"""
    imported = ran(*trace.command, sys.executable, "-P", "-c", code).split()
    assert {"localai.cli.ask", "tui.screens.chat", "quantize.worker", "localai.engine.worker"} <= {*imported}
    assert trace.network_code() == set()


def test_the_keyring_brings_no_network_code(trace: Trace, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PYTHON_KEYRING_BACKEND")
    monkeypatch.setenv("DBUS_SESSION_BUS_ADDRESS", "unix:path=/nonexistent/bus")
    code = (
        "import sys; from localai.history.keyring import problem as p; p(); print('keyring' in sys.modules)"
    )
    assert ran(*trace.command, sys.executable, "-P", "-c", code) == "True\n"
    assert trace.network_code() == set()
    assert trace.internet() == []


# ------------------------------------------------------------------------------------------- a chat session


def chat(nano: Path, before: Sequence[str | Path], folder: Path) -> None:
    """A user's session on a real terminal: all that the chat can do with a model that is there."""
    note = folder / "note.txt"
    note.write_text("a note of mine")
    words = [*map(str, before), *LOCALAI, "chat", "--temperature", "0", str(nano)]
    with Terminal(words) as shown:
        shown.sees("ready", "Ask anything")
        shown.type("What is 47 + 85?\r")
        shown.sees("Thought for", "47 + 85 = 132", "ready")
        shown.paste(str(note))
        shown.sees("note.txt 14 characters")
        shown.type("Hello\r")
        shown.sees("+ note.txt", "ready")
        shown.misses("Reading…")
        look_around(shown)
        shown.type(QUIT)
        assert shown.wait_for_end() == 0
    with Terminal([*words, *ENDLESS]) as shown:
        shown.sees("ready", "Ask anything")
        shown.type("What is 20 + 30?\r")
        shown.wait_for("answering")
        shown.type(ESC)
        shown.sees("■ Stopped")
        shown.type(QUIT)
        assert shown.wait_for_end() == 0


def look_around(shown: Terminal) -> None:
    """Open and close each screen."""
    for key, title, within in (
        (SETTINGS, "Settings", "Keep chats"),
        (ABOUT, "About", "llama.cpp"),
        (CONTEXT, "Context", "tokens"),
        (MODELS, "Models", "r1-nano"),
    ):
        shown.type(key)
        shown.sees(f"─ {title} ─", within)
        shown.type(ESC)
        shown.misses(f"─ {title} ─")
    shown.type(SEARCH)
    shown.sees("^F searches")
    shown.type("132")
    shown.sees("In messages")
    shown.type(ESC)


def test_a_chat_opens_no_internet_socket_and_writes_to_its_own_folder_alone(
    trace: Trace, nano: Path, tmp_path: Path, home: Path
) -> None:
    chat(nano, trace.command, tmp_path)
    assert trace.internet() == []
    assert trace.network_code() == set()
    changed = trace.changed()
    assert any(path.startswith(f"{home}/data/") for path in changed)
    # That the worker is the first to go when memory runs out, and what nobody keeps.
    harmless = re.compile(rf"{re.escape(str(home))}(/.*)?|/proc/\d+/oom_score_adj|/dev/(null|tty|pts/\d+)")
    assert [path for path in sorted(changed) if not harmless.fullmatch(path)] == []


def test_no_packet_passes_while_there_is_a_chat(nano: Path, tmp_path: Path) -> None:
    control = [*COUNTED, tmp_path / "control", "--one-datagram"]
    if subprocess.run(control, check=False, capture_output=True).returncode:
        pytest.skip("this system lets nobody make a network of their own")
    (seen,) = counted(tmp_path / "control")
    assert seen["before"] == {"lo": QUIET}
    assert all(seen["after"]["lo"])
    chat(nano, [*COUNTED, tmp_path / "counts"], tmp_path)
    assert counted(tmp_path / "counts") == [{"before": {"lo": QUIET}, "after": {"lo": QUIET}}] * 2


def counted(result: Path) -> list[dict[str, dict[str, list[int]]]]:
    """What `tests/counted.py` wrote, for each of its runs."""
    return [json.loads(line) for line in result.read_text().splitlines()]


# -------------------------------------------------------------------------------------------------- fetching


def test_pull_talks_to_the_hub_alone(
    trace: Trace, nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with HubServer() as hub:
        hub.add_repository("publisher/Model-GGUF", {"Model-Q8_0.gguf": nano.read_bytes()})
        monkeypatch.setenv("HF_ENDPOINT", hub.url)
        monkeypatch.setenv("HF_HUB_DISABLE_TELEMETRY", "0")
        ran(*trace.command, *LOCALAI, "models", "pull", "publisher/Model-GGUF:q8_0")
        roles = {request.role for request in hub.requests}
        assert all("Model" in request.path for request in hub.requests if request.role == "hub")
    connected = {line for line in trace.internet() if " connect(" in line}
    addressed = {found.groups() for line in connected if (found := ADDRESS.search(line))}
    assert len(connected) >= len(addressed) == len(roles) == 2
    assert {host for _, host in addressed} == {"127.0.0.1"}


# --------------------------------------------------------------------------------------------------- exports


@pytest.mark.parametrize("text", [HOSTILE, "@import url(https://e.example/a.css); @font-face {src:url(//e)}"])
def test_nothing_that_a_page_shows_is_loaded(text: str) -> None:
    made = talk()
    made.system = made.title = text
    page = as_page([made])
    (style,) = re.findall(r"<style>(.*?)</style>", page, re.DOTALL)
    assert not re.search(r"url\(|@import|@font-face", style)
    assert not re.search(r"<[^>]*\s(src|srcset|poster|data|background|action)\s*=", page)
    assert "<link" not in page
    assert "default-src 'none'" in page


def test_the_picture_in_the_documentation_loads_nothing() -> None:
    picture = (Path(__file__).parents[2] / "docs" / "screenshot.svg").read_text()
    assert not re.search(r"@font-face|@import|url\((?!#)|href\s*=\s*[\"'](?!#)", picture)
