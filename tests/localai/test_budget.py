"""What is offered when a conversation no longer fits, and what comes of taking the offer."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from localai.chat.budget import (
    SUMMARY_REQUEST,
    DropOldest,
    Enlarge,
    Offer,
    Shorten,
    StartAnew,
    begun_anew,
    describe,
    fits,
    offers,
    over,
    room_for_reply,
    summary_request,
    without,
)
from localai.chat.conversation import Attachment, prompt_of
from localai.chat.messages import ChatMessage, Role


def talk(*turns: str) -> list[ChatMessage]:
    """Messages from "s", "u" and "a" for their roles, such as "u:What is 2 + 2?"."""
    roles: dict[str, Role] = {"s": "system", "u": "user", "a": "assistant"}
    return [ChatMessage(roles[turn[0]], turn[2:]) for turn in turns]


LONG = talk("s:Be brief.", "u:One?", "a:1", "u:Two?", "a:2", "u:Three?", "a:3", "u:And four?")
TOKENS = [10, 100, 200, 100, 200, 100, 200, 90]


@pytest.mark.parametrize(
    ("context", "room"),
    [
        (0, 0),
        (256, 64),
        (1024, 256),
        (2048, 256),
        (2056, 257),
        (16384, 2048),
        (32768, 4096),
        (131072, 4096),
    ],
)
def test_room_for_a_reply(context: int, room: int) -> None:
    assert room_for_reply(context) == room


def test_over() -> None:
    assert over(2048 - 256, 2048) == 0
    assert over(2048 - 255, 2048) == 1
    assert over(5000, 2048) == 5000 - 2048 + 256
    assert over(2048, 2048, max_tokens=0) == 0
    assert over(2040, 2048, max_tokens=8) == 0
    assert over(2041, 2048, max_tokens=8) == 1
    assert over(2048, 2048, max_tokens=1000) == 256


@pytest.mark.parametrize(
    ("left", "max_tokens", "fit"),
    [
        (32, None, True),
        (31, None, False),
        (31, 1000, False),
        (8, 8, True),
        (7, 8, False),
        (1, 0, True),
        (0, 0, False),
    ],
)
def test_a_prompt_must_leave_enough_for_any_reply(left: int, max_tokens: int | None, fit: bool) -> None:
    assert fits(8192 - left, 8192, max_tokens) is fit


def test_a_tiny_context_may_be_used_too() -> None:
    assert fits(48, 64)
    assert not fits(49, 64)


@given(st.integers(4, 10_000), st.integers(0, 11_000), st.one_of(st.none(), st.integers(1, 5000)))
def test_something_must_go_from_what_does_not_fit(context: int, total: int, max_tokens: int | None) -> None:
    assert fits(total, context, max_tokens) or over(total, context, max_tokens) > 0


def offered(excess: int, enlarged: int | None = None) -> tuple[Offer, ...]:
    """For `LONG`, in a context of 8,192 that it exceeds by so much."""
    return offers(TOKENS, LONG, 8192 - 1024 + excess, 8192, enlarged)


def test_nothing_is_offered_for_what_fits() -> None:
    assert offered(0, 100_000) == ()


def test_the_least_harmful_comes_first() -> None:
    drop = DropOldest((1, 2), 300)
    assert offered(200) == (drop, StartAnew())
    assert offered(200, 20_000) == (Enlarge(16_384), drop, StartAnew())


@pytest.mark.parametrize(
    ("total", "most", "context"),
    [
        (9000, 131_072, 16_384),
        (15_000, 131_072, 32_768),
        (15_000, 20_000, 20_000),
        (15_000, 16_384, None),
        (15_000, 8192, None),
        (15_000, 4096, None),
        (15_000, None, None),
    ],
)
def test_the_context_is_enlarged_by_what_is_enough(total: int, most: int | None, context: int | None) -> None:
    found = [offer.context for offer in offers(TOKENS, LONG, total, 8192, most) if isinstance(offer, Enlarge)]
    assert found == ([] if context is None else [context])


@pytest.mark.parametrize(
    ("excess", "messages"), [(1, (1, 2)), (300, (1, 2)), (301, (1, 2, 3, 4)), (900, (1, 2, 3, 4, 5, 6))]
)
def test_the_fewest_oldest_turns_are_left_out(excess: int, messages: tuple[int, ...]) -> None:
    (drop,) = (offer for offer in offered(excess) if isinstance(offer, DropOldest))
    assert drop.messages == messages
    assert drop.tokens == sum(TOKENS[index] for index in messages)


def test_turns_that_would_not_suffice_are_not_offered() -> None:
    assert offered(901) == (StartAnew(),)


def test_a_single_question_has_no_turns_to_leave_out() -> None:
    question = talk("s:Be brief.", "u:" + "x" * 100)
    assert offers([10, 9000], question, 9010, 8192, None) == (Shorten(1, 9000, 9010 - 8192 + 1024),)


def test_long_messages_of_the_user_are_to_be_shortened() -> None:
    pasted = talk("u:file A", "a:long reply", "u:file B", "a:ok", "u:short")
    tokens = [3000, 5000, 4000, 5, 100]
    total = sum(tokens)
    excess = over(total, 8192)
    found = offers(tokens, pasted, total, 8192, None)
    assert found[:2] == (Shorten(2, 4000, 4000), Shorten(0, 3000, 3000))
    assert excess > 4000
    small = offers([100, 50, 1000, 5, 100], pasted, 7200, 8192, None)
    assert not any(isinstance(offer, Shorten) for offer in small)  # 32 tokens over: no message is long


def test_three_long_messages_are_enough() -> None:
    pasted = talk(*(f"u:file {number}" for number in range(9)))
    found = offers([2000] * 9, pasted, 9000, 8192, None)
    assert len([offer for offer in found if isinstance(offer, Shorten)]) == 3


def test_a_conversation_that_begins_with_a_reply() -> None:
    odd = talk("a:Hello.", "u:Hi", "a:Yes?", "u:What?")
    found = offers([500, 10, 10, 10], odd, 7300, 8192, None)
    assert found[0] == DropOldest((0,), 500)


conversations = st.lists(
    st.tuples(st.sampled_from(["system", "user", "assistant"]), st.integers(1, 3000)), min_size=1, max_size=12
).map(lambda found: ([ChatMessage(role, role) for role, _ in found], [tokens for _, tokens in found]))


@given(conversations, st.integers(256, 20_000), st.integers(0, 50_000))
def test_what_is_offered_suffices(
    conversation: tuple[list[ChatMessage], list[int]], context: int, enlarged: int
) -> None:
    messages, tokens = conversation
    total = sum(tokens)
    for offer in offers(tokens, messages, total, context, enlarged):
        assert describe(offer, messages)
        match offer:
            case Enlarge():
                assert context < offer.context <= enlarged
                assert over(total, offer.context) == 0
            case DropOldest():
                kept = without(messages, offer.messages)
                left = total - offer.tokens
                assert offer.tokens == sum(tokens[index] for index in offer.messages)
                assert over(left, context) == 0
                assert [m for m in kept if m.role == "system"] == [m for m in messages if m.role == "system"]
                questions = [index for index, m in enumerate(messages) if m.role == "user"]
                assert max(offer.messages) < questions[-1]
            case Shorten():
                assert 0 < offer.by <= offer.tokens == tokens[offer.message]
            case StartAnew():
                assert sum(m.role == "user" for m in messages) >= 1


def test_without() -> None:
    assert without(LONG, (1, 2)) == [LONG[0], *LONG[3:]]


def test_the_request_for_a_summary_leaves_out_what_has_no_reply() -> None:
    found = summary_request(LONG)
    assert found[:-1] == LONG[:-1]
    assert found[-1] == ChatMessage("user", SUMMARY_REQUEST)


def test_a_new_conversation_has_system_prompt_summary_and_question() -> None:
    system, first = begun_anew(LONG, " We counted.\n")
    assert system == LONG[0]
    assert first.role == "user"
    assert first.content == "A summary of our conversation so far:\n\nWe counted.\n\nAnd four?"
    (only,) = begun_anew(LONG[1:-1], "We counted.")
    assert only.content.endswith("We counted.")


@pytest.mark.parametrize(
    ("offer", "words"),
    [
        (DropOldest((1, 2), 300), "leave out the oldest question and its reply, “One?” (300 tokens)"),
        (
            DropOldest((1, 2, 3, 4), 1600),
            "leave out the 2 oldest questions and their replies, from “One?” to “Two?” (1,600 tokens)",
        ),
        (Shorten(1, 4000, 1234), "shorten the message “One?” by 1,234 of its 4,000 tokens"),
        (Shorten(1, 4000, 4000), "leave out the message “One?” (4,000 tokens), or most of it"),
        (Enlarge(16_384), "enlarge the context to 16,384 tokens"),
        (StartAnew(), "begin a new conversation with a summary of this one"),
    ],
)
def test_offers_in_words(offer: Offer, words: str) -> None:
    assert describe(offer, LONG) == words


def test_quotations_are_one_short_line() -> None:
    (words,) = {describe(Shorten(0, 9, 1), talk("u:" + text)) for text in ("a\x1b\n b " + "c" * 90,)}
    assert words == f"shorten the message “a b {'c' * 35}…” by 1 of its 9 tokens"


def test_a_message_with_files_is_named_by_what_the_user_said():
    content = prompt_of("What is in it?", [Attachment(name="a.txt", text="some text")])
    said = describe(Shorten(message=0, by=5, tokens=9), [ChatMessage("user", content)])
    assert said == "shorten the message “What is in it?” by 5 of its 9 tokens"
