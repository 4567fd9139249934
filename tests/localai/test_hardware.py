"""What defaults are chosen from."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from localai import hardware


@pytest.mark.parametrize(
    ("text", "cores"),
    [
        ("max 100000", None),
        ("200000 100000", 2),
        ("150000 100000", 1),
        ("50000 100000", 1),
        ("", None),
        ("1 0", None),
    ],
)
def test_cores_of_a_container(tmp_path: Path, text: str, cores: int | None) -> None:
    (tmp_path / "cpu.max").write_text(text)
    assert hardware.container_cores(tmp_path) == cores


def test_no_control_group(tmp_path: Path) -> None:
    assert hardware.container_cores(tmp_path) is None


def test_a_container_limits_the_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cpu.max").write_text("100000 100000")
    monkeypatch.setattr(hardware, "CGROUP", tmp_path)
    assert hardware.physical_cores() == 1


GIB = 1 << 30


def limit(folder: Path, monkeypatch: pytest.MonkeyPatch, **files: str) -> None:
    """A control group with these files, on a machine with 64 GiB of which 32 are free."""
    for name, text in files.items():
        (folder / f"memory.{name}").write_text(text)
    monkeypatch.setattr(hardware, "CGROUP", folder)
    memory = SimpleNamespace(total=64 * GIB, available=32 * GIB)
    monkeypatch.setattr(hardware.psutil, "virtual_memory", lambda: memory)


@pytest.mark.parametrize("text", ["max\n", "", "0", "x"])
def test_a_container_without_a_limit_of_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str
) -> None:
    limit(tmp_path, monkeypatch, max=text, current=f"{GIB}\n")
    assert hardware.container_memory(tmp_path) is None
    assert (hardware.total_memory(), hardware.available_memory()) == (64 * GIB, 32 * GIB)


@pytest.mark.parametrize(
    ("most", "used", "available"),
    [(8, 3, 5), (8, 9, 0), (40, 1, 32), (100, 10, 32)],
)
def test_a_container_limits_the_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: int, used: int, available: int
) -> None:
    limit(tmp_path, monkeypatch, max=f"{most * GIB}\n", current=f"{used * GIB}\n")
    assert hardware.total_memory() == min(most, 64) * GIB
    assert hardware.available_memory() == available * GIB


def test_files_that_a_container_has_read_take_no_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After a model of 6 GiB was quantized or checked, its pages still count as used."""
    stat = f"anon {GIB}\nfile {6 * GIB}\ninactive_file {4 * GIB}\nactive_file {2 * GIB}\n"
    limit(tmp_path, monkeypatch, max=f"{8 * GIB}", current=f"{7 * GIB}", stat=stat)
    assert hardware.available_memory() == 7 * GIB
    (tmp_path / "memory.stat").write_text("nonsense")
    assert hardware.available_memory() == GIB


def test_no_control_group_for_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    limit(tmp_path, monkeypatch)
    assert hardware.available_memory() == 32 * GIB


def test_the_machine_has_something() -> None:
    assert 0 < hardware.available_memory() <= hardware.total_memory()
    assert hardware.processor()
