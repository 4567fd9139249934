"""What defaults are chosen from."""

from __future__ import annotations

from pathlib import Path

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


def test_the_machine_has_something() -> None:
    assert 0 < hardware.available_memory() <= hardware.total_memory()
    assert hardware.processor()
