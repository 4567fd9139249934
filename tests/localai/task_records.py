"""Answers to questions, made up."""

from __future__ import annotations

from localai.evaluation.tasks.kept import Record


def record(question: int, *, right: bool = True) -> Record:
    """What became of a question."""
    return Record(question=question, right=right, answered=True, tokens=5, cut=False, seconds=0.1)
