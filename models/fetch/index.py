"""Wheels on package indexes: those that the user has set for pip, or any mirror of them.

The one wheel that has the wanted digest is meant, on whichever index it is. What authorizes us on an index
goes to that index alone, and not to where its files are.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit
from urllib.request import url2pathname

import msgspec

from localai.errors import FetchError, IntegrityError
from models import files
from models.fetch import network, pages, pip_settings, simple_page, trust, wheels
from models.fetch.access import credentials, is_loopback, without_userinfo
from models.fetch.pages import Page
from models.fetch.pip_settings import Settings
from models.fetch.plan import Item, Plan
from models.fetch.protocol import FetchedFile, Listed, Resolved
from models.fetch.simple_page import Link
from models.fetch.wanted import Wanted
from models.fetch.web import Web, origin
from models.fetch.where import is_address, is_plain, require_address, server
from models.header import printable
from models.origins import PackageIndex, Wheel
from models.progress import Progress
from models.remote_names import checked, checked_all

_SETTINGS: Final = "Check the network, and which package index is set: python -m pip config list"


def resolve(source: PackageIndex) -> Plan:
    """The plan for `source`. FetchError if no index has it, IntegrityError if one has another of its name."""
    checked_all(dict.fromkeys(wheel.member for wheel in source.wheels))
    settings = pip_settings.read()
    network.use(settings)
    with Web(connections=1) as web:
        indexes = _Indexes(settings, web)
        found = [indexes.find(wheel) for wheel in source.wheels]
    known = [
        msgspec.structs.replace(wheel, size=wheel.size or place.link.size)
        for wheel, place in zip(source.wheels, found, strict=True)
    ]
    sizes = [wheel.size for wheel in known]
    total = sum(sizes) if all(sizes) else 0
    completed = msgspec.structs.replace(source, wheels=tuple(known))
    items = [_item(number, *pair) for number, pair in enumerate(zip(known, found, strict=True), start=1)]
    return Plan(
        Resolved(
            source=completed,
            files=tuple(item.listed for item in items),
            total=total,
            peak=total + source.size if total else 0,
        ),
        tuple(items),
        header_first=False,
        finish=partial(_finish, completed),
        present=partial(wheels.present, completed),
    )


def _finish(
    source: PackageIndex, folder: Path, archives: Sequence[FetchedFile], on_progress: Progress
) -> tuple[FetchedFile, ...]:
    paths = [Path(archive.path) for archive in archives]
    made = wheels.unpack(paths, source, folder, on_progress)
    for path in paths:
        files.discard(path)
    return made


@dataclass(frozen=True)
class _Found:
    """A wheel, and how it is had."""

    link: Link
    headers: dict[str, str] = field(default_factory=dict, repr=False)


def _hashed(found: _Found) -> _Found:
    """With its digest, where that can be had at once: of a file on this machine."""
    link = found.link
    if link.sha256 or urlsplit(link.url).scheme != "file":
        return found
    path = Path(url2pathname(urlsplit(link.url).path))
    try:
        return _Found(Link(link.filename, link.url, files.sha256_of(path), path.stat().st_size))
    except OSError as error:
        raise FetchError(f"{path} cannot be read: {error.strerror or error}", _SETTINGS) from error


def _item(number: int, wheel: Wheel, found: _Found) -> Item:
    parts = urlsplit(found.link.url)
    listed = Listed(found.link.filename, wheel.size, wheel.sha256)
    name = f"wheel-{number:05}.whl"
    if parts.scheme == "file":
        return Item(listed, name, None, Path(url2pathname(parts.path)))
    wanted = Wanted(
        url=found.link.url,
        headers=found.headers,
        size=wheel.size,
        sha256=wheel.sha256,
        label=printable(found.link.filename),
    )
    return Item(listed, name, wanted)


class _Indexes:
    """All places where wheels may be."""

    def __init__(self, settings: Settings, web: Web) -> None:
        self._settings, self._web = settings, web
        self._pages: dict[str, list[_Found]] = {}

    def find(self, wheel: Wheel) -> _Found:
        """Where `wheel` is; the first place that has it by its digest, or at least by its name."""
        unnamed: list[_Found] = []
        others: list[Link] = []
        failures: list[FetchError] = []
        for address in self._addresses(wheel):
            try:
                links = [one for one in self._links(address) if wheels.is_of(one.link.filename, wheel)]
                found = [_hashed(one) for one in links]
            except FetchError as error:
                failures.append(error)
                continue
            for one in found:
                if one.link.sha256 == wheel.sha256:
                    checked(one.link.filename)
                    return one
            unnamed += [one for one in found if not one.link.sha256]
            others += [one.link for one in found if one.link.sha256]
        if unnamed:  # The digest decides when it has come
            checked(unnamed[0].link.filename)
            return min(unnamed, key=lambda one: not one.link.filename.endswith("-py3-none-any.whl"))
        raise self._missing(wheel, others, failures)

    def _addresses(self, wheel: Wheel) -> Iterator[str]:
        for place in self._settings.find_links:
            yield place if "://" in place else Path(place).expanduser().absolute().as_uri()
        for index in self._settings.indexes:
            yield f"{index}/{wheels.project(wheel.package)}/"

    def _missing(
        self, wheel: Wheel, others: list[Link], failures: list[FetchError]
    ) -> FetchError | IntegrityError:
        if others:
            return IntegrityError(
                f"The package index has another {printable(others[0].filename)} than the catalogue names: "
                f"its sha256 is {others[0].sha256}, and not {wheel.sha256}",
                "Tell whoever runs the index: a file is never replaced under the same name",
            )
        if failures:
            return failures[0]
        return FetchError(f"{wheel.package} {wheel.version} is on none of the package indexes", _SETTINGS)

    def _links(self, address: str) -> list[_Found]:
        if address not in self._pages:
            is_local = urlsplit(address).scheme == "file"
            self._pages[address] = self._on_disk(address) if is_local else self._asked(address)
        return self._pages[address]

    def _on_disk(self, address: str) -> list[_Found]:
        """The wheels in a folder, or on a page in it."""
        folder = Path(url2pathname(urlsplit(address).path))
        try:
            page = folder / "index.html" if folder.is_dir() else folder
            if page.is_file():
                with page.open("rb") as file:
                    text = file.read(pages.MAX_BYTES)
                links = simple_page.parse(text, "text/html", page.absolute().as_uri())
                return [_Found(link) for link in links]
            paths = sorted(folder.glob("*.whl")) if folder.is_dir() else []
            return [_Found(Link(path.name, path.absolute().as_uri())) for path in paths]
        except OSError as error:
            raise FetchError(f"{folder} cannot be read: {error.strerror or error}", _SETTINGS) from error

    def _asked(self, address: str) -> list[_Found]:
        """The links on a page of an index; none if it has no such page."""
        url, headers = without_userinfo(address)
        require_address(url)
        host = printable(urlsplit(url).hostname or url)
        if not self._is_safe(url):
            raise FetchError(
                f"The package index {host} is asked over http, so that anybody can answer for it",
                f"Use https, or trust it: python -m pip config set global.trusted-host {host}",
            )
        headers = headers or credentials(url)
        page = pages.ask(self._web, url, {"Accept": simple_page.ACCEPT}, headers)
        if page.status in (404, 410):
            return []
        if page.status != 200:
            raise _refused(page, host)
        links = simple_page.parse(page.body, page.headers.get("Content-Type", ""), page.url)
        return [self._reached(link, url, headers) for link in links if self._is_safe(link.url)]

    def _reached(self, link: Link, index: str, headers: dict[str, str]) -> _Found:
        """`link` without a password that the index has put into it, and with ours if it is the index's."""
        address, _ = without_userinfo(link.url)
        link = Link(link.filename, address, link.sha256, link.size)
        return _Found(link, headers if origin(address) == origin(index) else {})

    def _is_safe(self, url: str) -> bool:
        """Whether nobody else can answer for `url`, which may have a user and a password in it."""
        plain, _ = without_userinfo(url)
        if not is_plain(url) or not is_address(plain):
            return False
        asked = server(plain)
        return asked.scheme == "https" or is_loopback(asked.host) or trust.is_trusted(plain)


def _refused(page: Page, host: str) -> FetchError:
    if page.status in (401, 403):
        return FetchError(
            f"The package index {host} wants to know who asks ({page.status})",
            "Put user and password into its address in pip's settings, or into ~/.netrc",
        )
    return FetchError(f"The package index {host} answered {page.status}", "Try again later")
