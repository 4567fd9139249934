"""The installer's own parts; that it installs is shown by every test that runs."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def install() -> ModuleType:
    spec = importlib.util.spec_from_file_location("install", ROOT / "install.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_progress_is_shown_while_llama_cpp_compiles(
    install: ModuleType, capsys: pytest.CaptureFixture[str]
) -> None:
    install.show("Compiling", iter([*(f"  [{n}/20] cc -c file{n}.c" for n in range(1, 21)), "done"]))
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 11
    assert lines[0] == "  Compiling, 0:00 - 1 of 20 files"
    assert lines[-1] == "  Compiling, 0:00 - 20 of 20 files"


def test_what_is_installed_is_seen_by_its_version(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(install, "PYTHON", Path(sys.executable))
    assert all(install.installed(wanted) for wanted in install.dependencies())
    assert not install.installed("llama-cpp-python>=999")
    assert not install.installed("no-such-package-anywhere")


def test_a_missing_compiler_is_one_line(
    install: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.delenv("CXX", raising=False)
    with pytest.raises(SystemExit, match=r"there is no C\+\+ compiler.*apt install"):
        install.check_tools()
