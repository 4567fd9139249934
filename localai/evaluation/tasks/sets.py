"""The sets of questions (where they are from: ORIGIN.md beside this), and which of them suits a model.

The questions of a set are in such an order that any beginning of it is a fair mixture.
"""

from __future__ import annotations

import hashlib
import tomllib
from functools import cache
from pathlib import Path
from typing import Final

import msgspec

from localai.engine.settings import Limits, Sampling
from localai.evaluation.tasks import sums
from models import templates
from models.header import Header

SUMS: Final = "sums"
REASONING: Final = "reasoning"
QUESTIONS: Final = "questions"

SEED: Final = 20_250_120
"""Of the first question; each further one has the next."""
_GREEDY: Final = Sampling(temperature=0.0)


class Question(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One question."""

    id: str
    """What it is called, in its set."""
    ask: str
    answer: str
    """A whole number in digits, or words in lower case."""
    also: tuple[str, ...] = ()
    """Other words that are as right."""
    choices: tuple[str, ...] = ()
    """The words among which a reply can decide: what it names last of them is its answer."""


class TaskSet(msgspec.Struct, frozen=True, kw_only=True):
    """A set and how it is asked."""

    name: str
    title: str
    """What it is, in a few words."""
    questions: tuple[Question, ...]
    wish: str = ""
    """Stands below each question: in which form the answer is wanted."""
    sampling: Sampling
    """What it leaves open is what the model recommends. The seed is that of each question."""
    limits: Limits
    typical: int
    """Tokens that a model needs for a question, thinking and answer, as a mean."""

    @property
    def sha256(self) -> str:
        """Of all that answers depend on."""
        return hashlib.sha256(msgspec.json.encode((self, SEED))).hexdigest()

    @property
    def context(self) -> int:
        """Tokens of context that it needs: 512 for a question are more than any has."""
        return 512 + (self.limits.max_tokens or 0)


def fitting(header: Header) -> TaskSet | None:
    """The set that suits a model; None for one that nobody can converse with here.

    That is a model without a chat template, or with one that nobody has read.
    """
    template = header.chat_template or ""
    if templates.R1.get(templates.digest(template)) == "r1-nano":
        return named(SUMS)
    if header.token_facts.r1_markers:
        return named(REASONING)
    if not template or not templates.may_run(template, templates.accepted()):
        return None
    return named(REASONING if header.reasons else QUESTIONS)


def estimate(tasks: TaskSet, tokens_per_s: float, questions: int = 0) -> float:
    """About how many seconds the first `questions` of a set take, 0: all, at that speed of generation."""
    count = min(questions or len(tasks.questions), len(tasks.questions))
    return count * tasks.typical / max(tokens_per_s, 1e-3)


@cache
def named(name: str) -> TaskSet:
    """The set of that name, one of the above."""
    return {SUMS: _sums, REASONING: _reasoning, QUESTIONS: _questions}[name]()


def _sums() -> TaskSet:
    return TaskSet(
        name=SUMS,
        title="sums of two whole numbers",
        questions=tuple(Question(f"{a}+{b}", ask, str(a + b)) for ask, a, b in sums.drawn()),
        sampling=_GREEDY,
        limits=Limits(max_tokens=300),
        typical=110,
    )


def _reasoning() -> TaskSet:
    return TaskSet(
        name=REASONING,
        title="problems to think about",
        questions=_read("reasoning.toml"),
        wish="Think step by step. Put the final answer into \\boxed{}.",
        sampling=Sampling(temperature=0.6, top_p=0.95),
        limits=Limits(max_tokens=2560, think_budget=2048),
        typical=1300,
    )


def _questions() -> TaskSet:
    return TaskSet(
        name=QUESTIONS,
        title="short questions",
        questions=_read("questions.toml"),
        wish="Answer in one short sentence.",
        sampling=_GREEDY,
        limits=Limits(max_tokens=48, stop=("\n",)),
        typical=15,
    )


def _read(name: str) -> tuple[Question, ...]:
    with (Path(__file__).parent / name).open("rb") as file:
        return msgspec.convert(tomllib.load(file)["question"], tuple[Question, ...])
