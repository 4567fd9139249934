"""The base of all messages between app and worker, and of their numbers."""

from __future__ import annotations

from typing import Annotated

import msgspec

Whole = Annotated[int, msgspec.Meta(ge=0)]
Amount = Annotated[float, msgspec.Meta(ge=0, le=1e15)]
"""What events tell in numbers: a worker that a model has taken over may tell anything, such as NaN."""


class Frame(msgspec.Struct, frozen=True, tag=True, forbid_unknown_fields=True):
    """Base of all frames; the class name is the tag."""
