"""The models screen: what it shows of each model, and what can be done with it."""

from __future__ import annotations

import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from chat_fakes import NANO, R1, STARTER, FakeEngine, FakeShelf, loaded
from conftest import NOON, wait_until
from models_fakes import (
    IN_LM_STUDIO,
    IN_OLLAMA,
    LARGE_R1,
    MEDIUM,
    SHIPPED,
    SMALL,
    FakeJobs,
    MakeApp,
    choose,
    four_models,
    keys,
    lines,
    note,
    notices,
    opened,
    settled,
)
from textual.app import App
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

import tui.app
from localai.errors import LoadError, QuantizeError
from tui.app import ChatApp
from tui.fitting import Fit
from tui.model_entry import ModelEntry
from tui.screens.chat import ChatScreen
from tui.screens.help import KeysScreen
from tui.screens.models import ModelsScreen
from tui.screens.quantize import QuantizeScreen
from tui.theme import DARK


@pytest.fixture
def shelf() -> FakeShelf:
    return four_models()


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def make(make_app: MakeApp, jobs: FakeJobs) -> MakeApp:
    return lambda **changes: make_app(jobs=jobs, **changes)


class Host(App[None]):
    """The models screen over nothing."""

    CSS_PATH = Path(tui.app.__file__).with_name("app.tcss")

    def __init__(self, shelf: FakeShelf, jobs: FakeJobs) -> None:
        super().__init__()
        self._models = ModelsScreen(shelf, jobs, in_use=lambda: R1.name, now=lambda: NOON)
        self.register_theme(DARK)
        self.theme = DARK.name

    def on_mount(self) -> None:
        self.push_screen(self._models)


async def stands(pilot: Pilot[None]) -> None:
    """The models screen is there, with all of its facts."""
    app = pilot.app
    await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen.is_mounted)
    await wait_until(pilot, lambda: any("too large" in line for line in lines(app)))
    await settled(pilot)


Script = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(params=[SMALL, MEDIUM], ids=["80x24", "120x40"])
def snap(snap_compare, request: pytest.FixtureRequest, shelf: FakeShelf, jobs: FakeJobs):
    def compare(script: Script) -> bool:
        return snap_compare(Host(shelf, jobs), terminal_size=request.param, run_before=script)

    return compare


def test_models(snap, shelf: FakeShelf, jobs: FakeJobs):
    """All that there may be, and what is known of one that could be had."""
    shelf.all_of_them[3] = msgspec.structs.replace(LARGE_R1, arrived=8_900_000_000)
    shelf.all_of_them += [
        msgspec.structs.replace(R1, name="r1:7b:q8_0", file_type="Q8_0", place="removed", frees=R1.size),
        msgspec.structs.replace(STARTER, name="team:starter", shared=True),
    ]
    jobs.elsewhere = [IN_OLLAMA, IN_LM_STUDIO]

    async def script(pilot: Pilot[None]) -> None:
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen))
        await wait_until(pilot, lambda: any("Ollama" in line for line in lines(pilot.app)))
        await settled(pilot)
        await pilot.press("down", "down", "down", "down", "down")
        await wait_until(pilot, lambda: "are here already" in note(pilot.app))

    assert snap(script)


def test_a_model_that_comes(snap, jobs: FakeJobs):
    async def script(pilot: Pilot[None]) -> None:
        await stands(pilot)
        await pilot.press("down", "down", "down", "enter")
        await wait_until(pilot, lambda: jobs.running)
        jobs.last.tell("Downloading", 8_900_000_000, LARGE_R1.size, 31_000_000)
        await wait_until(pilot, lambda: "8.9 GB of 19.9 GB" in note(pilot.app))

    assert snap(script)


def test_the_types(snap):
    async def script(pilot: Pilot[None]) -> None:
        await stands(pilot)
        await pilot.press("f6")
        await wait_until(pilot, lambda: "Recommended" in note(pilot.app))

    assert snap(script)


# --------------------------------------------------------------------------------------- what is shown


async def test_a_line_tells_what_is_known(make: MakeApp):
    async with make().run_test(size=SMALL) as pilot:
        await opened(pilot)
        found = [line.split() for line in lines(pilot.app)]
    assert found == [
        ["Installed"],
        ["●", "deepseek-r1:7b", "Q4_K_M", "4.7", "GB", "reasoning", "fits"],
        ["smollm2:135m", "Q4_1", "98", "MB", "plain", "fits"],
        ["Available"],
        ["r1-nano", "Q8_0", "reasoning", "fits"],
        ["deepseek-r1:32b", "Q4_K_M", "19.9", "GB", "reasoning", "too", "large"],
    ]


async def test_where_there_is_little_room(make: MakeApp):
    async with make().run_test(size=(60, 20)) as pilot:
        await opened(pilot)
        assert lines(pilot.app)[1].split() == ["●", "deepseek-r1:7b", "Q4_K_M", "4.7", "GB", "fits"]
        options = pilot.app.screen.query_one(OptionList)
        assert all(option.prompt.cell_length <= options.size.width for option in options.options)
        box = pilot.app.screen.query_one(".box").region
        assert pilot.app.screen.query_one(".hint").region.bottom < box.bottom <= 20


async def test_what_is_said_below_the_list(make: MakeApp, shelf: FakeShelf):
    async with make().run_test() as pilot:
        await opened(pilot)
        said = "Thinks before it answers. Writes about 7 tokens/s. Fits, with up to 24,576 tokens"
        assert said in note(pilot.app)
        await pilot.press("down")
        assert note(pilot.app).startswith("Not a reasoning model")
        await pilot.press("down")
        assert "It is made here, offline." in note(pilot.app)
        await pilot.press("down")
        assert "this machine has 16.6 GB" in note(pilot.app)
        assert "GPU" not in note(pilot.app)
        assert "19.9 GB to download" in note(pilot.app)
        await pilot.press("up", "up", "up")
        assert "24,576" in note(pilot.app)
    # The context of the loaded model is free again when another one is loaded.
    assert set(shelf.given_back) == {8192 * 57_344}


async def test_where_a_gpu_computes_it_says_what_is_not_counted(
    make: MakeApp, shelf: FakeShelf, engine: FakeEngine
):
    engine.default = loaded(gpu_layers=29, backend="CUDA0 + CPU")
    shelf.fits[SHIPPED.name] = Fit("", "Whether it fits is known once it is here.")
    not_counted = "The memory of the GPU is not counted here."
    async with make().run_test() as pilot:
        await opened(pilot)
        assert f"memory that is free. {not_counted}" in note(pilot.app)
        await pilot.press("down", "down", "down")
        assert f"it would be very slow. {not_counted}" in note(pilot.app)
        await pilot.press("up")
        assert "is known once it is here." in note(pilot.app)
        assert not_counted not in note(pilot.app)
    assert set(shelf.given_back) == {0}  # the context of the loaded model is not in main memory


@pytest.mark.parametrize(
    ("typed", "command"),
    [
        ("acme/X-GGUF", "localai models pull acme/X-GGUF:TYPE"),
        ("acme/X-GGUF:Q4_K_M", "localai models pull acme/X-GGUF:Q4_K_M"),
        ("https://huggingface.co/acme/X-GGUF", "localai models pull acme/X-GGUF:TYPE"),
        (
            "https://models.example/x.gguf",
            "localai models pull https://models.example/x.gguf --sha256 DIGEST",
        ),
    ],
)
async def test_what_is_elsewhere_is_fetched_in_a_terminal(make: MakeApp, typed: str, command: str):
    async with make().run_test(size=MEDIUM) as pilot:
        await opened(pilot)
        pilot.app.screen.query_one(Input).value = typed
        await wait_until(pilot, lambda: note(pilot.app).endswith(f": {command}"))


@pytest.mark.parametrize("typed", ["nothing like it", "~/nothing", "./nothing", "/nothing/there"])
async def test_what_can_be_nowhere_else_just_does_not_match(make: MakeApp, typed: str):
    async with make().run_test() as pilot:
        await opened(pilot)
        pilot.app.screen.query_one(Input).value = typed
        await wait_until(pilot, lambda: note(pilot.app) == "Nothing matches.")


async def test_its_keys(make: MakeApp):
    async with make().run_test() as pilot:
        screen = await opened(pilot)
        await pilot.press("f1")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, KeysScreen))
        await wait_until(pilot, lambda: pilot.app.screen.query(".text"))
        assert "free what removed models take" in str(pilot.app.screen.query_one(".text", Static).visual)
        await pilot.press("f1")
        await wait_until(pilot, lambda: pilot.app.screen is screen)


async def test_the_filter_finds_what_is_available(make: MakeApp):
    async with make().run_test() as pilot:
        await opened(pilot)
        await pilot.press(*"available reasoning 32")
        assert [line.split()[0] for line in lines(pilot.app)] == ["Available", "deepseek-r1:32b"]


async def test_a_header_that_cannot_be_read_is_said(make: MakeApp, shelf: FakeShelf):
    def fit(entry: ModelEntry, given_back: int) -> Fit:
        raise LoadError("The file is \x1b[31mtruncated", "Fetch it again")

    shelf.fit = fit  # type: ignore[method-assign]
    async with make().run_test() as pilot:
        await opened(pilot)
        assert "The file is [31mtruncated. Fetch it again" in note(pilot.app)


async def test_it_opens_before_all_headers_are_read(make: MakeApp, shelf: FakeShelf):
    asked: list[str] = []
    gate = threading.Event()
    quick = shelf.fit

    def fit(entry: ModelEntry, given_back: int) -> Fit:
        asked.append(entry.name)
        assert gate.wait(30)
        return quick(entry, given_back)

    shelf.fit = fit  # type: ignore[method-assign]
    async with make().run_test() as pilot:
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: len(lines(pilot.app)) == 6)
        await pilot.press("down")
        await wait_until(pilot, lambda: note(pilot.app).startswith("Not a reasoning model"))
        assert lines(pilot.app)[2].endswith("plain")
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ChatScreen))
        gate.set()
    assert asked == [R1.name]


# ------------------------------------------------------------------------------------------------ fetch


async def test_enter_fetches_and_then_uses(
    make: MakeApp, shelf: FakeShelf, jobs: FakeJobs, engine: FakeEngine
):
    async with make().run_test(size=SMALL) as pilot:
        app = pilot.app
        await opened(pilot)
        await choose(pilot, NANO.name)
        assert keys(app) == "Enter fetches it · Esc closes"
        await pilot.press("enter", "enter")
        assert jobs.asked == [("pull", NANO.name)]
        jobs.last.tell("Downloading", 10, 100)
        await wait_until(pilot, lambda: "Downloading 10%" in lines(app)[-1])
        assert "Downloading: 10 B of 100 B. You can close this: it goes on." in note(app)
        assert "Stopped, it keeps what has come." in note(app)
        shelf.all_of_them[2] = NANO
        jobs.last.end.set()
        await wait_until(pilot, lambda: "Enter uses it" in keys(app))
        assert NANO.name in lines(app)[-1]
        assert "1 MB" in lines(app)[-1]
        await wait_until(pilot, lambda: "r1-nano is here. Ctrl+O uses it." in notices(app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: app.session.loader.entry == NANO)
        assert len(engine.loads) == 2


async def test_a_model_that_comes_is_chosen_if_there_is_no_other(
    make: MakeApp, shelf: FakeShelf, jobs: FakeJobs
):
    shelf.all_of_them = [SHIPPED]
    async with make(model=None).run_test() as pilot:
        await opened(pilot)
        await pilot.press("enter", "escape")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ChatScreen))
        shelf.all_of_them = [NANO]
        jobs.last.end.set()
        await wait_until(pilot, lambda: pilot.app.session.loader.state == "ready")
        assert pilot.app.session.loader.entry == NANO


async def test_why_it_failed(make: MakeApp, jobs: FakeJobs):
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, NANO.name)
        await pilot.press("enter")
        jobs.last.fail("The package index cannot be reached")
        await wait_until(pilot, lambda: "The last attempt failed: The package index" in note(pilot.app))
        assert lines(pilot.app)[-1].endswith("failed")
        assert notices(pilot.app) == ""  # one place is enough
        await pilot.press("enter")
        assert jobs.asked == [("pull", NANO.name)] * 2
        assert "It begins" in note(pilot.app)


async def test_a_failure_that_the_list_does_not_show_is_told(make: MakeApp, jobs: FakeJobs):
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, NANO.name)
        await pilot.press("enter")
        await choose(pilot, R1.name)
        jobs.last.fail("The package index cannot be reached")
        await wait_until(pilot, lambda: "r1-nano: The package index cannot" in notices(pilot.app))


async def test_a_failure_is_told_after_the_screen_was_closed(make: MakeApp, jobs: FakeJobs):
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, NANO.name)
        await pilot.press("enter", "escape")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ChatScreen))
        jobs.last.fail("The package index cannot be reached")
        await wait_until(pilot, lambda: "r1-nano: The package index cannot" in notices(pilot.app))


async def test_delete_stops_it(make: MakeApp, jobs: FakeJobs):
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, NANO.name)
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Del stops it" in keys(pilot.app))
        await pilot.press("delete")
        await wait_until(pilot, lambda: "Enter fetches it" in keys(pilot.app))
        assert jobs.last.state == "stopped"
        assert notices(pilot.app) == ""


async def test_the_end_of_the_program_stops_what_runs(make: MakeApp, jobs: FakeJobs):
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, NANO.name)
        await pilot.press("enter", "ctrl+q")
        await wait_until(pilot, lambda: not pilot.app.is_running)
    assert jobs.last.state == "stopped"


async def test_delete_in_the_filter_is_the_filters(make: MakeApp, shelf: FakeShelf):
    async with make().run_test() as pilot:
        await opened(pilot)
        await pilot.press(*"xsmollm", "home", "delete")
        assert pilot.app.screen.query_one(Input).value == "smollm"
        assert isinstance(pilot.app.screen, ModelsScreen)


# --------------------------------------------------------------------------------------------- quantize


async def quantizing(pilot: Pilot[None]) -> None:
    await pilot.press("f6")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuantizeScreen))
    await wait_until(pilot, lambda: "Reading" not in note(pilot.app))


async def test_quantize_to_another_type(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    async with make().run_test(size=MEDIUM) as pilot:
        app = pilot.app
        await opened(pilot)
        await quantizing(pilot)
        assert [line.split()[0] for line in lines(app)] == ["BF16", "Q8_0", "Q4_K_M"]
        assert "Becomes deepseek-r1-7b:q4_k_m. Runs here with 4,096 tokens" in note(app)
        assert "Recommended: the usual balance" in note(app)
        await pilot.press("up", "up")
        await wait_until(pilot, lambda: "Needs 16.0 GB of memory to run" in note(app))
        await pilot.press("down", "enter")
        await wait_until(pilot, lambda: jobs.running)
        source = f"/made/from/{R1.name}"
        assert jobs.asked == [
            ("forecast", source),
            ("quantize", source, "Q8_0", "deepseek-r1-7b:q8_0"),
        ]
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        jobs.last.tell("Quantize", 30, 100)
        await wait_until(pilot, lambda: "Quantize 30%" in lines(app)[3])
        assert "Quantize: 30 B of 100 B" in note(app)
        shelf.all_of_them.append(msgspec.structs.replace(R1, name="deepseek-r1-7b:q8_0"))
        jobs.last.end.set()
        await wait_until(pilot, lambda: "4.7 GB" in lines(app)[3])
        assert lines(app)[3].startswith("deepseek-r1-7b:q8_0")


async def test_why_a_model_cannot_be_quantized(make: MakeApp, jobs: FakeJobs):
    jobs.will_forecast = QuantizeError("It is quantized already")
    async with make().run_test() as pilot:
        await opened(pilot)
        await quantizing(pilot)
        assert note(pilot.app) == "It is quantized already"
        await pilot.press("enter", "escape")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen))
        assert not jobs.running


async def test_no_model_is_replaced_by_a_quantized_one(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    shelf.all_of_them.append(msgspec.structs.replace(R1, name="deepseek-r1-7b:q4_k_m"))
    async with make().run_test() as pilot:
        await opened(pilot)
        await quantizing(pilot)
        assert "deepseek-r1-7b:q4_k_m is installed already" in note(pilot.app)
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, QuantizeScreen)
        assert not jobs.running


# ------------------------------------------------------------------------------------------------ paths


async def test_a_folder_is_quantized(make: MakeApp, jobs: FakeJobs, tmp_path: Path):
    folder = tmp_path / "My Checkpoint"
    folder.mkdir()
    async with make().run_test() as pilot:
        await opened(pilot)
        pilot.app.screen.query_one(Input).value = str(folder)
        await wait_until(pilot, lambda: "a checkpoint in it can be quantized" in note(pilot.app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: "Recommended" in note(pilot.app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: jobs.running)
        assert jobs.asked[-1] == ("quantize", str(folder), "Q4_K_M", "my-checkpoint:q4_k_m")


async def test_a_file_is_used(make: MakeApp, jobs: FakeJobs, tmp_path: Path):
    file = tmp_path / "some.gguf"
    file.touch()
    async with make().run_test() as pilot:
        screen = await opened(pilot)
        given: list[str | None] = []
        screen.dismiss = given.append  # type: ignore[method-assign, assignment]
        pilot.app.screen.query_one(Input).value = str(file)
        await wait_until(pilot, lambda: "A file" in note(pilot.app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: given == [str(file)])


# ---------------------------------------------------------------------------------------------- damaged


async def test_a_damaged_model(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    shelf.all_of_them[1] = msgspec.structs.replace(
        STARTER, fault="Its file is missing. Get it again.", fetchable=True
    )
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, STARTER.name)
        assert lines(pilot.app)[-1].endswith("damaged")
        assert "It cannot be used. Its file is missing. Get it again." in note(pilot.app)
        await pilot.press("f6", "enter")
        assert jobs.asked == [("pull", STARTER.name)]


# ------------------------------------------------------------------------------------------------ mouse


async def test_all_with_the_mouse(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs, engine: FakeEngine):
    async with make().run_test(size=SMALL) as pilot:
        app = pilot.app
        await opened(pilot)
        assert await pilot.click(OptionList, offset=(4, 5))
        await wait_until(pilot, lambda: "19.9 GB to download" in note(app))
        assert jobs.asked == []
        assert await pilot.click(OptionList, offset=(4, 5))
        await wait_until(pilot, lambda: jobs.asked == [("pull", LARGE_R1.name)])
        await wait_until(pilot, lambda: "Del stops it" in keys(app))
        await click_on(pilot, "Del stops")
        await wait_until(pilot, lambda: not jobs.running)
        assert await pilot.click(OptionList, offset=(4, 2))
        await click_on(pilot, "F6 other types")
        await wait_until(pilot, lambda: isinstance(app.screen, QuantizeScreen))
        await pilot.press("escape")
        await click_on(pilot, "Del removes")
        await wait_until(pilot, lambda: shelf.last_removed() == STARTER.name)
        await settled(pilot)
        assert await pilot.click(OptionList, offset=(4, lines(app).index("Removed") + 1))
        await click_on(pilot, "Enter brings it back")
        await wait_until(pilot, lambda: not shelf.last_removed())
        await settled(pilot)
        await click_on(pilot, "Esc closes")
        await wait_until(pilot, lambda: isinstance(app.screen, ChatScreen))
        await pilot.press("ctrl+o", "down")
        await click_on(pilot, "Enter uses")
        await wait_until(pilot, lambda: len(engine.loads) == 2)


async def click_on(pilot: Pilot[None], text: str) -> None:
    """Click on `text` in the lower border of the models screen."""
    app = pilot.app
    await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
    box = app.screen.query_one(".box")
    await wait_until(pilot, lambda: text in border(app))
    await pilot.click(box, offset=(border(app).index(text) + 1, box.size.height + 1))


def border(app: ChatApp) -> str:
    """The lower border of the models screen, as it is painted."""
    box = app.screen.query_one(".box")
    strips = app.screen._compositor.render_strips()
    region = box.region
    return strips[region.bottom - 1].text[region.x : region.right]
