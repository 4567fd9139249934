"""What the cache says it holds is what llama.cpp holds: checked against a context that only keeps books."""

from __future__ import annotations

import json
import random
from collections.abc import Sequence
from typing import Any, cast

import pytest

from localai.engine.cache import GRID, WORTH_PARKING, CachedSequence, KVCache, Parked
from localai.engine.context import Context


class Books:
    """A context that keeps the tokens of each sequence, and refuses positions that do not follow."""

    def __init__(self, size: int = 10_000) -> None:
        self.size = size
        self.held: dict[int, list[int]] = {}
        self._batch: list[tuple[int, list[int]]] = []

    def add(self, sequence: int, position: int, tokens: Sequence[int], outputs: int) -> int:
        assert position == len(self.held.get(sequence, []))
        self._batch.append((sequence, list(tokens)))
        return 0

    def evaluate(self) -> None:
        for sequence, tokens in self._batch:
            self.held.setdefault(sequence, []).extend(tokens)
        self._batch.clear()
        assert sum(map(len, self.held.values())) <= self.size

    def break_off(self) -> None:
        """Some of the batch was computed."""
        for sequence, tokens in self._batch:
            self.held.setdefault(sequence, []).extend(tokens[: len(tokens) // 2])
        self._batch.clear()

    def truncate(self, sequence: int, length: int) -> None:
        del self.held.setdefault(sequence, [])[length:]

    def save(self, sequence: int) -> bytearray:
        return bytearray(json.dumps(self.held[sequence]).encode())

    def restore(self, sequence: int, data: bytearray, length: int) -> bool:
        self.held[sequence] = json.loads(data)
        assert len(self.held[sequence]) == length
        return True


def cache_of(books: Books, count: int = 1, limit: int = 1_000_000) -> KVCache:
    return KVCache(cast(Context, books), count, limit)


def evaluate(books: Books, sequence: CachedSequence, tokens: list[int], **more: Any) -> None:
    sequence.add(tokens, 1)
    books.evaluate()
    sequence.evaluated(tokens, **more)


def read(books: Books, cache: KVCache, tokens: list[int], **more: Any) -> int:
    """Take in a prompt; how many of its tokens were there already."""
    sequence = cache.take(tokens, **more)
    assert sequence is not None
    cached = len(sequence)
    assert sequence.tokens == tokens[:cached] == books.held.get(sequence.number, [])
    evaluate(books, sequence, tokens[cached:])
    return cached


ONE = list(range(1000, 1300))
OTHER = list(range(2000, 2500))


def test_the_longest_common_beginning_is_kept() -> None:
    books = Books()
    cache = cache_of(books)
    assert read(books, cache, ONE) == 0
    assert read(books, cache, [*ONE[:200], 1, 2, 3]) == 200
    assert cache.common([*ONE[:200], 1, 5]) == 201


def test_the_last_token_of_a_prompt_is_evaluated_again_for_its_logits() -> None:
    books = Books()
    cache = cache_of(books)
    read(books, cache, ONE)
    assert cache.common(ONE) == len(ONE) - 1
    assert read(books, cache, ONE) == len(ONE) - 1
    assert read(books, cache, ONE[:1]) == 0


def test_two_conversations_stay_warm_in_one_sequence() -> None:
    books = Books()
    cache = cache_of(books)
    read(books, cache, ONE)
    assert read(books, cache, OTHER) == 0
    assert [len(p.tokens) for p in cache.parked] == [len(ONE)]
    assert read(books, cache, [*ONE, 7]) == len(ONE)
    assert read(books, cache, [*OTHER, 7]) == len(OTHER)
    assert books.held[0] == [*OTHER, 7]


def test_what_is_short_is_not_parked() -> None:
    books = Books()
    cache = cache_of(books)
    read(books, cache, ONE[: WORTH_PARKING - 1])
    read(books, cache, OTHER)
    assert not cache.parked


def test_an_edited_end_does_not_park_the_conversation() -> None:
    books = Books()
    cache = cache_of(books)
    read(books, cache, ONE)
    assert read(books, cache, [*ONE[:290], 5, 6]) == 290
    assert not cache.parked


def test_parked_conversations_stay_within_their_memory_and_the_oldest_goes_first() -> None:
    books = Books()
    cache = cache_of(books, limit=5_000)
    talks = [[start * 1000 + n for n in range(300)] for start in range(1, 6)]
    for talk in talks:
        read(books, cache, talk)
    assert 0 < cache.parked_bytes <= 5_000
    assert [p.tokens[0] for p in cache.parked] == [3000, 4000]
    assert cache.common(talks[0]) == 0
    assert cache.common(talks[3]) == 299


def test_without_memory_to_park_in_nothing_is_parked() -> None:
    books = Books()
    cache = cache_of(books, limit=0)
    read(books, cache, ONE)
    assert read(books, cache, OTHER) == 0
    assert not cache.parked
    assert read(books, cache, ONE) == 0


def test_a_conversation_is_parked_once() -> None:
    books = Books()
    cache = cache_of(books)
    for _ in range(3):
        read(books, cache, [*ONE, 1])
        read(books, cache, OTHER)
    assert len(cache.parked) == 1


def test_what_a_broken_off_batch_left_is_cut_before_the_next() -> None:
    books = Books()
    cache = cache_of(books)
    sequence = cache.take(ONE)
    assert sequence is not None
    sequence.add(ONE[:100], 0)
    books.break_off()
    sequence.failed()
    assert len(books.held[0]) == 50
    evaluate(books, sequence, ONE[:30])
    assert books.held[0] == sequence.tokens == ONE[:30]


def test_a_broken_off_sequence_is_parked_without_what_is_not_known_of_it() -> None:
    books = Books()
    cache = cache_of(books)
    read(books, cache, ONE)
    sequence = cache.sequences[0]
    sequence.add(OTHER, 0)
    books.break_off()
    sequence.failed()
    cache.park(sequence)
    assert json.loads(cache.parked[0].data) == ONE


def test_requests_at_the_same_time_get_sequences_of_their_own() -> None:
    books = Books()
    cache = cache_of(books, 2)
    first = cache.take(ONE)
    assert first is not None
    first.busy = True
    second = cache.take(ONE)
    assert second is not None
    assert second.number != first.number
    second.busy = True
    assert cache.take(ONE) is None


def test_another_conversation_takes_the_empty_sequence_first() -> None:
    books = Books()
    cache = cache_of(books, 2)
    read(books, cache, ONE)
    read(books, cache, OTHER)
    assert not cache.parked
    assert sorted(map(len, cache.sequences)) == [len(ONE), len(OTHER)]


def test_idle_conversations_give_way_when_cells_are_short() -> None:
    books = Books(600)
    cache = cache_of(books, 2)
    read(books, cache, ONE)
    read(books, cache, ONE[:1] + OTHER[:199])
    cache.sequences[1].busy = True
    assert cache.make_room(100)
    assert len(cache.sequences[0]) == len(ONE)
    assert cache.make_room(200)
    assert len(cache.sequences[0]) == 0
    assert cache.parked[0].tokens == ONE
    assert not cache.make_room(500)


def test_reproducible_replies_use_only_what_was_read_on_the_grid() -> None:
    books = Books()
    cache = cache_of(books)
    read(books, cache, ONE)
    assert read(books, cache, [*ONE, 1], reproducible=True) == 0
    sequence = cache.take([*ONE, 1], reproducible=True)
    assert sequence is not None
    for start in range(0, 2 * GRID, GRID):
        evaluate(books, sequence, ONE[start : start + GRID], reproducible=True)
    evaluate(books, sequence, ONE[2 * GRID :], reproducible=True)
    assert sequence.on_grid == 2 * GRID
    assert read(books, cache, [*ONE, 1], reproducible=True) == 2 * GRID
    sequence.cut(GRID + 5)
    assert sequence.on_grid == GRID


def test_no_other_conversation_stays_in_the_cache_beside_a_reproducible_reply() -> None:
    books = Books()
    cache = cache_of(books, 2)
    read(books, cache, ONE)
    read(books, cache, OTHER)
    assert all(map(len, cache.sequences))
    sequence = cache.take([*OTHER, 1], reproducible=True)
    assert sequence is not None
    others = [other for other in cache.sequences if other is not sequence]
    assert not any(map(len, others))
    assert not any(books.held[other.number] for other in others)
    assert [parked.tokens for parked in cache.parked] == [ONE]


def test_a_state_goes_out_and_comes_back() -> None:
    books = Books()
    cache = cache_of(books)
    read(books, cache, ONE)
    state = cache.export([*ONE, 5])
    assert state is not None
    assert cache.export(OTHER) is None
    fresh_books = Books()
    fresh = cache_of(fresh_books)
    assert fresh.adopt(Parked(state.tokens, state.on_grid, state.data))
    assert fresh.common([*ONE, 5]) == len(ONE)
    assert read(fresh_books, fresh, [*ONE, 5]) == len(ONE)


def test_a_state_holds_nothing_of_another_conversation() -> None:
    books = Books()
    cache = cache_of(books)
    shared = ONE[:100]
    read(books, cache, [*shared, *OTHER[:200], 1])
    state = cache.export([*shared, 5, 6])
    assert state is not None
    assert json.loads(state.data) == state.tokens == shared
    assert books.held[0] == cache.sequences[0].tokens == [*shared, *OTHER[:200], 1]  # it stays
    read(books, cache, ONE[200:])
    assert [len(p.tokens) for p in cache.parked] == [301]
    assert cache.export([*shared, 5, 6]) is None
    whole = cache.export([*shared, *OTHER[:200], 1, 9])
    assert whole is not None
    assert len(whole.tokens) == 301


def test_a_state_without_memory_for_it_is_not_taken() -> None:
    cache = cache_of(Books(), limit=10)
    assert not cache.adopt(Parked(ONE, 0, bytearray(11)))


@pytest.mark.parametrize("count", [1, 2, 3])
def test_whatever_happens_the_books_agree(count: int) -> None:
    dice = random.Random(count)
    books = Books(2_000)
    cache = cache_of(books, count, 8_000)
    talks = [[dice.randrange(100, 999) for _ in range(50)] for _ in range(4)]
    for _ in range(600):
        talk = dice.choice(talks)
        if dice.random() < 0.2:
            del talk[dice.randrange(1, len(talk)) :]
        if len(talk) < 400:
            talk += [dice.randrange(100, 999) for _ in range(dice.randrange(1, 60))]
        if not cache.make_room(len(talk)):
            continue
        sequence = cache.take(talk, reproducible=dice.random() < 0.1)
        assert sequence is not None
        assert sequence.tokens == talk[: len(sequence)]
        if dice.random() < 0.2:
            sequence.add(talk[len(sequence) :], 0)
            books.break_off()
            sequence.failed()
        else:
            evaluate(books, sequence, talk[len(sequence) :])
            assert books.held[sequence.number] == talk
        assert cache.parked_bytes <= 8_000
        for parked in cache.parked:
            assert json.loads(parked.data) == parked.tokens
