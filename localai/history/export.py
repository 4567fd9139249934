"""What an export is: its forms, what its file is called, and where people look for it."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final, Literal, get_args

import platformdirs

from localai import policy
from localai.chat.conversation import Conversation
from localai.history import exchange

Form = Literal["markdown", "json", "html"]
FORMS: Final[tuple[Form, ...]] = get_args(Form)
SUFFIXES: Final[dict[Form, str]] = {"markdown": ".md", "json": ".json", "html": ".html"}
LONGEST_NAME: Final = 80
"""Bytes of a name that is made of a title; file systems take 255, some less."""


def check_allowed() -> None:
    """PolicyError where the organization lets no conversation be written to a file."""
    policy.current().check("forbid.export", "conversations cannot be exported")


def render(form: Form, conversations: Sequence[Conversation]) -> str:
    """The conversations as one text. PolicyError as of `check_allowed`."""
    check_allowed()
    from localai.history import page  # only who exports waits for it

    write = {"markdown": exchange.as_markdown, "json": exchange.as_json, "html": page.as_page}[form]
    return write(conversations)


def name_of(title: str) -> str:
    """A file's name without suffix, for what is called `title`."""
    plain = re.sub(r'[/\\:*?"<>|]+', " ", exchange.one_line(title))
    cut = " ".join(plain.split()).encode()[:LONGEST_NAME].decode("utf-8", "ignore")
    return cut.strip(" .") or "conversation"


def folder() -> Path:
    """Where an export goes if the user does not say otherwise: their downloads, else the current folder."""
    downloads = platformdirs.user_downloads_path()
    return downloads if downloads.is_dir() else Path.cwd()


def unused(path: Path) -> Path:
    """`path`, with a number if there is such a file already."""
    taken = range(2, 1000)
    names = [path, *(path.with_name(f"{path.stem} ({number}){path.suffix}") for number in taken)]
    return next((name for name in names if not os.path.lexists(name)), path)
