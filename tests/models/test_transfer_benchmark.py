"""The command behind the claim about transfers runs and prints its ratios. No figure is judged here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.models.transferring import isolate


def test_pull(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    isolate(monkeypatch)
    command = [sys.executable, str(Path(__file__).parents[2] / "benchmarks" / "pull.py"), "--json"]
    command += ["--size", "3", "--rounds", "1", "--folder", str(tmp_path), "--line", "125 MB/s, 20 ms"]
    (found,) = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert found["line"] == "125 MB/s, 20 ms"
    assert set(found["speeds"]) >= {"ours", "hf_hub_download"}
    assert 0 < found["memory"] < 200_000_000
    for ratios in found["against"].values():
        for ratio in ratios.values():
            assert ratio["ratio"] > 0
            assert len(ratio["ratios"]) == 1
            assert ratio["claim"] == "at least 0.9"
    assert list(tmp_path.iterdir()) == []
