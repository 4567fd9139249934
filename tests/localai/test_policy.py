"""The policy file: strict, the stricter of two, for every command, and at its real place."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from localai import policy
from localai.cli import commands
from localai.confine import choice
from localai.errors import PolicyError
from localai.policy import Policy, reading
from tests.localai.policies import CONTACT, enforce, refused, run

A, B, C = "a" * 64, "b" * 64, "c" * 64
DEEP = "[" * 100_000


def written(folder: Path, text: str | bytes) -> Path:
    path = folder / "policy.toml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


# ---------------------------------------------------------------------------------------- what it says


def test_without_a_file_nothing_is_in_force(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALAI_POLICY", raising=False)
    known = policy.current()
    assert (known.describe(), known.allowed_models, known.retention_days, known.files) == ([], None, None, ())
    assert policy.fingerprint() == ""
    assert not any(known.has(key) for key in reading.SWITCHES)


def test_without_a_file_it_is_read_in_less_than_a_millisecond() -> None:
    """In a process of its own: also tomllib is not read."""
    code = (
        "import sys, timeit, localai.policy as p\n"
        "read = lambda: (p._read.cache_clear(), p.current())\n"
        "print(min(timeit.repeat(read, number=1, repeat=20)), 'tomllib' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    seconds, read = done.stdout.split()
    assert float(seconds) < 0.001
    assert read == "False"


def test_every_key_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = enforce(
        tmp_path,
        monkeypatch,
        "[require]\nsandbox = true\nencryption = true\nincognito = true\nretention_days = 30\n"
        "[forbid]\npull = true\nplain_history = true\nexport = true\nunknown_architectures = true\n"
        f'[models]\nallow = ["{A.upper()}", "{B}"]\n',
    )
    known = policy.current()
    assert all(known.has(key) for key in reading.SWITCHES)
    assert known.retention_days == 30
    assert known.allowed_models == {A, B}
    assert (known.contact, known.files) == (CONTACT, (path,))
    assert [file for _, file in policy.describe()] == [str(path)] * 10
    assert policy.fingerprint() == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_switch_that_is_off_is_none(tmp_path: Path) -> None:
    path = written(tmp_path, "[forbid]\npull = false\n[require]\nsandbox = false\n")
    assert reading.read(path, optional=False) == {}


def test_a_file_that_demands_nothing_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_POLICY", str(written(tmp_path, "")))
    assert policy.describe() == [("a policy that demands nothing", str(tmp_path / "policy.toml"))]


# -------------------------------------------------------------------------------------- what is broken

BROKEN: list[tuple[str, str | bytes, int, str]] = [
    ("unknown key", "[require]\nsandbox = true\nsandboxes = true\n", 3, "'require.sandboxes'"),
    ("unknown key at the top", "\nsandbox = true\n", 2, "'sandbox'"),
    ("unknown table", "[require]\nsandbox = true\n\n[allow]\npull = true\n", 4, "'allow'"),
    ("key of another table", "[forbid]\nsandbox = true\n", 2, "'forbid.sandbox'"),
    ("misspelled table", "[requires]\nsandbox = true\n", 1, "'requires'"),
    ("capitals", "[require]\nSandbox = true\n", 2, "'require.Sandbox'"),
    ("a key with a dot in quotes", '"require.sandbox" = true\n', 1, "'require.sandbox'"),
    ("table inside", "[require]\n[require.more]\nx = 1\n", 2, "'require.more'"),
    ("switch as a number", "[forbid]\n\npull = 1\n", 3, "true or false"),
    ("switch as a text", '[forbid]\npull = "true"\n', 2, "'true'"),
    ("switch as a list", "[forbid]\npull = [true]\n", 2, "a list"),
    ("switch as a table", "[forbid]\npull = {yes = true}\n", 2, "a dict"),
    ("switch as a date", "[forbid]\npull = 2026-01-01\n", 2, "a date"),
    ("inline table", "require = {sandbox = true, encription = true}\n", 1, "'require.encription'"),
    ("dotted key", "require.sandbox = true\nrequire.encryption = 7\n", 2, "require.encryption"),
    ("table as a switch", "require = true\n", 1, "[require]"),
    ("list of tables", "\n[[forbid]]\npull = true\n", 2, "[forbid]"),
    ("days as a text", '[require]\nretention_days = "30"\n', 2, "'30'"),
    ("days as a switch", "[require]\nretention_days = true\n", 2, "True"),
    ("no days", "[require]\nretention_days = 0\n", 2, "0"),
    ("days below 0", "[require]\nretention_days = -1\n", 2, "-1"),
    ("days without end", "[require]\nretention_days = inf\n", 2, "inf"),
    ("days that are no number", "[require]\nretention_days = nan\n", 2, "nan"),
    ("far too many days", f"[require]\nretention_days = 0x{'f' * 5000}\n", 2, "above 0"),
    ("digest too short", f'[models]\nallow = [\n  "{A}",\n  "{B[:-1]}",\n]\n', 4, "no SHA-256"),
    ("digest too long", f'[models]\nallow = ["{A}0"]\n', 2, "no SHA-256"),
    ("digest with another letter", f'[models]\nallow = ["{A[:-1]}g"]\n', 2, "no SHA-256"),
    ("digest with its name", f'[models]\nallow = ["sha256:{A}"]\n', 2, "no SHA-256"),
    ("digest with a line end", f'[models]\nallow = ["{A}\\n"]\n', 2, "no SHA-256"),
    ("digest as a number", "[models]\nallow = [1]\n", 2, "1 is no SHA-256"),
    ("list as a text", f'[models]\n\nallow = "{A}"\n', 3, "a list"),
    ("empty contact", 'contact = ""\n', 1, "contact"),
    ("contact of two lines", 'contact = "a\\nb"\n', 1, "contact"),
    ("contact that commands a terminal", 'contact = "\\u001b[2J"\n', 1, "contact"),
    ("contact that turns around", 'contact = "\\u202egro"\n', 1, "contact"),
    (
        "contact as a number",
        "[forbid]\npull = true\n[models]\n[require]\ncontact = 5\n",
        5,
        "'require.contact'",
    ),
    ("key twice", "[forbid]\npull = true\npull = false\n", 3, "not TOML"),
    ("table twice", "[forbid]\npull = true\n[forbid]\nexport = true\n", 3, "not TOML"),
    ("no value", "[forbid]\npull =\n", 2, "not TOML"),
    ("no key", "[forbid]\n= true\n", 2, "not TOML"),
    ("another word", "[forbid]\npull = yes\n", 2, "not TOML"),
    ("open quote", 'contact = "a\n', 1, "not TOML"),
    ("open text at the end", '[forbid]\npull = true\n\ncontact = """a\n', 4, "not TOML"),
    ("open list at the end", "[models]\nallow = [\n", 2, "not TOML"),
    ("open table", "[forbid\npull = true\n", 1, "not TOML"),
    ("not TOML at all", "{\n}\n", 1, "not TOML"),
    ("a NUL", "[forbid]\npull = true\0\n", 2, "not TOML"),
    ("not UTF-8", b"[forbid]\npull = true\n# caf\xe9\n", 3, "not UTF-8"),
    ("UTF-16", "[forbid]\npull = true\n".encode("utf-16"), 1, "not UTF-8"),
    ("a byte order mark", b"\xef\xbb\xbf[forbid]\npull = true\n", 1, "not TOML"),
    ("nested without end", f"\nx = {DEEP}", 1, "nested"),
    ("a number without end", f"[require]\nretention_days = {'9' * 10_000}\n", 1, "number"),
]


@pytest.mark.parametrize(("name", "text", "line", "why"), BROKEN, ids=[one[0] for one in BROKEN])
def test_a_broken_file_is_refused_and_says_where(
    name: str, text: str | bytes, line: int, why: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path, text)
    monkeypatch.setenv("LOCALAI_POLICY", str(path))
    with pytest.raises(PolicyError) as caught:
        policy.current()
    assert caught.value.message.startswith(f"the policy {path} is broken in line {line}: ")
    assert why in caught.value.message
    assert caught.value.hint
    assert len(caught.value.message) < 400


def test_there_are_enough_broken_files() -> None:
    assert len(BROKEN) >= 30


def _nothing(path: Path) -> None:
    assert not path.exists()


def _large(path: Path) -> None:
    path.write_text("#" * (1 << 20) + "\n")


def _dangling(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _loop(path: Path) -> None:
    path.symlink_to(path)


UNREADABLE = {
    "missing": (_nothing, "it is not there"),
    "a folder": (lambda path: path.mkdir(), "it is not a file"),
    "a pipe": (os.mkfifo, "it is not a file"),
    "too large": (_large, "larger than 1 MB"),
    "a link to nothing": (_dangling, "it is not there"),
    "a link to itself": (_loop, "symbolic links"),
}


@pytest.mark.parametrize("kind", UNREADABLE)
@pytest.mark.parametrize("optional", [False, True])
def test_what_cannot_be_read_is_refused(kind: str, optional: bool, tmp_path: Path) -> None:
    make, why = UNREADABLE[kind]
    path = tmp_path / "policy.toml"
    make(path)
    if optional and kind == "missing":
        assert reading.read(path, optional=True) is None
        return
    with pytest.raises(PolicyError, match="cannot be read") as caught:
        reading.read(path, optional=optional)
    assert why in caught.value.message


@pytest.mark.parametrize("name", ["/dev/null", "/proc/self/environ/x", "a\udcff.toml", "~nobody-at-all/x"])
def test_the_environment_cannot_name_a_file_that_is_none(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCALAI_POLICY", name)
    with pytest.raises(PolicyError) as caught:
        policy.current()
    str(caught.value).encode()


@pytest.mark.skipif(os.geteuid() == 0, reason="an administrator may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, "")
    path.chmod(0)
    with pytest.raises(PolicyError, match="Permission denied"):
        reading.read(path, optional=True)


# ------------------------------------------------------------------------------------------ of two files


@pytest.fixture
def system(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The organization's file, at another place. The real one: `test_the_real_place`."""
    path = tmp_path / "system.toml"
    monkeypatch.setattr(policy, "system_path", lambda: path)
    policy._read.cache_clear()
    return path


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    yield
    policy._read.cache_clear()


def test_the_environment_cannot_weaken(system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = f'[require]\nretention_days = 30\nsandbox = true\n[models]\nallow = ["{A}", "{B}"]\n'
    system.write_text(f'contact = "first"\n{own}')
    weak = f'[require]\nretention_days = 90\nsandbox = false\n[models]\nallow = ["{A}", "{B}", "{C}"]\n'
    enforce(tmp_path, monkeypatch, weak)
    known = policy.current()
    assert (known.retention_days, known.allowed_models, known.contact) == (30, {A, B}, "first")
    assert known.has("require.sandbox")
    assert {file for _, file in policy.describe()} == {str(system)}


def test_the_environment_can_make_it_stricter(
    system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.write_text(f'[require]\nretention_days = 30\n[models]\nallow = ["{A}", "{B}"]\n')
    text = f'[require]\nretention_days = 7\n[forbid]\npull = true\n[models]\nallow = ["{B}", "{C}"]\n'
    further = enforce(tmp_path, monkeypatch, text)
    known = policy.current()
    assert (known.retention_days, known.allowed_models) == (7, {B})
    assert known.has("forbid.pull")
    assert known.files == (system, further)
    assert {file for _, file in policy.describe()} == {str(further)}
    both = "".join(f"{hashlib.sha256(path.read_bytes()).hexdigest()}\n" for path in (system, further))
    assert policy.fingerprint() == hashlib.sha256(both.encode()).hexdigest()


def test_lists_without_a_common_model_allow_none(
    system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.write_text(f'[models]\nallow = ["{A}"]\n')
    enforce(tmp_path, monkeypatch, f'[models]\nallow = ["{B}"]\n')
    assert policy.current().allowed_models == frozenset()
    assert not policy.current().lists([A])


def test_a_broken_file_of_the_organization_is_not_replaced(
    system: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    system.write_text("[forbid]\npul = true\n")
    enforce(tmp_path, monkeypatch, "")
    with pytest.raises(PolicyError, match=r"system\.toml is broken in line 2"):
        policy.current()


# --------------------------------------------------------------------------------------- every command


def leaves(command: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, inner in getattr(command, "commands", {}).items():
        yield from leaves(inner, (*words, name))
    if not hasattr(command, "commands"):
        yield words


COMMANDS = list(leaves(typer.main.get_command(commands.program())))


def test_all_commands_are_known() -> None:
    assert len(COMMANDS) >= 20


@pytest.mark.parametrize("words", COMMANDS, ids="-".join)
def test_no_command_runs_with_a_broken_policy(
    words: tuple[str, ...], home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In this process, without the checks of arguments: what is called is what the parser would call."""
    monkeypatch.setenv("LOCALAI_POLICY", str(written(tmp_path, "[forbid]\npull = maybe\n")))
    command: Any = typer.main.get_command(commands.program())
    for word in words:
        command = command.commands[word]
    with pytest.raises(PolicyError, match="line 2"):
        command.callback()
    assert not any(home.iterdir())


def test_help_and_version_are_there_with_a_broken_policy(tmp_path: Path) -> None:
    path = str(written(tmp_path, "?"))
    for words in (["--help"], ["--version"], ["models", "--help"], ["history", "export", "--help"]):
        done = run(*words, LOCALAI_POLICY=path)
        assert (done.returncode, done.stderr) == (0, ""), words
    refused(run("models", "list", LOCALAI_POLICY=path), path, "line 1")
    # What looks like the option, but is a value, shows no help and runs nothing.
    refused(run("ask", "hello", "--system", "--help", LOCALAI_POLICY=path), path, "line 1")


# ------------------------------------------------------------------------------------------ the sandbox


def test_the_sandbox_is_required(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCALAI_SANDBOX", "")
    assert policy.sandbox_mode() == "prefer"
    enforce(tmp_path, monkeypatch, "[require]\nsandbox = true\n")
    assert policy.sandbox_mode() == "require"
    choice.choose("require")
    assert policy.sandbox_mode() == "require"


@pytest.mark.parametrize("mode", ["off", "prefer"])
def test_nobody_can_have_less_of_a_sandbox(
    mode: choice.Mode, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALAI_SANDBOX", "")
    choice.choose(mode)
    assert policy.sandbox_mode() == mode
    enforce(tmp_path, monkeypatch, "[require]\nsandbox = true\n")
    with pytest.raises(PolicyError, match=f"cannot be '{mode}'.*{CONTACT}"):
        policy.sandbox_mode()


def test_no_worker_starts_with_less_of_a_sandbox(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOCALAI_SANDBOX", "")
    words = ("ask", "--max-tokens", "8", nano, "What is 1 + 2?")
    level = json.loads(run(*words, "--json").stdout)["sandbox"]["level"]
    enforce(tmp_path, monkeypatch, "[require]\nsandbox = true\n")
    for less in ("off", "prefer"):
        refused(run(*words, "--sandbox", less), "require.sandbox", CONTACT)
        refused(run(*words, LOCALAI_SANDBOX=less), "require.sandbox", CONTACT)
    refused(run("bench", nano, LOCALAI_SANDBOX="off"), "require.sandbox")
    refused(run("quantize", nano, "--dry-run", LOCALAI_SANDBOX="off"), "require.sandbox")
    done = run(*words)
    assert (done.returncode == 0) == (level == "full"), done.stderr


# ----------------------------------------------------------------------------------------- the real place

IN_NAMESPACE = """
set -e
mount -t tmpfs none /etc
mkdir -p /etc/localai
cat > /etc/localai/policy.toml
exec "$@"
"""


def in_namespace(text: str, *command: object, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run where /etc is another folder, which has this policy. Only this process sees it."""
    unshare = ["unshare", "--mount", "--propagation", "private", *([] if os.geteuid() == 0 else ["-r"])]
    return subprocess.run(
        [*unshare, "sh", "-c", IN_NAMESPACE, "sh", *map(str, command)],
        input=text,
        capture_output=True,
        text=True,
        timeout=120,
        env=os.environ | environment,
        check=False,
    )


needs_namespace = pytest.mark.skipif(
    sys.platform != "linux" or not shutil.which("unshare") or in_namespace("", "true").returncode != 0,
    reason="this system lets nobody mount another /etc for a process",
)
LOCALAI = (sys.executable, "-P", "-m", "localai")


@needs_namespace
def test_the_real_place(tmp_path: Path, home: Path) -> None:
    weaker = str(written(tmp_path, "[forbid]\npull = false\nexport = false\n"))
    text = f'contact = "{CONTACT}"\n[forbid]\npull = true\nexport = true\n'
    place = "/etc/localai/policy.toml"
    for around in ({}, {"LOCALAI_POLICY": weaker}, {"LOCALAI_POLICY": ""}, {"LOCALAI_HOME": str(tmp_path)}):
        pulled = in_namespace(text, *LOCALAI, "models", "pull", "smollm2:135m", **around)
        refused(pulled, "forbid.pull", place, CONTACT)
        exported = in_namespace(text, *LOCALAI, "history", "export", "--all", **around)
        refused(exported, "forbid.export", place)
    null = in_namespace(text, *LOCALAI, "models", "list", LOCALAI_POLICY="/dev/null")
    refused(null, "/dev/null", "it is not a file")


@needs_namespace
def test_a_broken_file_at_the_real_place(home: Path) -> None:
    broken = in_namespace("[forbid]\n\npul = true\n", *LOCALAI, "models", "list")
    refused(broken, "/etc/localai/policy.toml", "line 3", "'forbid.pul'", "whoever manages this machine")
    assert in_namespace("[forbid]\n\npul = true\n", *LOCALAI, "--version").returncode == 0


@needs_namespace
def test_a_place_that_is_no_folder_is_refused(home: Path) -> None:
    swap = 'rm -r /etc/localai && echo > /etc/localai && exec "$@"'
    done = in_namespace("", "sh", "-c", swap, "sh", *LOCALAI, "models", "list")
    refused(done, "/etc/localai/policy.toml", "Not a directory")


def test_the_real_place_is_not_the_users_to_move(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    before = policy.system_path()
    for name in ("HOME", "LOCALAI_HOME", "XDG_CONFIG_HOME", "XDG_CONFIG_DIRS", "ProgramData"):
        monkeypatch.setenv(name, str(tmp_path))
    assert policy.system_path() == before


def test_errors_say_which_file_and_whom_to_ask() -> None:
    known = Policy({"forbid.pull": True}, {"forbid.pull": Path("/x")}, (Path("/x"),))
    assert str(known.error("forbid.pull", "models cannot be fetched")) == (
        "models cannot be fetched: your organization's policy forbids it (forbid.pull in /x). "
        "Ask whoever manages this machine"
    )


def test_it_is_read_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = enforce(tmp_path, monkeypatch, "[forbid]\npull = true\n")
    first = policy.current()
    path.unlink()
    assert policy.current() is first
