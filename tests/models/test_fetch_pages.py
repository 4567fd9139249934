"""Short answers over HTTP: bounded, whole, and asked for again when that can help."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from pathlib import Path

import pytest

from localai.errors import FetchError
from models.fetch import pages, simple_page
from models.fetch.web import Web
from tests.hub_server import Fault, HubServer
from tests.models.fetching import isolate

BODY = b"x" * 10_000


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[HubServer]:
    with HubServer() as hub:
        isolate(monkeypatch, tmp_path)
        yield hub


@pytest.fixture
def web() -> Iterator[Web]:
    with Web(connections=1) as web:
        yield web


@pytest.mark.parametrize(
    "fault", [Fault(cut_after=5000), Fault(length_off=100), Fault(close=True), Fault(status=502)]
)
def test_what_breaks_is_asked_for_again(hub: HubServer, web: Web, fault: Fault) -> None:
    address = hub.add_file("list", BODY)
    hub.plan(fault)
    page = pages.ask(web, address)
    assert (page.status, page.body, page.url) == (200, BODY, address)
    assert len(hub.requests) == 2


@pytest.mark.parametrize("fault", [Fault(chunked=True), Fault(until_close=True)])
def test_an_answer_without_a_length(hub: HubServer, web: Web, fault: Fault) -> None:
    address = hub.add_file("list", BODY)
    hub.plan(fault)
    assert pages.ask(web, address).body == BODY


def test_what_stays_broken_is_an_error(hub: HubServer, web: Web) -> None:
    address = hub.add_file("list", BODY)
    hub.plan(Fault(cut_after=5000, times=99))
    with pytest.raises(FetchError, match="gives no answer"):
        pages.ask(web, address)
    hub.plan(Fault(status=500, retry_after="0", times=99))
    hub.requests.clear()
    assert pages.ask(web, address).status == 500
    assert len(hub.requests) == 5


def test_a_date_in_retry_after(hub: HubServer, web: Web) -> None:
    address = hub.add_file("list", BODY)
    soon = format_datetime(datetime.now(UTC) - timedelta(seconds=5), usegmt=True)
    hub.plan(Fault(status=429, retry_after=soon))
    assert pages.ask(web, address).status == 200
    late = format_datetime(datetime.now(UTC) + timedelta(hours=1), usegmt=True)
    hub.plan(Fault(status=429, retry_after=late, times=2))
    assert pages.ask(web, address).status == 429


def test_an_answer_that_drips(hub: HubServer, web: Web, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pages, "_MAX_SECONDS", 0.2)
    hub.plan(Fault(drip_after=10, drip_pause=0.01, times=99))
    with pytest.raises(FetchError, match="takes minutes"):
        pages.ask(web, hub.add_file("list", BODY))


def test_an_answer_that_is_packed(hub: HubServer, web: Web) -> None:
    hub.plan(Fault(encoding="gzip", times=99))
    with pytest.raises(FetchError, match="compressed"):
        pages.ask(web, hub.add_file("list", BODY))


def test_redirects_in_circles(hub: HubServer, web: Web) -> None:
    address = hub.add_file("list", BODY)
    hub.plan(Fault(redirect=address, times=99))
    with pytest.raises(FetchError, match="too often"):
        pages.ask(web, address)


@pytest.mark.parametrize("endless", ["continue", "head", "extension", "trailer"])
def test_an_answer_that_never_comes_though_bytes_do(hub: HubServer, endless: str) -> None:
    """Each byte begins the timeout of the socket anew."""
    hub.plan(Fault(endless=endless, times=99))
    address = hub.add_file("list", BODY)
    with Web(connections=1, read_timeout=0.15) as web, pytest.raises(FetchError, match="gives no answer"):
        pages.ask(web, address)
    hub.plan()
    with Web(connections=1) as patient:  # a good answer may take its time on a busy machine
        assert pages.ask(patient, address).body == BODY


PIECES = [
    '<a b="',
    "<!--",
    "<a ",
    '<a "x" \'',
    "<a href",
    '<a href="',
    "<a href = ",
    "<a b   ",
    "<base href=b>",
]


@pytest.mark.parametrize("piece", PIECES)
def test_a_page_is_read_in_time_that_grows_with_it_alone(piece: str) -> None:
    """A parser that looks at the rest of the page for each tag takes hours for these."""
    body = (piece * (4 * 1024 * 1024 // len(piece))).encode()
    started = time.process_time()
    assert simple_page.parse(body, "text/html", "https://index.example/simple/x/") == []
    assert time.process_time() - started < 10


@pytest.mark.parametrize(
    "body",
    [
        "<a href=b>" * 50_001,
        f"<base href={'b' * 1000}/>" + f"<a href={'c' * 100}>" * 40_000,
        f'{{"files": [{", ".join(["{}"] * 50_001)}]}}'.replace("{}", '{"filename": "", "url": ""}'),
    ],
)
def test_a_page_with_too_many_links(body: str) -> None:
    kind = "application/json" if body.startswith("{") else "text/html"
    with pytest.raises(FetchError, match="more than 50,000 files"):
        simple_page.parse(body.encode(), kind, "https://index.example/simple/x/")


def test_links_as_people_write_them() -> None:
    digest = "a" * 64
    page = f"""<!-- <a href="no.whl"> --><base href="/files/"><A data-requires-python=">=3.8"
        HREF = "b%2Bc.whl#sha256={digest}">b</A><a\nhref=d.whl?x=1&amp;y=2 >d</a><abbr href=e.whl>"""
    found = simple_page.parse(page.encode(), "text/html", "https://index.example/simple/x/")
    assert found == [
        simple_page.Link("b+c.whl", "https://index.example/files/b%2Bc.whl", digest),
        simple_page.Link("d.whl", "https://index.example/files/d.whl?x=1&y=2"),
    ]
