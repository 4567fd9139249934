"""How a reply ended: what is stored of it, and what is said."""

from __future__ import annotations

import pytest
from chat_fakes import looping, overflow

from localai.chat.budget import DropOldest, Enlarge, Offer, Shorten, StartAnew, describe
from localai.chat.conversation import Message
from localai.chat.messages import ChatMessage
from tui.outcome import (
    LOOP_QUOTED,
    Outcome,
    loop_words,
    outcome_of,
    overflow_words,
    remedy_of,
    remedy_words,
    sound,
)

PROMPT = [ChatMessage("user", "a"), ChatMessage("assistant", "b"), ChatMessage("user", "c")]
DROP, ENLARGE = DropOldest((0, 1), 2000), Enlarge(16_384)


def reply(reason: str, state: str = "complete") -> Message:
    return Message(parent=None, role="assistant", state=state, finish_reason=reason)


@pytest.mark.parametrize(
    ("outcome", "words"),
    [
        (Outcome("stop"), "stop"),
        (Outcome("length", "none"), "length answer=none"),
        (Outcome("stop", "empty", "budget", 4), "stop answer=empty closed=budget left_out=4"),
    ],
)
def test_what_is_stored_is_found_again(outcome: Outcome, words: str):
    assert outcome.words() == words
    assert outcome_of(reply(words)) == outcome


@pytest.mark.parametrize(
    "text", ["", "stop", "stop at once", "stop left_out=x", "stop answer=maybe", "stop a=b=c"]
)
def test_foreign_words_are_no_error(text: str):
    found = outcome_of(reply(text))
    assert (found.answer, found.closed, found.left_out) == ("text", "", 0)


def test_an_error_says_nothing_of_an_outcome():
    assert outcome_of(reply("answer=none closed=user", "failed")) == Outcome()


def test_an_overflow_says_by_how_much_and_numbers_the_offers():
    event = overflow(Shorten(2, 5000, 1832), DROP, StartAnew(), prompt=9000, over=1832)
    words = overflow_words(event, PROMPT)
    assert "9,000 tokens" in words
    assert "1,832 tokens must go" in words
    assert words.endswith(
        f"You can (1) {describe(event.offers[0], PROMPT)}, (2) {describe(DROP, PROMPT)} "
        f"or (3) {describe(StartAnew(), PROMPT)}"
    )
    assert remedy_words(event) == "Ctrl+R does (2)"


def test_an_overflow_with_one_offer_or_none():
    assert overflow_words(overflow(ENLARGE), PROMPT).endswith(f"You can {describe(ENLARGE, PROMPT)}")
    assert remedy_words(overflow(ENLARGE)) == "Ctrl+R does that"
    assert overflow_words(overflow(), PROMPT).endswith("tokens must go")
    assert remedy_words(overflow(StartAnew())) == ""


@pytest.mark.parametrize(
    "offer", [DropOldest((0, 9), 5), DropOldest((1, 2), 5), DropOldest((-1,), 5), Shorten(3, 5, 5)]
)
def test_offers_that_cannot_be_are_dropped(offer: Offer):
    assert sound(overflow(offer, ENLARGE), PROMPT).offers == (ENLARGE,)
    assert sound(overflow(DROP, Shorten(2, 5, 5), StartAnew()), PROMPT).offers[:1] == (DROP,)


def test_the_remedy_is_the_first_offer_that_is_only_to_be_taken():
    assert remedy_of(overflow(StartAnew(), ENLARGE, DROP)) == ENLARGE
    assert remedy_of(overflow(Shorten(0, 5, 5), StartAnew())) is None


def test_a_loop_is_named_by_its_beginning():
    assert loop_words(looping("But wait,\n  again", 7)) == (
        "It repeats itself: “But wait, again” (7 times). Ctrl+G answer now · Esc stop"
    )
    said = loop_words(looping("x" * 100, part="answer", proposal="stop"))
    assert said == f"It repeats itself: “{'x' * LOOP_QUOTED}…” (5 times). Esc stop"
