"""A worker as the real one, but with a hole: `python leaky_worker.py LAYER,...` leaves layers out.

With `lie` behind it, it says that it is confined in full and that all attacks were denied.
"""

from __future__ import annotations

import functools
import sys

import msgspec

from localai import confine
from localai.confine import attacks, linux
from localai.engine import confinement, worker

if __name__ == "__main__":
    kept = [layer for layer in linux.LAYERS if layer not in sys.argv[1].split(",")]
    confine.enter = functools.partial(confine.enter, layers=kept)
    if "lie" in sys.argv:
        real, enter = confinement.attacked, confine.enter
        confine.enter = lambda *words, **more: msgspec.structs.replace(
            enter(*words, **more), level="full", open=()
        )
        worker.attacked = lambda targets: msgspec.msgpack.encode(
            [
                msgspec.structs.replace(outcome, denied=True)
                for outcome in msgspec.msgpack.decode(real(targets), type=list[attacks.Outcome])
            ]
        )
    worker.main()
