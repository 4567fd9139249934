"""Tiny models for the tests of the store: real GGUF files, written by the `gguf` package."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from gguf import GGUFWriter, TokenType

from models.store import Store

MakeModel = Callable[..., Path]


def write_model(
    path: Path,
    *,
    architecture: str = "llama",
    title: str = "Tiny",
    seed: int = 0,
    rows: int = 8,
    template: str = "{{ messages }}",
    split: tuple[int, int] | None = None,
) -> Path:
    """A well-formed model of one layer; `seed` changes its weights and `rows` its size (256 bytes each)."""
    writer = GGUFWriter(path, architecture)
    writer.add_name(title)
    writer.add_license("apache-2.0")
    writer.add_file_type(0)
    writer.add_block_count(1)
    writer.add_context_length(4096)
    writer.add_embedding_length(64)
    writer.add_feed_forward_length(128)
    writer.add_head_count(4)
    writer.add_head_count_kv(2)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list([f"token{number}" for number in range(100)])
    writer.add_token_types([TokenType.NORMAL] * 100)
    writer.add_chat_template(template)
    if split:
        writer.add_uint16("split.no", split[0])
        writer.add_uint16("split.count", split[1])
    generator = np.random.default_rng(seed)
    writer.add_tensor("token_embd.weight", generator.standard_normal((rows, 64), dtype=np.float32))
    writer.add_tensor("output_norm.weight", np.ones(64, dtype=np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


@pytest.fixture
def make_model(tmp_path: Path) -> MakeModel:
    """`make_model("name.gguf", **options)` writes a tiny model into a folder of its own."""
    folder = tmp_path / "files"
    folder.mkdir()
    return lambda name="tiny.gguf", **options: write_model(folder / name, **options)


@pytest.fixture
def store(tmp_path: Path) -> Store:
    """An empty store on a disk with all the space in the world."""
    return Store(tmp_path / "store", free_space=lambda _: 1 << 50)
