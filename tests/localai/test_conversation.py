"""Conversations as a tree, and the one branch that the model gets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.chat.conversation import TITLE_LENGTH, Attachment, Conversation, Message, prompt_of, title_of
from localai.chat.messages import ChatMessage


def talk(*turns: tuple[str, str]) -> Conversation:
    conversation = Conversation()
    for role, content in turns:
        conversation.append(Message(parent=conversation.head, role=role, content=content))  # type: ignore[arg-type]
    return conversation


def test_the_branch_goes_from_the_first_message_to_the_head() -> None:
    conversation = talk(("user", "a"), ("assistant", "b"), ("user", "c"))
    assert [m.content for m in conversation.branch()] == ["a", "b", "c"]


def test_a_second_reply_is_a_sibling_and_the_first_is_kept() -> None:
    conversation = talk(("user", "a"), ("assistant", "b"))
    question = conversation.branch()[0]
    conversation.head = question.id
    conversation.append(Message(parent=question.id, role="assistant", content="c"))
    assert [m.content for m in conversation.branch()] == ["a", "c"]
    assert len(conversation.messages) == 3


def test_a_message_that_does_not_follow_the_head_is_refused() -> None:
    with pytest.raises(ValueError, match="head"):
        talk(("user", "a")).append(Message(parent=None, role="user", content="b"))


def test_the_model_gets_no_thinking_and_no_empty_replies() -> None:
    conversation = talk(("user", "a"), ("assistant", ""), ("user", "b"), ("assistant", "c"), ("user", "d"))
    conversation.system = "Be brief."
    conversation.branch()[1].thinking = "hmm"
    assert conversation.chat_messages() == [
        ChatMessage("system", "Be brief."),
        ChatMessage("user", "a\n\nb"),
        ChatMessage("assistant", "c"),
        ChatMessage("user", "d"),
    ]


@given(st.lists(st.tuples(st.sampled_from(["user", "assistant"]), st.sampled_from(["", "x"])), max_size=8))
def test_questions_never_follow_each_other(turns: list[tuple[str, str]]) -> None:
    roles = [m.role for m in talk(*turns).chat_messages()]
    assert ("user", "user") not in list(pairwise(roles))


@given(st.text())
def test_a_title_is_one_short_line(text: str) -> None:
    title = title_of(text)
    assert len(title) <= TITLE_LENGTH
    assert len(title.splitlines()) <= 1
    if len(" ".join(text.split())) <= TITLE_LENGTH:
        assert title == " ".join(text.split())


def test_a_long_title_ends_between_words() -> None:
    assert title_of("word " * 30) == "word " * 11 + "word…"
    assert title_of("x" * 100) == "x" * 59 + "…"


# -------------------------------------------------------------------------------------------- the branches


def tree() -> Conversation:
    """A question, two replies, and below the first of them two ways to go on."""
    talk = Conversation(id="c")
    for message_id, parent, role in (
        ("q", None, "user"),
        ("a1", "q", "assistant"),
        ("a2", "q", "assistant"),
        ("q2", "a1", "user"),
        ("b", "q2", "assistant"),
        ("q3", "a1", "user"),
    ):
        talk.messages[message_id] = Message(id=message_id, parent=parent, role=role, content=message_id)  # type: ignore[arg-type]
    talk.head = "a2"
    return talk


def test_alternatives_have_the_same_parent_and_come_in_the_order_they_were_made() -> None:
    talk = tree()
    assert [m.id for m in talk.siblings("a2")] == ["a1", "a2"]
    assert [m.id for m in talk.siblings("q2")] == ["q2", "q3"]
    assert [m.id for m in talk.siblings("q")] == ["q"]


def test_showing_a_message_goes_down_to_the_last_made_below_it() -> None:
    talk = tree()
    talk.show("a1")
    assert [m.id for m in talk.branch()] == ["q", "a1", "q3"]
    talk.show("q2")
    assert [m.id for m in talk.branch()] == ["q", "a1", "q2", "b"]
    talk.show("a2")
    assert [m.id for m in talk.branch()] == ["q", "a2"]


def test_an_attachment_goes_in_as_deepseek_says() -> None:
    file = Attachment(name="notes.txt", text="one\ntwo")
    talk = Conversation(id="c")
    talk.append(Message(parent=None, role="user", content="What is it?", attachments=(file,)))
    (said,) = talk.chat_messages()
    assert said.content == (
        "[file name]: notes.txt\n[file content begin]\none\ntwo\n[file content end]\nWhat is it?"
    )


def test_several_attachments_come_one_after_the_other() -> None:
    files = (Attachment(name="a", text="1"), Attachment(name="b", text="2"))
    assert prompt_of("Compare.", files) == (
        "[file name]: a\n[file content begin]\n1\n[file content end]\n"
        "[file name]: b\n[file content begin]\n2\n[file content end]\nCompare."
    )
    assert prompt_of("Plain.", ()) == "Plain."


def test_a_message_that_is_only_a_file_gives_the_conversation_its_name() -> None:
    talk = Conversation(id="c")
    talk.append(Message(parent=None, role="user", attachments=(Attachment(name="notes.txt", text="1"),)))
    assert talk.title == "notes.txt"
