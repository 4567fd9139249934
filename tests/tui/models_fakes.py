"""What tests of the models screen share: jobs that only the test ends, models, and what is on the screen."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import msgspec
from chat_fakes import NANO, R1, STARTER, FakeShelf
from conftest import wait_until
from textual.content import Content
from textual.pilot import Pilot
from textual.widgets import Input, OptionList, Static

from localai.errors import ModelError, QuantizeError
from tui.app import ChatApp
from tui.asking import Forecast, Need, Recommended, TypeForecast
from tui.fitting import Fit
from tui.jobs import Job, Jobs
from tui.model_entry import ModelEntry
from tui.screens.chat import ChatScreen
from tui.screens.models import ModelsScreen

SMALL, MEDIUM = (80, 24), (120, 40)
LARGE_R1 = ModelEntry(
    name="deepseek-r1:32b",
    title="DeepSeek-R1-Distill-Qwen-32B",
    file_type="Q4_K_M",
    size=19_851_336_256,
    place="available",
    fetchable=True,
    base="deepseek-r1:32b",
    license="MIT",
    base_license="Derived from Qwen2.5, which is under Apache-2.0: notices are kept.",
    origin="the hub: bartowski/DeepSeek-R1-Distill-Qwen-32B-GGUF, commit 0123456789ab",
    download=19_851_336_256,
    publisher_bytes=65_527_752_704,
)
SHIPPED = msgspec.structs.replace(NANO, size=0, place="available", fetchable=True, ready=False)
IN_OLLAMA = ModelEntry(
    name="deepseek-r1:8b",
    title="deepseek-r1:latest",
    file_type="Q4_K_M",
    size=4_920_000_000,
    place="found",
    program="Ollama",
)
IN_LM_STUDIO = ModelEntry(
    name="gemma3:4b",
    title="gemma-3-4b",
    file_type="Q4_K_M",
    size=3_300_000_000,
    place="found",
    program="LM Studio",
    fault="It cannot be used: its architecture is gemma3.",
)
FORECAST = Forecast(
    source_type="BF16",
    types=[
        TypeForecast("F32", 30_465_000_000, 32.0, False, [Need(4096, 31_000_000_000, False)]),
        TypeForecast("BF16", 15_236_000_000, 16.0, True, [Need(4096, 16_000_000_000, False)]),
        TypeForecast("Q8_0", 8_098_000_000, 8.5, True, [Need(4096, 8_500_000_000, True)]),
        TypeForecast("Q4_K_M", 4_683_000_000, 4.9, True, [Need(4096, 5_100_000_000, True)]),
        TypeForecast("IQ1_S", 1_900_000_000, 2.0, False, [Need(4096, 2_300_000_000, True)]),
    ],
    recommended=Recommended("Q4_K_M", "the usual balance of quality, size and speed, and it fits"),
)


class FakeJob(Job):
    """Runs until it is told how it ended."""

    def __init__(self, name: str, doing: str) -> None:
        super().__init__(name, doing, [])
        self.end = asyncio.Event()

    async def run(self) -> None:
        await self.end.wait()
        if self.state == "running":
            self.state = "done"

    async def stop(self) -> None:
        self.state = "stopped"
        self.end.set()

    def tell(self, stage: str, done: int, total: int, rate: int = 0) -> None:
        self.stage, self.done, self.total, self.rate = stage, done, total, rate
        self.on_change()

    def fail(self, error: str) -> None:
        self.state, self.error = "failed", error
        self.end.set()


class FakeJobs(Jobs):
    """Jobs that only the test ends."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[tuple[str, ...]] = []
        self.will_forecast: Forecast | QuantizeError = FORECAST
        self.elsewhere: list[ModelEntry] | ModelError = []
        """What other programs hold."""

    def pull(self, name: str, *, from_source: bool = False) -> None:
        self.asked.append(("make" if from_source else "pull", name))
        self.start(FakeJob(name, "fetching"))

    def go_on(self, name: str, words: Sequence[str]) -> None:
        self.asked.append(("go on", *words))
        self.start(FakeJob(name, "fetching"))

    def add(self, name: str) -> None:
        self.asked.append(("add", name))
        self.start(FakeJob(name, "adding"))

    async def discover(self) -> Sequence[ModelEntry]:
        if isinstance(self.elsewhere, ModelError):
            raise self.elsewhere
        self.found = self.elsewhere
        return self.found

    def quantize(self, source: str, file_type: str, name: str) -> None:
        self.asked.append(("quantize", source, file_type, name))
        self.start(FakeJob(name, "quantizing"))

    async def forecast(self, source: str) -> Forecast:
        self.asked.append(("forecast", source))
        if isinstance(self.will_forecast, QuantizeError):
            raise self.will_forecast
        return self.will_forecast

    @property
    def last(self) -> FakeJob:
        job = self.all[-1]
        assert isinstance(job, FakeJob)
        return job


MakeApp = Callable[..., ChatApp]


def four_models() -> FakeShelf:
    """Two that are installed, one that is shipped with the program, one that is too large."""
    shelf = FakeShelf(msgspec.structs.replace(R1, frees=R1.size), STARTER, SHIPPED, LARGE_R1)
    shelf.fits = {
        R1.name: Fit(
            "fits", "Fits, with up to 24,576 tokens of context in the 6.2 GB of memory that is free.", 7.4
        ),
        LARGE_R1.name: Fit(
            "too large", "Needs 19.9 GB of memory and this machine has 16.6 GB: it would be very slow.", 0.8
        ),
    }
    return shelf


async def opened(pilot: Pilot[None]) -> ModelsScreen:
    """The models screen, with all of its facts."""
    app = pilot.app
    assert isinstance(app, ChatApp)
    await wait_until(pilot, lambda: app.session.loader.state != "loading" and app.screen.is_mounted)
    await wait_until(pilot, lambda: isinstance(app.screen, ChatScreen | ModelsScreen))
    if not isinstance(app.screen, ModelsScreen):
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen) and app.screen.is_mounted)
    screen = app.screen
    assert isinstance(screen, ModelsScreen)
    await settled(pilot)
    return screen


async def settled(pilot: Pilot[None]) -> None:
    """What the screen looks up is there."""
    groups = ("load", "discover", "change", "fits")
    await wait_until(pilot, lambda: all(w.is_finished for w in pilot.app.workers if w.group in groups))


def lines(app: ChatApp) -> list[str]:
    return [str(option.prompt).strip() for option in app.screen.query_one(OptionList).options]


def note(app: ChatApp) -> str:
    """What is said below the list, in one line."""
    return str(app.screen.query_one(".hint", Static).visual).replace("\n", " ")


def keys(app: ChatApp) -> str:
    return Content.from_markup(app.screen.query_one(".box").border_subtitle or "").plain


async def choose(pilot: Pilot[None], key: str, words: str = "") -> None:
    """Filter for the model with that key alone, by `words` or its name."""
    pilot.app.screen.query_one(Input).value = words or key
    options = pilot.app.screen.query_one(OptionList)
    await wait_until(pilot, lambda: options.highlighted_option and options.highlighted_option.id == key)
    await pilot.pause()


def notices(app: ChatApp) -> str:
    return "\n".join(notification.message for notification in app._notifications)
