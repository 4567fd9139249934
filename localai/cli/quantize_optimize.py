"""The options of `localai quantize --optimize` and `--recipe`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer


@dataclasses.dataclass(frozen=True)
class Optimizing:
    """A type for each tensor."""

    optimize: Annotated[
        bool,
        typer.Option(
            "--optimize",
            help="Choose the type of every tensor for the least loss within --max-size.",
        ),
    ] = False
