"""Measured figures on the screens that models are chosen on, and in the shelf that they come from."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from pathlib import Path

import msgspec
import pytest
from chat_fakes import R1, STARTER, FakeShelf
from conftest import wait_until
from models_fakes import (
    FORECAST,
    LARGE_R1,
    MEDIUM,
    SHIPPED,
    SMALL,
    FakeJobs,
    MakeApp,
    choose,
    four_models,
    lines,
    note,
    opened,
    settled,
)
from textual.pilot import Pilot
from textual.widgets import OptionList

from models import measured
from models.catalog import find
from models.figures import Answers, Figures
from models.origins import Builtin, Checkpoint
from models.store import Store
from tests.known_figures import known, loss, speed
from tui.asking import Recommended
from tui.fitting import Fit
from tui.model_entry import ModelEntry
from tui.screens.first_run import Questions
from tui.screens.models import ModelsScreen
from tui.screens.quantize import QuantizeScreen
from tui.screens.types import TypesScreen
from tui.shelf import StoreShelf
from tui.widgets.model_list import line

ALL = known(loss=loss(), speed=speed(41.4), answers=Answers(set="sums", right=97, asked=100))


@pytest.fixture
def shelf() -> FakeShelf:
    shelf = four_models()
    shelf.all_of_them[0] = msgspec.structs.replace(R1, frees=R1.size, figures=ALL)
    shelf.all_of_them[2] = msgspec.structs.replace(SHIPPED, figures=known(loss=loss(0.0012, top1=0.991)))
    return shelf


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def make(make_app: MakeApp, jobs: FakeJobs) -> MakeApp:
    return lambda **changes: make_app(jobs=jobs, **changes)


# ---------------------------------------------------------------------------------------- the models screen


async def test_a_line_has_what_was_measured(make: MakeApp):
    """In the place of an estimate. Of whom nothing is known there is an empty column."""
    async with make().run_test(size=MEDIUM) as pilot:
        await opened(pilot)
        found = [entry.split() for entry in lines(pilot.app)]
        assert found[1][-7:] == ["reasoning", "fits", "41", "tok/s", "84", "%", "alike"]
        assert found[2][-1] == "fits"
        assert found[4][-4:] == ["fits", "99", "%", "alike"]
        assert found[5][-2:] == ["~0.8", "tok/s"]
        options = pilot.app.screen.query_one(OptionList)
        widths = [option.prompt.cell_length for option in options.options]
        assert max(widths) <= options.scrollable_content_region.width


async def test_where_there_is_little_room_the_words_below_tell_it(make: MakeApp):
    async with make().run_test(size=SMALL) as pilot:
        await opened(pilot)
        assert lines(pilot.app)[1].endswith("fits")
        assert (
            "Thinks before it answers. Fits, with up to 24,576 tokens of context in the 6.2 GB of memory "
            "that is free. Measured here: 41 tokens/s. Goes on as the original does in 84 % of places "
            "(KL 0.070 +- 0.004). 97 of 100 answers right (sums)."
        ) in note(pilot.app)
        assert "about" not in note(pilot.app)
        await choose(pilot, SHIPPED.name)
        assert "Goes on as the original does in 99 % of places (KL 0.001 +- 0.004)." in note(pilot.app)
        assert "Measured here" not in note(pilot.app)


def test_names_keep_their_room_where_nothing_is_known():
    fit = Fit("fits", "Fits.", 7.4)
    wide = [str(line(R1, fit, None, False, 89, alike=alike)) for alike in (False, True)]
    assert [text.index("Q4_K_M") for text in wide] == [38, 26]
    assert wide[0].endswith("~7 tok/s")


async def test_what_others_wrote_into_figures_stays_words(make: MakeApp, shelf: FakeShelf):
    evil = known(loss=loss(reference="\x1b[31m[bold]F16\n"))
    shelf.all_of_them[0] = msgspec.structs.replace(R1, figures=evil)
    async with make().run_test(size=MEDIUM) as pilot:
        await opened(pilot)
        assert "\x1b" not in note(pilot.app)
        assert "[bold]F16" in note(pilot.app)


Script = Callable[[Pilot[None]], Awaitable[None]]


@pytest.fixture(params=[SMALL, MEDIUM], ids=["80x24", "120x40"])
def size(request: pytest.FixtureRequest) -> tuple[int, int]:
    found: tuple[int, int] = request.param
    return found


def test_how_the_models_look(snap_compare, make: MakeApp, size: tuple[int, int]):
    async def script(pilot: Pilot[None]) -> None:
        await opened(pilot)

    assert snap_compare(make(), terminal_size=size, run_before=script)


# ----------------------------------------------------------------------------------------------- the types


BASE = "deepseek-r1:7b"


def of_type(file_type: str, size: int, figures: Figures | None) -> ModelEntry:
    name = f"{BASE}:{file_type.lower()}"
    named = msgspec.structs.replace(LARGE_R1, base=BASE, title=R1.title, origin="the hub: maker/R1-GGUF")
    more = {"publisher_bytes": 15_231_000_000, "download": size}
    return msgspec.structs.replace(
        named, name=name, file_type=file_type, size=size, figures=figures, ready=False, **more
    )


def compared() -> list[ModelEntry]:
    """As `quantize --compare` may have found: IQ4_XS is smaller and faster than Q4_K_M, and as exact."""
    return [
        of_type("Q8_0", 8_098_000_000, known(size=8_098, loss=loss(0.005, top1=0.95), speed=speed(22))),
        of_type("Q4_K_M", 4_683_000_000, known(size=4_683, loss=loss(0.070), speed=speed(35))),
        of_type("IQ4_XS", 4_222_000_000, known(size=4_222, loss=loss(0.074, top1=0.83), speed=speed(44))),
        of_type("Q2_K", 3_015_000_000, None),
    ]


async def choosing(pilot: Pilot[None], shelf: FakeShelf, types: list[ModelEntry]) -> TypesScreen:
    shelf.types_of[BASE] = types
    shelf.all_of_them[0] = msgspec.structs.replace(R1, base=BASE, figures=ALL)
    await opened(pilot)
    await pilot.press("f6")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, TypesScreen) and pilot.app.screen.is_mounted)
    await settled(pilot)
    screen = pilot.app.screen
    assert isinstance(screen, TypesScreen)
    screen._usual = "Q4_K_M"
    screen.query_one(OptionList).highlighted = 1
    await settled(pilot)
    return screen


async def test_no_type_is_recommended_that_another_dominates(make: MakeApp, shelf: FakeShelf):
    async with make().run_test(size=SMALL) as pilot:
        screen = await choosing(pilot, shelf, compared())
        assert screen.recommended == "IQ4_XS"
        said = "IQ4_XS is smaller and faster here, and loses no more within the errors."
        await wait_until(pilot, lambda: said in note(pilot.app))
        assert "Measured here: 35 tokens/s. Goes on as the original does in 84 % of places" in note(pilot.app)


async def test_what_does_not_fit_dominates_nothing(make: MakeApp, shelf: FakeShelf):
    shelf.fits[f"{BASE}:iq4_xs"] = Fit("too large", "Said.")
    async with make().run_test(size=SMALL) as pilot:
        screen = await choosing(pilot, shelf, compared())
        assert screen.recommended == "Q4_K_M"


async def test_what_was_not_measured_stays_recommended(make: MakeApp, shelf: FakeShelf):
    types = compared()
    types[1] = msgspec.structs.replace(types[1], figures=None)
    async with make().run_test(size=SMALL) as pilot:
        screen = await choosing(pilot, shelf, types)
        assert screen.recommended == "Q4_K_M"
        assert "loses no more" not in note(pilot.app)


def test_how_the_types_look(snap_compare, make: MakeApp, shelf: FakeShelf, size: tuple[int, int]):
    async def script(pilot: Pilot[None]) -> None:
        shelf.types_of[BASE] = compared()
        shelf.types_of[BASE][1] = msgspec.structs.replace(shelf.types_of[BASE][1], name=BASE)
        there = {"place": "available", "fetchable": True, "figures": ALL}
        shelf.all_of_them[0] = msgspec.structs.replace(R1, base=BASE, **there)
        await opened(pilot)
        await choose(pilot, BASE)
        await pilot.press("f6")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, TypesScreen))
        await wait_until(pilot, lambda: any("recommended" in line for line in lines(pilot.app)))
        await settled(pilot)

    assert snap_compare(make(), terminal_size=size, run_before=script)


# ----------------------------------------------------------------------------- types that are to be made here


def in_forecast() -> dict[str, Figures]:
    """Of two types of the forecast: the smaller one is faster, and loses no more."""
    return {
        "Q8_0": known(file_type="Q8_0", size=8_098, loss=loss(0.005, top1=0.95), speed=speed(22)),
        "Q4_K_M": known(file_type="Q4_K_M", size=4_683, loss=loss(0.006), speed=speed(35)),
    }


async def quantizing(pilot: Pilot[None]) -> None:
    await pilot.press("f6")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuantizeScreen))
    await wait_until(pilot, lambda: any("recommended" in line for line in lines(pilot.app)))


async def test_quantizing_tells_what_was_measured(make: MakeApp, shelf: FakeShelf):
    shelf.measured = in_forecast()
    async with make().run_test(size=SMALL) as pilot:
        await opened(pilot)
        await quantizing(pilot)
        found = {line.split()[0]: line.split() for line in lines(pilot.app)}
        assert found["Q8_0"][3:] == ["fits", "22", "tok/s", "95", "%", "alike"]
        assert found["Q4_K_M"][-1] == "recommended"
        assert found["BF16"][-1] == "large"
        options = pilot.app.screen.query_one(OptionList)
        widths = [option.prompt.cell_length for option in options.options]
        assert max(widths) <= options.scrollable_content_region.width
        await wait_until(pilot, lambda: "Measured here: 35 tokens/s." in note(pilot.app))


async def test_quantizing_recommends_no_type_that_another_dominates(
    make: MakeApp, shelf: FakeShelf, jobs: FakeJobs
):
    shelf.measured = in_forecast()
    jobs.will_forecast = msgspec.structs.replace(FORECAST, recommended=Recommended("Q8_0", "the usual"))
    async with make().run_test(size=SMALL) as pilot:
        await opened(pilot)
        await quantizing(pilot)
        [best] = [line for line in lines(pilot.app) if "recommended" in line]
        assert best.startswith("Q4_K_M")
        said = "Recommended: Q4_K_M is smaller and faster here, and loses no more within the errors."
        await wait_until(pilot, lambda: said in note(pilot.app))
        shelf.measured = {}
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen))
        await quantizing(pilot)
        [best] = [line for line in lines(pilot.app) if "recommended" in line]
        assert best.startswith("Q8_0")


# ----------------------------------------------------------------------------------------------- the shelf


@pytest.fixture
def store(nano: Path) -> Store:
    store = Store()
    store.add(nano, "r1-nano", source=Builtin(checkpoint="r1-nano"))
    return store


def by_name(entries: object) -> dict[str, ModelEntry]:
    assert isinstance(entries, list)
    return {entry.name: entry for entry in entries}


def test_the_shelf_tells_what_was_measured(store: Store):
    sha256 = store.get("r1-nano").sha256
    measured.keep(known(sha256, speed=speed(41.4)))
    entry = by_name(StoreShelf(store).all())["r1-nano"]
    assert entry.tokens_per_s == 41.4
    assert entry.likeness == find("r1-nano").measured[0].loss.top1  # type: ignore[union-attr]
    assert by_name(StoreShelf(store).all())["r1:7b"].figures is None


def test_the_shelf_tells_what_the_catalogue_knows_of_what_is_not_here():
    entry = by_name(StoreShelf(Store()).all())["r1-nano"]
    assert not entry.installed
    assert entry.likeness is not None
    assert entry.tokens_per_s == 0


@pytest.fixture
def own(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """The digest of what a catalogue has ready-made as Q8_0; all else is made of its publisher's weights."""
    sha256 = "e" * 64
    path = tmp_path / "models.toml"
    path.write_text(OWN.format(sha256=sha256), "utf-8")
    monkeypatch.setenv("LOCALAI_CATALOG", str(path))
    return sha256


OWN = """
[[model]]
name = "acme:7b"
title = "Acme"
type = "Q4_K_M"
types = ["Q8_0", "Q4_K_M", "Q2_K"]
reasoning = true
license = "MIT"
parameters = 7000
context = 2048

[model.checkpoint]
kind = "hub-checkpoint"
repository = "acme/seven"
revision = "916b56a44061fd5cd7d6a8fb632557ed4f724f60"

[[model.file]]
type = "Q8_0"

[model.file.source]
kind = "url"
url = "https://models.acme.example/q8_0.gguf"
sha256 = "{sha256}"
"""


def test_types_that_are_made_here_are_told_by_what_was_made_of_the_same_weights(
    store: Store, nano: Path, own: str
):
    made = Checkpoint(
        path="", repository="acme/seven", revision="916b56a44061fd5cd7d6a8fb632557ed4f724f60", program="1"
    )
    here = store.add(nano, "acme:7b", source=made).sha256
    measured.keep(known(here, loss=loss(), speed=speed(46)))
    measured.keep(known("2" * 64, file_type="Q2_K", loss=loss(0.9, top1=0.6), speed=speed(60)))
    measured.keep(known("8" * 64, file_type="Q8_0", loss=loss(0.01), speed=speed(20)))
    found = by_name(StoreShelf(store).types("acme:7b"))
    assert (found["acme:7b"].tokens_per_s, found["acme:7b:q2_k"].likeness) == (46, 0.6)
    assert found["acme:7b:q8_0"].figures is None  # somebody else has made it
    measured.keep(known(own, file_type="Q8_0", speed=speed(19)))
    assert by_name(StoreShelf(store).types("acme:7b"))["acme:7b:q8_0"].tokens_per_s == 19


def test_types_are_not_told_by_what_was_made_of_other_weights(store: Store, nano: Path, own: str):
    made = Checkpoint(path="/some/folder", program="1")
    here = store.add(nano, "acme:7b", source=made).sha256
    measured.keep(known(here, loss=loss(), speed=speed(46)))
    measured.keep(known("2" * 64, file_type="Q2_K", loss=loss(0.9)))
    assert not any(entry.figures for entry in StoreShelf(store).types("acme:7b"))


def test_types_of_the_same_weights_are_known_by_any_of_them(store: Store):
    original = "a" * 64
    here = store.get("r1-nano").sha256
    told = {one.file_type for one in find("r1-nano").measured}
    assert StoreShelf(store).measured_types("r1-nano").keys() == told
    measured.keep(known(here, file_type="Q8_0", loss=loss(0.001, original=original)))
    measured.keep(known("2" * 64, file_type="Q2_K", loss=loss(0.9, original=original)))
    measured.keep(known("3" * 64, file_type="Q3_K_M", loss=loss(0.1, original=original), imatrix=True))
    measured.keep(known("4" * 64, file_type="Q4_0", loss=loss(0.1, original="f" * 64)))
    measured.keep(known("5" * 64, file_type="Q5_0", loss=loss(0.1, original="")))
    assert StoreShelf(store).measured_types("r1-nano").keys() == {"Q8_0", "Q2_K"}


# ------------------------------------------------------------------------------------------- the first run


def test_the_first_run_asks_with_what_the_catalogue_knows():
    from localai.cli import first_run

    asked: Questions = first_run.questions(model=True, protection=False, starter=True)
    shipped = {entry.name: entry for entry in asked.models}["r1-nano"]
    assert shipped.likeness is not None


async def test_the_first_run_tells_it():
    from textual.app import App, ComposeResult
    from textual.widgets import Static

    from tui.widgets.model_question import ModelQuestion

    shipped = msgspec.structs.replace(SHIPPED, figures=ALL, download=4_000_000)

    class Host(App[None]):
        def compose(self) -> ComposeResult:
            yield ModelQuestion([shipped, STARTER], {SHIPPED.name: Fit("fits", "Fits.", 900.0)}, None)

    async with Host().run_test(size=SMALL) as pilot:
        await pilot.pause()
        shown = " ".join(str(widget.visual) for widget in pilot.app.query(Static))
        assert "Measured here: 41 tokens/s. Goes on as the original does in 84 % of places. 97 of" in shown
        first = str(pilot.app.query_one(OptionList).get_option_at_index(0).prompt)
        assert " 41 tok/s" in first
        assert "~" not in first
