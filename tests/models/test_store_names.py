"""No name leads out of the store, on any system."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.errors import UsageError
from models.names import canonical, is_name, manifest_path, name_of, nearest, suggested
from models.origins import LocalFile
from models.store import Store

MakeModel = Callable[..., Path]

HOSTILE = [
    "",
    ".",
    "..",
    "...",
    "../x",
    "a/../../x",
    "..\\x",
    "folder/x\\..\\..\\y",
    "a/b",
    "a\\b",
    "/etc/passwd",
    "//server/share",
    "\\\\server\\share",
    "\\\\?\\C:\\x",
    "C:\\x",
    "c:/x",
    ":",
    "a:",
    ":a",
    "a::b",
    "a:..:b",
    "a:../b",
    "a:b:c:d",
    "a..b",
    ".hidden",
    "-rf",
    "_a",
    "a.",
    "a:b.",
    "a ",
    " a",
    "a b",
    "a\n",
    "a\0",
    "a\0.json",
    "con",
    "CON",
    "nul.txt",
    "a:aux",
    "com1",
    "lpt9.q4",
    "prn:7b",
    "r1.json",
    "r1.json:7b",
    "model.gguf",
    "a*",
    "a?",
    'a"',
    "a<b>",
    "a|b",
    "a$b",
    "%2e%2e",
    "~",
    "~root",
    "\u212a1",
    "ä",
    "а",
    "a\u202eb",
    "a\uff0e\uff0e",
    "x" * 65,
    "a:" + "x" * 65,
]


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_names_are_refused(store: Store, make_model: MakeModel, name: str) -> None:
    assert not is_name(name)
    with pytest.raises(UsageError) as caught:
        store.add(make_model(), name, source=LocalFile(path="x"))
    assert caught.value.message.isprintable()
    with pytest.raises(UsageError):
        store.get(name)
    with pytest.raises(UsageError):
        store.remove(name)
    assert not store.root.exists()


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("r1", "r1"),
        ("R1:7B", "r1:7b"),
        ("a:b:c", "a:b:c"),
        ("r1:7b:Q4_K_M", "r1:7b:q4_k_m"),
        ("deepseek-r1_x.1", "deepseek-r1_x.1"),
        ("0528", "0528"),
        ("console", "console"),
        ("com10", "com10"),
        ("x" * 64, "x" * 64),
    ],
)
def test_good_names(text: str, name: str) -> None:
    assert canonical(text) == name
    refs = Path("refs")
    assert name_of(refs, manifest_path(refs, text)) == name


@given(st.text(max_size=20) | st.from_regex(r"[a-zA-Z0-9.:_/\\-]{1,12}", fullmatch=True))
def test_whatever_is_accepted_stays_below_the_folder(text: str) -> None:
    if not is_name(text):
        return
    refs = Path("/store/refs")
    path = manifest_path(refs, text)
    assert name_of(refs, path) == canonical(text)
    relative = path.relative_to(refs).as_posix()
    for flavour in (PurePosixPath, PureWindowsPath):
        parts = flavour(relative).parts
        assert 1 <= len(parts) <= 3
        assert ".." not in parts
        assert not flavour(relative).is_absolute()
        assert not PureWindowsPath(relative).drive
        assert not {part.split(".")[0] for part in parts} & {"con", "prn", "aux", "nul", "com1", "lpt1"}


def test_the_nearest_names() -> None:
    names = ["r1:7b", "r1:8b", "smollm2:135m", "r1-nano"]
    assert nearest("smolm", names) == ["smollm2:135m"]
    assert nearest("r1:7", names)[0] == "r1:7b"
    assert set(nearest("R1", names)) == {"r1-nano", "r1:7b", "r1:8b"}
    assert nearest("", names) == []
    assert nearest("zzzz", names) == []


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("DeepSeek-R1-Distill-Qwen-7B:Q4_K_M", "deepseek-r1-distill-qwen-7b:q4_k_m"),
        ("My Model (v2)", "my-model-v2"),
        ("Café", "cafe"),
        ("..hidden..file..", "hidden.file"),
        ("model.gguf.json", "model"),
        ("con", "model-con"),
        ("a:b:c:d", "a:b:c-d"),
        ("x" * 100, "x" * 64),
        ("../../etc/passwd", "etc-passwd"),
    ],
)
def test_a_name_made_of_anything(text: str, name: str) -> None:
    assert suggested(text) == name


@given(st.text(max_size=100))
def test_a_made_name_is_a_name(text: str) -> None:
    try:
        assert is_name(suggested(text))
    except UsageError:
        assert not is_name(text)
