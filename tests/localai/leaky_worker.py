"""A worker as the real one, but with a hole: `python leaky_worker.py LAYER` leaves that layer out."""

from __future__ import annotations

import functools
import sys

from localai import confine
from localai.confine import linux
from localai.engine import worker

if __name__ == "__main__":
    kept = [layer for layer in linux.LAYERS if layer != sys.argv[1]]
    confine.enter = functools.partial(confine.enter, layers=kept)
    worker.main()
