"""What is to be fetched, and what came."""

from __future__ import annotations

import msgspec


class Wanted(msgspec.Struct, frozen=True, kw_only=True):
    """A file at an address, and what is known about it."""

    url: str
    headers: dict[str, str] = {}
    """Such as Authorization: sent to the origin of `url` (scheme, host and port), and to no other."""
    size: int = 0
    """Bytes; 0: not known."""
    sha256: str = ""
    """In hex; "": not known."""
    git_sha1: str = ""
    """Git's name for its content, for small files in a repository; "": not known."""
    etag: str = ""
    """What its server called it when it was looked up; "": not known."""
    label: str = ""
    """For errors, such as the name of the file."""

    @property
    def has_digest(self) -> bool:
        """Whether its content is known, not only where it was."""
        return bool(self.sha256 or self.git_sha1)


class Received(msgspec.Struct, frozen=True):
    """What came."""

    size: int
    sha256: str
