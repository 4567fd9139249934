"""What the kernel beneath the tests has: what it lacks is a reason to skip, what we make of it is not."""

from __future__ import annotations

import pytest

from localai.confine import landlock


def landlock_abi() -> int:
    """The version of its Landlock; 0: it has none, or nobody may use it here."""
    try:
        return landlock.version()
    except OSError:
        return 0


needs_landlock = pytest.mark.skipif(landlock_abi() == 0, reason="the sandbox is full only with Landlock")
