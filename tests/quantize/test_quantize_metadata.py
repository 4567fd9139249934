"""What a model card says: as gguf reads it where it is well-formed, and harmless where it is not."""

from __future__ import annotations

import os
import time
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
import yaml
from gguf import GGUFWriter, Metadata
from hypothesis import given, settings
from hypothesis import strategies as st

from models.gguf import read_header
from quantize import gguf_file, metadata
from quantize.checkpoint import open_checkpoint
from quantize.metadata import MAX_CARD, MAX_FRONT_MATTER, MAX_ITEMS, MAX_TEXT, read_card
from tests.quantize.doing import convert
from tests.quantize.making import make_checkpoint


def card(path: Path, front: str, rest: str = "# A model\n") -> Path:
    path.parent.mkdir(exist_ok=True)
    (path.parent / path.name).write_bytes(f"---\n{front}\n---\n{rest}".encode())
    return path


WELL_FORMED = {
    "R1-Distill": """license: mit
library_name: transformers
""",
    "Qwen": """license: apache-2.0
license_link: https://huggingface.co/Qwen/Qwen3-8B/blob/main/LICENSE
pipeline_tag: text-generation
base_model:
- Qwen/Qwen3-8B-Base
tags:
- chat
language:
- en
- no
\t
""",
    "Llama": """language: [en, de, fr]
tags: [facebook, meta, 3, 2026-01-01]
extra_gated_prompt: >-
  ### COMMUNITY LICENSE
  Long: and "odd" it is.
extra_gated_fields: {First Name: text, country: {type: country}}
extra_gated_button_content: Submit
license: llama3.1
widget: [{example_title: Hello, messages: [{role: user, content: "Hey\\u2026"}]}]
inference: {parameters: {max_new_tokens: 300, stop: ["<|eot_id|>"]}}
""",
    "a merge": """base_model:
- https://huggingface.co/mistralai/Mistral-7B-v0.1
- https://example.org/model
- 12
- {name: Other, version: 2, repo_url: "https://example.org/x", none: [1]}
datasets:
- HuggingFaceH4/ultrachat_200k
- name: Mine
  author: Me
license: [mit, apache-2.0]
""",
    "llama.cpp's own": """model_name: Tiny
model_creator: Somebody
model_type: llama
version: 3
date: 2026-01-01
name:
model_version: 1.10
description: |
  Two
  lines.
size_label: 7B
quantized_by: nobody
license_name: 'no'
base_models:
dataset: one/set
""",
    "results": """model-index:
- name: x
  results:
  - task: {type: text-generation, name: "Text Generation"}
    metrics: [{type: acc_norm, value: 61.09, name: normalized accuracy}]
author: &me Me
""",
    "a word": "word",
    "nothing": "",
}


def as_before(folder: Path, weights: int) -> dict[str, Any]:
    """What gguf itself finds, its numbers and dates as text."""

    def text(value: Any) -> Any:
        match value:
            case None | str():
                return value
            case list():
                return [text(one) for one in value]
            case dict():
                return {key: text(one) for key, one in value.items() if key != "none"}
            case _:
                return str(value)

    found = Metadata.load(None, folder, None, weights)
    return {field.name: text(getattr(found, field.name)) for field in fields(found)}


@pytest.mark.parametrize("newline", ["\n", "\r\n"])
@pytest.mark.parametrize("case", WELL_FORMED)
def test_a_well_formed_card_says_what_gguf_reads_in_it(tmp_path: Path, case: str, newline: str) -> None:
    folder = tmp_path / "Tiny-Llama-7B-Instruct-v0.2"
    make_checkpoint(folder, _name_or_path="maker/Tiny-1.5B-Chat")
    (folder / "generation_config.json").unlink()
    text = f"---\n{WELL_FORMED[case]}---\n# A model\n---\n"
    (folder / "README.md").write_bytes(text.replace("\n", newline).encode())
    found = metadata._known(open_checkpoint(folder), 7_000_000_000)
    assert {field.name: getattr(found, field.name) for field in fields(found)} == as_before(
        folder, 7_000_000_000
    )


def test_a_card_of_a_real_kind_is_read(tmp_path: Path) -> None:
    found = read_card(card(tmp_path / "README.md", WELL_FORMED["Qwen"]))
    assert found == {
        "license": "apache-2.0",
        "license_link": "https://huggingface.co/Qwen/Qwen3-8B/blob/main/LICENSE",
        "pipeline_tag": "text-generation",
        "base_model": ["Qwen/Qwen3-8B-Base"],
        "tags": ["chat"],
        "language": ["en", "no"],
    }


def laughs(key: str) -> str:
    """Nine lines that stand for a billion words."""
    lines = [f"a0: &a0 [{', '.join(['lol'] * 10)}]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 9)]
    return "\n".join([*lines, f"{key}: *a8"])


ODD = {
    "a list for a text": "license_name: [x]",
    "an object for a text": "license: {a: b}",
    "a list for the name": "model_name: [1]",
    "an object for the author": "author: {a: b}",
    "lists in a list": "tags: [[a], [b, [c]], {d: e}]\nlanguage: [[en]]",
    "a list with nothing in it": "tags: [~, null]\nlicense: [~]",
    "odd base models": "base_model: [[a], 3, {name: [x], author: {a: b}, ? [c] : d, 1: 2}]\nbase_models: {}",
    "odd data sets": "datasets: [{name: {}, url: [1]}, ~, [[]]]",
    "aliases in tags": laughs("tags"),
    "aliases in a license": laughs("license"),
    "aliases in base models": laughs("base_model"),
    "an alias to itself": "tags: &a [*a]",
    "half a character": r'model_name: "\uD800"' + "\n" + r'tags: ["\uDFFF"]',
    "bytes": "model_name: !!binary aGFsbG8=\ntags: [!!binary aGFsbG8=]",
    "values that are not what they are said to be": "name: !!int x\nauthor: !!bool x\nversion: !!timestamp x",
    "a tag for code": "model_name: !!python/object/apply:os.getcwd []",
    "keys that are none": "? [a]\n: b\n? !!str [c]\n: d\n? {e: f}\n: g",
    "a number of 9,000 digits": "version: " + "9" * 9000,
    "a number to the base of 60": "version: 1" + ":1" * 4000,
    "an endless number to the base of 60": "version: 1" + ":1" * 100_000,
    "brackets": "tags: " + "[" * 100_000,
    "dashes": "tags:\n" + "- " * 50_000,
    "merges": "<<: {<<: {license: [[a]]}}",
    "many tags": "tags:\n" + "- a\n" * 60_000,
    "a long text": "description: " + "long " * 50_000,
    "two documents": "a: b\n--- \nc: d",
    "no YAML": ": [",
}


@pytest.mark.parametrize("case", ODD)
def test_an_odd_card_neither_stops_nor_spoils_a_conversion(tmp_path: Path, case: str) -> None:
    """The file is as without a card, but for what of it is of use."""
    make_checkpoint(tmp_path / "m", num_hidden_layers=1)
    card(tmp_path / "m" / "README.md", ODD[case])
    started = time.process_time()
    convert(tmp_path / "m", tmp_path / "x.gguf", "Q8_0")
    assert time.process_time() - started < 10
    header = read_header(tmp_path / "x.gguf")
    general = {key: value for key, value in header.metadata.items() if key.startswith("general.")}
    assert general["general.name"] == "M"
    assert len(str(general)) < 1000
    assert not {"tags", "languages", "license"} & {key.removeprefix("general.") for key in general}


def test_what_is_of_use_in_an_odd_card_is_kept(tmp_path: Path) -> None:
    front = f"""model_name: Mine
license_name: [x]
tags: [a, [b], 3, ~]
base_model: [a/b, [c], {{name: x, author: [y], version: 2, other: z}}, 3]
description: {"x" * (MAX_TEXT + 1)}
language: [{"a," * (MAX_ITEMS + 1)}]
author: {"x" * MAX_TEXT}
"""
    assert read_card(card(tmp_path / "README.md", front)) == {
        "model_name": "Mine",
        "license_name": None,
        "tags": ["a", "3"],
        "base_model": ["a/b", {}, {"name": "x", "version": "2"}, {}],
        "description": None,
        "language": None,
        "author": "x" * MAX_TEXT,
    }


def test_a_card_that_is_too_large_is_none(tmp_path: Path) -> None:
    path = tmp_path / "README.md"
    rest = MAX_CARD - len("---\nlicense: mit\n---\n")
    assert read_card(card(path, "license: mit", "x" * rest)) == {"license": "mit"}
    assert read_card(card(path, "license: mit", "x" * (rest + 1))) == {}
    assert read_card(card(path, "license: mit\n#" + "x" * MAX_FRONT_MATTER)) == {}
    with path.open("wb") as file:
        file.truncate(1 << 40)
    assert read_card(path) == {}


def test_what_is_no_file_or_no_text_is_no_card(tmp_path: Path) -> None:
    assert read_card(tmp_path / "README.md") == {}
    (tmp_path / "README.md").mkdir()
    assert read_card(tmp_path / "README.md") == {}
    os.mkfifo(tmp_path / "pipe")
    assert read_card(tmp_path / "pipe") == {}
    (tmp_path / "latin").write_bytes(b"---\nlicense: \xff\n---\n")
    assert read_card(tmp_path / "latin") == {}
    (tmp_path / "none").write_text("# A model\n---\nlicense: mit\n---\n")
    assert read_card(tmp_path / "none") == {}


def test_a_name_in_the_configuration_that_is_none_costs_only_itself(tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "Tiny-Instruct", _name_or_path=["a"])
    card(tmp_path / "Tiny-Instruct" / "README.md", "license: mit")
    found = metadata._known(open_checkpoint(tmp_path / "Tiny-Instruct"), 1000)
    assert (found.name, found.finetune, found.license) == ("Tiny Instruct", "Instruct", "mit")


KEYS = st.sampled_from(sorted(metadata._TEXTS | metadata._LISTS | metadata._ORIGINS))
SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.dates() | st.binary() | st.text()
NAMES = (
    SCALARS | st.text("aB1.-/ _vkx:") | st.sampled_from(["", "/", "a/", "-", "https://huggingface.co/a/-7b"])
)
VALUES = st.recursive(
    NAMES,
    lambda inner: st.lists(inner) | st.dictionaries(KEYS | st.integers(), inner),
    max_leaves=10,
)


@settings(deadline=None)
@given(st.dictionaries(KEYS, VALUES))
def test_whatever_a_card_says_can_be_written(tmp_path_factory: pytest.TempPathFactory, said: dict) -> None:
    path = tmp_path_factory.getbasetemp() / "card" / "README.md"
    found = read_card(card(path, yaml.dump(said, Dumper=yaml.SafeDumper)))
    known = Metadata.apply_metadata_heuristic(Metadata(), found, {}, path.parent, 1000)
    known.name = known.name or "x"
    writer = GGUFWriter(None, "llama")
    known.set_gguf_meta_model(writer)
    for key, item in writer.kv_data[0].items():
        assert isinstance(item.value, int if key.endswith(".count") else str | list)
        assert not isinstance(item.value, list) or all(isinstance(one, str) for one in item.value)
    gguf_file.collected(writer)
