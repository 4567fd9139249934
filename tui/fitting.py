"""Whether a model fits this machine, and why: what `models.verdict` says, as the screens show it."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from models import catalog
from models.alternatives import of_entry, of_header
from models.header import Header
from models.machine import Machine
from models.sketch import outline
from models.verdict import Kind
from models.verdict import Verdict as Found

Verdict = Literal["fits", "tight", "too large", ""]
"""tight: it runs if other programs give memory back. "": not known before the file is here."""

_SHOWN: Final[dict[Kind, Verdict]] = {
    "fits": "fits",
    "fits with less context": "fits",
    "tight": "tight",
    "too large": "too large",
    "unknown": "",
}


class Fit(msgspec.Struct, frozen=True):
    """What comes of it."""

    verdict: Verdict
    why: str
    """One sentence, or two where a GPU helps or another model is better."""
    tokens_per_s: float = 0.0
    """How fast it may be; 0: not known."""


def fit_of(header: Header, machine: Machine) -> Fit:
    """For a file with `header`."""
    return _shown(of_header(header, machine))


def fit_of_unseen(base: str, file_type: str, file_size: int, parameters: int, machine: Machine) -> Fit:
    """For one that is not here: the model of the catalogue called `base` in `file_type`.

    Without a `base`, its size in bytes and its parameters must do; 0: not known either.
    """
    for entry in catalog.entries():
        if entry.name == base:
            return _shown(of_entry(entry, file_type, machine))
    header = outline(file_type, file_size, parameters)
    if header is None:
        return Fit("", "Whether it fits is known once it is here.")
    return _shown(of_header(header, machine))


def _shown(found: Found) -> Fit:
    said = [found.why, found.gpu, found.alternative if found.kind != "fits" or found.is_slow else ""]
    return Fit(_SHOWN[found.kind], " ".join(filter(None, said)), found.tokens_per_s)
