"""Models that the user names by a path instead of by a name in the store."""

from __future__ import annotations

from pathlib import Path

from localai.errors import ModelFileError, ModelNotFound, UsageError
from models.header import printable
from models.lookalikes import PICKLE_SUFFIXES, pickle_refused


def is_path(text: str) -> bool:
    """Whether `text` can only be meant as a path: it has a separator, begins with "~", or ends in .gguf."""
    suffix = Path(text).suffix.lower()
    return (
        "/" in text
        or "\\" in text
        or text in ("", ".", "..")
        or text.startswith("~")
        or suffix in (".gguf", ".safetensors")
        or suffix in PICKLE_SUFFIXES
    )


def model_file(text: str) -> Path:
    """The absolute path of the file that `text` names, its header still unread.

    ModelNotFound if there is nothing, UsageError for a folder, ModelFileError for what is never opened.
    """
    if not text or "\0" in text:
        raise UsageError(f"{printable(text)!r} is not a path", "Give the path of a .gguf file.")
    path = Path(text).expanduser().absolute()
    if any("\ud800" <= character <= "\udfff" for character in str(path)):
        raise UsageError(f"{str(path)!r} is not UTF-8 text", "Rename the folder or the file.")
    if path.is_dir():
        raise UsageError(
            f"{path} is a folder, not a GGUF file", f"If it holds a checkpoint: localai quantize {path}"
        )
    if not path.exists():
        raise ModelNotFound(f"There is no file {path}", "Check the path, or see: localai models list")
    if path.suffix.lower() in PICKLE_SUFFIXES:
        raise pickle_refused(path)
    if path.suffix.lower() == ".safetensors":
        raise ModelFileError(
            f"{path} is a safetensors file, not GGUF", f"Convert its folder: localai quantize {path.parent}"
        )
    return path
