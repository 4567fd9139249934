"""Files that are not GGUF: saying what they are, and what to do with them."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from localai.errors import ModelFileError

PICKLE_SUFFIXES: Final = frozenset({".bin", ".pt", ".pth", ".ckpt", ".pkl", ".pickle"})
_PICKLE_STARTS: Final = (b"PK", b"\x80\x02", b"\x80\x03", b"\x80\x04", b"\x80\x05")
_OLD_FORMATS: Final = (b"ggml", b"lmgg", b"fmgg", b"ggmf", b"tjgg", b"ggjt", b"algg", b"ggla")


def not_a_gguf(path: Path, start: bytes) -> ModelFileError:
    """The error for the file at `path`, which begins with `start` (16 bytes suffice) and not with "GGUF"."""
    if start.startswith(_PICKLE_STARTS) or path.suffix.lower() in PICKLE_SUFFIXES:
        return pickle_refused(path)
    if path.suffix.lower() == ".safetensors" or start[8:9] == b"{":
        return ModelFileError(
            f"{path} is a safetensors file, not GGUF",
            f"Convert its folder: localai quantize {path.parent}",
        )
    if start.startswith(_OLD_FORMATS):
        return ModelFileError(f"{path} has a format older than GGUF", "Fetch or make a current file.")
    if start.startswith(b"version https://"):
        return ModelFileError(
            f"{path} is a Git LFS pointer, not the model itself", "Fetch the real file: git lfs pull"
        )
    what = "is empty" if not start else "is not a GGUF file"
    return ModelFileError(f"{path} {what}", "Give a .gguf file; localai quantize makes one.")


def pickle_refused(path: Path) -> ModelFileError:
    """The error for a checkpoint in Python's pickle format, which can run any code when it is opened."""
    return ModelFileError(
        f"{path} is a pickled checkpoint, which can run code when it is opened: it is refused",
        "Get the same model as safetensors (then: localai quantize FOLDER) or as GGUF.",
    )
