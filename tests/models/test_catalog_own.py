"""A catalogue of the user's or the organization's own: what it adds and replaces, and how it can be wrong."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from localai import paths
from localai.errors import ModelNotFound, UsageError
from models import catalog
from models.origins import HubFile, UrlFile

Write = Callable[[str | bytes], Path]

BUILT_IN_TEXT = Path(catalog.__file__).with_name("catalog.toml").read_text("utf-8")
BUILT_IN = [entry.name for entry in catalog.parse(BUILT_IN_TEXT)]
ACME = """
[[model]]
name = "acme:7b"
title = "Our own 7B"
type = "Q8_0"
reasoning = true
license = "Acme-Internal-1"
parameters = 7_615_616_512
context = 131_072

[[model.file]]
type = "Q8_0"

[model.file.source]
kind = "url"
url = "https://models.acme.example/acme-7b-Q8_0.gguf"
sha256 = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"
"""


@pytest.fixture(autouse=True)
def no_catalog_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LOCALAI_CATALOG", raising=False)


@pytest.fixture
def write() -> Write:
    """Write the user's own catalogue, in the settings folder."""

    def written(content: str | bytes) -> Path:
        path = paths.config_dir() / "models.toml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return path

    return written


def names() -> list[str]:
    return [entry.name for entry in catalog.entries()]


def test_without_one_there_are_the_built_in_models() -> None:
    assert names() == BUILT_IN


def test_its_entries_come_first(write: Write) -> None:
    write(ACME)
    assert names() == ["acme:7b", *BUILT_IN]
    found = catalog.wanted("ACME:7B")
    assert isinstance(found.entry.file[0].source, UrlFile)
    assert found.type == "Q8_0"


def test_it_replaces_what_has_the_same_name(write: Write) -> None:
    write(ACME.replace("acme:7b", "r1:7b"))
    assert names() == ["r1:7b", *(name for name in BUILT_IN if name != "r1:7b")]
    assert catalog.find("r1:7b").title == "Our own 7B"


def test_it_can_replace_the_whole_list(write: Write) -> None:
    write(f"replace = true\n{ACME}")
    assert names() == ["acme:7b"]
    with pytest.raises(ModelNotFound, match=r"No model called 'smollm2:135m' .*There are: acme:7b\."):
        catalog.find("smollm2:135m")
    assert catalog.builtin_checkpoint("r1-nano").is_dir()  # what is in the store is made from it


def test_nothing_at_all_may_be_left(write: Write) -> None:
    write("replace = true")
    assert names() == []
    with pytest.raises(ModelNotFound, match="There are: none"):
        catalog.wanted("r1:7b")


@pytest.mark.parametrize("content", [b"", b"\n# nothing yet\n", b"replace = false"])
def test_an_empty_one_changes_nothing(write: Write, content: bytes) -> None:
    write(content)
    assert names() == BUILT_IN


def test_editors_of_windows(write: Write) -> None:
    write(b"\xef\xbb\xbf" + ACME.replace("\n", "\r\n").encode())
    assert names()[0] == "acme:7b"


def test_a_change_is_seen_at_once(write: Write) -> None:
    path = write(ACME)
    assert names()[0] == "acme:7b"
    write(ACME.replace("acme:7b", "acme:7c"))
    os.utime(path, ns=(1, 1))
    assert names()[0] == "acme:7c"
    path.unlink()
    assert names() == BUILT_IN


def test_the_environment_names_another(tmp_path: Path, write: Write, monkeypatch: pytest.MonkeyPatch) -> None:
    write(ACME)
    shared = tmp_path / "shared.toml"
    shared.write_text(ACME.replace("acme:7b", "team:7b"))
    monkeypatch.setenv("LOCALAI_CATALOG", str(shared))
    assert names() == ["team:7b", *BUILT_IN]
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("LOCALAI_CATALOG", "~/shared.toml")
    if os.name == "posix":
        assert names()[0] == "team:7b"
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCALAI_CATALOG", "shared.toml")
    assert names()[0] == "team:7b"
    monkeypatch.setenv("LOCALAI_CATALOG", "")
    assert names()[0] == "acme:7b"


@pytest.mark.parametrize("named", ["nowhere.toml", "shared.toml/models.toml", "~nobody-of-that-name/m.toml"])
def test_what_the_environment_names_must_be_there(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    (tmp_path / "shared.toml").write_text(ACME)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("LOCALAI_CATALOG", named)
    with pytest.raises(UsageError) as error:
        catalog.entries()
    assert error.value.message == f"There is no catalogue of models {tmp_path / named}"
    assert "LOCALAI_CATALOG names it" in error.value.hint


MISTAKES = {
    "no TOML": ("[[model]]\nname = \n", "line 2"),
    "a field misspelt": (ACME.replace("license", "licence"), "`licence`"),
    "a field of the source misspelt": (ACME.replace("sha256", "sha265"), "sha256"),
    "one field more": (ACME + 'sha265 = "0"\n', "sha265"),
    "something else at the top": ("models = 1\n" + ACME, "`models`"),
    "replace is a word": ('replace = "yes"\n' + ACME, "replace"),
    "no source": (ACME[: ACME.index("[[model.file]]")], "nothing says where its type Q8_0 can be had"),
    "no such type": (ACME.replace("Q8_0", "Q8_1"), "'Q8_1' is not a type"),
    "a type that is not there": (ACME.replace('type = "Q8_0"', 'type = "Q4_K_M"', 1), "its type Q4_K_M"),
    "a digest that is short": (ACME.replace("0123456789abcdef", "", 1), "sha256"),
    "a digest in capitals": (ACME.replace("abcdef", "ABCDEF"), "sha256"),
    "no digest for an address": ("\n".join(ACME.splitlines()[:-1]), "sha256"),
    "a short commit": (
        ACME.replace('kind = "url"', 'kind = "hub"\nrepository = "a/b"\nrevision = "ad9f0ae"')
        .replace("url = ", "files = [{ path = ")
        .replace('Q8_0.gguf"', 'Q8_0.gguf" }]')
        .replace("\nsha256", "\n# sha256"),
        "revision",
    ),
    "an address of another kind": (ACME.replace("https://", "file:///"), "url"),
    "an address on two lines": (ACME.replace("acme.example", r"acme.example\n"), "url"),
    "the same name twice": (ACME + ACME, "acme:7b is there twice"),
    "a number below zero": (ACME.replace("131_072", "-1"), "context"),
    "a date for a number": (ACME.replace("131_072", "2025-01-20"), "context"),
    "a number without an end": (ACME.replace("131_072", "9" * 5000), ""),
    "no text at all": (b"\xff\xfe\x00\x01", "utf-8"),
    "brackets without an end": ("x = " + "[" * 100_000, ""),
    "a file without an end": (b"#" * (5 << 20), "larger than 4 MB"),
}
for bad in (
    "../r1",
    "/etc/passwd",
    "a:b:c",
    "r1:7B",
    "con",
    "nul:7b",
    "r1:",
    "",
    "r1:7b.gguf",
    "a b",
    "r1\\u0000",
):
    MISTAKES[f"the name {bad!r}"] = (ACME.replace("acme:7b", bad), "is not a name in its canonical form")


@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_one_line_that_names_the_file(write: Write, mistake: str) -> None:
    content, said = MISTAKES[mistake]
    path = write(content)
    with pytest.raises(UsageError) as error:
        catalog.entries()
    assert error.value.message.startswith(f"The catalogue of models {path} cannot be used: ")
    assert said in error.value.message
    assert str(error.value).isprintable()
    assert len(error.value.message) < 600 + len(str(path))
    assert error.value.hint.startswith("Mend it")


def test_a_mistake_is_no_reason_to_lose_what_is_built_in(write: Write) -> None:
    path = write("[[model")
    with pytest.raises(UsageError):
        catalog.find("r1:7b")
    path.rename(path.with_suffix(".broken"))
    assert catalog.find("r1:7b").name == "r1:7b"


def test_what_is_not_a_file(write: Write) -> None:
    path = write("")
    path.unlink()
    path.mkdir()
    with pytest.raises(UsageError, match=r"models\.toml cannot be used: It is not a file"):
        catalog.entries()
    path.rmdir()
    if hasattr(os, "mkfifo"):
        os.mkfifo(path)  # nobody writes into it: to open it would wait for ever
        with pytest.raises(UsageError, match="It is not a file"):
            catalog.entries()


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="permissions mean nothing here")
def test_one_that_may_not_be_read(write: Write) -> None:
    write(ACME).chmod(0)
    with pytest.raises(UsageError, match="Permission denied"):
        catalog.entries()


def test_the_example_in_the_documentation(write: Write) -> None:
    text = (Path(catalog.__file__).parents[1] / "docs" / "models.md").read_text("utf-8")
    write(text.partition("```toml\n")[2].partition("```")[0])
    (entry,) = catalog.entries()
    original = next(one for one in catalog.parse(BUILT_IN_TEXT) if one.name == "r1:7b")
    assert (entry.shape, entry.checkpoint) == (original.shape, original.checkpoint)
    assert entry.weights.items() <= original.weights.items()
    digests = {one.source.sha256 if isinstance(one.source, UrlFile) else "" for one in entry.file} - {""}
    (known, *_) = original.ready("Q4_K_M")
    assert isinstance(known.source, HubFile)
    assert digests == {known.source.files[0].sha256}
