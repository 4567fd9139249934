"""Every case of the corpus, through the real command line."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import pytest

from localai.chat.conversation import Conversation, Message
from localai.history import History, key
from tests.hostile import (
    configs,
    conversations,
    gguf,
    running,
    safetensors,
    settings,
    stores,
    templates,
    tokenizers,
)
from tests.hostile.case import CANARY, Case, Scene
from tests.quantize.making import NANO

KINDS = {
    "gguf": gguf.CASES,
    "safetensors": safetensors.CASES,
    "tokenizers": tokenizers.CASES,
    "configs": configs.CASES,
    "templates": templates.CASES,
    "stores": stores.CASES,
    "settings": settings.CASES,
}
ALL = [(kind, case) for kind, cases in KINDS.items() for case in cases]


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """r1-nano's, on the disk of the tests."""
    return Path(shutil.copytree(NANO, tmp_path_factory.mktemp("source") / "r1-nano"))


@pytest.fixture
def scene(tmp_path: Path, nano: Path, checkpoint: Path) -> Scene:
    made = Scene(tmp_path / "scene", nano, checkpoint)
    made.root.mkdir()
    running.world(made)
    return made


@pytest.fixture
def with_history(scene: Scene, monkeypatch: pytest.MonkeyPatch) -> Scene:
    """A scene in whose store a conversation is kept, without protection: to open it costs no time."""
    monkeypatch.setenv("LOCALAI_HOME", str(scene.store))
    key.create(())
    made = Conversation(id=running.KEPT, title="Kept")
    made.append(Message(parent=None, role="user", content="Still here?"))
    with History() as history:
        history.save(made)
    return scene


@pytest.mark.parametrize("case", [pytest.param(case, id=f"{kind}: {case.name}") for kind, case in ALL])
def test_hostile(case: Case, scene: Scene) -> None:
    running.run(case, scene)


@pytest.mark.parametrize("case", [pytest.param(case, id=case.name) for case in conversations.CASES])
def test_hostile_conversations(case: Case, with_history: Scene) -> None:
    running.run(case, with_history)
    running.check_kept(with_history)


def test_there_are_enough_and_each_has_a_name_of_its_own() -> None:
    names = [(kind, case.name) for kind, case in ALL] + [("", case.name) for case in conversations.CASES]
    assert len(set(names)) == len(names) >= 200


@pytest.mark.parametrize("folder", ["home", "cwd", "tmp", "files", CANARY])
def test_what_is_left_anywhere_but_in_the_store_is_seen(scene: Scene, folder: str) -> None:
    before = running.snapshot(scene)
    (scene.store / "new").touch()
    assert running.snapshot(scene) == before
    (scene.root / folder / "new").touch()
    assert running.snapshot(scene) != before


CASE = Case("x", lambda scene: scene.files, "ask {input}", "is empty")
GOOD = running.Ended(1, "", "localai: error: x.gguf is empty. Give another.\n", 1.0, 1.0, 1000)


def test_an_error_as_it_must_be_passes() -> None:
    running.check(CASE, GOOD, Path("x.gguf"))


@pytest.mark.parametrize(
    "change",
    [
        {"code": -6},
        {"code": 2},
        {"err": ""},
        {"err": "Traceback (most recent call last):\n" + GOOD.err},
        {"err": GOOD.err * 2},
        {"err": GOOD.err.replace("x.gguf", "it")},
        {"err": GOOD.err.replace("empty", "odd")},
        {"err": "localai: error: x.gguf is empty\n"},
        {"out": "\x1b[2J"},
        {"cpu_s": 11.0},
        {"wall_s": 1e6},
        {"peak_kb": 2_000_000},
    ],
)
def test_any_other_end_is_seen(change: dict[str, Any]) -> None:
    with pytest.raises(AssertionError):
        running.check(CASE, GOOD._replace(**change), Path("x.gguf"))
