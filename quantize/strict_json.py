"""JSON files of a checkpoint as untrusted input: bounded in size, an object at the top, no key twice, and
no half characters, which cannot be written anywhere.

Only regular files and links to them are opened: reading a pipe or a device might never end.
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from localai.errors import CheckpointError
from quantize import file_kinds

MAX_BYTES = 256 * 1024 * 1024
"""No tokenizer.json or index that is in use comes near this."""

FETCH_AGAIN = "Fetch the file again"
_LFS_POINTER = b"version https://git-lfs.github.com/spec/"
_ESCAPES = re.compile(rb"\\u[dD][89abAB]..\\u[dD][c-fC-F]|(\\u[dD][89a-fA-F])|\\.")
"""Escapes of valid JSON, whole: two halves of a character, one half (the group), and any other."""


def read_object(path: Path) -> dict[str, Any]:
    """The JSON object in `path`; CheckpointError if it is unreadable, not JSON, not an object, or too big."""
    try:
        _require_regular(path)
        with path.open("rb") as file:
            text = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise unreadable(path, error) from error
    if len(text) > MAX_BYTES:
        raise CheckpointError(
            f"{path} is larger than {MAX_BYTES} bytes, which no file of its kind is", FETCH_AGAIN
        )
    return parse_object(text, path)


def unreadable(path: Path, error: OSError) -> CheckpointError:
    """The error for a file or folder that the system does not let us read."""
    hint = FETCH_AGAIN if isinstance(error, FileNotFoundError) else "Check its rights and its disk"
    return CheckpointError(f"cannot read {path}: {error.strerror or error}", hint)


def _require_regular(path: Path) -> None:
    mode = path.stat().st_mode
    if not file_kinds.is_regular(mode):
        link = "a link to " if path.is_symlink() else ""
        raise CheckpointError(
            f"{path} is {link}{file_kinds.describe(mode)}, which is refused",
            "Put the file itself in its place: fetch it again",
        )


def read_optional(path: Path) -> dict[str, Any]:
    """As `read_object`, but an empty object where there is nothing of that name."""
    return read_object(path) if os.path.lexists(path) else {}


def parse_object(text: bytes, path: Path, part: str = "") -> dict[str, Any]:
    """The JSON object in `text`, which stands in `path` (`part` says where); CheckpointError if malformed."""
    refuse_lfs_pointer(text, path)
    where = f"{part} of {path}" if part else f"{path}"
    try:
        value = json.loads(text.decode("utf-8"), object_pairs_hook=_no_duplicates)
    except UnicodeDecodeError as error:
        raise CheckpointError(f"{where} is not UTF-8 text", FETCH_AGAIN) from error
    except RecursionError as error:
        raise CheckpointError(f"{where} is nested too deeply", FETCH_AGAIN) from error
    except ValueError as error:
        raise CheckpointError(f"{where} is not valid JSON: {error}", FETCH_AGAIN) from error
    if _has_half_character(text):
        raise CheckpointError(f"{where} has half a character in it, a lone surrogate", FETCH_AGAIN)
    if not isinstance(value, dict):
        raise CheckpointError(f"{where} does not hold a JSON object", FETCH_AGAIN)
    return value


def _has_half_character(text: bytes) -> bool:
    """Whether valid JSON escapes one half of a surrogate pair without the other."""
    if b"\\ud" not in text and b"\\uD" not in text:
        return False  # quick: a tokenizer.json has millions of bytes
    return any(match[1] for match in _ESCAPES.finditer(text))


def refuse_lfs_pointer(start: bytes, path: Path) -> None:
    """CheckpointError if the file that begins with `start` only points to a file of git-lfs."""
    if start.startswith(_LFS_POINTER):
        raise CheckpointError(
            f"{path} is a git-lfs pointer, not the file itself", "Run `git lfs pull` in its repository"
        )


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        seen: set[str] = set()
        twice = next(key for key, _ in pairs if key in seen or seen.add(key))  # type: ignore[func-returns-value]
        raise ValueError(f"the key {twice!r} stands there twice")
    return found
