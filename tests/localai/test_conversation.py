"""Conversations as a tree, and the one branch that the model gets."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.chat.conversation import TITLE_LENGTH, Conversation, Message, title_of
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
