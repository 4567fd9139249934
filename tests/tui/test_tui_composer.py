"""The composer with what is attached, in an application that has nothing else."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from conftest import wait_until
from textual import events
from textual.app import App, ComposeResult
from textual.containers import Vertical
from textual.pilot import Pilot

from localai.chat.attachments import BIG_PASTE
from localai.chat.conversation import Attachment
from localai.errors import UsageError
from tui.external_editor import editor_command, memory_folder
from tui.widgets.attachments import AttachmentRow, cost_content
from tui.widgets.composer import Composer
from tui.widgets.path_completion import (
    MOST_OFFERED,
    Mention,
    PathCompletion,
    files_below,
    mention_at,
    paths_from,
    ranked,
)

NOTES = Attachment(name="notes.txt", text="n" * 1234)


class Host(App[None]):
    """Shows a composer and keeps what it posts. Its terminal can be lent."""

    def __init__(self) -> None:
        super().__init__()
        self.composer = Composer()
        self.submitted: list[tuple[str, tuple[Attachment, ...]]] = []
        self.drafted: list[tuple[str, tuple[Attachment, ...]]] = []
        self.changed: list[tuple[str, tuple[Attachment, ...]]] = []
        self.problems: list[str] = []
        self.lent: list[str] = []

    def compose(self) -> ComposeResult:
        with Vertical():
            yield self.composer

    def on_mount(self) -> None:
        self.composer.focus()

    def on_composer_submitted(self, event: Composer.Submitted) -> None:
        self.submitted.append((event.text, event.attachments))

    def on_composer_drafted(self, event: Composer.Drafted) -> None:
        self.drafted.append((event.text, event.attachments))

    def on_composer_draft_changed(self, event: Composer.DraftChanged) -> None:
        self.changed.append((event.text, event.attachments))

    def on_composer_problem(self, event: Composer.Problem) -> None:
        self.problems.append(event.text)

    @contextmanager
    def suspend(self) -> Iterator[None]:
        self.lent.append("lent")
        yield
        self.lent.append("back")

    def shown(self) -> str:
        lines = [strip.text.rstrip() for strip in self.screen._compositor.render_strips()]
        return "\n".join(lines).rstrip()


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with some files."""
    monkeypatch.chdir(tmp_path)
    for name in ("readme.md", "main.py", "src/main.py", "src/parser.py", ".hidden", ".git/config"):
        file = tmp_path / name
        file.parent.mkdir(exist_ok=True)
        file.write_text(f"text of {name}")
    (tmp_path / "picture.png").write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(9))
    return tmp_path


def paste(pilot: Pilot[None], text: str) -> None:
    pilot.app.post_message(events.Paste(text))


def names(host: Host) -> list[str]:
    return [attachment.name for attachment in host.composer.draft[1]]


# --------------------------------------------------------------------------------------------- attaching


async def test_a_pasted_path_attaches_the_file(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        paste(pilot, f"'{folder / 'readme.md'}'\r\n{folder / 'main.py'}")
        await wait_until(pilot, lambda: names(host) == ["readme.md", "main.py"])
        assert host.composer.text == ""
        await wait_until(pilot, lambda: "readme.md 17 characters ×" in host.shown())
        await wait_until(pilot, lambda: host.drafted)
        await pilot.press(*"Why?", "enter")
        await wait_until(pilot, lambda: host.submitted)
        text, files = host.submitted[0]
        assert (text, [f.text for f in files]) == ("Why?", ["text of readme.md", "text of main.py"])
        assert host.composer.draft == ("", ())
        assert not host.query_one(AttachmentRow).display


async def test_what_cannot_be_read_is_a_problem_and_no_attachment(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        host.composer.attach([folder / "picture.png", folder / "gone\x1b.txt", folder / "main.py"])
        await wait_until(pilot, lambda: names(host) == ["main.py"])
        assert host.problems == [
            "picture.png is a picture (PNG). Text, source code and PDF can be attached",
            "gone.txt is not there",
        ]
        assert host.shown().count("×") == 1


async def test_a_long_paste_becomes_an_attachment():
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press(*"See ")
        paste(pilot, "é\x1b\r\n" * BIG_PASTE)
        paste(pilot, "short\r\ntext")
        paste(pilot, "line\r" * 41)
        await wait_until(pilot, lambda: len(names(host)) == 2)
        assert names(host) == ["pasted text 1", "pasted text 2"]
        assert host.composer.draft[1][0].text == "é\n" * BIG_PASTE
        assert host.composer.text == "See short\ntext"


async def test_a_paste_of_5_mb_is_one_attachment_and_typing_goes_on():
    host = Host()
    async with host.run_test() as pilot:
        paste(pilot, "0123456789 word\r" * 320_000)
        await pilot.press(*"and")
        assert host.composer.text == "and"
        await wait_until(pilot, lambda: names(host) == ["pasted text 1"])
        assert len(host.composer.draft[1][0].text) == 5_120_000
        await wait_until(pilot, lambda: "5,120,000 characters" in host.shown())


async def test_ctrl_v_follows_the_rules_of_a_paste(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        host._clipboard = str(folder / "main.py")
        await pilot.press("ctrl+v")
        await wait_until(pilot, lambda: names(host) == ["main.py"])
        host._clipboard = "words"
        await pilot.press("ctrl+v")
        assert host.composer.text == "words"


async def test_the_same_file_is_attached_once_and_another_of_that_name_gets_a_number(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        host.composer.attach([folder / "main.py", folder / "main.py", folder / "src/main.py"])
        await wait_until(pilot, lambda: not host.composer.row.busy)
        assert names(host) == ["main.py", "main.py (2)"]


async def test_attachments_are_removed_by_key_and_by_click():
    host = Host()
    async with host.run_test() as pilot:
        files = [Attachment(name=f"{n}.txt", text="x") for n in "abc"]
        host.composer.restore("hi", files)
        await pilot.press("backspace", "backspace")
        assert (host.composer.text, names(host)) == ("", ["a.txt", "b.txt", "c.txt"])
        await pilot.press("backspace")
        assert names(host) == ["a.txt", "b.txt"]
        await pilot.pause()
        row = host.query_one(AttachmentRow)
        line = host.shown().splitlines()[row.region.y]
        await pilot.click(row, offset=(line.index("×") - row.region.x, 0))
        assert names(host) == ["b.txt"]
        assert host.composer.has_focus
        await pilot.press("backspace", "backspace")
        await wait_until(pilot, lambda: not row.display)


async def test_an_attachment_alone_can_be_sent():
    host = Host()
    async with host.run_test() as pilot:
        host.composer.restore("", [NOTES])
        await pilot.press("enter")
        await pilot.pause()
        assert host.submitted == [("", (NOTES,))]
        host.composer.sent()
        assert host.composer.prompts == []


async def test_what_is_refused_comes_back_with_its_attachments(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        host.composer.restore("why", [NOTES])
        await pilot.press("enter", *"more")
        host.composer.attach([folder / "main.py"])
        await wait_until(pilot, lambda: names(host) == ["main.py"])
        host.composer.refused()
        assert host.composer.text == "why\nmore"
        assert names(host) == ["notes.txt", "main.py"]


async def test_enter_waits_for_files_that_are_being_read(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        async with host.composer.row._reading:  # as if a file before these took long
            host.composer.attach([folder / "main.py"])
            await pilot.press(*"Why?", "enter")
            assert "main.py reading…" in host.shown()
            assert host.submitted == []
            assert host.composer.draft[0] == "Why?"
            await pilot.press(*"next")
            assert host.composer.draft[0] == "Why?\nnext"
        await wait_until(pilot, lambda: host.submitted)
        assert [(text, [f.name for f in files]) for text, files in host.submitted] == [("Why?", ["main.py"])]
        assert host.composer.text == "next"


async def test_a_file_that_cannot_be_read_brings_the_text_back(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        async with host.composer.row._reading:
            host.composer.attach([folder / "picture.png", folder / "main.py"])
            await pilot.press(*"Why?", "enter")
        await wait_until(pilot, lambda: names(host) == ["main.py"])
        assert (host.submitted, host.composer.text, len(host.problems)) == ([], "Why?", 1)
        await pilot.press("enter")
        await pilot.pause()
        assert len(host.submitted) == 1


async def test_another_draft_drops_what_is_still_being_read(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        async with host.composer.row._reading:
            host.composer.attach([folder / "main.py"])
            await pilot.press(*"Why?", "enter")
            host.composer.restore("another\x1b", [NOTES])
        await pilot.press("enter")
        await wait_until(pilot, lambda: host.submitted)
        assert host.submitted == [("another", (NOTES,))]


async def test_what_is_removed_while_it_is_read_is_given_up():
    given_up = threading.Event()

    def slow(is_given_up: Callable[[], bool], _: Callable[[str], object]) -> Attachment:
        while not is_given_up():
            given_up.wait(0.001)
        given_up.set()
        return NOTES

    host = Host()
    async with host.run_test() as pilot:
        row = host.composer.row
        row._add("slow.pdf", slow)
        await wait_until(pilot, lambda: "slow.pdf reading…" in host.shown())
        await pilot.press("backspace")
        await wait_until(pilot, given_up.is_set)
        await wait_until(pilot, lambda: not row.display)
        given_up.clear()
        row._add("slow.pdf", slow)
        await wait_until(pilot, row._reading.locked)
    assert given_up.wait(5)  # also when the program ends


# ----------------------------------------------------------------------------------------- draft and cost


async def test_changes_of_text_and_attachments_are_told(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tui.widgets.composer.CHANGE_S", 0.01)
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press("h", "i")
        await wait_until(pilot, lambda: host.changed and host.changed[-1] == ("hi", ()))
        host.composer.restore("you", [NOTES])
        await wait_until(pilot, lambda: host.changed[-1] == ("you", (NOTES,)))
        await pilot.press(*["backspace"] * 4)
        await wait_until(pilot, lambda: host.changed[-1] == ("", ()))


async def test_the_cost_is_shown_and_goes_with_the_draft(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("tui.widgets.composer.CHANGE_S", 0.01)
    host = Host()
    async with host.run_test() as pilot:
        host.composer.restore("why", [NOTES])
        host.composer.show_cost(1300, 4096, {"notes.txt": 1234})
        await wait_until(pilot, lambda: "≈ 1,300 tokens of 4,096 free" in host.shown())
        await wait_until(pilot, lambda: "notes.txt 1,234 characters · ≈ 1,234 tokens ×" in host.shown())
        host.composer.show_cost(5000, 4096)
        await wait_until(pilot, lambda: "▲ ≈ 5,000 tokens of 4,096 free" in host.shown())
        await pilot.press("enter")
        await wait_until(pilot, lambda: "≈" not in host.shown())
        host.composer.show_cost(5000, 4096)  # comes late
        await pilot.pause()
        assert "≈" not in host.shown()


@pytest.mark.parametrize(
    ("tokens", "room", "width", "text"),
    [
        (1234, None, 40, "≈ 1,234 tokens"),
        (1234, None, 10, "≈ 1,234"),
        (1234, 4096, 40, "≈ 1,234 tokens of 4,096 free"),
        (1234, 4096, 20, "≈ 1,234 / 4,096"),
        (1234, 4096, 5, "≈ 1,234"),
        (1234, 1233, 40, "▲ ≈ 1,234 tokens of 1,233 free"),
    ],
)
def test_cost_in_the_words_that_fit(tokens: int, room: int | None, width: int, text: str):
    content = cost_content(tokens, room, width)
    assert content is not None
    assert content.plain == text
    assert ("warning" in str(content.spans)) == text.startswith("▲")


async def test_without_a_border_the_row_tells_the_cost():
    host = Host()
    async with host.run_test(size=(40, 8)) as pilot:
        host.composer.styles.border = ("none", "black")
        await pilot.press("x")
        host.composer.show_cost(20, 10)
        await wait_until(pilot, lambda: "▲ ≈ 20 tokens of 10 free" in host.shown())
        host.composer.show_cost(5, 10)
        await wait_until(pilot, lambda: "≈" not in host.shown())


@pytest.mark.parametrize(("width", "height"), [(20, 8), (20, 24), (80, 24), (1, 1)])
async def test_many_attachments_take_few_lines(width: int, height: int):
    host = Host()
    async with host.run_test(size=(width, height)) as pilot:
        files = [Attachment(name=f"a rather long name {n}.txt", text="x") for n in range(30)]
        host.composer.restore("", [*files, Attachment(name="日本" * 40, text="x")])
        row = host.query_one(AttachmentRow)
        await wait_until(pilot, lambda: row.size.height == (3 if height >= 20 else 1))
        if width > 1:
            await wait_until(pilot, lambda: "× " in host.shown() and " +" in host.shown())


async def test_names_are_never_markup():
    host = Host()
    async with host.run_test() as pilot:
        host.composer.restore("", [Attachment(name="[@click=app.quit]x[/]\x1b[2J", text="x")])
        await wait_until(pilot, lambda: "[@click=app.quit]x[/][2J" in host.shown())


# ------------------------------------------------------------------------------------------ keys that send


@pytest.mark.parametrize("key", ["ctrl+enter", "alt+enter", "ctrl+s", "ctrl+j", "ctrl+\r"])
async def test_enter_may_begin_a_line_and_other_keys_send(key: str):
    host = Host()
    async with host.run_test() as pilot:
        host.composer.send_on = "ctrl+enter"
        await wait_until(pilot, lambda: "Ctrl+S sends" in host.shown())
        await pilot.press("a", "enter", "b", "shift+enter", "c")
        assert host.composer.text == "a\nb\nc"
        await pilot.press(key)
        await pilot.pause()
        assert host.submitted == [("a\nb\nc", ())]


@pytest.mark.parametrize("key", ["ctrl+enter", "alt+enter", "shift+enter", "ctrl+j", "shift+\r"])
async def test_enter_with_another_key_begins_a_line(key: str):
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press("a", key, "b", "enter")
        await pilot.pause()
        assert host.submitted == [("a\nb", ())]


# -------------------------------------------------------------------------------------------- completion


async def type_mention(pilot: Pilot[None], text: str) -> PathCompletion:
    """Type what ends in a mention, and wait for its list."""
    await pilot.press(*text)
    completion = pilot.app.query_one(PathCompletion)
    await wait_until(pilot, lambda: completion.display)
    return completion


@pytest.mark.parametrize("key", ["tab", "enter"])
async def test_a_file_is_chosen_by_key(folder: Path, key: str):
    host = Host()
    async with host.run_test() as pilot:
        await type_mention(pilot, "see @pars")
        await wait_until(pilot, lambda: "› src/parser.py" in host.shown())
        await pilot.press(key)
        await wait_until(pilot, lambda: names(host) == ["parser.py"])
        assert host.composer.text == "see @parser.py "
        assert host.submitted == []
        assert not host.query_one(PathCompletion).display
        await pilot.press(*"now", "enter")
        await pilot.pause()
        assert host.submitted[0][0] == "see @parser.py now"


async def test_the_list_is_walked_and_closed_by_key(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        completion = await type_mention(pilot, "@main")
        await wait_until(pilot, lambda: "› main.py" in host.shown())
        await pilot.press("down")
        await wait_until(pilot, lambda: "› src/main.py" in host.shown())
        await pilot.press("up", "up")
        await wait_until(pilot, lambda: "› src/main.py" in host.shown())
        await pilot.press("escape")
        assert not completion.display
        await pilot.press(*".py")
        await pilot.pause()
        assert not completion.display
        await pilot.press("enter")
        await pilot.pause()
        assert host.submitted == [("@main.py", ())]
        await type_mention(pilot, "@main")


async def test_a_file_is_chosen_by_click(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        completion = await type_mention(pilot, "@main")
        await wait_until(pilot, lambda: completion.size.height == 2)
        await pilot.click(completion, offset=(3, 1))
        await wait_until(pilot, lambda: names(host) == ["main.py"])
        assert host.composer.draft[1][0].text == "text of src/main.py"
        assert host.composer.has_focus


async def test_a_folder_is_gone_into(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        await type_mention(pilot, "@./s")
        await pilot.press("tab")
        assert host.composer.text == "@./src/"
        await wait_until(pilot, lambda: "› ./src/main.py" in host.shown())
        await pilot.press("tab")
        await wait_until(pilot, lambda: names(host) == ["main.py"])
        assert host.composer.draft[1][0].text == "text of src/main.py"


async def test_a_list_goes_when_there_is_nothing_to_complete(folder: Path):
    host = Host()
    async with host.run_test() as pilot:
        completion = await type_mention(pilot, "@main")
        await pilot.press("space")
        await wait_until(pilot, lambda: not completion.display)
        await pilot.press("backspace")
        await wait_until(pilot, lambda: completion.display)
        await pilot.press(*"xyz")
        await wait_until(pilot, lambda: not completion.display)
        await pilot.press("enter")
        await pilot.pause()
        assert host.submitted == [("@mainxyz", ())]


async def test_a_list_on_a_screen_of_20_columns(folder: Path):
    (folder / ("deep" * 10)).mkdir()
    (folder / ("deep" * 10) / "parser.py").write_text("x")
    host = Host()
    async with host.run_test(size=(20, 8)) as pilot:
        completion = await type_mention(pilot, "@p")
        await wait_until(pilot, lambda: completion.size.height == 2)
        assert all(len(line) <= 20 for line in host.shown().splitlines())
        await pilot.press("down", "down")
        await wait_until(pilot, lambda: "eep/parser.py" in host.shown())


@pytest.mark.parametrize(
    ("line", "mention"),
    [
        ("@", Mention(0, "")),
        ("see @src/a.py", Mention(4, "src/a.py")),
        ("(@a", Mention(1, "a")),
        ("@a b", None),
        ("me@home", None),
        ("@a@b", None),
        ("", None),
    ],
)
def test_a_mention_begins_a_word(line: str, mention: Mention | None):
    assert mention_at(line, len(line)) == mention


def test_files_below_are_the_plain_ones_nearest_first(folder: Path):
    (folder / "node_modules").mkdir()
    (folder / "node_modules" / "x.js").write_text("x")
    (folder / "src" / "round").symlink_to(folder)
    os.mkfifo(folder / "pipe")
    wanted = ["main.py", "picture.png", "readme.md", "src/main.py", "src/parser.py"]
    assert files_below(folder) == wanted
    assert files_below(folder, most=2) == wanted[:2]
    assert files_below(folder, seconds=0.0) == []
    assert files_below(folder / "gone") == []


def test_paths_elsewhere(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("HOME", str(folder))
    assert paths_from("~", folder) == ["~/"]
    assert paths_from("~/rea", folder) == ["~/readme.md"]
    assert paths_from("~/.", folder) == ["~/.git/", "~/.hidden"]
    assert paths_from(f"{folder}/src/PARS", Path("/")) == [f"{folder}/src/parser.py"]
    assert paths_from("../", folder / "src")[:2] == ["../main.py", "../picture.png"]
    assert paths_from("~nobody-of-that-name/", folder) == []
    assert paths_from("/gone/", folder) == []


def test_the_best_fit_comes_first():
    paths = ["a/xmain", "b/main.py", "main", "main/other", "m_a_i_n.py", "none"]
    assert ranked(paths, "MAIN") == ["main", "b/main.py", "main/other", "a/xmain", "m_a_i_n.py"]
    assert len(ranked([f"{n}.txt" for n in range(200)], "")) == MOST_OFFERED


# ------------------------------------------------------------------------------------------------ editor


@pytest.fixture
def editor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An editor that shouts and notes what file it was given; put "exit 3" behind to let it fail."""
    script = tmp_path / "an editor.sh"
    script.write_text(
        f'echo "$1" > "{tmp_path}/file"\nstat -c "%a %U" "$1" "$(dirname "$1")" > "{tmp_path}/modes"\n'
        'tr a-z A-Z < "$1" > "$1.new"; mv "$1.new" "$1"; printf "\\033\\r\\n\\n" >> "$1"\n'
    )
    monkeypatch.delenv("VISUAL", raising=False)
    monkeypatch.setenv("EDITOR", f"sh '{script}'")
    return script


async def test_the_text_is_written_on_in_the_users_editor(editor: Path, tmp_path: Path):
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press(*"shout", "ctrl+j", *"this", "f4")
        await wait_until(pilot, lambda: host.composer.text == "SHOUT\nTHIS")
        assert host.lent == ["lent", "back"]
        assert host.composer.cursor_location == (1, 4)
        file = Path((tmp_path / "file").read_text().strip())
        assert not file.parent.exists()
        if (place := memory_folder(os.environ)) is not None:
            assert file.parent.parent == place
        modes = (tmp_path / "modes").read_text().split()
        assert modes[::2] == ["600", "700"]


async def test_the_editor_does_not_learn_what_opens_the_conversations(
    editor: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setenv("LOCALAI_PASSPHRASE", "secret")
    editor.write_text('env | grep -c "^LOCALAI_PASSPHRASE=" >> "$1"; true\n')
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press("a", "f4")
        await wait_until(pilot, lambda: host.lent == ["lent", "back"])
        assert host.composer.text == "a0"  # none found


@pytest.mark.parametrize(("end", "how"), [("exit 3", "ended with code 3"), ("kill -INT $$", "was stopped")])
async def test_an_editor_that_fails_leaves_the_text_as_it_was(
    editor: Path, tmp_path: Path, end: str, how: str
):
    editor.write_text(editor.read_text() + f"{end}\n")
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press(*"quiet", "f4")
        await wait_until(pilot, lambda: host.problems)
        assert host.problems == [f"The editor sh {how}. The text is as it was"]
        assert (host.composer.text, host.lent) == ("quiet", ["lent", "back"])
        assert not Path((tmp_path / "file").read_text().strip()).parent.exists()


async def test_the_program_goes_on_and_may_end_while_the_editor_has_the_terminal(
    editor: Path, tmp_path: Path
):
    editor.write_text(editor.read_text() + "exec sleep 600\n")
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press(*"secret", "f4")
        await wait_until(pilot, lambda: (tmp_path / "modes").exists())
        assert host._batch_count == 1
    assert not Path((tmp_path / "file").read_text().strip()).parent.exists()


@pytest.mark.parametrize(
    ("setting", "problem"),
    [
        ("", "No editor is set"),
        ("no-such-editor -w", "The editor no-such-editor is not installed"),
        ("vi 'x", "EDITOR is set to vi 'x, which has a quote too few"),
    ],
)
async def test_without_an_editor_one_line_says_so(
    monkeypatch: pytest.MonkeyPatch, setting: str, problem: str
):
    monkeypatch.setenv("VISUAL", setting)
    monkeypatch.delenv("EDITOR", raising=False)
    host = Host()
    async with host.run_test() as pilot:
        await pilot.press("f4")
        await wait_until(pilot, lambda: host.problems)
        assert host.problems[0].startswith(problem)
        assert host.lent == []


async def test_nothing_is_written_to_a_disk_if_nothing_shall_be(
    editor: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("tui.external_editor._is_in_memory", lambda _: False)
    host = Host()
    async with host.run_test() as pilot:
        host.composer.memory_only = True
        await pilot.press(*"secret", "f4")
        await wait_until(pilot, lambda: host.problems)
        assert host.problems[0].startswith("There is no place in memory")
        assert not (tmp_path / "file").exists()
        host.composer.memory_only = False
        await pilot.press("f4")
        await wait_until(pilot, lambda: host.composer.text == "SECRET")


def test_visual_comes_before_editor():
    assert editor_command({"VISUAL": "sh -x", "EDITOR": "ls"}) == ["sh", "-x"]
    assert editor_command({"VISUAL": " ", "EDITOR": "ls"}) == ["ls"]
    with pytest.raises(UsageError):
        editor_command({})


def test_a_place_in_memory_is_one_that_can_be_written_to(tmp_path: Path):
    found = memory_folder({"XDG_RUNTIME_DIR": str(tmp_path / "gone")})
    assert found in (None, Path("/dev/shm"))
    if found is not None:
        assert stat.S_ISDIR(found.stat().st_mode)
        assert memory_folder({"XDG_RUNTIME_DIR": str(found)}) == found
