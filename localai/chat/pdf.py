"""The text of a PDF. A file may be damaged or hostile: every failure is one `UsageError` that names it."""

from __future__ import annotations

import io
import logging
import time
import zlib
from collections.abc import Callable, Iterator
from typing import Final

from localai.errors import UsageError

MOST_SECONDS: Final = 30.0
"""For one file. A book of 1,000 pages takes about 20."""

# What pypdf is known to let through, besides its own errors, when a file is not what it says.
_DAMAGED: Final = (
    ArithmeticError,
    AssertionError,
    AttributeError,
    LookupError,
    MemoryError,
    OSError,
    RuntimeError,
    TypeError,
    ValueError,
    zlib.error,
)


class _TimeOver(BaseException):
    """No `Exception`: pypdf catches those in many places and goes on."""


class _Clocked(io.BytesIO):
    """Bytes that cannot be read any more after a point in time, so that no loop over them lasts."""

    def __init__(self, data: bytes, seconds: float, given_up: Callable[[], bool]) -> None:
        super().__init__(data)
        self._end = time.monotonic() + seconds
        self._given_up = given_up

    def check(self, *_: object) -> None:
        """Raise `_TimeOver` when it is, or when nobody waits any more."""
        if time.monotonic() > self._end or self._given_up():
            raise _TimeOver

    def read(self, size: int | None = -1, /) -> bytes:
        self.check()
        return super().read(size)


def pdf_text(
    data: bytes,
    name: str,
    *,
    most: int,
    seconds: float = MOST_SECONDS,
    given_up: Callable[[], bool] = lambda: False,
) -> str:
    """The text of all pages, an empty line between two of them.

    `most`: characters that it may have; `name`: what the file is called in errors; `given_up`: asked often,
    whether nobody waits any more. Raises `UsageError` for a file that needs a password, has no text, is
    damaged, too long, takes more than `seconds`, or is given up.
    """
    # pypdf tells what it repairs through `logging`, which prints what nobody handles.
    logging.getLogger("pypdf").setLevel(logging.CRITICAL + 1)
    from pypdf.errors import (
        DependencyError,
        DeprecationError,
        FileNotDecryptedError,
        LimitReachedError,
        PyPdfError,
    )

    pages: list[str] = []
    room = most
    try:
        for page in _pages(_Clocked(data, seconds, given_up)):
            pages.append(page)
            room -= len(page)
            if room < 0:
                raise UsageError(f"{name} has more than {most:,} characters of text", "Attach a part of it")
    except (FileNotDecryptedError, DependencyError) as error:
        raise UsageError(f"{name} is protected by a password", "Attach a copy without one") from error
    except (_TimeOver, LimitReachedError) as error:
        raise UsageError(f"{name} takes too long to read", "Attach its text as a file instead") from error
    except (PyPdfError, DeprecationError, *_DAMAGED) as error:
        raise UsageError(f"{name} is damaged: no PDF reader can be sure what it says") from error
    if not any(pages):
        raise UsageError(
            f"{name} holds pictures and no text, as a scan does", "Attach a PDF that was made with text"
        )
    return "\n\n".join(page for page in pages if page)


def _pages(stream: _Clocked) -> Iterator[str]:
    from pypdf import PdfReader

    for page in PdfReader(stream).pages:
        stream.check()
        yield page.extract_text(visitor_operand_before=stream.check).strip()
