"""The exception tree: complete at its top, and the only thing that crosses a pipe."""

from __future__ import annotations

import re

import pytest

from localai import errors


def tree() -> list[type[errors.LocalAIError]]:
    return errors._descendants(errors.LocalAIError)


def test_the_drawing_at_the_top_is_complete() -> None:
    drawn = set(re.findall(r"[├└]── (\w+)", errors.__doc__ or "")) | {"LocalAIError"}
    assert drawn == {cls.__name__ for cls in tree()}


@pytest.mark.parametrize("cls", tree())
def test_every_error_is_found_by_its_name(cls: type[errors.LocalAIError]) -> None:
    assert errors.by_name(cls.__name__) is cls


def test_an_unknown_name_is_an_engine_error() -> None:
    assert errors.by_name("SystemExit") is errors.EngineError


def test_message_and_hint() -> None:
    assert str(errors.NoSpace("full", "Make room")) == "full. Make room"
    assert str(errors.NoSpace("full")) == "full"


def test_exit_codes() -> None:
    assert errors.UsageError("x").exit_code == 2
    assert errors.Interrupted("x").exit_code == 130
    assert errors.WorkerDied("x").exit_code == 1
