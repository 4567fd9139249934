"""The options of `localai quantize --compare`. What is done with them is in `localai.cli.compare_work`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from localai.cli.quantize_optimize import Optimizing
from localai.errors import UsageError

ROUNDS = 3
"""How often the speed of each type is measured unless told otherwise."""
_ALSO_OPTIMIZING = ("chunks", "text")
"""What says on which text the result of --optimize is checked."""


@dataclasses.dataclass(frozen=True)
class Comparing:
    """Comparing types."""

    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Make the useful types, measure each on this machine, and say which to take."
        ),
    ] = False
    report: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE.html",
            help="With --compare: write a page for people, or as FILE.svg the pictures.",
            show_default=False,
        ),
    ] = None
    chunks: Annotated[
        int | None,
        typer.Option(
            min=1,
            max=1_000_000,
            help="With --compare, --optimize: measure the loss on so many chunks of the text. Default: 4 to "
            "64, as many as take ten minutes.",
            show_default=False,
        ),
    ] = None
    context: Annotated[
        int | None,
        typer.Option(
            "--context",
            "-c",
            min=32,
            max=131_072,
            help="With --compare: tokens of a chunk. Default: 512.",
            show_default=False,
        ),
    ] = None
    text: Annotated[
        Path | None,
        typer.Option(
            help="With --compare, --optimize: measure the loss on this text. Default: a mixed one of our "
            "own.",
            show_default=False,
        ),
    ] = None
    rounds: Annotated[
        int | None,
        typer.Option(
            min=2,
            max=100,
            help=f"With --compare: measure each speed so often. Default: {ROUNDS}.",
            show_default=False,
        ),
    ] = None
    tasks: Annotated[
        int | None,
        typer.Option(
            metavar="N",
            min=0,
            max=10_000,
            help="With --compare: ask each type so many questions; 0: none. Default: all that suit the "
            "model, if they take ten minutes at most.",
            show_default=False,
        ),
    ] = None

    def require_compare(self, optimizing: Optimizing) -> None:
        """UsageError for an option that only --compare has without it, and for what it does not go with."""
        if self.compare and optimizing.optimize:
            raise UsageError("--compare and --optimize exclude each other", "Give one of them")
        given = [field.name for field in dataclasses.fields(self) if getattr(self, field.name) is not None]
        if optimizing.optimize:
            given = [name for name in given if name not in _ALSO_OPTIMIZING]
        if not self.compare and (alone := [name for name in given if name != "compare"]):
            raise UsageError(f"--{alone[0]} is for --compare", f"Add --compare, or leave out --{alone[0]}")
