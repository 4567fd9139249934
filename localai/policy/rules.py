"""What is in force: the values of all policy files, of each key the strictest, and from which file it is."""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from localai.errors import PolicyError
from localai.policy.names import SWITCHES, Key

WORDS: Mapping[str, str] = {
    "require.sandbox": "models run only in the full sandbox",
    "require.encryption": "conversations are encrypted",
    "require.incognito": "no conversation is kept",
    "forbid.pull": "no model is fetched",
    "forbid.plain_history": "conversations are not stored in plain text",
    "forbid.export": "conversations are not written to files",
    "forbid.unknown_architectures": "only models of R1's architectures run",
}


class Policy:
    """What is in force. Without a file: nothing."""

    def __init__(
        self,
        values: Mapping[str, object] = {},
        sources: Mapping[str, Path] = {},
        files: Sequence[Path] = (),
    ) -> None:
        """`values` by key, without switches that are off; `sources`: the file that each key is from."""
        self.values, self.sources, self.files = values, sources, tuple(files)

    def has(self, *keys: Key) -> bool:
        """Whether one of the keys is in force."""
        return any(key in self.values for key in keys)

    @property
    def retention_days(self) -> float | None:
        """Days after their last change for which conversations may be kept; None: for ever."""
        days = self.values.get("require.retention_days")
        return days if isinstance(days, float) else None

    @property
    def allowed_models(self) -> frozenset[str] | None:
        """SHA-256, in small hex, of the files that may run; None: all may."""
        allowed = self.values.get("models.allow")
        return allowed if isinstance(allowed, frozenset) else None

    def lists(self, digests: Collection[str]) -> bool:
        """Whether files with these digests, in small hex, may run."""
        return self.allowed_models is None or self.allowed_models.issuperset(digests)

    @property
    def contact(self) -> str:
        """Whom to ask; "" if the policy says nothing."""
        return str(self.values.get("contact", ""))

    @property
    def ask(self) -> str:
        """Whom to ask, as the end of an error."""
        return f"Ask {self.contact}" if self.contact else "Ask whoever manages this machine"

    def error(self, key: Key, what: str, hint: str = "") -> PolicyError:
        """The error for `what`, such as "models cannot be fetched", because of `key`."""
        where = f"{key} in {self.sources.get(key, 'its file')}"
        return PolicyError(
            f"{what}: your organization's policy forbids it ({where})",
            f"{hint}. {self.ask}" if hint else self.ask,
        )

    def check(self, key: Key, what: str, hint: str = "") -> None:
        """Raise PolicyError, as of `error`, if `key` is in force."""
        if key in self.values:
            raise self.error(key, what, hint)

    def describe(self) -> list[tuple[str, str]]:
        """(what is in force, from which file), in words; nothing without a policy."""
        words: list[tuple[str, str]] = [(WORDS[key], key) for key in SWITCHES if key in self.values]
        if (days := self.retention_days) is not None:
            words.append(
                (
                    f"conversations are deleted {in_days(days)} after their last change",
                    "require.retention_days",
                )
            )
        if (allowed := self.allowed_models) is not None:
            words.append((f"only models of a list of {len(allowed):,} files run", "models.allow"))
        if self.contact:
            words.append((f"questions go to {self.contact}", "contact"))
        found = [(text, str(self.sources[key])) for text, key in words]
        return found or [("a policy that demands nothing", str(path)) for path in self.files]


def merged(files: Sequence[tuple[Path, Mapping[str, Any]]]) -> Policy:
    """All files in force at the same time: the stricter value of each key wins, of contacts the first."""
    values: dict[str, object] = {}
    sources: dict[str, Path] = {}
    for path, one in files:
        for key, value in one.items():
            stricter = value
            if key == "models.allow" and isinstance(known := values.get(key), frozenset):
                stricter = known & value
            elif key == "require.retention_days" and isinstance(known := values.get(key), float):
                stricter = min(known, value)
            elif key in values:
                continue
            if key not in values or stricter != values[key]:
                sources[key] = path
            values[key] = stricter
    return Policy(values, sources, tuple(path for path, _ in files))


def in_days(days: float) -> str:
    """A time in words."""
    return "1 day" if days == 1 else f"{days:g} days"


def digest(files: Sequence[bytes]) -> str:
    """The SHA-256 of one file; of several, that of their digests, as 64 hex digits a line."""
    each = [hashlib.sha256(data).hexdigest() for data in files]
    return (
        each[0]
        if len(each) == 1
        else hashlib.sha256("".join(f"{one}\n" for one in each).encode()).hexdigest()
    )
