"""Certificates, proxies and encryption, as the environment says."""

from __future__ import annotations

import datetime
import http.server
import ipaddress
import select
import socket
import ssl
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from localai.errors import FetchError
from models.fetch.environment import proxy_for
from models.fetch.where import is_address, origin, shown
from tests.hub_server import Fault, HubServer
from tests.models.transferring import CONTENT, LABEL, fetch, isolate, require_done, wanted

BYTES = CONTENT[:500_000]
REPOSITORY = "owner/name"


@pytest.fixture(autouse=True)
def alone(monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, ssl.SSLContext]:
    """A certificate for localhost that nobody has signed, and what a server needs to show it."""
    folder = tmp_path_factory.mktemp("certificate")
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "localhost")])
    now = datetime.datetime.now(datetime.UTC)
    names = [x509.DNSName("localhost"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    made = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(names), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    path, secret = folder / "certificate.pem", folder / "key.pem"
    path.write_bytes(made.public_bytes(serialization.Encoding.PEM))
    form = serialization.PrivateFormat.PKCS8
    secret.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption()))
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(path, secret)
    return path, context


@pytest.mark.parametrize("name", ["SSL_CERT_FILE", "REQUESTS_CA_BUNDLE", "CURL_CA_BUNDLE"])
def test_certificates_that_the_environment_names(
    certificate: tuple[Path, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path, context = certificate
    with HubServer(tls=context) as hub:
        url, target = hub.add_file("model", BYTES), tmp_path / "model"
        assert url.startswith("https://localhost")
        with pytest.raises(FetchError, match=r"The certificate of localhost is not trusted.*SSL_CERT_FILE"):
            fetch(wanted(url, BYTES), target)
        assert list(tmp_path.iterdir()) == []
        monkeypatch.setenv(name, str(path))
        require_done(fetch(wanted(url, BYTES), target), target, BYTES)


def test_certificates_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", str(tmp_path / "nothing.pem"))
    with pytest.raises(FetchError, match=r"nothing\.pem cannot be read.*Mend REQUESTS_CA_BUNDLE"):
        fetch(wanted("https://localhost:1/x", BYTES), tmp_path / "model")


def test_encryption_is_never_left(
    certificate: tuple[Path, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    with HubServer(tls=context) as hub:  # Its CDN is not encrypted.
        hub.add_repository(REPOSITORY, {LABEL: BYTES})
        url = f"{hub.url}/{REPOSITORY}/resolve/main/{LABEL}"
        with pytest.raises(FetchError, match="which is not encrypted"):
            fetch(wanted(url, BYTES), tmp_path / "model")
        assert [one.role for one in hub.requests] == ["hub"]
    with HubServer(tls=context, cdn_tls=context) as hub:
        hub.add_repository(REPOSITORY, {LABEL: BYTES})
        target = tmp_path / "model"
        url = f"{hub.url}/{REPOSITORY}/resolve/main/{LABEL}"
        require_done(fetch(wanted(url, BYTES), target), target, BYTES)
    with HubServer(cdn_tls=context) as hub:  # From without to with.
        hub.add_repository(REPOSITORY, {LABEL: BYTES})
        target.unlink()
        url = f"{hub.url}/{REPOSITORY}/resolve/main/{LABEL}"
        require_done(fetch(wanted(url, BYTES), target), target, BYTES)


class Proxy:
    """A proxy for both kinds, which remembers what it was asked."""

    def __init__(self) -> None:
        proxy = self
        self.asked: list[tuple[str, str, str]] = []

        class Handler(http.server.BaseHTTPRequestHandler):
            def do_CONNECT(self) -> None:
                proxy.note(self)
                host, _, port = self.path.partition(":")
                with socket.create_connection((host, int(port))) as far:
                    self.send_response_only(200)
                    self.end_headers()
                    proxy.join(self.connection, far)
                self.close_connection = True

            def do_GET(self) -> None:
                proxy.note(self)
                address = self.path.removeprefix("http://")
                host, _, path = address.partition("/")
                name, _, port = host.partition(":")
                with socket.create_connection((name, int(port))) as far:
                    lines = [f"GET /{path} HTTP/1.1", *(f"{k}: {v}" for k, v in self.headers.items())]
                    far.sendall("\r\n".join([*lines, "Connection: close", "\r\n"]).encode())
                    proxy.join(self.connection, far)
                self.close_connection = True

            def log_message(self, *_: Any) -> None:
                pass

        self.server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.server.daemon_threads = False
        self.port = self.server.server_port
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def note(self, request: http.server.BaseHTTPRequestHandler) -> None:
        given = request.headers.get("Proxy-Authorization", "")
        self.asked.append((request.command, request.path, given))

    @staticmethod
    def join(near: socket.socket, far: socket.socket) -> None:
        """Pass on what comes, until one of them ends."""
        while True:
            ready, _, _ = select.select([near, far], [], [], 10)
            for one in ready:
                try:
                    data = one.recv(65536)
                    if data:
                        (far if one is near else near).sendall(data)
                except OSError:
                    return
                if not data:
                    return
            if not ready:
                return


@pytest.fixture
def proxy() -> Iterator[Proxy]:
    proxy = Proxy()
    proxy.thread.start()
    yield proxy
    proxy.server.shutdown()
    proxy.thread.join()
    proxy.server.server_close()


def test_a_proxy(proxy: Proxy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", f"http://us%65r:pass@127.0.0.1:{proxy.port}")
    target = tmp_path / "model"
    with HubServer() as hub:
        url = hub.add_file("model", BYTES)
        require_done(fetch(wanted(url, BYTES), target), target, BYTES)
        assert {(method, path) for method, path, _ in proxy.asked} == {("GET", url)}
        assert {given for _, _, given in proxy.asked} == {"Basic dXNlcjpwYXNz"}
        proxy.asked.clear()
        target.unlink()
        monkeypatch.setenv("no_proxy", "127.0.0.1")
        require_done(fetch(wanted(url, BYTES), target), target, BYTES)
        assert proxy.asked == []


def test_a_proxy_for_https(
    proxy: Proxy, certificate: tuple[Path, ssl.SSLContext], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path, context = certificate
    monkeypatch.setenv("SSL_CERT_FILE", str(path))
    monkeypatch.setenv("HTTPS_PROXY", f"127.0.0.1:{proxy.port}")
    target = tmp_path / "model"
    with HubServer(tls=context) as hub:
        url = hub.add_file("model", BYTES)
        headers = {"Authorization": "Bearer hf_secret"}
        require_done(fetch(wanted(url, BYTES, headers=headers), target), target, BYTES)
        assert {(method, given) for method, _, given in proxy.asked} == {("CONNECT", "")}


def test_a_proxy_that_is_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("http_proxy", "http://user:secret@127.0.0.1:9")
    with pytest.raises(FetchError, match="the proxy failed: it cannot be reached") as caught:
        fetch(wanted("http://example.invalid/x", BYTES), tmp_path / "model")
    assert "secret" not in str(caught.value)
    monkeypatch.setenv("http_proxy", "socks5://user:secret@127.0.0.1:9")
    with pytest.raises(FetchError, match=r"socks5://127\.0\.0\.1:9 is of a kind that is not supported"):
        fetch(wanted("http://example.invalid/x", BYTES), tmp_path / "model")


def test_which_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("all_proxy", "http://all:1")
    monkeypatch.setenv("https_proxy", "secure:2")
    monkeypatch.setenv("no_proxy", "inside.example,.corp")
    assert proxy_for("https://hub.example/x") == "http://secure:2"
    assert proxy_for("http://hub.example/x") == "http://all:1"
    assert proxy_for("https://inside.example/x") == proxy_for("https://a.corp:8443/x") == ""


def test_addresses() -> None:
    assert origin("HTTPS://Hub.Example/x") == origin("https://hub.example:443") == "https://hub.example:443"
    assert origin("http://h/x") != origin("https://h/x") != origin("https://h:444/x")
    assert shown("https://user:secret@h:1/a/b?token=secret#c") == "https://h:1/a/b"
    assert shown("http://[bad") == "the address"


@pytest.mark.parametrize(
    "url",
    [
        "http://evil.example:1\\@hub.example:2/x",
        "http://evil.example\\.hub.example/x",
        "http://hub.example\t.evil.example/x",
        "http://hub.example/a b",
        "http://hub.example:0/x",
        "http://hub.example:99999/x",
        "http://user:secret@hub.example/x",
        "//hub.example/x",
        "ftp://hub.example/x",
        "http:///x",
    ],
)
def test_what_is_no_address(url: str) -> None:
    assert not is_address(url)


def test_what_is_an_address() -> None:
    for url in ("https://hub.example/a%20b?c=d", "http://[::1]:8080/x", "http://127.0.0.1/x"):
        assert is_address(url)
    assert origin("http://[::1]/x") == "http://::1:80"


@pytest.mark.parametrize(
    "target",
    [
        "http://{other}\\@{hub}/files/model",
        "//{other}\\@{hub}/files/model",
        "http://us:er@{hub}/files/model",
        "/files/mo del",
        "/files/\x01model",
    ],
)
def test_a_redirect_that_can_be_read_in_two_ways_is_not_followed(tmp_path: Path, target: str) -> None:
    """urllib3 ends a server's name at a backslash, other parsers do not: the token would go there."""
    with HubServer() as hub:
        url = hub.add_file("model", BYTES)
        servers = {"other": hub.cdn_origin[7:], "hub": hub.origin[7:]}
        hub.plan(Fault(redirect=target.format(**servers), times=99))
        want = wanted(url, BYTES, headers={"Authorization": "Bearer hf_secret"})
        with pytest.raises(FetchError, match="is no address of a file"):
            fetch(want, tmp_path / "model")
        assert [one.role for one in hub.requests] == ["hub"]
