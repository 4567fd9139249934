"""Names that a source tells: what is refused, everywhere alike, and what is not."""

from __future__ import annotations

import ntpath
import posixpath
from pathlib import PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.errors import FetchError
from models.remote_names import checked, checked_all, folded
from tests.models.hostile_names import CLASHES, HARMLESS, HOSTILE


def test_there_are_enough() -> None:
    assert len(set(HOSTILE)) == len(HOSTILE) >= 30


@pytest.mark.parametrize("name", HOSTILE, ids=ascii)
def test_hostile_names_are_refused_in_one_line(name: str) -> None:
    with pytest.raises(FetchError, match="The source names a file") as caught:
        checked(name)
    assert str(caught.value).isprintable()
    assert caught.value.hint


@pytest.mark.parametrize("name", HARMLESS, ids=ascii)
def test_harmless_names_are_not(name: str) -> None:
    assert checked(name) == PurePosixPath(name)


@pytest.mark.parametrize("names", CLASHES, ids=ascii)
def test_names_that_are_one_on_some_disk(names: tuple[str, str]) -> None:
    with pytest.raises(FetchError, match="in each other's place"):
        checked_all(names)
    with pytest.raises(FetchError, match="in each other's place"):
        checked_all(reversed(names))


def test_names_that_are_not_one() -> None:
    names = ["a/x.gguf", "A/y.gguf", "x.gguf", "y.gguf"]
    assert checked_all(names) == [PurePosixPath(name) for name in names]


ALPHABET = st.sampled_from(
    [*"aAcCoOnNuUlL1~.- /\\:*?$", "\0", "\u00b9", "\u202e", "\u0301", "\u00e9", "\uff0e", "\ud800"]
)


def is_reserved(name: str) -> bool:
    """As Windows has it; ntpath knows it since Python 3.13."""
    known = getattr(ntpath, "isreserved", None)
    return bool(known(name) if known else PureWindowsPath(name).is_reserved())


@given(st.one_of(st.text(ALPHABET, max_size=12), st.text(max_size=40)))
def test_what_passes_is_one_path_below_a_folder_on_any_system(name: str) -> None:
    try:
        path = checked(name)
    except FetchError:
        return
    assert str(path) == name == posixpath.normpath(name)
    assert PureWindowsPath(name).as_posix() == name
    assert not ntpath.isabs(name)
    assert not PureWindowsPath(name).drive
    assert ".." not in path.parts
    assert not is_reserved(name)
    assert posixpath.expanduser(name) == name
    assert ntpath.normpath(name).replace("\\", "/") == name
    assert folded(folded(name)) == folded(name)
