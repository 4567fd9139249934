"""The table of cases: where thinking ends and the answer begins."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.chat.splitter import Splitter

TAGS = ("<think>", "</think>")


def split(pieces: list[str], *, opened: bool, tag_tokens: bool = False) -> tuple[str, str]:
    """Feed the pieces; with `tag_tokens`, a piece that is exactly a tag counts as the token."""
    splitter = Splitter(opened=opened, tag_tokens=tag_tokens)
    parts = []
    for piece in pieces:
        parts += splitter.tag(piece) if tag_tokens and piece in TAGS else splitter.text(piece)
    parts += splitter.finish()
    kinds = [kind for kind, _ in parts]
    assert kinds == sorted(kinds, reverse=True), "thinking never comes after the answer began"
    assert all(text for _, text in parts), "no empty events"
    return (
        "".join(text for kind, text in parts if kind == "thinking"),
        "".join(text for kind, text in parts if kind == "answer"),
    )


CASES = {
    # name: (reply, prompt opened the tag, thinking, answer)
    "pre-opened tag": ("First.\n</think>\n\nSecond.", True, "First.", "Second."),
    "tag in the reply": ("<think>\nFirst.\n</think>\n\nSecond.", False, "First.", "Second."),
    "tag in the reply after white space": ("\n\n<think>a</think>b", False, "a", "b"),
    "pre-opened and repeated by the model": ("<think>\na\n</think>b", True, "a", "b"),
    "pre-opened and repeated after a line break": ("\n<think>\na</think>b", True, "a", "b"),
    "never closed": ("I wonder and wonder ", True, "I wonder and wonder", ""),
    "never closed, ends inside the tag": ("I wonder </thi", True, "I wonder </thi", ""),
    "empty thinking": ("\n</think>\n\nHello!", True, "", "Hello!"),
    "empty thinking, own tags": ("<think>\n\n</think>\n\nHello!", False, "", "Hello!"),
    "no thinking at all": ("Hello!\n\nBye.", False, "", "Hello!\n\nBye."),
    "nothing": ("", True, "", ""),
    "nothing but white space": (" \n ", False, "", ""),
    "answer that talks about the tags": (
        "a</think>Use <think> and </think>.",
        True,
        "a",
        "Use <think> and </think>.",
    ),
    "less-than signs in the thinking": (
        "1 < 2 and </b> and </thin air</think>ok",
        True,
        "1 < 2 and </b> and </thin air",
        "ok",
    ),
    "answer that begins like a tag": ("<thin ice>", False, "", "<thin ice>"),
    "white space inside is kept": ("a\n\n b</think>\n c  \n\n d\n", True, "a\n\n b", "c  \n\n d"),
    "opening tag quoted later in the thinking": ("x <think> y</think>z", True, "x <think> y", "z"),
    "closing tag twice": ("a</think>b</think>c", True, "a", "b</think>c"),
    "other scripts": ("思考中…\n</think>\n答案是 42 ✅", True, "思考中…", "答案是 42 ✅"),
}


@pytest.mark.parametrize(("reply", "opened", "thinking", "answer"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("size", [1, 2, 3, 5, 8, 1000])
def test_case_in_pieces_of_any_size(reply: str, opened: bool, thinking: str, answer: str, size: int) -> None:
    pieces = [reply[i : i + size] for i in range(0, len(reply), size)]
    assert split(pieces, opened=opened) == (thinking, answer)


TOKEN_CASES = {
    "pre-opened": (["Fir", "st\n", "</think>", "\n\n", "Second"], True, "First", "Second"),
    "opened by the model": (["<think>", "\n", "a", "</think>", "b"], False, "a", "b"),
    "opened by the model after a line break": (["\n", "<think>", "a", "</think>", "b"], False, "a", "b"),
    "pre-opened and repeated": (["<think>", "a", "</think>", "b"], True, "a", "b"),
    "tag typed by the user and quoted in ordinary tokens": (
        ["They wrote </", "think", "> here", "</think>", "It closes <", "think>"],
        True,
        "They wrote </think> here",
        "It closes <think>",
    ),
    "tokens in the answer are text": (["a", "</think>", "b ", "</think>", " c"], True, "a", "b </think> c"),
    "opening token inside the thinking is text": (
        ["a ", "<think>", " b", "</think>", "c"],
        True,
        "a <think> b",
        "c",
    ),
    "no thinking": (["Hello", "!"], False, "", "Hello!"),
    "never closed": (["a", " b"], True, "a b", ""),
    "closed at once": (["</think>", "\n\nb"], True, "", "b"),
    "closed without having been opened": (["</think>", "b"], False, "", "b"),
}


@pytest.mark.parametrize(
    ("pieces", "opened", "thinking", "answer"), TOKEN_CASES.values(), ids=TOKEN_CASES.keys()
)
def test_case_with_tag_tokens(pieces: list[str], opened: bool, thinking: str, answer: str) -> None:
    assert split(pieces, opened=opened, tag_tokens=True) == (thinking, answer)


def test_text_is_not_held_back_without_need() -> None:
    splitter = Splitter(opened=True, tag_tokens=False)
    assert list(splitter.text("Let me see")) == [("thinking", "Let me see")]
    assert list(splitter.text(" <")) == []
    assert list(splitter.text("3")) == [("thinking", " <3")]
    assert list(splitter.text("</think>Yes")) == [("answer", "Yes")]
    assert list(splitter.text(" <")) == [("answer", " <")]


replies = st.lists(
    st.sampled_from(["<think>", "</think>", "<", "</", "think>", "\n", " ", "a", "né", "🙂"]), max_size=12
).map("".join)


@given(replies, st.booleans(), st.lists(st.integers(0, 80), max_size=10))
def test_pieces_do_not_matter(reply: str, opened: bool, cuts: list[int]) -> None:
    places = sorted({0, len(reply), *(c for c in cuts if c <= len(reply))})
    pieces = [reply[a:b] for a, b in pairwise(places)]
    assert split(pieces, opened=opened) == split([reply], opened=opened)


@given(replies, st.booleans())
def test_nothing_is_lost_but_tags_and_white_space(reply: str, opened: bool) -> None:
    thinking, answer = split([reply], opened=opened)
    lost = len("".join(reply.split())) - len("".join((thinking + answer).split()))
    closing = len("</think>") if "</think>" in reply else 0
    assert lost % len("<think>") == 0 or (lost - closing) % len("<think>") == 0
