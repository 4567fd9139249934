"""The options of `localai quantize --compare`."""

from __future__ import annotations

import dataclasses
from typing import Annotated

import typer


@dataclasses.dataclass(frozen=True)
class Comparing:
    """Comparing types."""

    compare: Annotated[
        bool,
        typer.Option(
            "--compare", help="Make the useful types, measure each on this machine, and say which to take."
        ),
    ] = False
