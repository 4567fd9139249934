"""The list of conversations and the keyboard: whatever comes first, keys reach what they are meant for."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from conftest import NOON, wait_until
from textual.app import App, ComposeResult
from textual.pilot import Pilot
from textual.widgets import Input, OptionList

from localai.chat.conversation import Conversation, Message
from localai.history import History, Summary
from tui.app import ChatApp
from tui.screens.chat import ChatScreen
from tui.widgets.composer import Composer
from tui.widgets.conversation_list import ConversationList

MakeApp = Callable[..., ChatApp]
THREE = [Summary(id=name, title=name, model="", updated=NOON, message_count=1) for name in ("a", "b", "c")]


class Host(App[None]):
    """The list and a field beside it, which has the keyboard first."""

    AUTO_FOCUS = "#other"

    def __init__(self) -> None:
        super().__init__()
        self.sidebar = ConversationList()
        self.other = Input(id="other")
        self.opened: list[str] = []

    def compose(self) -> ComposeResult:
        yield self.other
        yield self.sidebar

    def on_conversation_list_opened(self, event: ConversationList.Opened) -> None:
        self.opened.append(event.conversation_id)

    def on_conversation_list_renamed(self) -> None:
        self.list_them("a")

    @property
    def list(self) -> OptionList:
        return self.sidebar.query_one(OptionList)

    @property
    def chosen(self) -> str | None:
        option = self.list.highlighted_option
        return option.id if option is not None else None

    def list_them(self, current: str = "", without: str = "") -> None:
        self.sidebar.show([one for one in THREE if one.id != without], current, NOON)


async def opens(pilot: Pilot[None], name: str) -> None:
    await pilot.press("enter")
    assert pilot.app.opened == [name]


# ---------------------------------------------------------------------------------- what comes first


async def test_the_conversations_come_after_the_keyboard() -> None:
    async with Host().run_test() as pilot:
        pilot.app.sidebar.focus_list()
        await pilot.pause()
        pilot.app.list_them()
        await opens(pilot, "a")


async def test_the_conversations_come_while_the_keyboard_is_on_its_way() -> None:
    async with Host().run_test() as pilot:
        pilot.app.sidebar.focus_list()
        pilot.app.list_them()
        await opens(pilot, "a")


async def test_the_conversations_come_anew_while_the_keyboard_is_on_its_way() -> None:
    async with Host().run_test() as pilot:
        pilot.app.list_them()
        pilot.app.sidebar.focus_list()
        pilot.app.list_them()
        await opens(pilot, "a")


async def test_the_keyboard_comes_after_the_conversations() -> None:
    async with Host().run_test() as pilot:
        pilot.app.list_them()
        assert pilot.app.chosen is None  # nobody is there to choose
        pilot.app.list.focus()
        await opens(pilot, "a")


async def test_an_empty_list_has_nothing_to_choose() -> None:
    async with Host().run_test() as pilot:
        pilot.app.sidebar.show([], "", NOON)
        pilot.app.sidebar.focus_list()
        await pilot.press("enter", "d", "r")
        assert (pilot.app.list.highlighted, pilot.app.opened) == (None, [])


# -------------------------------------------------------------------------------- which one it is


@pytest.mark.parametrize("keyboard_first", [True, False])
async def test_the_open_conversation_is_highlighted(keyboard_first: bool) -> None:
    async with Host().run_test() as pilot:
        steps = [pilot.app.sidebar.focus_list, lambda: pilot.app.list_them("b")]
        for step in steps if keyboard_first else reversed(steps):
            step()
        await opens(pilot, "b")


async def test_the_users_own_choice_stays() -> None:
    async with Host().run_test() as pilot:
        pilot.app.list_them("b")
        pilot.app.sidebar.focus_list()
        await pilot.press("down")
        pilot.app.list_them("b")
        assert pilot.app.chosen == "c"
        pilot.app.other.focus()
        await pilot.pause()
        pilot.app.list_them("b")
        assert pilot.app.chosen == "b"


async def test_who_comes_back_finds_the_choice_that_is_shown() -> None:
    async with Host().run_test() as pilot:
        pilot.app.list_them("b")
        pilot.app.sidebar.focus_list()
        await pilot.press("down")
        pilot.app.other.focus()
        await pilot.pause()
        pilot.app.sidebar.focus_list()
        pilot.app.list_them("b")  # the list does not know yet that it has the keyboard
        await opens(pilot, "c")


async def test_what_is_renamed_stays_the_choice() -> None:
    async with Host().run_test() as pilot:
        pilot.app.list_them("a")
        pilot.app.sidebar.focus_list()
        await pilot.press("down", "r")
        field = pilot.app.sidebar.query_one(".rename", Input)
        await wait_until(pilot, lambda: field.has_focus)
        await pilot.press("x", "enter")
        assert pilot.app.chosen == "b"


async def test_behind_a_deletion_nothing_is_chosen_by_itself() -> None:
    """Else a key that is held down would delete one conversation after the other."""
    async with Host().run_test() as pilot:
        pilot.app.list_them()
        pilot.app.sidebar.focus_list()
        await pilot.press("d")
        pilot.app.list_them(without="a")
        assert pilot.app.chosen is None
        pilot.app.list_them()  # it was brought back
        await opens(pilot, "a")


async def test_behind_a_search_it_is_the_open_one_again() -> None:
    async with Host().run_test() as pilot:
        pilot.app.list_them("c")
        pilot.app.sidebar.action_search()
        await pilot.press("b")
        await wait_until(pilot, lambda: pilot.app.chosen == "b")
        assert pilot.app.sidebar.leave()
        assert pilot.app.sidebar.has_focus_within
        await opens(pilot, "c")


async def test_behind_a_search_the_users_own_choice_stays() -> None:
    async with Host().run_test() as pilot:
        pilot.app.list_them("c")
        pilot.app.sidebar.action_search()
        await pilot.press("b")
        await wait_until(pilot, lambda: pilot.app.chosen == "b")
        await pilot.press("down")
        assert pilot.app.sidebar.leave()
        await opens(pilot, "b")


# ---------------------------------------------------------------------------- keys in quick succession


def store(history: History) -> Conversation:
    conversation = Conversation(created=NOON, updated=NOON)
    conversation.append(Message(parent=None, role="user", content="question", created=NOON))
    history.save(conversation)
    return conversation


def type_at_once(app: App[None], *keys: str) -> None:
    """All of them, before the application has taken the first."""
    for key in keys:
        app.simulate_key(key)


@pytest.mark.parametrize("width", [100, 140])
async def test_enter_right_behind_ctrl_b_opens(make_app: MakeApp, history: History, width: int) -> None:
    one = store(history)
    app = make_app()
    async with app.run_test(size=(width, 30)) as pilot:
        type_at_once(app, "ctrl+b", "enter")
        await wait_until(pilot, lambda: app.session.conversation.id == one.id)


async def test_letters_right_behind_the_second_ctrl_b_are_text(make_app: MakeApp, history: History) -> None:
    """In the list, D deletes and P pins."""
    store(history)
    app = make_app()
    async with app.run_test(size=(100, 30)) as pilot:
        await pilot.press("ctrl+b")
        type_at_once(app, "ctrl+b", "d", "p")
        await wait_until(pilot, lambda: app.query_one(Composer).text == "dp")
        assert [one.pinned for one in history.summaries()] == [False]


class Early(ChatScreen):
    """A chat whose user types while it opens."""

    keys: tuple[str, ...] = ()

    async def _show_conversation(self) -> None:
        type_at_once(self.app, *self.keys)
        self.keys = ()
        taken = asyncio.Event()
        self.app.call_later(taken.set)
        await taken.wait()
        await super()._show_conversation()


@pytest.fixture
def early(make_app: MakeApp, monkeypatch: pytest.MonkeyPatch) -> ChatApp:
    monkeypatch.setattr("tui.app.ChatScreen", Early)
    return make_app()


async def test_what_is_typed_while_the_chat_opens_is_in_the_composer(
    early: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Early, "keys", ("d", "p"))
    async with early.run_test(size=(140, 30)) as pilot:
        await wait_until(pilot, lambda: early.query_one(Composer).text == "dp")


async def test_a_search_begun_while_the_chat_opens_goes_on(
    early: ChatApp, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Early, "keys", ("ctrl+f", "d"))
    async with early.run_test(size=(140, 30)) as pilot:
        await pilot.press("p")
        assert early.query_one(".search", Input).value == "dp"


async def test_the_list_asked_for_while_the_chat_opens_keeps_the_keyboard(
    early: ChatApp, history: History, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = store(history)
    monkeypatch.setattr(Early, "keys", ("ctrl+b",))
    async with early.run_test(size=(140, 30)) as pilot:
        await pilot.press("enter")
        await wait_until(pilot, lambda: early.session.conversation.id == one.id)
