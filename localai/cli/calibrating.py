"""The options that say which text an importance matrix is collected on."""

from __future__ import annotations

import dataclasses
from typing import TYPE_CHECKING, Annotated

import typer

from localai.cli import options
from localai.errors import UsageError

if TYPE_CHECKING:
    from quantize.protocol import Forecast
    from quantize.self_text import SelfText
    from quantize.texts import Text

_LEAST, _MOST = 1_024, 1_000_000


@dataclasses.dataclass(frozen=True)
class Calibrating:
    """The text for an importance matrix."""

    calibrate: Annotated[
        str | None,
        typer.Option(
            metavar="self|FILE",
            help="self: have the unquantized model write it, answering questions. FILE: a text of your own; "
            "markers in it, as of a chat, are read as markers. Default: one of many kinds that comes along.",
            show_default=False,
        ),
    ] = None
    calibrate_tokens: Annotated[
        int | None,
        typer.Option(
            "--calibrate-tokens",
            metavar="TOKENS",
            min=_LEAST,
            max=_MOST,
            help="With --calibrate self: about how many it writes. Default: 8192.",
            show_default=False,
        ),
    ] = None

    def require_unused(self) -> None:
        """UsageError if one of the options is given: no importance matrix is made."""
        for option in self.words()[:1]:
            raise UsageError(f"{option} is for --imatrix auto", "Add it, or leave the text out")

    def text(self) -> Text | SelfText:
        """The text, or how it is to be written; UsageError."""
        from localai.evaluation.calibration import SELF, calibration

        choice = self.calibrate
        if choice not in (None, SELF):
            choice = str(options.path(choice))
        return calibration(choice, self.calibrate_tokens)

    def require_possible(self, known: Forecast, source: str) -> None:
        """UnsupportedModel if the model is to write the text, and nobody can talk to it."""
        from quantize.self_text import SelfText, require_chat

        if self.calibrate is not None and isinstance(self.text(), SelfText):
            require_chat(known, source)

    def words(self) -> list[str]:
        """The options again."""
        words = [] if self.calibrate is None else ["--calibrate", self.calibrate]
        if self.calibrate_tokens is not None:
            words += ["--calibrate-tokens", str(self.calibrate_tokens)]
        return words
