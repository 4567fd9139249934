"""What a user sees of the policy: what is managed, by which file, and why something is not there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest
from chat_fakes import R1, FakeEngine, QuietJobs
from conftest import NOON, wait_until
from models_fakes import lines, opened
from textual.pilot import Pilot
from textual.widgets import OptionList, Static

from localai import policy
from localai.chat.conversation import Conversation, Message
from localai.cli import first_run
from localai.errors import EngineError, PolicyError
from localai.history import History, key
from models.origins import HubFile, LocalFile, RemoteFile
from models.store import Store
from tests.localai.policies import CONTACT, enforce
from tui.about import policy_words
from tui.app import ChatApp
from tui.first_run import FirstRunApp
from tui.preferences import Preferences
from tui.screens.about import AboutScreen
from tui.screens.export import ExportScreen
from tui.screens.models_page import NOT_FETCHED
from tui.screens.settings import SettingsScreen
from tui.shelf import NOT_LISTED, StoreShelf
from tui.widgets.model_question import ModelQuestion
from tui.widgets.protection_question import ProtectionQuestion

MakeApp = Callable[..., ChatApp]
NO_PULL = "[forbid]\npull = true\n"
RETENTION = "[require]\nretention_days = 60\n"


def talk(history: History, days: float = 0) -> Conversation:
    then = NOON - days * 86_400
    conversation = Conversation(created=then)
    conversation.append(Message(parent=None, role="user", content="a question", created=then))
    conversation.updated = then
    history.save(conversation)
    return conversation


def texts(app: ChatApp | FirstRunApp) -> str:
    return " ".join(str(one.visual) for one in app.screen.query(Static)).replace("\n", " ")


def notices(app: ChatApp) -> str:
    return "\n".join(notification.message for notification in app._notifications)


async def settings(pilot: Pilot[None]) -> list[str]:
    await pilot.press("f2")
    await wait_until(pilot, lambda: isinstance(pilot.app.screen, SettingsScreen) and lines(pilot.app))
    return lines(pilot.app)


# -------------------------------------------------------------------------------------------- settings


async def test_settings_show_what_is_managed(
    make_app: MakeApp, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, RETENTION + NO_PULL)
    async with make_app().run_test(size=(120, 40)) as pilot:
        shown = await settings(pilot)
        assert "‹ 60 days after their last change, as your organization wants it ›" in shown[3]
        assert "Managed by your organization" in texts(pilot.app)
        assert "no model is fetched" in texts(pilot.app)
        await pilot.press("down", "down", "down", "right")
        assert "30 days" in lines(pilot.app)[3]  # less may be chosen, more not
        await pilot.press("right")
        assert "7 days" in lines(pilot.app)[3]
        await pilot.press("right")
        assert "60 days" in lines(pilot.app)[3]


async def test_without_a_policy_nothing_is_said_of_one(make_app: MakeApp) -> None:
    async with make_app().run_test(size=(120, 40)) as pilot:
        assert "for ever" in (await settings(pilot))[3]
        assert "organization" not in texts(pilot.app)


async def test_settings_cannot_keep_anything_in_incognito(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, "[require]\nincognito = true\n")
    with History(memory=True) as memory:
        app = make_app(kept="memory")
        app.session.history = memory
        async with app.run_test(size=(120, 40)) as pilot:
            assert "‹ never, as your organization wants it ›" in (await settings(pilot))[3]
            await pilot.press("down", "down", "down", "right")
            assert "never" in lines(pilot.app)[3]


def test_a_stored_setting_is_not_longer_than_allowed(
    history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    history.set_setting("keep_days", "365")
    assert Preferences(history).keep_days == 365
    enforce(tmp_path, monkeypatch, RETENTION)
    preferences = Preferences(history)
    assert (preferences.keep_days, preferences.keep_choices) == (0, (0, 30, 7))
    with pytest.raises(PolicyError, match=r"require\.retention_days"):
        preferences.set_keep_days(365)
    assert history.setting("keep_days") == "365"


# ------------------------------------------------------------------------------------------------ about


class Silent(FakeEngine):
    """An engine that says nothing of itself."""

    async def describe(self) -> NoReturn:
        raise EngineError("it is silent")


@pytest.mark.parametrize("engine", [Silent()])
async def test_about_tells_the_policy_and_its_file(
    engine: Silent, make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert policy_words() == ""
    path = enforce(tmp_path, monkeypatch, NO_PULL)
    async with make_app().run_test(size=(120, 60)) as pilot:
        await pilot.press("f6")
        await wait_until(
            pilot, lambda: isinstance(pilot.app.screen, AboutScreen) and "SHA" in texts(pilot.app)
        )
        shown = texts(pilot.app)
    for text in ("no model is fetched", f"questions go to {CONTACT}", policy.fingerprint(), path.name):
        assert text in shown


# ----------------------------------------------------------------------------------- export, incognito


@pytest.mark.parametrize("letter", "xX")
async def test_x_says_why_nothing_is_exported(
    letter: str, make_app: MakeApp, history: History, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    talk(history)
    enforce(tmp_path, monkeypatch, "[forbid]\nexport = true\n")
    async with make_app().run_test() as pilot:
        await pilot.press("ctrl+b", "down", letter)
        await wait_until(pilot, lambda: "forbid.export" in notices(pilot.app))
        assert not isinstance(pilot.app.screen, ExportScreen)


async def test_f7_does_not_leave_incognito(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, "[require]\nincognito = true\n")
    with History(memory=True) as memory:
        app = make_app(kept="memory")
        app.session.history = memory
        async with app.run_test() as pilot:
            await pilot.press("f7")
            await wait_until(pilot, lambda: "as your organization wants it" in notices(pilot.app))
            assert (app.session.kept, app.session.history) == ("memory", memory)


# ----------------------------------------------------------------------------------------------- models


def test_the_shelf_offers_only_what_needs_no_network(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    source = HubFile(repository="a/b", revision="0" * 40, files=(RemoteFile(path="x.gguf"),))
    store.add(nano, "r1:7b", source=source)
    store.add(nano, "mine", source=LocalFile(path=str(nano)))
    shelf = StoreShelf(store)
    before = {one.name: one for one in shelf.all()}
    assert before["r1:7b"].fetchable
    assert {"r1:14b", "smollm2:135m"} < set(before)
    assert len(shelf.types("r1:7b")) > 1
    with store.fetching("0" * 64, "r1:14b", 100, lambda other: None, "pull r1:14b") as folder:
        (folder / "x.part").write_bytes(b"12345")
    enforce(tmp_path, monkeypatch, NO_PULL)
    after = {one.name: one for one in shelf.all()}
    assert set(after) - {"r1:14b"} == {"r1:7b", "mine", "r1-nano"}
    assert not after["r1:7b"].fetchable
    assert after["r1-nano"].fetchable
    assert shelf.types("r1:7b") == []
    assert shelf.types("r1-nano") != []
    begun = after["r1:14b"]  # it can be thrown away, and does not go on
    assert (begun.fetchable, begun.words) == (False, ())


def test_the_shelf_marks_what_is_not_on_the_list(
    nano: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = Store()
    store.add(nano, "mine", source=LocalFile(path=str(nano)))
    enforce(tmp_path, monkeypatch, "[models]\nallow = []\n")
    (entry,) = StoreShelf(store).entries()
    assert entry.note == NOT_LISTED


async def test_the_models_screen_says_why_there_is_no_more(
    make_app: MakeApp, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with make_app().run_test() as pilot:
        await opened(pilot)
        assert NOT_FETCHED not in lines(pilot.app)
    enforce(tmp_path, monkeypatch, NO_PULL)
    async with make_app(jobs=QuietJobs()).run_test(size=(120, 40)) as pilot:
        await opened(pilot)
        assert lines(pilot.app)[-1] == NOT_FETCHED
        assert pilot.app.screen.query_one(OptionList).highlighted_option.id == R1.name
        await pilot.press(*"owner/name")
        await wait_until(pilot, lambda: "lets no model be fetched" in texts(pilot.app))
        assert "models pull" not in texts(pilot.app)


# -------------------------------------------------------------------------------------------- first run


def asked(**what: bool) -> FirstRunApp:
    return FirstRunApp(first_run.questions(starter=True, **what), first_run.protect)


async def test_the_first_run_offers_no_plain_history(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHON_KEYRING_BACKEND", "keyring.backends.fail.Keyring")
    for text in ("[require]\nencryption = true\n", "[forbid]\nplain_history = true\n"):
        enforce(tmp_path, monkeypatch, text, f"{len(text)}.toml")
        async with asked(model=False, protection=True).run_test() as pilot:
            options = pilot.app.screen.query_one(ProtectionQuestion).query_one(OptionList).options
            assert [option.id for option in options] == ["passphrase", "memory"]
        with pytest.raises(PolicyError):
            first_run.protect("plain", "")
    assert key.protection() is None


async def test_the_first_run_offers_no_model_that_cannot_be_had(
    home: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    enforce(tmp_path, monkeypatch, NO_PULL)
    async with asked(model=True, protection=False).run_test(size=(120, 40)) as pilot:
        options = pilot.app.screen.query_one(ModelQuestion).query_one(OptionList).options
        assert [option.id for option in options] == ["r1-nano"]
        assert "Your organization lets no model be fetched" in texts(pilot.app)
