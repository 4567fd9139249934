"""How much a worker must be confined: as the user chose for this run, by flag or by environment.

One place for the whole program and the processes that it starts: the environment variable LOCALAI_SANDBOX,
which `--sandbox` sets. What an organization requires comes on top (`localai.policy`).
"""

from __future__ import annotations

import os
from typing import Final, Literal, cast, get_args

from localai.errors import UsageError

Mode = Literal["require", "prefer", "off"]
"""require: no model is loaded below the level `full`; prefer: as far as the system allows; off: not."""

VARIABLE: Final = "LOCALAI_SANDBOX"
DEFAULT: Final[Mode] = "prefer"


def mode() -> Mode:
    """What holds for this run. UsageError if the environment says something else."""
    text = os.environ.get(VARIABLE) or DEFAULT
    if text not in get_args(Mode):
        raise UsageError(f"{VARIABLE} is {text!r}", "Set it to require, prefer or off")
    return cast(Mode, text)


def choose(wanted: Mode | None) -> None:
    """Have `wanted` hold for this run and for the processes that it starts; None: leave it as it is."""
    if wanted is not None:
        os.environ[VARIABLE] = wanted
