"""Which text importance matrices are collected on: ours, one of the user's, or one that the model writes."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from localai.errors import UsageError
from localai.evaluation import texts
from quantize.self_text import TOKENS, SelfText
from quantize.texts import Text

SELF: Final = "self"
"""The choice of a text that the model writes."""


def calibration(choice: str | None = None, tokens: int | None = None) -> Text | SelfText:
    """The text that `choice` names: None for ours, `SELF`, or a file, in which markers are read as markers.

    `tokens`: about how many the model writes. UsageError for a file that is no text, and for `tokens` of a
    text that is there already.
    """
    if choice == SELF:
        return SelfText(tokens or TOKENS)
    if tokens is not None:
        raise UsageError(
            "--calibrate-tokens is for a text that the model writes",
            f"Add --calibrate {SELF}, or leave it out",
        )
    if choice is None:
        return Text(*texts.built_in(texts.CALIBRATION))
    path = Path(choice)
    return Text(choice, texts.read(path).content, special=True)
