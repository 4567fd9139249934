"""Lossless speculation: what to draft, and whether it pays.

A draft is a guess at the next tokens. The model checks all of it in one evaluation, which costs less than as
many single ones; what it would have drawn itself is kept, the first other token ends the draft. So a wrong
guess costs time and never changes the text. Here are

- `NgramDrafter`, which finds an earlier place where the text went on from the same tokens;
- `BatchCosts`, what evaluations of several tokens cost on this machine, compared with a single one;
- `DraftPolicy`, which weighs these costs against how often such guesses come true;
- `Speculation`, which puts them together for one reply, so that a generation loop needs only two calls.

Nothing is ever evaluated just to learn whether guesses come true: while the reply is written token by token,
each token tells whether the guess for it would have been right.
"""

from __future__ import annotations

from array import array
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from typing import Protocol

import numpy as np


class Drafter(Protocol):
    """What foretells the tokens of one reply."""

    @property
    def match(self) -> int:
        """How good the next guess is: the tokens in a row that it has foretold or matched; 0: no guess."""

    @property
    def foretold(self) -> int | None:
        """The guess for the next token where it costs nothing to tell; else None."""

    def append(self, token: int) -> None:
        """The next token of the reply is final."""

    def propose(self, most: int) -> list[int]:
        """The guess for the next tokens, at most so many."""

    def cost(self, count: int) -> float:
        """Seconds that guessing `count` tokens takes."""


_BITS = 30
_FACTOR, _MASK = 0x278DDE6D, (1 << _BITS) - 1
"""Of the hash of an n-gram: Fibonacci hashing, in the 30 bits that Python multiplies fastest."""


class NgramDrafter:
    """Continues as the conversation did the last time that it came by the same tokens.

    `tokens` is all that stands before the reply. Of several earlier places it follows the one it has followed
    so far, else that with the most tokens in common, else the latest. Where a long match is lost (the reply
    has changed something in what it copies) it looks for the place to go on just behind. Places are looked
    for when `match` is asked for.
    """

    SIZES = (2, 3, 5, 8)
    """N-grams that are looked up."""
    LONGEST = 64
    """More tokens in common are not counted when a place is found."""
    RESUME = 8
    """How far behind a lost match the copy may go on, and how long a match must be for that."""

    def __init__(self, tokens: Sequence[int]) -> None:
        self._tokens = list(tokens)
        bits = min((len(self._tokens) + 4096).bit_length() + 1, _BITS)
        self._shift = _BITS - bits
        self._places = [array("i", bytes(4 << bits)) for _ in self.SIZES]
        """For each size, by hash, the index of the token that followed the latest such n-gram; 0: none."""
        self._fill()
        self._at = 0
        """The index of the token that is foretold; 0: none is."""
        self._length = 0
        """Tokens before `_at` that equal those at the end."""
        self._lost = 0
        """The index of the last token that was foretold wrongly after a long match."""
        self._lost_when = 0
        self._searched = False
        self._slots = self._hashes()

    @property
    def match(self) -> int:
        """Tokens at the end that were found at the place that is followed; 1: only guessed to go on there."""
        if not self._searched:
            self._search()
        return self._length

    @property
    def foretold(self) -> int | None:
        """The token that would be proposed first."""
        return self._tokens[self._at] if self.match else None

    def append(self, token: int) -> None:
        """The next token of the reply is final. It may be any, foretold or not."""
        here = len(self._tokens)
        for places, slot in zip(self._places, self._slots, strict=False):
            places[slot] = here
        if self._at:
            if self._tokens[self._at] == token:
                self._at += 1
                self._length += 1
            else:
                if self._length >= self.RESUME or self._resuming():
                    self._lost, self._lost_when = self._at, here
                self._at = self._length = 0
        self._tokens.append(token)
        self._slots = self._hashes()
        self._searched = self._length >= self.SIZES[-1]

    def propose(self, most: int) -> list[int]:
        """The tokens that followed the match; where the text ends, it is taken to go on with that period."""
        if not self.match or most <= 0:
            return []
        draft = self._tokens[self._at : self._at + most]
        while len(draft) < most:
            draft += draft[: most - len(draft)]
        return draft

    def cost(self, count: int) -> float:
        """Seconds: none worth counting."""
        return 0.0

    def _search(self) -> None:
        """Find the place to follow. One that is followed already is left only for the longest n-gram."""
        self._searched = True
        tokens = self._tokens
        for i in range(len(self._slots) - 1, -1, -1):
            size = self.SIZES[i]
            if self._at and size < self.SIZES[-1]:
                return
            at = self._places[i][self._slots[i]]
            if at and tokens[at - size : at] == tokens[-size:]:
                self._at, self._length = at, self._common(at, size)
                return
            if size == 5 and self._resuming():
                self._resume()

    def _common(self, at: int, length: int) -> int:
        """How many tokens before `at` equal those at the end, at least `length`."""
        tokens = self._tokens
        most = min(at, self.LONGEST)
        while length < most and tokens[at - 1 - length] == tokens[-1 - length]:
            length += 1
        return length

    def _resuming(self) -> bool:
        return self._lost > 0 and len(self._tokens) - self._lost_when <= self.RESUME

    def _resume(self) -> None:
        """Follow the text behind a lost match again if the last token stands there."""
        behind = self._tokens[self._lost : min(self._lost + self.RESUME, len(self._tokens) - 1)]
        if self._tokens[-1] in behind:
            self._at, self._length = self._lost + behind.index(self._tokens[-1]) + 1, 1

    def _hashes(self) -> list[int]:
        """The slots of the n-grams at the end, as many sizes as there are tokens for."""
        values = []
        value = 0
        for token in self._tokens[: -self.SIZES[-1] - 1 : -1]:
            value = (value ^ token) * _FACTOR & _MASK
            values.append(value)
        return [values[size - 1] >> self._shift for size in self.SIZES if size <= len(values)]

    def _fill(self) -> None:
        """Enter all n-grams that have a token behind them; later ones replace earlier ones."""
        count = len(self._tokens)
        tokens = np.array(self._tokens, dtype=np.int64)
        values = np.zeros(count, dtype=np.int64)
        for size in range(1, min(self.SIZES[-1], count - 1) + 1):
            # One value for each n-gram, by where it ends; from its last token to its first, as in `_hashes`.
            values = (values[1:] ^ tokens[: count - size]) * _FACTOR & _MASK
            if size in self.SIZES:
                places = np.frombuffer(self._places[self.SIZES.index(size)], dtype=np.int32)
                places[values >> self._shift] = np.arange(size, count)


class BatchCosts:
    """What evaluations of several tokens cost on this machine; of one model, kept from reply to reply.

    All are kept relative to an evaluation of one token, since that grows with the context and with what else
    the machine does, and all of them with it. Widths that were not measured yet are foretold from the nearest
    one that was: a machine that is cheaper than usual for two tokens is so for eight.
    """

    WIDTHS = (2, 4, 8, 16, 32)
    """The tokens of an evaluation, the drafted ones and the one before them."""
    USUAL = (1.5, 2.2, 3.7, 6.5, 12.2)
    """What they cost where nothing was measured: a small Q4_0 model on two cores, which is a dear case."""
    RETRY = 256
    """After so many single evaluations what seemed dearer than usual is believed a little less."""

    def __init__(self) -> None:
        self.single = 0.0
        """Seconds of an evaluation of one token, at present."""
        self._last = deque[float](maxlen=3)
        self._singles = 0
        self._until_retry = self.RETRY
        self._measured = [0] * len(self.WIDTHS)
        self.relative = list(self.USUAL)
        """The cost of each of the widths, in evaluations of one token."""
        self.least = 0.0
        """Where fewer guesses than this share come true, no width can pay."""
        self._foretell()

    @property
    def known(self) -> bool:
        """Whether `single` is good enough to compare with."""
        return self._singles >= 3 and self.single > 0

    def begin(self) -> None:
        """A reply begins, perhaps with another length of context: weigh the next measurements more."""
        self._singles = min(self._singles, 2)

    def one(self, seconds: float) -> None:
        """An evaluation of one token took so long."""
        self._singles += 1
        self._last.append(seconds)
        middle = sorted(self._last)[len(self._last) // 2]  # one hiccup leaves no trace
        self.single += (middle - self.single) * max(1 / self._singles, 0.1)
        self._until_retry -= 1
        if self._until_retry <= 0:
            # It may have been dear because the machine was busy, and what is not used is not measured.
            self._until_retry = self.RETRY
            for i, usual in enumerate(self.USUAL):
                self.relative[i] -= max(self.relative[i] - usual, 0) / 4
            self._foretell()

    def several(self, width: int, seconds: float) -> float:
        """An evaluation of `width` tokens took so long; what that is in single ones, without hiccups."""
        near = min(range(len(self.WIDTHS)), key=lambda i: abs(self.WIDTHS[i] - width))
        usual = self.relative[near] * width / self.WIDTHS[near]
        cost = seconds / self.single
        cost = min(cost, 2 * usual) if self._measured[near] >= 3 else cost
        self._measured[near] += 1
        share = max(1 / (self._measured[near] + 1), 0.2)
        self.relative[near] = max(1.0, self.relative[near] * (1 + (cost / usual - 1) * share))
        self._foretell()
        return cost

    def _foretell(self) -> None:
        """Set the costs of the widths that were not measured, and `least`."""
        measured = [i for i, times in enumerate(self._measured) if times]
        for i, usual in enumerate(self.USUAL):
            if measured and not self._measured[i]:
                near = min(measured, key=lambda j: abs(j - i))
                scale = (self.relative[near] - 1) / (self.USUAL[near] - 1)
                self.relative[i] = 1 + (usual - 1) * min(max(scale, 0.03), 4.0)
        self.least = min((c - 1) / (w - 1) for w, c in zip(self.WIDTHS, self.relative, strict=True))


class DraftPolicy:
    """How many tokens to draft: as many as promise the most tokens a second, none where that is no gain.

    What drafts promise is learned by the length of the match, and it holds for each token of a draft: the
    fifth token behind a match of 8 is as likely as the first behind one of 12. What they may cost is limited:
    in n tokens they lose the time of 1 + 0.015 n at most, so any reply of 100 keeps 0.97 of the plain speed.
    """

    GAIN = 1.05
    """What a draft must promise, compared with the plain speed."""
    FIRST_LOSS, LOSS_PER_TOKEN = 1.0, 0.015
    MOST_AHEAD = 16.0
    """Of what was gained, in tokens' time, so much may be risked again."""
    CALIBRATE = 24
    """After so many drafts in a row one token comes plainly, to measure what that costs."""
    EXPECTED = (0.0, 0.5, 0.35, 0.6, 0.8, 0.9, 0.95, 0.97)
    """The share of tokens that come as foretold where nothing is known, by the kind of match (`_bucket`)."""
    MEMORY = 64
    """Tokens that these shares look back on."""
    FORGET = 512
    """And how slowly they are forgotten while plain tokens come: not every drafter can tell for nothing."""

    def __init__(self, costs: BatchCosts | None = None) -> None:
        self.costs = costs or BatchCosts()
        self._right = list(self.EXPECTED)
        self._watched = [0] * len(self.EXPECTED)
        self._match = 0
        self.begin()

    def begin(self) -> None:
        """A reply begins: its losses count anew, and what was learned from others counts less."""
        self.costs.begin()
        self._allowance, self._ahead, self._since_plain = self.FIRST_LOSS, 0.0, 0
        for i, expected in enumerate(self.EXPECTED):
            self._right[i] += (expected - self._right[i]) / 4
            self._watched[i] = min(self._watched[i], 4)

    def length(self, match: int, cost: Callable[[int], float] | None = None) -> int:
        """The tokens worth drafting now; 0: go on plainly.

        `match` is the drafter's; `cost` gives the seconds that drafting so many takes, None: no time.
        """
        self._match = match
        if match <= 0 or not self.costs.known or self._since_plain >= self.CALIBRATE:
            return 0
        if self._right[_bucket(match)] < self.costs.least:
            return 0
        best, best_speed = 0, self.GAIN
        may_lose = self._allowance + self._ahead
        drafted, likely, expected = 0, 1.0, 1.0
        for width, price in zip(self.costs.WIDTHS, self.costs.relative, strict=True):
            for bucket, count in _buckets(match + drafted, width - 1 - drafted):
                right = self._right[bucket]
                for _ in range(count):
                    likely *= right
                    expected += likely
            drafted = width - 1
            if cost is not None:
                price += cost(drafted) / self.costs.single
            if price - 1 > may_lose:
                break
            if expected > best_speed * price:
                best, best_speed = drafted, expected / price
            if likely < 0.05:
                break
        return best

    def measured(self, drafted: int, accepted: int, seconds: float, drafting: float = 0.0) -> None:
        """An evaluation is done: it gave `accepted` + 1 tokens, `accepted` of them as drafted.

        `drafted` 0 is a plain one. `seconds` are those of the evaluation, `drafting` those before it.
        """
        self._allowance += (accepted + 1) * self.LOSS_PER_TOKEN
        kind = _bucket(self._match)
        if not drafted:
            self._since_plain = 0
            self.costs.one(seconds)
            self._right[kind] += (self.EXPECTED[kind] - self._right[kind]) / self.FORGET
            return
        self._since_plain += 1
        if not self.costs.known:
            return
        cost = self.costs.several(drafted + 1, seconds) + drafting / self.costs.single
        self._ahead = min(self._ahead + accepted + 1 - cost, self.MOST_AHEAD)
        for bucket, count in _buckets(self._match, accepted):
            self._learn(bucket, count, True)
        if accepted < drafted:
            self.watched(self._match + accepted, False)

    def watched(self, match: int, right: bool) -> None:
        """The token after a match of that length came, and it was (not) the one foretold."""
        self._learn(_bucket(match), 1, right)

    def _learn(self, bucket: int, count: int, right: bool) -> None:
        """So many tokens came (not) as foretold."""
        self._watched[bucket] += count
        share = max(count / (self._watched[bucket] + 2), 1 - (1 - 1 / self.MEMORY) ** count)
        self._right[bucket] += (right - self._right[bucket]) * share


def _bucket(match: int) -> int:
    """The kind of a match, by its length: 1, 2-3, 4-7, ..., 32-63, and all longer ones."""
    return min(match.bit_length(), 7)


def _buckets(match: int, count: int) -> Iterator[tuple[int, int]]:
    """The kinds of `count` matches, each longer by one than the one before, and how many of each."""
    while count > 0:
        bucket = _bucket(match)
        inside = min(count, (1 << bucket) - match) if bucket < 7 else count
        yield bucket, inside
        match, count = match + inside, count - inside


class Speculation:
    """Drafts for one reply: `draft` before each evaluation, `took` after it."""

    def __init__(self, drafter: Drafter, policy: DraftPolicy) -> None:
        self._drafter = drafter
        self._policy = policy
        self._draft: list[int] = []
        self.drafted = self.accepted = 0
        policy.begin()

    def draft(self, most: int) -> list[int]:
        """The tokens to check in the next evaluation, at most so many; []: none."""
        count = min(self._policy.length(self._drafter.match, self._drafter.cost), most)
        self._draft = self._drafter.propose(count) if count > 0 else []
        return self._draft

    def took(self, tokens: Sequence[int], seconds: float) -> None:
        """The evaluation gave these tokens, at least one: those of the draft that came true, and one more.

        `seconds` is what it took, sampling included, drafting not.
        """
        drafted, accepted = len(self._draft), len(tokens) - 1
        self._policy.measured(drafted, accepted, seconds, self._drafter.cost(drafted))
        self.drafted += drafted
        self.accepted += accepted
        for token in tokens[:-1]:
            self._drafter.append(token)
        if accepted == drafted and (foretold := self._drafter.foretold) is not None:
            self._policy.watched(self._drafter.match, tokens[-1] == foretold)
        self._drafter.append(tokens[-1])
        self._draft = []
