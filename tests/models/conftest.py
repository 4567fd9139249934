"""Tiny models for the tests of the store: real GGUF files, written by the `gguf` package."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Iterator
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
    prefix: str = "",
) -> Path:
    """A well-formed model of one layer; `seed` changes its weights and `rows` its size (256 bytes each).

    `split`: it is that part, counted from 0, of so many. `prefix` stands before the names of its tensors.
    """
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
    writer.add_tensor(f"{prefix}token_embd.weight", generator.standard_normal((rows, 64), dtype=np.float32))
    writer.add_tensor(f"{prefix}output_norm.weight", np.ones(64, dtype=np.float32))
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


@pytest.fixture
def make_disk(tmp_path: Path) -> Iterator[Callable[[str], Path]]:
    """`make_disk("exfat")` mounts a new disk of 128 MB of that kind; where it cannot, the test is skipped."""
    made: list[tuple[Path, str]] = []

    def make(kind: str) -> Path:
        needed = [f"mkfs.{kind}", "losetup", *(["mount.exfat-fuse"] if kind == "exfat" else [])]
        missing = [tool for tool in needed if shutil.which(tool) is None]
        if os.geteuid() != 0 or missing:
            pytest.skip(f"a disk of kind {kind} needs root and {', '.join(missing) or 'nothing else'}")
        image, disk = tmp_path / f"{kind}.img", tmp_path / kind
        disk.mkdir()
        with image.open("wb") as file:
            file.truncate(128 << 20)
        run = subprocess.run([f"mkfs.{kind}", str(image)], capture_output=True, text=True, check=False)
        loop = subprocess.run(
            ["losetup", "-f", "--show", str(image)], capture_output=True, text=True, check=False
        )
        device = loop.stdout.strip()
        made.append((disk, device))
        mount = ["mount.exfat-fuse"] if kind == "exfat" else ["mount", "-t", kind]
        if run.returncode == loop.returncode == 0:
            run = subprocess.run([*mount, device, str(disk)], capture_output=True, text=True, check=False)
        if run.returncode or loop.returncode:
            pytest.skip(f"{kind} cannot be mounted here: {(loop.stderr or run.stderr).strip()}")
        return disk

    yield make
    for disk, device in made:
        subprocess.run(["umount", str(disk)], capture_output=True, check=False)
        if device:
            subprocess.run(["losetup", "-d", device], capture_output=True, check=False)
