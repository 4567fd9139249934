"""What the search for other programs' models gets and gives: where it looks, and what it found, as data."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Final, Literal, TypeAlias

import msgspec

Kind: TypeAlias = Literal["gguf", "checkpoint"]
_LONGEST: Final = 4096
_MAC: Final = "Library/Application Support"


class Found(msgspec.Struct, frozen=True, kw_only=True):
    """A model that another program keeps. All of it but the files themselves is that program's word."""

    program: str
    """For people, such as "LM Studio"."""
    called: str
    """What that program calls the model."""
    paths: tuple[Path, ...]
    """The file, or its parts in their order, or the folder of a checkpoint. May be links to regular files."""
    size: int
    """Bytes of all files; of a checkpoint, of its weights."""
    sha256: str = ""
    """Of the file, or of a model in parts as `models.manifest` has it; "": the program does not tell."""
    kind: Kind = "gguf"
    problem: str = ""
    """Why it cannot be used, as the end of a sentence about it; "": nothing is known."""


class Surroundings(msgspec.Struct, frozen=True):
    """The machine as the search sees it."""

    environ: Mapping[str, str]
    home: Path
    platform: str
    """As `sys.platform`."""
    root: Path
    """Where folders of the whole system begin."""

    def named(self, variable: str) -> Path | None:
        """The folder that a variable of the environment names; None if it is unset or no absolute path."""
        return self.folder(self.environ.get(variable, "").strip(" \"'"))

    def folder(self, text: str) -> Path | None:
        """The absolute path that `text` from a file or the environment is; None if it is none."""
        if text == "~" or text.startswith(("~/", "~\\")):
            text = f"{self.home}{text[1:]}"
        if not 0 < len(text) <= _LONGEST or "\0" in text or not is_text(text):
            return None
        path = Path(text)
        return path if path.is_absolute() else None

    @property
    def is_mac(self) -> bool:
        """macOS."""
        return self.platform == "darwin"

    @property
    def is_windows(self) -> bool:
        """Windows."""
        return self.platform == "win32"

    def of_platform(self, windows: str, mac: str, variable: str, linux: str) -> Path:
        """A folder that each system has in a place of its own.

        `windows` and `variable` are variables of the environment; `mac` and `linux` paths below the home.
        """
        if self.is_windows:
            below = {"APPDATA": "AppData/Roaming", "LOCALAPPDATA": "AppData/Local"}[windows]
            return self.named(windows) or self.home / below
        if self.is_mac:
            return self.home / mac
        return self.named(variable) or self.home / linux

    @property
    def data(self) -> Path:
        """Where programs keep their data."""
        return self.of_platform("APPDATA", _MAC, "XDG_DATA_HOME", ".local/share")

    @property
    def config(self) -> Path:
        """Where programs keep their settings."""
        return self.of_platform("APPDATA", _MAC, "XDG_CONFIG_HOME", ".config")

    @property
    def local_data(self) -> Path:
        """Where programs keep what stays on this machine."""
        return self.of_platform("LOCALAPPDATA", _MAC, "XDG_DATA_HOME", ".local/share")

    @property
    def cache(self) -> Path:
        """Where programs keep what they could fetch again."""
        return self.of_platform("LOCALAPPDATA", "Library/Caches", "XDG_CACHE_HOME", ".cache")


def is_text(text: str) -> bool:
    """Whether `text` can be written as UTF-8: names of files need not be."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
