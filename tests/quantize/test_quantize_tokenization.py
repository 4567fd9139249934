"""R1's real tokenizer through the converter: llama.cpp cuts text as the publisher's own tokenizer does."""

from __future__ import annotations

import lzma
from collections.abc import Iterator
from pathlib import Path

import pytest
from tokenizers import Tokenizer

from localai.engine.llama import Model
from quantize.client import Wanted, run
from quantize.protocol import Job
from tests.quantize.making import make_checkpoint

DATA = Path(__file__).parents[1] / "data"
PAGE = (DATA / "mixed-text.txt").read_bytes().decode()
VOCABULARY = 151_936


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint of one narrow layer, with R1's tokenizer: 151,665 tokens, padded as the published ones."""
    folder = tmp_path_factory.mktemp("r1-tokenizer")
    make_checkpoint(
        folder,
        architectures=["Qwen2ForCausalLM"],
        model_type="qwen2",
        hidden_size=32,
        intermediate_size=32,
        num_attention_heads=1,
        num_key_value_heads=1,
        num_hidden_layers=1,
        vocab_size=VOCABULARY,
        tie_word_embeddings=True,
        bos_token_id=151643,
        eos_token_id=151643,
    )
    packed = DATA / "r1-tokenizer"
    (folder / "tokenizer.json").write_bytes(lzma.decompress((packed / "tokenizer.json.xz").read_bytes()))
    (folder / "tokenizer_config.json").write_bytes((packed / "tokenizer_config.json").read_bytes())
    return folder


@pytest.fixture(scope="module")
def model(folder: Path) -> Iterator[Model]:
    """The vocabulary of the converted file, in llama.cpp."""
    output = folder / "model.gguf"
    run(Job(source=str(folder)), [Wanted("Q8_0", output)])
    with Model(output, 0, lambda share: True) as model:
        yield model


@pytest.fixture(scope="module")
def publisher(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


def test_a_page_of_everything(model: Model, publisher: Tokenizer) -> None:
    assert model.tokenize(PAGE, special=True) == publisher.encode(PAGE, add_special_tokens=False).ids


@pytest.mark.parametrize("line", [line for line in PAGE.splitlines(keepends=True) if line.strip()])
def test_each_line(model: Model, publisher: Tokenizer, line: str) -> None:
    assert model.tokenize(line, special=True) == publisher.encode(line, add_special_tokens=False).ids


def test_markers_are_one_token_each(model: Model) -> None:
    for text, number in (
        ("<｜begin▁of▁sentence｜>", 151646),
        ("<｜end▁of▁sentence｜>", 151643),
        ("<｜User｜>", 151644),
        ("<｜Assistant｜>", 151645),
        ("<think>", 151648),
        ("</think>", 151649),
    ):
        assert model.tokenize(text, special=True) == [number]


def test_text_comes_back(model: Model) -> None:
    pieces = [model.piece(token) for token in model.tokenize(PAGE, special=True)]
    assert b"".join(pieces).decode() == PAGE


def test_the_flags_of_the_file(model: Model) -> None:
    assert model.adds_bos
    assert model.bos == "<｜begin▁of▁sentence｜>"
    assert model.eos == "<｜end▁of▁sentence｜>"
