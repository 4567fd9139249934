"""Names of models: 1 to 3 parts with ":" between them, such as "r1", "r1:7b" or "r1:7b:q4_k_m".

A part becomes one component of a path, on any system and also on a disk that ignores case: so what a part
may be is decided here, and nothing else ever builds a path from a name.
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from localai.errors import UsageError

_PART = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")
_DEVICE = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?")
_TAKEN: Final = (".", ".json", ".gguf")
"""Ends that no part has: Windows drops a trailing dot, manifests end in .json, and .gguf means a path."""


def canonical(text: str) -> str:
    """`text` as a name, in lower case. UsageError if it is not one."""
    if is_name(text):
        return text.lower()
    shown = "".join(char if char.isprintable() else "?" for char in text[:80])
    raise UsageError(
        f"{shown!r} cannot be the name of a model",
        'A name has 1 to 3 parts with ":" between them; a part has letters a-z, digits, and . _ - inside.',
    )


def is_name(text: str) -> bool:
    """Whether `canonical` accepts `text`."""
    # isascii before lower(): a few letters outside ASCII, such as the Kelvin sign, become ASCII ones.
    return text.isascii() and all(_is_part(part) for part in _parts(text.lower()))


def suggested(text: str) -> str:
    """A name made of `text`, such as the name of a file or a folder; UsageError if nothing is left of it."""
    ascii_only = unicodedata.normalize("NFKD", text).encode("ascii", "ignore").decode().lower()
    parts = [re.sub(r"[^a-z0-9._]+", "-", part) for part in ascii_only.split(":", 2)]
    parts = [re.sub(r"\.{2,}", ".", part)[:64].strip("._-") for part in parts]
    parts = [f"model-{part}" if _DEVICE.fullmatch(part) else part for part in parts]
    while any(part.endswith(_TAKEN) for part in parts):
        parts = [part.rpartition(".")[0] if part.endswith(_TAKEN) else part for part in parts]
    name = ":".join(part for part in parts if part)
    return canonical(name) if is_name(name) else canonical(text)


def manifest_path(refs: Path, name: str) -> Path:
    """Where below the folder `refs` the manifest of `name` is: "r1:7b" -> refs/r1/7b.json."""
    *folders, last = canonical(name).split(":")
    return refs.joinpath(*folders, f"{last}.json")


def name_of(refs: Path, path: Path) -> str:
    """The inverse of `manifest_path`; UsageError if no name leads to `path`."""
    return canonical(":".join(path.relative_to(refs).with_suffix("").parts))


def nearest(name: str, names: Iterable[str]) -> list[str]:
    """Up to three of `names` that the user may have meant by `name`, the best first."""
    candidates = sorted(set(names))
    wanted = name.lower()
    begun = [known for known in candidates if known.startswith(wanted)] if wanted else []
    close = difflib.get_close_matches(wanted, candidates, n=3, cutoff=0.5)
    return list(dict.fromkeys([*begun, *close]))[:3]


def _parts(text: str) -> list[str]:
    parts = text.split(":")
    return parts if len(parts) <= 3 else [""]


def _is_part(part: str) -> bool:
    return (
        _PART.fullmatch(part) is not None
        and _DEVICE.fullmatch(part) is None
        and ".." not in part
        and not part.endswith(_TAKEN)
    )
