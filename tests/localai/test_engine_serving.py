"""A loaded model with all that can be asked of it, without pipes: the real tiny model, step by step."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path

import msgspec
import pytest

from localai import hardware
from localai.chat.budget import DropOldest
from localai.chat.messages import ChatMessage
from localai.chat.prompt import Segment
from localai.engine import protocol, serving
from localai.engine.cache import CachedSequence
from localai.engine.context import AbortFlag
from localai.engine.serving import Served
from localai.engine.settings import Limits, LoadOptions, LogitBias, Sampling
from localai.errors import UnsupportedModel, UsageError
from models import fit
from models.gguf import read_header

GREEDY = Sampling(temperature=0)
SUM = "What is 512 + 489?"
RIGHT = "512 + 489 = **1001**"


class Model:
    """A `Served` that computes what it is asked before it returns."""

    def __init__(self, path: Path, resources: ExitStack, options: LoadOptions) -> None:
        self.abort = AbortFlag()
        self.served = Served(path, options, self.abort, resources, lambda share: True)
        self.loaded = self.served.describe("")
        self._id = 0

    def number(self) -> int:
        self._id += 1
        return self._id

    def finish(self, *events: protocol.Event) -> list[protocol.Event]:
        found = list(events)
        while self.served.scheduler.busy:
            found += self.served.step()
        return found

    def ask(
        self, *texts: str, sampling: Sampling = GREEDY, limits: Limits = Limits()
    ) -> list[protocol.Event]:
        """The reply to texts of user, assistant, user, ..."""
        request = protocol.Generate(self.number(), talk(*texts), sampling, limits)
        return self.finish(*self.served.serve(request))

    def idle(self) -> None:
        """Do all that there is for idle time."""
        while self.served.scheduler.reads_ahead:
            self.served.scheduler.ahead()

    def status(self) -> protocol.StatusReport:
        (report,) = self.served.serve(protocol.Status(self.number()))
        assert isinstance(report, protocol.StatusReport)
        return report

    def save(self, *texts: str) -> list[bytes]:
        parts = list(self.served.serve(protocol.Save(self.number(), talk(*texts))))
        assert all(isinstance(part, protocol.StatePart) for part in parts)
        assert [part.last for part in parts] == [False] * (len(parts) - 1) + [True]  # type: ignore[union-attr]
        return [part.data for part in parts]  # type: ignore[union-attr]

    def restore(self, parts: list[bytes]) -> int:
        events: list[protocol.Event] = []
        for index, data in enumerate(parts):
            events += self.served.serve(protocol.Restore(7, data, index == len(parts) - 1))
        (restored,) = events
        assert isinstance(restored, protocol.Restored)
        return restored.tokens


def talk(*texts: str) -> list[ChatMessage]:
    return [ChatMessage("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(texts)]


def text(events: list[protocol.Event], kind: type[protocol.Thinking | protocol.Answer]) -> str:
    return "".join(event.text for event in events if isinstance(event, kind))


def answer(events: list[protocol.Event]) -> str:
    return text(events, protocol.Answer)


def done(events: list[protocol.Event]) -> protocol.Done:
    assert isinstance(events[-1], protocol.Done), events[-1]
    return events[-1]


Loader = Callable[..., Model]


@pytest.fixture
def load(nano: Path) -> Iterator[Loader]:
    with ExitStack() as resources:
        yield lambda **options: Model(nano, resources, LoadOptions(**{"threads": 1, **options}))


@pytest.fixture
def model(load: Loader) -> Model:
    return load()


# ----------------------------------------------------------------------------------------- the second turn


def test_after_a_reply_the_cache_is_brought_to_what_the_next_prompt_begins_with(model: Model) -> None:
    first = model.ask(SUM)
    assert answer(first) == RIGHT
    model.idle()
    second = done(model.ask(SUM, RIGHT, "What is 6 + 7?"))
    alone = done(model.ask("What is 6 + 7?", limits=Limits(max_tokens=1))).usage.prompt_tokens
    # What is left to read is the new message: its text, the assistant's marker and the opened tag.
    assert second.usage.prompt_tokens - second.usage.cached_tokens <= alone - 1
    assert second.usage.cached_tokens > done(first).usage.prompt_tokens


def test_without_idle_time_the_next_turn_reads_the_answer_itself(model: Model) -> None:
    first = done(model.ask(SUM))
    second = done(model.ask(SUM, RIGHT, "What is 6 + 7?"))
    assert second.usage.cached_tokens <= first.usage.prompt_tokens
    assert answer(model.ask(SUM, RIGHT, "What is 6 + 7?")) == "6 + 7 = **13**"


def test_the_drawn_tokens_of_a_reply_are_kept(model: Model) -> None:
    """A reply may be written in tokens that its text would not give again."""
    prompter = model.served._prompter
    drawn = [t for letter in RIGHT for t in prompter.plain(letter)]
    assert drawn != list(prompter.plain(RIGHT))
    prompter.remember(RIGHT, drawn)
    opening = prompter.opening(talk(SUM, RIGHT, "More"))
    assert any(opening[i : i + len(drawn)] == drawn for i in range(len(opening)))
    assert prompter.opening(talk(RIGHT)) == prompter.opening(talk(RIGHT))
    asked = prompter.opening(talk(RIGHT))
    assert not any(asked[i : i + len(drawn)] == drawn for i in range(len(asked)))


def test_a_reply_is_remembered_as_it_was_drawn(model: Model) -> None:
    events = list(model.served.serve(protocol.Generate(1, talk(SUM), GREEDY)))
    (generation,) = model.served.scheduler.requests
    model.finish(*events)
    text, tokens = generation.drawn()
    assert text == RIGHT
    assert model.served._prompter.drawn(talk(SUM, RIGHT)) == {RIGHT: tokens}
    assert b"".join(map(model.served._voice.model.piece, tokens)).decode() == RIGHT


def test_a_cancelled_prompt_is_not_read_in_idle_time(model: Model) -> None:
    list(model.served.serve(protocol.Generate(1, talk("What is 1 + 1? " * 100), GREEDY)))
    events = list(model.served.serve(protocol.Cancel(1)))
    assert done(events).reason == "cancelled"
    assert not model.served.scheduler.reads_ahead


def test_a_format_that_fails_on_the_next_prompt_harms_no_reply(load: Loader) -> None:
    model = load(parallel=3)

    def fails(messages: object) -> list[Segment]:
        raise UnsupportedModel("too long for this template")

    model.served._prompter.form.opening = fails  # type: ignore[method-assign]
    events: list[protocol.Event] = []
    for number in (1, 2, 3):
        events += model.served.serve(protocol.Generate(number, talk(SUM), GREEDY))
    events = model.finish(*events)
    assert sorted(event.id for event in events if isinstance(event, protocol.Done)) == [1, 2, 3]
    assert not any(sequence.busy for sequence in model.served.scheduler.cache.sequences)


def test_a_draft_is_read_while_its_user_still_writes(model: Model) -> None:
    question = "What is 1 + 1? " * 40 + "What is 6 + 7?"
    list(model.served.serve(protocol.Prefill(5, talk(question[:-5]))))
    model.idle()
    usage = done(model.ask(question, limits=Limits(max_tokens=1))).usage
    assert usage.cached_tokens > 0.9 * usage.prompt_tokens


def test_a_request_ends_the_reading_ahead(model: Model) -> None:
    list(model.served.serve(protocol.Prefill(5, talk("What is 1 + 1? " * 100))))
    scheduler = model.served.scheduler
    scheduler.ahead()
    assert model.status().live[0] < 500  # it is not done
    list(model.served.serve(protocol.Generate(6, talk(SUM), GREEDY, Limits(max_tokens=1))))
    assert not scheduler.reads_ahead
    model.finish()


def test_a_reply_without_an_answer_is_not_expected_back(model: Model) -> None:
    model.ask(SUM, limits=Limits(max_tokens=5))
    model.idle()
    follow = f"{SUM}\n\nAdd 1 and 2."  # the chat joins questions that were not answered
    usage = done(model.ask(follow, limits=Limits(max_tokens=1))).usage
    plain = len(model.served._prompter.plain(SUM))
    assert usage.cached_tokens >= plain


def test_what_is_parked_is_bounded_by_the_memory_that_is_free(
    nano: Path, load: Loader, monkeypatch: pytest.MonkeyPatch
) -> None:
    header = read_header(nano)
    taken = header.tensor_bytes + fit.context_bytes(fit.Shape.of(header), 2048)
    one, other = "What is 1 + 1? " * 40, "What is 2 + 2? " * 40
    for free, parked in ((taken + (1 << 30), 1), (taken, 0)):
        monkeypatch.setattr(hardware, "available_memory", lambda free=free: free)
        model = load(context=2048)
        model.ask(one, limits=Limits(max_tokens=1))
        model.ask(other, limits=Limits(max_tokens=1))
        assert len(model.status().parked) == parked


def test_two_conversations_stay_warm(model: Model) -> None:
    one, other = "What is 1 + 1? " * 40, "What is 2 + 2? " * 40
    model.ask(one, limits=Limits(max_tokens=1))
    first = done(model.ask(other, limits=Limits(max_tokens=1))).usage
    assert first.cached_tokens < 20
    again = done(model.ask(one, limits=Limits(max_tokens=1))).usage
    assert again.cached_tokens >= again.prompt_tokens - 4  # the assistant's marker and the opened tag
    report = model.status()
    assert len(report.live) == 1
    assert report.parked_bytes > 0
    assert report.memory > report.parked_bytes


def test_a_parked_conversation_goes_on_as_if_it_had_never_left(model: Model) -> None:
    talk_so_far = (SUM, RIGHT, "What is 6 + 7? " * 20)
    straight = answer(model.ask(*talk_so_far))
    model.ask("What is 2 + 2? " * 40, limits=Limits(max_tokens=1))
    assert model.status().parked
    assert answer(model.ask(*talk_so_far)) == straight


# ------------------------------------------------------------------------------------------ saved states


def test_a_state_is_taken_back_by_a_fresh_worker(load: Loader) -> None:
    before, after = load(), load()
    question = "What is 1 + 1? " * 40 + SUM
    reply = answer(before.ask(question))
    before.idle()
    parts = before.save(question, reply)
    assert after.restore(parts) == len(before.served.scheduler.cache.sequences[0])
    follow = (question, reply, "What is 6 + 7?")
    warm, cold = done(after.ask(*follow)), done(load().ask(*follow))
    assert warm.usage.prompt_tokens - warm.usage.cached_tokens < 15
    assert cold.usage.cached_tokens == 0
    assert answer(after.ask(*follow)) == answer(before.ask(*follow))


def test_the_drawn_tokens_come_with_the_state(load: Loader) -> None:
    before, after = load(), load()
    question = "What is 1 + 1? " * 10
    drawn = [t for letter in RIGHT for t in before.served._prompter.plain(letter)]
    before.served._prompter.remember(RIGHT, drawn)
    before.ask(question, RIGHT, "Hi", limits=Limits(max_tokens=1))
    assert after.restore(before.save(question, RIGHT)) > 0
    assert after.served._prompter.drawn(talk(question, RIGHT)) == {RIGHT: drawn}


@pytest.mark.parametrize("options", [{"kv_type": "q8_0"}, {"flash_attention": "off"}])
def test_a_state_of_other_settings_is_ignored(load: Loader, options: dict[str, str]) -> None:
    before, after = load(), load(**options)
    before.ask("What is 1 + 1? " * 40, limits=Limits(max_tokens=1))
    assert after.restore(before.save("What is 1 + 1? " * 40)) == 0
    assert answer(after.ask("What is 6 + 7?")) == "6 + 7 = **13**"


def test_a_damaged_state_is_ignored(load: Loader) -> None:
    before, after = load(), load()
    question = "What is 1 + 1? " * 40
    before.ask(question, limits=Limits(max_tokens=1))
    head, *rest = before.save(question)
    data = b"".join(rest)
    for parts in ([b""], [b"\0\0"], [head[:10], data], [b"\xff" * 100], [data, head], [head]):
        assert after.restore(parts) == 0
    for harmed in (data[:-100], data + b"x", bytes(64) + data[64:], data[:-1] + bytes([data[-1] ^ 1])):
        assert after.restore([head, harmed]) == 0
    assert not after.status().parked
    assert after.restore([head, data]) > 300


@pytest.mark.parametrize(
    "change",
    [
        {"fingerprint": "other"},
        {"tokens": [512]},
        {"tokens": []},
        {"tokens": [5] * 5000},  # more than the context has
        {"on_grid": 10**6},
        {"on_grid": -128},
        {"replies": {"Hi": [-1]}},
        {"size": 5},
    ],
)
def test_a_state_that_does_not_say_what_it_is_is_ignored(load: Loader, change: dict[str, object]) -> None:
    before, after = load(), load()
    before.ask("What is 1 + 1? " * 40, limits=Limits(max_tokens=1))
    head, *rest = before.save("What is 1 + 1? " * 40)
    state = msgspec.structs.replace(serving._states.decode(head[4:]), **change)
    changed = msgspec.msgpack.encode(state)
    assert after.restore([len(changed).to_bytes(4, "little") + changed, *rest]) == 0


def test_keys_and_values_that_are_not_those_of_the_tokens_are_read_anew(load: Loader) -> None:
    """llama.cpp takes them, but they end elsewhere."""
    before, after = load(), load()
    before.ask("What is 1 + 1? " * 40, limits=Limits(max_tokens=1))
    head, *rest = before.save("What is 1 + 1? " * 40)
    state = serving._states.decode(head[4:])
    longer = msgspec.structs.replace(state, tokens=[*state.tokens, 5])
    changed = msgspec.msgpack.encode(longer)
    assert after.restore([len(changed).to_bytes(4, "little") + changed, *rest]) > 0
    assert done(after.ask("What is 1 + 1? " * 40, limits=Limits(max_tokens=1))).usage.cached_tokens == 0


def test_there_is_nothing_to_save_of_what_was_never_read(model: Model) -> None:
    assert model.save("Never asked.") == [b""]


# -------------------------------------------------------------------------------------- thinking and stops


def test_the_budget_closes_the_thinking(model: Model) -> None:
    free = done(model.ask(SUM))
    events = model.ask(SUM, limits=Limits(think_budget=20))
    end = done(events)
    assert free.usage.thinking_tokens > 60
    assert not free.think_closed
    assert 20 <= end.usage.thinking_tokens <= 22  # the closing tag is one of them
    assert end.think_closed
    assert end.answer == "text"
    assert "</think>" not in text(events, protocol.Thinking)


def test_no_thinking_at_all(model: Model) -> None:
    events = model.ask("Hello!", limits=Limits(think_budget=0))
    assert text(events, protocol.Thinking) == ""
    assert done(events).think_closed
    assert answer(events).startswith("Hello! I am r1-nano")


def test_a_budget_that_is_not_used_changes_nothing(model: Model) -> None:
    events = model.ask(SUM, limits=Limits(think_budget=1000))
    assert answer(events) == RIGHT
    assert not done(events).think_closed


@pytest.mark.parametrize("batch", [1, 2, 4, 16])
def test_the_closing_comes_in_pieces_where_the_batch_is_small(load: Loader, batch: int) -> None:
    limits = Limits(think_budget=20)
    small, usual = load(batch=batch).ask(SUM, limits=limits), load().ask(SUM, limits=limits)
    assert done(small).think_closed
    assert done(small).usage == done(usual).usage
    assert done(load(batch=batch).ask("Hello!", limits=Limits(think_budget=0))).think_closed


def test_many_close_their_thinking_at_once(load: Loader) -> None:
    model = load(parallel=8, batch=16)
    events: list[protocol.Event] = []
    for number in range(1, 9):
        events += model.served.serve(protocol.Generate(number, talk(SUM), GREEDY))
    while {event.id for event in events if isinstance(event, protocol.Thinking)} != set(range(1, 9)):
        events += model.served.step()
    for number in range(1, 9):
        list(model.served.serve(protocol.AnswerNow(number)))
    ends = [event for event in model.finish(*events) if isinstance(event, protocol.Done)]
    assert len(ends) == 8
    assert any(end.think_closed for end in ends)
    assert answer(model.ask(SUM)) == RIGHT


def test_an_error_in_the_middle_of_a_batch_leaves_nothing_for_the_next(model: Model) -> None:
    list(model.served.serve(protocol.Generate(1, talk(SUM), GREEDY)))
    model.served._context.add(0, 0, [1, 2, 3], 1)
    assert model.served.drop() == [1]
    assert answer(model.ask(SUM)) == RIGHT


def test_answer_now(model: Model) -> None:
    events = list(model.served.serve(protocol.Generate(9, talk(SUM), GREEDY)))
    while not text(events, protocol.Thinking):
        events += model.served.step()
    list(model.served.serve(protocol.AnswerNow(9)))
    end = done(model.finish(*events))
    assert end.think_closed
    assert end.usage.thinking_tokens < 20


def test_a_step_ends_early_when_a_request_waits(model: Model) -> None:
    events = list(model.served.serve(protocol.Generate(9, talk(SUM), GREEDY)))
    while not text(events, protocol.Thinking):
        events += model.served.step()
    scheduler = model.served.scheduler
    compute, computed = scheduler._compute, []

    def counted(sequences: list[CachedSequence], work: float) -> float | None:
        computed.append(work)
        scheduler.hurry = True
        return compute(sequences, work)

    scheduler._compute = counted  # type: ignore[method-assign]
    assert list(model.served.step()) == []
    assert len(computed) == 1


def test_answer_now_after_the_thinking_does_nothing(model: Model) -> None:
    events = list(model.served.serve(protocol.Generate(9, talk(SUM), GREEDY)))
    while not answer(events):
        events += model.served.step()
    list(model.served.serve(protocol.AnswerNow(9)))
    events = model.finish(*events)
    assert answer(events) == RIGHT
    assert not done(events).think_closed


@pytest.mark.parametrize("count", [5, 20, 60, 85])
def test_a_reply_that_was_cut_is_gone_on_with(model: Model, count: int) -> None:
    whole = model.ask(SUM)
    cut = model.ask(SUM, limits=Limits(max_tokens=count))
    thinking, said = text(cut, protocol.Thinking), answer(cut)
    begun = protocol.Begun(thinking, said, answering=done(cut).answer != "none")
    rest = model.finish(*model.served.serve(protocol.Generate(7, talk(SUM), GREEDY, begun=begun)))
    assert thinking + text(rest, protocol.Thinking) == text(whole, protocol.Thinking)
    assert said + answer(rest) == RIGHT
    assert answer(model.ask(SUM, RIGHT, "What is 2 + 3?")) == "2 + 3 = **5**"


def test_an_answer_that_never_came_is_not_an_empty_one(model: Model) -> None:
    assert done(model.ask(SUM, limits=Limits(max_tokens=5))).answer == "none"
    assert done(model.ask(SUM)).answer == "text"
    end_token = model.served._voice.model.tokenize("<｜end▁of▁sentence｜>", special=True)[0]
    bias = Sampling(temperature=0, logit_bias=(LogitBias(end_token, 1000.0),))
    never = done(model.ask(SUM, sampling=bias))
    assert (never.answer, never.reason) == ("none", "stop")
    empty = done(model.ask(SUM, sampling=bias, limits=Limits(think_budget=0)))
    assert (empty.answer, empty.reason) == ("empty", "stop")


def test_a_stop_text_ends_the_answer_and_is_not_part_of_it(model: Model) -> None:
    events = model.ask(SUM, limits=Limits(stop=("= **1", "never")))
    assert answer(events) == "512 + 489 "
    assert (done(events).reason, done(events).stop) == ("stop", "= **1")
    assert "=" in text(events, protocol.Thinking)


def test_a_repeating_passage_is_told_once(model: Model) -> None:
    again = model.served._voice.model.tokenize("1", special=False)[0]
    bias = Sampling(temperature=0, logit_bias=(LogitBias(again, 1000.0),))
    events = model.ask(SUM, sampling=bias, limits=Limits(max_tokens=1200))
    (loop,) = [event for event in events if isinstance(event, protocol.Looping)]
    assert (loop.part, loop.proposal) == ("thinking", "answer-now")
    assert loop.times >= 4
    assert set(loop.text) == {"1"}
    assert done(events).reason == "length"
    assert not [e for e in model.ask(SUM) if isinstance(e, protocol.Looping)]


# ------------------------------------------------------------------------------------------------ sampling


def test_penalties_change_what_is_drawn(model: Model) -> None:
    plain = text(model.ask(SUM), protocol.Thinking)
    for change in ({"repeat_penalty": 1.8}, {"frequency_penalty": 3.0}, {"presence_penalty": 3.0}):
        sampling = Sampling(temperature=0, penalty_last_n=64, **change)  # type: ignore[arg-type]
        assert (
            text(model.ask(SUM, sampling=sampling, limits=Limits(max_tokens=60)), protocol.Thinking) != plain
        )
    off = Sampling(temperature=0, repeat_penalty=1.8, penalty_last_n=0)
    assert text(model.ask(SUM, sampling=off), protocol.Thinking) == plain


def test_a_penalty_counts_the_prompt(model: Model) -> None:
    sampling = Sampling(temperature=0, presence_penalty=100.0, penalty_last_n=-1)
    asked = set(model.served._prompter.plain(SUM))
    first = model.ask(SUM, sampling=sampling, limits=Limits(max_tokens=1))
    assert done(first).usage.completion_tokens == 1
    drawn = model.served._voice.model.tokenize(text(first, protocol.Thinking), special=False)
    assert not asked & set(drawn)


def test_a_penalty_counts_the_tokens_that_close_the_thinking(model: Model) -> None:
    """Here it outweighs the bias for a token that closed it."""
    voice = model.served._voice
    last = voice.closing[-1]
    bias = (LogitBias(last, 500.0),)
    limits = Limits(think_budget=0, max_tokens=len(voice.new_line) + len(voice.closing) + 1)
    text = voice.model.piece(last).decode()
    again = model.ask(SUM, sampling=Sampling(temperature=0, logit_bias=bias), limits=limits)
    assert done(again).answer == "empty"  # only white space came
    assert text.isspace()
    penalized = Sampling(temperature=0, logit_bias=bias, presence_penalty=1000.0, penalty_last_n=64)
    assert answer(model.ask(SUM, sampling=penalized, limits=limits)).strip()


def test_a_bias_forbids_a_token_by_number_or_text(model: Model) -> None:
    for token in ("**", model.served._voice.model.tokenize(" **", special=False)[0]):
        sampling = Sampling(temperature=0, logit_bias=(LogitBias(token, float("-inf")),))
        assert answer(model.ask(SUM, sampling=sampling, limits=Limits(max_tokens=150))) != RIGHT


@pytest.mark.parametrize("token", ["many tokens in this text", 512, -1])
def test_a_bias_on_what_is_not_a_token(model: Model, token: int | str) -> None:
    sampling = Sampling(logit_bias=(LogitBias(token, 1.0),))
    with pytest.raises(UsageError, match="bias"):
        model.ask(SUM, sampling=sampling)
    assert answer(model.ask(SUM)) == RIGHT


@pytest.mark.parametrize("top_k", [0, 5])
def test_few_candidates_are_drawn_like_all(model: Model, top_k: int) -> None:
    """Leaving out what cannot be drawn before llama.cpp sees it changes no probability."""
    from localai.engine.sampler import Sampler

    sampling = Sampling(temperature=1.5, top_p=0.9, top_k=top_k, min_p=0.01)
    model.ask(SUM, limits=Limits(max_tokens=1))
    sequence = model.served.scheduler.cache.sequences[0]
    index = sequence.add(model.served._prompter.plain("What is 3"), 1) + 3
    model.served._context.evaluate()
    shares = []
    for everything in (False, True):
        with Sampler(sampling, model.served._voice.model, 2048) as sampler:
            sampler._all = everything
            drawn = [sampler.sample(model.served._context, index) for _ in range(4000)]
        shares.append({token: drawn.count(token) / 4000 for token in set(drawn)})
    for token in shares[0].keys() | shares[1].keys():
        assert abs(shares[0].get(token, 0) - shares[1].get(token, 0)) < 0.05
    assert len(shares[0]) > 1


def test_a_seed_gives_the_same_text_whatever_is_in_the_cache(load: Loader) -> None:
    hot = Sampling(temperature=2.0, top_p=1.0, seed=11)
    question = "What is 1 + 1? " * 30 + SUM
    first = text(
        load(threads=None).ask(question, sampling=hot, limits=Limits(max_tokens=200)), protocol.Thinking
    )
    model = load(threads=None)
    model.ask(question[:200], sampling=Sampling(temperature=1.0), limits=Limits(max_tokens=50))
    model.idle()
    for _ in range(3):
        again = model.ask(question, sampling=hot, limits=Limits(max_tokens=200))
        assert text(again, protocol.Thinking) == first
        model.ask("What is 2 + 2? " * 30, limits=Limits(max_tokens=3))


def test_threads_are_fixed_while_a_reply_has_a_seed(load: Loader) -> None:
    model = load(threads=None)
    fixed = [model.served.governor.fixed]
    list(model.served.serve(protocol.Generate(1, talk(SUM), Sampling(seed=1), Limits(max_tokens=3))))
    list(model.served.serve(protocol.Generate(2, talk(SUM), GREEDY, Limits(max_tokens=1))))
    fixed.append(model.served.governor.fixed)
    model.finish()
    fixed.append(model.served.governor.fixed)
    assert fixed == [False, True, False]
    assert load(threads=2).served.governor.fixed


@pytest.mark.parametrize("seed", [0, 2**32 - 1, -1, 2**40])
def test_any_seed_is_one(model: Model, seed: int) -> None:
    hot = Sampling(temperature=3.0, top_p=1.0, seed=seed)
    one, two = (
        text(model.ask(SUM, sampling=hot, limits=Limits(max_tokens=30)), protocol.Thinking) for _ in "ab"
    )
    assert one == two


# ------------------------------------------------------------------------------------ the honest context


def test_what_a_conversation_costs(model: Model) -> None:
    (counted,) = model.served.serve(protocol.Count(3, talk(SUM, RIGHT, "What is 6 + 7?")))
    assert isinstance(counted, protocol.Counted)
    assert counted.cached == 0
    assert counted.prompt_s is None
    assert sum(counted.messages) == counted.total
    usage = done(model.ask(SUM, RIGHT, "What is 6 + 7?")).usage
    assert counted.total == usage.prompt_tokens
    (again,) = model.served.serve(protocol.Count(4, talk(SUM, RIGHT, "What is 6 + 7?")))
    assert isinstance(again, protocol.Counted)
    assert again.total - 4 <= again.cached < again.total


def test_a_conversation_that_does_not_fit_is_told_with_what_can_be_done(load: Loader) -> None:
    model = load(context=256)
    texts = [SUM if i % 2 == 0 else RIGHT for i in range(21)]
    (overflow,) = model.ask(*texts)
    assert isinstance(overflow, protocol.Overflow)
    assert overflow.context == 256
    assert overflow.over > overflow.prompt_tokens - 256
    kinds = [type(offer).__name__ for offer in overflow.offers]
    assert kinds[0] == "Enlarge"
    assert {"DropOldest", "StartAnew"} <= set(kinds)
    drop = next(offer for offer in overflow.offers if isinstance(offer, DropOldest))
    left = [text for index, text in enumerate(texts) if index not in drop.messages]
    assert answer(model.ask(*left[-3:])) == RIGHT
    assert isinstance(model.ask(*left, limits=Limits(max_tokens=1))[-1], protocol.Done)


def question_of(model: Model, tokens: int) -> str:
    """A question whose prompt has about so many tokens, at most five fewer."""
    question = ""
    while model.served._prompter.count(talk(question + " 1 + 1"))[0] <= tokens:
        question += " 1 + 1"
    return question


def test_a_prompt_that_leaves_hardly_any_room_is_told_before_it_runs(load: Loader) -> None:
    model = load(context=512)
    question = question_of(model, 500)
    (overflow,) = model.ask(question)
    assert isinstance(overflow, protocol.Overflow)
    assert overflow.prompt_tokens < overflow.context == 512
    assert overflow.over > 100  # so that a reply has room, too
    assert {type(offer).__name__ for offer in overflow.offers} == {"Enlarge", "Shorten"}
    end = done(model.ask(question, limits=Limits(max_tokens=8)))
    assert (end.reason, end.usage.completion_tokens) == ("length", 8)
    assert isinstance(model.ask(question, limits=Limits(max_tokens=30))[-1], protocol.Overflow)


def never(*_: object, **__: object) -> list[int]:
    raise AssertionError("all of it is tokenized")


def test_a_text_that_cannot_fit_is_refused_without_finding_all_its_tokens(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    llama = model.served._voice.model
    tokenize = llama.tokenize
    monkeypatch.setattr(
        llama,
        "tokenize",
        lambda text, *, special: (tokenize if len(text) < 20_000 else never)(text, special=special),
    )
    question = talk(SUM, RIGHT, "What is 1 + 1? " * 70_000)
    (overflow,) = model.served.serve(protocol.Generate(1, question, GREEDY))
    assert isinstance(overflow, protocol.Overflow)
    assert overflow.prompt_tokens > overflow.over > 500_000
    assert [type(offer).__name__ for offer in overflow.offers] == ["Shorten", "StartAnew"]
    (counted,) = model.served.serve(protocol.Count(2, question))
    assert isinstance(counted, protocol.Counted)
    assert counted.total == sum(counted.messages) == overflow.prompt_tokens
    assert not list(model.served.serve(protocol.Prefill(3, question)))
    assert not model.served.scheduler.reads_ahead


def test_the_guess_of_how_many_tokens_is_good(model: Model) -> None:
    text = "What is 1 + 1? " * 70_000
    found = model.served._estimate(talk(text))
    assert found is not None
    assert found[0] == pytest.approx(len(model.served._voice.model.tokenize(text, special=False)), rel=0.01)


def test_the_longest_piece_is_the_bound_that_is_told(model: Model) -> None:
    llama = model.served._voice.model
    pieces = [llama.piece(token) for token in range(llama.vocabulary)]
    assert llama.longest_piece == max(map(len, pieces))
    assert model.served._estimate(talk("x" * 999_000)) is None  # it is tokenized at once


def test_a_long_text_that_may_fit_is_read(load: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    model = load(context=512)
    monkeypatch.setattr(serving, "QUICKLY_READ", 100)
    most = 512 * model.served._voice.model.longest_piece
    assert model.served._estimate(talk("x" * (most - 1))) is None
    assert model.served._estimate(talk("x" * most)) is not None
    assert done(model.ask("What is 6 + 7? " * 10, limits=Limits(max_tokens=1)))


# ---------------------------------------------------------------------------------------- several at once


def test_a_reply_does_not_stand_still_while_another_prompt_is_read(load: Loader) -> None:
    model = load(parallel=2)
    events = list(model.served.serve(protocol.Generate(1, talk(SUM), GREEDY)))
    while not any(isinstance(event, protocol.Thinking) for event in events):
        events += model.served.step()
    model.served.scheduler.pieces.size = 512
    long = talk("What is 1 + 1? " * 60)
    reading = list(model.served.serve(protocol.Generate(2, long, GREEDY, Limits(max_tokens=1))))
    while not any(isinstance(event, protocol.Done) and event.id == 2 for event in reading):
        reading += model.served.step()
    model.finish()
    read = [event.done for event in reading if isinstance(event, protocol.PrefillProgress)]
    assert len(read) > 3
    assert all(after - before <= 128 for before, after in pairwise(read))


def test_requests_are_decoded_together(load: Loader) -> None:
    model = load(parallel=3)
    asked = {1: "What is 47 + 85?", 2: SUM, 3: "What is 6 + 7?"}
    alone = {number: answer(model.ask(question)) for number, question in asked.items()}
    events: list[protocol.Event] = []
    for number, question in asked.items():
        events += model.served.serve(protocol.Generate(100 + number, talk(question), GREEDY))
    events = model.finish(*events)
    for number in asked:
        own = [event for event in events if getattr(event, "id", 0) == 100 + number]
        assert answer(own) == alone[number]
    firsts = [event.id - 100 for event in events if isinstance(event, protocol.Thinking)]
    assert firsts.index(2) < len(firsts) - 1 - firsts[::-1].index(1)  # in turns, not one after the other


def test_more_requests_than_sequences_wait(load: Loader) -> None:
    model = load(parallel=2)
    events: list[protocol.Event] = []
    for number in range(1, 6):
        events += model.served.serve(protocol.Generate(number, talk(SUM), GREEDY))
    events = model.finish(*events)
    assert sorted(event.id for event in events if isinstance(event, protocol.Done)) == [1, 2, 3, 4, 5]
    for number in range(1, 6):
        assert answer([event for event in events if getattr(event, "id", 0) == number]) == RIGHT


def test_a_request_without_room_beside_the_others_waits(load: Loader) -> None:
    model = load(parallel=2, context=1024)
    events: list[protocol.Event] = []
    for number in (1, 2):
        question = talk("What is 1 + 1? " * 60)
        events += model.served.serve(protocol.Generate(number, question, GREEDY, Limits(max_tokens=100)))
    events = model.finish(*events)
    ends = {event.id: event for event in events if isinstance(event, protocol.Done)}
    assert {end.reason for end in ends.values()} <= {"length", "stop"}
    assert len(ends) == 2


@pytest.mark.parametrize("options", [{"parallel": 0}, {"parallel": 65}, {"parallel": 8, "batch": 7}])
def test_impossible_numbers_of_requests(load: Loader, options: dict[str, int]) -> None:
    with pytest.raises(UsageError, match="requests at once"):
        load(**options)


def test_one_of_several_is_cancelled(load: Loader) -> None:
    model = load(parallel=2)
    events: list[protocol.Event] = []
    for number in (1, 2):
        events += model.served.serve(protocol.Generate(number, talk(SUM), GREEDY))
    for _ in range(5):
        events += model.served.step()
    events += model.served.serve(protocol.Cancel(1))
    events = model.finish(*events)
    reasons = {event.id: event.reason for event in events if isinstance(event, protocol.Done)}
    assert reasons == {1: "cancelled", 2: "stop"}
    assert answer([event for event in events if getattr(event, "id", 0) == 2]) == RIGHT


def test_a_full_cache_ends_the_longest_and_lets_the_others_go_on(load: Loader) -> None:
    model = load(parallel=2, context=256)
    again = model.served._voice.model.tokenize("1", special=False)[0]
    endless = Sampling(temperature=0, logit_bias=(LogitBias(again, 1000.0),))
    events: list[protocol.Event] = []
    events += model.served.serve(protocol.Generate(1, talk("What is 1 + 1? " * 8), endless))
    events += model.served.serve(protocol.Generate(2, talk(SUM), GREEDY))
    events = model.finish(*events)
    reasons = {event.id: event.reason for event in events if isinstance(event, protocol.Done)}
    assert reasons == {1: "context", 2: "stop"}


def test_an_aborted_batch_is_computed_again(model: Model) -> None:
    events = list(model.served.serve(protocol.Generate(1, talk(SUM), GREEDY)))
    for step in range(60):
        if step % 7 == 0:
            model.abort.set()
        events += model.served.step()
    assert answer(model.finish(*events)) == RIGHT


def test_an_abort_at_any_moment_is_harmless(model: Model) -> None:
    long = "What is 1 + 1? " * 60 + SUM
    undisturbed = text(model.ask(long, limits=Limits(max_tokens=50)), protocol.Thinking)
    ended = threading.Event()

    def disturb() -> None:
        for _ in range(100):  # not for ever: a batch that takes longer than the waits would never end
            if ended.wait(0.005):
                return
            model.abort.set()

    disturber = threading.Thread(target=disturb)
    disturber.start()
    try:
        for _ in range(3):
            events = model.ask(long, limits=Limits(max_tokens=50))
            assert text(events, protocol.Thinking) == undisturbed
            assert answer(model.ask(SUM)) == RIGHT
    finally:
        ended.set()
        disturber.join()


def test_tokens_are_continued_beyond_the_end(model: Model) -> None:
    tokens = model.served._prompter.prompt(talk(SUM))[0]
    limits = Limits(max_tokens=200)
    ended = model.finish(*model.served.serve(protocol.Continue(1, tokens, GREEDY, limits)))
    assert done(ended).reason == "stop"
    on = model.finish(*model.served.serve(protocol.Continue(2, tokens, GREEDY, limits, ignore_end=True)))
    assert (done(on).reason, done(on).usage.completion_tokens) == ("length", 200)
    read = model.finish(*model.served.serve(protocol.Continue(3, tokens, GREEDY, Limits(max_tokens=0))))
    assert (done(read).usage.completion_tokens, done(read).reason) == (0, "length")
