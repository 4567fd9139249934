"""Speculation with the real tiny model: whatever is drafted, the text is the same."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from localai.chat.messages import ChatMessage
from localai.engine import protocol
from localai.engine.context import AbortFlag
from localai.engine.generate import Generation
from localai.engine.serving import Served
from localai.engine.settings import Limits, LoadOptions, Sampling
from localai.errors import ModelFileError, UsageError

GREEDY = Sampling(temperature=0)
SUMS = [f"What is {a} + {b}?" for a, b in ((47, 85), (6, 7), (128, 256), (512, 489), (305, 470), (99, 1))]
Load = Callable[..., Served]


@pytest.fixture
def load(nano: Path) -> Iterator[Load]:
    with ExitStack() as resources:

        def served(**options: object) -> Served:
            chosen = LoadOptions(**{"threads": 1, **options})  # type: ignore[arg-type]
            loaded = Served(nano, chosen, AbortFlag(), resources, lambda share: True)
            loaded.describe("")
            return loaded

        yield served


def ask(
    served: Served, question: str, sampling: Sampling = GREEDY, limits: Limits = Limits()
) -> tuple[str, protocol.Done]:
    """(thinking and answer, end) of the reply."""
    events = list(served.serve(protocol.Generate(1, [ChatMessage("user", question)], sampling, limits)))
    while served.scheduler.busy:
        events += served.step()
    parts = [e.text for e in events if isinstance(e, protocol.Thinking | protocol.Answer)]
    assert isinstance(events[-1], protocol.Done)
    return "".join(parts), events[-1]


def test_drafts_from_the_conversation_change_nothing(load: Load) -> None:
    plain, fast = load(speculate=False), load(speculate=True)
    drafted = accepted = 0
    for question in SUMS * 3:
        text, end = ask(fast, question)
        assert text == ask(plain, question)[0]
        drafted += end.speculated.drafted
        accepted += end.speculated.accepted
    assert 0 < accepted <= drafted


def test_without_speculation_nothing_is_drafted(load: Load) -> None:
    assert ask(load(speculate=False), SUMS[0])[1].speculated == protocol.Speculated(0, 0)


def test_a_seeded_reply_is_not_speculated_on(load: Load) -> None:
    hot = Sampling(temperature=0.5, seed=3)
    assert ask(load(), SUMS[0], hot)[1].speculated == protocol.Speculated(0, 0)


@pytest.fixture
def always_drafts(monkeypatch: pytest.MonkeyPatch) -> None:
    """Drafts of any length at any time, also for seeded replies, which makes them comparable."""
    monkeypatch.setattr("localai.engine.speculation.DraftPolicy.length", lambda self, match, cost=None: 7)
    submit = Served._submit

    def seeded(self: Served, generation: Generation, *, speculate: bool = True) -> None:
        generation.reproducible = False
        submit(self, generation, speculate=speculate)

    monkeypatch.setattr(Served, "_submit", seeded)


@pytest.mark.usefixtures("always_drafts")
@pytest.mark.parametrize("seed", range(4))
def test_chance_draws_the_same_with_drafts_and_without(load: Load, nano: Path, seed: int) -> None:
    hot = Sampling(temperature=1.3, top_p=1.0, seed=seed)
    limits = Limits(max_tokens=150)
    plain = ask(load(speculate=False), SUMS[seed], hot, limits)
    by_text = ask(load(), SUMS[seed], hot, limits)
    by_model = ask(load(draft=str(nano)), SUMS[seed], hot, limits)
    assert by_text[0] == by_model[0] == plain[0]
    assert by_model[1].speculated.drafted > by_model[1].speculated.accepted > 0


@pytest.mark.usefixtures("always_drafts")
@pytest.mark.parametrize("limits", [Limits(max_tokens=23), Limits(think_budget=20), Limits(stop=("= **",))])
def test_limits_hold_in_the_middle_of_a_draft(load: Load, nano: Path, limits: Limits) -> None:
    plain, drafted = load(speculate=False), load(draft=str(nano))
    for question in SUMS:
        text, end = ask(plain, question, limits=limits)
        other, other_end = ask(drafted, question, limits=limits)
        assert (other, other_end.reason, other_end.stop) == (text, end.reason, end.stop)
        assert other_end.usage.completion_tokens == end.usage.completion_tokens


def test_a_model_drafts_for_another(load: Load, nano: Path) -> None:
    plain, drafted = load(speculate=False), load(draft=str(nano))
    for question in SUMS:
        text, _ = ask(drafted, question)
        assert text == ask(plain, question)[0]
    assert drafted.scheduler.cache.sequences[0].tokens  # the target's cache, not the draft's


@pytest.mark.usefixtures("always_drafts")
def test_the_draft_of_the_same_model_always_comes_true(load: Load, nano: Path) -> None:
    end = ask(load(draft=str(nano)), SUMS[3])[1]
    assert end.speculated.accepted >= 0.8 * end.speculated.drafted > 0


@pytest.mark.usefixtures("always_drafts")
def test_a_draft_goes_no_further_than_the_context(load: Load, nano: Path) -> None:
    served = load(draft=str(nano), context=256)
    question = "What is 1 + 1? " * 13
    text, end = ask(served, question)
    assert end.reason in ("context", "stop")
    plain, plain_end = ask(load(speculate=False, context=256), question)
    assert (text, end.reason) == (plain, plain_end.reason)


def test_a_model_with_other_tokens_cannot_draft(load: Load, nano: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.gguf"
    data = nano.read_bytes()
    assert "Ġdigits".encode() in data
    other.write_bytes(data.replace("Ġdigits".encode(), "Ġdigitz".encode()))
    with pytest.raises(UsageError, match=r"other\.gguf cannot draft for this model"):
        load(draft=str(other))


def test_a_draft_that_is_not_a_model(load: Load, tmp_path: Path) -> None:
    bad = tmp_path / "bad.gguf"
    bad.write_bytes(b"no model" * 100)
    with pytest.raises(ModelFileError, match=r"bad\.gguf"):
        load(draft=str(bad))
