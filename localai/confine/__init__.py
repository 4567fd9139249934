"""The sandbox of the workers: what confines them on this system, and an honest report of what was achieved.

`choice` is what the user wants, `report` the words for what was achieved. On Linux a worker confines itself
(`linux`), on macOS the app starts it confined (`macos`), elsewhere nothing does, and that is what is said.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Sequence
from typing import TYPE_CHECKING

from localai.confine.choice import Mode

if TYPE_CHECKING:  # what a command line needs of this package is a choice, and that shall start at once
    from localai.confine.report import LayerName, Profile, Sandbox


def enter(
    mode: Mode,
    profile: Profile,
    reads: Sequence[str],
    prepare: Callable[[], object] = lambda: None,
    *,
    lists: Sequence[str] = (),
    layers: Collection[LayerName] | None = None,
) -> Sandbox:
    """Confine this process for good, as far as `mode` says and the system can; what was achieved.

    It can then read `reads` (files, or folders with all in them) and the runtime, see what is in the folders
    `lists`, compute, and answer.
    `prepare` brings in what must be there before the last door closes. `layers` leaves others out, as on a
    system that has not got them. Raises nothing: whoever requires a level looks at the result.
    """
    from localai.confine.report import NOT_LINUX, OFF

    if mode == "off":
        prepare()
        return OFF
    system = str(sys.platform)  # else the checker of types would leave all systems but its own out
    if system == "linux":
        from localai.confine import linux

        which = linux.LAYERS if layers is None else layers
        return linux.enter(profile, reads, prepare, lists=lists, layers=which)
    prepare()
    if system == "darwin":
        from localai.confine import macos

        return macos.found(profile)
    return NOT_LINUX


def command(words: Sequence[str], mode: Mode, reads: Sequence[str], *, writes: bool = False) -> list[str]:
    """The command that starts a worker: on macOS one that is confined from its beginning.

    `writes`: it writes to files that it inherits open.
    """
    if str(sys.platform) != "darwin" or mode == "off":
        return list(words)
    from localai.confine import macos

    return macos.command(words, reads, writes=writes)
