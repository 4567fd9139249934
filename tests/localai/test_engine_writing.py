"""A text that a model writes itself: what is in it, that it is the same each time, and what ends it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path

import msgspec
import pytest

from localai.chat.messages import ChatMessage
from localai.engine import client, protocol
from localai.engine.client import Engine
from localai.engine.context import AbortFlag
from localai.engine.serving import Served
from localai.engine.settings import Limits, LoadOptions, LogitBias, Sampling
from localai.errors import EngineError, UsageError
from tests.localai.scripted_worker import loaded

GREEDY = Sampling(temperature=0)
SUMS = [[f"What is {a} + {a + 13}?"] for a in (512, 44, 7, 380, 91)]
ODD = [["Tell me."], ["Go on."], ["Why?"], ["What is it?"]]
"""What the model is not sure of."""
BOLD = Sampling(temperature=2.0, top_p=1.0, seed=5)
USER, ASSISTANT, END = "<｜User｜>", "<｜Assistant｜>", "<｜end▁of▁sentence｜>"
BEGIN = "<｜begin▁of▁sentence｜>"

Write = Callable[..., list[protocol.Written]]


class Model:
    """The real tiny model, which writes when it is told to."""

    def __init__(self, path: Path, resources: ExitStack, **options: object) -> None:
        self.abort = AbortFlag()
        chosen = LoadOptions(**{"threads": 1, "parallel": 3, **options})  # type: ignore[arg-type]
        self.served = Served(path, chosen, self.abort, resources, lambda share: True)

    def events(
        self,
        conversations: Sequence[Sequence[str]],
        tokens: int,
        sampling: Sampling = GREEDY,
        limits: Limits = Limits(),
    ) -> Iterator[protocol.Event]:
        asked = [list(turns) for turns in conversations]
        return self.served.serve(protocol.Write(7, asked, tokens, sampling, limits))

    def write(self, *arguments: object) -> list[protocol.Written]:
        events = self.events(*arguments)  # type: ignore[arg-type]
        return [event for event in events if isinstance(event, protocol.Written)]

    def tokens(self, text: str) -> list[int]:
        return self.served._model.tokenize_document(text, special=True)


@pytest.fixture
def load(nano: Path) -> Iterator[Callable[..., Model]]:
    with ExitStack() as resources:
        yield lambda **options: Model(nano, resources, **options)


@pytest.fixture
def model(load: Callable[..., Model]) -> Model:
    return load()


def joined(written: Sequence[protocol.Written]) -> str:
    return "".join(one.text for one in written)


# ------------------------------------------------------------------------------------------- what is in it


def test_prompt_and_reply_with_all_their_markers(model: Model) -> None:
    first, *_ = model.write(SUMS, 400)
    prompt = f"{USER}What is 512 + 525?{ASSISTANT}<think>\n"
    assert first.text.startswith(prompt + "2 + 5 + 0 = 7, write 7, carry 0.\n")
    assert first.text.endswith(f"\n</think>\n\n512 + 525 = **1037**{END}")


def test_they_come_in_the_order_of_the_questions(model: Model) -> None:
    """Whichever ended first. All but the first begin as a text does."""
    written = model.write(SUMS, 420)
    begun = [one.text.split("?")[0] for one in written]
    assert begun[0] == f"{USER}What is 512 + 525"
    expected = [f"{BEGIN}{USER}{question.split('?')[0]}" for (question,) in [*SUMS, *SUMS]]
    assert begun[1:] == expected[1 : len(begun)]
    assert len(begun) > 4  # more than are written at a time
    assert [one.left for one in written] == list(range(len(written)))[::-1]


def test_read_again_it_is_the_same_tokens(model: Model) -> None:
    written = model.write(SUMS, 900, Sampling(seed=3))
    read = model.tokens(joined(written))
    assert len(read) - 1 == sum(one.tokens for one in written)
    (prompt, _) = model.served._prompter.prompt([ChatMessage("user", SUMS[0][0])])
    assert read[: len(prompt)] == prompt


def test_a_further_question_comes_after_the_bare_answer(model: Model) -> None:
    first, second, *_ = model.write([["What is 512 + 489?", "What is 6 + 7?"]], 600)
    answer = "512 + 489 = **1001**"
    assert first.text.endswith(answer + END)
    before = f"{BEGIN}{USER}What is 512 + 489?{ASSISTANT}{answer}{END}{USER}What is 6 + 7?"
    assert second.text.startswith(before + ASSISTANT + "<think>\n")


def test_no_further_question_comes_after_a_reply_without_an_answer(model: Model) -> None:
    """It was cut while the model was thinking."""
    written = model.write([["What is 512 + 489?", "What is 6 + 7?"], *SUMS], 300, GREEDY, Limits(8))
    assert "What is 6 + 7?" not in joined(written)


def test_all_questions_come_again_with_other_seeds(model: Model) -> None:
    written = model.write([["Tell me."], ["Go on."]], 600, BOLD)
    replies = [one.text.split("Tell me.")[1] for one in written if "Tell me." in one.text]
    assert len({*replies}) > 3


# -------------------------------------------------------------------------------------- the same each time


def test_the_same_questions_and_seed_give_the_same_text(load: Callable[..., Model]) -> None:
    model = load()
    first = joined(model.write(ODD, 900, BOLD))
    model.write(SUMS, 200)
    assert joined(model.write(ODD, 900, BOLD)) == first  # after other texts
    assert joined(load(threads=2).write(ODD, 900, BOLD)) == first  # shared out otherwise
    assert joined(model.write(ODD, 900, msgspec.structs.replace(BOLD, seed=6))) != first


def test_more_tokens_are_more_of_the_same_text(model: Model) -> None:
    short, long = (model.write(ODD, tokens, BOLD) for tokens in (500, 900))
    assert len(long) > len(short)
    for one, other in zip(short, long, strict=False):
        assert other.text.startswith(one.text)


def test_chats_go_on_after_it(model: Model) -> None:
    """With what the sequences hold."""
    model.write(SUMS, 200)
    request = protocol.Generate(8, [ChatMessage("user", "What is 512 + 489?")], GREEDY)
    events = list(model.served.serve(request))
    while model.served.scheduler.busy:
        events += model.served.step()
    said = "".join(event.text for event in events if isinstance(event, protocol.Answer))
    assert said == "512 + 489 = **1001**"


# ----------------------------------------------------------------------------------------- what ends it


def test_it_ends_when_there_are_enough_tokens(model: Model) -> None:
    events = list(model.events(SUMS, 300))
    written = [event for event in events if isinstance(event, protocol.Written)]
    progress = [event for event in events if isinstance(event, protocol.WriteProgress)]
    assert 300 <= sum(one.tokens for one in written) + 1 < 300 + 3  # one token each
    assert progress
    assert [one.done for one in progress] == sorted(one.done for one in progress)
    assert {one.total for one in progress} == {300}


def test_no_reply_is_longer_than_it_may_be(model: Model) -> None:
    written = model.write(SUMS, 400, GREEDY, Limits(max_tokens=24, think_budget=10))
    first = written[0].text.split("<think>\n")[1]
    thought, closed, answer = first.partition("\n</think>\n\n")
    assert closed
    assert len(model.tokens(thought)) - 1 in range(9, 12)
    assert len(model.tokens(first)) - 1 == 24
    assert answer


def test_a_reply_that_goes_round_in_circles_is_ended(load: Callable[..., Model]) -> None:
    """Long before the context is full."""
    same = Sampling(temperature=0, logit_bias=(LogitBias("7", 1000.0),))
    first, second, *_ = load(parallel=1).write([["Hi"]], 1500, same)
    assert 500 < first.text.count("7") < 700
    assert 500 < second.text.count("7") < 700


def test_questions_that_there_is_no_room_for(load: Callable[..., Model]) -> None:
    model = load(context=512, parallel=2)
    with pytest.raises(UsageError, match="no room for a question and a reply in 240 tokens"):
        model.write([["long " * 300]], 500)
    written = model.write([["long " * 300], *SUMS], 500)
    assert "long" not in joined(written)


def test_it_is_stopped(model: Model) -> None:
    events = model.events(SUMS, 5000)
    next(events)
    model.abort.set()
    with pytest.raises(EngineError, match="the writing of the text was stopped"):
        list(events)


def test_only_while_no_reply_is_under_way(model: Model) -> None:
    list(model.served.serve(protocol.Generate(8, [ChatMessage("user", "Hi")])))
    with pytest.raises(EngineError, match="is answering already"):
        model.write(SUMS, 100)


@pytest.mark.parametrize("request_", [{"conversations": []}, {"conversations": [[]]}, {"tokens": 0}])
def test_a_request_that_could_not_end_is_refused(request_: dict[str, object]) -> None:
    good = {"type": "Write", "id": 1, "conversations": [["Hi"]], "tokens": 10}
    protocol.decode_request(msgspec.msgpack.encode(good))
    with pytest.raises(msgspec.ValidationError):
        protocol.decode_request(msgspec.msgpack.encode(good | request_))


# ---------------------------------------------------------------------------------------- through the pipe


async def test_through_the_worker(nano: Path) -> None:
    engine = Engine()
    try:
        await engine.load(nano, LoadOptions(threads=1, parallel=3))
        written = [e async for e in engine.write(SUMS, 400, GREEDY) if isinstance(e, protocol.Written)]
    finally:
        await engine.close()
    assert written[0].text.endswith(f"512 + 525 = **1037**{END}")


async def test_a_worker_that_never_ends_its_text(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(client, "LONGEST_REPLY", 1000)
    script = "load(); r = receive(p.Write)\nwhile True: send(p.Written(r.id, 'x' * 100, 1, 5))"
    engine = await loaded(script)
    with pytest.raises(EngineError, match="longer than any can be"):
        [event async for event in engine.write(SUMS, 300)]
    await engine.close()
