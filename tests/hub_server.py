"""A hub on the loopback, which misbehaves as it is told and remembers what it was asked.

It speaks what huggingface_hub and `models.fetch` use: `/api/models/...` with siblings and LFS digests,
`/resolve/` with its headers, a redirect of LFS files to a second server on another port (the CDN, another
origin), ranges, If-Range and ETags; and plain files and pages, for addresses and package indexes.

    with HubServer() as hub:
        repository = hub.add_repository("owner/name", {"model.gguf": content, "config.json": b"{}"})
        address = hub.add_file("models/one.gguf", content)
        hub.plan(Fault(cut_after=1000), Fault(status=503, retry_after="1", times=2))
        ...
        assert [request.range for request in hub.data_requests] == [...]
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import ssl
import struct
import threading
import urllib.parse
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

PIECE = 16 * 1024
LFS_SUFFIXES = (".gguf", ".safetensors", ".bin", ".whl")


@dataclass(kw_only=True)
class Fault:
    """What goes wrong in the next `times` requests that match, after `skip` of them that are spared."""

    on: str = ""
    """What the request's path must contain."""
    method: str = "GET"
    """"": any."""
    role: str = ""
    """ "hub" or "cdn"; "": either."""
    ranged: bool | None = None
    """True: only requests with a Range after byte 0; False: only those without."""
    times: int = 1
    skip: int = 0

    # Instead of an answer
    close: bool = False
    """The connection is reset before a byte is said."""
    status: int = 0
    headers: dict[str, str] = field(default_factory=dict)
    retry_after: str = ""
    body: bytes = b""
    """Of the answer with `status`."""
    redirect: str = ""
    """302 to there."""

    # In the head of the answer
    change: bytes | None = None
    """From now on the file is this one, with another ETag."""
    ignore_range: bool = False
    shift: int = 0
    """Content-Range names bytes so much further than those asked for."""
    total_off: int = 0
    """Content-Range's total is so many bytes too large."""
    length_off: int = 0
    """Content-Length is so many bytes too large (then the connection ends early) or too small."""
    chunked: bool = False
    """Chunked and without Content-Length; together with a Range it stays a 206."""
    until_close: bool = False
    """Without Content-Length: the body ends where the connection does."""
    encoding: str = ""
    """Content-Encoding."""
    etag: str | None = None
    """Instead of the file's own; "": none."""

    # In its body
    cut_after: int | None = None
    """The connection ends after so many bytes of the body."""
    reset: bool = False
    """... by RST, not by FIN."""
    flip: int | None = None
    """The byte at this place of the body is another one."""
    stall_after: int | None = None
    """After so many bytes nothing comes, until the client goes."""
    drip_after: int | None = None
    """After so many bytes one byte comes at a time, each after `drip_pause` seconds."""
    drip_pause: float = 0.02
    endless: str = ""
    """What never ends, a byte at a time: "continue" (answers 100 before the answer), "head" (a line of it),
    "extension" (of the first chunk), or "trailer" (after no chunk)."""

    def takes(self, request: Request) -> bool:
        """Whether this request is one of them; counts it."""
        if self.method not in ("", request.method) or self.role not in ("", request.role):
            return False
        if self.on not in request.path or self.times <= 0:
            return False
        if self.ranged is not None and self.ranged != (request.asked is not None and request.asked > 0):
            return False
        if self.skip:
            self.skip -= 1
            return False
        self.times -= 1
        return True


@dataclass
class Request:
    """What was asked, and what was sent in answer."""

    role: str
    method: str
    path: str
    """With its query."""
    headers: dict[str, str]
    """Names in lower case."""
    asked: int | None = None
    """First byte of the Range; None: no Range."""
    status: int = 0
    start: int = 0
    """First byte of the file that the body begins with."""
    sent: int = 0
    """Bytes of the body that were handed to the system."""
    answered: dict[str, str] = field(default_factory=dict)
    fault: Fault | None = None

    @property
    def token(self) -> str:
        """The Authorization that came with it; "": none."""
        return self.headers.get("authorization", "")

    @property
    def range(self) -> str:
        """The Range that came with it; "": none."""
        return self.headers.get("range", "")


class Resource:
    """The content of a file and how it is named by its servers; digests are made when they are asked for."""

    def __init__(self, content: bytes, *, lfs: bool = False) -> None:
        self.lfs = lfs
        self.set(content)

    def set(self, content: bytes) -> None:
        """Be another file from now on."""
        self.content = content
        self._digests: dict[str, str] = {}

    def _digest(self, name: str, make: Callable[[], str]) -> str:
        if name not in self._digests:
            self._digests[name] = make()
        return self._digests[name]

    @property
    def sha256(self) -> str:
        """Of the content."""
        return self._digest("sha256", lambda: hashlib.sha256(self.content).hexdigest())

    @property
    def pointer(self) -> bytes:
        """What git keeps of a file in LFS."""
        if not self.lfs:
            return b""
        head = "version https://git-lfs.github.com/spec/v1\n"
        return f"{head}oid sha256:{self.sha256}\nsize {len(self.content)}\n".encode()

    @property
    def git_sha1(self) -> str:
        """Git's name for it, or for its pointer."""
        return self._digest("git", lambda: git_blob(self.pointer or self.content))

    @property
    def etag(self) -> str:
        """As the hub calls it: X-Linked-Etag, or ETag."""
        return f'"{self.sha256 if self.lfs else self.git_sha1}"'

    @property
    def cdn_etag(self) -> str:
        """As the CDN calls it."""
        md5 = self._digest("md5", lambda: hashlib.md5(self.content, usedforsecurity=False).hexdigest())
        return f'"{md5}"'


class Repository:
    """A repository with its commits."""

    def __init__(self, name: str, *, gated: bool = False, private: bool = False) -> None:
        self.name, self.gated, self.private = name, gated, private
        self.commits: dict[str, dict[str, Resource]] = {}
        self.refs: dict[str, str] = {}
        self.extra_siblings: list[dict[str, Any]] = []
        """Put into the API's answer as they are: hostile names, wrong types."""
        self.hide_metadata = False
        """Whether the API leaves out sizes and digests, as some mirrors do."""

    def commit(
        self, contents: Mapping[str, bytes], ref: str = "main", lfs: Iterable[str] | None = None
    ) -> str:
        """A new commit with exactly these files, which `ref` names from now on; returns its 40 hex digits."""
        large = None if lfs is None else set(lfs)
        files = {
            path: Resource(content, lfs=path.endswith(LFS_SUFFIXES) if large is None else path in large)
            for path, content in contents.items()
        }
        digests = "".join(f"{path}\0{one.sha256}" for path, one in sorted(files.items()))
        commit = hashlib.sha1(f"{self.name}{len(self.commits)}{digests}".encode()).hexdigest()
        self.commits[commit] = files
        self.refs[ref] = commit
        return commit

    @property
    def head(self) -> str:
        """The commit that "main" names."""
        return self.refs["main"]

    def find(self, revision: str) -> str | None:
        """The whole name of the commit."""
        return revision if revision in self.commits else self.refs.get(revision)

    def file(self, path: str, revision: str = "main") -> Resource:
        """A file at a revision."""
        return self.commits[self.find(revision) or ""][path]

    def info(self, commit: str, *, blobs: bool) -> dict[str, Any]:
        """What the API tells."""
        siblings: list[dict[str, Any]] = []
        for path, one in self.commits[commit].items():
            entry: dict[str, Any] = {"rfilename": path}
            if blobs and not self.hide_metadata:
                entry |= {"size": len(one.content), "blobId": one.git_sha1}
                if one.lfs:
                    known = {"sha256": one.sha256, "size": len(one.content), "pointerSize": len(one.pointer)}
                    entry["lfs"] = known
            siblings.append(entry)
        return {
            "_id": "0" * 24,
            "id": self.name,
            "modelId": self.name,
            "sha": commit,
            "private": self.private,
            "gated": "manual" if self.gated else False,
            "disabled": False,
            "tags": ["gguf"],
            "siblings": siblings + self.extra_siblings,
        }


@dataclass
class Page:
    """A plain answer."""

    body: bytes
    kind: str = "text/html"
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)


class HubServer:
    """Both servers. A context manager; what is set may be changed while they run."""

    def __init__(
        self,
        *,
        prefix: str = "",
        token: str = "hf_test",
        send_buffer: int = 0,
        tls: ssl.SSLContext | None = None,
        cdn_tls: ssl.SSLContext | None = None,
    ) -> None:
        """`prefix`: path that the hub lies under, as with mirrors. `send_buffer`: bytes; 0: the system's.

        `tls`, `cdn_tls`: speak https, as "localhost".
        """
        self.prefix, self.token = prefix, token
        self.requests: list[Request] = []
        self.faults: list[Fault] = []
        self.repositories: dict[str, Repository] = {}
        self.files: dict[str, Resource] = {}
        self.pages: dict[str, Page] = {}
        """By path, without the prefix; with the query, or for any query."""
        self.caches_small_files = False
        """Whether small files are redirected to another path of the hub, as the hub does these days."""
        self.renamed: dict[str, str] = {}
        """Repositories that are found under another name now: 307, as the hub answers."""
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self._signature, self._oldest = 0, 0
        self.pause = 0.0
        """Seconds to rest after each piece of a file."""
        self._allowed: int | None = None
        self._servers = {
            role: _Server(self, role, send_buffer, context)
            for role, context in (("hub", tls), ("cdn", cdn_tls))
        }
        self.origin = self._servers["hub"].origin
        self.cdn_origin = self._servers["cdn"].origin
        self.url = self.origin + prefix
        """For HF_ENDPOINT."""

    def __enter__(self) -> HubServer:
        for server in self._servers.values():
            server.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.closing.set()
        for server in self._servers.values():
            server.stop()

    def plan(self, *faults: Fault) -> None:
        """These go wrong from now on, instead of those before. Each request takes the first that fits."""
        with self.lock:
            self.faults = list(faults)

    def add_repository(
        self, name: str, contents: Mapping[str, bytes], *, gated: bool = False, private: bool = False
    ) -> Repository:
        """A repository whose "main" has these files; large kinds of files are in LFS."""
        repository = self.repositories[name] = Repository(name, gated=gated, private=private)
        repository.commit(contents)
        return repository

    def add_file(self, path: str, content: bytes) -> str:
        """A plain file on the hub's server; returns its address."""
        self.files[path] = Resource(content)
        return f"{self.url}/files/{urllib.parse.quote(path)}"

    def add_page(self, path: str, body: bytes | str, kind: str = "text/html", status: int = 200) -> str:
        """A page at that path (which begins with a slash), below the prefix; returns its address."""
        self.pages[path] = Page(body.encode() if isinstance(body, str) else body, kind, status)
        return self.url + path

    def hold_after(self, count: int | None) -> None:
        """Send so many bytes of files from now on, and no more; None: send all again."""
        with self.lock:
            self._allowed = count

    def allows(self, count: int) -> bool:
        """Whether so many bytes may be sent; counts them."""
        with self.lock:
            if self._allowed is None:
                return True
            self._allowed -= min(count, self._allowed + 1)
            return self._allowed >= 0

    def expire(self) -> None:
        """Addresses on the CDN that were given out so far are answered with 403."""
        with self.lock:
            self._oldest = self._signature + 1

    def sign(self, path: str) -> str:
        """An address on the CDN that is good until `expire`."""
        with self.lock:
            self._signature = max(self._signature + 1, self._oldest)
            return f"{self.cdn_origin}{path}?Signature={self._signature}"

    def is_signed(self, query: str) -> bool:
        """Whether an address is still good."""
        given = urllib.parse.parse_qs(query).get("Signature", ["-1"])[0]
        with self.lock:
            return int(given) >= self._oldest

    def record(self, request: Request) -> Fault | None:
        """Remember a request; returns what is to go wrong."""
        with self.lock:
            self.requests.append(request)
            request.fault = next((fault for fault in self.faults if fault.takes(request)), None)
            return request.fault

    @property
    def data_requests(self) -> list[Request]:
        """The requests for files' contents that were answered with some."""
        with self.lock:
            return [one for one in self.requests if one.method == "GET" and one.status in (200, 206)]

    @property
    def bytes_sent(self) -> int:
        """Of all files' contents."""
        return sum(request.sent for request in self.data_requests)


class _Server:
    """One of the two: a port, its thread, and the connections that are open."""

    def __init__(self, hub: HubServer, role: str, send_buffer: int, tls: ssl.SSLContext | None) -> None:
        class Handler(_Handler):
            pass

        Handler.hub, Handler.role, Handler.connections = hub, role, set()
        self.connections = Handler.connections
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        if send_buffer:
            self.server.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, send_buffer)
        self.server.daemon_threads = False
        self.origin = f"http://127.0.0.1:{self.server.server_port}"
        if tls is not None:
            self.server.socket = tls.wrap_socket(self.server.socket, server_side=True)
            self.origin = f"https://localhost:{self.server.server_port}"
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02})

    def start(self) -> None:
        self.thread.start()

    def stop(self) -> None:
        self.server.shutdown()
        self.thread.join()
        for connection in list(self.connections):
            try:
                connection.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue
        self.server.server_close()


class _Gone(Exception):
    """The connection is over."""


class _Handler(BaseHTTPRequestHandler):
    hub: HubServer
    role: str
    connections: set[socket.socket]
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.connections.add(self.connection)

    def finish(self) -> None:
        self.connections.discard(self.connection)
        super().finish()

    def handle(self) -> None:
        try:
            super().handle()
        except (_Gone, ConnectionError, TimeoutError):
            self.close_connection = True

    def log_message(self, *_: Any) -> None:
        pass

    def do_HEAD(self) -> None:
        self.answer()

    def do_GET(self) -> None:
        self.answer()

    # ------------------------------------------------------------------------------------------- routing

    def answer(self) -> None:
        headers = {name.lower(): value for name, value in self.headers.items()}
        request = Request(self.role, self.command, self.path, headers)
        if begin := re.match(r"bytes=(\d+)-", request.range):
            request.asked = int(begin[1])
        self.request_seen = request
        fault = self.hub.record(request) or Fault()
        if fault.close:
            self.reset()
        if fault.endless:
            self.drip_without_end(fault)
        if fault.redirect:
            return self.say(302, {"Location": fault.redirect})
        if fault.status:
            given = {"Retry-After": fault.retry_after} if fault.retry_after else {}
            return self.say(fault.status, {**given, **fault.headers}, fault.body)
        path, _, query = self.path.partition("?")
        path = urllib.parse.unquote(path)
        return self.cdn(path, query, fault) if self.role == "cdn" else self.at_hub(path, query, fault)

    def at_hub(self, path: str, query: str, fault: Fault) -> None:
        if not path.startswith(f"{self.hub.prefix}/"):
            return self.say(404, {})
        path = path.removeprefix(self.hub.prefix)
        page = self.hub.pages.get(f"{path}?{query}") or self.hub.pages.get(path)
        if page is not None:
            return self.say(page.status, {"Content-Type": page.kind, **page.headers}, page.body)
        if path.startswith("/files/"):
            found = self.hub.files.get(path.removeprefix("/files/"))
            return self.say(404, {}) if found is None else self.send_file(found, found.etag, fault)
        if match := re.fullmatch(r"/api/models/([^/]+/[^/]+)(?:/revision/(.+))?", path):
            return self.model_info(match[1], match[2] or "main", query)
        if match := re.fullmatch(r"/api/resolve-cache/models/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path):
            return self.resolve(match[1], match[2], match[3], fault, cached=True)
        if match := re.fullmatch(r"/([^/]+/[^/]+)/resolve/([^/]+)/(.+)", path):
            return self.resolve(match[1], match[2], match[3], fault)
        return self.say(404, {})

    def repository(self, name: str) -> Repository | None:
        """The repository, or None after an answer that says why not."""
        if name in self.hub.renamed:
            target = self.path.replace(name, self.hub.renamed[name], 1)
            self.say(307, {"Location": target})
            return None
        found = self.hub.repositories.get(name)
        if found is None or (found.private and not self.has_token):
            self.refuse(404 if self.has_token else 401, "RepoNotFound", "Repository not found")
            return None
        return found

    @property
    def has_token(self) -> bool:
        return self.headers.get("Authorization") == f"Bearer {self.hub.token}"

    def refuse(self, status: int, code: str, message: str) -> None:
        body = json.dumps({"error": message}).encode()
        given = {"X-Error-Code": code, "X-Error-Message": message, "Content-Type": "application/json"}
        self.say(status, given, body)

    def model_info(self, name: str, revision: str, query: str) -> None:
        if (found := self.repository(name)) is None:
            return None
        if (commit := found.find(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        blobs = urllib.parse.parse_qs(query).get("blobs", [""])[0].lower() in ("true", "1")
        body = json.dumps(found.info(commit, blobs=blobs)).encode()
        return self.say(200, {"Content-Type": "application/json; charset=utf-8"}, body)

    def resolve(self, name: str, revision: str, path: str, fault: Fault, *, cached: bool = False) -> None:
        if (found := self.repository(name)) is None:
            return None
        if found.gated and not self.has_token:
            status = 403 if self.headers.get("Authorization") else 401
            return self.refuse(status, "GatedRepo", f"Access to model {name} is restricted")
        if (commit := found.find(revision)) is None:
            return self.refuse(404, "RevisionNotFound", f"Invalid rev id: {revision}")
        one = found.commits[commit].get(path)
        if one is None:
            return self.refuse(404, "EntryNotFound", "Entry not found")
        if one.lfs:
            known = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(one.content)),
                "X-Linked-Etag": one.etag,
                "ETag": f'"{one.git_sha1}"',
                "Accept-Ranges": "bytes",
            }
            place = urllib.parse.quote(f"/lfs/{name}/{commit}/{path}")
            return self.say(302, {**known, "Location": self.hub.sign(place)}, b"Found. Redirecting")
        if self.hub.caches_small_files and not cached:
            place = f"{self.hub.prefix}/api/resolve-cache/models/{name}/{commit}/{path}"
            known = {
                "X-Repo-Commit": commit,
                "X-Linked-Size": str(len(one.content)),
                "X-Linked-Etag": one.etag,
            }
            return self.say(307, {**known, "Location": urllib.parse.quote(place)})
        return self.send_file(one, one.etag, fault, {"X-Repo-Commit": commit})

    def cdn(self, path: str, query: str, fault: Fault) -> None:
        match = re.fullmatch(r"/lfs/([^/]+/[^/]+)/([0-9a-f]{40})/(.+)", path)
        found = self.hub.repositories.get(match[1]) if match else None
        if match is None or found is None or match[3] not in found.commits.get(match[2], {}):
            return self.say(404, {})
        if not self.hub.is_signed(query):
            return self.say(
                403, {"Content-Type": "application/xml"}, b"<Error><Code>AccessDenied</Code></Error>"
            )
        one = found.commits[match[2]][match[3]]
        if fault.change is not None:
            one.set(fault.change)
        return self.send_file(one, one.cdn_etag, fault)

    # ------------------------------------------------------------------------------------------- answers

    def say(self, status: int, headers: dict[str, str], body: bytes = b"") -> None:
        """A whole answer that is no file."""
        self.head(status, {**headers, "Content-Length": str(len(body))})
        if self.command != "HEAD":
            self.wfile.write(body)

    def head(self, status: int, headers: dict[str, str]) -> None:
        self.request_seen.status = status
        self.request_seen.answered = headers
        self.send_response_only(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()

    def send_file(self, one: Resource, etag: str, fault: Fault, more: dict[str, str] | None = None) -> None:
        if fault.change is not None and self.role == "hub":
            one.set(fault.change)
            etag = one.etag
        etag = etag if fault.etag is None else fault.etag
        content, size = one.content, len(one.content)
        headers = {"Accept-Ranges": "bytes", "Content-Type": "application/octet-stream", **(more or {})}
        headers |= fault.headers
        headers |= {"ETag": etag} if etag else {}
        start, end, status = 0, size, 200
        wanted = None if fault.ignore_range else self.wanted_range(size, etag)
        if wanted is not None:
            start, end = wanted
            if start >= size:
                return self.say(416, {**headers, "Content-Range": f"bytes */{size}"})
            status = 206
            named = f"bytes {start + fault.shift}-{end - 1 + fault.shift}/{size + fault.total_off}"
            headers["Content-Range"] = named
        self.request_seen.start = start
        body = content[start:end]
        if fault.encoding:
            headers["Content-Encoding"] = fault.encoding
        chunked = fault.chunked and self.command != "HEAD"
        if chunked:
            headers["Transfer-Encoding"] = "chunked"
        elif not fault.until_close:
            headers["Content-Length"] = str(max(0, len(body) + fault.length_off))
        self.head(status, headers)
        if self.command == "HEAD":
            return None
        return self.send_body(body, fault, chunked=chunked)

    def wanted_range(self, size: int, etag: str) -> tuple[int, int] | None:
        """(first byte, the one after the last) of the Range, if there is one that counts."""
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        condition = self.headers.get("If-Range")
        if match is None or (condition is not None and condition != etag):
            return None
        return int(match[1]), min(size, int(match[2]) + 1) if match[2] else size

    def send_body(self, body: bytes, fault: Fault, *, chunked: bool) -> None:
        if fault.flip is not None and body:
            place = fault.flip % len(body)
            body = body[:place] + bytes([body[place] ^ 0xFF]) + body[place + 1 :]
        stops = (fault.cut_after, fault.stall_after, fault.drip_after)
        fine = min([len(body), *(stop for stop in stops if stop is not None)])
        if fault.length_off < 0:
            fine = max(0, len(body) + fault.length_off)
        self.send(body[:fine], chunked=chunked)
        if fault.drip_after is not None:
            for place in range(fine, len(body)):
                if self.hub.closing.wait(fault.drip_pause):
                    raise _Gone
                self.send(body[place : place + 1], chunked=chunked)
            fine = len(body)
        if fault.stall_after is not None and fine < len(body):
            self.wait_for_the_end()
        if fault.cut_after is not None and fine < len(body):
            if fault.reset:
                self.reset()
            raise _Gone
        if fault.length_off or fault.until_close:
            raise _Gone
        if chunked:
            self.wfile.write(b"0\r\n\r\n")

    def send(self, data: bytes, *, chunked: bool) -> None:
        """Send a part of a file, and count what the system has taken."""
        rest = memoryview(data)
        while rest:
            piece = rest[:PIECE]
            while not self.hub.allows(len(piece)):
                self.wait_for_the_client()
            if chunked:
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), bytes(piece)))
                taken = len(piece)
            else:
                taken = self.connection.send(piece)
            self.request_seen.sent += taken
            rest = rest[taken:]
            if self.hub.pause and self.hub.closing.wait(self.hub.pause):
                raise _Gone

    def drip_without_end(self, fault: Fault) -> None:
        """Until the client has closed the connection, or the server ends."""
        chunks = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
        first, then = {
            "continue": ("", "HTTP/1.1 100 Continue\r\n\r\n"),
            "head": ("HTTP/1.1 200 OK\r\nX-Name: ", "x"),
            "extension": (f"{chunks}5;", "x"),
            "trailer": (f"{chunks}0\r\n", "X-Name: x\r\n"),
        }[fault.endless]
        self.wfile.write(first.encode())
        while not self.hub.closing.wait(fault.drip_pause):
            self.wfile.write(then.encode())
        raise _Gone

    def wait_for_the_end(self) -> None:
        """Until the client has closed the connection, or the server ends."""
        while True:
            self.wait_for_the_client()

    def wait_for_the_client(self) -> None:
        """A moment; _Gone if the client has closed the connection, or the server ends."""
        self.connection.settimeout(0.02)
        try:
            if self.hub.closing.is_set() or not self.connection.recv(1):
                raise _Gone
        except TimeoutError:
            self.connection.settimeout(None)

    def reset(self) -> None:
        """End the connection by RST."""
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.connection.close()
        raise _Gone


def git_blob(content: bytes) -> str:
    """Git's name for a file with that content."""
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()
