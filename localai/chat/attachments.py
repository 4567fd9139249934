"""Texts that go along with a question: files that are read, pastes that are too long to show.

`read` takes what is text, and PDF; everything else is refused by one `UsageError` that names the file and
says what it is. Nothing here waits for a device or a pipe, and nothing grows without bound.
"""

from __future__ import annotations

import codecs
import os
import re
import shlex
import stat
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit

from localai.chat.clean import clean, clean_line, left_out, unseen
from localai.chat.conversation import Attachment
from localai.chat.pdf import pdf_text
from localai.errors import LocalAIError, UsageError

MOST_BYTES: Final = 32 * 1000 * 1000
"""Of one file. More than any model can read."""
MOST_CHARACTERS: Final = 8_000_000
"""Of one file's text. A context of 128k tokens is about half a million."""
BIG_PASTE: Final = 2000
"""Characters beyond which a paste is an attachment."""
BIG_PASTE_LINES: Final = 40
"""Lines beyond which a paste is an attachment."""
MOST_PATHS: Final = 20
"""Files that one paste may name."""

_PIECE: Final = 1 << 16
"""Characters that are cleaned at once: between two pieces, other threads have their turn."""

# Longer marks first: the mark of UTF-32 begins with that of UTF-16.
_MARKS: Final = (
    (codecs.BOM_UTF8, "utf-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le"),
    (codecs.BOM_UTF32_BE, "utf-32-be"),
    (codecs.BOM_UTF16_LE, "utf-16-le"),
    (codecs.BOM_UTF16_BE, "utf-16-be"),
)
_ZIPPED: Final = {
    ".docx": "a Word document",
    ".xlsx": "an Excel table",
    ".pptx": "a PowerPoint presentation",
    ".odt": "an OpenDocument text",
    ".ods": "an OpenDocument table",
    ".epub": "an e-book",
    ".jar": "a Java archive",
    ".whl": "a Python package",
}
_KINDS: Final = (
    (b"\x89PNG", "a picture (PNG)"),
    (b"\xff\xd8\xff", "a picture (JPEG)"),
    (b"GIF8", "a picture (GIF)"),
    (b"PK\x03\x04", "an archive (ZIP)"),
    (b"\x1f\x8b", "compressed (gzip)"),
    (b"\xfd7zXZ\x00", "compressed (xz)"),
    (b"\x28\xb5\x2f\xfd", "compressed (zstd)"),
    (b"BZh", "compressed (bzip2)"),
    (b"7z\xbc\xaf\x27\x1c", "an archive (7z)"),
    (b"\x7fELF", "a program"),
    (b"MZ", "a program"),
    (b"\xcf\xfa\xed\xfe", "a program"),
    (b"GGUF", "a model (GGUF)"),
    (b"SQLite format 3\x00", "a database (SQLite)"),
    (b"\xd0\xcf\x11\xe0", "an old Office document"),
    (b"OggS", "a sound (Ogg)"),
    (b"ID3", "a sound (MP3)"),
    (b"fLaC", "a sound (FLAC)"),
)
_TEXT_ONLY: Final = "Text, source code and PDF can be attached"


# ------------------------------------------------------------------------------------------------- files


def read(
    path: Path,
    given_up: Callable[[], bool] = lambda: False,
    told: Callable[[str], object] = lambda _: None,
) -> Attachment:
    """The text of a file: UTF-8, UTF-16 or UTF-32 with a byte order mark, Windows-1252, or a PDF's text.

    Line ends become newlines, controls and what cannot be seen go; `told` gets a line that says how much was
    there unseen, if any. Raises `UsageError` for what is no such file, is not
    there, may not be read, is empty, or has more than `MOST_BYTES` or `MOST_CHARACTERS`; and when `given_up`
    says that nobody waits any more.
    """
    name = name_of(path)
    data = _bytes_of(path, name)
    if b"%PDF-" in data[:1024]:
        text = pdf_text(data, name, most=MOST_CHARACTERS, given_up=given_up)
    else:
        text = _decoded(data, path, name)
    if len(text) > MOST_CHARACTERS:
        raise UsageError(
            f"{name} has {len(text):,} characters; at most {MOST_CHARACTERS:,} can be attached",
            "Attach a part of it",
        )
    if not (made := _made(name, text, told)).text.strip():
        raise UsageError(f"{name} is empty")
    return made


def name_of(path: Path) -> str:
    """What a file is called: its name without folders, on one line, fit to be shown."""
    return clean_line(path.name) or "file"


def _bytes_of(path: Path, name: str) -> bytes:
    # O_NONBLOCK: opening a named pipe would otherwise wait until someone writes to it.
    flags = os.O_RDONLY
    for flag in ("O_NONBLOCK", "O_CLOEXEC", "O_NOCTTY", "O_BINARY"):
        flags |= getattr(os, flag, 0)
    try:
        _check_kind(path.stat(), name)  # before it is opened: that alone moves some devices
        with os.fdopen(os.open(path, flags), "rb") as file:
            _check_kind(os.fstat(file.fileno()), name)
            data = file.read(MOST_BYTES + 1)
    except FileNotFoundError as error:
        raise UsageError(f"{name} is not there") from error
    except PermissionError as error:
        raise UsageError(f"{name} may not be read", "Its permissions do not allow it") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise UsageError(f"{name} cannot be read: {reason}") from error
    if len(data) > MOST_BYTES:
        raise _too_big(name)
    return data


def _check_kind(status: os.stat_result, name: str) -> None:
    if stat.S_ISDIR(status.st_mode):
        raise _refusal(name, "a folder", "Attach the files in it")
    if not stat.S_ISREG(status.st_mode):
        kind = "a named pipe" if stat.S_ISFIFO(status.st_mode) else "a device"
        raise _refusal(name, kind, "Only files can be attached")
    if status.st_size > MOST_BYTES:
        raise _too_big(name)


def _too_big(name: str) -> LocalAIError:
    megabytes = MOST_BYTES // 1_000_000
    return UsageError(f"{name} is bigger than {megabytes} MB", "Attach a part of it")


def _refusal(name: str, kind: str, hint: str = _TEXT_ONLY) -> LocalAIError:
    return UsageError(f"{name} is {kind}", hint)


def _decoded(data: bytes, path: Path, name: str) -> str:
    for mark, encoding in _MARKS:
        if data.startswith(mark):
            return data[len(mark) :].decode(encoding, errors="replace")
    if (kind := _kind_of(data, path)) is not None:
        raise _refusal(name, kind)
    try:
        return data.decode()
    except UnicodeDecodeError:
        try:
            return data.decode("cp1252")
        except UnicodeDecodeError:  # five bytes have no meaning there
            return data.decode("latin-1")


def _kind_of(data: bytes, path: Path) -> str | None:
    """What these bytes are if they are not text. Text never has a NUL, and hardly a control character."""
    controls = sum(data[:_PIECE].count(byte) for byte in (*range(1, 9), *range(14, 27), *range(28, 32)))
    binary = b"\x00" in data or controls > len(data[:_PIECE]) // 50
    for magic, kind in _KINDS:
        # A text may begin with "MZ" or "BZh"; with the other marks, whose bytes are no letters, hardly.
        if data.startswith(magic) and (binary or not magic.isalnum()):
            return _ZIPPED.get(path.suffix.lower(), kind) if magic.startswith(b"PK") else kind
    if data[4:8] == b"ftyp":
        return "a video or sound (MP4)"
    if data[:4] == b"RIFF" and binary:
        return "a picture, video or sound"
    return "not text" if binary else None


# ------------------------------------------------------------------------------------------------ pastes


def tidy(text: str) -> str:
    """`text` with newlines as line ends, and cleaned."""
    return "".join(clean(piece) for piece in _pieces(text))


def _pieces(text: str) -> Iterator[str]:
    """Piece by piece: a text may be long, and threads wait."""
    text = text.replace("\r\n", "\n").replace("\r", "\n")
    return (text[start : start + _PIECE] for start in range(0, len(text), _PIECE))


def _made(name: str, text: str, told: Callable[[str], object]) -> Attachment:
    tidied = tidy(text)
    hidden = sum(map(unseen, _pieces(text))) if len(tidied) < len(text) else 0
    if hidden:
        told(f"{name}: {left_out(hidden)}")
    return Attachment(name=name, text=tidied)


def paste_is_big(text: str) -> bool:
    """Whether a paste is too long to stand among what is typed."""
    return len(text) > BIG_PASTE or len(text.splitlines()) > BIG_PASTE_LINES


def pasted(text: str, number: int, told: Callable[[str], object] = lambda _: None) -> Attachment:
    """A paste as an attachment, the `number`th of its message; `told` as in `read`."""
    return _made(f"pasted text {number}", text, told)


def paths_in(text: str) -> list[Path]:
    """The files that `text` names if it is nothing but paths of files that exist; else none.

    As terminals drop and people copy them: one a line or several on one, quoted, with escaped blanks,
    with `~`, as file:// URL. A name without any folder is a word, and stays one.
    """
    lines = [line.strip() for line in text.strip().splitlines() if line.strip()]
    if not lines or len(lines) > MOST_PATHS or len(text) > BIG_PASTE * 4:
        return []
    found: list[Path] = []
    for line in lines:
        paths = _paths_of(line)
        if not paths:
            return []
        found += paths
    return list(dict.fromkeys(found)) if len(found) <= MOST_PATHS else []


def _paths_of(line: str) -> list[Path]:
    if (one := _path_of(line)) is not None:
        return [one]
    try:
        words = shlex.split(line)
    except ValueError:  # a quote that is not closed
        return []
    paths = [path for word in words[:MOST_PATHS] if (path := _path_of(word)) is not None]
    return paths if len(paths) == len(words) else []


def _path_of(word: str) -> Path | None:
    """The existing file that one word means, however it is written."""
    if len(word) > 1 and word[0] == word[-1] and word[0] in "'\"":
        word = word[1:-1]
    spellings = [word, re.sub(r"\\(.)", r"\1", word)]
    if word.startswith("file://"):
        url = urlsplit(word)
        spellings = [unquote(url.path)] if url.netloc in ("", "localhost") else []
    for spelling in spellings:
        if "/" in spelling or os.sep in spelling:
            try:
                path = Path(spelling).expanduser()
                if path.is_file():
                    return path
            except (OSError, RuntimeError, ValueError):
                continue  # too long, not to be looked at, or of a user that does not exist
    return None
