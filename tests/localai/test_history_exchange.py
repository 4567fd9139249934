"""Exports: nothing of the tree is missing, nothing of it commands a terminal or a browser."""

from __future__ import annotations

import json
import re
import stat
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from localai.chat.clean import clean
from localai.chat.conversation import Attachment, Conversation, Message
from localai.errors import HistoryError
from localai.history.exchange import as_json, as_markdown, branches, write
from localai.history.imports import read
from localai.history.page import as_page

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
SECONDS = st.floats(0, 2e9)
COUNT = st.integers(0, 2**40)
JSON = st.recursive(st.none() | st.booleans() | st.integers(-99, 99) | TEXT, st.lists, max_leaves=4)


@st.composite
def conversations(draw) -> Conversation:
    made = Conversation(
        title=draw(TEXT),
        system=draw(TEXT),
        model=draw(TEXT),
        created=draw(SECONDS),
        updated=draw(SECONDS),
        pinned=draw(st.booleans()),
        settings=draw(st.dictionaries(TEXT, JSON, max_size=3)),
    )
    for _ in range(draw(st.integers(0, 6))):
        role = draw(st.sampled_from(["user", "assistant"]))
        files = st.lists(st.builds(Attachment, name=TEXT, text=TEXT), max_size=2)
        message = Message(
            parent=draw(st.sampled_from([None, *made.messages])),
            role=role,
            content=draw(TEXT),
            attachments=tuple(draw(files)),
            thinking=draw(TEXT),
            state=draw(st.sampled_from(["complete", "stopped", "failed"])),
            created=draw(SECONDS),
            model=draw(TEXT),
            finish_reason=draw(TEXT),
            thinking_s=draw(SECONDS),
            thinking_tokens=draw(COUNT),
            completion_tokens=draw(COUNT),
            prompt_tokens=draw(COUNT),
            tokens_per_s=draw(SECONDS),
        )
        made.messages[message.id] = message
    made.head = draw(st.sampled_from([*made.messages])) if made.messages else None
    return made


MANY = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])


@MANY
@given(st.lists(conversations(), max_size=3))
def test_json_comes_back_without_loss(made: list[Conversation]) -> None:
    text = as_json(made)
    assert clean(text) == text
    with TemporaryDirectory() as folder:
        path = Path(folder) / "all.json"
        write(path, text)
        source, found = read(path)
    assert source == "localai"
    assert found == made
    assert [[*one.messages] for one in found] == [[*one.messages] for one in made]


@MANY
@given(conversations())
def test_every_message_is_in_one_branch(made: Conversation) -> None:
    listed = [message.id for branch in branches(made) for message in branch.messages]
    assert sorted(listed) == sorted(made.messages)
    if made.head is not None:
        assert branches(made)[0].messages == made.branch()


@MANY
@given(conversations())
def test_no_form_has_control_characters(made: Conversation) -> None:
    for text in (as_markdown([made]), as_page([made])):
        assert clean(text) == text


def talk() -> Conversation:
    """A question, two replies to it, and another question instead of it; the first reply is shown."""
    made = Conversation(system="Be brief", settings={"temperature": 0.25})
    ask = made.append(Message(parent=None, role="user", content="question one"))
    first = made.append(
        Message(parent=ask.id, role="assistant", content="reply one", thinking="thought one", model="r1")
    )
    made.head = ask.id
    made.append(Message(parent=ask.id, role="assistant", content="reply two", thinking="thought two"))
    made.head = None
    file = Attachment(name="notes.txt", text="text of the file")
    made.append(Message(parent=None, role="user", content="question two", attachments=(file,)))
    made.head = first.id
    return made


@pytest.mark.parametrize("form", [as_markdown, as_page])
def test_all_of_the_tree_is_there_and_the_shown_branch_first(form) -> None:
    text = form([talk()])
    order = ["question one", "thought one", "reply one", "thought two", "reply two", "text of the file"]
    places = [text.rindex(words) for words in order]
    assert places == sorted(places)
    for words in ("Be brief", "temperature 0.25", "notes.txt", "question two"):
        assert words in text
    plain = re.sub("<[^>]*>", "", text)
    assert "Branch 2: instead of message 2" in plain
    assert "Branch 3: instead of message 1" in plain
    assert text.count("<details>") == (3 if form is as_markdown else 4)


def test_markdown_is_not_broken_by_what_is_in_it() -> None:
    made = Conversation(title="# *not* <b>bold</b>")
    file = Attachment(name="a", text="```\ncode\n````")
    made.append(Message(parent=None, role="user", content="see\n```\nopen", attachments=(file,)))
    made.append(Message(parent=made.head, role="assistant", content="after", thinking="a </details> b"))
    text = as_markdown([made])
    assert text.startswith("# \\# \\*not\\* \\<b\\>bold\\</b\\>\n")
    assert "`````\n```\ncode\n````\n`````" in text
    assert "see\n```\nopen\n```\n" in text
    assert text.count("</details>") == text.count("<details>") == 2


# --------------------------------------------------------------------------------------------- the page


class Page(HTMLParser):
    """All tags and attributes of a page, and whether each tag is closed by its own end."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in ("meta", "br", "hr"):
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs) -> None:
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag) -> None:
        assert self.open.pop() == tag

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


HOSTILE = """<script>alert(1)</script> <img src=x onerror=alert(1)>
[a](javascript:alert(1)) [b](data:text/html,x) [c](file:///etc/passwd) [d](relative)
[e](https://e.example "t")
![f](https://e.example/pixel.png) ![g](data:image/png;base64,AA) <https://auto.example>
</details></article></main><style>body{}</style>
"""


@pytest.mark.parametrize(
    "where", ["title", "system", "content", "thinking", "file", "name", "model", "failed"]
)
def test_a_page_loads_and_runs_nothing(where: str) -> None:
    bad = HOSTILE
    made = Conversation(title=bad if where == "title" else "t", settings={"x": bad})
    made.system = bad if where == "system" else ""
    file = Attachment(name=bad if where == "name" else "n", text=bad if where == "file" else "x")
    made.append(Message(parent=None, role="user", content="q", attachments=(file,)))
    made.append(
        Message(
            parent=made.head,
            role="assistant",
            content=bad if where == "content" else "r",
            thinking=bad if where == "thinking" else "t",
            model=bad if where == "model" else "m",
            state="failed" if where == "failed" else "complete",
            finish_reason=bad,
        )
    )
    page = Page(as_page([made, made]))
    assert page.open == []
    allowed = {"html", "head", "meta", "title", "style", "body", "h1", "h2", "h3", "h4", "ol", "li", "a"}
    allowed |= {"main", "header", "section", "article", "p", "details", "summary", "pre", "code", "em", "br"}
    assert {tag for tag, _ in page.tags} <= allowed
    assert len(page.of("style")) == 1
    names = {name for _, attributes in page.tags for name in attributes}
    assert names <= {
        "lang",
        "charset",
        "http-equiv",
        "content",
        "name",
        "id",
        "class",
        "href",
        "rel",
        "title",
    }
    targets = {attributes["href"] or "" for attributes in page.of("a")}
    assert all(target.startswith(("#", "https://")) for target in targets)


def test_the_policy_comes_before_anything_else() -> None:
    page = Page(as_page([talk()]))
    assert page.of("meta")[1] == {
        "http-equiv": "Content-Security-Policy",
        "content": "default-src 'none'; style-src 'unsafe-inline'",
    }
    assert [tag for tag, _ in page.tags][:4] == ["html", "head", "meta", "meta"]


def test_links_lead_to_other_versions() -> None:
    page = Page(as_page([talk()]))
    places = {attributes["id"] for _, attributes in page.tags if "id" in attributes}
    targets = {(attributes["href"] or "").removeprefix("#") for attributes in page.of("a")}
    assert targets == {"c1m1", "c1m2", "c1m3", "c1m4"}
    assert targets <= places


# --------------------------------------------------------------------------------------------- writing


def test_written_files_are_private_and_nothing_else_is_left(tmp_path: Path) -> None:
    path = tmp_path / "out.md"
    write(path, "text")
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert [*tmp_path.iterdir()] == [path]


def test_a_file_is_replaced_only_by_force(tmp_path: Path) -> None:
    path = tmp_path / "out.md"
    path.write_text("old")
    with pytest.raises(HistoryError, match="exists already"):
        write(path, "new")
    assert path.read_text() == "old"
    write(path, "new", force=True)
    assert path.read_text() == "new"
    assert [*tmp_path.iterdir()] == [path]


def test_a_folder_that_is_missing_is_one_clear_error(tmp_path: Path) -> None:
    with pytest.raises(HistoryError, match=r"out\.md cannot be written: there is no such folder"):
        write(tmp_path / "none" / "out.md", "text")


def test_the_json_is_as_documented() -> None:
    document = json.loads(as_json([talk()]))
    assert (document["format"], document["version"]) == ("localai conversations", 1)
    text = (Path(__file__).parents[2] / "docs" / "history-format.md").read_text()
    (one,) = document["conversations"]
    for name in [*document, *one, *one["messages"][0]]:
        assert f"`{name}`" in text
