"""Known advisories on what we use or ship: the dated list beside this file, judged for this machine."""

from __future__ import annotations

import datetime
import re
import tomllib
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from localai.audit.finding import Finding

FILE: Final = Path(__file__).with_name("advisories.toml")
OLD_DAYS: Final = 90
"""A list that is older than this says too little."""
ENGINE: Final = "llama.cpp"

Status = Literal["fixed", "affected", "not reachable", "not assessed", "not installed"]
Judged = Literal["fixed", "affected", "not reachable"]
Dated = Annotated[str, msgspec.Meta(pattern=r"\A(\d{4}(-\d\d(-\d\d)?)?)?\Z")]
Source = Annotated[str, msgspec.Meta(pattern=r"\Ahttps://[^\s]+\Z")]


class Entry(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One advisory of the list."""

    id: str
    title: str
    component: str
    """llama.cpp, or a package."""
    source: Source
    aliases: tuple[str, ...] = ()
    dated: Dated = ""
    """When it became public, as exactly as the source tells."""
    fixed_in: str = ""
    """A commit, build, pull request or version; "" where none is known."""
    status: Judged | None = None
    """For the engines of the list, or for any version of a package; None: `fixed_in` decides."""
    reason: str = ""
    unconfirmed: str = ""
    """What of the entry no source told; "" where all was found."""


class KnownEngine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A commit of llama.cpp that was looked at."""

    commit: str
    package: str
    how: str


class List(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The whole list."""

    checked: datetime.date
    engines: tuple[KnownEngine, ...]
    advisories: tuple[Entry, ...]


class Advisory(msgspec.Struct, frozen=True):
    """An advisory, judged for what is installed here."""

    id: str
    aliases: tuple[str, ...]
    title: str
    dated: str
    component: str
    version: str
    """Of the component, as it is here; a commit for llama.cpp."""
    fixed_in: str
    status: Status
    reason: str
    unconfirmed: str
    """What of it no source told; "" where all was found."""
    source: str


class Advisories(msgspec.Struct, frozen=True):
    """The list, judged."""

    checked: str
    """When it was last looked through, as ISO 8601."""
    age_days: int
    engine_known: bool
    """Whether the commit of llama.cpp that runs here was looked at."""
    entries: tuple[Advisory, ...]


def read(path: Path = FILE) -> List:
    """The list in a file. OSError, tomllib.TOMLDecodeError or msgspec.ValidationError: it ships with us."""
    return msgspec.convert(tomllib.loads(path.read_text(encoding="utf-8")), List)


def today() -> datetime.date:
    """The day, in UTC."""
    return datetime.datetime.now(datetime.UTC).date()


def judged(commit: str, known: List | None = None, clock: Callable[[], datetime.date] = today) -> Advisories:
    """The list, for an engine of that commit of llama.cpp, and for the packages that are installed."""
    known = known or read()
    engine_known = any(_is_same(commit, engine.commit) for engine in known.engines)
    return Advisories(
        checked=known.checked.isoformat(),
        age_days=(clock() - known.checked).days,
        engine_known=engine_known,
        entries=tuple(_judge(entry, commit, engine_known) for entry in known.advisories),
    )


def findings(found: Advisories) -> list[Finding]:
    """What in it weakens something."""
    lines = []
    if found.age_days > OLD_DAYS:
        what = f"the list of known advisories is {found.age_days} days old"
        lines.append(Finding("advisories", what, "Bring the program up to date"))
    if not found.engine_known:
        what = "this version of the engine was not looked at: whether it has known defects is not known"
        lines.append(Finding("advisories", what, "Use the version that the program was released with"))
    for one in found.entries:
        if one.status == "affected":
            what = f"{one.id} ({one.title}) touches {one.component} {one.version}"
            lines.append(Finding("advisories", what, f"Bring {one.component} up to date; see {one.source}"))
    return lines


def _judge(entry: Entry, commit: str, engine_known: bool) -> Advisory:
    version = commit if entry.component == ENGINE else _version(entry.component)
    status: Status
    if not version:
        status = "not assessed" if entry.component == ENGINE else "not installed"
    elif entry.component == ENGINE and not engine_known:
        status = "not assessed"
    elif entry.status is not None:
        status = entry.status
    else:
        status = "fixed" if _numbers(version) >= _numbers(entry.fixed_in) else "affected"
    return Advisory(
        id=entry.id,
        aliases=entry.aliases,
        title=entry.title,
        dated=entry.dated,
        component=entry.component,
        version=version,
        fixed_in=entry.fixed_in,
        status=status,
        reason=entry.reason if status == entry.status else "",
        unconfirmed=entry.unconfirmed,
        source=entry.source,
    )


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return ""


def _is_same(commit: str, known: str) -> bool:
    return len(commit) >= 7 and (commit.startswith(known) or known.startswith(commit))


def _numbers(version: str) -> tuple[int, ...]:
    """Good enough for the release numbers of the list."""
    return tuple(int(number) for number in re.findall(r"\d+", version)[:3])
