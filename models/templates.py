"""Which chat templates may be used: known ones, and those that the user has read and accepted.

A template is a program that came with a model. It is told by the SHA-256 of its text, without the line break
at its end, which Jinja drops. What the user accepts is one empty file each, named by the digest, in the
folder of the settings: it counts for every model that brings the same text.
"""

from __future__ import annotations

import hashlib
import re
import shlex
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path
from typing import Final

from localai import paths
from localai.errors import StoreError, UnsupportedModel
from models.header import Header, is_seen

R1: Final = {
    "b6835114b7303ddd78919a82e4d9f7d8c26ed0d7dfc36beeb12d524f6144eab1": "DeepSeek-R1, January 2025",
    "56a1447ad31926fdc21fb07e56e5642bd9c850c4f52d8c8af7bbe5f079a84f5f": "DeepSeek-R1, February 2025",
    "dd2675619a64a449cdcdd2b93e605a0a50764cee41e344f244752bc93643936c": "DeepSeek-R1, llama.cpp's copy",
    "bbe594884b44d740667ee65a70bc8d333a565eab3d63ea59f291ea73ada84ba6": "DeepSeek-R1, llama.cpp's switchable",
    "e0d5e227f0aedba8bc36d9173d4f814b6b9bc8bafa3e50d53fa0071567f90102": "DeepSeek-R1, llama.cpp's own",
    "7c0e2e3843df674e7e361eebc8f1351354ae0258765750620276f27feccdba72": "r1-nano",
}
"""Templates of DeepSeek-R1. They are not run: the program writes R1's prompts itself."""

READ: Final = {
    "872be49dbb638044ad01b60388f48d469ff2980e5f0dccdc22ec907db54d0788": "SmolLM2",
    "55b2f4a26ac9ee719330a61a0c39d9e538b0e9322212f048326318cff4f8674a": "Qwen2.5",
    "87a2728cb8dc9fe424d624542f6060ec05a1d285ebbec578bb078900e33396b5": "Qwen3",
    "93c0e9aa3629bbd77e68dbc0f5621f6e6b23aa8d74b932595cdb8d64684526d7": "Llama 3.1",
}
"""Templates of other models that we have read and vouch for: they run without a question."""

_DIGEST = re.compile(r"[0-9a-f]{64}")


def digest(template: str) -> str:
    """The SHA-256 by which a template is known."""
    return hashlib.sha256(template.removesuffix("\n").encode("utf-8", "surrogatepass")).hexdigest()


def may_run(template: str, agreed: Collection[str]) -> bool:
    """Whether somebody has read it: we, or the user who agreed to the templates with these digests."""
    known = digest(template)
    return known in R1 or known in READ or known in agreed


def unread(header: Header, agreed: Collection[str]) -> str:
    """The template in the file that somebody must read first; empty if there is none, or it is not needed."""
    template = header.chat_template
    if not template or header.token_facts.r1_markers or may_run(template, agreed):
        return ""
    return template


def accepted() -> tuple[str, ...]:
    """The digests of the templates that the user has accepted."""
    with suppress(OSError):
        return tuple(sorted(path.name for path in _folder().iterdir() if _DIGEST.fullmatch(path.name)))
    return ()


def is_accepted(template: str) -> bool:
    """Whether the user has accepted that template."""
    return (_folder() / digest(template)).is_file()


def accept(template: str) -> None:
    """Let that template be run from now on. StoreError if that cannot be written down."""
    try:
        (paths.private_dir(_folder()) / digest(template)).touch(mode=0o600)
    except OSError as error:
        raise _unwritable(error) from error


def forget(template: str) -> bool:
    """Let it no longer be run; whether it was accepted. StoreError if that cannot be written down."""
    try:
        (_folder() / digest(template)).unlink()
    except FileNotFoundError:
        return False
    except OSError as error:
        raise _unwritable(error) from error
    return True


def refused(path: Path) -> UnsupportedModel:
    """The error for the model at `path`, whose template nobody has read."""
    name = shlex.quote(str(path))
    return UnsupportedModel(
        f"{path} brings its own chat template, which nobody here has read",
        f"See it: localai models show {name} --template; then: localai models accept {name}",
    )


def shown(template: str) -> str:
    """`template` for a screen: with its line breaks, and everything that is invisible as its number."""
    return "".join(char if is_seen(char) or char == "\n" else _visible(char) for char in template)


def _visible(char: str) -> str:
    return f"\\u{ord(char):04x}" if ord(char) < 0x10000 else f"\\U{ord(char):08x}"


def _folder() -> Path:
    return paths.config_dir() / "accepted-templates"


def _unwritable(error: OSError) -> StoreError:
    return StoreError(
        f"{_folder()} cannot be written: {error.strerror or error}", "Check the rights of the folder"
    )
