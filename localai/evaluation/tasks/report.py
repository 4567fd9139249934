"""What the answers to a set of questions tell: `localai evaluate --tasks --json` prints it (docs/json.md)."""

from __future__ import annotations

import msgspec

from localai.confine.report import Sandbox
from localai.evaluation.tasks.run import Result
from localai.evaluation.tasks.shares import Paired, paired, share


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """One question and what became of it. Without a reference, or where it was not asked, that is None."""

    question: str
    """Its name in the set."""
    right: bool
    answered: bool
    cut: bool
    tokens: int
    reference_right: bool | None = None


class Report(msgspec.Struct, frozen=True, kw_only=True):
    """One model, and perhaps a reference. What is None unless there is one has it as its default."""

    model: str
    reference: str | None = None
    set: str
    set_title: str
    set_sha256: str
    asked: int
    asked_planned: int
    """More than `asked` if it was stopped."""
    right: int
    share: float
    share_stderr: float
    answered: int
    """Replies in which there was an answer."""
    cut: int
    """Replies that were as long as they might be, in their thinking or in all."""
    reference_asked: int | None = None
    reference_right: int | None = None
    reference_share: float | None = None
    reference_share_stderr: float | None = None
    compared: Paired | None = None
    questions: list[Asked]
    think_budget: int | None
    """Tokens of thinking for each question, where it is limited."""
    file_type: str
    size: int
    """Bytes of all tensors."""
    reference_file_type: str | None = None
    reference_size: int | None = None
    backend: str
    threads: int
    kv_type: str
    llama_cpp_commit: str
    asked_now: int
    """Questions to both that were asked now; other answers were kept."""
    seconds: float
    tokens_per_question: float
    notes: list[str]
    sandbox: Sandbox


def report(found: Result, reference: Result | None) -> Report:
    """What `found` tells, which must have an answer, beside that of a reference to the same questions."""
    right = found.answers.right
    records, loaded = found.records, found.loaded
    own = share(right, len(records))
    other = {} if reference is None else {one.question: one.right for one in reference.records}
    return Report(
        model=found.model,
        set=found.tasks.name,
        set_title=found.tasks.title,
        set_sha256=found.tasks.sha256,
        asked=len(records),
        asked_planned=found.asked_planned,
        right=right,
        share=own.value,
        share_stderr=own.stderr,
        answered=sum(one.answered for one in records),
        cut=sum(one.cut for one in records),
        questions=[
            Asked(
                question=found.tasks.questions[one.question].id,
                right=one.right,
                answered=one.answered,
                cut=one.cut,
                tokens=one.tokens,
                reference_right=other.get(one.question),
            )
            for one in records
        ],
        think_budget=found.tasks.limits.think_budget,
        file_type=loaded.file_type,
        size=loaded.size,
        backend=loaded.backend,
        threads=loaded.threads,
        kv_type=loaded.kv_type,
        llama_cpp_commit=found.llama_cpp_commit,
        asked_now=found.asked_now + (0 if reference is None else reference.asked_now),
        seconds=found.seconds + (0.0 if reference is None else reference.seconds),
        tokens_per_question=sum(one.tokens for one in records) / len(records),
        notes=list(loaded.notes),
        sandbox=found.sandbox,
        **({} if reference is None else _beside(found, reference)),  # type: ignore[arg-type]
    )


def _beside(found: Result, reference: Result) -> dict[str, object]:
    answers = reference.answers
    figure = share(answers.right, answers.asked) if answers.asked else None
    return {
        "reference": reference.model,
        "reference_asked": answers.asked,
        "reference_right": answers.right,
        "reference_share": None if figure is None else figure.value,
        "reference_share_stderr": None if figure is None else figure.stderr,
        "compared": paired(found.records, reference.records),
        "reference_file_type": reference.loaded.file_type,
        "reference_size": reference.loaded.size,
    }
