"""The models screen: removing and bringing back, what others have, other types, fetches that go on."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import msgspec
import pytest
from chat_fakes import R1, STARTER, FakeShelf
from conftest import NOON, wait_until
from models_fakes import (
    IN_LM_STUDIO,
    IN_OLLAMA,
    LARGE_R1,
    MEDIUM,
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
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from localai.errors import ModelError, StoreError
from models.incoming import Unfinished
from tui.fitting import Fit
from tui.model_entry import ModelEntry, of_unfinished
from tui.screens.models import ModelsScreen
from tui.screens.quantize import QuantizeScreen
from tui.screens.question import QuestionScreen
from tui.screens.types import TypesScreen


@pytest.fixture
def shelf() -> FakeShelf:
    return four_models()


@pytest.fixture
def jobs() -> FakeJobs:
    return FakeJobs()


@pytest.fixture
def make(make_app: MakeApp, jobs: FakeJobs) -> MakeApp:
    return lambda **changes: make_app(jobs=jobs, **changes)


# ----------------------------------------------------------------------------------------------- remove


HELD = msgspec.structs.replace(STARTER, frees=98_362_432)


async def removed(pilot: Pilot[None], name: str = STARTER.name) -> None:
    """The models screen, after Delete was pressed at that model."""
    await opened(pilot)
    await choose(pilot, name)
    await pilot.press("end", "delete")
    await settled(pilot)


async def test_what_can_be_undone_needs_no_question(make: MakeApp, shelf: FakeShelf):
    shelf.all_of_them[1] = HELD
    async with make().run_test() as pilot:
        app = pilot.app
        await removed(pilot)
        assert [entry.name for entry in shelf.entries()] == [R1.name]
        said = "Removed smollm2:135m. Ctrl+Z brings it back; its 98 MB are freed by F8."
        await wait_until(pilot, lambda: said in notices(app))
        app.screen.query_one(Input).value = ""
        await wait_until(pilot, lambda: "Removed: 98 MB until F8 frees them" in lines(app))
        assert lines(app)[-1].split() == ["smollm2:135m", "Q4_1", "98", "MB", "plain", "removed"]
        await pilot.press("ctrl+z")
        await settled(pilot)
        assert {entry.name for entry in shelf.entries()} == {R1.name, STARTER.name}
        assert "smollm2:135m is back." in notices(app)
        assert app.screen.query_one(OptionList).highlighted_option.id == STARTER.name


async def test_enter_brings_back_what_was_removed(make: MakeApp, shelf: FakeShelf):
    shelf.all_of_them[1] = msgspec.structs.replace(HELD, place="removed", frees=0)
    async with make().run_test() as pilot:
        await opened(pilot)
        await pilot.press("end", *"removed")
        await wait_until(pilot, lambda: "Enter brings it back · F8 frees" in keys(pilot.app))
        assert "It takes no space that would become free." in note(pilot.app)
        await pilot.press("delete", "enter")
        await settled(pilot)
        assert {entry.name for entry in shelf.entries()} == {R1.name, STARTER.name}


async def test_what_is_removed_may_be_here_by_the_same_name(make: MakeApp, shelf: FakeShelf):
    shelf.all_of_them.append(msgspec.structs.replace(R1, place="removed", frees=7))
    async with make().run_test() as pilot:
        await opened(pilot)
        pilot.app.screen.query_one(Input).value = R1.name
        await wait_until(pilot, lambda: len(lines(pilot.app)) == 4)
        assert [line.split()[0] for line in lines(pilot.app)] == ["Installed", "●", "Removed:", R1.name]


async def test_freeing_asks_once(make: MakeApp, shelf: FakeShelf):
    shelf.all_of_them[1] = msgspec.structs.replace(HELD, place="removed")
    shelf.unfinished = 3_000_000
    async with make().run_test() as pilot:
        app = pilot.app
        await opened(pilot)
        await pilot.press("f8")
        await wait_until(pilot, lambda: isinstance(app.screen, QuestionScreen))
        assert "smollm2:135m cannot be brought back afterwards: 98 MB become free." in note(app)
        assert "What has come of interrupted fetches is thrown away: 3 MB." in note(app)
        await pilot.press("enter")  # the careful answer has the keyboard
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        assert shelf.last_removed() == STARTER.name
        await pilot.press("f8")
        await wait_until(pilot, lambda: isinstance(app.screen, QuestionScreen))
        await pilot.press("y")
        await wait_until(pilot, lambda: "101 MB are free." in notices(app))
        assert not any("emoved" in line for line in lines(app))
        shelf.unfinished = 0
        await pilot.press("f8")
        await wait_until(pilot, lambda: "There is nothing to free" in note(app))


async def test_what_cannot_be_undone_asks(make: MakeApp, shelf: FakeShelf):
    shelf.all_of_them[1] = msgspec.structs.replace(STARTER, fault="Its manifest is damaged.", undoable=False)
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, STARTER.name)
        await pilot.press("end", "delete")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuestionScreen))
        assert "it cannot be brought back" in note(pilot.app)
        await pilot.press("escape")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, ModelsScreen))
        assert len(shelf.entries()) == 2
        await pilot.press("delete")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuestionScreen))
        await pilot.press("y")
        await wait_until(pilot, lambda: len(shelf.entries()) == 1)
        assert "Removed" not in notices(pilot.app)


async def test_a_model_of_a_shared_store_stays(make: MakeApp, shelf: FakeShelf):
    shelf.all_of_them[1] = msgspec.structs.replace(STARTER, shared=True)
    async with make().run_test() as pilot:
        await removed(pilot)
        assert "is in a shared store: whoever keeps that can remove it." in note(pilot.app)
        assert lines(pilot.app)[0] == "Installed, in a shared store"
        assert "Del" not in keys(pilot.app)
        assert len(shelf.entries()) == 2


async def test_the_model_in_use_is_not_removed(make: MakeApp, shelf: FakeShelf):
    async with make().run_test() as pilot:
        await opened(pilot)
        await pilot.press("delete")
        await wait_until(pilot, lambda: "deepseek-r1:7b is in use" in note(pilot.app))
        assert len(shelf.entries()) == 2


async def test_a_store_that_cannot_be_written(make: MakeApp, shelf: FakeShelf):
    shelf.will_change = StoreError("The folder cannot be written", "See its rights")
    async with make().run_test() as pilot:
        await removed(pilot)
        await wait_until(pilot, lambda: "The folder cannot be written. See its rights" in note(pilot.app))
        assert len(shelf.entries()) == 2


# -------------------------------------------------------------------------------------- found elsewhere


async def test_what_other_programs_hold_is_added_without_a_copy(
    make: MakeApp, shelf: FakeShelf, jobs: FakeJobs
):
    jobs.elsewhere = [IN_LM_STUDIO, IN_OLLAMA]
    async with make().run_test(size=SMALL) as pilot:
        app = pilot.app
        await opened(pilot)
        at = lines(app).index("Found on this machine") + 1
        assert lines(app)[at].split() == ["deepseek-r1:8b", "Q4_K_M", "4.9", "GB", "Ollama", "fits"]
        await choose(pilot, IN_OLLAMA.key, "deepseek-r1:8b")
        assert note(app).startswith("Ollama has it, as deepseek-r1:latest.")
        assert "It is added without a second copy" in note(app)
        assert keys(app) == "Enter adds it · Esc closes"
        await pilot.press("delete", "enter")
        assert jobs.asked == [("add", "deepseek-r1:8b")]
        jobs.last.tell("Checking", 10, 100)
        await wait_until(pilot, lambda: "Checking 10%" in lines(app)[-1])
        assert "Stopped, it keeps" not in note(app)
        shelf.all_of_them.append(msgspec.structs.replace(IN_OLLAMA, place="installed"))
        jobs.last.end.set()
        await wait_until(pilot, lambda: "Enter uses it" in keys(app))
        assert [line.split()[0] for line in lines(app)] == ["deepseek-r1:8b"]


async def test_what_cannot_be_used_stands_last_and_says_why(make: MakeApp, jobs: FakeJobs):
    jobs.elsewhere = [IN_LM_STUDIO]
    async with make().run_test() as pilot:
        await opened(pilot)
        assert lines(pilot.app)[-2] == "Found, but cannot be used here"
        await choose(pilot, IN_LM_STUDIO.key, "lm studio")
        assert "LM Studio has it, as gemma-3-4b. It cannot be used: its architecture" in note(pilot.app)
        await pilot.press("enter")
        assert jobs.asked == []
        assert keys(pilot.app) == "Esc closes"


async def test_a_checkpoint_of_another_program_is_quantized(make: MakeApp, jobs: FakeJobs):
    jobs.elsewhere = [msgspec.structs.replace(IN_OLLAMA, file_type="", path="/cache/snapshots/1")]
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, IN_OLLAMA.key, "ollama")
        assert "It is a checkpoint, /cache/snapshots/1" in note(pilot.app)
        await pilot.press("enter")
        await wait_until(pilot, lambda: isinstance(pilot.app.screen, QuantizeScreen))
        await wait_until(pilot, lambda: "Recommended" in note(pilot.app))
        await pilot.press("enter")
        await wait_until(pilot, lambda: jobs.running)
        assert jobs.asked[-1] == ("quantize", "/cache/snapshots/1", "Q4_K_M", "deepseek-r1-8b:q4_k_m")


async def test_what_is_found_later_leaves_the_choice_where_it_was(make: MakeApp, jobs: FakeJobs):
    gate = asyncio.Event()
    quick = jobs.discover

    async def discover() -> Sequence[ModelEntry]:
        await gate.wait()
        return await quick()

    jobs.discover = discover  # type: ignore[method-assign]
    jobs.elsewhere = [msgspec.structs.replace(IN_OLLAMA, name=LARGE_R1.name, base=LARGE_R1.name)]
    async with make().run_test() as pilot:
        app = pilot.app
        await wait_until(pilot, lambda: app.session.loader.state == "ready")
        await pilot.press("ctrl+o")
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen) and len(lines(app)) == 6)
        await choose(pilot, LARGE_R1.name)
        gate.set()
        await wait_until(pilot, lambda: "It is deepseek-r1:32b of the catalogue." in note(app))
        assert lines(app)[0] == "Found on this machine"  # and need not be fetched
        assert len(lines(app)) == 2


async def test_who_cannot_be_asked_is_no_matter(make: MakeApp, jobs: FakeJobs):
    jobs.elsewhere = ModelError("The command stopped")
    async with make().run_test() as pilot:
        await opened(pilot)
        assert len(lines(pilot.app)) == 6
        assert notices(pilot.app) == ""


# ------------------------------------------------------------------------------------------- other types


def types() -> list:
    large = msgspec.structs.replace(
        LARGE_R1, name="deepseek-r1:32b:q8_0", file_type="Q8_0", size=34_000_000_000
    )
    small = msgspec.structs.replace(
        LARGE_R1, name="deepseek-r1:32b:q2_k", file_type="Q2_K", size=12_300_000_000, ready=False
    )
    return [large, LARGE_R1, small]


async def choosing(pilot: Pilot[None], shelf: FakeShelf) -> None:
    shelf.types_of[LARGE_R1.name] = types()
    await opened(pilot)
    await choose(pilot, LARGE_R1.name)
    await pilot.press("f6")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, TypesScreen) and pilot.app.screen.is_mounted)
    await settled(pilot)


async def test_another_type_is_fetched(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    async with make().run_test(size=SMALL) as pilot:
        app = pilot.app
        await choosing(pilot, shelf)
        assert [line.split() for line in lines(app)] == [
            ["Q8_0", "34.0", "GB", "fits", "recommended"],
            ["Q4_K_M", "19.9", "GB", "too", "large", "~0.8", "tok/s"],
            ["Q2_K", "12.3", "GB", "fits", "made", "here"],
        ]
        assert "19.9 GB from the hub: bartowski/" in note(app)
        assert "F6 makes it here of its publisher's own weights, 65.5 GB" in note(app)
        await pilot.press("up", "enter")
        await wait_until(pilot, lambda: jobs.asked)
        assert jobs.asked == [("pull", "deepseek-r1:32b:q8_0")]
        await wait_until(pilot, lambda: isinstance(app.screen, ModelsScreen))
        await settled(pilot)
        assert app.screen.query_one(OptionList).highlighted_option.id == "deepseek-r1:32b:q8_0"
        assert "It begins" in note(app)


async def test_a_type_is_made_of_the_publishers_weights(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    async with make().run_test() as pilot:
        app = pilot.app
        await choosing(pilot, shelf)
        assert app.screen._box.border_subtitle == "Enter fetches it · F6 makes it here · Esc closes"
        await pilot.press("f6")
        await wait_until(pilot, lambda: jobs.asked == [("make", "deepseek-r1:32b:q4_k_m")])
        await pilot.press("f6")
        await wait_until(pilot, lambda: isinstance(app.screen, TypesScreen) and app.screen.is_mounted)
        await pilot.press("down")
        await wait_until(pilot, lambda: "Made here of its publisher's own weights" in note(app))
        await pilot.press("enter")  # nobody has that type ready-made
        await wait_until(pilot, lambda: jobs.asked[-1] == ("make", "deepseek-r1:32b:q2_k"))


async def test_a_type_that_is_here_is_not_fetched_again(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    shelf.all_of_them[3] = msgspec.structs.replace(LARGE_R1, place="installed")
    async with make().run_test() as pilot:
        await choosing(pilot, shelf)
        assert "deepseek-r1:32b is installed." in note(pilot.app)
        assert lines(pilot.app)[1].endswith("installed")
        await pilot.press("enter")
        assert isinstance(pilot.app.screen, TypesScreen)
        await pilot.press("escape")
        assert jobs.asked == []


@pytest.mark.parametrize(("fits", "wanted"), [((0, 1, 2), "Q4_K_M"), ((2,), "Q2_K"), ((), "")])
async def test_which_type_is_recommended(make: MakeApp, shelf: FakeShelf, fits: tuple[int, ...], wanted: str):
    for index, one in enumerate(types()):
        shelf.fits[one.name] = Fit("fits" if index in fits else "too large", "Said.")
    async with make().run_test() as pilot:
        await choosing(pilot, shelf)
        assert [line.split()[0] for line in lines(pilot.app) if "recommended" in line] == [wanted][
            : bool(wanted)
        ]


def test_how_the_types_look(snap_compare, make: MakeApp, shelf: FakeShelf):
    async def script(pilot: Pilot[None]) -> None:
        await choosing(pilot, shelf)

    assert snap_compare(make(), terminal_size=SMALL, run_before=script)


# -------------------------------------------------------------------------------- interrupted fetches


async def test_an_interrupted_fetch_goes_on(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    shelf.all_of_them[3] = msgspec.structs.replace(LARGE_R1, arrived=8_900_000_000)
    async with make().run_test(size=SMALL) as pilot:
        app = pilot.app
        await opened(pilot)
        await choose(pilot, LARGE_R1.name)
        assert lines(app)[-1].endswith("45% here")
        assert "8.9 GB of them are here already." in note(app)
        assert "Enter goes on" in keys(app)
        await pilot.press("enter")
        jobs.last.tell("Downloading", 9_000_000_000, LARGE_R1.size, 31_000_000)
        await wait_until(pilot, lambda: "19.9 GB, 31 MB/s, about 6 min left." in note(app))
        await pilot.press("ctrl+c")
        await wait_until(pilot, lambda: "Enter goes on" in keys(app))
        assert (jobs.last.state, jobs.asked) == ("stopped", [("pull", LARGE_R1.name)])


async def test_a_fetch_of_the_publishers_weights_goes_on_as_one(
    make: MakeApp, shelf: FakeShelf, jobs: FakeJobs
):
    shelf.all_of_them[3] = msgspec.structs.replace(
        LARGE_R1, arrived=1, from_source=True, words=("pull", "--from-source", LARGE_R1.name)
    )
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, LARGE_R1.name)
        assert "It is then made here of these." in note(pilot.app)
        await pilot.press("enter")
        assert jobs.asked == [("go on", "pull", "--from-source", LARGE_R1.name)]


async def test_a_fetch_of_what_is_not_in_the_catalogue_goes_on(
    make: MakeApp, shelf: FakeShelf, jobs: FakeJobs
):
    command = "pull acme/x --name mine"
    shelf.all_of_them[3] = of_unfinished(Unfinished("mine", 10_000_000, 5_000_000, command=command))
    async with make().run_test(size=MEDIUM) as pilot:
        await opened(pilot)
        await choose(pilot, "mine")
        assert f"5 MB of 10 MB are here. It was begun by: localai models {command}" in note(pilot.app)
        assert keys(pilot.app) == "Enter goes on · F8 throws it away · Esc closes"
        await pilot.press("enter")
        assert jobs.asked == [("go on", *command.split())]


async def test_a_type_whose_fetch_failed_can_be_tried_again(make: MakeApp, shelf: FakeShelf, jobs: FakeJobs):
    async with make().run_test(size=MEDIUM) as pilot:
        await choosing(pilot, shelf)
        await pilot.press("enter")
        await wait_until(pilot, lambda: jobs.asked)
        await settled(pilot)
        jobs.last.fail("There is no network")
        await wait_until(pilot, lambda: "The last attempt failed: There is no network" in note(pilot.app))
        assert notices(pilot.app) == ""
        await pilot.press("enter")
        assert jobs.asked == [jobs.asked[0]] * 2


async def test_a_fetch_that_nobody_here_began_says_how_it_goes_on(
    make: MakeApp, shelf: FakeShelf, jobs: FakeJobs
):
    shelf.all_of_them[3] = msgspec.structs.replace(LARGE_R1, arrived=5_000_000, fetchable=False)
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, LARGE_R1.name)
        assert "It goes on with the command that began it" in note(pilot.app)
        await pilot.press("enter")
        assert jobs.asked == []


# --------------------------------------------------------------------------------- what else is known


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"last_used": NOON - 86_400}, "Last used yesterday."),
        ({"sharing": "reference", "program": "Ollama"}, "Its file stays where Ollama has it"),
        ({"sharing": "hard link", "program": "Jan"}, "It is the same file as Jan's"),
        ({"shared": True}, "It is in a shared store, which is only read."),
    ],
)
async def test_what_an_installed_model_is(
    make: MakeApp, shelf: FakeShelf, changes: dict[str, object], said: str
):
    shelf.all_of_them[1] = msgspec.structs.replace(STARTER, **changes)
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, STARTER.name)
        assert said in note(pilot.app)


async def test_what_is_said_of_one_that_can_be_had(make: MakeApp):
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, LARGE_R1.name)
        assert "19.9 GB to download from the hub: bartowski/" in note(pilot.app)
        # What that licence asks for stands in full where a type is chosen.
        assert note(pilot.app).endswith("Licence: MIT. Derived from Qwen2.5, which is under Apache-2.0.")


async def test_nothing_that_a_file_says_reaches_the_terminal_as_a_command(make: MakeApp, jobs: FakeJobs):
    jobs.elsewhere = [msgspec.structs.replace(IN_OLLAMA, title="a\x1b[2Jb", program="Ol\x1blama")]
    async with make().run_test() as pilot:
        await opened(pilot)
        await choose(pilot, IN_OLLAMA.key, "found")
        assert "as a[2Jb." in note(pilot.app)
        assert not any("\x1b" in line for line in [*lines(pilot.app), note(pilot.app)])
