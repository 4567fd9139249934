"""The first run: choose a model, protect the conversations, type."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest
from conftest import wait_until
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from benchmarks.terminal import Terminal
from localai.cli import first_run
from localai.errors import HistoryError
from localai.history import key
from models import catalog
from models.recommend import Recommendation
from models.store import Store
from tui.first_run import FirstRunApp
from tui.fitting import Fit
from tui.model_entry import ModelEntry
from tui.passphrase import strength
from tui.screens.first_run import Begun, FirstRunScreen, Questions
from tui.shelf import StoreShelf
from tui.widgets.model_question import ModelQuestion
from tui.widgets.protection_question import ProtectionQuestion

NO_KEYRING = "this system offers no keyring service"
PASSPHRASE = "correct horse battery"
SMALL, MEDIUM = (80, 24), (120, 40)
BEST = "r1:7b"


def model(name: str, size: int, title: str, note: str, **changes: object) -> ModelEntry:
    known: dict[str, object] = {
        "file_type": "Q4_K_M",
        "place": "available",
        "fetchable": True,
        "license": "MIT",
        "base_license": "Derived from Qwen2.5, which is under Apache-2.0: notices are kept.",
        "origin": f"the hub: bartowski/{title}-GGUF, commit 0123456789ab",
        "download": size,
    }
    return ModelEntry(name=name, size=size, title=title, note=note, **(known | changes))


NANO = model(
    "r1-nano",
    4_462_000,
    "R1-Nano",
    "A real but tiny R1: it adds whole numbers by thinking aloud, and nothing else.",
    file_type="Q8_0",
    license="Apache-2.0",
    base_license="",
    origin="",
    download=0,
    ready=False,
)
MODELS = [
    model("r1:1.5b", 1_117_320_800, "DeepSeek-R1-Distill-Qwen-1.5B", "The smallest that reasons."),
    model(
        "r1:7b",
        4_683_073_536,
        "DeepSeek-R1-Distill-Qwen-7B",
        "Sound at mathematics and code for its size; takes 5.5 GB of memory, which a laptop with 8 GB has.",
    ),
    model("r1:8b", 4_920_737_664, "DeepSeek-R1-Distill-Llama-8B", "Not the same as r1-0528:8b."),
    model("r1:14b", 8_988_109_920, "DeepSeek-R1-Distill-Qwen-14B", "Clearly better than r1:7b."),
    model("r1:32b", 19_851_335_520, "DeepSeek-R1-Distill-Qwen-32B", "The best for its size."),
    model("r1:70b", 42_520_395_584, "DeepSeek-R1-Distill-Llama-70B", "Takes 45.6 GB of memory."),
    model("r1-0528:8b", 5_027_782_720, "DeepSeek-R1-0528-Qwen3-8B", "Newer: May 2025."),
    model("smollm2:135m", 98_362_432, "SmolLM2-135M-Instruct", "A stand-in.", reasoning=False),
    NANO,
]
WHY = "It is the largest reasoning model that fits into 8 GB of memory and is quick on 4 cores."
SLOW = "Needs 6.3 GB of memory and 5.9 GB is free: close other programs, or it is slow."
FITS = {
    "r1:1.5b": Fit("fits", "Fits.", 22.0),
    "r1:7b": Fit("fits", "Fits.", 5.4),
    "r1:8b": Fit("tight", SLOW, 4.9),
    "r1:14b": Fit("too large", "Needs 10.9 GB of memory and this machine has 8.6 GB.", 0.4),
    "smollm2:135m": Fit("fits", "Fits.", 190.0),
    "r1-nano": Fit("fits", "Fits.", 900.0),
}


class FakeJob:
    """`tui.jobs.Job`, moved by the test."""

    def __init__(self, name: str) -> None:
        self.name, self.doing = name, "fetching"
        self.state, self.stage, self.error = "running", "", ""
        self.done = self.total = self.rate = 0
        self.left_s = 0.0
        self.on_change: Callable[[], None] = lambda: None
        self.ran = 0
        self._over = asyncio.Event()

    async def run(self) -> None:
        self.ran += 1
        await self._over.wait()

    async def stop(self) -> None:
        if self.state == "running":
            self.end("stopped")

    def progress(self, stage: str, done: int, total: int, rate: int = 0) -> None:
        self.stage, self.done, self.total, self.rate = stage, done, total, rate
        self.left_s = (total - done) / rate if rate else 0.0
        self.on_change()

    def end(self, state: str = "done", error: str = "") -> None:
        self.state, self.error = state, error
        self._over.set()
        self.on_change()


class Asked:
    """The application with its seams: what was fetched, and what was protected."""

    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []
        self.protected: list[tuple[str, str]] = []
        self.problem: HistoryError | None = None

    def pull(self, name: str) -> FakeJob:
        self.jobs.append(FakeJob(name))
        return self.jobs[-1]

    def protect(self, choice: str, passphrase: str) -> bytes | None:
        self.protected.append((choice, passphrase))
        if self.problem is not None:
            raise self.problem
        return b"k" * 32

    def app(self, **changes: object) -> FirstRunApp:
        asked: dict[str, object] = {
            "models": MODELS,
            "fits": FITS,
            "recommended": Recommendation(BEST, WHY),
        }
        return FirstRunApp(Questions(**(asked | changes)), self.protect, self.pull)


@pytest.fixture
def asked() -> Asked:
    return Asked()


async def page(pilot: Pilot[None], kind: type) -> None:
    await wait_until(pilot, lambda: [q for q in pilot.app.screen.query(kind) if q.has_focus_within])


def shown(app: FirstRunApp) -> str:
    """All the text that is on the page."""
    return "\n".join(str(w.visual) for w in app.screen.query(Static) if w.display and w.parent.display)


async def over(pilot: Pilot[None]) -> Begun | None:
    await wait_until(pilot, lambda: pilot.app._exit)
    return pilot.app.return_value


# ------------------------------------------------------------------------------------------------ the paths


async def test_enter_and_enter_are_enough_where_there_is_a_keyring(asked: Asked) -> None:
    async with asked.app().run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        assert "1 of 2" in shown(pilot.app)
        assert "Recommended for this machine" in shown(pilot.app)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "The chat opens when the model is there" in shown(pilot.app))
        assert asked.protected == []
        asked.jobs[0].progress("Downloading", 1_000_000_000, 4_683_073_536)
        assert "downloading ▰▰▰▱▱▱▱▱▱▱▱▱ 1.0 GB of 4.7 GB" in shown(pilot.app)
        asked.jobs[0].end()
        assert await over(pilot) == Begun(model=BEST, choice="keyring", key=b"k" * 32)
    assert asked.protected == [("keyring", "")]
    assert [job.ran for job in asked.jobs] == [1]


async def test_the_rate_and_the_rest_are_told(asked: Asked) -> None:
    async with asked.app().run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        asked.jobs[0].progress("Downloading", 1_000_000_000, 4_000_000_000)
        assert "1.0 GB of 4.0 GB" in shown(pilot.app)
        assert "/s" not in shown(pilot.app)
        asked.jobs[0].progress("Downloading", 2_000_000_000, 4_000_000_000, 20_000_000)
        assert "2.0 GB of 4.0 GB, 20 MB/s, 2 min left" in shown(pilot.app)


async def test_the_recommended_model_stands_first(asked: Asked) -> None:
    async with asked.app().run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        options = pilot.app.screen.query_one(ModelQuestion).query_one(OptionList)
        lines = [str(option.prompt).split() for option in options.options]
        assert lines[0] == ["r1:7b", "Q4_K_M", "4.7", "GB", "fits", "~5", "tok/s", "recommended"]
        assert [line[0] for line in lines[1:4]] == ["r1:1.5b", "r1:8b", "r1:14b"]
        assert lines[-1] == ["r1-nano", "Q8_0", "4", "MB", "fits", "offline"]
        said = shown(pilot.app)
        assert "Recommended for this machine: it is the largest reasoning model" in said
        assert "4.7 GB to download from the hub: bartowski/" in said
        assert "Licence: MIT. Derived from Qwen2.5" in said
        await pilot.press("down", "down", "down")
        assert "this machine has 8.6 GB." in shown(pilot.app)
        assert "Recommended" not in shown(pilot.app)
        await pilot.press("end")
        assert "It is made here, offline." in shown(pilot.app)


def test_the_catalogue_is_offered(home: Path) -> None:
    offered = first_run._to_be_had(StoreShelf(Store()))
    assert [entry.name for entry in offered] == [entry.name for entry in catalog.entries()]
    assert all(entry.place == "available" for entry in offered)


async def test_how_far_an_interrupted_fetch_came(asked: Asked) -> None:
    models = [msgspec.structs.replace(MODELS[1], arrived=2_000_000_000)]
    async with asked.app(models=models).run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        assert "2.0 GB of them are here already." in shown(pilot.app)


async def test_a_passphrase_is_typed_twice(asked: Asked) -> None:
    async with asked.app(keyring_problem=NO_KEYRING).run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        asked.jobs[0].end()
        assert NO_KEYRING in shown(pilot.app)
        assert "keyring" not in asked.protected
        await pilot.press("enter", *"short", "enter")
        assert "At least 8 letters" in shown(pilot.app)
        await pilot.press("ctrl+u", *PASSPHRASE)
        await pilot.pause()
        assert "Strong." in shown(pilot.app)
        await pilot.press("enter", *"something else", "enter")
        assert "not the same" in shown(pilot.app)
        await pilot.press(*PASSPHRASE, "enter")
        assert await over(pilot) == Begun(model=BEST, choice="passphrase", key=b"k" * 32)
    assert asked.protected == [("passphrase", PASSPHRASE)]


async def test_who_types_at_once_types_the_passphrase(asked: Asked) -> None:
    async with asked.app(models=(), keyring_problem=NO_KEYRING).run_test(size=SMALL) as pilot:
        await page(pilot, ProtectionQuestion)
        await pilot.press(*PASSPHRASE)
        first, second = pilot.app.screen.query(Input)
        assert (first.value, second.value) == (PASSPHRASE, "")
        await pilot.press("down", *PASSPHRASE, "up", "up")
        assert pilot.app.screen.query_one(ProtectionQuestion).query_one(OptionList).has_focus
        await pilot.press("enter", "enter", "enter")
        assert (await over(pilot)).choice == "passphrase"


async def test_an_empty_passphrase_is_none(asked: Asked) -> None:
    async with asked.app(models=(), keyring_problem=NO_KEYRING).run_test(size=SMALL) as pilot:
        await page(pilot, ProtectionQuestion)
        await pilot.press("enter", "enter")
        assert "A passphrase is needed." in shown(pilot.app)
    assert asked.protected == []


@pytest.mark.parametrize(("downs", "choice", "word"), [(2, "memory", "gone when"), (3, "plain", "can read")])
async def test_what_is_not_encrypted_says_what_it_means(
    asked: Asked, downs: int, choice: str, word: str
) -> None:
    async with asked.app(models=()).run_test(size=SMALL) as pilot:
        await page(pilot, ProtectionQuestion)
        assert "of 2" not in shown(pilot.app)
        await pilot.press(*["down"] * downs)
        await pilot.pause()
        assert word in shown(pilot.app)
        assert not pilot.app.screen.query(Input).first().parent.display
        await pilot.press("enter")
        await over(pilot)
    assert asked.protected == [(choice, "")]


async def test_only_the_model_is_asked_where_the_rest_is_decided(asked: Asked) -> None:
    async with asked.app(protection=False).run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("end", "enter")
        await wait_until(pilot, lambda: asked.jobs)
        asked.jobs[0].end()
        assert await over(pilot) == Begun(model="r1-nano")
    assert asked.protected == []


async def test_a_model_that_cannot_be_fetched_leads_to_another(asked: Asked) -> None:
    async with asked.app().run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        asked.jobs[0].end("failed", "The package index could not be reached.")
        assert "could not be fetched. The package index could not be reached. Esc:" in shown(pilot.app)
        await pilot.press("enter")
        await page(pilot, ModelQuestion)
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: len(asked.jobs) == 2)
        asked.jobs[1].end()  # how the conversations are protected is not asked again
        assert await over(pilot) == Begun(model="r1:1.5b", choice="keyring", key=b"k" * 32)


async def test_a_model_that_fails_while_one_waits_asks_for_another(asked: Asked) -> None:
    async with asked.app(protection=False).run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "The chat opens when" in shown(pilot.app))
        asked.jobs[0].end("failed", "No route to host")
        await page(pilot, ModelQuestion)
        assert "No route to host." in shown(pilot.app)
        await pilot.press("enter")  # and the same may be tried again
        await wait_until(pilot, lambda: len(asked.jobs) == 2)
        asked.jobs[1].end()
        assert (await over(pilot)).model == BEST


async def test_a_failure_is_in_sight_however_long_the_list_is(asked: Asked) -> None:
    entries = [msgspec.structs.replace(e, name=f"{e.name}-{n}") for e in MODELS for n in range(9)]
    app = asked.app(models=entries, protection=False)
    async with app.run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await wait_until(pilot, lambda: asked.jobs)
        asked.jobs[0].end("failed", "The package index could not be reached: no route to host. " * 3)
        await page(pilot, ModelQuestion)
        box, state = app._first._box, app._first._state
        await wait_until(pilot, lambda: state.region and box.region.contains_region(state.region))


async def test_another_model_stops_the_first(asked: Asked) -> None:
    async with asked.app().run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        await pilot.press("escape")
        await page(pilot, ModelQuestion)
        assert asked.jobs[0].state == "running"
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        assert len(asked.jobs) == 1
        await pilot.press("escape")
        await page(pilot, ModelQuestion)
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: len(asked.jobs) == 2 and asked.jobs[1].ran)
        assert asked.jobs[0].state == "stopped"


async def test_esc_stops_what_one_waits_for(asked: Asked) -> None:
    async with asked.app(protection=False).run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "The chat opens when" in shown(pilot.app))
        await pilot.press("escape")
        await page(pilot, ModelQuestion)
        assert asked.jobs[0].state == "stopped"
        assert not pilot.app._exit


async def test_who_goes_back_may_answer_all_anew(asked: Asked) -> None:
    async with asked.app().run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "The chat opens when" in shown(pilot.app))
        await pilot.press("escape")
        await page(pilot, ModelQuestion)
        assert "r1:7b was stopped." in shown(pilot.app)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        await pilot.press("down", "down", "enter")
        await wait_until(pilot, lambda: len(asked.jobs) == 2)
        asked.jobs[1].end()
        assert (await over(pilot)).choice == "memory"


async def test_a_keyring_that_refuses_is_said_and_another_choice_can_be_made(asked: Asked) -> None:
    asked.problem = HistoryError("The keyring does not take the key: locked", "Unlock it")
    async with asked.app(models=()).run_test(size=SMALL) as pilot:
        await page(pilot, ProtectionQuestion)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "does not take the key: locked. Unlock it" in shown(pilot.app))
        await page(pilot, ProtectionQuestion)
        asked.problem = None
        await pilot.press("down", "down", "enter")
        assert (await over(pilot)).choice == "memory"


@pytest.mark.parametrize("keys", [["escape"], ["ctrl+q"], ["enter", "ctrl+q"], ["enter", "enter", "ctrl+q"]])
async def test_to_quit_leaves_nothing(asked: Asked, keys: list[str], home: Path) -> None:
    async with asked.app().run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        for press in keys:
            await pilot.press(press)
            await pilot.pause()
        assert await over(pilot) is None
    assert asked.protected == []
    assert all(job.state == "stopped" for job in asked.jobs)
    assert not list(home.rglob("*"))


async def test_esc_on_the_only_page_quits(asked: Asked) -> None:
    async with asked.app(models=()).run_test(size=SMALL) as pilot:
        await page(pilot, ProtectionQuestion)
        await pilot.press("escape")
        assert await over(pilot) is None


async def test_a_reason_that_comes_from_elsewhere_is_shown_as_text(asked: Asked) -> None:
    async with asked.app(protection=False).run_test(size=SMALL) as pilot:
        await page(pilot, ModelQuestion)
        await pilot.press("enter")
        await wait_until(pilot, lambda: asked.jobs)
        asked.jobs[0].end("failed", "[bold]index\x1b[2J")
        assert "[bold]index" in shown(pilot.app)
        assert "\x1b" not in shown(pilot.app)


@pytest.mark.parametrize(
    ("passphrase", "word"),
    [
        ("", ""),
        ("seven77", "At least 8"),
        ("12345678", "Easy"),
        ("aaaaaaaaaaaaaaaaaaaaaaaa", "Easy"),
        ("Tr0ub4dor&3", "Fair"),
        (PASSPHRASE, "Strong"),
    ],
)
def test_the_strength_of_a_passphrase(passphrase: str, word: str) -> None:
    assert strength(passphrase, 8).startswith(word)
    assert bool(strength(passphrase, 8)) == bool(word)


# ----------------------------------------------------------------------------------------------- how it looks


async def to_model(pilot: Pilot[None]) -> None:
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, FirstRunScreen))
    await page(pilot, ModelQuestion)


@pytest.mark.parametrize("size", [SMALL, MEDIUM], ids=["80x24", "120x40"])
def test_the_models(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    assert snap_compare(asked.app(), terminal_size=size, run_before=to_model)


def protection(asked: Asked, *keys: str) -> Callable[[Pilot[None]], object]:
    async def script(pilot: Pilot[None]) -> None:
        await to_model(pilot)
        await pilot.press("enter")
        await page(pilot, ProtectionQuestion)
        asked.jobs[0].progress("Downloading", 2_350_000_000, 4_683_073_536, 31_000_000)
        await pilot.press(*keys)

    return script


@pytest.mark.parametrize("size", [SMALL, MEDIUM], ids=["80x24", "120x40"])
def test_the_passphrase(snap_compare, asked: Asked, size: tuple[int, int]) -> None:
    script = protection(asked, "enter", *PASSPHRASE, "enter", *"another", "enter")
    assert snap_compare(asked.app(keyring_problem=NO_KEYRING), terminal_size=size, run_before=script)


def test_the_keyring(snap_compare, asked: Asked) -> None:
    assert snap_compare(asked.app(), terminal_size=SMALL, run_before=protection(asked))


def test_waiting(snap_compare, asked: Asked) -> None:
    assert snap_compare(asked.app(), terminal_size=SMALL, run_before=protection(asked, "enter"))


def test_failed_without_colours(snap_compare, asked: Asked, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("NO_COLOR", "1")

    async def script(pilot: Pilot[None]) -> None:
        await protection(asked)(pilot)
        asked.jobs[0].end("failed", "The package index could not be reached: no route to host.")
        await pilot.press("escape", "down")
        await pilot.pause()

    assert snap_compare(asked.app(), terminal_size=SMALL, run_before=script)


# ----------------------------------------------------------------------------------------- on a real terminal


Start = Callable[..., Terminal]


@pytest.fixture
def start() -> Iterator[Start]:
    """Runs `localai` with these words on a terminal, where there is no keyring."""
    with ExitStack() as opened:

        def begin(*words: str | Path) -> Terminal:
            command = [sys.executable, "-P", "-m", "localai", *map(str, words)]
            environment = {"PYTHON_KEYRING_BACKEND": "keyring.backends.fail.Keyring"}
            return opened.enter_context(Terminal(command, environment=environment))

        yield begin


def test_from_nothing_to_an_answer_and_back(start: Start, home: Path) -> None:
    chat = start("chat", "--temperature", "0")
    chat.wait_for("Recommended for this machine")
    chat.type("\x1b[F")
    chat.wait_for("made here, offline")
    chat.type("\r")
    chat.wait_for("2 of 2")
    chat.type(f"{PASSPHRASE}\r")
    chat.wait_for("Now the same once more")
    chat.type(f"{PASSPHRASE}\r")
    chat.wait_for("ready")
    chat.type("What is 128 + 256?\r")
    chat.wait_for("384")
    chat.type("\x11")
    assert chat.wait_for_end() == 0
    assert key.protection() == key.Protection(("passphrase",))
    assert [model.name for model in Store().manifests()] == ["r1-nano"]
    assert not any(b"128 + 256" in path.read_bytes() for path in home.rglob("*") if path.is_file())

    again = start("chat")
    again.wait_for("Passphrase of your conversations")
    again.type(f"{PASSPHRASE}\r")
    again.wait_for("ready")
    again.type("\x02")
    again.wait_for("What is 128 + 256?")
    again.type("\x11")
    assert again.wait_for_end() == 0


def test_what_the_command_line_says_is_not_asked(start: Start, nano: Path, home: Path) -> None:
    chat = start("chat", "--incognito", nano)
    chat.wait_for("ready")
    assert "Protect" not in chat.text
    chat.type("\x11")
    assert chat.wait_for_end() == 0

    chat = start("chat", nano)
    chat.wait_for("Protect your conversations")
    assert "of 2" not in chat.text
    chat.type("\x1b")
    assert chat.wait_for_end() == 0
    assert not list(home.rglob("*"))


def test_a_signal_ends_the_first_run_and_gives_the_terminal_back(start: Start) -> None:
    chat = start("chat")
    chat.wait_for("Recommended for this machine")
    chat.process.terminate()
    assert chat.wait_for_end() == 143
    assert b"\x1b[?1049l" in chat.raw
