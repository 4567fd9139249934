"""A reply in the making: which tokens are its answer."""

from __future__ import annotations

import pytest

from localai.chat.splitter import Splitter
from localai.engine.reply import Reply
from localai.engine.settings import Limits

PIECES = [b"\n\n", b" ", b"Four", b" is", b" it", b".", b"\n"]


def drawn(*tokens: int) -> tuple[str, list[int]]:
    """What is known of a reply without thinking after these tokens."""
    reply = Reply(1, Splitter(opened=False, tag_tokens=True), 5, Limits(), PIECES.__getitem__)
    for token in tokens:
        reply.add(token, None)
    list(reply.finish())
    return reply.drawn()


@pytest.mark.parametrize("before", [[], [0], [1], [0, 1, 6]])
@pytest.mark.parametrize("after", [[], [6], [1, 0]])
def test_white_space_around_an_answer_is_not_part_of_what_was_drawn(
    before: list[int], after: list[int]
) -> None:
    assert drawn(*before, 2, 3, 4, 5, *after) == ("Four is it.", [2, 3, 4, 5])


def test_nothing_is_known_of_an_answer_that_its_tokens_do_not_spell() -> None:
    assert drawn(3, 4) == ("is it", [])
    assert drawn(0, 1) == ("", [])
