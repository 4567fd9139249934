"""Search: what is found, with which words around it, and that any text is a query."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from localai.chat.conversation import Attachment, Conversation, Message
from localai.history.search import AFTER, BEFORE, CANDIDATES, Hit, expression, terms_of
from localai.history.store import SEARCHED_LETTERS, History


@pytest.fixture
def history():
    with History(memory=True) as opened:
        yield opened


def put(history: History, *texts: str, **more: object) -> Conversation:
    conversation = Conversation()
    for i, text in enumerate(texts):
        role = "assistant" if i % 2 else "user"
        message = Message(parent=conversation.head, role=role, content=text, created=float(i), **more)
        conversation.append(message)
    history.save(conversation)
    return conversation


def matches(history: History, query: str) -> list[str]:
    return [hit.match for hit in history.search(query)]


def test_a_hit_leads_to_its_message(history: History) -> None:
    conversation = put(history, "where is the lighthouse?", "The old lighthouse stands\non a  hill.")
    reply = conversation.branch()[1]
    assert history.search("stands") == [
        Hit(
            conversation=conversation.id,
            title="where is the lighthouse?",
            message=reply.id,
            role="assistant",
            created=1.0,
            before="The old lighthouse ",
            match="stands",
            after=" on a hill.",
        )
    ]


def test_all_words_in_any_order_the_last_one_begun(history: History) -> None:
    put(history, "the old lighthouse keeper")
    put(history, "an old letter")
    assert matches(history, "lighthouse old") == ["lighthouse"]
    assert matches(history, "old light") == ["old"]
    assert matches(history, "light old") == []
    assert matches(history, "l") == []
    assert len(matches(history, "ol")) == 2
    assert matches(history, "keepe") == ["keeper"]


def test_phrases(history: History) -> None:
    put(history, "the old, lighthouse keeper")
    assert matches(history, '"old lighthouse"') == ["old, lighthouse"]
    assert matches(history, '"lighthouse old"') == []
    assert matches(history, '"old light"') == []
    assert matches(history, '"keeper" old') == ["keeper"]
    assert matches(history, '"lighthouse keep') == []


def test_capitals_and_accents_do_not_matter(history: History) -> None:
    put(history, "Das Café in KÖLN, ΑΘΗΝΑ")
    assert matches(history, "cafe") == ["Café"]
    assert matches(history, "Köl") == ["KÖLN"]
    assert matches(history, "koln") == ["KÖLN"]
    assert matches(history, "αθηνα") == ["ΑΘΗΝΑ"]


@pytest.mark.parametrize(
    ("query", "match"),
    [
        ("长江大桥", "长江大桥"),
        ("江大桥上", "江大桥上"),
        ("长江", "长江"),
        ("散步", "散步"),
        ("步", "步"),
        ("长江 散步", "长江"),
        ("大桥上 昨", "大桥上"),
        ("大桥上 明", None),
        ("江长", None),
        ("明", None),
        ("昨 明", None),
        ("カタカナ", "カタカナ"),
        ("ひら", "ひら"),
        ("한국어", "한국어"),
        ("국", "국"),
    ],
)
def test_scripts_without_spaces(history: History, query: str, match: str | None) -> None:
    put(history, "昨天我们在长江大桥上散步")
    put(history, "これはひらがなとカタカナです")
    put(history, "나는 한국어를 배운다")
    put(history, "only English here")
    assert matches(history, query) == ([match] if match else [])


def test_a_common_character(history: History) -> None:
    """More places than are looked up one by one."""
    for _ in range(30):
        put(history, "的" * 100)
    last = put(history, "最后的")
    assert history.search("的")[0].conversation == last.id
    assert len(history.search("的", limit=5)) == 5
    for query in ("的 后", "的 最后", "最后的 的", "最后的 后"):
        assert [hit.conversation for hit in history.search(query)] == [last.id]
    assert len(history.search("的的的 的", limit=100)) == 30
    assert history.search("的 明") == history.search("的的的 明") == []


def test_a_percent_sign_is_one(history: History) -> None:
    put(history, "长江 100!")
    assert matches(history, "长江 0%") == []
    assert matches(history, "长江 0!") == ["长江"]


def test_attachments_are_found_by_name_and_beginning(history: History) -> None:
    file = Attachment(name="zebra.txt", text="stripes " + "x" * SEARCHED_LETTERS + " tail")
    put(history, "see this", attachments=(file,))
    assert matches(history, "zebra") == ["zebra"]
    assert matches(history, "stripes") == ["stripes"]
    assert matches(history, "tail") == []


def test_thinking_is_not_searched(history: History) -> None:
    put(history, "question", thinking="hmm")
    assert matches(history, "hmm") == []


def test_a_reply_is_found_when_it_is_whole(history: History) -> None:
    conversation = put(history, "question")
    reply = Message(parent=conversation.head, role="assistant", content="zebra", state="streaming")
    history.put(conversation.id, reply)
    assert matches(history, "zebra") == []
    reply.state = "complete"
    history.put(conversation.id, reply)
    assert matches(history, "zebra") == ["zebra"]


def test_a_reply_that_a_crash_cut_off_is_found(history: History) -> None:
    conversation = put(history, "question")
    history.put(
        conversation.id,
        Message(parent=conversation.head, role="assistant", content="zebra", state="streaming"),
    )
    history.load(conversation.id)
    assert matches(history, "zebra") == ["zebra"]
    assert history.check() == "ok"


def test_what_changes_or_goes_is_no_longer_found(history: History) -> None:
    conversation = put(history, "the zebra 长江大桥")
    message = conversation.branch()[0]
    message.content = "the lion 散步散步"
    history.put(conversation.id, message)
    assert [matches(history, q) for q in ("zebra", "长江大桥", "长", "lion")] == [[], [], [], ["lion"]]
    history.delete(conversation.id)
    assert [matches(history, q) for q in ("lion", "散步散", "散")] == [[], [], []]
    assert history.check() == "ok"


def test_the_index_has_the_same_as_the_messages(history: History) -> None:
    """FTS5's own comparison of the index with the texts: it raises if they differ."""
    one = put(history, "the zebra 长江大桥", "reply")
    put(history, "other 散步")
    one.branch()[0].content = "changed 大桥"
    history.save(one)
    for table in ("words", "grams"):
        history._db.execute(f"INSERT INTO {table} ({table}, rank) VALUES ('integrity-check', 1)")


def test_the_best_of_the_newest_first(history: History) -> None:
    dense = put(history, "zebra zebra zebra")
    thin = put(history, "a zebra among many other animals of the large garden")
    newer = put(history, "a zebra among many other animals of the large garden")
    found = [hit.conversation for hit in history.search("zebra")]
    assert found == [dense.id, newer.id, thin.id]
    for _ in range(CANDIDATES):
        put(history, "a zebra")
    assert dense.id not in [hit.conversation for hit in history.search("zebra", limit=CANDIDATES)]


def test_context_is_cut(history: History) -> None:
    put(history, "before " * 50 + "zebra" + " after" * 100)
    (hit,) = history.search("zebra")
    assert hit.before == "…" + ("before " * 50)[-BEFORE:]
    assert hit.after == (" after" * 100)[:AFTER] + "…"


def test_context_has_no_control_characters(history: History) -> None:
    put(history, "\x1b[31mred\x07 zebra\x1b]0;title\x07")
    (hit,) = history.search("zebra")
    assert (hit.before, hit.match, hit.after) == ("[31mred ", "zebra", "]0;title")


OPERATORS = [
    "*",
    "a*",
    "AND",
    "NOT x",
    "a OR b",
    "NEAR(a b)",
    "a:b",
    "^a",
    "{a}",
    "-a",
    "(",
    "'; --",
    '"',
    '""',
]
ODD = ["", " ", "\0a\0", "\ud800", "\u0301", "a\u0301", "%", "长%", "长\0", "长 _"]
LONG = ["x" * 10_000, "a " * 5000, "长 " * 500]


@pytest.mark.parametrize("query", [*OPERATORS, *ODD, *LONG])
def test_any_text_is_a_query(history: History, query: str) -> None:
    put(history, "something else")
    assert matches(history, query) == []


def test_operators_are_words(history: History) -> None:
    put(history, "this AND that, a:b NEAR you")
    assert matches(history, "and THAT") == ["AND"]
    assert matches(history, "near(you") == ["NEAR you"]
    assert matches(history, "a:b") == ["a:b"]


@settings(max_examples=150, deadline=None)
@given(st.text(max_size=30))
def test_no_query_fails(text: str) -> None:
    with History(memory=True) as history:
        put(history, "hello 长江大桥")
        history.search(text)
        history.search(text + "长")


@settings(max_examples=100, deadline=None)
@given(st.text("abAB äßΩя19 .,:*-_()'", max_size=30))
def test_what_was_said_is_found_with_the_same_words(text: str) -> None:
    with History(memory=True) as history:
        put(history, text)
        assert bool(history.search(text)) is bool(terms_of(text))


def test_the_expression() -> None:
    assert expression(terms_of('one "two three" fou')) == '"one" "two three" "fou" *'
    assert expression(terms_of('one "two')) == '"one" "two"'
    assert expression(terms_of("f")) == '"f"'


def test_no_more_than_asked_for(history: History) -> None:
    put(history, *["zebra"] * 5)
    assert len(history.search("zebra", limit=3)) == 3
    assert history.search("zebra", limit=0) == []


def test_two_programs_see_each_others_words(tmp_path: Path) -> None:
    with History(tmp_path / "h", b"k" * 32) as one, History(tmp_path / "h", b"k" * 32) as two:
        put(one, "zebra")
        assert matches(two, "zebra") == ["zebra"]
